"""`evolve` and `score` that end early or are contradicted: the record stays true and nothing is left half done."""

import json
from pathlib import Path

import pytest

from darwin_lab.cli import main

Pair = tuple[Path, Path]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has a store of its own."""
    monkeypatch.setenv("DARWIN_LAB_HOME", str(tmp_path / "home"))


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def items(tmp_path: Path) -> Path:
    rows = [
        {
            "id": f"s{n}",
            "task": "SUM",
            "question": f"{n}+1=?",
            "choices": [str(n + k) for k in range(4)],
            "answer": n % 4,
        }
        for n in range(30)
    ]
    path = tmp_path / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def command(tiny_llama_pair, items: Path, tmp_path: Path) -> list[object]:
    """A small evolution into tmp_path/run."""
    return [
        "evolve", *tiny_llama_pair[:2], "--items", items, "--budget", 3, "--layout", "v4", "--seed", 1,
        "--out", tmp_path / "run",
    ]  # fmt: skip


def record(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def interrupt_after(monkeypatch: pytest.MonkeyPatch, waits: int) -> None:
    """Control-C while the shell waits for the job, after so many looks at it."""
    from darwin_lab.lab.lab import Lab

    wait, left = Lab.wait, [waits]

    def interrupted(lab: Lab, job_id: str, tick) -> object:
        def watched(fraction: float, words: str) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            tick(fraction, words)

        return wait(lab, job_id, watched)

    monkeypatch.setattr(Lab, "wait", interrupted)


def test_control_c_leaves_a_run_that_says_it_was_stopped_and_resumes(
    capsys, command: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        interrupt_after(patched, 2)
        code, out, err = run(capsys, *command)
    assert (code, out, err) == (130, "", "cancelled\n")
    left = record(tmp_path / "run")
    assert left["state"] in ("running", "stopping", "stopped", "interrupted", "cancelled")
    assert left["result"] is None
    assert not (tmp_path / "run" / "child").exists()
    code, out, err = run(capsys, *command, "--resume", "--json")
    assert code == 0, err
    assert record(tmp_path / "run")["state"] == "finished"
    assert len(record(tmp_path / "run")["candidates"]) == json.loads(out)["evaluated"] == 3
    assert (tmp_path / "run" / "child" / "model.safetensors").is_file()


def test_a_flag_that_contradicts_the_run_to_be_resumed_is_refused_and_changes_nothing(
    capsys, command: list[object], tiny_llama_pair, items: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        interrupt_after(patched, 0)
        assert run(capsys, *command)[0] == 130
    father, mother, ancestor = tiny_llama_pair
    before = (tmp_path / "run" / "run.json").read_bytes()
    resume = ["evolve", father, mother, "--out", tmp_path / "run", "--resume"]
    for words, arguments in {
        "--budget 9 contradicts the run": [*resume, "--budget", 9],
        "--layout v6 contradicts the run": [*resume, "--layout", "v6"],
        "--operator slerp contradicts the run": [*resume, "--operator", "slerp"],
        "--seed 2 contradicts the run": [*resume, "--seed", 2],
        "--vocab by-token contradicts the run": [*resume, "--vocab", "by-token"],
        "MOTHER": ["evolve", father, ancestor, *resume[3:]],
    }.items():
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (2, ""), arguments
        assert words in err
        assert err.count("\n") == 1
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_samples_into_a_folder_that_is_not_there_are_refused_before_any_scoring(
    capsys, tiny_llama_pair, items: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scored(*args: object, **kwargs: object) -> None:
        raise AssertionError("scored all the same")

    monkeypatch.setattr("darwin_lab.verbs.score.score_items", scored)
    for target in (tmp_path / "none" / "samples.jsonl", tmp_path):
        code, out, err = run(capsys, "score", tiny_llama_pair[0], "--items", items, "--samples", target)
        assert (code, out) == (2, "")
        assert "cannot be a file there" in err
        assert err.count("\n") == 1
    assert not (tmp_path / "none").exists()
