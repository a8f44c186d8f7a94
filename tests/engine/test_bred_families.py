"""Children of every family: the father's names, shapes and dtypes, loadable, and whole in every layout."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from darwin_lab.checkpoint.anatomy import read_anatomy
from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.engine.child import Child
from darwin_lab.engine.export import export_child
from darwin_lab.merging.operators import OPERATORS
from darwin_lab.merging.recipe import uniform_recipe
from tests.families import (
    EITHER_WAY,
    KINDS,
    LAYOUTS,
    MIXTURES,
    WITH_MTP,
    WITH_VISION,
    header_of,
    reloaded,
    tensors_of,
)

Pairs = Callable[[str, str], tuple[Path, Path, Path]]


def child_of(
    father: Path, mother: Path, ancestor: Path, ratio: float, operator: str = "lerp", density: float = 1.0
) -> Child:
    members = [Checkpoint(folder) for folder in (father, mother, ancestor)]
    recipe = uniform_recipe(read_anatomy(members[0]), ratio, operator, density, seed=3)
    return Child(members[0], members[1], recipe, members[2])


def raw(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor's bytes: NaN equals itself, -0 is not 0."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def merged(folder: Path) -> set[str]:
    return {part.name for part in read_anatomy(Checkpoint(folder)).mergeable}


@pytest.mark.parametrize(("kind", "layout"), [(kind, layout) for kind in KINDS for layout in LAYOUTS[kind]])
def test_an_exported_child_has_the_fathers_layout_and_reloads_whole(
    kind: str, layout: str, family_pairs: Pairs, tmp_path: Path
) -> None:
    folders = family_pairs(kind, layout)
    out = export_child(child_of(*folders, 0.5), tmp_path / "child")
    assert header_of(out) == header_of(folders[0])
    assert reloaded(out) == (set(), set())
    child, father, mother = (tensors_of(folder) for folder in (out, *folders[:2]))
    roles = {name: part.role for name, part in read_anatomy(Checkpoint(out)).parts.items()}
    held = set(roles.values())
    assert ("mtp" in held) == (kind in WITH_MTP and layout != "saved")
    assert ("vision" in held) == (kind in WITH_VISION)
    assert ("expert" in held) == (kind in MIXTURES)
    moved = merged(folders[0])
    for name, tensor in child.items():
        if name not in moved:
            assert torch.equal(raw(tensor), raw(father[name])), name
        else:
            half = (father[name].float() * 0.5 + mother[name].float() * 0.5).to(tensor.dtype)
            assert torch.equal(tensor, half), name


@pytest.mark.parametrize("kind", KINDS)
def test_at_0_the_child_is_the_father_and_at_1_what_is_merged_is_the_mothers(kind: str, family_pairs: Pairs) -> None:
    folders = family_pairs(kind, "hub")
    father, mother = (tensors_of(folder) for folder in folders[:2])
    moved = merged(folders[0])
    assert any(not torch.equal(father[name], mother[name]) for name in moved)
    for operator in OPERATORS:
        for ratio in (0.0, 1.0):
            child = child_of(*folders, ratio, operator, 0.5)
            for name in child.names:
                expected = mother[name] if ratio == 1.0 and name in moved else father[name]
                got = child.read(name)
                assert got.dtype == expected.dtype
                assert torch.equal(raw(got), raw(expected)), (operator, ratio, name)


@pytest.mark.parametrize("kind", EITHER_WAY)
def test_the_mothers_layout_changes_nothing_in_the_child(kind: str, family_pairs: Pairs) -> None:
    for fathers, mothers in (("fused", "single"), ("single", "fused"), ("hub", "fused"), ("hub", "single")):
        father, mother, ancestor = family_pairs(kind, fathers)
        straight = child_of(father, mother, ancestor, 0.37, "dare_ties", 0.5)
        crossed = child_of(father, *family_pairs(kind, mothers)[1:], 0.37, "dare_ties", 0.5)
        for name in straight.names:
            assert torch.equal(raw(crossed.read(name)), raw(straight.read(name))), (fathers, mothers, name)


@pytest.mark.parametrize("kind", EITHER_WAY)
def test_both_layouts_of_the_father_make_children_of_the_same_numbers(kind: str, family_pairs: Pairs) -> None:
    children = [child_of(*family_pairs(kind, layout), 0.37) for layout in ("fused", "single")]
    fused, single = ({name: child.read(name) for name in child.names} for child in children)
    shared = fused.keys() & single.keys()
    assert all(torch.equal(fused[name], single[name]) for name in shared)
    stacked = [name for name in fused.keys() - shared if name.endswith("down_proj") and not name.startswith("mtp.")]
    assert stacked
    for name in stacked:
        one = name.replace(".mlp.experts.down_proj", ".{block}.experts.{expert}.{half}.weight")
        block, half = ("block_sparse_moe", "w2") if kind == "mixtral" else ("mlp", "down_proj")
        for expert, tensor in enumerate(fused[name]):
            assert torch.equal(single[one.format(block=block, expert=expert, half=half)], tensor), (name, expert)


def test_a_child_by_token_blends_the_tokens_both_have_and_keeps_the_fathers_others(
    family_pairs: Pairs, tmp_path: Path
) -> None:
    folders = family_pairs("llama", "saved")
    mother = Path(shutil.copytree(folders[1], tmp_path / "mother"))
    tokenizer = json.loads((mother / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    theirs = {**vocabulary, "a": vocabulary["b"], "b": vocabulary["a"], "@": vocabulary["c"]}
    del theirs["c"]
    tokenizer["model"]["vocab"] = theirs
    (mother / "tokenizer.json").write_text(json.dumps(tokenizer))
    members = [Checkpoint(folder) for folder in (folders[0], mother, folders[2])]
    for ratio in (0.5, 1.0):
        recipe = uniform_recipe(read_anatomy(members[0]), ratio, vocabulary="by-token")
        out = export_child(Child(members[0], members[1], recipe, members[2]), tmp_path / f"child-{ratio}")
        assert reloaded(out) == (set(), set())
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            child, his, hers = (tensors_of(folder)[name] for folder in (out, folders[0], mother))
            for token, row in vocabulary.items():
                blend = his[row]
                if token in theirs:
                    blend = (his[row].float() * (1 - ratio) + hers[theirs[token]].float() * ratio).to(his.dtype)
                assert torch.equal(child[row], blend), (ratio, name, token)
            assert torch.equal(child[len(vocabulary) :], his[len(vocabulary) :])
        listed = json.loads((out / "tokens.json").read_text(encoding="utf-8"))
        assert listed == {"merged": len(vocabulary) - 1, "fathers_alone": ["c"], "mothers_lost": ["@"]}
        assert "only the mother knows (1) are lost" in (out / "README.md").read_text(encoding="utf-8")
