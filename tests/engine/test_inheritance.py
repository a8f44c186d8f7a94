"""What was inherited: verdicts on made children whose every byte is known, and on what happens to exports later."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from darwin_lab.checkpoint.anatomy import read_anatomy
from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.engine import inheritance
from darwin_lab.engine.child import Child
from darwin_lab.engine.export import export_child
from darwin_lab.engine.inheritance import what_was_inherited
from darwin_lab.engine.inherited import ABSENT, CHANGED, FATHERS, MERGED, MOTHERS, Inheritance, Inherited
from darwin_lab.merging.recipe import uniform_recipe

VISION, MTP, ROUTERS = "vision tower", "multi-token-prediction head", "routers"


@pytest.fixture(scope="module")
def parents(
    tmp_path_factory: pytest.TempPathFactory, family_pairs: Callable[[str, str], tuple[Path, Path, Path]]
) -> tuple[Checkpoint, Checkpoint]:
    """A vision-language mixture with an MTP head; the mother has another context length, rotary base and template."""
    root = tmp_path_factory.mktemp("parents")
    folders = []
    for name, source in zip(("father", "mother"), family_pairs("qwen3_5_moe", "hub"), strict=False):
        folders.append(Path(shutil.copytree(source, root / name)))
        (root / name / "generation_config.json").write_text(json.dumps({"eos_token_id": 1, "top_k": len(name)}))
    (folders[0] / "chat_template.jinja").write_text("father: {{ messages }}")
    (folders[1] / "chat_template.jinja").write_text("mother: {{ messages }}")
    with_config(folders[1], lambda text: text.update(max_position_embeddings=256))
    with_config(folders[1], lambda text: text["rope_parameters"].update(rope_theta=5e5))
    return Checkpoint(folders[0]), Checkpoint(folders[1])


@pytest.fixture(scope="module")
def exported(parents: tuple[Checkpoint, Checkpoint], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The child at .5, written."""
    return export_child(child_of(parents, 0.5), tmp_path_factory.mktemp("child") / "child")


def child_of(parents: tuple[Checkpoint, Checkpoint], ratio: float) -> Child:
    return Child(*parents, uniform_recipe(read_anatomy(parents[0]), ratio))


def with_config(folder: Path, change: Callable[[dict], None]) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config["text_config"])
    path.write_text(json.dumps(config))


