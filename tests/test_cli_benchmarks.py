"""`benchmarks`, and `score` on benchmarks of the Hub and on tables people have."""

import csv
import json
from pathlib import Path

import pytest

from darwin_lab.cli import main
from tests.scoring.fake_hub import FakeHub, install


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("DARWIN_LAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeHub:
    return install(monkeypatch, tmp_path / "fake")


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    path = tmp_path / "sums.csv"
    with path.open("w", newline="") as out:
        csv.writer(out).writerows(
            [["Frage", "A", "B", "Loesung"], *([f"{k}+{k}", str(2 * k), "99", "A"] for k in range(12))]
        )
    return path


def test_the_catalogue_is_listed_without_the_hub(capsys, fake: FakeHub) -> None:
    fake.error = lambda repo: AssertionError("the Hub was asked")
    code, out, _ = run(capsys, "benchmarks")
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert code == 0 and "2376" in lines["arc_easy"] and "(gated)" in lines["gpqa_diamond"]
    code, out, _ = run(capsys, "benchmarks", "gpqa_diamond")
    assert code == 0 and "hf auth login" in out and "huggingface.co/datasets/Idavidrein/gpqa" in out
    code, _, err = run(capsys, "benchmarks", "gpqa")
    assert code == 2 and err.startswith("error: no benchmark 'gpqa'; choose one of arc_easy")


def test_a_benchmark_is_scored_with_its_source_named_and_report_looks_counted(
    capsys, fake: FakeHub, family: Path
) -> None:
    arguments = ["score", "family:father", "--benchmark", "gpqa_diamond", "--limit", 1]
    code, out, err = run(capsys, *arguments)
    assert (code, err) == (0, "") and "Idavidrein/gpqa at 0123456789ab, selection items, CC BY 4.0" in out
    for look in (1, 2):
        code, out, _ = run(capsys, *arguments, "--split", "report", "--json")
        data = json.loads(out)
        assert data["sources"]["gpqa_diamond"]["looks"] == look
    assert data["benchmarks"]["gpqa_diamond"]["n"] == 1
    assert "(gated, on this machine)" in run(capsys, "benchmarks")[1]


def test_a_hub_that_is_away_is_one_line(capsys, fake: FakeHub) -> None:
    from huggingface_hub.errors import OfflineModeIsEnabled

    fake.error = lambda repo: OfflineModeIsEnabled("offline")
    code, out, err = run(capsys, "score", "family:father", "--benchmark", "arc_easy")
    assert (code, out) == (2, "") and err.count("\n") == 1 and "connect once and ask again" in err
    code, out, err = run(capsys, "score", "family:father", "--benchmark", "gpqa_diamond")
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "it is gated: accept its conditions at https://" in err and "`hf auth login`" in err


def test_a_table_is_scored_through_the_map_that_is_given_and_says_how_it_was_read(capsys, sums: Path) -> None:
    code, _, err = run(capsys, "score", "family:father", "--items", sums)
    assert code == 2 and "no column looks like the question; it has Frage, A, B, Loesung" in err
    fields = ["--fields", "question=Frage", "choices=A,B", "answer=Loesung"]
    code, out, err = run(capsys, "score", "family:father", "--items", sums, *fields)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "sums.csv: question=Frage, choices=A,B, answer=Loesung; answers read as letter"
    code, out, _ = run(capsys, "score", "family:father", "--items", sums, *fields, "--json")
    assert json.loads(out)["benchmarks"]["sums"]["n"] == 12


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        (["choices=A,B", "answer=A"],
         "the right answer is always column A, which is also among the choices; is the key another column (Loesung)?"),
        (["answer=Loesung"], "columns A, B look like choices and are not shown; if they are, map them as choices"),
    ],
)  # fmt: skip
def test_a_map_that_looks_wrong_is_scored_with_a_note(capsys, sums: Path, fields: list[str], note: str) -> None:
    asked = ["score", "family:father", "--items", sums, "--limit", 1, "--fields", "question=Frage", *fields]
    code, out, err = run(capsys, *asked)
    assert (code, err) == (0, "") and out.splitlines()[1] == f"sums.csv: {note}"
    assert json.loads(run(capsys, *asked, "--json")[1])["fields"][str(sums)]["notes"] == [note]


def test_shots_are_drawn_from_any_table_the_items_are_read_from(capsys, sums: Path, tmp_path: Path) -> None:
    shots = tmp_path / "more" / "sums.csv"
    shots.parent.mkdir()
    rows = [["Frage", "A", "B", "Loesung"], ["0+0", "0", "99", "A"], *([f"{k}-{k}", "0", "9", "A"] for k in range(5))]
    shots.write_text("\n".join(",".join(row) for row in rows))
    fields = ["--fields", "question=Frage", "choices=A,B", "answer=Loesung"]
    asked = ["score", "family:father", "--items", sums, "--shots", 2, "--shots-from", shots, "--json"]
    code, out, err = run(capsys, *asked, *fields)
    assert (code, err) == (0, "") and json.loads(out)["shots"]["from"] == str(shots)
    code, _, err = run(capsys, "score", "family:father", "--shots", 2, "--shots-from", shots)
    assert code == 2 and "no column looks like the question" in err and err.count("\n") == 1


def test_answers_that_may_count_from_0_or_1_are_said_so(capsys, tmp_path: Path) -> None:
    path = tmp_path / "doubt.csv"
    path.write_text("question,A,B,answer\n1+1,2,3,1\n2+2,3,4,1\n")
    _, out, _ = run(capsys, "score", "family:father", "--items", path)
    assert "doubt.csv: answers (column answer) fit counting from 0 and from 1" in out


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--benchmark", "arc_easy", "--items", "x.csv"], "brings its own items"),
        (["--fields", "question=a"], "give a file"),
        (["--split", "report"], "--split is a part of a --benchmark"),
        (["--benchmark", "arc"], "no benchmark 'arc'"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(capsys, extra: list[str], words: str) -> None:
    code, _, err = run(capsys, "score", "family:father", *extra)
    assert code == 2 and words in err


def test_files_that_share_an_id_are_refused(capsys, sums: Path, tmp_path: Path) -> None:
    other = tmp_path / "more" / "sums.csv"
    other.parent.mkdir()
    other.write_bytes(sums.read_bytes())
    fields = ["--fields", "question=Frage", "choices=A,B", "answer=Loesung"]
    code, _, err = run(capsys, "score", "family:father", "--items", sums, other, *fields)
    assert code == 2 and "id 'sums-1' was already used in" in err
