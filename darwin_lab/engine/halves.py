"""The two halves of a decoder layer: what attention and what the FFN adds to the stream, told apart by their roles.

Takes a layer, gives its modules by half, and a way to run the layer with one half adding nothing. Everything else the
layer does (norms, per-layer inputs, scalars, what it leaves to later layers) goes on. Knows no family.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from darwin_lab.checkpoint.anatomy import classify

HALVES = {
    "attn": frozenset({"attention", "linear_attention"}),
    "ffn": frozenset({"ffn", "expert", "shared_expert"}),
}
"""Half -> roles of the weights that make it."""


def half_modules(layer: nn.Module, half: str) -> list[nn.Module]:
    """The children of a layer whose outputs, added to the stream, are its `half`: none when it has no such half.

    A child with weights of both halves (a mixer that is neither alone) counts as neither.
    """
    found = []
    for name, child in layer.named_children():
        roles = {classify(f"layers.0.{name}.{path}")[1] for path, _ in child.named_parameters()}
        held = [one for one, wanted in HALVES.items() if roles & wanted]
        if held == [half]:
            found.append(child)
    return found


@contextmanager
def silenced(modules: list[nn.Module]) -> Iterator[None]:
    """Within, the modules compute as ever and put out zeros."""
    kept = [module.register_forward_hook(_zeros) for module in modules]
    try:
        yield
    finally:
        for hook in kept:
            hook.remove()


def _zeros(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    if isinstance(output, tuple):
        return torch.zeros_like(output[0]), *output[1:]
    return torch.zeros_like(output)
