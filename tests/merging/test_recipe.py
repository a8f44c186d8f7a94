"""The recipe: genes act where they own, copies are copies, and the hash names the bytes."""

from dataclasses import replace
from pathlib import Path

import pytest

from darwin_lab.checkpoint.anatomy import Anatomy, read_anatomy
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.errors import LabError
from darwin_lab.genome.genome import genome_from_json, neutral_genome
from darwin_lab.genome.layouts import layout_for
from darwin_lab.merging.prescription import Prescription
from darwin_lab.merging.recipe import Recipe, inert_genes, make_recipe, uniform_recipe

Trio = tuple[Path, Path, Path]


@pytest.fixture(scope="module")
def anatomy(tiny_moe_pair: Trio) -> Anatomy:
    return read_anatomy(open_checkpoint(tiny_moe_pair[0]))


def advice(anatomy: Anatomy, ratio: float, **more: object) -> Prescription:
    return Prescription(
        mode="contrastive",
        ratio={part.name: ratio for part in anatomy.mergeable},
        layer_ratio=(ratio,) * anatomy.layers,
        component_ratio={},
        blocks=((0, anatomy.layers - 1),),
        **more,  # type: ignore[arg-type]
    )


def changed(before: Recipe, after: Recipe) -> set[str]:
    return {name for name, row in after.rows.items() if row.decision != before.rows[name].decision}


def test_a_neutral_genome_is_the_plain_blend(anatomy: Anatomy) -> None:
    for layout in ("v4", "v6", "layerwise"):
        recipe = make_recipe(neutral_genome(layout, anatomy.layers), anatomy)
        assert recipe.hash == uniform_recipe(anatomy, 0.5).hash


def test_moving_the_attention_gene_changes_attention_rows_only(anatomy: Anatomy) -> None:
    genome = neutral_genome("v6", anatomy.layers)
    moved = changed(make_recipe(genome, anatomy), make_recipe(genome.with_genes(attn_ratio=0.7), anatomy))
    assert moved == {part.name for part in anatomy.mergeable if part.component == "attn"}


def test_moving_a_block_gene_changes_that_block_only(anatomy: Anatomy) -> None:
    genome = neutral_genome("v6", anatomy.layers, blocks=2)
    moved = changed(make_recipe(genome, anatomy), make_recipe(genome.with_genes(block_1=0.7), anatomy))
    assert moved == {part.name for part in anatomy.mergeable if part.layer in (2, 3)}


def test_a_layer_gene_is_the_ratio_of_its_layer(anatomy: Anatomy) -> None:
    genome = neutral_genome("layerwise", anatomy.layers).with_genes(layer_1=0.0, layer_2=1.0, layer_3=0.25)
    assert make_recipe(genome, anatomy).layer_ratios() == [0.5, 0.0, 1.0, 0.25]


@pytest.mark.parametrize("operator", ["lerp", "slerp", "dare", "ties", "dare_ties", "task_arithmetic"])
@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_ratio_zero_and_one_are_copies_under_every_operator(anatomy: Anatomy, operator: str, ratio: float) -> None:
    recipe = uniform_recipe(anatomy, ratio, operator, density=0.5)
    assert {row.action for row in recipe.rows.values()} == {"copy"}
    assert recipe.hash == uniform_recipe(anatomy, ratio).hash


def test_the_final_ratio_mixes_the_mri_in_by_trust(anatomy: Anatomy) -> None:
    genome = neutral_genome("v6", anatomy.layers, transplant=0.0).with_genes(global_ratio=0.4, mri_trust=0.25)
    recipe = make_recipe(genome, anatomy, advice(anatomy, 0.8))
    assert all(row.ratio == pytest.approx(0.25 * 0.8 + 0.75 * 0.4, abs=1e-6) for row in recipe.rows.values())


def test_transplant_fires_past_the_thresholds_of_the_card(anatomy: Anatomy) -> None:
    genome = neutral_genome("v6", anatomy.layers).with_genes(ffn_ratio=0.9, attn_ratio=0.1)
    for row in make_recipe(genome, anatomy).rows.values():
        expected = {"ffn": ("mother", 1.0), "attn": ("father", 0.0)}.get(row.component, ("", 0.5))
        assert (row.transplant, row.ratio) == expected


