"""The recipe: genes act where they own, copies are copies, and the hash names the bytes."""

from dataclasses import replace
from pathlib import Path

import pytest

from darwin_lab.checkpoint.anatomy import FUSED, Anatomy, Part, read_anatomy
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.errors import LabError
from darwin_lab.genome.genome import GENOME_OPERATORS, READINGS, genome_from_json, neutral_genome, operators_of
from darwin_lab.genome.layouts import LAYOUTS
from darwin_lab.genome.presets import preset_genome
from darwin_lab.merging.operators import IGNORES_RATIO, OPERATORS
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


def made_anatomy(layers: int) -> Anatomy:
    """A decoder of attention, a router and two fused experts in each layer, between an embedding, a norm and a head."""
    parts: dict[str, Part] = {}

    def add(name: str, role: str, component: str, layer: int | None, shape: tuple[int, ...]) -> None:
        expert, numel = (FUSED if role == "expert" else None), 4 if len(shape) == 1 else shape[0] * 4
        parts[name] = Part(name, role, component, layer, expert, "text", "", True, "", shape, numel)

    add("embed.weight", "embedding", "embed", None, (8, 4))
    for layer in range(layers):
        add(f"layers.{layer}.self_attn.q_proj.weight", "attention", "attn", layer, (4, 4))
        add(f"layers.{layer}.mlp.gate.weight", "router", "ffn", layer, (2, 4))
        add(f"layers.{layer}.mlp.experts.down_proj", "expert", "ffn", layer, (2, 4, 4))
    add("norm.weight", "norm", "global", None, (4,))
    add("lm_head.weight", "lm_head", "embed", None, (8, 4))
    return Anatomy(parts, layers, ("full_attention",) * layers, 4, 2, 1, tuple(range(layers)))


def changed(before: Recipe, after: Recipe) -> set[str]:
    return {name for name, row in after.rows.items() if row.decision != before.rows[name].decision}


def test_a_neutral_genome_is_the_plain_blend(anatomy: Anatomy) -> None:
    for layout in LAYOUTS:
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


