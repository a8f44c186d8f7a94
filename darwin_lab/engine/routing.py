"""What the experts of a layer did in one call: seen through hooks, never computed a second way.

Takes a decoder layer about to run, gives for each of its experts modules the true choice, weights and probabilities,
what the experts read, and the means to run any expert on any of that. Knows no probes and no family.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from darwin_lab.engine.replay import hidden_argument, hidden_of


@dataclass(frozen=True)
class Routing:
    """What one MoE layer decided: chosen experts [B, T, k], their weights [B, T, k], probabilities [B, T, E].

    `inputs` [B, T, H] is what its experts read (after the norm).
    """

    layer: int
    chosen: torch.Tensor
    weights: torch.Tensor
    probabilities: torch.Tensor
    inputs: torch.Tensor
    experts: nn.Module

    def outputs(self, inputs: torch.Tensor, experts: torch.Tensor) -> torch.Tensor:
        """[N, H]: what expert `experts[n]` makes of `inputs[n]` [N, H], before any weight.

        Only while the layer is in memory, that is within the watch that was given this.
        """
        one = torch.ones(len(experts), 1, dtype=inputs.dtype, device=inputs.device)
        return hidden_of(self.experts(inputs, experts[:, None], one))


@dataclass
class Seen:
    """One experts module in one call: inputs [N, H], chosen experts and weights [N, k], router's scores [N, E]."""

    experts: nn.Module
    inputs: torch.Tensor | None = None
    chosen: torch.Tensor | None = None
    weights: torch.Tensor | None = None
    scores: torch.Tensor | None = None


def watch_experts(layer: nn.Module, kept: list[Any]) -> list[Seen]:
    """Hooks the experts modules of a layer (inputs, true top-k and weights) and their routers (logits or
    probabilities); the hooks go into `kept`."""
    found: list[Seen] = []
    for name, experts in layer.named_modules():
        fused = getattr(experts, "gate_up_proj", getattr(experts, "up_proj", None))
        if not (isinstance(fused, nn.Parameter) and fused.dim() == 3):
            continue
        owner = layer.get_submodule(name.rpartition(".")[0])
        router = next(
            (m for m in (getattr(owner, "gate", None), getattr(owner, "router", None)) if m is not None), None
        )
        seen = Seen(experts)
        found.append(seen)

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], seen: Seen = seen) -> None:
            seen.inputs = hidden_argument(args, kwargs)
            seen.chosen = kwargs["top_k_index"] if "top_k_index" in kwargs else args[1]
            seen.weights = kwargs["top_k_weights"] if "top_k_weights" in kwargs else args[2]

        def after(module: nn.Module, args: tuple[Any, ...], output: Any, seen: Seen = seen) -> None:
            seen.scores = hidden_of(output)

        kept.append(experts.register_forward_pre_hook(before, with_kwargs=True))
        if router is not None:
            kept.append(router.register_forward_hook(after))
    return found


def routings(seen: Sequence[Seen], layer: int, texts: int, tokens: int) -> tuple[Routing, ...]:
    """The plain rows' routing, put together from the calls that held them, one for every experts module."""
    found: dict[nn.Module, list[Seen]] = {}
    for call in seen:
        if call.chosen is not None and call.weights is not None and call.scores is not None:
            found.setdefault(call.experts, []).append(call)

    def plain(pieces: list[torch.Tensor]) -> torch.Tensor:
        whole = torch.cat([piece.flatten(0, -2) for piece in pieces])[: texts * tokens]
        return whole.reshape(texts, tokens, whole.shape[-1])

    made = []
    for experts, calls in found.items():
        scores = plain([call.scores for call in calls if call.scores is not None]).float()
        sums = scores.sum(-1)
        already = bool((scores >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)
        chosen = plain([call.chosen for call in calls if call.chosen is not None])
        weights = plain([call.weights for call in calls if call.weights is not None]).float()
        inputs = plain([call.inputs for call in calls if call.inputs is not None])
        made.append(Routing(layer, chosen, weights, scores if already else scores.softmax(-1), inputs, experts))
    return tuple(made)
