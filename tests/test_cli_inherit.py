"""`inherit`: what an exported child has from whom, as text and as one JSON object, with and without its ancestor."""

import json
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


def test_without_the_ancestor_its_recipe_needs_the_numbers_alone_decide(
    capsys: pytest.CaptureFixture[str], tiny_moe_pair: Trio, child: Path
) -> None:
    father, mother, _ = tiny_moe_pair
    code, out, _ = run(capsys, child, "--father", father, "--mother", mother, "--json")
    assert code == 0
    routers = next(row for row in json.loads(out)["rows"] if row["what"] == "routers")
    assert (routers["verdict"], "nor between them" in routers["note"]) == ("changed", True)


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
