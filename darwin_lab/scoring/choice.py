"""Multiple choice by log-likelihood, exactly lm-evaluation-harness's rule, with nothing computed twice.

Takes items, a tokenizer and a model, gives a score. A plan tokenises once and is reusable for every candidate: what
many contexts share runs once, a context runs once however many choices and items share it, the choices branch off its
cache, and only positions that predict a choice's token go through the output head. A streamed model has no cache: its
rows are whole, and all that fit go through a layer before the next is read. Knows nothing about candidates, recipes or
storage.
"""

import copy
from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from darwin_lab.engine.plain import plain_pass
from darwin_lab.engine.resident import Resident
from darwin_lab.errors import LabError
from darwin_lab.progress import Tick, part, silent
from darwin_lab.scoring.batches import Batch, Reads, Tokens, plan_batches, share_contexts
from darwin_lab.scoring.items import Item
from darwin_lab.scoring.kept import Kept
from darwin_lab.scoring.prompt import encode_options
from darwin_lab.scoring.score import Score
from darwin_lab.scoring.tally import Found, Tally

BATCH_TOKENS = 4096
STREAMED_TOKENS = 1024
"""Tokens a batch of a streamed model computes at most: a layer's weights lie beside what it computes with."""
LOGIT_ELEMENTS = 1 << 24  # positions x vocabulary held at once


class ChoicePlan:
    """How a set of choice items is scored under one tokenizer; made once, used for every candidate.

    `batch_rows` bounds the rows of a forward beside `batch_tokens`. With `cut_to` (a model's context, in tokens) a
    prompt longer than that loses its beginning, as in lm-evaluation-harness; without, `score` refuses it.
    Raises LabError for an item without choices, whose choice has no token of its own, or that the tokenizer cannot
    tell apart or spell.
    """

    def __init__(
        self,
        items: Sequence[Item],
        tokenizer: Any,
        *,
        batch_tokens: int = BATCH_TOKENS,
        batch_rows: int | None = None,
        cut_to: int | None = None,
    ) -> None:
        self.items = tuple(items)
        self._size = batch_tokens, batch_rows
        self._place = {item.id: place for place, item in enumerate(self.items)}
        self._options = np.cumsum([0, *(len(item.choices or ()) for item in self.items)])
        encoded = [
            [(context, option) for option in options] for context, options in encode_options(tokenizer, self.items)
        ]
        self._longest = [max(len(context) + len(option) - 1 for context, option in pairs) for pairs in encoded]
        self.cut_ids: tuple[str, ...] = ()
        if cut_to is not None:
            self.cut_ids = tuple(
                item.id for item, longest in zip(self.items, self._longest, strict=True) if longest > cut_to
            )
            encoded = [
                [_cut(item, context, option, cut_to) for context, option in pairs]
                for item, pairs in zip(self.items, encoded, strict=True)
            ]
            self._longest = [min(longest, cut_to) for longest in self._longest]
        self._contexts, self._contexts_of = share_contexts(encoded)
        self._batches: dict[tuple[bool, tuple[int, ...]], tuple[Batch, ...]] = {}

    def score(
        self,
        resident: Resident,
        subset: Sequence[str] | None = None,
        tick: Tick = silent,
        keep: Kept | None = None,
    ) -> Score:
        """Score the items, or those whose ids are in `subset` (in that order), on a resident or a streamed model.

        An item's numbers do not depend on the subset, or on streaming, beyond float rounding. With `keep` every batch
        (streamed: every pass of batches) is kept as it is done, with the rows of the items it completes, and one kept
        before is not run again: the same items give the very same numbers, however often the work was stopped. Raises
        LabError for an unknown id and for an item longer than the model's context.
        """
        places = list(range(len(self.items))) if subset is None else [self._known(name) for name in subset]
        self._check_lengths(places, resident.context_length)
        batches = self._planned(places, resident.streamed)
        tally = Tally(self.items, places, self._options, batches, _row, keep)
        with resident.lock, torch.inference_mode():
            if resident.streamed:
                _run_streamed(resident, batches, tally, tick)
            else:
                prefixes = _Prefixes(resident)
                for number in tally.todo:
                    tick(number / len(batches), f"scoring batch {number + 1} of {len(batches)}")
                    tally.add(number, _run(resident, batches[number], prefixes, self._size[1]))
        tick(1.0, "scored")
        loglik = tally.loglik()
        return to_score(
            [self.items[place] for place in places],
            [loglik[self._options[place] : self._options[place + 1]] for place in places],
        )

    def _planned(self, places: Sequence[int], streamed: bool) -> tuple[Batch, ...]:
        """The batches of these items; the last ones planned are remembered."""
        needed = tuple(sorted({number for place in places for number in self._contexts_of[place]}))
        batches = self._batches.get((streamed, needed))
        if batches is None:
            tokens, rows = self._size
            tokens = min(tokens, STREAMED_TOKENS) if streamed else tokens
            batches = tuple(plan_batches([self._contexts[i] for i in needed], tokens, rows, whole=streamed))
            self._batches = {(streamed, needed): batches}
        return batches

    def _known(self, name: str) -> int:
        if name not in self._place:
            raise LabError(f"item {name!r} is not among the {len(self.items)} items of this plan; pass ids it holds")
        return self._place[name]

    def _check_lengths(self, places: Sequence[int], limit: int) -> None:
        for place in places:
            if self._longest[place] > limit:
                raise LabError(
                    f"item {self.items[place].id!r} takes {self._longest[place]} tokens, but the model reads {limit}; "
                    "leave the item out, use fewer shots or a model with a longer context, or cut long prompts"
                )


