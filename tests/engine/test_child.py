"""The virtual child: the same recipe gives the same bytes, virtual or exported, on any number of threads."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from darwin_lab.checkpoint.anatomy import read_anatomy
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine import export as export_room
from darwin_lab.engine.child import Child
from darwin_lab.engine.export import export_child
from darwin_lab.engine.resident import Resident
from darwin_lab.errors import Cancelled, LabError
from darwin_lab.genome.genome import neutral_genome
from darwin_lab.merging.operators import OPERATORS
from darwin_lab.merging.prescription import Prescription
from darwin_lab.merging.recipe import Recipe, make_recipe, uniform_recipe

Trio = tuple[Path, Path, Path]


def child_of(trio: Trio, ratio: float = 0.4, operator: str = "lerp", density: float = 1.0, seed: int = 0) -> Child:
    father, mother, ancestor = map(open_checkpoint, trio)
    return Child(father, mother, uniform_recipe(read_anatomy(father), ratio, operator, density, seed), ancestor)


@pytest.mark.parametrize("operator", OPERATORS)
def test_an_exported_child_has_the_bytes_of_the_virtual_one(tiny_moe_pair: Trio, tmp_path: Path, operator: str) -> None:
    child = child_of(tiny_moe_pair, 0.4, operator, 0.6)
    exported = open_checkpoint(export_child(child, tmp_path / "child"))
    assert exported.names == child.father.names
    for name in child.names:
        assert torch.equal(exported.read(name), child.read(name))
        assert exported.tensors[name].dtype == child.father.tensors[name].dtype


def test_the_exported_folder_loads_in_transformers_with_the_virtual_childs_logits(
    tiny_moe_pair: Trio, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    child = child_of(tiny_moe_pair, 0.4, "dare_ties", 0.6)
    resident = Resident.load(open_checkpoint(tiny_moe_pair[0]))
    resident.become(child)
    model, report = AutoModelForCausalLM.from_pretrained(
        export_child(child, tmp_path / "child"), dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    ids, mask = resident.encode_batch([[3, 4, 5, 6]])
    with torch.no_grad():
        exported = model(input_ids=ids, attention_mask=mask).logits
        assert torch.allclose(exported, resident.logits(resident.hidden(ids, mask)), atol=1e-5)


def test_ratio_zero_is_the_father_byte_for_byte_and_one_is_the_mother(tiny_moe_pair: Trio, tmp_path: Path) -> None:
    for ratio, parent in ((0.0, tiny_moe_pair[0]), (1.0, tiny_moe_pair[1])):
        out = export_child(child_of(tiny_moe_pair, ratio, "dare_ties", 0.5), tmp_path / str(ratio))
        expected = load_file(parent / "model.safetensors")
        got = load_file(out / "model.safetensors")
        assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())
        if ratio == 0.0:
            assert (out / "config.json").read_bytes() == (parent / "config.json").read_bytes()


def test_the_same_recipe_gives_the_same_bytes_in_another_process_with_more_threads(
    tiny_moe_pair: Trio, tmp_path: Path
) -> None:
    here = export_child(child_of(tiny_moe_pair, 0.37, "dare_ties", 0.5, seed=5), tmp_path / "here")
    script = (
        "import sys, torch; torch.set_num_threads(2); from pathlib import Path\n"
        "from tests.engine.test_child import child_of; from darwin_lab.engine.export import export_child\n"
        "*trio, out = map(Path, sys.argv[1:])\n"
        "export_child(child_of(tuple(trio), .37, 'dare_ties', .5, seed=5), out)"
    )
    there = tmp_path / "there"
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", script, *map(str, tiny_moe_pair), str(there)]
    subprocess.run(command, check=True, cwd=root, env=environment, capture_output=True)
    assert (there / "model.safetensors").read_bytes() == (here / "model.safetensors").read_bytes()


def test_changing_an_attention_gene_leaves_all_other_bytes_alone(tiny_moe_pair: Trio) -> None:
    father, mother, ancestor = map(open_checkpoint, tiny_moe_pair)
    anatomy = read_anatomy(father)
    genome = neutral_genome("v6", anatomy.layers, operator="dare_ties").with_genes(density_a=0.5, density_b=0.5)
    before = Child(father, mother, make_recipe(genome, anatomy), ancestor)
    after = Child(father, mother, make_recipe(genome.with_genes(attn_ratio=0.7), anatomy), ancestor)
    differing = {name for name in father.names if not torch.equal(before.read(name), after.read(name))}
    assert differing <= {part.name for part in anatomy.mergeable if part.component == "attn"}
    assert len(differing) > len(anatomy.parts) // 4


def test_a_resident_becomes_every_child_as_if_loaded_anew(tiny_moe_pair: Trio) -> None:
    father = open_checkpoint(tiny_moe_pair[0])
    resident = Resident.load(father)
    ids, mask = resident.encode_batch([[3, 4, 5, 6, 7]])
    for source in (child_of(tiny_moe_pair, 0.3), child_of(tiny_moe_pair, 0.8, "dare", 0.5), father):
        resident.become(source)
        with torch.no_grad():
            assert torch.equal(resident.hidden(ids, mask), Resident.load(source).hidden(ids, mask))


def test_becoming_a_child_never_touches_the_parents(tiny_moe_pair: Trio) -> None:
    prints = [open_checkpoint(folder).fingerprint for folder in tiny_moe_pair]
    resident = Resident.load(open_checkpoint(tiny_moe_pair[0]))
    resident.become(child_of(tiny_moe_pair, 0.9))
    assert [open_checkpoint(folder).fingerprint for folder in tiny_moe_pair] == prints


def test_a_preserved_expert_is_the_fathers_and_its_router_row_has_the_childs_scale(tiny_moe_pair: Trio) -> None:
    father, mother, ancestor = map(open_checkpoint, tiny_moe_pair)
    anatomy = read_anatomy(father)
    ratio = {part.name: 0.5 for part in anatomy.mergeable}
    advice = Prescription("test", ratio, (0.5,) * 4, {}, ((0, 3),), preserve={1: (2,)}, router={1: "B"})
    genome = neutral_genome("v6", anatomy.layers, experts="preserve")
    child = Child(father, mother, make_recipe(genome, anatomy, advice), ancestor)
    experts = "model.layers.1.mlp.experts.down_proj"
    assert torch.equal(child.read(experts)[2], father.read(experts)[2])
    assert not torch.equal(child.read(experts)[3], father.read(experts)[3])
    gate = "model.layers.1.mlp.gate.weight"
    rows, old, new = child.read(gate).float(), father.read(gate).float(), mother.read(gate).float()
    others = [expert for expert in range(8) if expert != 2]
    assert torch.equal(rows[others], new[others])
    scale = (new - new.mean(0)).norm() / (old - old.mean(0)).norm()
    assert torch.allclose(rows[2], new.mean(0) + (old - old.mean(0))[2] * scale, atol=1e-3)


def test_an_operator_that_needs_an_ancestor_is_refused_at_once_without_one(tiny_llama_pair: Trio) -> None:
    father, mother, _ = map(open_checkpoint, tiny_llama_pair)
    recipe = uniform_recipe(read_anatomy(father), 0.4, "ties")
    with pytest.raises(LabError, match="ties needs a common ancestor"):
        Child(father, mother, recipe)


def test_a_recipe_of_another_model_is_refused(tiny_llama_pair: Trio) -> None:
    father, mother, _ = map(open_checkpoint, tiny_llama_pair)
    with pytest.raises(LabError, match="another model"):
        Child(father, mother, Recipe({}))


@pytest.fixture
def poisoned(tiny_llama_pair: Trio, tmp_path: Path) -> Trio:
    """The tiny trio with one NaN in the mother."""
    mother = Path(shutil.copytree(tiny_llama_pair[1], tmp_path / "mother"))
    tensors = load_file(mother / "model.safetensors")
    tensors["model.layers.2.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(tensors, mother / "model.safetensors")
    return tiny_llama_pair[0], mother, tiny_llama_pair[2]


def test_a_nan_weight_stops_the_merge_names_the_tensor_and_leaves_nothing(poisoned: Trio, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"model\.layers\.2\.mlp\.up_proj\.weight of the mother holds 1 NaN"):
        export_child(child_of(poisoned), tmp_path / "out" / "child")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_exists_is_kept_unless_overwriting_is_asked_for(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    out = tmp_path / "child"
    out.mkdir()
    (out / "mine.txt").write_text("precious")
    with pytest.raises(LabError, match="exists and is not empty"):
        export_child(child_of(tiny_llama_pair), out)
    with pytest.raises(LabError, match="is not a child the lab wrote"):
        export_child(child_of(tiny_llama_pair), out, overwrite=True)
    assert (out / "mine.txt").read_text() == "precious"
    export_child(child_of(tiny_llama_pair, 0.2), tmp_path / "other")
    export_child(child_of(tiny_llama_pair, 0.7), tmp_path / "other", overwrite=True)
    record = json.loads((tmp_path / "other" / "recipe.json").read_text())
    assert record["recipe"] == child_of(tiny_llama_pair, 0.7).recipe.hash
    assert sorted(path.name for path in tmp_path.iterdir()) == ["child", "other"]


def test_the_folder_of_a_parent_is_never_overwritten(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    copies = tuple(Path(shutil.copytree(folder, tmp_path / "models" / folder.name)) for folder in tiny_llama_pair)
    for place in (tmp_path / "models", copies[2], copies[0] / "inside"):
        place.mkdir(exist_ok=True)
        (place / "recipe.json").write_text("{}")
        with pytest.raises(LabError, match="folder of a parent"):
            export_child(child_of(copies), place, overwrite=True)
    assert all((folder / "model.safetensors").is_file() for folder in copies)


def test_an_empty_working_folder_can_be_the_target(
    tiny_llama_pair: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    out = export_child(child_of(tiny_llama_pair), Path())
    assert out == tmp_path / "here"
    assert (out / "model.safetensors").is_file()


def test_a_nan_weight_is_found_also_where_it_would_only_be_copied(poisoned: Trio, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="of the mother holds 1 NaN"):
        export_child(child_of(poisoned, 1.0), tmp_path / "child")
    assert not (tmp_path / "child").exists()


def test_a_model_with_a_nan_weight_is_not_loaded(poisoned: Trio) -> None:
    with pytest.raises(LabError, match=r"model\.layers\.2\.mlp\.up_proj\.weight of mother holds NaN"):
        Resident.load(open_checkpoint(poisoned[1]))


def test_a_number_too_large_for_the_dtype_asked_for_stops_the_export(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    father = Path(shutil.copytree(tiny_llama_pair[0], tmp_path / "father"))
    tensors = load_file(father / "model.safetensors")
    tensors["model.norm.weight"][0] = 1e6
    save_file(tensors, father / "model.safetensors")
    with pytest.raises(LabError, match=r"model\.norm\.weight holds numbers too large"):
        export_child(child_of((father, *tiny_llama_pair[1:]), 0.0), tmp_path / "child", dtype="float16")


def test_too_little_space_is_said_before_the_first_byte(
    tiny_llama_pair: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil._ntuple_diskusage(1 << 30, 1 << 30, 10)
    monkeypatch.setattr(export_room.shutil, "disk_usage", lambda path: full)
    with pytest.raises(LabError, match="no space left"):
        export_child(child_of(tiny_llama_pair), tmp_path / "child")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_while_writing_leaves_nothing(
    tiny_llama_pair: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_room.os, "fsync", full)
    with pytest.raises(LabError, match="no space left"):
        export_child(child_of(tiny_llama_pair), tmp_path / "child")
    assert list(tmp_path.iterdir()) == []


def test_a_cancelled_export_leaves_nothing(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    def stop(fraction: float, words: str) -> None:
        if fraction > 0.5:
            raise Cancelled

    with pytest.raises(Cancelled):
        export_child(child_of(tiny_llama_pair), tmp_path / "child", tick=stop)
    assert list(tmp_path.iterdir()) == []


def test_the_recipe_beside_the_weights_names_parents_and_every_tensor(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    child = child_of(tiny_llama_pair)
    record = json.loads((export_child(child, tmp_path / "child") / "recipe.json").read_text())
    assert record["recipe"] == child.recipe.hash
    assert record["parents"]["mother"]["fingerprint"] == child.mother.fingerprint
    assert [row["name"] for row in record["rows"]] == list(child.names)


def test_another_dtype_can_be_asked_for(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    out = export_child(child_of(tiny_llama_pair), tmp_path / "child", dtype="float32")
    assert {info.dtype for info in open_checkpoint(out).tensors.values()} == {"F32"}
    assert json.loads((out / "config.json").read_text())["dtype"] == "float32"


def test_shards_of_the_father_are_the_childs(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    from tests.checkpoint.test_checkpoint import shard

    father = Path(shutil.copytree(tiny_llama_pair[0], tmp_path / "father"))
    shard(father)
    out = export_child(child_of((father, *tiny_llama_pair[1:])), tmp_path / "child")
    assert {path.name for path in out.glob("*.safetensors")} == {"a.safetensors", "b.safetensors"}
    whole = child_of(tiny_llama_pair)
    assert all(torch.equal(open_checkpoint(out).read(name), whole.read(name)) for name in whole.names)
