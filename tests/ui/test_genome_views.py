"""What the Genome tab offers: only what the pair, the layout and the operator have a use for."""

import pytest

from darwin_lab.genome.genome import GENOME_OPERATORS, neutral_genome
from darwin_lab.genome.layouts import layout_for
from darwin_lab.genome.presets import preset_genome
from darwin_lab.merging.operators import NEEDS_ANCESTOR, OPTIONS
from darwin_lab.ui.components.genome_editor import editor_value
from darwin_lab.ui.tabs.genome_views import (
    OPERATOR_WORDS,
    OPTION_NAMES,
    operator_choices,
    operator_words,
    option_words,
    why_idle,
)


def test_operators_without_an_ancestor_come_first_and_the_others_only_with_one() -> None:
    offered = operator_choices("v6", has_ancestor=True)
    assert [name for _, name in offered] == list(GENOME_OPERATORS)
    assert [NEEDS_ANCESTOR[name] for _, name in offered] == sorted(NEEDS_ANCESTOR[name] for _, name in offered)
    assert all(("ancestor" in label) == NEEDS_ANCESTOR[name] for label, name in offered)
    without = [name for _, name in operator_choices("v6", has_ancestor=False)]
    assert without == [name for name in GENOME_OPERATORS if not NEEDS_ANCESTOR[name]]


def test_the_linear_layout_offers_the_linear_operator_only() -> None:
    assert operator_choices("v7", has_ancestor=True) == [("lerp", "lerp")]


def test_every_operator_is_explained_and_every_option_has_a_box() -> None:
    assert set(OPERATOR_WORDS) == set(GENOME_OPERATORS)
    assert all(words in operator_words(name) for name, words in OPERATOR_WORDS.items() if "'" not in words)
    assert {name for options in OPTIONS.values() for name in options} == set(OPTION_NAMES)
    for options in OPTIONS.values():
        for option in options.values():
            assert option_words(option).endswith(f"{option.low:g} to {option.high:g}")


@pytest.mark.parametrize(
    ("choices", "gene", "words"),
    [
        ({"operator": "lerp"}, "density_b", "lerp drops nothing"),
        ({"operator": "dare"}, "density_a", "dare keeps the father whole"),
        ({"operator": "arcee_fusion"}, "attn_ratio", "takes no ratio"),
        ({"operator": "arcee_fusion"}, "mri_trust", "takes no ratio"),
        ({"operator": "lerp"}, "mri_trust", "scan the pair first"),
        ({"reading": "component"}, "block_0", "one gene a tensor"),
    ],
)
def test_an_idle_gene_says_why(choices: dict[str, str], gene: str, words: str) -> None:
    assert words in why_idle(gene, neutral_genome("v6", 12, **choices))


def test_idle_genes_of_other_layouts_say_why() -> None:
    assert "in a block" in why_idle("attn_ratio", neutral_genome("v5", 12))
    assert "no such tensors" in why_idle("lm_head", neutral_genome("v7", 12))


def test_blocks_show_whose_router_they_have() -> None:
    genome = preset_genome("darwin-35b-opus", 40)
    value = editor_value(genome.layout_of(40), genome.genes, stamp="", router=genome.router)
    labels = [gene["label"] for gene in value["genes"] if gene["group"] == "block"]
    assert labels == ["L0 – L37 · router B", "L38 · router B", "L39 · router A"]


def test_bands_show_their_name_and_their_layers() -> None:
    rows = editor_value(layout_for("v7", 12), {}, stamp="")["genes"]
    assert [(row["label"], row["layers"]) for row in rows[:3]] == [
        ("early L0 – L3", (0, 3)), ("middle L4 – L7", (4, 7)), ("late L8 – L11", (8, 11))
    ]  # fmt: skip
