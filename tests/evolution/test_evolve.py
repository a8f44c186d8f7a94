"""A whole evolution on a problem of arithmetic: what is recorded, what is never asked, and exact resumption."""

from dataclasses import replace

import pytest

from darwin_lab.errors import Cancelled, LabError
from darwin_lab.evolution.evolve import evolve
from darwin_lab.evolution.problem import Start
from tests.evolution.toy import SETTINGS, TASKS, Notebook, ToyScorer, ids_of, toy_problem

RACING = replace(SETTINGS, items_per_task=10)


def whole_run(settings=SETTINGS):
    scorer, notes = ToyScorer(), Notebook()
    result = evolve(toy_problem(scorer), settings, notes)
    return scorer, notes, result


def comparable(notes: Notebook) -> tuple:
    """Everything recorded but how long it took."""
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in notes.history()]
    generations = [{k: v for k, v in row.items() if k != "seconds"} for row in notes.generations]
    return rows, generations, notes.controls


def test_every_candidate_is_recorded_with_what_it_takes_to_make_and_judge_it() -> None:
    _, notes, _ = whole_run()
    assert [row["index"] for row in notes.history()] == list(range(SETTINGS.budget))
    row = notes.history()[7]
    assert row["generation"] == 1
    assert set(row["tasks"]) == set(TASKS)
    assert row["tasks"]["MATH"].keys() >= {"n", "acc", "p_gold"}
    assert row["fitness"] == row["full_fitness"] == round(row["fitness"], 6)
    assert len(row["genome_hash"]) == len(row["recipe_hash"]) == 12


def test_father_mother_and_blend_are_scored_on_the_same_selection_items() -> None:
    scorer, notes, _ = whole_run()
    assert set(notes.controls) == {"father", "mother", "blend"}
    for row in notes.controls.values():
        assert row["n"] == len(ids_of("selection"))
        assert (row["recipe_hash"], "selection", row["n"]) in scorer.asked


def test_the_search_gets_better_than_its_start() -> None:
    _, notes, result = whole_run(replace(SETTINGS, budget=120))
    assert result.pick["selection"] > notes.controls["blend"]["fitness"]
    assert notes.generations[-1]["best_so_far"] > notes.generations[0]["best"]


def test_generations_tell_best_mean_worst_and_the_controls_on_the_same_items() -> None:
    _, notes, _ = whole_run()
    for row in notes.generations:
        assert row["best"] >= row["mean"] >= row["worst"]
        assert row["father"] == notes.controls["father"]["fitness"]
        assert 0 < row["sigma"] < 1
    assert [row["evaluated"] for row in notes.generations] == [6, 12, 18, 24]


def test_a_budget_that_is_no_multiple_of_the_population_is_kept_exactly() -> None:
    _, notes, _ = whole_run(replace(SETTINGS, budget=20))
    assert len(notes.rows) == 20


@pytest.mark.parametrize("settings", [SETTINGS, RACING], ids=["all items", "racing"])
@pytest.mark.parametrize("stop_after", [1, 3, 4, 11, 19, 26, 31])
def test_a_run_stopped_anywhere_continues_the_very_same_trajectory(settings, stop_after) -> None:
    _, whole, expected = whole_run(settings)
    notes = Notebook()
    with pytest.raises(Cancelled):
        evolve(toy_problem(ToyScorer(stop_after)), settings, notes)
    result = evolve(toy_problem(ToyScorer()), settings, notes)
    assert comparable(notes) == comparable(whole)
    assert result == expected


def test_scoring_candidates_together_changes_nothing() -> None:
    _, alone, expected = whole_run(RACING)
    notes = Notebook()
    assert evolve(toy_problem(ToyScorer(), at_once=4), RACING, notes) == expected
    assert comparable(notes) == comparable(alone)


def test_candidates_on_record_are_not_scored_again_when_the_scorer_remembers() -> None:
    first, notes = ToyScorer(stop_after=15), Notebook()
    with pytest.raises(Cancelled):
        evolve(toy_problem(first), SETTINGS, notes)
    again = ToyScorer()
    again.known = first.known
    evolve(toy_problem(again), SETTINGS, notes)
    assert not set(first.asked) & set(again.asked)


