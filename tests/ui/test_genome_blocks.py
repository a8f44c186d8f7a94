"""The block card: a typed recipe becomes a v5 genome, blocks are cut equal or where the MRI changes."""

import json
import random
from dataclasses import replace

import pytest

from darwin_lab.errors import LabError
from darwin_lab.genome.block_text import EXAMPLE, read_blocks
from darwin_lab.genome.genome import neutral_genome
from darwin_lab.lab.lab import Lab
from darwin_lab.ui.figures.block_recipe import block_recipe
from darwin_lab.ui.figures.block_strip import ink_on, share_colour
from darwin_lab.ui.tabs import genome_blocks


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("home"), cpus=1)
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def pair(lab, tiny_moe_pair, tmp_path_factory):
    rng, probes = random.Random(0), tmp_path_factory.mktemp("probes") / "probes.jsonl"
    rows = [{"probe": name, "text": "".join(rng.choices("abc123 ", k=20))} for name in ("MATH", "NEUTRAL") * 4]
    probes.write_text("\n".join(map(json.dumps, rows)))
    return lab.open_pair(*tiny_moe_pair, probes=probes)


@pytest.fixture(scope="module")
def advice(lab, pair):
    for job in lab.request_scan(pair):
        lab.wait(job)
    return lab.prescription(pair)


def test_a_typed_recipe_becomes_the_recipe_of_the_child(lab, pair):
    at_hand = neutral_genome("v6", pair.anatomy.layers, operator="dare", seed=7)
    genome = genome_blocks.typed_genome("L0-L2 t .6 router B; L3 t .2 router A", pair, at_hand)
    assert (genome.layout, genome.operator, genome.seed) == ("v5", "dare", 7)
    assert lab.recipe(pair, genome).layer_ratios("attn") == pytest.approx([0.6, 0.6, 0.6, 0.2])
    routers = [row.ratio for row in lab.recipe(pair, genome).rows.values() if row.role == "router"]
    assert routers == [1.0, 1.0, 1.0, 0.0]


def test_the_published_recipe_is_drawn_block_by_block():
    blocks = read_blocks(EXAMPLE, 40)
    spans = [(block.first, block.last) for block in blocks]
    chart = block_recipe(spans, [b.t for b in blocks], [b.router for b in blocks], layers=40, golden=[38])
    assert list(chart.figure.data[0].z[0]) == [0.5988] * 38 + [0.9, 0.5336]
    assert [words.split("<br>")[0] for words in chart.figure.data[1].text] == [".60", ".90", ".53"]
    assert chart.note.endswith("A father, B mother")
    blended = block_recipe([(0, 1), (2, 3)], [0.25, 0.5], ["A", "blend"], layers=4)
    assert list(blended.figure.data[1].text) == ["t 0.25<br>router A (father)", "t 0.5<br>router blended"]
    assert [row[3] for row in chart.rows] == ["B", "B", "A"]
    assert len(chart.figure.layout.shapes) == 2
    assert [note.x for note in chart.figure.layout.annotations] == [38]


@pytest.mark.parametrize("share", [step / 20 for step in range(21)])
def test_every_number_on_a_cell_stands_out_from_its_colour(share):
    colour = share_colour(share)

    def luminance(text):
        channels = [int(text[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(colour), luminance(ink_on(colour))), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_blocks_are_cut_equal_or_at_the_change_points_of_the_profile(lab, pair, advice, monkeypatch):
    genome = neutral_genome("v6", pair.anatomy.layers)
    assert genome_blocks.cut_genome(lab, pair, genome, "equal", "2").layout_of(4).blocks == ((0, 1), (2, 3))
    told = replace(advice, layer_ratio=(0.2, 0.8, 0.8, 0.8), signal=True)
    monkeypatch.setattr(lab, "advice", lambda pair, wanted: told)
    assert genome_blocks.cut_genome(lab, pair, genome, "change", "2").blocks == ((0, 0), (1, 3))
    monkeypatch.setattr(lab, "advice", lambda pair, wanted: replace(told, signal=False))
    with pytest.raises(LabError, match="no signal"):
        genome_blocks.cut_genome(lab, pair, genome, "change", "2")
    with pytest.raises(LabError, match="layerwise has no blocks"):
        genome_blocks.cut_genome(lab, pair, neutral_genome("layerwise", 4), "equal", "2")
    with pytest.raises(LabError, match="'two' is no number"):
        genome_blocks.cut_genome(lab, pair, genome, "equal", "two")
    with pytest.raises(LabError, match="9 blocks do not fit"):
        genome_blocks.cut_genome(lab, pair, genome, "equal", "9")


def test_golden_layers_and_experts_to_preserve_are_listed_by_block(pair, advice):
    told = replace(advice, golden=(3,), preserve={1: (0, 5)}, router=dict.fromkeys(range(4), "blend"))
    genome = neutral_genome("v5", 4, blocks=2)
    first, second = genome_blocks.advice_table(genome, pair, told)["rows"]
    assert first["cells"][2:] == ["—", "blend", "L1: 0, 5"]
    assert second["cells"][2:] == ["L3", "blend", "—"]
    assert first["cells"][1] == pytest.approx(sum(told.layer_ratio[:2]) / 2)
    assert "L3" in genome_blocks.advice_words(replace(told, signal=True))


def test_without_scans_the_card_says_what_is_missing(lab, pair):
    assert genome_blocks.advice_table(neutral_genome("v6", 4), pair, None)["empty"] == genome_blocks.NO_ADVICE
    assert genome_blocks.genome_chart(neutral_genome("layerwise", 4), pair, None).empty == genome_blocks.NO_BLOCKS
