"""A batch as its decoder layers are called, so that layers can be run one at a time, in any order of batches.

Takes a model and a padded batch, gives the arguments that transformers' own forward hands to every layer: masks,
rotary embeddings, per-layer inputs and shared state stay transformers' business. Knows no probes and no branches'
meaning.
"""

from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from darwin_lab.engine.resident import Resident
from darwin_lab.errors import LabError

Shared = dict[Any, tuple[torch.Tensor, ...]]
"""Key -> tensors [rows, ...] that one layer left for later ones (keys and values of layers that share them)."""


@dataclass
class Replay:
    """One batch: `embedded` [B, T, H] enters layer 0, `calls[i]` are layer i's other arguments, `tail` is what follows.

    `shared` grows while layers run: it has a row for every branch that a storing layer has seen.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    embedded: torch.Tensor
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]]
    tail: list[nn.Module]
    shared: Shared = field(default_factory=dict)
    _grown: dict[tuple[int, int, int], tuple[Any, torch.Tensor]] = field(default_factory=dict)

    def run(self, layer: nn.Module, index: int, hidden: torch.Tensor, start: int) -> tuple[torch.Tensor, Shared]:
        """[N, T, H] through a layer: rows `start` to `start + N` of the branches laid end to end, B rows a branch.

        Gives the new states and what the layer stored. Rows beyond those in `shared` inherit the plain row's.
        """
        texts = len(self.input_ids)
        rows = (torch.arange(start, start + len(hidden), device=hidden.device)) % texts
        args, kwargs = self.calls[index]
        offered: list[tuple[Any, dict[Any, Any]]] = []

        def fit(value: Any) -> Any:
            if not isinstance(value, MutableMapping):
                return self._grow(value, rows, start % texts, texts)
            state: Any = type(value)()
            state.update({key: self._grow(item, rows, start % texts, texts) for key, item in value.items()})
            state.update({key: _rows(tensors, rows, start, texts) for key, tensors in self.shared.items()})
            offered.append((state, dict(state)))
            return state

        output = layer(hidden, *(fit(value) for value in args), **{key: fit(value) for key, value in kwargs.items()})
        stored = {
            key: tuple(value) for state, given in offered for key, value in state.items() if value is not given.get(key)
        }
        return hidden_of(output), stored

    def finish(self, hidden: torch.Tensor) -> torch.Tensor:
        """[N, T, H] after the last layer -> after the last norm."""
        for module in self.tail:
            hidden = hidden_of(module(hidden))
        return hidden

    def _grow(self, value: Any, rows: torch.Tensor, offset: int, texts: int) -> Any:
        """Per-row arguments (masks, rotary embeddings, per-layer inputs), one row for every row of the branches."""
        if isinstance(value, tuple):
            return tuple(self._grow(item, rows, offset, texts) for item in value)
        if not (isinstance(value, torch.Tensor) and value.dim() > 0 and value.shape[0] == texts):
            return value
        if len(rows) == texts and offset == 0:
            return value
        key = (id(value), offset, len(rows))
        if key not in self._grown:
            if len(self._grown) > _KEPT:
                self._grown.clear()
            self._grown[key] = (value, value.index_select(0, rows))
        return self._grown[key][1]


_KEPT = 8


@torch.inference_mode()
def record(model: Resident, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Replay:
    """One forward in which every layer only notes its arguments and hands its input on.

    Raises `LabError` for an architecture that changes the states between its layers, or does more than a norm after
    the last: its layers cannot be run by themselves.
    """
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    entered: list[torch.Tensor] = []
    tail: list[nn.Module] = []

    def note(*args: Any, **kwargs: Any) -> torch.Tensor:
        hidden = hidden_argument(args, kwargs)
        rest = {key: value for key, value in kwargs.items() if key != "hidden_states"}
        calls.append((args[1:], rest))
        entered.append(hidden)
        return hidden

    layers = model.decoder_layers

    def followed(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if len(entered) == len(layers):
            tail.append(module)

    with model.lock, hooks() as kept, _forwards(layers, note):
        for child in model.backbone.children():
            if not isinstance(child, nn.ModuleList):
                kept.append(child.register_forward_hook(followed))
        final = model.hidden(input_ids, attention_mask)
        same = len(entered) == len(layers) and all(_equal(states, entered[0]) for states in entered)
        replay = Replay(input_ids, attention_mask, entered[0], calls, tail)
    if not same:
        raise LabError(f"{type(model.model).__name__} changes states between its layers; it cannot be scanned by layer")
    if not _equal(replay.finish(entered[0]), final):
        raise LabError(f"{type(model.model).__name__} ends in more than a norm; it cannot be scanned by layer")
    return replay


@contextmanager
def hooks() -> Iterator[list[Any]]:
    """A list whose hooks are removed at the end, whatever happens."""
    kept: list[Any] = []
    try:
        yield kept
    finally:
        for hook in kept:
            hook.remove()


@contextmanager
def _forwards(modules: Sequence[nn.Module], forward: Any) -> Iterator[None]:
    """Within, the modules' own forward is `forward`."""
    for module in modules:
        module.forward = forward
    try:
        yield
    finally:
        for module in modules:
            del module.forward


def hidden_argument(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """A layer's hidden states among its arguments."""
    hidden: torch.Tensor = args[0] if args else kwargs["hidden_states"]
    return hidden


def hidden_of(output: Any) -> torch.Tensor:
    """The hidden states of a layer's output."""
    hidden: torch.Tensor = output[0] if isinstance(output, tuple | list) else output
    return hidden


def _rows(tensors: tuple[torch.Tensor, ...], rows: torch.Tensor, start: int, texts: int) -> tuple[torch.Tensor, ...]:
    """Rows start.. of a stored state; branches that joined after it was stored take the plain branch's."""
    wanted = torch.arange(start, start + len(rows), device=rows.device)
    chosen = torch.where(wanted < len(tensors[0]), wanted, rows)
    return tuple(tensor.index_select(0, chosen) for tensor in tensors)


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal, NaN included."""
    return one is other or (one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num()))