def test_a_journal_of_other_settings_is_refused_before_anything_is_scored() -> None:
    _, notes, _ = whole_run()
    scorer = ToyScorer()
    with pytest.raises(LabError, match="cannot be continued"):
        evolve(toy_problem(scorer), replace(SETTINGS, seed=8), notes)
    assert all(split == "selection" for _, split, _ in scorer.asked)


def test_racing_lets_only_survivors_meet_all_items_and_ranks_the_others_below() -> None:
    scorer, notes, _ = whole_run(replace(RACING, survivors=2))
    for generation in range(4):
        rows = [row for row in notes.history() if row["generation"] == generation]
        full = [row for row in rows if row["full_fitness"] is not None]
        assert len(full) == 2
        assert min(row["fitness"] for row in full) >= max(row["fitness"] for row in rows if row["full_fitness"] is None)
    assert {n for _, split, n in scorer.asked if split == "selection"} == {20, 40, 60}


def test_the_search_never_sees_validation_or_report_items() -> None:
    scorer, notes, result = whole_run()
    search = [entry for entry in scorer.asked if entry[0] in {row["recipe_hash"] for row in notes.rows.values()}]
    assert [split for _, split, _ in search].count("validation") == SETTINGS.final_top
    assert [entry for entry in search if entry[1] == "report"] == [(result.pick["recipe_hash"], "report", 60)]


def test_the_final_pick_is_the_best_of_the_top_on_validation_items() -> None:
    _, notes, result = whole_run()
    ranked = sorted(notes.rows.values(), key=lambda row: -row["full_fitness"])
    assert {entry["index"] for entry in result.top} == {row["index"] for row in ranked[: SETTINGS.final_top]}
    best = max(result.top, key=lambda entry: entry["validation"])
    assert best["pick"] and result.pick["index"] == best["index"]
    assert sum(entry["pick"] for entry in result.top) == 1
    assert result.pick["genome"]["genes"] == notes.rows[best["index"]]["genes"]


def test_the_report_counts_one_look_and_compares_with_each_parent() -> None:
    _, notes, result = whole_run()
    assert notes.looks == [result.pick["recipe_hash"]]
    assert set(result.report["models"]) == {"child", "father", "mother", "blend"}
    assert set(result.report["tests"]) == {"father", "mother", "blend"}
    assert notes.phases == ["controls", "search", "validation", "report", "done"]


def test_a_run_without_report_looks_at_no_report_item() -> None:
    scorer, notes, result = whole_run(replace(SETTINGS, report=False))
    assert result.report is None and notes.looks == []
    assert all(split != "report" for _, split, _ in scorer.asked)


def test_patience_ends_a_search_that_does_not_improve() -> None:
    problem = toy_problem(ToyScorer())
    best = dict.fromkeys(problem.layout.names, 0.8)
    notes = Notebook()
    settings = replace(SETTINGS, budget=600, patience=3, sigma0=0.01)
    result = evolve(replace(problem, start=Start(best)), settings, notes)
    assert result.stopped == "patience"
    assert len(notes.generations) < 20
    assert [row["improved"] for row in notes.generations[-3:]] == [False, False, False]


def test_frozen_genes_keep_their_value_in_every_candidate() -> None:
    problem = toy_problem(ToyScorer())
    start = Start(problem.layout.neutral() | {"layer_2": 0.25}, {}, {"layer_2": "frozen by the settings"})
    notes = Notebook()
    evolve(replace(problem, start=start), SETTINGS, notes)
    assert {row["genes"]["layer_2"] for row in notes.rows.values()} == {0.25}
    assert len({row["genes"]["layer_1"] for row in notes.rows.values()}) == SETTINGS.budget


@pytest.mark.parametrize("settings", [SETTINGS, replace(RACING, budget=20)], ids=["all items", "racing"])
def test_the_tick_never_goes_back_and_ends_at_one(settings) -> None:
    seen: list[float] = []
    evolve(toy_problem(ToyScorer()), replace(settings, patience=99), Notebook(), lambda done, _: seen.append(done))
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0, abs=0.02)
