"""The dearer controls, and the sentence of a report."""

from dataclasses import replace

import pytest

from darwin_lab.errors import LabError
from darwin_lab.evolution.evolve import evolve
from darwin_lab.evolution.report import make_report, sentence
from tests.evolution.toy import SETTINGS, Notebook, ToyScorer, ids_of, score_of, toy_problem


def test_the_lerp_sweep_is_the_best_of_nine_ratios() -> None:
    notes = Notebook()
    evolve(toy_problem(ToyScorer()), replace(SETTINGS, controls=("lerp_sweep",)), notes)
    row = notes.controls["lerp_sweep"]
    assert row["tried"] == 9 and row["label"] == "0.8"
    assert row["fitness"] == max(row["all"].values())


def test_random_search_has_the_same_budget() -> None:
    notes = Notebook()
    evolve(toy_problem(ToyScorer()), replace(SETTINGS, controls=("random",)), notes)
    assert notes.controls["random"]["tried"] == SETTINGS.budget


def test_the_placebo_searches_its_own_problem_and_leaves_no_candidates() -> None:
    plain, with_placebo = Notebook(), Notebook()
    evolve(toy_problem(ToyScorer()), SETTINGS, plain)
    problem = toy_problem(ToyScorer())
    placebo = replace(problem, start=replace(problem.start, genes=dict.fromkeys(problem.layout.names, 0.1)))
    evolve(replace(problem, placebo=placebo), replace(SETTINGS, controls=("placebo",)), with_placebo)
    assert [row["genes"] for row in with_placebo.history()] == [row["genes"] for row in plain.history()]
    assert with_placebo.controls["placebo"]["tried"] == SETTINGS.budget
    assert with_placebo.controls["placebo"]["fitness"] < max(row["fitness"] for row in plain.history())


def test_a_placebo_without_a_prescription_is_refused() -> None:
    with pytest.raises(LabError, match="prescription"):
        evolve(toy_problem(ToyScorer()), replace(SETTINGS, controls=("placebo",)), Notebook())


def test_controls_never_meet_report_items() -> None:
    scorer = ToyScorer()
    notes = Notebook()
    evolve(toy_problem(scorer), replace(SETTINGS, controls=("lerp_sweep", "random")), notes)
    reported = {recipe for recipe, split, _ in scorer.asked if split == "report"}
    fixed = {notes.controls[name]["recipe_hash"] for name in ("father", "mother", "blend")}
    assert len(reported - fixed) == 1


def test_a_child_that_is_better_than_each_parent_surpasses_both() -> None:
    ids = ids_of("report", 300)
    scores = {"child": score_of(2.0, ids), "father": score_of(0.0, ids), "mother": score_of(0.2, ids),
              "blend": score_of(0.5, ids)}  # fmt: skip
    report = make_report(scores, "c" * 12, "d" * 12)
    assert report["surpasses_both"] and report["sentence"].startswith("Surpasses both parents on 600 report items")
    assert report["tests"]["father"]["difference"] == pytest.approx(
        scores["child"].mean_acc - scores["father"].mean_acc
    )


def test_no_difference_is_said_as_such_with_n() -> None:
    ids = ids_of("report")
    scores = {"child": score_of(0.01, ids), "father": score_of(0.0, ids), "mother": score_of(-3.0, ids),
              "blend": score_of(0.0, ids)}  # fmt: skip
    report = make_report(scores, "c" * 12, "d" * 12)
    assert not report["surpasses_both"]
    assert "No difference shown to the father (n=60" in report["sentence"]
    assert "better than the mother" in report["sentence"]


def test_worse_is_said_as_worse() -> None:
    tests = {
        "father": {"difference": -0.2, "low": -0.3, "high": -0.1, "p": 0.0001},
        "mother": {"difference": 0.1, "low": 0.05, "high": 0.2, "p": 0.01},
    }
    words = sentence(tests, 100)
    first, second = words.split("; ")
    assert first == "Worse than the father by 0.200 [0.100, 0.300] (p < .001)"
    assert second == "better than the mother by 0.100 [0.050, 0.200] (p = 0.010)."
