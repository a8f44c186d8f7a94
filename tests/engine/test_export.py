"""An export: the virtual child's bytes in the father's files, whatever the shards, threads, pieces and devices."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from darwin_lab.checkpoint.checkpoint import INDEX_FILE
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.export import export_child
from darwin_lab.engine.resident import Resident
from darwin_lab.engine.shards import parse_size, plan_shards
from darwin_lab.errors import Cancelled, LabError
from darwin_lab.merging.operators import OPERATORS
from darwin_lab.merging.recipe_file import read_recipe_file
from tests.engine.test_child import Trio, child_of


def tensor_bytes(folder: Path) -> dict[str, bytes]:
    """Every tensor of an export by name, whatever file it lies in."""
    checkpoint = open_checkpoint(folder)
    return {name: checkpoint.read(name).reshape(-1).view(torch.uint8).numpy().tobytes() for name in checkpoint.names}


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


@pytest.mark.parametrize("name", ["thesis.txt", "assets/notes.md", "mine/model.safetensors", "tokenizer.bak"])
def test_overwriting_a_child_spares_files_the_lab_did_not_write(
    tiny_llama_pair: Trio, tmp_path: Path, name: str
) -> None:
    out = export_child(child_of(tiny_llama_pair, 0.2), tmp_path / "child")
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text("precious")
    with pytest.raises(LabError, match=f"holds {name}, which no export writes; move it away or give another --out"):
        export_child(child_of(tiny_llama_pair, 0.7), out, overwrite=True)
    assert (out / name).read_text() == "precious"


@pytest.mark.parametrize("there", [True, False])
def test_a_link_as_the_target_is_written_through(tiny_llama_pair: Trio, tmp_path: Path, there: bool) -> None:
    disk, link = tmp_path / "disk" / "real", tmp_path / "here" / "child"
    link.parent.mkdir()
    if there:
        disk.mkdir(parents=True)
    link.symlink_to(disk)
    for ratio in (0.2, 0.7):
        assert export_child(child_of(tiny_llama_pair, ratio), link, overwrite=True) == link
        assert link.is_symlink()
        assert json.loads((disk / "recipe.json").read_text())["recipe"] == child_of(tiny_llama_pair, ratio).recipe.hash
        assert [path.name for place in (link.parent, disk.parent) for path in place.iterdir()] == ["child", "real"]


def test_a_link_that_leads_in_a_circle_is_refused(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    (tmp_path / "child").symlink_to(tmp_path / "child")
    with pytest.raises(LabError, match="leads nowhere"):
        export_child(child_of(tiny_llama_pair), tmp_path / "child")


@pytest.mark.parametrize("place", [folder for folder in ("/proc", "/sys") if Path(folder).is_dir()])
def test_a_folder_nobody_can_write_to_is_said_to_be_one(tiny_llama_pair: Trio, place: str) -> None:
    with pytest.raises(LabError, match=f"{place} cannot be written to"):
        export_child(child_of(tiny_llama_pair), Path(place) / "child")


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


def test_a_number_too_large_for_the_dtype_asked_for_stops_the_export(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    father = Path(shutil.copytree(tiny_llama_pair[0], tmp_path / "father"))
    tensors = load_file(father / "model.safetensors")
    tensors["model.norm.weight"][0] = 1e6
    save_file(tensors, father / "model.safetensors")
    with pytest.raises(LabError, match=r"model\.norm\.weight holds numbers too large"):
        export_child(child_of((father, *tiny_llama_pair[1:]), 0.0), tmp_path / "child", dtype="float16")


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


def test_another_shard_size_gives_other_files_and_the_same_tensors(tiny_moe_pair: Trio, tmp_path: Path) -> None:
    child = child_of(tiny_moe_pair, 0.37, "dare_ties", 0.5)
    whole = tensor_bytes(export_child(child, tmp_path / "whole"))
    for size in ("20KB", "64KiB"):
        out = export_child(child, tmp_path / size, shard_size=parse_size(size))
        names = sorted(path.name for path in out.glob("*.safetensors"))
        assert len(names) > 1
        assert names[0] == f"model-00001-of-{len(names):05}.safetensors"
        index = json.loads((out / INDEX_FILE).read_text())
        assert index["metadata"]["total_size"] == open_checkpoint(tiny_moe_pair[0]).total_bytes
        assert set(index["weight_map"].values()) == set(names)
        assert tensor_bytes(out) == whole
        assert list(open_checkpoint(out).names) == list(whole)
    one = export_child(child, tmp_path / "one", shard_size=parse_size("1GB"))
    assert not (one / INDEX_FILE).exists()
    assert (one / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_no_shard_is_larger_than_asked_for_unless_one_tensor_is(tiny_moe_pair: Trio) -> None:
    father = open_checkpoint(tiny_moe_pair[0])
    for shard in plan_shards(father, shard_size=20_000):
        assert shard.data_bytes <= 20_000 or len(shard.tensors) == 1
    wider = plan_shards(father, "float32")
    assert sum(shard.data_bytes for shard in wider) == 2 * father.total_bytes


@pytest.mark.parametrize(("text", "size"), [("2GB", 2 * 10**9), ("500 MB", 5 * 10**8), ("1.5GiB", 3 << 29), ("70", 70)])
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "big", "2XB", "-1GB", "0", "0.1"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(LabError, match="no size of a shard"):
        parse_size(text)


@pytest.mark.parametrize("operator", ["lerp", "slerp", "dare_ties", "ties"])
def test_several_devices_side_by_side_give_the_same_files(tiny_moe_pair: Trio, tmp_path: Path, operator: str) -> None:
    child = child_of(tiny_moe_pair, 0.4, operator, 0.6)
    alone = export_child(child, tmp_path / "alone", shard_size=30_000)
    for devices in (("cpu", "cpu"), ("cpu", "cpu:0", "cpu")):
        together = export_child(child, tmp_path / str(len(devices)), shard_size=30_000, devices=devices)
        for file in alone.glob("*.safetensors"):
            assert (together / file.name).read_bytes() == file.read_bytes()


def test_an_error_on_one_of_several_devices_stops_the_export(poisoned: Trio, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="of the mother holds 1 NaN"):
        export_child(child_of(poisoned), tmp_path / "out" / "child", shard_size=8_000, devices=("cpu", "cpu"))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_cancel_stops_several_devices(tiny_moe_pair: Trio, tmp_path: Path) -> None:
    def stop(fraction: float, words: str) -> None:
        if fraction > 0.2:
            raise Cancelled

    with pytest.raises(Cancelled):
        export_child(
            child_of(tiny_moe_pair), tmp_path / "out" / "child", shard_size=8_000, devices=("cpu",) * 3, tick=stop
        )
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("devices", [(), ("gpu",), ("cuda:99",)])
def test_a_device_that_is_not_here_is_refused(tiny_llama_pair: Trio, tmp_path: Path, devices: tuple[str, ...]) -> None:
    with pytest.raises(LabError, match="no device"):
        export_child(child_of(tiny_llama_pair), tmp_path / "child", devices=devices)
    assert list(tmp_path.iterdir()) == []


def test_the_progress_says_how_much_is_written_and_what_is_left(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    said: list[tuple[float, str]] = []
    export_child(child_of(tiny_llama_pair), tmp_path / "child", tick=lambda *told: said.append(told))
    fractions = [fraction for fraction, _ in said]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    total = open_checkpoint(tiny_llama_pair[0]).total_bytes
    assert any(f"{total / 1024:.1f} KiB of {total / 1024:.1f} KiB written, 0 s left" in words for _, words in said)


def test_a_wider_dtype_keeps_what_rounding_to_the_fathers_would_lose(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    child = child_of(tiny_llama_pair, 0.3)
    out = open_checkpoint(export_child(child, tmp_path / "child", dtype="float32"))
    name = "model.layers.0.self_attn.q_proj.weight"
    a, b = (parent.read(name).float() for parent in (child.father, child.mother))
    assert torch.allclose(out.read(name), 0.7 * a + 0.3 * b, rtol=1e-6, atol=0)
    assert torch.equal(out.read(name).bfloat16(), child.read(name))


def test_the_recipe_beside_the_weights_reads_back_as_the_childs(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    child = child_of(tiny_llama_pair, 0.4, "dare_ties", 0.5, seed=9)
    genome = {"layout": "v4", "genes": {"ratio": 0.4}}
    file = read_recipe_file(export_child(child, tmp_path / "child", dtype="float32", genome=genome))
    assert file.recipe == child.recipe
    assert (file.recipe.hash, file.dtype, file.genome) == (child.recipe.hash, "float32", genome)
    parents = {"father": child.father, "mother": child.mother, "ancestor": child.ancestor}
    for role, parent in parents.items():
        assert (file.parents[role].name, file.parents[role].fingerprint) == (parent.name, parent.fingerprint)
        assert open_checkpoint(file.parents[role].ref).folder.samefile(parent.folder)
    file.check_parents(parents)
