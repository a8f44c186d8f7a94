"""Greedy answers: what a model writes after the context, compared with the right answer.

Takes items and a resident model, gives a score. Prompts of one length decode together, so no padding stands before
any token; a row leaves its batch as soon as its answer line is complete. Knows nothing about candidates or storage.
"""

from collections.abc import Sequence

import numpy as np
import torch

from darwin_lab.engine.resident import Resident
from darwin_lab.errors import LabError
from darwin_lab.progress import Tick, silent
from darwin_lab.scoring.items import Item
from darwin_lab.scoring.prompt import context_of, encode
from darwin_lab.scoring.score import Score

BATCH_ROWS = 128


def score_generation(resident: Resident, items: Sequence[Item], max_new_tokens: int = 64, tick: Tick = silent) -> Score:
    """Score items by their greedy answer: right when the first line, stripped, equals the answer.

    An item with choices is asked for the text of its right choice. Decoding ends at an end-of-text token, at a new
    line, after `max_new_tokens`, or where the model's context ends. p_gold is NaN and loglik empty.
    Raises LabError for an item whose prompt already fills the model's context.
    """
    prompts = [tuple(ids) for ids in encode(resident.tokenizer, [context_of(item) for item in items])]
    for item, prompt in zip(items, prompts, strict=True):
        if not 0 < len(prompt) < resident.context_length:
            raise LabError(
                f"item {item.id!r} has a prompt of {len(prompt)} tokens, but the model reads "
                f"{resident.context_length}; leave the item out or use a model with a longer context"
            )
    answers = [""] * len(items)
    batches = _batches(prompts)
    with resident.lock, torch.inference_mode():
        for number, rows in enumerate(batches):
            tick(number / len(batches), f"answering batch {number + 1} of {len(batches)}")
            for row, text in zip(rows, _answer(resident, [prompts[row] for row in rows], max_new_tokens), strict=True):
                answers[row] = text
    tick(1.0, "answered")
    right = np.array([text == _gold(item) for item, text in zip(items, answers, strict=True)], dtype=bool)
    return Score(
        ids=tuple(item.id for item in items),
        tasks=tuple(item.task for item in items),
        acc=right,
        acc_norm=right.copy(),
        p_gold=np.full(len(items), np.nan),
        loglik=((),) * len(items),
        predictions=tuple(answers),
        clusters=tuple(item.cluster for item in items),
    )


def _gold(item: Item) -> str:
    return (item.choices[int(item.answer)] if item.choices else str(item.answer)).strip()


def _batches(prompts: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Rows of equal prompt length, longest first, at most `BATCH_ROWS` together."""
    order = sorted(range(len(prompts)), key=lambda row: (-len(prompts[row]), prompts[row], row))
    batches: list[list[int]] = []
    for row in order:
        if not batches or len(prompts[batches[-1][0]]) != len(prompts[row]) or len(batches[-1]) == BATCH_ROWS:
            batches.append([])
        batches[-1].append(row)
    return batches


def _answer(resident: Resident, prompts: Sequence[tuple[int, ...]], max_new_tokens: int) -> list[str]:
    """The answer line of each of the prompts [B][T], all of one length."""
    ends = _end_ids(resident)
    written: list[list[int]] = [[] for _ in prompts]
    texts = [""] * len(prompts)
    rows = list(range(len(prompts)))
    ids = torch.tensor(prompts, device=resident.device)
    cache = None
    for _ in range(min(max_new_tokens, resident.context_length - len(prompts[0]))):
        out = resident.backbone(input_ids=ids, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        chosen = resident.logits(out.last_hidden_state[:, -1]).argmax(dim=-1).tolist()
        going = []
        for place, (row, token) in enumerate(zip(rows, chosen, strict=True)):
            if token in ends:
                continue
            written[row].append(token)
            texts[row] = resident.tokenizer.decode(written[row], skip_special_tokens=True)
            if "\n" not in texts[row]:
                going.append(place)
        if not going:
            break
        if len(going) < len(rows):
            rows = [rows[place] for place in going]
            cache.reorder_cache(torch.tensor(going, device=resident.device))
        ids = torch.tensor([[chosen[place]] for place in going], device=resident.device)
    return [text.split("\n", 1)[0].strip() for text in texts]


def _end_ids(resident: Resident) -> set[int]:
    ends: set[int] = set()
    generation_config = getattr(resident.model, "generation_config", None)
    for value in (getattr(generation_config, "eos_token_id", None), resident.tokenizer.eos_token_id):
        ends.update(value if isinstance(value, list) else [] if value is None else [value])
    return ends
