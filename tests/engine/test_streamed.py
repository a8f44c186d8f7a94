"""A streamed model gives what a resident one gives, with one layer in memory and each weight read once."""

from pathlib import Path

import pytest
import torch

from darwin_lab.checkpoint.anatomy import read_anatomy
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine import streamed
from darwin_lab.engine.child import Child
from darwin_lab.engine.resident import Resident
from darwin_lab.engine.streamed import Streamed, load_model, weigh
from darwin_lab.engine.sweep import Step, advance, finish, skip_sweep, start_sweep
from darwin_lab.errors import LabError
from darwin_lab.merging.recipe import uniform_recipe
from tests.families import KINDS, write_family_pair

Trio = tuple[Path, Path, Path]
TEXTS = [[3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14], [10, 11, 12], [13, 14, 15, 16, 17]]


def in_memory(model: Resident) -> list[int]:
    """Decoder layers with any weight in memory."""
    return [
        index
        for index, layer in enumerate(model.decoder_layers)
        if not all(parameter.is_meta for parameter in layer.parameters())
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_streaming_equals_resident_with_one_layer_in_memory_and_each_weight_read_once(
    kind: str, tmp_path: Path
) -> None:
    source = open_checkpoint(write_family_pair(kind, tmp_path)[0])
    resident, model = Resident.load(source), Streamed.open(source)
    ids, mask = resident.encode_batch(TEXTS)
    held: list[list[int]] = []
    swept = skip_sweep(model, ids, mask, watch=lambda step: held.append(in_memory(model)))
    assert torch.equal(swept, skip_sweep(resident, ids, mask))
    assert held == [[layer] for layer in range(model.layers)]
    with model.head(), torch.no_grad():
        assert torch.equal(model.logits(swept[0]), resident.logits(swept[0]))
    wanted = [name for name in source.names if model.place(name) is not None]
    assert model.bytes_read == sum(source.tensors[name].nbytes for name in wanted)
    assert in_memory(model) == []


def test_a_virtual_child_streams_as_it_is_held(tiny_moe_pair: Trio) -> None:
    father, mother = (open_checkpoint(folder) for folder in tiny_moe_pair[:2])
    child = Child(father, mother, uniform_recipe(read_anatomy(father), 0.3))
    resident, model = Resident.load(child), Streamed.open(father)
    model.become(child)
    ids, mask = resident.encode_batch(TEXTS)
    assert torch.equal(skip_sweep(model, ids, mask), skip_sweep(resident, ids, mask))
    assert model.fingerprint == child.fingerprint


def test_states_may_lie_on_disk(tiny_llama_pair: Trio) -> None:
    source = open_checkpoint(tiny_llama_pair[0])
    resident, model = Resident.load(source), Streamed.open(source, overflow="spill")
    assert model.spill is not None
    ids, mask = resident.encode_batch(TEXTS)
    front = start_sweep(model, [(ids, mask)], model.spill)
    while front.layer < model.layers:
        advance(model, front)
    assert torch.equal(finish(front, 0), skip_sweep(resident, ids, mask))
    (file,) = model.spill.iterdir()
    assert file.stat().st_size == front.states[0].nbytes


def test_all_batches_go_through_a_layer_before_the_next_is_fetched(tiny_llama_pair: Trio) -> None:
    source = open_checkpoint(tiny_llama_pair[0])
    model, seen = Streamed.open(source), []

    def watch(step: Step) -> None:
        seen.append((step.layer, step.batch))

    front = start_sweep(model, [model.encode_batch([text]) for text in TEXTS])
    while front.layer < model.layers:
        advance(model, front, watch)
    assert seen == [(layer, batch) for layer in range(model.layers) for batch in range(len(TEXTS))]


def test_bfloat16_computes_in_bfloat16(tiny_llama_pair: Trio) -> None:
    source = open_checkpoint(tiny_llama_pair[0])
    resident, model = Resident.load(source, dtype=torch.bfloat16), Streamed.open(source, dtype=torch.bfloat16)
    ids, mask = resident.encode_batch(TEXTS)
    swept = skip_sweep(model, ids, mask)
    assert swept.dtype == torch.bfloat16
    assert torch.equal(swept, skip_sweep(resident, ids, mask))


def test_a_model_is_streamed_when_it_does_not_fit_unless_told_otherwise(
    tiny_llama_pair: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_checkpoint(tiny_llama_pair[0])
    needed = weigh(source).needed
    for free, fits in ((needed * 2, True), (needed, False)):
        monkeypatch.setattr(streamed, "free_bytes", lambda device="cpu", free=free: free)
        assert weigh(source).streamed is not fits
        assert weigh(source, "always").streamed
        assert not weigh(source, "never").streamed
    assert isinstance(load_model(source, weigh(source)), Streamed)
    assert not load_model(source, weigh(source, "never")).streamed
    assert "streamed" in weigh(source).sentence
    with pytest.raises(LabError, match="choose auto, always, never"):
        weigh(source, "sometimes")


def test_a_checkpoint_that_lacks_a_weight_is_refused_before_anything_is_read(
    tiny_llama_pair: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_checkpoint(tiny_llama_pair[0])
    names = tuple(name for name in source.names if not name.endswith("layers.2.mlp.up_proj.weight"))
    monkeypatch.setattr(type(source), "names", names)
    with pytest.raises(LabError, match=r"1 missing, 0 left over, first model.layers.2.mlp.up_proj.weight"):
        Streamed.open(source)


def test_nan_in_a_weight_is_named_when_it_is_met(tiny_llama_pair: Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_checkpoint(tiny_llama_pair[0])
    read = source.read

    def damaged(name: str) -> torch.Tensor:
        tensor = read(name)
        if name == "model.layers.1.self_attn.q_proj.weight":
            tensor[3] = float("nan")
        return tensor

    monkeypatch.setattr(source, "read", damaged)
    model = Streamed.open(source)
    ids, mask = model.encode_batch(TEXTS)
    with pytest.raises(LabError, match=r"model.layers.1.self_attn.q_proj.weight of father holds NaN"):
        skip_sweep(model, ids, mask)