def score_choices(
    resident: Resident,
    items: Sequence[Item],
    *,
    batch_tokens: int = BATCH_TOKENS,
    batch_rows: int | None = None,
    cut: bool = False,
    tick: Tick = silent,
    keep: Kept | None = None,
) -> Score:
    """Score multiple-choice items once; for many candidates keep a `ChoicePlan`.

    acc = argmax over choices of the summed log-likelihood; acc_norm = argmax of the sum / characters of the choice
    (the first of equals). p_gold = softmax over the choices, at the right one, of the sum, or, where meta.primary is
    "acc_norm", of the sum per character x mean characters of the choices. `cut`: prompts longer than the model's
    context lose their beginning instead of being refused.
    """
    plan = ChoicePlan(
        items,
        resident.tokenizer,
        batch_tokens=batch_tokens,
        batch_rows=batch_rows,
        cut_to=resident.context_length if cut else None,
    )
    return plan.score(resident, tick=tick, keep=keep)


def _cut(item: Item, context: Tokens, option: Tokens, limit: int) -> tuple[Tokens, Tokens]:
    """lm-evaluation-harness 0.4.13: the last `limit` + 1 tokens of context and option, the last one only predicted."""
    if len(option) > limit:
        raise LabError(
            f"item {item.id!r} has a choice of {len(option)} tokens, but the model reads {limit}; leave the item out"
        )
    return context[max(0, len(context) + len(option) - limit - 1) :], option


class _Prefixes:
    """The cache of the prefix that ran last: batches that share one come after each other."""

    def __init__(self, resident: Resident) -> None:
        self._resident = resident
        self._tokens: Tokens = ()
        self._cache: Any = None

    def cache(self, tokens: Tokens, rows: int) -> Any:
        """A cache of [rows] times the prefix, the caller's own; None for no prefix."""
        if not tokens:
            return None
        if tokens != self._tokens:
            ids = torch.tensor([tokens], device=self._resident.device)
            self._cache = self._resident.backbone(input_ids=ids, use_cache=True).past_key_values
            self._tokens = tokens
        cache = copy.deepcopy(self._cache)
        cache.reorder_cache(torch.zeros(rows, dtype=torch.long, device=self._resident.device))
        return cache


def _run_streamed(resident: Resident, batches: Sequence[Batch], tally: Tally, tick: Tick) -> None:
    """The batches nobody has run, as many a pass as fit in memory."""
    todo = tally.todo
    done = 0
    while done < len(todo):
        numbers = todo[done:]

        def read(place: int, hidden: torch.Tensor, numbers: Sequence[int] = numbers) -> None:
            tally.add(numbers[place], _read(resident, hidden, batches[numbers[place]].context_reads))

        done += plain_pass(
            resident,
            [batches[number].context_ids for number in numbers],
            read,
            part(tick, done / len(todo), 1.0),
        )


def _run(resident: Resident, batch: Batch, prefixes: _Prefixes, most_rows: int | None) -> Found:
    """What a batch reads; no forward has more than `most_rows` rows."""
    branches = len(batch.branch_parent)
    device = resident.device
    cache = prefixes.cache(batch.prefix, len(batch.context_ids))
    out = resident.backbone(
        input_ids=batch.context_ids.to(device), past_key_values=cache, use_cache=branches > 0 or cache is not None
    )
    options, values = _read(resident, out.last_hidden_state, batch.context_reads)
    hidden = []
    step = most_rows or max(1, branches)
    for start in range(0, branches, step):
        rows = slice(start, start + step)
        own = out.past_key_values if start + step >= branches else copy.deepcopy(out.past_key_values)
        own.reorder_cache(batch.branch_parent[rows].to(device))
        ids = batch.branch_ids[rows].to(device)
        hidden.append(resident.backbone(input_ids=ids, past_key_values=own, use_cache=True).last_hidden_state)
    if not hidden:
        return options, values
    more = _read(resident, torch.cat(hidden), batch.branch_reads)
    return np.concatenate([options, more[0]]), np.concatenate([values, more[1]])


def _read(resident: Resident, hidden: torch.Tensor, reads: Reads) -> Found:
    """The log-probabilities (nats, float64) read in normed states [rows, positions, H], and whose they are."""
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
    return reads.option, log_probability.double().numpy()


def to_score(items: Sequence[Item], logliks: Sequence[NDArray[np.float64]]) -> Score:
    """The score of items whose choices have these log-likelihoods, each float64[choices]."""
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


def _row(item: Item, loglik: NDArray[np.float64]) -> Score:
    return to_score([item], [loglik])


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
