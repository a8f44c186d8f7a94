"""The number that is searched for, and the items it is measured on. Takes scores and item ids, nothing else."""

import math
from collections.abc import Mapping

import numpy as np

from darwin_lab.errors import LabError
from darwin_lab.scoring.score import Score


def fitness_of(score: Score) -> float:
    """The soft fitness of a score, rounded to 1e-6. LabError when a task has no item with choices."""
    value = score.mean_p_gold
    if not math.isfinite(value):
        raise LabError("some task has no item with choices, so it has no p(gold); evolve on multiple-choice items")
    return round(value, 6)


def subset_ids(tasks: Mapping[str, tuple[str, ...]], per_task: int, seed: int, generation: int) -> tuple[str, ...]:
    """`per_task` items of every task, drawn anew for each generation from the seed, in the split's order.

    0, or more than a task has, is all of them.
    """
    chosen: list[str] = []
    for place, ids in enumerate(tasks.values()):
        if 0 < per_task < len(ids):
            rng = np.random.default_rng([seed, generation, place])
            chosen.extend(ids[row] for row in sorted(rng.choice(len(ids), per_task, replace=False).tolist()))
        else:
            chosen.extend(ids)
    return tuple(chosen)