def with_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None], role: str) -> None:
    """Change the tensors of the shard that holds the first tensor of a role."""
    checkpoint = Checkpoint(folder)
    name = first(checkpoint, role)
    path = folder / checkpoint.tensors[name].file
    tensors = {key: tensor.clone() for key, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def first(checkpoint: Checkpoint, role: str) -> str:
    return next(name for name, part in read_anatomy(checkpoint).parts.items() if part.role == role)


def rows(child: Child | Checkpoint | Path, parents: tuple[Checkpoint, Checkpoint]) -> dict[str, Inherited]:
    found = what_was_inherited(Checkpoint(child) if isinstance(child, Path) else child, *parents)
    return {row.what: row for row in found.rows}


def count(parents: tuple[Checkpoint, Checkpoint], *roles: str) -> int:
    return sum(part.role in roles for part in read_anatomy(parents[0]).parts.values())


def test_a_blend_merges_routers_and_embeddings_and_keeps_the_fathers_towers(
    parents: tuple[Checkpoint, Checkpoint],
) -> None:
    found = rows(child_of(parents, 0.5), parents)
    assert (found[ROUTERS].verdict, found[ROUTERS].merged) == (MERGED, count(parents, "router"))
    assert found["embeddings and output head"].verdict == MERGED
    assert (found[VISION].verdict, found[VISION].fathers) == (FATHERS, count(parents, "vision"))
    assert (found[MTP].verdict, found[MTP].fathers) == (FATHERS, count(parents, "mtp"))
    assert found["audio tower"].verdict == ABSENT
    for what in ("context length", "rotary positions", "chat template", "tokenizer", "special tokens"):
        assert found[what].verdict == FATHERS


def test_what_a_virtual_child_inherits_is_told_by_its_recipe_and_nothing_is_read(
    parents: tuple[Checkpoint, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    original = Checkpoint.read_flat

    def spy(self: Checkpoint, name: str, start: int, count: int) -> torch.Tensor:
        read.append(name)
        return original(self, name, start, count)

    monkeypatch.setattr(Checkpoint, "read_flat", spy)
    found = rows(child_of(parents, 0.5), parents)
    assert all("by the recipe" in found[what].compared for what in (VISION, ROUTERS))
    assert not read


def test_ratio_one_is_the_mothers_and_ratio_zero_the_fathers(parents: tuple[Checkpoint, Checkpoint]) -> None:
    assert rows(child_of(parents, 1.0), parents)[ROUTERS].verdict == MOTHERS
    assert rows(child_of(parents, 0.0), parents)[ROUTERS].verdict == FATHERS


def test_the_mothers_routers_are_hers_in_the_fathers_order_of_experts_too(
    parents: tuple[Checkpoint, Checkpoint], tmp_path: Path
) -> None:
    anatomy = read_anatomy(parents[0])
    order = {layer: tuple(reversed(range(anatomy.experts))) for layer in anatomy.moe_layers}
    child = Child(*parents, replace(uniform_recipe(anatomy, 1.0), expert_order=order))
    assert not torch.equal(child.read(first(parents[0], "router")), parents[1].read(first(parents[0], "router")))
    assert rows(child, parents)[ROUTERS].verdict == MOTHERS
    assert rows(export_child(child, tmp_path / "child"), parents)[ROUTERS].verdict == MOTHERS


def test_an_export_is_compared_byte_by_byte_and_agrees(parents: tuple[Checkpoint, Checkpoint], exported: Path) -> None:
    virtual, written = rows(child_of(parents, 0.5), parents), rows(exported, parents)
    assert {what: row.verdict for what, row in virtual.items()} == {what: row.verdict for what, row in written.items()}
    vision = count(parents, "vision")
    assert written[VISION].compared.startswith(f"{vision} tensors byte by byte")


@pytest.mark.parametrize(("role", "what"), [("vision", VISION), ("mtp", MTP), ("router", ROUTERS)])
def test_one_flipped_bit_in_an_export_is_seen_and_named(
    parents: tuple[Checkpoint, Checkpoint], exported: Path, tmp_path: Path, role: str, what: str
) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "child"))
    name = first(parents[0], role)
    with_tensors(folder, lambda tensors: tensors[name].view(torch.int16).flatten()[-1:].bitwise_xor_(1), role)
    found = rows(folder, parents)
    assert found[what].verdict == CHANGED
    assert name in found[what].note
    assert found[what].changed == 1
    assert {row.verdict for row in found.values() if row.what != what} <= {FATHERS, MERGED, ABSENT}


def test_a_part_put_in_from_the_mother_is_the_mothers(
    parents: tuple[Checkpoint, Checkpoint], exported: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "child"))
    names = [name for name, part in read_anatomy(parents[0]).parts.items() if part.role == "mtp"]

    def put(tensors: dict[str, torch.Tensor]) -> None:
        tensors |= {name: parents[1].read(name) for name in names if name in tensors}

    for name in names:
        path = folder / Checkpoint(folder).tensors[name].file
        tensors = {key: tensor.clone() for key, tensor in load_file(path).items()}
        put(tensors)
        save_file(tensors, path, {"format": "pt"})
    assert rows(folder, parents)[MTP].verdict == MOTHERS


def test_a_head_that_was_dropped_is_absent_and_a_lost_tensor_a_change(
    parents: tuple[Checkpoint, Checkpoint], exported: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "child"))
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    kept = {name: Checkpoint(exported).read(name) for name in parents[0].names}
    for path in folder.glob("*.safetensors"):
        path.unlink()
    gone = [name for name in kept if read_anatomy(parents[0]).parts[name].role == "mtp"]
    gone.append(first(parents[0], "vision"))
    save_file({name: tensor for name, tensor in kept.items() if name not in gone}, folder / "model.safetensors")
    found = rows(folder, parents)
    assert (found[MTP].verdict, found[MTP].missing) == (ABSENT, len(gone) - 1)
    assert (found[VISION].verdict, found[VISION].missing) == (CHANGED, 1)
    assert gone[-1] in found[VISION].note


