"""Sweeps equal the slow way: one hook that skips (or swaps) one layer, one pass a layer."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.resident import Resident
from darwin_lab.engine.sweep import observe, skip_sweep, swap_sweep
from darwin_lab.errors import Cancelled

Trio = tuple[Path, Path, Path]
TEXTS = [[3, 4, 5, 6, 7, 8, 9], [10, 11, 12], [13, 14, 15, 16, 17]]


@contextmanager
def without(resident: Resident, index: int) -> Iterator[None]:
    hook = resident.decoder_layers[index].register_forward_hook(lambda module, args, output: args[0])
    try:
        yield
    finally:
        hook.remove()


@pytest.fixture(params=["tiny_llama_pair", "tiny_moe_pair"])
def parents(request: pytest.FixtureRequest) -> tuple[Resident, Resident]:
    father, mother, _ = request.getfixturevalue(request.param)
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
    swept = swap_sweep(father, mother, ids, mask)
    layers = father.backbone.layers
    real = mask.bool()
    for index in range(father.layers):
        own, layers[index] = layers[index], mother.backbone.layers[index]
        expected = father.hidden(ids, mask)
        layers[index] = own
        assert torch.allclose(swept[1 + index][real], expected[real], atol=1e-5)


@torch.no_grad()
def test_padding_does_not_change_a_text(parents: tuple[Resident, Resident]) -> None:
    father, _ = parents
    together = skip_sweep(father, *father.encode_batch(TEXTS))
    for row, text in enumerate(TEXTS):
        alone = skip_sweep(father, *father.encode_batch([text]))
        assert torch.allclose(together[:, row, : len(text)], alone[:, 0], atol=1e-5)


@torch.no_grad()
def test_a_sweep_leaves_no_hooks_behind_even_when_cancelled(parents: tuple[Resident, Resident]) -> None:
    father, _ = parents
    ids, mask = father.encode_batch(TEXTS)
    before = father.hidden(ids, mask)

    def stop(fraction: float, words: str) -> None:
        if fraction > 0.4:
            raise Cancelled

    with pytest.raises(Cancelled):
        skip_sweep(father, ids, mask, tick=stop)
    assert torch.equal(father.hidden(ids, mask), before)


@torch.no_grad()
def test_observing_gives_each_layers_states_and_the_experts_it_chose(tiny_moe_pair: Trio) -> None:
    father = Resident.load(open_checkpoint(tiny_moe_pair[0]))
    ids, mask = father.encode_batch(TEXTS)
    seen = observe(father, ids, mask)
    assert len(seen.inputs) == len(seen.outputs) == father.layers
    assert all(torch.equal(seen.outputs[i], seen.inputs[i + 1]) for i in range(father.layers - 1))
    logits = father.model(input_ids=ids, attention_mask=mask, output_router_logits=True).router_logits
    for routing, expected in zip(seen.routing, logits, strict=True):
        assert torch.allclose(routing.probabilities.flatten(0, 1), expected.softmax(-1), atol=1e-5)
        assert torch.equal(routing.chosen.flatten(0, 1).sort(-1).values, expected.topk(2, -1).indices.sort(-1).values)
