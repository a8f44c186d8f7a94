"""Multiple choice by log-likelihood, exactly lm-evaluation-harness's rule, with nothing computed twice.

Takes items, a tokenizer and a resident model, gives a score. A plan tokenises once and is reusable for every
candidate: a context runs once however many choices and items share it; the choices branch off its cache, and
only positions that predict a choice's token go through the output head. Rows of one batch have contexts of one
length, so no padding ever stands before a token that counts, and recurrent layers see what they would see alone.
Knows nothing about candidates, recipes or storage.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import isfinite
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from darwin_lab.engine.resident import Resident
from darwin_lab.errors import LabError
from darwin_lab.progress import Tick, silent
from darwin_lab.scoring.items import Item
from darwin_lab.scoring.prompt import encode_options
from darwin_lab.scoring.score import Score

BATCH_TOKENS = 4096
FORWARD_COST = 256  # what one more forward costs, in tokens: padding above it is cut into a batch of its own
LOGIT_ELEMENTS = 1 << 24  # positions x vocabulary held at once


@dataclass(frozen=True)
class _Context:
    """One context, the branches that follow it, and what to read where.

    `reads`: (option number in the plan, branch or -1 for the context's last token, position, token predicted).
    """

    tokens: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...]
    reads: tuple[tuple[int, int, int, int], ...]

    @property
    def width(self) -> int:
        return max(map(len, self.branches), default=0)


@dataclass(frozen=True)
class _Reads:
    """Where log-probabilities are read: `positions` [P] of the flattened hidden states, then for each token to be
    scored its position's place in `positions`, its id, and the option it counts for."""

    positions: torch.Tensor
    place: torch.Tensor
    token: torch.Tensor
    option: NDArray[np.int64]


@dataclass(frozen=True)
class _Batch:
    """Contexts of one length [C, T]; branches [R, W] padded on the right, and the context each one follows."""

    context_ids: torch.Tensor
    context_reads: _Reads
    branch_ids: torch.Tensor
    branch_parent: torch.Tensor
    branch_reads: _Reads


class ChoicePlan:
    """How a set of choice items is scored under one tokenizer; made once, used for every candidate.

    Raises LabError for an item without choices, or whose choice has no token of its own.
    """

    def __init__(self, items: Sequence[Item], tokenizer: Any, *, batch_tokens: int = BATCH_TOKENS) -> None:
        self.items = tuple(items)
        self._batch_tokens = batch_tokens
        self._place = {item.id: place for place, item in enumerate(self.items)}
        self._options = np.cumsum([0, *(len(item.choices or ()) for item in self.items)])
        encoded = encode_options(tokenizer, self.items)
        self._longest = [len(context) + max(map(len, options)) - 1 for context, options in encoded]
        self._contexts, self._context_of = _share(encoded)
        self._batches: dict[tuple[int, ...], tuple[_Batch, ...]] = {}

    def score(self, resident: Resident, subset: Sequence[str] | None = None, tick: Tick = silent) -> Score:
        """Score the items, or those whose ids are in `subset` (in that order).

        An item's numbers do not depend on the subset beyond float rounding. Raises LabError for an unknown id and
        for an item longer than the model's context.
        """
        places = list(range(len(self.items))) if subset is None else [self._known(name) for name in subset]
        self._check_lengths(places, resident.context_length)
        needed = tuple(sorted({self._context_of[place] for place in places}))
        batches = self._batches.get(needed)
        if batches is None:
            batches = tuple(_batches([self._contexts[i] for i in needed], self._batch_tokens))
            self._batches = {needed: batches}
        loglik = np.zeros(int(self._options[-1]))
        with resident.lock, torch.inference_mode():
            for number, batch in enumerate(batches):
                tick(number / len(batches), f"scoring batch {number + 1} of {len(batches)}")
                _run(resident, batch, loglik)
        tick(1.0, "scored")
        return _to_score(
            [self.items[place] for place in places],
            [loglik[self._options[place] : self._options[place + 1]] for place in places],
        )

    def _known(self, name: str) -> int:
        if name not in self._place:
            raise LabError(f"item {name!r} is not among the {len(self.items)} items of this plan; pass ids it holds")
        return self._place[name]

    def _check_lengths(self, places: Sequence[int], limit: int) -> None:
        for place in places:
            if self._longest[place] > limit:
                raise LabError(
                    f"item {self.items[place].id!r} takes {self._longest[place]} tokens, but the model reads {limit}; "
                    "leave the item out or use a model with a longer context"
                )


def score_choices(
    resident: Resident, items: Sequence[Item], *, batch_tokens: int = BATCH_TOKENS, tick: Tick = silent
) -> Score:
    """Score multiple-choice items once; for many candidates keep a `ChoicePlan`.

    acc = argmax over choices of the summed log-likelihood; acc_norm = argmax of the sum / characters of the choice
    (the first of equals). p_gold = softmax over the choices, at the right one, of the sum, or, where meta.primary is
    "acc_norm", of the sum per character x mean characters of the choices.
    """
    return ChoicePlan(items, resident.tokenizer, batch_tokens=batch_tokens).score(resident, tick=tick)


def _share(
    encoded: Sequence[tuple[tuple[int, ...], list[tuple[int, ...]]]],
) -> tuple[list[_Context], list[int]]:
    """Contexts met once each, and for every item the number of its context."""
    numbers: dict[tuple[int, ...], int] = {}
    context_of = []
    members: list[list[tuple[int, tuple[int, ...]]]] = []
    option_number = 0
    for context, options in encoded:
        number = numbers.setdefault(context, len(numbers))
        if number == len(members):
            members.append([])
        context_of.append(number)
        for option in options:
            members[number].append((option_number, option))
            option_number += 1
    return [_branch(context, members[number]) for context, number in numbers.items()], context_of


def _branch(context: tuple[int, ...], options: Sequence[tuple[int, tuple[int, ...]]]) -> _Context:
    """The fewest branches that cover the options: equal inputs once, and none that begins another one."""
    inputs = sorted({option[:-1] for _, option in options if len(option) > 1})
    branches = [
        tokens
        for tokens, following in zip_longest(inputs, inputs[1:], fillvalue=())
        if following[: len(tokens)] != tokens
    ]
    reads = []
    for number, option in options:
        reads.append((number, -1, len(context) - 1, option[0]))
        if len(option) > 1:
            holder = next(b for b, tokens in enumerate(branches) if tokens[: len(option) - 1] == option[:-1])
            reads.extend((number, holder, place, token) for place, token in enumerate(option[1:]))
    return _Context(context, tuple(branches), tuple(reads))


def _batches(contexts: Sequence[_Context], batch_tokens: int) -> Iterator[_Batch]:
    """Longest first, so that a batch that does not fit in memory fails at once."""
    group: list[_Context] = []
    padded = cost = 0
    for context in sorted(contexts, key=lambda c: (-len(c.tokens), -c.width, c.tokens)):
        if group:
            width = group[0].width
            added = len(context.tokens) + width * len(context.branches)
            padding = sum(width - len(branch) for branch in context.branches)
            if (
                len(context.tokens) != len(group[0].tokens)
                or cost + added > batch_tokens
                or padded + padding > FORWARD_COST
            ):
                yield _collate(group)
                group, padded, cost = [], 0, 0
            else:
                padded += padding
        group.append(context)
        cost += len(context.tokens) + group[0].width * len(context.branches)
    if group:
        yield _collate(group)


def _collate(group: Sequence[_Context]) -> _Batch:
    width = max(context.width for context in group)
    length = len(group[0].tokens)
    branch_ids: list[tuple[int, ...]] = []
    parents: list[int] = []
    context_reads: list[tuple[int, int, int]] = []
    branch_reads: list[tuple[int, int, int]] = []
    for place, context in enumerate(group):
        first = len(branch_ids)
        for option, branch, position, token in context.reads:
            if branch < 0:
                context_reads.append((place * length + position, token, option))
            else:
                branch_reads.append(((first + branch) * width + position, token, option))
        for branch_tokens in context.branches:
            branch_ids.append(branch_tokens + (branch_tokens[-1],) * (width - len(branch_tokens)))
            parents.append(place)
    return _Batch(
        context_ids=torch.tensor([context.tokens for context in group]),
        context_reads=_reads(context_reads),
        branch_ids=torch.tensor(branch_ids, dtype=torch.long).reshape(len(branch_ids), width),
        branch_parent=torch.tensor(parents, dtype=torch.long),
        branch_reads=_reads(branch_reads),
    )


def _reads(wanted: Sequence[tuple[int, int, int]]) -> _Reads:
    table = np.array(wanted, dtype=np.int64).reshape(-1, 3)
    positions, place = np.unique(table[:, 0], return_inverse=True)
    return _Reads(torch.from_numpy(positions), torch.from_numpy(place), torch.from_numpy(table[:, 1]), table[:, 2])


def _run(resident: Resident, batch: _Batch, loglik: NDArray[np.float64]) -> None:
    """Add the batch's log-probabilities to `loglik` [options]."""
    branched = len(batch.branch_parent) > 0
    device = resident.device
    out = resident.backbone(input_ids=batch.context_ids.to(device), use_cache=branched)
    _read(resident, out.last_hidden_state, batch.context_reads, loglik)
    if branched:
        cache = out.past_key_values
        cache.reorder_cache(batch.branch_parent.to(device))
        out = resident.backbone(input_ids=batch.branch_ids.to(device), past_key_values=cache, use_cache=True)
        _read(resident, out.last_hidden_state, batch.branch_reads, loglik)


def _read(resident: Resident, hidden: torch.Tensor, reads: _Reads, loglik: NDArray[np.float64]) -> None:
    chosen = hidden.flatten(0, 1)[reads.positions.to(hidden.device)]
    token_logits, normaliser = [], []
    block = max(1, LOGIT_ELEMENTS // max(1, resident.model.config.get_text_config().vocab_size))
    for start in range(0, len(chosen), block):
        logits = resident.logits(chosen[start : start + block]).float()
        here = (reads.place >= start) & (reads.place < start + block)
        token_logits.append((torch.nonzero(here)[:, 0], logits[reads.place[here] - start, reads.token[here]].cpu()))
        normaliser.append(torch.logsumexp(logits, dim=-1).cpu())
    log_probability = torch.empty(len(reads.place))
    for where, values in token_logits:
        log_probability[where] = values
    log_probability -= torch.cat(normaliser)[reads.place]
    np.add.at(loglik, reads.option, log_probability.double().numpy())


def _to_score(items: Sequence[Item], logliks: Sequence[NDArray[np.float64]]) -> Score:
    answered = [_answer(item, values) for item, values in zip(items, logliks, strict=True)]
    return Score(
        ids=tuple(item.id for item in items),
        tasks=tuple(item.task for item in items),
        acc=np.array([row[0] == item.answer for row, item in zip(answered, items, strict=True)], dtype=bool),
        acc_norm=np.array([row[1] == item.answer for row, item in zip(answered, items, strict=True)], dtype=bool),
        p_gold=np.array([row[2] for row in answered], dtype=np.float64),
        loglik=tuple(tuple(values.tolist()) for values in logliks),
        predictions=tuple(row[0] for row in answered),
        clusters=tuple(item.cluster for item in items),
    )


def _answer(item: Item, loglik: NDArray[np.float64]) -> tuple[int, int, float]:
    """(choice under acc, choice under acc_norm, p_gold); -1 and 0 where the model gave no number."""
    if np.isnan(loglik).any():
        return -1, -1, 0.0
    length = np.array([len(choice) for choice in item.choices or ()], dtype=np.float64)
    normed = loglik / length
    primary = normed * length.mean() if item.meta.get("primary") == "acc_norm" else loglik
    top = float(primary.max())
    weights = np.exp(primary - top) if isfinite(top) else np.zeros_like(primary)
    p_gold = float(weights[int(item.answer)] / weights.sum()) if weights.any() else 0.0
    return int(np.argmax(loglik)), int(np.argmax(normed)), p_gold
