"""Sweeps equal the slow way: one hook that skips (or swaps) one layer, one pass a layer, for every family."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine import replay, sweep
from darwin_lab.engine.halves import half_modules
from darwin_lab.engine.resident import Resident
from darwin_lab.engine.routing import Routing
from darwin_lab.engine.sweep import WHOLE, WITH_HALVES, Step, advance, finish, skip_sweep, start_sweep, swap_sweep
from darwin_lab.errors import Cancelled, LabError
from tests.families import KINDS, MIXTURES, write_family_pair

Trio = tuple[Path, Path, Path]
TEXTS = [[3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14], [10, 11, 12], [13, 14, 15, 16, 17]]


@contextmanager
def without(resident: Resident, index: int) -> Iterator[None]:
    """The layer runs, for what it leaves to later ones, and its output is thrown away."""
    entered: list[torch.Tensor] = []

    def before(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered.append((args[0] if args else kwargs["hidden_states"]).clone())

    layer = resident.decoder_layers[index]
    hooks = [
        layer.register_forward_pre_hook(before, with_kwargs=True),
        layer.register_forward_hook(lambda module, args, output: entered.pop()),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@pytest.fixture(scope="module", params=KINDS)
def parents(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Resident, Resident]:
    father, mother, _ = write_family_pair(request.param, tmp_path_factory.mktemp(request.param))
    return Resident.load(open_checkpoint(father)), Resident.load(open_checkpoint(mother))


@torch.no_grad()
def test_the_skip_sweep_equals_skipping_one_layer_at_a_time(parents: tuple[Resident, Resident]) -> None:
    father, _ = parents
    ids, mask = father.encode_batch(TEXTS)
    swept = skip_sweep(father, ids, mask)
    real = mask.bool()
    assert torch.allclose(swept[0][real], father.hidden(ids, mask)[real], atol=1e-5)
    for layer in range(father.layers):
        with without(father, layer):
            expected = father.hidden(ids, mask)
        assert torch.allclose(swept[1 + layer][real], expected[real], atol=1e-5)
        assert not torch.allclose(swept[1 + layer][real], swept[0][real], atol=1e-3)


@torch.no_grad()
def test_the_swap_sweep_equals_putting_in_the_mothers_layer(parents: tuple[Resident, Resident]) -> None:
    father, mother = parents
    ids, mask = father.encode_batch(TEXTS)
    real = mask.bool()
    both = swap_sweep((father, mother), ids, mask)
    for swept, host, guest in ((both[0], father, mother), (both[1], mother, father)):
        layers = host.backbone.layers
        for index in range(host.layers):
            own, layers[index] = layers[index], guest.backbone.layers[index]
            expected = host.hidden(ids, mask)
            layers[index] = own
            assert torch.allclose(swept[1 + index][real], expected[real], atol=1e-5)
            assert not torch.allclose(swept[1 + index][real], swept[0][real], atol=1e-4)


@contextmanager
def silent_half(resident: Resident, index: int, half: str) -> Iterator[None]:
    """The attention or the FFN of a layer puts out zeros, found by the names that transformers gives them."""
    names = {"attn": ("self_attn", "linear_attn"), "ffn": ("mlp", "experts")}[half]
    layer = resident.decoder_layers[index]
    modules = [getattr(layer, name) for name in names if hasattr(layer, name)]
    forwards = [module.forward for module in modules]

    def zeros(module: torch.nn.Module, forward: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            return (0 * output[0], *output[1:]) if isinstance(output, tuple) else 0 * output

        return run

    for module, forward in zip(modules, forwards, strict=True):
        module.forward = zeros(module, forward)  # type: ignore[method-assign]
    try:
        assert modules
        yield
    finally:
        for module in modules:
            del module.forward


@torch.no_grad()
def test_the_sweep_with_halves_equals_silencing_one_half_of_one_layer_at_a_time(
    parents: tuple[Resident, Resident],
) -> None:
    father, _ = parents
    ids, mask = father.encode_batch(TEXTS)
    swept = skip_sweep(father, ids, mask, parts=WITH_HALVES)
    real = mask.bool()
    assert torch.allclose(
        swept[[0, *range(1, len(swept), 3)]][:, real], skip_sweep(father, ids, mask)[:, real], atol=1e-5
    )
    for layer in range(father.layers):
        for place, half in ((1, "attn"), (2, "ffn")):
            with silent_half(father, layer, half):
                expected = father.hidden(ids, mask)
            found = swept[1 + 3 * layer + place]
            assert torch.allclose(found[real], expected[real], atol=1e-5)
            assert not torch.allclose(found[real], swept[0][real], atol=1e-4)


@torch.no_grad()
def test_a_layer_without_an_ffn_of_its_own_is_noted_and_its_branch_is_the_plain_pass(
    tiny_llama_pair: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    father = Resident.load(open_checkpoint(tiny_llama_pair[0]))
    alone = father.decoder_layers[1]

    def without_it(layer: torch.nn.Module, half: str) -> list[torch.nn.Module]:
        return [] if (layer, half) == (alone, "ffn") else half_modules(layer, half)

    monkeypatch.setattr(sweep, "half_modules", without_it)
    front = start_sweep(father, [father.encode_batch(TEXTS)], parts=WITH_HALVES)
    while front.layer < father.layers:
        advance(father, front)
    assert front.lacking == {(1, "ffn")}
    swept = finish(front, 0)
    assert torch.equal(swept[1 + 3 * 1 + 2], swept[0])
    assert not torch.equal(swept[1 + 3 * 1 + 1], swept[0])


@pytest.mark.parametrize(
    ("held", "attention", "ffn"),
    [
        ({"self_attn": "q_proj", "mlp": "up_proj"}, ["self_attn"], ["mlp"]),
        ({"linear_attn": "in_proj", "mlp": "up_proj", "router": "proj"}, ["linear_attn"], ["mlp"]),
        ({"mixer": "in_proj"}, ["mixer"], []),
        ({"mlp": "up_proj", "input_layernorm": "", "per_layer_projection": ""}, [], ["mlp"]),
    ],
    ids=["plain", "router beside", "mixer alone", "FFN alone"],
)
def test_halves_are_told_apart_by_what_their_weights_are(
    held: dict[str, str], attention: list[str], ffn: list[str]
) -> None:
    layer = torch.nn.Module()
    for name, inside in held.items():
        child: torch.nn.Module = torch.nn.Linear(2, 2)
        if inside:
            child = torch.nn.Module()
            child.add_module(inside, torch.nn.Linear(2, 2))
        layer.add_module(name, child)
    assert half_modules(layer, "attn") == [getattr(layer, name) for name in attention]
    assert half_modules(layer, "ffn") == [getattr(layer, name) for name in ffn]


@torch.no_grad()
def test_padding_and_the_rows_of_one_call_change_nothing(
    parents: tuple[Resident, Resident], monkeypatch: pytest.MonkeyPatch
) -> None:
    father, _ = parents
    together = skip_sweep(father, *father.encode_batch(TEXTS))
    monkeypatch.setattr(sweep, "TOKENS_AT_ONCE", 1)
    for row, text in enumerate(TEXTS):
        alone = skip_sweep(father, *father.encode_batch([text]))
        assert torch.allclose(together[:, row, : len(text)], alone[:, 0], atol=1e-5)


@torch.no_grad()
def test_every_tensor_of_the_mother_lands_where_loading_her_puts_it(parents: tuple[Resident, Resident]) -> None:
    father, mother = parents
    ids, mask = mother.encode_batch(TEXTS)
    kept = father._source
    father.become(mother._source)
    try:
        assert torch.equal(father.hidden(ids, mask), mother.hidden(ids, mask))
    finally:
        father.become(kept)


@torch.no_grad()
@pytest.mark.parametrize("kind", sorted(MIXTURES))
def test_the_watch_sees_each_layers_states_and_the_experts_it_chose(kind: str, tmp_path: Path) -> None:
    father = Resident.load(open_checkpoint(write_family_pair(kind, tmp_path)[0]))
    ids, mask = father.encode_batch(TEXTS)
    steps: list[Step] = []
    skip_sweep(father, ids, mask, watch=lambda step: steps.append(replace(step, after=step.after.clone())))
    assert [step.layer for step in steps] == list(range(father.layers))
    assert all(torch.equal(before.after, after.before) for before, after in pairwise(steps))
    seen = [routing for step in steps for routing in step.routing]
    expected = chosen_by_hooks(father, ids, mask)
    assert [routing.layer for routing in seen] == sorted(expected)
    for routing in seen:
        experts = routing.probabilities.shape[-1]
        assert torch.allclose(routing.probabilities.sum(-1), torch.ones(ids.shape), atol=1e-4)
        assert torch.equal(counts(routing, experts), expected[routing.layer])


def counts(routing: Routing, experts: int) -> torch.Tensor:
    return torch.bincount(routing.chosen.flatten(), minlength=experts)


def chosen_by_hooks(resident: Resident, ids: torch.Tensor, mask: torch.Tensor) -> dict[int, torch.Tensor]:
    """Layer -> times each expert was chosen in one plain pass, counted where the experts are called."""
    found: dict[int, torch.Tensor] = {}
    hooks = []
    for index, layer in enumerate(resident.decoder_layers):
        for name, module in layer.named_modules():
            if name.split(".")[-1] == "experts":

                def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], index: int = index) -> None:
                    chosen = kwargs["top_k_index"] if "top_k_index" in kwargs else args[1]
                    found[index] = torch.bincount(chosen.flatten(), minlength=len(module.down_proj))

                hooks.append(module.register_forward_pre_hook(note, with_kwargs=True))
    resident.hidden(ids, mask)
    for hook in hooks:
        hook.remove()
    return found


@torch.no_grad()
def test_a_sweep_leaves_nothing_behind_even_when_cancelled(tiny_moe_pair: Trio) -> None:
    father = Resident.load(open_checkpoint(tiny_moe_pair[0]))
    ids, mask = father.encode_batch(TEXTS)
    before = father.hidden(ids, mask)

    def stop(fraction: float, words: str) -> None:
        if fraction > 0.3:
            raise Cancelled

    with pytest.raises(Cancelled):
        skip_sweep(father, ids, mask, tick=stop)
    assert torch.equal(father.hidden(ids, mask), before)


@torch.no_grad()
def test_rows_are_halved_until_memory_suffices_and_a_single_row_is_the_end(
    tiny_llama_pair: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    father = Resident.load(open_checkpoint(tiny_llama_pair[0]))
    ids, mask = father.encode_batch(TEXTS)
    plenty = skip_sweep(father, ids, mask)
    largest: list[int] = []
    run = replay.Replay.run
    limit = 2

    def scarce(self: Any, layer: Any, index: int, hidden: torch.Tensor, start: int) -> Any:
        if len(hidden) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        largest.append(len(hidden))
        return run(self, layer, index, hidden, start)

    monkeypatch.setattr(replay.Replay, "run", scarce)
    assert torch.allclose(skip_sweep(father, ids, mask), plenty, atol=1e-5)
    assert max(largest) <= limit
    limit = 0
    with pytest.raises(LabError, match="layer 0 with a single text of 12 tokens"):
        skip_sweep(father, ids, mask)


@pytest.mark.parametrize("parts", [WHOLE, WITH_HALVES])
def test_progress_counts_the_rows_that_ran_not_the_layers(
    tiny_llama_pair: Trio, monkeypatch: pytest.MonkeyPatch, parts: tuple[str, ...]
) -> None:
    father = Resident.load(open_checkpoint(tiny_llama_pair[0]))
    run, rows, told = replay.Replay.run, [0], []

    def counted(self: Any, layer: Any, index: int, hidden: torch.Tensor, start: int) -> Any:
        rows[0] += len(hidden)
        return run(self, layer, index, hidden, start)

    monkeypatch.setattr(replay.Replay, "run", counted)
    skip_sweep(father, *father.encode_batch(TEXTS), tick=lambda done, words: told.append((done, rows[0])), parts=parts)
    assert told[0] == (0.0, 0)
    paces = [ran / done for done, ran in told[1:]]
    assert len(paces) == father.layers - 1 and paces == pytest.approx([paces[0]] * len(paces))
    assert told[-1][0] < 1 - 1 / (father.layers + 1), "the last layers and the output matrix are the longest"
