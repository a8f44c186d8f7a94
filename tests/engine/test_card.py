"""The model card: what the recipe, the files and the measurements say, the same for equal children."""

import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.card import CardNotes, blocks
from darwin_lab.engine.card_charts import CardScore
from darwin_lab.engine.child import Child
from darwin_lab.engine.export import export_child
from darwin_lab.engine.licences import licence_of, stricter
from darwin_lab.genome.genome import neutral_genome
from darwin_lab.merging.recipe import make_recipe
from tests.engine.test_child import Trio, child_of

PNG = b"\x89PNG\r\n"
SCORES = tuple(
    CardScore(model, "SUMS", 40, acc, (acc - 0.1, acc + 0.1))
    for model, acc in (("child", 0.625), ("father", 0.5), ("mother", 0.55))
)


def card_of(out: Path) -> str:
    return (out / "README.md").read_text()


def without_time(card: str) -> str:
    return re.sub(r"Written in [^,]*,", "", card)


def test_the_card_has_every_section_and_its_pictures_are_there(tiny_moe_pair: Trio, tmp_path: Path) -> None:
    out = export_child(
        child_of(tiny_moe_pair, 0.4, "dare_ties", 0.6), tmp_path / "child",
        notes=CardNotes("It was scored.", "| vision | father's |", SCORES),
    )  # fmt: skip
    card = card_of(out)
    assert re.findall(r"\n## (.*)\n", card) == [
        "Parents", "Specifications", "Recipe", "Scores", "What was inherited", "Merge", "Hardware", "Use",
        "Limitations", "Licence", "Citation",
    ]  # fmt: skip
    for words in (
        "ancestor", "It was scored.", "| vision | father's |", "| SUMS | child | 40 | 0.625 | 0.525 to 0.725 |",
        "vllm serve", "sglang", "Q4_K_M", "Operators: dare_ties", "| 0 to 3 | 0.4000 | 0.4000 | 0.4000 | dare_ties |",
    ):  # fmt: skip
        assert words in card, words
    pictures = re.findall(r"!\[[^]]+\]\((assets/[^)]+)\)", card)
    assert len(pictures) == 3
    assert all((out / picture).read_bytes().startswith(PNG) for picture in pictures)


