from dataclasses import replace

import numpy as np
import pytest
from made_scans import LAYERS, made_anatomy, made_contrast, made_scan, with_dead

from darwin_lab.errors import LabError
from darwin_lab.genome.genome import combine
from darwin_lab.genome.layouts import layout_for
from darwin_lab.mri.genes import prescription_genes, shuffled
from darwin_lab.mri.prescribe import prescribe

FATHER, MOTHER = made_scan(1), made_scan(2, name="mother")
ANATOMY = made_anatomy()


def prescription(level=(0.2, -0.1, 0.05, 0.0), mother=MOTHER):
    return prescribe(FATHER, mother, ANATOMY, contrast=made_contrast(level, FATHER, mother))


def logit(share):
    return np.log(share / (1 - share))


@pytest.mark.parametrize("name", ["v4", "v6", "layerwise"])
def test_no_signal_means_neutral_genes(name):
    layout = layout_for(name, LAYERS)
    genes, widths = prescription_genes(prescription([0.0] * LAYERS), layout, ANATOMY, MOTHER)
    assert genes == pytest.approx(layout.neutral())
    assert set(widths) == set(layout.names)


def test_block_genes_give_back_advice_that_is_constant_in_blocks():
    layout = layout_for("v6", LAYERS, 2)
    advice = prescription([0.2, 0.2, -0.1, -0.1])
    genes, _ = prescription_genes(advice, layout, ANATOMY, MOTHER)
    for layer, block in ((0, "block_0"), (3, "block_1")):
        for component in ("attn_ratio", "ffn_ratio"):
            shares = [genes["global_ratio"], genes[component], genes[block]]
            assert combine(shares, "logit") == pytest.approx(advice.layer_ratio[layer], abs=0.01)
    assert genes["embed_ratio"] == pytest.approx(0.5)
    assert genes["mri_trust"] == 0.5


def test_genes_are_the_least_squares_solution_on_size_weighted_logits():
    layout = layout_for("v4", LAYERS)
    advice = prescription()
    genes, _ = prescription_genes(advice, layout, ANATOMY, MOTHER)
    for component in ("attn", "ffn"):
        parts = [part for part in ANATOMY.mergeable if part.component == component]
        expected = np.average([logit(advice.ratio[p.name]) for p in parts], weights=[p.numel for p in parts])
        assert logit(genes[component]) == pytest.approx(expected, abs=0.002)


def test_a_search_never_starts_on_a_bound():
    advice = prescription()
    extreme = replace(advice, ratio=dict.fromkeys(advice.ratio, 1.0))
    for name in ("v4", "v6", "layerwise"):
        layout = layout_for(name, LAYERS)
        genes, _ = prescription_genes(extreme, layout, ANATOMY, MOTHER)
        searched = [gene for gene in layout.genes if gene.group in ("component", "block", "layer")]
        assert all(gene.low < genes[gene.name] < gene.high for gene in searched)


def test_v5_blocks_alone_carry_the_advice_and_v7_bands_and_kinds_share_it():
    layout = layout_for("v5", LAYERS, ((0, 1), (2, 3)))
    genes, _ = prescription_genes(prescription([0.3, 0.3, -0.3, -0.3]), layout, ANATOMY, MOTHER)
    assert genes["block_0"] > 0.7 and genes["block_1"] < 0.3
    assert genes["attn_ratio"] == genes["ffn_ratio"] == 0.5
    bands, _ = prescription_genes(prescription([0.3, 0.3, -0.3, -0.3]), layout_for("v7", LAYERS), ANATOMY, MOTHER)
    assert bands["early"] > 0.6 and bands["late"] < 0.4


def test_density_b_falls_with_the_mothers_dead_share():
    mother = with_dead(with_dead(MOTHER, 0, 1), 1, 4)
    genes, _ = prescription_genes(prescription(mother=mother), layout_for("v6", LAYERS), ANATOMY, mother)
    assert genes["density_b"] == pytest.approx(1 - 0.35 * 2 / 32)
    assert genes["density_a"] == 1


def test_the_search_is_narrow_where_the_scan_is_sure():
    layout = layout_for("layerwise", LAYERS)
    loud = {p: v.copy() for p, v in MOTHER.per_text["loss"].items()}
    rng = np.random.default_rng(0)
    for values in loud.values():
        values[:, 2] = 3 * rng.standard_normal(len(values))
    mother = replace(MOTHER, per_text={**MOTHER.per_text, "loss": loud})
    _, widths = prescription_genes(prescription(), layout, ANATOMY, mother)
    assert widths["layer_2"] > widths["layer_1"]
    assert all(0.5 <= width <= 1.5 for width in widths.values())


def test_the_placebo_keeps_the_levels_and_gives_none_to_its_own_layer():
    advice = prescription([0.4, -0.3, 0.1, -0.05])
    placebo = shuffled(advice, ANATOMY, seed=3)
    assert sorted(placebo.layer_ratio) == pytest.approx(sorted(advice.layer_ratio), abs=1e-6)
    assert all(abs(one - other) > 1e-3 for one, other in zip(placebo.layer_ratio, advice.layer_ratio, strict=True))
    assert placebo.ratio["model.embed_tokens.weight"] == advice.ratio["model.embed_tokens.weight"]
    assert placebo.hash != advice.hash
    assert "placebo" in placebo.note


def test_the_placebo_moves_golden_layers_and_preserved_experts_and_repeats_for_a_seed():
    advice = replace(prescription(), golden=(1,), preserve={0: (3,), 2: (1, 5)})
    placebo = shuffled(advice, ANATOMY, seed=0)
    assert placebo == shuffled(advice, ANATOMY, seed=0)
    assert len(placebo.golden) == 1
    assert placebo.golden != (1,)
    assert sorted(placebo.preserve.values()) == sorted(advice.preserve.values())
    assert placebo.preserve != advice.preserve


def test_the_placebo_moves_what_is_known_of_experts_with_their_layers():
    use = {layer: ((layer / 10,) * 8, (0.5,) * 8) for layer in range(LAYERS)}
    advice = replace(prescription(), preserve={0: (3,)}, dead={0: (3,)}, utilisation=use)
    placebo = shuffled(advice, ANATOMY, seed=0)
    (now,) = placebo.preserve
    assert now != 0
    assert set(placebo.dead) == {now}
    assert placebo.utilisation[now] == use[0]
    assert all(placebo.utilisation[layer] != use[layer] for layer in range(LAYERS))


def test_a_model_of_one_layer_has_no_placebo():
    with pytest.raises(LabError, match="only one"):
        shuffled(prescription(), replace(ANATOMY, layers=1), seed=0)
