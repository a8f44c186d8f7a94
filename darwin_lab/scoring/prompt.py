"""What an item looks like to a model: the context, and what may follow it.

Takes items and a tokenizer, gives texts and token ids by the rule of lm-evaluation-harness 0.4.13. Knows nothing
about models.
"""

from collections.abc import Sequence
from typing import Any

from darwin_lab.errors import LabError
from darwin_lab.scoring.items import Item


def context_of(item: Item) -> str:
    """The text an item's answer follows: ARC's `Question: {q}\\nAnswer:`, or the bare question (continuation)."""
    return item.question if item.meta.get("style") == "continuation" else f"Question: {item.question}\nAnswer:"


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text with the tokenizer's own special tokens; none are added to a text that already
    starts with the beginning-of-text token (lm-eval's `tok_encode`)."""
    prefix_id = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    prefix: str = "" if prefix_id is None else tokenizer.decode([prefix_id])
    marked = [bool(prefix) and text.startswith(prefix) for text in texts]
    encoded: dict[int, list[int]] = {}
    for special in (True, False):
        rows = [row for row, begins in enumerate(marked) if begins != special]
        if rows:
            batch = tokenizer([texts[row] for row in rows], add_special_tokens=special, return_attention_mask=False)
            encoded.update(zip(rows, batch["input_ids"], strict=True))
    return [encoded[row] for row in range(len(texts))]


def encode_options(tokenizer: Any, items: Sequence[Item]) -> list[tuple[tuple[int, ...], list[tuple[int, ...]]]]:
    """Per item its context's ids and each choice's ids (lm-eval's `_encode_pair`).

    Context and delimiter + choice are tokenised together, with trailing white space of the context moved to the
    choice; the choice's ids are what follows as many tokens as the context alone has. Raises LabError that names
    the item when nothing follows, or when the item has no choices.
    """
    contexts: list[str] = []
    wholes: list[str] = []
    for item in items:
        if item.choices is None:
            raise LabError(f"item {item.id!r} has no choices; score it by generation")
        full = context_of(item)
        contexts.append(full.rstrip())
        wholes.extend(f"{full}{item.meta.get('delimiter', ' ')}{choice}" for choice in item.choices)
    context_ids = encode(tokenizer, contexts)
    whole_ids = iter(encode(tokenizer, wholes))
    rows = []
    for item, context in zip(items, context_ids, strict=True):
        options = [tuple(next(whole_ids)[len(context) :]) for _ in item.choices or ()]
        for index, option in enumerate(options):
            if not option or not context:
                raise LabError(
                    f"item {item.id!r}: choice {index} adds no token to its context under this tokenizer; "
                    "reword the question or the choice"
                )
        rows.append((tuple(context), options))
    return rows
