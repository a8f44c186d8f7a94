"""The plain pass, layer by layer: batches through a model of which one layer is in memory, each weight read once.

Takes a model and batches of token ids, gives the hidden states of each after the last norm. Knows no branches, probes
or scores.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from darwin_lab.engine.replay import Replay, record
from darwin_lab.engine.resident import Resident
from darwin_lab.progress import Tick, silent


@torch.inference_mode()
def plain_pass(
    model: Resident,
    batches: Sequence[torch.Tensor],
    read: Callable[[int, torch.Tensor], None],
    tick: Tick = silent,
) -> int:
    """Runs as many of the batches (ids [B, T], padded on the right) as fit in `model.state_bytes`, at least one.

    `read(number, hidden)` gets each batch's states [B, T, H] after the last norm, while the output matrix is in
    memory. Returns how many batches were run. Raises LabError as `record` does.
    """
    replays: list[Replay] = []
    with model.lock:
        with model.embedding():
            taken = 0
            for ids in batches:
                here = ids.to(model.device)
                replay = record(model, here, torch.ones_like(here))
                taken += _bytes(replay)
                if replays and taken > model.state_bytes:
                    break
                replays.append(replay)
        states = [replay.embedded for replay in replays]
        for replay in replays:
            replay.embedded = replay.embedded[:0]
        for index in range(model.layers):
            tick(index / model.layers, f"layer {index + 1} of {model.layers}")
            with model.layer(index) as layer:
                for number, replay in enumerate(replays):
                    states[number], left = replay.run(layer, index, states[number], 0)
                    replay.shared.update(left)
        with model.head():
            for number, replay in enumerate(replays):
                read(number, replay.finish(states[number]))
    return len(replays)


def _bytes(replay: Replay) -> int:
    """What a batch holds from its first layer to its last: its states before and after a layer, and the arguments."""
    held = {tensor.data_ptr(): tensor.nbytes for tensor in _tensors(replay.calls)}
    return 2 * replay.embedded.nbytes + sum(held.values())


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
