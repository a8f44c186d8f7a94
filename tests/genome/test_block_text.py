"""Blocks as a line of text: read as the cards print them, refused part by part, and moved to other layers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darwin_lab.errors import LabError
from darwin_lab.genome.block_text import EXAMPLE, Block, genome_of_blocks, read_blocks, text_of_blocks, with_blocks
from darwin_lab.genome.genome import neutral_genome
from darwin_lab.genome.presets import preset_genome


def test_the_published_three_blocks_are_the_presets() -> None:
    typed, preset = genome_of_blocks(EXAMPLE, 40), preset_genome("darwin-35b-opus", 40)
    assert typed.blocks == preset.blocks == ((0, 37), (38, 38), (39, 39))
    assert [typed.genes[f"block_{n}"] for n in range(3)] == [preset.genes[f"block_{n}"] for n in range(3)]
    assert typed.router == preset.router == ("B", "B", "A")


@pytest.mark.parametrize(
    "text",
    ["L0–L3 t=.5, router: mother", "0-3 T 0.5 Router B", "l0 to l3: t .50 router=b", " L0-L3 t .5 router B ;\n"],
)
def test_the_spelling_is_forgiving(text: str) -> None:
    assert read_blocks(text, 4) == (Block(0, 3, 0.5, "B"),)


def test_lines_part_blocks_as_semicolons_do_and_a_router_may_be_left_out() -> None:
    assert read_blocks("L0 t 0\nL1-L2 t 1 router A", 3) == (Block(0, 0, 0.0), Block(1, 2, 1.0, "A"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "there are no blocks"),
        ("L0-L3 .5", "block 1 .*no share"),
        ("L0-L1 t .5; L3 t .5", "block 2 .*nothing covers L2"),
        ("L0-L2 t .5; L2-L3 t .5", "block 2 .*L2 is in an earlier block"),
        ("L0-L4 t .5", "block 1 .*this model has L0 to L3"),
        ("L0-L2 t .5", "block 1 .*ends at L2, this model at L3"),
        ("L3-L0 t .5", "runs backwards; write L0-L3"),
        ("L0-L3 t 1.2", "t is 1.2"),
        ("L0-L3 t nan", "t is nan"),
        ("L0-L3 t high", "t is 'high'"),
        ("L0-L3 t 0_1", "t is '0_1'"),
        ("L0-L3 t .5; L0-L3 t .5", "block 2 .*all layers are in earlier blocks already; leave this block out"),
        ("L0-L1 t .5 router B; L2-L3 t .5 router C", "block 2 .*router is 'C'"),
        ("L0-L3 t .5 with love", "'with love' makes no sense"),
        ("all t .5", "'all' is no range of layers"),
    ],
)
def test_an_error_names_the_part_and_what_to_write(text: str, words: str) -> None:
    with pytest.raises(LabError, match=words) as refused:
        read_blocks(text, 4)
    assert "\n" not in str(refused.value)


def test_a_share_of_minus_zero_is_zero() -> None:
    genome = genome_of_blocks("L0-L3 t -0", 4)
    assert text_of_blocks(genome, 4) == "L0-L3 t 0"
    genome = genome.with_genes(block_0=-0.0)
    assert text_of_blocks(genome, 4) == "L0-L3 t 0"


@given(st.lists(st.tuples(st.integers(1, 4), st.floats(0, 1), st.sampled_from(["A", "B", "blend"])), min_size=1))
def test_what_is_written_reads_back_the_same(drawn: list[tuple[int, float, str]]) -> None:
    layers = sum(size for size, _, _ in drawn)
    starts = [sum(size for size, _, _ in drawn[:n]) for n in range(len(drawn))]
    text = "; ".join(
        f"L{start}-L{start + size - 1} t {share:.6f} router {router}"
        for start, (size, share, router) in zip(starts, drawn, strict=True)
    )
    genome = genome_of_blocks(text, layers)
    assert genome_of_blocks(text_of_blocks(genome, layers), layers) == genome


def test_other_blocks_keep_the_mean_share_of_their_layers_and_an_agreed_router() -> None:
    genome = genome_of_blocks("L0-L1 t .2 router A; L2-L3 t .8 router B", 4)
    moved = with_blocks(genome, ((0, 0), (1, 2), (3, 3)), 4)
    assert [moved.genes[f"block_{n}"] for n in range(3)] == [0.2, 0.5, 0.8]
    assert moved.router == ("A", "blend", "B")
    assert moved.genes["global_ratio"] == genome.genes["global_ratio"]
    assert with_blocks(genome, genome.blocks, 4) == genome


def test_a_layout_without_blocks_has_no_such_text() -> None:
    genome = neutral_genome("layerwise", 4)
    assert text_of_blocks(genome, 4) == ""
    with pytest.raises(LabError, match="no blocks"):
        with_blocks(genome, 2, 4)
