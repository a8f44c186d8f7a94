"""Looks and the seal hang on items, not on names; and no added file takes the place of anything else."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from darwin_lab.cli import main
from darwin_lab.errors import LabError
from darwin_lab.lab import benching_export, benching_files
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from tests.scoring.fake_hub import install

Trio = tuple[Path, Path, Path]


def write(path: Path, first: int = 0, n: int = 10) -> Path:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as out:
        rows = [[f"{k}+1", str(k + 1), str(k), "A"] for k in range(first, first + n)]
        csv.writer(out).writerows([["question", "A", "B", "answer"], *rows])
    return path


def report(lab: Lab, pair: Pair, model: str, benchmark: str) -> None:
    for job in lab.benchmarks.request(pair, [model], [benchmark], split="report"):
        lab.wait(job)


def test_the_same_file_under_other_names_has_the_looks_it_had(lab: Lab, pair: Pair, tmp_path: Path) -> None:
    desk = lab.benchmarks
    desk.add_file(write(tmp_path / "sums.csv"))
    report(lab, pair, "father", "sums")
    desk.add_file(tmp_path / "sums.csv", name="other")
    desk.add_file(write(tmp_path / "renamed.csv"))
    assert [desk.looks(pair, name) for name in ("sums", "other", "renamed")] == [1, 1, 1]
    sums, renamed = (desk.items(pair, name, "report") for name in ("sums", "renamed"))
    assert [item.question for item in sums] == [item.question for item in renamed]
    assert {item.category for item in renamed} == {"renamed"}
    report(lab, pair, "father", "renamed")
    desk.forget_file("sums")
    assert desk.looks(pair, "other") == 2


def test_another_file_under_the_same_name_is_sealed_again(lab: Lab, pair: Pair, tmp_path: Path) -> None:
    desk = lab.benchmarks
    desk.add_file(write(tmp_path / "sums.csv"))
    report(lab, pair, "father", "sums")
    desk.forget_file("sums")
    desk.add_file(write(tmp_path / "sums.csv", first=20))
    assert desk.looks(pair, "sums") == 0
    with pytest.raises(LabError, match="sealed until"):
        desk.items(pair, "sums", "report")


def test_looks_are_the_same_beside_the_parents_swapped_and_in_a_later_lab(
    new_lab: Callable[..., Lab], lab: Lab, pair: Pair, tiny_llama_pair: Trio, measures: dict[str, Any]
) -> None:
    father, mother, *ancestor = tiny_llama_pair
    report(lab, pair, "father", "ADD")
    lab.wait(lab.request_report(pair, "blend"))
    assert [lab.benchmarks.looks(pair, task) for task in ("ADD", "TAKE")] == [2, 1]
    lab.close()
    later = new_lab(lab.store.home)
    swapped = later.open_pair(mother, father, *ancestor, **measures)
    assert swapped.key != pair.key
    assert [later.benchmarks.looks(swapped, task) for task in ("ADD", "TAKE")] == [2, 1]


def test_the_shell_and_the_page_count_the_same_looks(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("DARWIN_LAB_HOME", str(lab.store.home))
    install(monkeypatch, tmp_path / "fake")
    pair, desk = lab.family_pair(), lab.benchmarks
    assert desk.looks(pair, "gpqa_diamond") == 0
    jobs = desk.request(pair, ["father", "mother"], ["gpqa_diamond"], split="report", limit=1)
    for job in jobs:
        lab.wait(job)
    assert desk.looks(pair, "gpqa_diamond") == 1
    command = ["score", "family:father", "--benchmark", "gpqa_diamond", "--limit", "1", "--split", "report", "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["sources"]["gpqa_diamond"]["looks"] == 2
    assert desk.looks(pair, "gpqa_diamond") == 2


def test_a_name_that_something_else_has_is_refused_and_the_very_same_file_is_not(
    lab: Lab, pair: Pair, tmp_path: Path
) -> None:
    desk, path = lab.benchmarks, write(tmp_path / "sums.csv")
    first = desk.add_file(path)
    assert desk.add_file(path) == desk.add_file(write(tmp_path / "more" / "x.csv"), name="sums") == first
    fields = {"question": "question", "choices": ["A", "B"], "answer": "answer"}
    for other, told in ((write(tmp_path / "y.csv", first=3), None), (path, fields)):
        with pytest.raises(LabError, match="another file was added as sums; give this one another name, or remove"):
            desk.add_file(other, told, "sums")
    assert len(list((lab.store.home / "benchmarks").iterdir())) == 1
    with pytest.raises(LabError, match="ADD is a task of the parents' own items"):
        desk.add_file(path, name="ADD", pair=pair)
    desk.catalogue(pair)
    with pytest.raises(LabError, match="TAKE is a task of the parents' own items"):
        desk.add_file(path, name="TAKE")


def test_a_csv_names_its_models_and_looks_and_holds_no_formula(lab: Lab, pair: Pair) -> None:
    report(lab, pair, "father", "ADD")
    row = next(csv.DictReader(io.StringIO(lab.benchmarks.export(pair, "report", "csv"))))
    assert row["label"] == f"Father: {pair.father.name}" and row["looks"] == "1"
    cells = {"-1+1": "'-1+1", "=A1": "'=A1", "plain": "plain", -1: "-1", -0.5: "-0.5", None: ""}
    assert {value: benching_export._cell(value) for value in cells} == cells


def test_a_file_added_before_a_pair_with_a_task_of_its_name_stands_beside_the_task(
    lab: Lab, pair: Pair, tmp_path: Path
) -> None:
    desk = lab.benchmarks
    assert desk.add_file(write(tmp_path / "sums.csv"), name="ADD").name == "ADD", "no pair was shown yet"
    infos = {info.name: info for info in desk.catalogue(pair)}
    assert (infos["ADD"].source, infos["ADD (file)"].source) == ("pair", "file")
    assert "from sums.csv, added as ADD, which is a task of the parents' own items" in infos["ADD (file)"].note
    for name in ("ADD", "ADD (file)"):
        for job in desk.request(pair, ["father"], [name]):
            lab.wait(job)
    done = {row.benchmark: (row.done, row.state) for row in desk.table(pair) if row.model == "father"}
    assert done["ADD"] == (infos["ADD"].splits["selection"], "done")
    assert done["ADD (file)"] == (infos["ADD (file)"].splits["selection"], "done")
    task, file = ({item.id for item in desk.items(pair, name)} for name in ("ADD", "ADD (file)"))
    assert task and file and not task & file
    desk.forget_file("ADD (file)")
    left = {info.name: info.source for info in desk.catalogue(pair)}
    assert left["ADD"] == "pair" and "ADD (file)" not in left


def test_a_task_that_has_even_the_other_name_hides_no_file(lab: Lab, tmp_path: Path) -> None:
    benching_files.add(lab.benchmarks._bench, write(tmp_path / "sums.csv"), None, "ADD")
    (info,) = benching_files.infos(lab.benchmarks._bench, {"ADD", "ADD (file)"})
    assert info.name == "ADD (file 2)"
    assert benching_files.find(lab.benchmarks._bench, info.name) is not None
