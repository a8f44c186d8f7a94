"""Layer sweeps: many branches of some batches through the model, layer by layer, each weight fetched once.

Takes a model (resident, or streamed one layer at a time) and padded batches, gives hidden states. Layer by layer, all
branches of a batch run as one long batch, a stretch of rows at a time. Knows no probes and no scores.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darwin_lab.engine.replay import Replay, Shared, hidden_of, hooks, record
from darwin_lab.engine.resident import Resident
from darwin_lab.errors import LabError
from darwin_lab.progress import Tick, silent

TOKENS_AT_ONCE = 512
"""Padded tokens a layer computes on at once: enough to fill its matrices, few enough to stay in the cache."""


@dataclass(frozen=True)
class Routing:
    """What one MoE layer decided: chosen experts [B, T, k], their weights [B, T, k], probabilities [B, T, E]."""

    layer: int
    chosen: torch.Tensor
    weights: torch.Tensor
    probabilities: torch.Tensor


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


@dataclass
class Front:
    """How far a sweep has come: `layer` is the next to run, `states[b]` [L + 1, B, T, H] with `layer + 1` branches
    filled, 0 the plain pass. Whole between two layers only: one that an error stopped cannot go on."""

    replays: list[Replay]
    states: list[torch.Tensor]
    layer: int = 0
    rows_at_once: dict[int, int] = field(default_factory=dict)
    """Batch -> rows of one call, once memory has run out with more."""


@torch.inference_mode()
def start_sweep(
    model: Resident, batches: Sequence[tuple[torch.Tensor, torch.Tensor]], spill: Path | None = None
) -> Front:
    """The front before the first layer, of batches (input_ids, attention_mask) [B, T].

    With `spill`, an existing folder, the states lie in files there (one a batch) that the system maps into memory.
    """
    with model.lock, model.embedding():
        replays = [record(model, ids, mask) for ids, mask in batches]
    states = []
    for number, replay in enumerate(replays):
        embedded = replay.embedded
        shape = (model.layers + 1, *embedded.shape)
        if spill is None:
            states.append(embedded.new_empty(shape))
        else:
            file, size = str(spill / f"states-{number}.bin"), prod(shape)
            states.append(torch.from_file(file, shared=True, size=size, dtype=embedded.dtype).reshape(shape))
        states[-1][0] = embedded
    return Front(replays, states)


@torch.inference_mode()
def advance(model: Resident, front: Front, watch: Watch | None = None, donor: Resident | None = None) -> None:
    """Runs the next layer on every branch of every batch; the branch without it (or with the donor's) joins.

    Raises `LabError` when memory runs out even with one row at a time.
    """
    index = front.layer
    with (
        model.lock,
        donor.lock if donor is not None else nullcontext(),
        model.layer(index) as layer,
        donor.layer(index) if donor is not None else nullcontext() as other,
    ):
        for number, replay in enumerate(front.replays):
            states, texts = front.states[number], len(replay.input_ids)
            plain = states[0].clone()
            joining, left = plain, Shared()
            if other is not None:
                joining, left = replay.run(other, index, plain, 0)
            routing = _advance_batch(front, number, layer, watch is not None)
            states[index + 1] = joining
            for key, stored in left.items():
                replay.shared[key] = tuple(
                    torch.cat([mine[: (index + 1) * texts], new])
                    for mine, new in zip(replay.shared[key], stored, strict=True)
                )
            if watch is not None:
                watch(Step(index, number, plain, states[0], routing))
    front.layer += 1


@torch.inference_mode()
def finish(front: Front, number: int) -> torch.Tensor:
    """[L + 1, B, T, H]: the states of a batch after the last norm, in place of those before it."""
    replay, states = front.replays[number], front.states[number]
    for branch in range(len(states)):
        states[branch] = replay.finish(states[branch])
    return states


def skip_sweep(
    resident: Resident,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    tick: Tick = silent,
    watch: Watch | None = None,
) -> torch.Tensor:
    """[L + 1, B, T, H] normed final hidden states: 0 is the plain pass, 1 + j the pass without layer j.

    At layer j the branches so far run, then the plain input of layer j joins them as "j skipped".
    """
    return _whole(resident, input_ids, attention_mask, tick, watch, None)


def swap_sweep(
    resident: Resident, donor: Resident, input_ids: torch.Tensor, attention_mask: torch.Tensor, tick: Tick = silent
) -> torch.Tensor:
    """[L + 1, B, T, H]: 0 is the plain pass, 1 + j the pass with the donor's layer j in the resident's stream."""
    return _whole(resident, input_ids, attention_mask, tick, None, donor)


def _whole(
    model: Resident,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    tick: Tick,
    watch: Watch | None,
    donor: Resident | None,
) -> torch.Tensor:
    front = start_sweep(model, [(input_ids, attention_mask)])
    while front.layer < model.layers:
        tick(front.layer / model.layers, f"layer {front.layer}")
        advance(model, front, watch, donor)
    return finish(front, 0)


def _advance_batch(front: Front, number: int, layer: nn.Module, watched: bool) -> tuple[Routing, ...]:
    """All rows of all branches of one batch through one layer, in place; the plain rows' routing if `watched`."""
    replay, index = front.replays[number], front.layer
    texts, tokens = replay.input_ids.shape
    rows = front.states[number][: index + 1].flatten(0, 1)
    at_once = front.rows_at_once.get(number) or max(1, TOKENS_AT_ONCE // (texts * tokens)) * texts
    stored: list[Shared] = []
    seen: list[_Seen] = []
    start = 0
    while start < len(rows):
        stretch = rows[start : start + at_once]
        try:
            with hooks() as kept:
                here = _watch_experts(layer, kept) if watched and start < texts else []
                output, left = replay.run(layer, index, stretch, start)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            if len(stretch) == 1:
                raise LabError(
                    f"memory runs out in layer {index} with a single text of {tokens} tokens; "
                    "give shorter texts, or close other programs"
                ) from error
            at_once = front.rows_at_once[number] = len(stretch) // 2
            continue
        stretch.copy_(output)
        stored.append(left)
        seen.extend(here)
        start += len(stretch)
    for key in stored[0]:
        replay.shared[key] = tuple(torch.cat(pieces) for pieces in zip(*(left[key] for left in stored), strict=True))
    return _routing(seen, index, texts, tokens)


def _out_of_memory(error: BaseException) -> bool:
    words = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in words


@dataclass
class _Seen:
    """One experts module in one call: chosen experts and weights [N, k], router's scores [N, E]."""

    experts: nn.Module
    chosen: torch.Tensor | None = None
    weights: torch.Tensor | None = None
    scores: torch.Tensor | None = None


def _watch_experts(layer: nn.Module, kept: list[Any]) -> list[_Seen]:
    """Hooks the experts modules of a layer (true top-k and weights) and their routers (logits or probabilities)."""
    found: list[_Seen] = []
    for name, experts in layer.named_modules():
        fused = getattr(experts, "gate_up_proj", getattr(experts, "up_proj", None))
        if not (isinstance(fused, nn.Parameter) and fused.dim() == 3):
            continue
        owner = layer.get_submodule(name.rpartition(".")[0])
        router = next(
            (m for m in (getattr(owner, "gate", None), getattr(owner, "router", None)) if m is not None), None
        )
        seen = _Seen(experts)
        found.append(seen)

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], seen: _Seen = seen) -> None:
            seen.chosen = kwargs["top_k_index"] if "top_k_index" in kwargs else args[1]
            seen.weights = kwargs["top_k_weights"] if "top_k_weights" in kwargs else args[2]

        def after(module: nn.Module, args: tuple[Any, ...], output: Any, seen: _Seen = seen) -> None:
            seen.scores = hidden_of(output)

        kept.append(experts.register_forward_pre_hook(before, with_kwargs=True))
        if router is not None:
            kept.append(router.register_forward_hook(after))
    return found


def _routing(seen: Sequence[_Seen], layer: int, texts: int, tokens: int) -> tuple[Routing, ...]:
    """The plain rows' routing, put together from the calls that held them, one for every experts module."""
    found: dict[nn.Module, list[_Seen]] = {}
    for call in seen:
        if call.chosen is not None and call.weights is not None and call.scores is not None:
            found.setdefault(call.experts, []).append(call)

    def plain(pieces: list[torch.Tensor]) -> torch.Tensor:
        whole = torch.cat([piece.flatten(0, -2) for piece in pieces])[: texts * tokens]
        return whole.reshape(texts, tokens, whole.shape[-1])

    made = []
    for calls in found.values():
        scores = plain([call.scores for call in calls if call.scores is not None]).float()
        sums = scores.sum(-1)
        already = bool((scores >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)
        chosen = plain([call.chosen for call in calls if call.chosen is not None])
        weights = plain([call.weights for call in calls if call.weights is not None]).float()
        made.append(Routing(layer, chosen, weights, scores if already else scores.softmax(-1)))
    return tuple(made)
