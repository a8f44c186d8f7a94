"""Genomes: checked on the way in, hashed by content, presets as published."""

import pytest

from darwin_lab.errors import LabError
from darwin_lab.genome.genome import combine, genome_from_json, neutral_genome
from darwin_lab.genome.layouts import equal_blocks, layout_for
from darwin_lab.genome.presets import PRESETS, preset_genome


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
        ('{"layout": "v9"}', "unknown layout 'v9'; choose v4, v6, layerwise"),
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


def test_a_preset_that_needs_an_ancestor_becomes_its_one_delta_form_without_one() -> None:
    assert preset_genome("darwin-v4", 12, has_ancestor=False).operator == "dare"


def test_an_unknown_preset_is_refused_with_the_names() -> None:
    with pytest.raises(LabError, match="unknown preset 'v5'; choose blend"):
        preset_genome("v5", 12)
