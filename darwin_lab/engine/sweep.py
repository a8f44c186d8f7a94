"""Layer sweeps: many branches of one batch through the model, layer by layer, each weight used once.

Takes a resident model and a padded batch, gives hidden states. Hooks repeat a layer's own arguments for the
branches, so masks, rotary embeddings and shared state stay transformers' business. Knows no probes and no scores.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from darwin_lab.engine.resident import Resident
from darwin_lab.progress import Tick, silent


@dataclass(frozen=True)
class Routing:
    """What one MoE layer decided: chosen experts [B, T, k], their weights [B, T, k], probabilities [B, T, E]."""

    layer: int
    chosen: torch.Tensor
    weights: torch.Tensor
    probabilities: torch.Tensor


@dataclass(frozen=True)
class Observation:
    """One plain pass: `inputs` and `outputs` of every layer [L][B, T, H], `final` after the last norm [B, T, H]."""

    inputs: list[torch.Tensor]
    outputs: list[torch.Tensor]
    final: torch.Tensor
    routing: list[Routing]


@torch.inference_mode()
def observe(resident: Resident, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Observation:
    """Hidden states and expert routing of one plain pass over [B, T] tokens."""
    inputs: list[torch.Tensor] = []
    outputs: list[torch.Tensor] = []

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs.append(_hidden_argument(args, kwargs).clone())

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        outputs.append(_hidden_of(output).clone())

    with resident.lock, _hooks() as hooks:
        for layer in resident.decoder_layers:
            hooks.append(layer.register_forward_pre_hook(before, with_kwargs=True))
            hooks.append(layer.register_forward_hook(after))
        routing = _watch_experts(resident, hooks)
        final = resident.hidden(input_ids, attention_mask)
    shape = input_ids.shape
    return Observation(inputs, outputs, final, [_shaped(seen, shape) for seen in routing if seen.chosen])


@torch.inference_mode()
def skip_sweep(
    resident: Resident, input_ids: torch.Tensor, attention_mask: torch.Tensor, tick: Tick = silent
) -> torch.Tensor:
    """[L + 1, B, T, H] normed final hidden states: 0 is the plain pass, 1 + j the pass without layer j.

    At layer j the branches so far run as one batch, then the plain input of layer j joins them as "j skipped".
    """
    return _sweep(resident, input_ids, attention_mask, lambda layer, args, kwargs, plain: plain, tick)


@torch.inference_mode()
def swap_sweep(
    resident: Resident, donor: Resident, input_ids: torch.Tensor, attention_mask: torch.Tensor, tick: Tick = silent
) -> torch.Tensor:
    """[L + 1, B, T, H]: 0 is the plain pass, 1 + j the pass with the donor's layer j in the resident's stream."""
    donors = donor.decoder_layers

    def swapped(layer: int, args: tuple[Any, ...], kwargs: dict[str, Any], plain: torch.Tensor) -> torch.Tensor:
        return _hidden_of(donors[layer](plain, *args, **kwargs))

    with donor.lock:
        return _sweep(resident, input_ids, attention_mask, swapped, tick)


Branch = Callable[[int, tuple[Any, ...], dict[str, Any], torch.Tensor], torch.Tensor]


def _sweep(
    resident: Resident, input_ids: torch.Tensor, attention_mask: torch.Tensor, branch: Branch, tick: Tick
) -> torch.Tensor:
    batch, layers = input_ids.shape[0], resident.decoder_layers

    def watch(index: int, layer: nn.Module) -> list[Any]:
        joining: list[torch.Tensor] = []

        def before(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            tick(index / len(layers), f"layer {index}")
            hidden = _hidden_argument(args, kwargs)
            plain = hidden[:batch].clone()
            rest = {key: value for key, value in kwargs.items() if key != "hidden_states"}
            joining.append(branch(index, args[1:], dict(rest), plain))
            copies = hidden.shape[0] // batch
            _grow_shared(rest.get("shared_kv_states"), batch, copies)
            grown = {
                key: value if key == "shared_kv_states" else _grow(value, batch, copies) for key, value in rest.items()
            }
            return (hidden, *(_grow(value, batch, copies) for value in args[1:])), grown

        def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            return _replaced(output, torch.cat([_hidden_of(output), joining.pop()]))

        return [layer.register_forward_pre_hook(before, with_kwargs=True), layer.register_forward_hook(after)]

    with resident.lock, _hooks() as hooks:
        for index, layer in enumerate(layers):
            hooks.extend(watch(index, layer))
        final = resident.hidden(input_ids, attention_mask)
    return final.reshape(len(layers) + 1, batch, *final.shape[1:])


@contextmanager
def _hooks() -> Iterator[list[Any]]:
    """A list whose hooks are removed at the end, whatever happens."""
    hooks: list[Any] = []
    try:
        yield hooks
    finally:
        for hook in hooks:
            hook.remove()


def _hidden_argument(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    hidden: torch.Tensor = args[0] if args else kwargs["hidden_states"]
    return hidden


def _hidden_of(output: Any) -> torch.Tensor:
    hidden: torch.Tensor = output[0] if isinstance(output, tuple | list) else output
    return hidden


def _replaced(output: Any, hidden: torch.Tensor) -> Any:
    return (hidden, *output[1:]) if isinstance(output, tuple | list) else hidden


def _grow(value: Any, batch: int, copies: int) -> Any:
    """Repeats per-row arguments (masks, rotary embeddings, per-layer inputs) for every branch."""
    if isinstance(value, tuple):
        return tuple(_grow(item, batch, copies) for item in value)
    if isinstance(value, torch.Tensor) and value.dim() > 0 and value.shape[0] == batch and copies > 1:
        return value.repeat(copies, *[1] * (value.dim() - 1))
    return value


def _grow_shared(shared: Any, batch: int, copies: int) -> None:
    """Branches that joined after a shared key-value state was stored inherit the plain row's."""
    for key in list(shared.keys()) if shared is not None else []:
        states = shared[key]
        if isinstance(states, tuple) and states[0].shape[0] < copies * batch:
            lacking = copies - states[0].shape[0] // batch
            shared[key] = tuple(torch.cat([state] + [state[:batch]] * lacking) for state in states)


