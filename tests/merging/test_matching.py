"""Which expert is which: found where numbered alike, matched where they are not, refused where nobody asked."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from darwin_lab.checkpoint.anatomy import read_anatomy
from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.child import Child
from darwin_lab.errors import LabError
from darwin_lab.merging import matching
from darwin_lab.merging.matching import ExpertIdentity, expert_identity, mixes_experts
from darwin_lab.merging.recipe import uniform_recipe

Trio = tuple[Path, Path, Path]
ORDERS = {0: (3, 0, 7, 1, 6, 2, 5, 4), 2: (1, 0, 2, 3, 4, 5, 6, 7)}
"""Layer -> where the father's experts went in the permuted mother."""


def permuted(folder: Path, out: Path) -> Checkpoint:
    """A copy of a checkpoint in which expert e of a layer in `ORDERS` has moved to place ORDERS[layer][e]."""
    shutil.copytree(folder, out)
    tensors = load_file(out / "model.safetensors")
    for layer, order in ORDERS.items():
        for end in ("experts.gate_up_proj", "experts.down_proj", "gate.weight"):
            name = f"model.layers.{layer}.mlp.{end}"
            moved = torch.empty_like(tensors[name])
            moved[list(order)] = tensors[name]
            tensors[name] = moved
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    return open_checkpoint(out)


def identity(father: Checkpoint, mother: Checkpoint) -> ExpertIdentity:
    found = expert_identity(father, mother, read_anatomy(father))
    assert found is not None
    return found


def test_experts_of_fine_tunes_of_one_model_are_found_by_number(tiny_moe_pair: Trio) -> None:
    found = identity(*map(open_checkpoint, tiny_moe_pair[:2]))
    assert dict(found.share) == {0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0}
    assert found.order == {}
    found.require_same()


def test_permuted_experts_are_seen_and_matched_exactly(tiny_moe_pair: Trio, tmp_path: Path) -> None:
    found = identity(open_checkpoint(tiny_moe_pair[0]), permuted(tiny_moe_pair[1], tmp_path / "mother"))
    assert dict(found.share) == {0: 0.0, 1: 1.0, 2: 0.75, 3: 1.0}
    assert dict(found.order) == ORDERS
    with pytest.raises(LabError, match=r"only 0% of the experts in layer 0 .* \(--match-experts"):
        found.require_same()


def test_the_child_of_matched_experts_is_the_child_of_the_mother_before_they_were_moved(
    tiny_moe_pair: Trio, tmp_path: Path
) -> None:
    father, mother = map(open_checkpoint, tiny_moe_pair[:2])
    moved = permuted(tiny_moe_pair[1], tmp_path / "mother")
    order = dict(identity(father, moved).order)
    anatomy = read_anatomy(father)
    whole = Child(father, mother, uniform_recipe(anatomy, 0.4))
    matched = Child(father, moved, uniform_recipe(anatomy, 0.4, expert_order=order))
    blind = Child(father, moved, uniform_recipe(anatomy, 0.4))
    for name in father.names:
        assert torch.equal(matched.read(name), whole.read(name)), name
    with pytest.raises(LabError, match="only 0% of the experts in layer 0"):
        blind.read("model.layers.0.mlp.gate.weight")
    assert matched.recipe.hash != blind.recipe.hash


def test_a_dense_model_has_no_experts_to_compare(tiny_llama_pair: Trio) -> None:
    father, mother = map(open_checkpoint, tiny_llama_pair[:2])
    assert expert_identity(father, mother, read_anatomy(father)) is None


def test_the_sketch_errs_no_more_than_it_says(tiny_moe_pair: Trio) -> None:
    father, mother = map(open_checkpoint, tiny_moe_pair[:2])
    anatomy = read_anatomy(father)
    parts = [part for part in anatomy.layer_parts(1) if part.role == "expert"]
    sketched = matching._similarities(*([matching._experts(source, parts, 8)[0]] for source in (father, mother)))
    flat = [
        torch.cat([source.read(part.name).double().reshape(8, -1) for part in parts], 1).numpy()
        for source in (father, mother)
    ]
    exact = matching._similarities([flat[0]], [flat[1]])
    error = (sketched - exact) / ((1 - exact**2) / matching.SKETCH**0.5)
    assert abs(error).max() < 5
    assert 0.7 < (error**2).mean() ** 0.5 < 1.3


def test_an_expert_larger_than_what_is_read_of_it_is_still_found(
    tiny_moe_pair: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "STRETCH", 32)
    found = identity(open_checkpoint(tiny_moe_pair[0]), permuted(tiny_moe_pair[1], tmp_path / "mother"))
    assert dict(found.order) == ORDERS


def test_damaged_experts_are_named(tiny_moe_pair: Trio, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_moe_pair[1], tmp_path / "mother"))
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.2.mlp.experts.down_proj"][3, 0, 0] = float("inf")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LabError, match=r"layers\.2\.mlp\.experts\.down_proj of mother holds NaN or Inf"):
        identity(open_checkpoint(tiny_moe_pair[0]), open_checkpoint(folder))


@pytest.mark.parametrize(("ratio", "router", "mixes"), [(0.0, "blend", False), (1.0, "blend", False),
                                                        (0.4, "blend", True), (1.0, "A", True)])  # fmt: skip
def test_numbers_matter_only_where_a_layer_takes_experts_of_both(
    tiny_moe_pair: Trio, ratio: float, router: str, mixes: bool
) -> None:
    anatomy = read_anatomy(open_checkpoint(tiny_moe_pair[0]))
    assert mixes_experts(uniform_recipe(anatomy, ratio, router=router)) == mixes