def test_without_a_recipe_a_blend_is_told_from_another_model_by_its_numbers(
    parents: tuple[Checkpoint, Checkpoint], exported: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "child"))
    (folder / "recipe.json").unlink()
    assert rows(folder, parents)[ROUTERS].verdict == MERGED
    stranger = torch.Generator().manual_seed(3)

    def swap(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            if "mlp.gate.weight" in name:
                tensors[name] = torch.randn(tensor.shape, generator=stranger).to(tensor.dtype)

    with_tensors(folder, swap, "router")
    found = rows(folder, parents)[ROUTERS]
    assert found.verdict == CHANGED
    assert "nor between them" in found.note


def test_another_dtype_is_a_change_that_says_the_numbers_are_the_same(
    parents: tuple[Checkpoint, Checkpoint], tmp_path: Path
) -> None:
    folder = export_child(child_of(parents, 0.5), tmp_path / "wide", dtype="float32")
    found = rows(folder, parents)
    assert found[VISION].verdict == CHANGED
    assert "another dtype" in found[VISION].note
    assert found[ROUTERS].verdict == MERGED


def test_settings_are_compared_key_by_key_inside_the_text_config_too(
    parents: tuple[Checkpoint, Checkpoint], exported: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "child"))
    with_config(folder, lambda text: text.update(max_position_embeddings=256))
    with_config(folder, lambda text: text["rope_parameters"].update(rope_theta=7e6))
    found = rows(folder, parents)
    assert found["context length"].verdict == MOTHERS
    assert found["rotary positions"].verdict == CHANGED
    assert "rope_theta" in found["rotary positions"].note
    kept = rows(exported, parents)
    assert "128 (mother 256)" in kept["context length"].note


def test_files_are_told_apart_by_their_bytes(
    parents: tuple[Checkpoint, Checkpoint], exported: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "child"))
    shutil.copyfile(parents[1].folder / "chat_template.jinja", folder / "chat_template.jinja")
    (folder / "generation_config.json").unlink()
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    found = rows(folder, parents)
    assert found["chat template"].verdict == MOTHERS
    assert found["generation config"].verdict == ABSENT
    assert found["tokenizer"].verdict == CHANGED


def test_special_tokens_of_every_file_count(
    parents: tuple[Checkpoint, Checkpoint], exported: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "child"))
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token": "<end>"}))
    found = rows(folder, parents)["special tokens"]
    assert (found.verdict, found.changed) == (CHANGED, 1)
    assert "<end>" in found.note


def test_what_is_equal_in_both_parents_says_so(parents: tuple[Checkpoint, Checkpoint], exported: Path) -> None:
    row = rows(exported, parents)["tokenizer"]
    assert (row.verdict, row.both) == (FATHERS, row.parts)
    assert "equal in both parents" in row.note


def test_no_more_than_a_chunk_is_ever_read(
    parents: tuple[Checkpoint, Checkpoint], exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "child"))
    (folder / "recipe.json").unlink()
    whole = rows(folder, parents)
    longest = 0
    original = Checkpoint.read_flat

    def spy(self: Checkpoint, name: str, start: int, count: int) -> torch.Tensor:
        nonlocal longest
        longest = max(longest, count)
        return original(self, name, start, count)

    monkeypatch.setattr(inheritance, "CHUNK", 64)
    monkeypatch.setattr(Checkpoint, "read_flat", spy)
    assert rows(folder, parents) == whole
    assert longest <= 64


def test_the_result_survives_json_and_fills_a_card(parents: tuple[Checkpoint, Checkpoint], exported: Path) -> None:
    found = what_was_inherited(Checkpoint(exported), *parents)
    assert Inheritance.from_json(json.loads(json.dumps(found.to_json()))) == found
    lines = found.to_markdown().splitlines()
    assert len(lines) == len(found.rows) + 2
    assert all(line.count(" | ") == 2 for line in lines)
