"""`inherit`: what an exported child has from whom, as text and as one JSON object, with and without its ancestor."""

import json
import shutil
from pathlib import Path

import pytest

from darwin_lab.cli import main

Trio = tuple[Path, Path, Path]


@pytest.fixture(scope="module")
def child(tiny_moe_pair: Trio, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export whose merges need the ancestor."""
    father, mother, ancestor = tiny_moe_pair
    out = tmp_path_factory.mktemp("inherit") / "child"
    options = ["--ancestor", ancestor, "--ratio", 0.5, "--operator", "dare_ties", "--density", 0.3]
    assert main([str(word) for word in ["merge", father, mother, "--out", out, *options]]) == 0
    return out


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["inherit", *(str(argument) for argument in arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_an_export_is_told_row_by_row(capsys: pytest.CaptureFixture[str], tiny_moe_pair: Trio, child: Path) -> None:
    father, mother, ancestor = tiny_moe_pair
    code, out, err = run(capsys, child, "--father", father, "--mother", mother, "--ancestor", ancestor, "--json")
    assert (code, err) == (0, "")
    found = {row["what"]: row for row in json.loads(out)["rows"]}
    assert found["routers"]["verdict"] == "merged"
    assert found["tokenizer"]["verdict"] == "father's, byte for byte"
    code, out, _ = run(capsys, child, "--father", father, "--mother", mother, "--ancestor", ancestor)
    assert code == 0
    assert all(what in out for what in found)


def test_the_ancestor_is_taken_from_the_recipe_of_the_child(
    capsys: pytest.CaptureFixture[str], tiny_moe_pair: Trio, child: Path
) -> None:
    father, mother, ancestor = tiny_moe_pair
    given = run(capsys, child, "--father", father, "--mother", mother, "--ancestor", ancestor, "--json")
    found = run(capsys, child, "--father", father, "--mother", mother, "--json")
    assert (given[0], found[0]) == (0, 0)
    assert json.loads(found[1])["rows"] == json.loads(given[1])["rows"]
    assert json.loads(given[1])["notes"] == []
    assert str(ancestor) in json.loads(found[1])["notes"][0]


def test_another_ancestor_than_the_recipes_is_taken_and_named(
    capsys: pytest.CaptureFixture[str], tiny_moe_pair: Trio, child: Path
) -> None:
    father, mother, _ = tiny_moe_pair
    code, out, _ = run(capsys, child, "--father", father, "--mother", mother, "--ancestor", mother, "--json")
    assert code == 0
    assert "recipe.json names another ancestor" in json.loads(out)["notes"][0]


def test_without_the_ancestor_its_recipe_needs_the_numbers_alone_decide_and_a_note_says_so(
    capsys: pytest.CaptureFixture[str], tiny_moe_pair: Trio, child: Path, tmp_path: Path
) -> None:
    father, mother, _ = tiny_moe_pair
    moved = Path(shutil.copytree(child, tmp_path / "moved"))
    recipe = json.loads((moved / "recipe.json").read_text())
    for ref in (str(tmp_path / "gone"), str(mother), "nobody-at-all/nothing"):
        recipe["parents"]["ancestor"]["ref"] = ref
        (moved / "recipe.json").write_text(json.dumps(recipe))
        code, out, _ = run(capsys, moved, "--father", father, "--mother", mother, "--json")
        assert code == 0
        data = json.loads(out)
        assert 'give --ancestor M to tell "merged" from "changed"' in data["notes"][0]
        routers = next(row for row in data["rows"] if row["what"] == "routers")
        assert (routers["verdict"], "nor between them" in routers["note"]) == ("changed", True)
    assert data["notes"][0] in run(capsys, moved, "--father", father, "--mother", mother)[1]


def test_parents_or_a_child_of_another_architecture_are_refused(
    capsys: pytest.CaptureFixture[str], tiny_moe_pair: Trio, tiny_llama_pair: Trio, child: Path
) -> None:
    for father, mother in (
        (tiny_moe_pair[0], tiny_llama_pair[1]),
        (tiny_llama_pair[0], tiny_moe_pair[1]),
        tiny_llama_pair[:2],
    ):
        code, out, err = run(capsys, child, "--father", father, "--mother", mother)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "in architecture" in err


def test_languages_come_with_the_reason_where_there_is_no_loss(
    capsys: pytest.CaptureFixture[str], tiny_moe_pair: Trio, child: Path
) -> None:
    father, mother, _ = tiny_moe_pair
    code, out, err = run(capsys, child, "--father", father, "--mother", mother, "--languages", "--json")
    assert (code, err) == (0, "")
    rows = json.loads(out)["languages"]["rows"]
    assert len(rows) >= 10
    assert all(row["child"] is None and row["unknown"] > 0.5 for row in rows if row["language"] in ("ko", "zh", "ar"))


def test_a_folder_that_is_no_model_is_bad_input(
    capsys: pytest.CaptureFixture[str], tiny_moe_pair: Trio, tmp_path: Path
) -> None:
    code, out, err = run(capsys, tmp_path, "--father", tiny_moe_pair[0], "--mother", tiny_moe_pair[1])
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
