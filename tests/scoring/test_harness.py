"""What is made of lm-eval's samples; lm-eval itself is not needed here."""

from math import isnan
from pathlib import Path
from typing import Any

import pytest

from darwin_lab.engine.resident import Resident
from darwin_lab.errors import LabError
from darwin_lab.scoring import harness
from darwin_lab.scoring.harness import run_tasks, score_of_samples
from tests.scoring.models import resident


def sample(number: int, **more: Any) -> dict[str, Any]:
    """A logged sample as lm-eval 0.4.13 writes it."""
    return {"doc_id": number, "target": 1, "filter": "none", "metrics": ["acc", "acc_norm"], **more}


def test_choices_keep_their_log_likelihoods_and_lm_evals_marks() -> None:
    found = score_of_samples(
        "arc",
        [
            sample(0, filtered_resps=[(-2.0, False), (-1.0, True)], acc=1.0, acc_norm=0.0),
            sample(4, filtered_resps=[(-1.0, False), (-3.0, False)], acc=0.0, acc_norm=1.0, target=0),
        ],
    )
    assert found.ids == ("arc-0", "arc-4")
    assert found.loglik == ((-2.0, -1.0), (-1.0, -3.0))
    assert found.predictions == (1, 0)
    assert found.acc.tolist() == [True, False], "lm-eval's own mark, not ours"
    assert found.acc_norm.tolist() == [False, True]
    assert found.p_gold == pytest.approx([1 / (1 + 2.718281828**-1), 1 / (1 + 2.718281828**-2)])
    assert found.benchmarks()["arc"].chance == 0.5


def test_written_answers_are_read_through_the_first_filter() -> None:
    logged = [
        sample(n, filter=name, metrics=["exact_match"], filtered_resps=[text], exact_match=mark, target="4")
        for name, texts in (("strict", ["4", "[invalid]"]), ("loose", ["5", "6"]))
        for n, (text, mark) in enumerate(zip(texts, [1.0, 0.0], strict=True))
    ]
    found = score_of_samples("gsm8k", logged)
    assert found.predictions == ("4", "")
    assert found.acc.tolist() == [True, False]
    assert isnan(found.p_gold[0])
    assert found.benchmarks()["gsm8k"].invalid == 1
    assert found.loglik == ((), ())


def test_a_task_that_calls_nothing_right_or_wrong_is_refused() -> None:
    logged = [sample(0, metrics=["bleu"], bleu=0.31, filtered_resps=["a"])]
    with pytest.raises(LabError, match=r"'wmt' calls no item right or wrong \(it measures bleu\)"):
        score_of_samples("wmt", logged)


def test_the_first_metric_that_marks_is_taken_where_acc_is_missing() -> None:
    logged = [
        sample(n, metrics=["loose", "strict_acc"], loose=0.4, strict_acc=bool(n), filtered_resps=["a"]) for n in (0, 1)
    ]
    assert score_of_samples("ifeval", logged).acc.tolist() == [False, True]


def test_a_missing_extra_a_streamed_model_and_a_file_that_names_no_task_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    model = resident()
    with monkeypatch.context() as patched:
        patched.setattr(harness.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(LabError, match=r"pip install --no-deps -r requirements-lm-eval\.txt"):
            run_tasks(model, ["arc_easy"])
    monkeypatch.setattr(harness, "require_harness", lambda: None)
    with monkeypatch.context() as patched:
        patched.setattr(Resident, "streamed", True)
        with pytest.raises(LabError, match="give --stream never"):
            run_tasks(model, ["arc_easy"])
    (tmp_path / "no.yaml").write_text("output_type: multiple_choice\n")
    for name, message in (("no.yaml", "names no task"), ("nothing.yaml", "cannot read")):
        with pytest.raises(LabError, match=message):
            run_tasks(model, [str(tmp_path / name)])


def test_the_extra_that_the_error_names_is_there_and_pinned() -> None:
    lines = (Path(__file__).resolve().parents[2] / harness.EXTRA).read_text().splitlines()
    assert lines[0].startswith("lm-eval==")
    assert all(line.count("==") == 1 for line in lines)
