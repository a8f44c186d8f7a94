"""Layer sweeps: many branches of some batches through the model, layer by layer, each weight fetched once.

Takes a model (resident, or streamed one layer at a time) and padded batches, gives hidden states. Layer by layer, all
branches of a batch run as one long batch, a stretch of rows at a time. Knows no probes and no scores.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import torch
from torch import nn

from darwin_lab.engine.halves import HALVES, half_modules, silenced
from darwin_lab.engine.replay import Replay, Shared, hooks, record
from darwin_lab.engine.resident import Resident
from darwin_lab.engine.routing import Routing, Seen, routings, watch_experts
from darwin_lab.errors import LabError
from darwin_lab.progress import Tick, silent

TOKENS_AT_ONCE = 512
"""Padded tokens a layer computes on at once: enough to fill its matrices, few enough to stay in the cache."""
WHOLE = ("layer",)
WITH_HALVES = ("layer", *HALVES)
"""What a sweep leaves out of each layer, a branch each."""


@dataclass(frozen=True)
class Step:
    """One layer of the plain pass of one batch: its input and output [B, T, H], and what its experts did.

    `after` is overwritten by the next layer: copy what you keep.
    """

    layer: int
    batch: int
    before: torch.Tensor
    after: torch.Tensor
    routing: tuple[Routing, ...]


Watch = Callable[[Step], None]


class ShortOfMemoryError(LabError):
    """Memory runs out even with one row at a time; fewer texts at once may still do."""


@dataclass
class Front:
    """How far a sweep has come: `layer` is the next to run, `states[b]` [1 + P L, B, T, H] with `1 + P layer` branches
    filled: 0 the plain pass, 1 + P j + p the one in which `parts[p]` of layer j was left out (or swapped).

    Whole between two layers only: one that an error stopped cannot go on.
    """

    replays: list[Replay]
    states: list[torch.Tensor]
    parts: tuple[str, ...] = WHOLE
    layer: int = 0
    rows_at_once: dict[int, int] = field(default_factory=dict)
    """Batch -> rows of one call, once memory has run out with more."""
    lacking: set[tuple[int, str]] = field(default_factory=set)
    """(layer, half) where a layer has no such half: its branch is the plain pass."""

    @property
    def filled(self) -> int:
        """Branches so far."""
        return 1 + len(self.parts) * self.layer

    @property
    def done(self) -> float:
        """The share of the work, in passes of one branch through one layer: later layers run more branches.

        The output matrix counts as one layer more, so that a sweep before it is not done.
        """
        count, layers = len(self.parts), (len(self.states[0]) - 1) // len(self.parts)
        passes = [run * count + count * run * (run - 1) // 2 for run in (self.layer, layers + 1)]
        return passes[0] / passes[1]


@torch.inference_mode()
def start_sweep(
    model: Resident,
    batches: Sequence[tuple[torch.Tensor, torch.Tensor]],
    spill: Path | None = None,
    parts: tuple[str, ...] = WHOLE,
) -> Front:
    """The front before the first layer, of batches (input_ids, attention_mask) [B, T].

    With `spill`, an existing folder, the states lie in files there (one a batch) that the system maps into memory.
    `parts` are what is left out of a layer, each in a branch of its own: the whole ("layer"), "attn", "ffn".
    """
    with model.lock, model.embedding():
        replays = [record(model, ids, mask) for ids, mask in batches]
    states = []
    for number, replay in enumerate(replays):
        embedded = replay.embedded
        shape = (1 + len(parts) * model.layers, *embedded.shape)
        if spill is None:
            states.append(embedded.new_empty(shape))
        else:
            file, size = str(spill / f"states-{number}.bin"), prod(shape)
            states.append(torch.from_file(file, shared=True, size=size, dtype=embedded.dtype).reshape(shape))
        states[-1][0] = embedded
    return Front(replays, states, parts)


@torch.inference_mode()
def advance(model: Resident, front: Front, watch: Watch | None = None) -> None:
    """Runs the next layer on every branch of every batch; the branches without its parts join.

    Raises `ShortOfMemoryError` when memory runs out even with one row at a time.
    """
    with model.lock, model.layer(front.layer) as layer:
        _advance(front, layer, None, watch)


@torch.inference_mode()
def exchange(models: tuple[Resident, Resident], fronts: tuple[Front, Front]) -> None:
    """The next layer of two models: every branch of each front through its own, then the branch that took the other
    model's layer joins. One layer of each is in memory, fetched once for both. Raises as `advance` does."""
    index = fronts[0].layer
    one, other = models
    with one.lock, other.lock, one.layer(index) as own, other.layer(index) as theirs:
        _advance(fronts[0], own, theirs, None)
        _advance(fronts[1], theirs, own, None)


