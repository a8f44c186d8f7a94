"""The verb `scan`: held or streamed, the same numbers; what was decided is said; bad input ends in one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.cli import main
from darwin_lab.engine import replay
from darwin_lab.mri.record import Scan

Trio = tuple[Path, Path, Path]


@pytest.fixture
def probes(tmp_path: Path) -> Path:
    path = tmp_path / "probes.jsonl"
    texts = {"SUMS": ["1+1=2", "2+3=5, 3+3=6"], "NEUTRAL": ["the cat sat on the mat", "it rained"]}
    path.write_text("\n".join(json.dumps({"probe": p, "text": t}) for p, lines in texts.items() for t in lines))
    return path


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main(["scan", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_streamed_scan_gives_the_numbers_of_one_held_in_memory(
    capsys: pytest.CaptureFixture[str], tiny_moe_pair: Trio, probes: Path, tmp_path: Path
) -> None:
    found = {}
    for way in ("never", "always"):
        words = (tiny_moe_pair[0], "--probes", probes, "--out", tmp_path / way, "--stream", way, "--json")
        code, out, err = run(capsys, *words)
        assert (code, err) == (0, "")
        found[way] = json.loads(out)
    memory = [found[way].pop("memory") for way in ("never", "always")]
    assert [one["streamed"] for one in memory] == [False, True]
    assert memory[1]["bytes_read"] == open_checkpoint(tiny_moe_pair[0]).total_bytes
    for data in found.values():
        data.pop("out")
    assert found["never"] == found["always"]
    assert np.array_equal(Scan.load(tmp_path / "never").nll["SUMS"], Scan.load(tmp_path / "always").nll["SUMS"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["always", "never", "probes.jsonl"]


def test_a_way_to_overflow_beside_never_streaming_is_refused(
    capsys: pytest.CaptureFixture[str], tiny_llama_pair: Trio, probes: Path, tmp_path: Path
) -> None:
    asked = ("--probes", probes, "--out", tmp_path / "a", "--stream", "never", "--overflow", "spill")
    code, out, err = run(capsys, tiny_llama_pair[0], *asked)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "--overflow spill does nothing beside --stream never" in err


def test_what_was_decided_and_read_is_shown(
    capsys: pytest.CaptureFixture[str], tiny_llama_pair: Trio, probes: Path, tmp_path: Path
) -> None:
    _, out, _ = run(capsys, tiny_llama_pair[0], "--probes", probes, "--out", tmp_path / "a", "--stream", "always")
    assert "streamed, one layer in memory: whole it takes" in out
    assert "1 pass reading" in out
    assert "spilled" in out
    assert out.rstrip().endswith("this model has no experts")
    _, out, _ = run(capsys, tiny_llama_pair[0], "--probes", probes, "--out", tmp_path / "b")
    assert "held in memory: whole it takes" in out


def test_halves_are_scanned_on_request_and_shown_beside_the_experts(
    capsys: pytest.CaptureFixture[str], tiny_moe_pair: Trio, probes: Path, tmp_path: Path
) -> None:
    words = (tiny_moe_pair[0], "--probes", probes)
    code, out, _ = run(capsys, *words, "--out", tmp_path / "a", "--halves", "--stream", "always")
    assert code == 0
    for title in ("when the layer is skipped", "its attention alone adds nothing", "its FFN alone adds nothing"):
        assert title in out
    assert "similarity: mean cosine of the outputs of two experts, on 16 tokens a layer" in out
    assert Scan.load(tmp_path / "a").has_halves
    code, out, _ = run(capsys, *words, "--out", tmp_path / "b", "--json")
    data = json.loads(out)
    assert (code, data["halves"]) == (0, None)
    assert np.shape(data["experts"]["saliency"]) == (4, 8)
    assert not Scan.load(tmp_path / "b").has_halves


def test_bfloat16_is_part_of_what_a_scan_is(
    capsys: pytest.CaptureFixture[str], tiny_llama_pair: Trio, probes: Path, tmp_path: Path
) -> None:
    words = (tiny_llama_pair[0], "--probes", probes, "--out", tmp_path / "a", "--dtype", "bfloat16", "--max-tokens", 9)
    assert run(capsys, *words)[0] == 0
    scan = Scan.load(tmp_path / "a")
    assert scan.settings["dtype"] == "bfloat16"
    assert scan.lengths["NEUTRAL"].tolist() == [9, 9]


def test_an_interrupted_scan_is_taken_up_and_leaves_nothing_behind(
    capsys: pytest.CaptureFixture[str],
    tiny_llama_pair: Trio,
    probes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = (tiny_llama_pair[0], "--probes", probes, "--out", tmp_path / "scan", "--stream", "always")
    layers: list[int] = []
    whole = replay.Replay.run

    def interrupted(self: Any, layer: torch.nn.Module, index: int, *rest: Any) -> Any:
        layers.append(index)
        if index == 2 and layers[0] == 0:
            raise KeyboardInterrupt
        return whole(self, layer, index, *rest)

    monkeypatch.setattr("darwin_lab.mri.keeper.EVERY", 0.0)
    monkeypatch.setattr("darwin_lab.mri.keeper.SHARE", 0.0)
    monkeypatch.setattr(replay.Replay, "run", interrupted)
    assert run(capsys, *words)[0] == 130
    assert not (tmp_path / "scan").exists()
    layers.clear()
    assert len(list(tmp_path.glob(".scan.partial-*"))) == 1
    assert run(capsys, *words)[0] == 0
    assert min(layers) == 2
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("line", "wrong", "message"),
    [
        ('{"probe": "SUMS", "text": "7"}', (), "is 1 token long"),
        ('{"probe": "SUMS", "text": ""}', (), '"text" is missing or empty'),
        ("", (), "holds no probe"),
        ('{"probe": "SUMS", "text": "' + "1" * 600 + '"}', ("--max-tokens", 999), "the model reads at most 512"),
        ('{"probe": "SUMS", "text": "1+1=2"}', ("--max-tokens", 1), "leaves nothing to predict"),
        ('{"probe": "SUMS", "text": "1+1=2"}', ("--max-tokens", 0), "--max-tokens 0 leaves nothing to predict"),
        ('{"probe": "SUMS", "text": "1+1=2"}', ("--device", "cuda:7"), "cuda:7"),
    ],
    ids=["one token", "empty text", "no probe", "too long", "cut to one", "cut to none", "no device"],
)
def test_bad_input_ends_in_one_line_with_its_remedy(
    capsys: pytest.CaptureFixture[str],
    tiny_llama_pair: Trio,
    tmp_path: Path,
    line: str,
    wrong: tuple[object, ...],
    message: str,
) -> None:
    path = tmp_path / "probes.jsonl"
    path.write_text(line)
    code, out, err = run(capsys, tiny_llama_pair[0], "--probes", path, "--out", tmp_path / "a", *wrong)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "a").exists()