@dataclass
class _Seen:
    layer: int
    chosen: list[torch.Tensor]
    weights: list[torch.Tensor]
    scores: list[torch.Tensor]


def _watch_experts(resident: Resident, hooks: list[Any]) -> list[_Seen]:
    """Hooks the experts modules (true top-k and weights) and their routers (logits or probabilities)."""
    found: list[_Seen] = []
    for index, layer in enumerate(resident.decoder_layers):
        for name, experts in layer.named_modules():
            fused = getattr(experts, "gate_up_proj", getattr(experts, "up_proj", None))
            if not (isinstance(fused, nn.Parameter) and fused.dim() == 3):
                continue
            owner = layer.get_submodule(name.rpartition(".")[0])
            router = next(
                (m for m in (getattr(owner, "gate", None), getattr(owner, "router", None)) if m is not None), None
            )
            seen = _Seen(index, [], [], [])
            found.append(seen)

            def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], seen: _Seen = seen) -> None:
                seen.chosen.append(kwargs["top_k_index"] if "top_k_index" in kwargs else args[1])
                seen.weights.append(kwargs["top_k_weights"] if "top_k_weights" in kwargs else args[2])

            def after(module: nn.Module, args: tuple[Any, ...], output: Any, seen: _Seen = seen) -> None:
                seen.scores.append(_hidden_of(output))

            hooks.append(experts.register_forward_pre_hook(before, with_kwargs=True))
            if router is not None:
                hooks.append(router.register_forward_hook(after))
    return found


def _shaped(seen: _Seen, shape: torch.Size) -> Routing:
    scores = seen.scores[0].float()
    scores = scores.reshape(*shape, scores.shape[-1])
    already = bool((scores >= 0).all()) and torch.allclose(scores.sum(-1), torch.ones_like(scores[..., 0]), atol=1e-3)
    top_k = seen.chosen[0].shape[-1]
    return Routing(
        layer=seen.layer,
        chosen=seen.chosen[0].reshape(*shape, top_k),
        weights=seen.weights[0].float().reshape(*shape, top_k),
        probabilities=scores if already else scores.softmax(-1),
    )
