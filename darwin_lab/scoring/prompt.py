"""What an item looks like to a model: the context, and what may follow it.

Takes items and a tokenizer, gives texts and token ids by the rule of lm-evaluation-harness 0.4.13. Knows nothing
about models.
"""

from collections.abc import Sequence
from typing import Any

from darwin_lab.errors import LabError
from darwin_lab.scoring.items import Item


def context_of(item: Item) -> str:
    """The text an item's answer follows: ARC's `Question: {q}\\nAnswer:`, or the bare question (continuation), after
    the solved items in `meta.prefix` where there are any."""
    asked = item.question if item.meta.get("style") == "continuation" else f"Question: {item.question}\nAnswer:"
    return str(item.meta.get("prefix", "")) + asked


def target_of(item: Item) -> str:
    """What a right answer says: the right choice, or the worked solution (meta.solution), or the answer."""
    return item.choices[int(item.answer)] if item.choices else str(item.meta.get("solution", item.answer))


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
    the item when nothing follows, when the item has no choices, when the tokenizer lacks one of its characters, and
    when two choices come out as the same tokens.
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
    encoded = encode(tokenizer, wholes)
    owners = [item for item in items for _ in item.choices or ()]
    for item, text, ids in zip(owners, wholes, encoded, strict=True):
        require_spelled(tokenizer, item, text, ids)
    whole_ids = iter(encoded)
    rows = []
    for item, context in zip(items, context_ids, strict=True):
        options = [tuple(next(whole_ids)[len(context) :]) for _ in item.choices or ()]
        for index, option in enumerate(options):
            if option in options[:index]:
                raise LabError(
                    f"item {item.id!r}: choices {options.index(option)} and {index} are the same tokens under this "
                    "tokenizer, so no model can tell them apart; leave the item out or use another model"
                )
            if not option or not context:
                raise LabError(
                    f"item {item.id!r}: choice {index} adds no token to its context under this tokenizer; "
                    "reword the question or the choice"
                )
        rows.append((tuple(context), options))
    return rows


def require_spelled(tokenizer: Any, item: Item, text: str, ids: Sequence[int]) -> None:
    """Raises LabError that names the item and its first characters that only an unknown token can stand for."""
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown in (tokenizer.bos_token_id, tokenizer.eos_token_id) or unknown not in ids:
        return
    missing = ""
    if tokenizer.is_fast:
        found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        spans = zip(found["input_ids"], found["offset_mapping"], strict=True)
        missing = "".join(dict.fromkeys(text[slice(*span)] for token, span in spans if token == unknown))
    raise LabError(
        f"item {item.id!r}: the model's tokenizer has no token for {(missing or text)[:12]!r}; use a model of this "
        "language, or leave the item out"
    )
