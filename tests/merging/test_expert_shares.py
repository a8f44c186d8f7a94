"""Experts: each leans to the parent that uses it, and takes its router row along."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from darwin_lab.checkpoint.anatomy import Anatomy, Part, read_anatomy
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.errors import LabError
from darwin_lab.genome.genome import neutral_genome
from darwin_lab.merging.experts import usage_shares
from darwin_lab.merging.prescription import Prescription
from darwin_lab.merging.recipe import Recipe, Row, make_recipe, uniform_recipe
from darwin_lab.merging.tensor import merge_tensor

Trio = tuple[Path, Path, Path]
EXPERTS, HIDDEN = 8, 5
EVEN = (1 / EXPERTS,) * EXPERTS
use = st.floats(0.0, 1.0)
loads = st.lists(st.tuples(use, use), min_size=1, max_size=EXPERTS)


@pytest.fixture(scope="module")
def anatomy(tiny_moe_pair: Trio) -> Anatomy:
    return read_anatomy(open_checkpoint(tiny_moe_pair[0]))


def advice(anatomy: Anatomy, **more: object) -> Prescription:
    ratio = {part.name: 0.5 for part in anatomy.mergeable}
    return Prescription("made", ratio, (0.5,) * anatomy.layers, {}, ((0, 3),), **more)  # type: ignore[arg-type]


def load(**shares: float) -> tuple[float, ...]:
    """Even use, but for the experts named: e2=0.0 is never chosen."""
    return tuple(shares.get(f"e{expert}", 1 / EXPERTS) for expert in range(EXPERTS))


# --------------------------------------------------------------------------------------------- usage, as arithmetic


@given(loads, st.floats(0.0, 1.0))
def test_usage_shares_lie_between_father_and_mother(use_of: list[tuple[float, float]], ratio: float) -> None:
    assert all(0.0 <= share <= 1.0 for share in usage_shares(ratio, *zip(*use_of, strict=True)))


@given(loads)
def test_at_ratio_zero_and_one_use_changes_nothing(use_of: list[tuple[float, float]]) -> None:
    father, mother = zip(*use_of, strict=True)
    assert set(usage_shares(0.0, father, mother)) == {0.0}
    assert set(usage_shares(1.0, father, mother)) == {1.0}


@given(loads, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_usage_shares_never_fall_when_the_ratio_rises(
    use_of: list[tuple[float, float]], one: float, other: float
) -> None:
    father, mother = zip(*use_of, strict=True)
    low, high = (usage_shares(ratio, father, mother) for ratio in sorted((one, other)))
    assert all(a <= b for a, b in zip(low, high, strict=True))


@given(st.floats(0.0, 1.0), st.floats(0.001, 1.0))
def test_an_expert_both_use_alike_has_the_plain_ratio(ratio: float, used: float) -> None:
    assert usage_shares(ratio, [used, 0.0], [used, 0.0]) == pytest.approx((ratio, ratio), abs=1e-6)


def test_an_expert_only_one_parent_uses_is_that_parents_whole() -> None:
    assert usage_shares(0.3, [0.2, 0.0, 0.1], [0.0, 0.2, 0.3]) == (0.0, 1.0, pytest.approx(0.5625, abs=1e-6))


# ------------------------------------------------------------------------------------------------ in the recipe


def test_usage_reaches_experts_and_router_rows_and_nothing_else(anatomy: Anatomy) -> None:
    made = advice(anatomy, utilisation={1: (load(e2=0.0), load(e5=0.0))})
    genome = neutral_genome("v6", anatomy.layers, experts="usage").with_genes(mri_trust=0.0)
    rows = make_recipe(genome, anatomy, made).rows
    leaning = {name for name, row in rows.items() if row.expert_ratios is not None}
    assert leaning == {f"model.layers.1.mlp.{end}" for end in
                       ("experts.gate_up_proj", "experts.down_proj", "gate.weight")}  # fmt: skip
    for name in leaning:
        assert rows[name].expert_ratios == (0.5, 0.5, 1.0, 0.5, 0.5, 0.0, 0.5, 0.5)
        assert rows[name].share == 0.5


def test_an_operator_without_a_ratio_still_copies_experts_only_one_parent_uses(anatomy: Anatomy) -> None:
    made = advice(anatomy, utilisation={1: (load(e2=0.0, e3=0.9), load(e5=0.0))})
    genome = neutral_genome("v4", anatomy.layers, experts="usage", operator="arcee_fusion")
    shares = make_recipe(genome, anatomy, made).rows["model.layers.1.mlp.gate.weight"].expert_ratios
    assert shares == (0.5, 0.5, 1.0, 0.5, 0.5, 0.0, 0.5, 0.5)


def test_preserve_moves_only_the_experts_it_names(anatomy: Anatomy) -> None:
    genome = neutral_genome("v4", anatomy.layers, experts="preserve")
    rows = make_recipe(genome, anatomy, advice(anatomy, preserve={1: (2, 5)})).rows
    for row in rows.values():
        if row.expert_ratios is not None:
            assert row.layer == 1
            assert row.expert_ratios == (0.5, 0.5, 0.0, 0.5, 0.5, 0.0, 0.5, 0.5)


@pytest.mark.parametrize("mode", ["preserve", "usage"])
def test_single_experts_on_disk_get_the_ratios_of_fused_ones(anatomy: Anatomy, mode: str) -> None:
    made = advice(anatomy, preserve={1: (2,)}, utilisation={1: (load(e6=0.5), load(e2=0.0))})
    genome = neutral_genome("v4", anatomy.layers, experts=mode)
    fused = make_recipe(genome, anatomy, made).rows["model.layers.1.mlp.experts.down_proj"].expert_ratios
    assert fused is not None
    parts = dict(anatomy.parts)
    whole: Part = parts.pop("model.layers.1.mlp.experts.down_proj")
    for expert in range(EXPERTS):
        name = f"model.layers.1.mlp.experts.{expert}.down_proj.weight"
        parts[name] = replace(whole, name=name, expert=expert, shape=whole.shape[1:], numel=whole.numel // EXPERTS)
    rows = make_recipe(genome, replace(anatomy, parts=parts), made).rows
    apart = [rows[f"model.layers.1.mlp.experts.{expert}.down_proj.weight"] for expert in range(EXPERTS)]
    assert tuple(row.ratio for row in apart) == fused
    assert [row.action for row in apart] == ["copy" if ratio in (0.0, 1.0) else "merge" for ratio in fused]


@pytest.mark.parametrize("mode", ["preserve", "usage"])
def test_experts_cannot_go_by_scans_that_were_never_made(anatomy: Anatomy, mode: str) -> None:
    with pytest.raises(LabError, match="scan them first"):
        make_recipe(neutral_genome("v6", anatomy.layers, experts=mode), anatomy)
    with pytest.raises(LabError, match="scan them first"):
        uniform_recipe(anatomy, 0.4, experts=mode)


def test_scans_of_another_number_of_experts_are_refused(anatomy: Anatomy) -> None:
    made = advice(anatomy, utilisation={1: ((0.5, 0.5), (0.5, 0.5))})
    with pytest.raises(LabError, match="counted 2 experts, this model has 8"):
        uniform_recipe(anatomy, 0.4, experts="usage", prescription=made)


def test_a_prescription_follows_the_mothers_experts_to_their_new_numbers(anatomy: Anatomy) -> None:
    order = (1, 0, 2, 3, 4, 5, 6, 7)
    made = advice(anatomy, utilisation={1: (load(e1=0.0), load(e0=0.0))}, dead={1: (0,)})
    by_number = make_recipe(neutral_genome("v4", anatomy.layers, experts="usage"), anatomy, made)
    matched = make_recipe(neutral_genome("v4", anatomy.layers, experts="usage"), anatomy, made, expert_order={1: order})
    name = "model.layers.1.mlp.experts.down_proj"
    assert by_number.rows[name].expert_ratios == (0.0, 1.0, *(0.5,) * 6)
    assert matched.rows[name].expert_ratios is None
    assert made.reordered({1: (7, 1, 2, 3, 4, 5, 6, 0)}).preserve == {1: (7,)}
    assert made.reordered({1: order}).preserve == {}


# ------------------------------------------------------------------------------------------------ router's source


def gate(recipe: Recipe, layer: int) -> Row:
    return recipe.rows[f"model.layers.{layer}.mlp.gate.weight"]


def test_the_genomes_router_source_goes_over_the_prescriptions(anatomy: Anatomy) -> None:
    made = advice(anatomy, router={0: "A", 1: "A"})
    genome = neutral_genome("v6", anatomy.layers, blocks=2, router=("blend", "B"))
    recipe = make_recipe(genome, anatomy, made)
    assert [gate(recipe, layer).ratio for layer in range(4)] == [0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize(("source", "ratio"), [("A", 0.0), ("B", 1.0), ("blend", 0.4)])
def test_a_uniform_ratio_can_have_one_parents_routers(anatomy: Anatomy, source: str, ratio: float) -> None:
    recipe = uniform_recipe(anatomy, 0.4, router=source)
    assert {gate(recipe, layer).ratio for layer in range(4)} == {ratio}
    assert {row.ratio for row in recipe.rows.values() if row.role != "router"} == {0.4}


def test_preserved_experts_keep_their_router_rows_whatever_the_source(anatomy: Anatomy) -> None:
    genome = neutral_genome("v6", anatomy.layers, experts="preserve", router="B")
    recipe = make_recipe(genome, anatomy, advice(anatomy, preserve={1: (2,)}))
    assert gate(recipe, 1).expert_ratios == (1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    assert gate(recipe, 0).expert_ratios is None


@pytest.mark.parametrize(
    ("mode", "router", "warned"), [("usage", "B", 1), ("usage", "A", 1), ("usage", "blend", 0), ("preserve", "B", 0)]
)
def test_an_expert_revived_without_its_router_row_is_warned_of(
    anatomy: Anatomy, mode: str, router: str, warned: int
) -> None:
    made = advice(anatomy, preserve={1: (2,)}, utilisation={1: (load(e5=0.0), load(e2=0.0))})
    recipe = make_recipe(neutral_genome("v4", anatomy.layers, experts=mode, router=router), anatomy, made)
    assert len(recipe.warnings) == warned
    if warned:
        assert f"layer 1, expert {2 if router == 'B' else 5}" in recipe.warnings[0]
        assert "stay unchosen" in gate(recipe, 1).why
        assert "stay unchosen" not in gate(recipe, 0).why


# ------------------------------------------------------------------------------------------------ router's numbers


def router_row(ratio: float, shares: tuple[float, ...]) -> Row:
    return Row("router", 0, "router", "ffn", "merge", ratio, expert_ratios=shares, numel=EXPERTS * HIDDEN)


def routers(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(EXPERTS, HIDDEN, generator=made) * scale + 0.3 for scale in (1.0, 3.0))  # type: ignore[return-value]


def test_each_router_row_is_blended_by_its_own_experts_share() -> None:
    a, b = routers()
    shares = tuple(0.1 * (expert + 1) for expert in range(EXPERTS))
    merged = merge_tensor(router_row(0.4, shares), Recipe({}), a, b)
    by_row = torch.tensor(shares)[:, None]
    assert torch.allclose(merged, a * (1 - by_row) + b * by_row, atol=1e-6)


def test_rows_that_are_one_parents_whole_get_the_scale_of_the_blended_router() -> None:
    a, b = routers()
    merged = merge_tensor(router_row(0.4, (0.0, 1.0, *(0.4,) * 6)), Recipe({}), a, b)
    blended = a * 0.6 + b * 0.4
    middle, scale = blended.mean(0), (blended - blended.mean(0)).norm()
    for expert, parent in ((0, a), (1, b)):
        centred = parent - parent.mean(0)
        assert torch.allclose(merged[expert], middle + centred[expert] * scale / centred.norm(), atol=1e-5)
    assert torch.allclose(merged[2:], blended[2:], atol=1e-6)


@pytest.mark.parametrize(("ratio", "kept"), [(1.0, 0.0), (0.0, 1.0)])
def test_beside_one_parents_router_the_others_rows_take_its_scale(ratio: float, kept: float) -> None:
    a, b = routers()
    main, other = (b, a) if ratio == 1.0 else (a, b)
    merged = merge_tensor(router_row(ratio, (kept, *(ratio,) * 7)), Recipe({}), a, b)
    assert torch.equal(merged[1:], main[1:])
    centred, wanted = other - other.mean(0), (main - main.mean(0)).norm()
    assert torch.allclose(merged[0], main.mean(0) + centred[0] * wanted / centred.norm(), atol=1e-5)


def test_fused_experts_are_each_blended_by_their_own_share() -> None:
    made = torch.Generator().manual_seed(1)
    a, b = (torch.randn(EXPERTS, 3, HIDDEN, generator=made) for _ in range(2))
    shares = (0.0, 1.0, 0.25, 0.5, 0.5, 0.5, 0.5, 0.5)
    row = Row("experts", 0, "expert", "ffn", "merge", 0.5, expert_ratios=shares, numel=a.numel())
    merged = merge_tensor(row, Recipe({}), a, b)
    by_expert = torch.tensor(shares)[:, None, None]
    assert torch.equal(merged[0], a[0])
    assert torch.equal(merged[1], b[1])
    assert torch.allclose(merged, a * (1 - by_expert) + b * by_expert, atol=1e-6)
