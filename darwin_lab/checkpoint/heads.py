"""Whether a checkpoint's output head is its embedding: what config.json says of it, and whether a stored head keeps it.

Takes opened checkpoints, gives yes and no and a refusal. Only `require_true_tie` reads weights; must not know merging.
"""

from functools import lru_cache

from darwin_lab.checkpoint.anatomy import Anatomy, has_token_rows, read_anatomy
from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.errors import LabError

_BLOCK = 1 << 22
_WITH_HEAD = ("ForCausalLM", "ForConditionalGeneration")


def is_tied(checkpoint: Checkpoint) -> bool:
    """Whether the config says that the head is the embedding; not where its text part and the whole disagree."""
    return _said(checkpoint) == {True}


def has_head(anatomy: Anatomy) -> bool:
    """Whether a head is stored."""
    return any(part.role == "lm_head" for part in anatomy.parts.values())


def is_untied(checkpoint: Checkpoint) -> bool:
    """Whether the config says outright that the head is not the embedding; one that is silent may mean either."""
    return _said(checkpoint) == {False} and checkpoint.text_config.get("tie_word_embeddings") is False


def lacks_head(checkpoint: Checkpoint, anatomy: Anatomy) -> bool:
    """Whether the config of a language model says that it has a head of its own and none is stored.

    A tensor beside the layers whose role is not known may be that head, so with one this is False.
    """
    named = checkpoint.config.get("architectures")
    speaks = isinstance(named, list) and bool(named) and str(named[0]).endswith(_WITH_HEAD)
    unknown = any(
        part.role == "other" and part.layer is None and len(part.shape) == 2 for part in anatomy.parts.values()
    )
    return speaks and is_untied(checkpoint) and not has_head(anatomy) and not unknown


@lru_cache(maxsize=16)
def require_true_tie(checkpoint: Checkpoint) -> None:
    """Raises `LabError` when the config ties the head to the embedding and the stored head has other numbers.

    Reads both, block by block, where a head is stored beside such a config; nothing otherwise.
    """
    if not is_tied(checkpoint):
        return
    tables = [part for part in read_anatomy(checkpoint).parts.values() if part.tower == "text" and has_token_rows(part)]
    heads = [part.name for part in tables if part.role == "lm_head" and len(part.shape) == 2]
    embedding = next((part.name for part in tables if part.role == "embedding"), None)
    for head in heads:
        if embedding is not None and not _same_bytes(checkpoint, head, embedding):
            raise LabError(
                f"{checkpoint.name}: its config.json ties the head to the embedding, but {head} differs from "
                f"{embedding}; if that head is meant set tie_word_embeddings to false, else load the model in "
                "transformers and save it again"
            )


def _said(checkpoint: Checkpoint) -> set[bool]:
    values = (config.get("tie_word_embeddings") for config in (checkpoint.text_config, checkpoint.config))
    return {value for value in values if isinstance(value, bool)}


def _same_bytes(checkpoint: Checkpoint, one: str, other: str) -> bool:
    import torch

    infos = checkpoint.tensors[one], checkpoint.tensors[other]
    if infos[0].shape != infos[1].shape or infos[0].dtype != infos[1].dtype:
        return False
    for start in range(0, infos[0].numel, _BLOCK):
        count = min(_BLOCK, infos[0].numel - start)
        blocks = [checkpoint.read_flat(name, start, count).view(torch.uint8) for name in (one, other)]
        if not torch.equal(*blocks):
            return False
    return True