@pytest.mark.parametrize("operator", GENOME_OPERATORS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("reading", READINGS)
def test_inert_genes_are_those_that_change_no_row(anatomy: Anatomy, operator: str, layout: str, reading: str) -> None:
    if operator not in operators_of(layout):
        return
    genome, told = neutral_genome(layout, anatomy.layers, operator=operator, reading=reading), advice(anatomy, 0.6)
    inert = inert_genes(genome, anatomy, has_prescription=True, has_ancestor=True)
    before = make_recipe(genome, anatomy, told)
    after = {name: make_recipe(genome.with_genes(**{name: 0.3}), anatomy, told) for name in genome.genes}
    moved = {name for name, recipe in after.items() if changed(before, recipe)}
    assert moved == set(genome.genes) - inert


def test_with_an_ancestor_fewer_genes_are_inert(anatomy: Anatomy) -> None:
    mix = neutral_genome("v6", anatomy.layers, operator="mix")
    assert inert_genes(mix, anatomy, has_prescription=True, has_ancestor=True) == set()
    assert inert_genes(mix, anatomy, has_prescription=False, has_ancestor=False) == {"density_a", "mri_trust"}
    plain = neutral_genome("v6", anatomy.layers)
    densities = {"density_a", "density_b", "merge_method_weight"}
    assert inert_genes(plain, anatomy, has_prescription=True, has_ancestor=True) == densities


def test_an_operator_without_a_ratio_reads_none_but_still_copies_at_zero_and_one(anatomy: Anatomy) -> None:
    assert frozenset({"arcee_fusion"}) == IGNORES_RATIO
    genome = neutral_genome("v6", anatomy.layers, operator="arcee_fusion").with_genes(attn_ratio=0.0, ffn_ratio=0.1)
    for row in make_recipe(genome, anatomy).rows.values():
        assert (row.action, row.ratio) == (("copy", 0.0) if row.component == "attn" else ("merge", 0.5))


# ---------------------------------------------------------------------------------------------- layouts v5 and v7


def test_in_v5_a_blocks_ratio_is_that_of_all_its_tensors_and_elsewhere_the_components_act(anatomy: Anatomy) -> None:
    genome = neutral_genome("v5", anatomy.layers, blocks=((2, 3),)).with_genes(
        global_ratio=0.4, attn_ratio=0.2, ffn_ratio=0.9, block_0=0.7
    )
    for reading, attn, ffn in (("component", 0.2, 0.9), ("mean", 0.3, 0.65)):
        for row in make_recipe(replace(genome, reading=reading), anatomy).rows.values():
            outside = {"attn": attn, "ffn": ffn}.get(row.component, 0.4)
            assert row.ratio == pytest.approx(0.7 if row.layer in (2, 3) else outside, abs=1e-6)


def test_the_published_three_block_recipe_is_what_the_preset_makes() -> None:
    rows = make_recipe(preset_genome("darwin-35b-opus", 40), made_anatomy(40)).rows
    for layer in range(40):
        ratio, router = (0.5988, 1.0) if layer < 38 else (0.9, 1.0) if layer == 38 else (0.5336, 0.0)
        shares = {row.role: row.ratio for row in rows.values() if row.layer == layer}
        assert shares == {"attention": ratio, "expert": ratio, "router": router}
    assert (rows["norm.weight"].ratio, rows["embed.weight"].ratio) == (0.8, 0.8)
    assert {(row.operator, row.density_b) for row in rows.values()} == {("dare", 0.799)}


def test_a_stretched_three_block_recipe_keeps_a_layer_for_every_block() -> None:
    recipe = make_recipe(preset_genome("darwin-35b-opus", 12), made_anatomy(12))
    assert recipe.layer_ratios("attn") == [0.5988] * 10 + [0.9, 0.5336]


def test_in_v7_each_band_and_each_kind_of_tensor_has_its_gene() -> None:
    anatomy = made_anatomy(6)
    genes = {"early": 0.2, "middle": 0.4, "late": 0.8}
    genome = neutral_genome("v7", 6).with_genes(**genes)
    assert make_recipe(genome, anatomy).layer_ratios() == pytest.approx([0.2, 0.2, 0.4, 0.4, 0.8, 0.8], abs=1e-6)
    kinds = {"embed": "embedding", "lm_head": "lm_head", "attn": "attention", "norm": "norm", "router": "router",
             "routed_expert": "expert"}  # fmt: skip
    for gene, role in kinds.items():
        moved = changed(make_recipe(genome, anatomy), make_recipe(genome.with_genes(**{gene: 0.7}), anatomy))
        assert moved == {part.name for part in anatomy.mergeable if part.role == role}


def test_the_published_bands_leave_embedding_and_head_to_the_father() -> None:
    rows = make_recipe(preset_genome("mistral-g1", 6), made_anatomy(6)).rows
    assert {rows[name].action for name in ("embed.weight", "lm_head.weight")} == {"copy"}
    assert {row.ratio for row in rows.values() if row.role == "attention"} == {0.5}


# -------------------------------------------------------------------------------------------- names of children


def test_children_made_before_there_were_options_keep_their_names() -> None:
    anatomy = made_anatomy(3)
    told = advice(anatomy, 0.6, preserve={1: (1,)}, router={0: "A", 2: "B"})
    names = {
        "uniform": uniform_recipe(anatomy, 0.4).hash,
        "masked": uniform_recipe(anatomy, 0.4, "dare_ties", 0.5, 3, "l1").hash,
        "mother": uniform_recipe(anatomy, 1.0).hash,
        "advised": make_recipe(neutral_genome("v6", 3, experts="preserve"), anatomy, told).hash,
        "layers": make_recipe(neutral_genome("layerwise", 3).with_genes(layer_1=0.25), anatomy).hash,
        "v4": make_recipe(neutral_genome("v4", 3, operator="dare").with_genes(density_b=0.6), anatomy).hash,
        "prescription": told.hash,
    }
    assert names == {
        "uniform": "19bad17a8ccb",
        "masked": "d1c92dab11a1",
        "mother": "a73ad3607dd5",
        "advised": "f18fdf24f84c",
        "layers": "5833835ef255",
        "v4": "5df6bba5ea2f",
        "prescription": "e40900bf2dbd",
    }


def test_only_what_changes_a_byte_is_in_the_name(anatomy: Anatomy) -> None:
    def named(**choices: object) -> str:
        return uniform_recipe(anatomy, 0.4, **choices).hash  # type: ignore[arg-type]

    by_number = {layer: tuple(range(8)) for layer in range(4)}
    swapped = {1: (1, 0, *range(2, 8))}
    assert named() == named(expert_order=by_number)
    assert len({named(), named(expert_order=swapped), named(vocabulary="by-token"), named(router="A")}) == 4
    assert named(operator="ties") == named(operator="ties", options={"lambda": 1.0})
    assert named(operator="ties") != named(operator="ties", options={"lambda": 1.1})
    copies = uniform_recipe(anatomy, 0.0, "ties", options={"lambda": 1.1})
    assert copies.hash == uniform_recipe(anatomy, 0.0).hash


@pytest.mark.parametrize(
    ("operator", "options", "words"),
    [
        ("lerp", {"lambda": 1.0}, "lerp has no option 'lambda'; it has none"),
        ("della", {"gamma": 0.1}, "della has no option 'gamma'; it has lambda, epsilon"),
        ("ties", {"lambda": 9.0}, "option lambda of ties is 9, outside 0 to 2"),
    ],
)
def test_an_option_the_operator_cannot_have_is_refused(
    anatomy: Anatomy, operator: str, options: dict[str, float], words: str
) -> None:
    with pytest.raises(LabError, match=words):
        uniform_recipe(anatomy, 0.4, operator, options=options)
    with pytest.raises(LabError, match=words):
        make_recipe(neutral_genome("v6", anatomy.layers, operator=operator, options=options), anatomy)


def test_every_operator_can_be_searched() -> None:
    assert {*OPERATORS, "mix"} == set(GENOME_OPERATORS)


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
    used = replace(before, utilisation={1: ((0.5, 0.5), (0.25, 0.75))}, dead={1: (2,)})
    for told in (before, used):
        after = Prescription.from_json(json.loads(json.dumps(told.to_json())))
        assert after == told
        assert after.hash == told.hash
    assert used.hash != before.hash
    old = {key: value for key, value in before.to_json().items() if key not in ("utilisation", "dead")}
    assert Prescription.from_json(old) == before


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_pinned_layer_takes_its_share_whole_and_no_other_layer_notices(anatomy: Anatomy, layout: str) -> None:
    base = neutral_genome(layout, anatomy.layers, router="A", transplant=0.3)
    told = advice(anatomy, 0.9)
    free = make_recipe(base, anatomy, told)
    pinned = make_recipe(replace(base, pinned={1: 0.1}), anatomy, told)
    layer = {part.name for part in anatomy.mergeable if part.layer == 1}
    assert changed(free, pinned) == layer
    assert {pinned.rows[name].ratio for name in layer} == {0.1}
    assert all("pinned" in pinned.rows[name].why for name in layer)


def test_experts_that_are_dead_in_the_mother_are_preserved_in_a_pinned_layer_too(anatomy: Anatomy) -> None:
    told = advice(anatomy, 0.5, preserve={1: (0,)})
    base = neutral_genome("v6", anatomy.layers, experts="preserve", pinned={1: 0.8})
    made = make_recipe(base, anatomy, told)
    rows = [row for row in made.rows.values() if row.layer == 1 and row.role == "expert" and row.expert_ratios]
    assert rows
    assert all(row.expert_ratios[0] == 0.0 and row.expert_ratios[1] == 0.8 for row in rows)


def test_a_gene_whose_layers_are_all_pinned_does_nothing(anatomy: Anatomy) -> None:
    genome = neutral_genome("v5", anatomy.layers, blocks=2, pinned=dict.fromkeys(range(anatomy.layers // 2), 0.2))
    inert = inert_genes(genome, anatomy, has_prescription=False, has_ancestor=False)
    assert "block_0" in inert
    assert "block_1" not in inert