def _advance(front: Front, layer: nn.Module, donor: nn.Module | None, watch: Watch | None) -> None:
    filled = front.filled
    for number, replay in enumerate(front.replays):
        states, texts = front.states[number], len(replay.input_ids)
        plain = states[0].clone()
        joining, left = [], Shared()
        for part in front.parts:
            joining.append(plain)
            if part == "layer" and donor is not None:
                joining[-1] = plain.clone()
                left, _ = _through(front, number, donor, joining[-1], watched=False)
            elif part in HALVES:
                joining[-1] = _without_half(front, number, layer, part, plain)
        stored, routing = _through(front, number, layer, states[:filled].flatten(0, 1), watched=watch is not None)
        replay.shared.update(stored)
        for place, state in enumerate(joining):
            states[filled + place] = state
        for key, new in left.items():
            replay.shared[key] = tuple(
                torch.cat([mine[: filled * texts], theirs])
                for mine, theirs in zip(replay.shared[key], new, strict=True)
            )
        if watch is not None:
            watch(Step(front.layer, number, plain, states[0], routing))
    front.layer += 1


def _without_half(front: Front, number: int, layer: nn.Module, half: str, plain: torch.Tensor) -> torch.Tensor:
    """[B, T, H] of the layer with one half adding nothing; what it leaves to later layers is the plain pass's."""
    modules = half_modules(layer, half)
    if not modules:
        front.lacking.add((front.layer, half))
    rows = plain.clone()
    with silenced(modules):
        _through(front, number, layer, rows, watched=False)
    return rows


@torch.inference_mode()
def finish(front: Front, number: int) -> torch.Tensor:
    """[1 + P L, B, T, H]: the states of a batch after the last norm, in place of those before it."""
    replay, states = front.replays[number], front.states[number]
    for branch in range(len(states)):
        states[branch] = replay.finish(states[branch])
    return states


@torch.inference_mode()
def skip_sweep(
    resident: Resident,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    tick: Tick = silent,
    watch: Watch | None = None,
    parts: tuple[str, ...] = WHOLE,
) -> torch.Tensor:
    """[1 + P L, B, T, H] normed final hidden states: 0 is the plain pass, 1 + P j + p without `parts[p]` of layer j.

    At layer j the branches so far run, then the plain input of layer j joins them as "j skipped".
    """
    front = start_sweep(resident, [(input_ids, attention_mask)], parts=parts)
    while front.layer < resident.layers:
        tick(front.done, f"layer {front.layer}")
        advance(resident, front, watch)
    return finish(front, 0)


@torch.inference_mode()
def swap_sweep(
    models: tuple[Resident, Resident], input_ids: torch.Tensor, attention_mask: torch.Tensor, tick: Tick = silent
) -> tuple[torch.Tensor, torch.Tensor]:
    """[L + 1, B, T, H] of each model: 0 is its plain pass, 1 + j the pass with the other's layer j in its stream."""
    one, other = models
    fronts = (start_sweep(one, [(input_ids, attention_mask)]), start_sweep(other, [(input_ids, attention_mask)]))
    while fronts[0].layer < one.layers:
        tick(fronts[0].done, f"layer {fronts[0].layer}")
        exchange(models, fronts)
    return finish(fronts[0], 0), finish(fronts[1], 0)


def _through(
    front: Front, number: int, layer: nn.Module, rows: torch.Tensor, *, watched: bool
) -> tuple[Shared, tuple[Routing, ...]]:
    """Rows [N, T, H] of a batch, from the plain branch on, through one layer in place, as many at once as memory takes.

    Gives what the layer stored and, if `watched`, the plain rows' routing.
    """
    replay, index = front.replays[number], front.layer
    texts, tokens = replay.input_ids.shape
    at_once = front.rows_at_once.get(number) or max(1, TOKENS_AT_ONCE // (texts * tokens)) * texts
    stored: list[Shared] = []
    seen: list[Seen] = []
    start = 0
    while start < len(rows):
        stretch = rows[start : start + at_once]
        try:
            with hooks() as kept:
                here = watch_experts(layer, kept) if watched and start < texts else []
                output, left = replay.run(layer, index, stretch, start)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            if len(stretch) == 1:
                raise ShortOfMemoryError(
                    f"memory runs out in layer {index} with a single text of {tokens} tokens; "
                    "give shorter texts, or close other programs"
                ) from error
            at_once = front.rows_at_once[number] = len(stretch) // 2
            continue
        stretch.copy_(output)
        stored.append(left)
        seen.extend(here)
        start += len(stretch)
    whole = {
        key: tuple(torch.cat(pieces) for pieces in zip(*(left[key] for left in stored), strict=True))
        for key in stored[0]
    }
    return whole, routings(seen, index, texts, tokens)


def out_of_memory(error: BaseException) -> bool:
    """Whether fewer rows or texts at once could avoid it."""
    kinds = torch.OutOfMemoryError | MemoryError | ShortOfMemoryError
    return isinstance(error, kinds) or "can't allocate memory" in str(error)