def test_near_half_advice_with_the_published_trust_can_never_transplant(anatomy: Anatomy) -> None:
    for share in (0.0, 1.0):
        genome = neutral_genome("v6", anatomy.layers).with_genes(global_ratio=share, mri_trust=0.3631)
        rows = make_recipe(genome, anatomy, advice(anatomy, 0.5)).rows.values()
        assert all(row.transplant == "" and 0.18 < row.ratio < 0.82 for row in rows)


def test_preserved_experts_stay_the_fathers_with_their_router_rows(anatomy: Anatomy) -> None:
    genome = neutral_genome("v6", anatomy.layers, experts="preserve")
    rows = make_recipe(genome, anatomy, advice(anatomy, 0.5, preserve={1: (2, 5)})).rows
    for name in ("experts.gate_up_proj", "experts.down_proj", "gate.weight"):
        kept = rows[f"model.layers.1.mlp.{name}"].expert_ratios
        assert kept is not None
        assert [expert for expert, ratio in enumerate(kept) if ratio == 0.0] == [2, 5]
        assert rows[f"model.layers.0.mlp.{name}"].expert_ratios is None


def test_the_routers_source_follows_the_prescription(anatomy: Anatomy) -> None:
    genome = neutral_genome("v6", anatomy.layers)
    rows = make_recipe(genome, anatomy, advice(anatomy, 0.5, router={0: "A", 1: "B"})).rows
    assert [rows[f"model.layers.{layer}.mlp.gate.weight"].ratio for layer in range(3)] == [0.0, 1.0, 0.5]


def test_the_mask_seed_is_in_the_hash_only_where_masks_are_drawn(anatomy: Anatomy) -> None:
    def hashes(operator: str, density: float) -> set[str]:
        return {uniform_recipe(anatomy, 0.4, operator, density, seed).hash for seed in (0, 1)}

    assert len(hashes("lerp", 1.0)) == 1
    assert len(hashes("dare", 1.0)) == 1
    assert len(hashes("dare", 0.5)) == 2


def test_a_density_the_operator_does_not_use_changes_no_hash(anatomy: Anatomy) -> None:
    assert uniform_recipe(anatomy, 0.4, "lerp", 0.3).hash == uniform_recipe(anatomy, 0.4).hash


def test_the_hash_does_not_depend_on_the_words(anatomy: Anatomy) -> None:
    recipe = uniform_recipe(anatomy, 0.4)
    reworded = replace(recipe, rows={name: replace(row, why="x") for name, row in recipe.rows.items()})
    assert reworded.hash == recipe.hash


def test_inert_genes_are_those_that_change_no_row(anatomy: Anatomy) -> None:
    layout = layout_for("v6", anatomy.layers)
    prescription = advice(anatomy, 0.6)
    for operator in ("lerp", "dare", "dare_ties", "mix"):
        genome = neutral_genome("v6", anatomy.layers, operator=operator)
        inert = inert_genes(layout, operator, has_prescription=True, has_ancestor=True, reading="logit")
        if operator == "lerp":
            assert inert == {"density_a", "density_b", "merge_method_weight"}
        for gene in set(layout.names) - inert:
            after = make_recipe(genome.with_genes(**{gene: 0.3}), anatomy, prescription)
            assert after.hash != make_recipe(genome, anatomy, prescription).hash, gene


@pytest.mark.parametrize(("ratio", "density"), [(-0.1, 1.0), (1.1, 1.0), (0.5, 0.0), (0.5, 1.5)])
def test_a_number_out_of_range_is_refused(anatomy: Anatomy, ratio: float, density: float) -> None:
    with pytest.raises(LabError, match="is"):
        uniform_recipe(anatomy, ratio, "dare", density)


def test_a_genome_round_trips_through_json(anatomy: Anatomy) -> None:
    genome = neutral_genome("v6", anatomy.layers, operator="dare", seed=3).with_genes(block_0=0.123456)
    again = genome_from_json(genome.to_json(), anatomy.layers)
    assert again == genome
    assert make_recipe(again, anatomy).hash == make_recipe(genome, anatomy).hash


def test_a_prescription_round_trips_through_json(anatomy: Anatomy) -> None:
    import json

    before = advice(anatomy, 0.7, golden=(1,), router={0: "A"}, preserve={1: (2,)}, spread=(0.2, 0.8))
    after = Prescription.from_json(json.loads(json.dumps(before.to_json())))
    assert after == before
    assert after.hash == before.hash
