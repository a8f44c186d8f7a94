"""One layer of a model in several forms at once: what each form does to the end, and what skipping the layer does.

Takes a model that carries a source, other sources that differ from it in that layer alone, and padded batches; gives
final hidden states. Layers before it run once, each later one once for all forms, and each weight is fetched once for
all batches. Knows no probes, no ratios and no flags.
"""

from collections.abc import Sequence

import torch
from torch import nn

from darwin_lab.checkpoint.anatomy import layer_of
from darwin_lab.engine.replay import Replay, Shared, record
from darwin_lab.engine.resident import Resident
from darwin_lab.engine.source import Source
from darwin_lab.engine.sweep import TOKENS_AT_ONCE


@torch.inference_mode()
def variant_sweep(
    model: Resident,
    carried: Source,
    layer: int,
    forms: Sequence[Source],
    batches: Sequence[tuple[torch.Tensor, torch.Tensor]],
) -> list[torch.Tensor]:
    """For each batch (input_ids, attention_mask) [B, T] the final hidden states [F + 2, B, T, H] after the last norm:
    0 as carried, 1 + f with form f of the layer, the last without it.

    The model must carry `carried`, and does so again at the end. Raises `LabError` for an architecture whose layers
    cannot be run by themselves.
    """
    with model.lock:
        with model.embedding():
            replays = [record(model, ids, mask) for ids, mask in batches]
        states = [replay.embedded for replay in replays]
        for index in range(model.layers):
            with model.layer(index) as module:
                if index == layer:
                    states = _branched(model, module, index, carried, forms, replays, states)
                else:
                    states = [
                        _through(replay, module, index, rows) for replay, rows in zip(replays, states, strict=True)
                    ]
        return [
            replay.finish(rows).reshape(len(forms) + 2, *replay.embedded.shape)
            for replay, rows in zip(replays, states, strict=True)
        ]


def _branched(
    model: Resident,
    module: nn.Module,
    layer: int,
    carried: Source,
    forms: Sequence[Source],
    replays: Sequence[Replay],
    states: Sequence[torch.Tensor],
) -> list[torch.Tensor]:
    """The plain rows of every batch through the layer as it is, then in each form, and beside them untouched."""
    pieces: list[list[torch.Tensor]] = [[] for _ in replays]
    stored: list[list[Shared]] = [[] for _ in replays]
    try:
        for source in (carried, *forms):
            if source is not carried:
                _take(model, source, layer)
            for number, (replay, rows) in enumerate(zip(replays, states, strict=True)):
                out, left = replay.run(module, layer, rows, 0)
                pieces[number].append(out)
                stored[number].append(left)
    finally:
        _take(model, carried, layer)
    for replay, left_by_form in zip(replays, stored, strict=True):
        _share(replay, left_by_form)
    return [torch.cat([*made, rows]) for made, rows in zip(pieces, states, strict=True)]


def _through(replay: Replay, module: nn.Module, index: int, states: torch.Tensor) -> torch.Tensor:
    """All rows of all branches of a batch through one layer, a stretch of whole batches at a time."""
    texts, tokens = replay.input_ids.shape
    at_once = max(1, TOKENS_AT_ONCE // (texts * tokens)) * texts
    pieces, stored = [], []
    for start in range(0, len(states), at_once):
        out, left = replay.run(module, index, states[start : start + at_once], start)
        pieces.append(out)
        stored.append(left)
    _share(replay, stored)
    return torch.cat(pieces)


def _share(replay: Replay, stored: Sequence[Shared]) -> None:
    """What a layer left for later ones, of all branches in order."""
    for key in stored[0]:
        replay.shared[key] = tuple(torch.cat(pieces) for pieces in zip(*(left[key] for left in stored), strict=True))


def _take(model: Resident, source: Source, layer: int) -> None:
    """Puts the tensors of one layer of `source` where the model computes with them."""
    for name in source.names:
        slot = model.slot(name) if layer_of(name) == layer else None
        if slot is not None:
            slot.copy_(source.read(name))
