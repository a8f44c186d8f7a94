"""`score` and `claim` from the shell: few shots, protocols, what is printed before and after, and what is refused."""

import json
from pathlib import Path

import pytest

from darwin_lab.cli import main
from darwin_lab.lab.pairs import FAMILY_ITEMS

SHOTS = FAMILY_ITEMS / "validation.jsonl"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def score(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    code, out, err = run(capsys, "score", "family:father", "--limit", 2, *arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_a_score_says_what_difference_it_can_show_and_what_is_above_chance(capsys) -> None:
    code, out, _ = run(capsys, "score", "family:father", "--limit", 2)
    assert code == 0
    assert out.splitlines()[0].startswith("10 items; the smallest difference they show four times in five")
    row = score(capsys)["benchmarks"]["CODE"]
    assert row["corrected"] == pytest.approx((row["acc"] - 0.25) / 0.75)
    assert row["smallest_gap"] > 0.5
    assert row["invalid"] == 0


def test_shots_change_the_prompt_and_are_named(capsys, tmp_path: Path) -> None:
    plain, few = tmp_path / "plain.jsonl", tmp_path / "few.jsonl"
    score(capsys, "--samples", plain)
    data = score(capsys, "--shots", 3, "--shots-from", SHOTS, "--samples", few)
    # reasoning-selection-001 is reasoning-validation-003 but for one word
    assert data["shots"] == {"count": 3, "seed": 1234, "same": False, "from": str(SHOTS), "leaks": 1}
    one, other = (json.loads(path.read_text().splitlines()[0]) for path in (plain, few))
    assert one["id"] == other["id"]
    assert one["loglik"] != other["loglik"]


def test_bfloat16_scores_are_near_those_of_float32(capsys, tmp_path: Path) -> None:
    rows = {}
    for dtype in ("float32", "bfloat16"):
        score(capsys, "--dtype", dtype, "--samples", tmp_path / dtype)
        rows[dtype] = [json.loads(line) for line in (tmp_path / dtype).read_text().splitlines()]
    for one, other in zip(*rows.values(), strict=True):
        assert one["loglik"] == pytest.approx(other["loglik"], rel=0.1, abs=0.5)
    assert rows["float32"] != rows["bfloat16"]


def test_an_adaptive_score_shows_its_calls_its_stages_and_majority_at_the_same_budget(capsys) -> None:
    how = ("--protocol", "adaptive", "--gate", "oracle", "--extract", "line", "--max-new-tokens", 2)
    data = score(capsys, *how)["protocol"]
    assert data["label"] == "oracle-gated upper bound"
    assert len(data["stages"]) == 3
    assert data["beside"][0]["calls_per_item"] == pytest.approx(data["calls_per_item"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--shots", 2), "--shots needs solved items"),
        (("--shots-from", SHOTS), "--shots-from without --shots"),
        (("--extract", "letter"), "give --protocol"),
        (("--letters", "--protocol", "greedy"), "give one of the two"),
        (("--shots", 500, "--shots-from", SHOTS), "to draw 500 shots from"),
        (("--protocol", "majority", "--k", 0), "ask for 1 or more"),
        (("--protocol", "greedy", "--chat"), "no chat template"),
        (("--max-new-tokens", 0), "--max-new-tokens is 0"),
    ],
)
def test_what_makes_no_sense_ends_in_one_line(capsys, arguments: tuple[object, ...], message: str) -> None:
    code, out, err = run(capsys, "score", "family:father", "--limit", 2, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_claim_that_cannot_be_is_told_from_one_that_can(capsys) -> None:
    code, out, _ = run(capsys, "claim", "90.0", 198)
    assert code == 0
    assert "not possible: of 198, 178 is 89.9 % and 179 is 90.4 %" in out
    data = json.loads(run(capsys, "claim", "88.9", 198, "--json")[1])
    assert data["possible"]
    assert data["counts"] == [176, 176]
    code, _, err = run(capsys, "claim", "ninety", 198)
    assert code == 2
    assert "'ninety' is not a score in percent" in err
