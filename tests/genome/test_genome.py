"""Genomes: checked on the way in, hashed by content, presets as published."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darwin_lab.errors import LabError
from darwin_lab.genome.genome import combine, genome_from_json, neutral_genome
from darwin_lab.genome.layouts import equal_blocks, layout_for
from darwin_lab.genome.presets import PRESETS, preset_genome, stretch_ranges, stretch_words


def test_v6_has_fourteen_genes_at_sixty_layers() -> None:
    layout = layout_for("v6", 60)
    assert len(layout.genes) == 14
    assert layout.blocks == ((0, 9), (10, 19), (20, 29), (30, 39), (40, 49), (50, 59))


@pytest.mark.parametrize(("layers", "count"), [(12, 5), (7, 7), (42, 8), (3, 1)])
def test_blocks_cover_every_layer_once(layers: int, count: int) -> None:
    blocks = equal_blocks(layers, count)
    assert [layer for first, last in blocks for layer in range(first, last + 1)] == list(range(layers))


def test_genes_left_out_are_neutral() -> None:
    genome = genome_from_json('{"layout": "v6", "genes": {"global_ratio": 0.51}, "seed": 0}', 12)
    assert genome.genes == {**layout_for("v6", 12).neutral(), "global_ratio": 0.51}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[]", "no layout"),
        ('{"genes": {}}', "no layout"),
        ('{"layout": "v9"}', "unknown layout 'v9'; choose v4, v5, v6, v7, layerwise"),
        ('{"layout": "v6", "genes": {"globl": 0.5}}', "no gene 'globl'"),
        ('{"layout": "v6", "genes": {"global_ratio": 1.5}}', "global_ratio is 1.5, outside 0 to 1"),
        ('{"layout": "v6", "genes": {"density_b": 0.01}}', "outside 0.05 to 1"),
        ('{"layout": "v6", "genes": {"global_ratio": NaN}}', "give a number"),
        ('{"layout": "v6", "genes": {"global_ratio": "half"}}', "give a number"),
        ('{"layout": "v6", "genes": {"global_ratio": true}}', "give a number"),
        ('{"layout": "v6", "gene": {}}', "unknown key 'gene'"),
        ('{"layout": "v6", "operator": "magic"}', "operator is 'magic'"),
        ('{"layout": "v6", "seed": 1.5}', "seed"),
        ('{"layout": "v6", "version": 9}', "version 9"),
        ('{"layout": "v6", "blocks": 99}', "99 blocks do not fit 12 layers"),
        ('{"layout": "v6", "transplant": 0.7}', "transplant"),
        ('{"layout": "v6", "experts": "kill"}', "experts is 'kill'"),
        ('{"layout": "v6", "router": "C"}', "router is 'C'; choose blend, A, B, or a list"),
        ('{"layout": "v6", "router": ["A"]}', "router names 1 blocks, layout v6 has 2 here"),
        ('{"layout": "v4", "router": ["A", "B"]}', "layout v4 has 0 here"),
        ('{"layout": "v6", "options": [1]}', "options is not an object"),
        ('{"layout": "v6", "options": {"lambda": "big"}}', "option lambda is 'big'"),
        ('{"layout": "v5", "blocks": [[0, 3], [3, 11]]}', "blocks [0, 3], [3, 11] do not fit 12 layers"),
        ('{"layout": "v5", "blocks": [[0, 12]]}', "do not fit 12 layers"),
        ('{"layout": "v5", "blocks": [[0]]}', "blocks is [[0]]"),
        ('{"layout": "v5", "blocks": [[0, 1.5]]}', "blocks is [[0, 1.5]]"),
        ('{"layout": "v5", "blocks": true}', "blocks is True"),
        ('{"layout": "v7", "blocks": 2}', "layout v7 has no blocks to choose"),
        ('{"layout": "v7", "operator": "ties"}', "layout v7 is linear only"),
    ],
)
def test_a_bad_genome_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(LabError) as caught:
        genome_from_json(text, 12)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_hash_follows_genes_and_choices() -> None:
    genome = neutral_genome("v6", 12)
    same = genome_from_json(genome.to_json(), 12)
    assert same.hash == genome.hash
    assert genome.with_genes(global_ratio=0.500001).hash != genome.hash
    assert genome.with_genes(global_ratio=0.5 + 1e-9).hash == genome.hash
    others = {
        neutral_genome("v6", 12, **choice).hash for choice in ({"reading": "mean"}, {"operator": "dare"}, {"seed": 1})
    }
    assert len(others | {genome.hash}) == 4


def test_a_genome_with_every_choice_comes_back_from_json() -> None:
    genome = neutral_genome(
        "v5", 12, blocks=((0, 9), (11, 11)), router=("B", "A"), experts="usage", operator="della",
        options={"lambda": 1.2, "epsilon": 0.1}, seed=7,
    )  # fmt: skip
    assert genome_from_json(json.loads(json.dumps(genome.to_json())), 12) == genome
    changes = (("seed", 8), ("router", ("A", "B")), ("router", "B"), ("options", {}), ("blocks", 2))
    assert len({genome.hash, *(replace(genome, **{key: value}).hash for key, value in changes)}) == 6


def test_a_list_of_equal_routers_is_that_router() -> None:
    assert genome_from_json({"layout": "v6", "router": ["B", "B"]}, 12).router == "B"


def test_genomes_made_before_there_were_options_keep_their_hash() -> None:
    assert neutral_genome("v6", 12, operator="mix", seed=3, experts="preserve").hash == "b8a7ce773a44"
    assert neutral_genome("v4", 12).hash == "1d35b6df877e"


def test_what_a_prescription_is_needed_for() -> None:
    assert neutral_genome("v6", 12).reads_advice
    assert not neutral_genome("v6", 12).with_genes(mri_trust=0.0).reads_advice
    assert not neutral_genome("v5", 12).reads_advice
    assert neutral_genome("v5", 12, experts="usage").reads_advice


def test_the_genes_of_v5_and_v7() -> None:
    v5 = layout_for("v5", 40, ((0, 37), (38, 38), (39, 39)))
    assert v5.names[:5] == ("global_ratio", "attn_ratio", "ffn_ratio", "density_a", "density_b")
    assert {name: v5.layers_of(name) for name in v5.names[5:]} == {
        "block_0": (0, 37), "block_1": (38, 38), "block_2": (39, 39)
    }  # fmt: skip
    v7 = layout_for("v7", 12)
    assert v7.names == ("early", "middle", "late", "embed", "lm_head", "attn", "norm", "router", "shared_expert",
                        "routed_expert")  # fmt: skip
    assert [v7.layers_of(band) for band in ("early", "middle", "late")] == [(0, 3), (4, 7), (8, 11)]


def test_neutral_genes_change_nothing_in_the_logit_reading() -> None:
    assert combine([0.5, 0.5, 0.3], "logit") == pytest.approx(0.3)
    assert combine([0.8, 0.2], "logit") == pytest.approx(0.5)


def test_an_exact_zero_or_one_decides_in_the_logit_reading() -> None:
    assert combine([0.9, 0.0], "logit") == 0.0
    assert combine([0.1, 1.0], "logit") == 1.0
    assert combine([0.0, 1.0], "logit") == pytest.approx(0.5)


@pytest.mark.parametrize("preset", [preset.name for preset in PRESETS])
@pytest.mark.parametrize("layers", [4, 12, 60])
def test_a_preset_fits_models_of_any_depth(preset: str, layers: int) -> None:
    genome = preset_genome(preset, layers)
    assert genome_from_json(genome.to_json(), layers) == genome


def test_the_published_blocks_are_kept_at_the_published_depth_and_stretched_elsewhere() -> None:
    published = [0.6628, 0.6431, 0.5146, 0.5971, 0.6339, 0.8583]
    genes = preset_genome("darwin-31b-opus", 60).genes
    assert [genes[f"block_{i}"] for i in range(6)] == pytest.approx(published)
    halves = preset_genome("darwin-31b-opus", 12).genes
    assert [halves["block_0"], halves["block_1"]] == pytest.approx([sum(published[:3]) / 3, sum(published[3:]) / 3])


def test_a_preset_says_when_it_was_stretched() -> None:
    assert stretch_words("darwin-31b-opus", 60) == ""
    assert "published for 60 layers; its blocks are stretched to these 12" in stretch_words("darwin-31b-opus", 12)
    assert stretch_words("darwin-35b-opus", 40) == stretch_words("blend", 12) == ""


@given(st.integers(3, 130))
def test_stretched_ranges_cover_every_layer_once(layers: int) -> None:
    ranges = stretch_ranges(((0, 37), (38, 38), (39, 39)), 40, layers)
    assert [layer for first, last in ranges for layer in range(first, last + 1)] == list(range(layers))


def test_a_model_with_fewer_layers_than_ranges_is_refused() -> None:
    with pytest.raises(LabError, match="3 blocks, this model 2 layers"):
        preset_genome("darwin-35b-opus", 2)


def test_a_preset_that_needs_an_ancestor_becomes_its_one_delta_form_without_one() -> None:
    assert preset_genome("darwin-v4", 12, has_ancestor=False).operator == "dare"


def test_an_unknown_preset_is_refused_with_the_names() -> None:
    with pytest.raises(LabError, match="unknown preset 'v5'; choose blend"):
        preset_genome("v5", 12)


def test_pinned_layers_are_part_of_the_genome_and_of_its_hash() -> None:
    plain = neutral_genome("v6", 12)
    pinned = genome_from_json({**plain.to_json(), "pinned": {"3": 0.25}}, 12)
    assert pinned.pinned == {3: 0.25}
    assert pinned.hash != plain.hash
    assert genome_from_json(json.loads(json.dumps(pinned.to_json())), 12) == pinned
    assert "pinned" not in plain.to_json()


@pytest.mark.parametrize(
    ("pinned", "words"),
    [([3], "not an object"), ({"12": 0.5}, "0 to 11"), ({"x": 0.5}, "'x'"), ({"3": 1.5}, "pinned at 1.5"),
     ({"3": "a"}, "pinned at a"), ({"-1": 0.5}, "'-1'"), ({"3": float("nan")}, "pinned at nan")],
)  # fmt: skip
def test_a_pin_that_makes_no_sense_is_refused(pinned: object, words: str) -> None:
    with pytest.raises(LabError, match=words):
        genome_from_json({**neutral_genome("v6", 12).to_json(), "pinned": pinned}, 12)
