"""The fitness and the items it is measured on."""

import numpy as np
import pytest

from darwin_lab.errors import LabError
from darwin_lab.evolution.fitness import fitness_of, subset_ids
from tests.evolution.toy import ids_of, score_of

TASKS = {"MATH": tuple(f"m{n}" for n in range(30)), "CODE": tuple(f"c{n}" for n in range(8))}


def test_fitness_is_the_unweighted_mean_over_tasks_rounded_to_a_millionth() -> None:
    score = score_of(0.3, ids_of("selection")[:40])
    means = [score.p_gold[np.array(score.tasks) == task].mean() for task in ("MATH", "CODE")]
    assert fitness_of(score) == round(float(np.mean(means)), 6)


def test_a_task_without_p_gold_is_refused() -> None:
    score = score_of(0.3, ids_of("selection"))
    score.p_gold[np.array(score.tasks) == "CODE"] = np.nan
    with pytest.raises(LabError, match="multiple-choice"):
        fitness_of(score)


def test_a_subset_is_stratified_and_in_the_order_of_the_split() -> None:
    chosen = subset_ids(TASKS, 10, seed=1, generation=0)
    assert len(chosen) == 18
    assert [name for name in chosen if name.startswith("c")] == list(TASKS["CODE"])
    math = [name for name in chosen if name.startswith("m")]
    assert math == sorted(math, key=TASKS["MATH"].index) and len(set(math)) == 10


def test_a_subset_is_drawn_anew_each_generation_from_the_seed() -> None:
    assert subset_ids(TASKS, 10, 1, 0) == subset_ids(TASKS, 10, 1, 0)
    assert subset_ids(TASKS, 10, 1, 0) != subset_ids(TASKS, 10, 1, 1)
    assert subset_ids(TASKS, 10, 1, 0) != subset_ids(TASKS, 10, 2, 0)


def test_zero_items_a_task_means_all() -> None:
    assert subset_ids(TASKS, 0, 1, 0) == TASKS["MATH"] + TASKS["CODE"]