def test_equal_children_have_equal_cards_and_pictures(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    one, two = (
        export_child(child_of(tiny_llama_pair), tmp_path / place / "child", notes=CardNotes(scores=SCORES))
        for place in ("one", "two")
    )
    assert without_time(card_of(one)) == without_time(card_of(two))
    for picture in (one / "assets").iterdir():
        assert picture.read_bytes() == (two / "assets" / picture.name).read_bytes()


def test_the_front_matter_is_yaml_and_names_only_what_the_hub_knows(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    child = child_of(tiny_llama_pair, 0.4, "dare", 0.6)
    front = yaml.safe_load(card_of(export_child(child, tmp_path / "local")).split("---\n")[1])
    assert "base_model" not in front
    assert front["tags"] == ["merge", "darwin-lab", "dare"]
    child.father.name, child.mother.name = "org/father", "org/mother"
    front = yaml.safe_load(card_of(export_child(child, tmp_path / "hub")).split("---\n")[1])
    assert front["base_model"] == ["org/father", "org/mother"]
    assert front["base_model_relation"] == "merge"
    assert front["license"] == "other"


def test_an_unscored_child_says_so_and_draws_no_scores(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    out = export_child(child_of(tiny_llama_pair), tmp_path / "child")
    assert "This child has not been scored." in card_of(out)
    assert not (out / "assets" / "scores.png").exists()


def test_a_copy_of_one_parent_has_a_card_too(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    card = card_of(export_child(child_of(tiny_llama_pair, 1.0), tmp_path / "child"))
    assert "0 tensors merged, 38 copied. Operators: copy" in card
    assert "copied from the mother because the ratio says so, 38" in card


def test_a_child_of_a_child_names_its_grandparents(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    first = export_child(child_of(tiny_llama_pair), tmp_path / "first")
    second = export_child(child_of((first, *tiny_llama_pair[1:])), tmp_path / "second")
    assert "Lineage: father first is itself a child of father and mother." in card_of(second)


def test_masks_and_the_ancestor_are_named_only_where_an_operator_reads_them(
    tiny_llama_pair: Trio, tmp_path: Path
) -> None:
    for operator, density, seed, base in (
        ("lerp", 1.0, False, False), ("lerp", 0.5, False, False), ("ties", 0.5, False, True),
        ("dare_ties", 1.0, False, True), ("dare_ties", 0.5, True, True), ("dare", 0.5, True, False),
    ):  # fmt: skip
        card = card_of(
            export_child(child_of(tiny_llama_pair, 0.4, operator, density), tmp_path / f"{operator}{density}")
        )
        assert ("Mask seed 0, rescale inverse." in card) == seed
        assert ("the base both are seen from" in card) == base
        assert ("no operator of this recipe reads it" in card) != base


def test_a_bar_in_a_name_does_not_break_a_table(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    child = child_of(tiny_llama_pair)
    child.father.name = "a|b"
    scores = (CardScore("a|b", "c|d", 4, 0.5, (0.4, 0.6)),)
    card = card_of(export_child(child, tmp_path / "child", notes=CardNotes(scores=scores)))
    assert "| father | a\\|b | ratio 0;" in card
    assert "| c\\|d | a\\|b | 4 |" in card


def test_what_the_mother_has_more_of_is_one_line_a_role(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    mother = Path(shutil.copytree(tiny_llama_pair[1], tmp_path / "mother"))
    tensors = load_file(mother / "model.safetensors")
    tensors |= {f"mtp.layers.0.part_{letter}.weight": torch.zeros(2, 2).bfloat16() for letter in "abc"}
    tensors["visual.patch_embed.weight"] = torch.zeros(2, 2).bfloat16()
    save_file(tensors, mother / "model.safetensors")
    trio = (tiny_llama_pair[0], mother, tiny_llama_pair[2])
    card = card_of(export_child(child_of(trio), tmp_path / "child"))
    assert sorted(line for line in card.splitlines() if "left out:" in line) == [
        "- left out: 1 tensor of the mother's vision tower: the father has no such tensor",
        "- left out: 3 tensors of the mother's multi-token-prediction head: the father has no such tensor",
    ]


def test_neighbouring_layers_that_are_alike_are_one_block(tiny_llama_pair: Trio) -> None:
    child = child_of(tiny_llama_pair)
    assert [(block.first, block.last, block.ratios) for block in blocks(child.recipe)] == [(0, 3, (0.4, 0.4, None))]


def test_a_recipe_with_more_blocks_than_a_table_bears_is_joined(tiny_llama_pair: Trio, monkeypatch) -> None:
    from darwin_lab.checkpoint.anatomy import read_anatomy
    from darwin_lab.engine import card

    monkeypatch.setattr(card, "_MOST_BLOCKS", 2)
    father, mother, _ = map(open_checkpoint, tiny_llama_pair)
    anatomy = read_anatomy(father)
    genome = neutral_genome("layerwise", 4).with_genes(layer_0=0.1, layer_1=0.3, layer_2=0.6, layer_3=0.9)
    found = blocks(Child(father, mother, make_recipe(genome, anatomy)).recipe)
    assert [(block.first, block.last) for block in found] == [(0, 1), (2, 3)]
    assert [block.ratios[0] for block in found] == pytest.approx([0.2, 0.75])


def licensed(folder: Path, name: str, text: str | None) -> Path:
    folder = Path(shutil.copytree(folder, folder.parent / f"{folder.name}-{name}", dirs_exist_ok=True))
    (folder / "README.md").unlink(missing_ok=True)
    if text is not None:
        (folder / "README.md").write_text(f"---\nlicense: {text}\n---\nA model.\nlicense: mit\n")
    return folder


@pytest.mark.parametrize(
    ("father", "mother", "expected", "words"),
    [
        ("apache-2.0", "apache-2.0", "apache-2.0", "as all parents"),
        ("apache-2.0", "mit", "apache-2.0", "strictest"),
        ("mit", "cc-by-nc-4.0", "cc-by-nc-4.0", "strictest"),
        ("gpl-3.0", "apache-2.0", "gpl-3.0", "strictest"),
        ("mit", "cc-by-nd-4.0", "cc-by-nd-4.0", "does not allow derivatives"),
        ("'mit'", "mit", "mit", "as all parents"),
        ("gemma", "gemma", "gemma", "as all parents"),
        ("gemma", "mit", "other", "father: gemma, mother: mit"),
        ("mit", None, "other", "mother: none named"),
        ("mit", "other", "other", "mother: none named"),
    ],
)
def test_the_stricter_licence_is_the_childs_and_an_unknown_one_is_said(
    tiny_llama_pair: Trio, tmp_path: Path, father: str, mother: str | None, expected: str, words: str
) -> None:
    base = Path(shutil.copytree(tiny_llama_pair[0], tmp_path / "model"))
    parents = {
        role: open_checkpoint(licensed(base, role, text)) for role, text in (("father", father), ("mother", mother))
    }
    found = stricter(parents)
    assert found.name == expected
    assert words in found.words


def test_a_licence_in_the_config_counts_where_the_card_names_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"license": "MIT"}')
    assert licence_of(tmp_path) == "mit"
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    assert licence_of(tmp_path) == "apache-2.0"
