"""How far an evolution is, counted in items answered, so that time left can be told from the pace."""

import math
from collections.abc import Sequence

from darwin_lab.evolution.fitness import subset_ids
from darwin_lab.evolution.problem import Problem
from darwin_lab.evolution.settings import EvolutionSettings
from darwin_lab.merging.recipe import Recipe
from darwin_lab.progress import Tick
from darwin_lab.scoring.score import Score

SWEEP = tuple(step / 10 for step in range(1, 10))
"""Ratios of the one-dimensional sweep, an opt-in control."""


class Workload:
    """Counts the items of an evolution and hands each scoring its slice of the tick."""

    def __init__(self, total: int, tick: Tick) -> None:
        self._total = max(1, total)
        self._done = 0
        self._tick = tick

    def score(
        self, problem: Problem, recipes: Sequence[Recipe], split: str, ids: Sequence[str] | None, words: str
    ) -> list[Score]:
        """Score recipes, moving the tick by their items."""
        size = len(recipes) * len(problem.ids(split) if ids is None else ids)
        start, self._done = self._done, self._done + size
        tick = self._slice(start, size, words)
        tick(0.0, words)
        scores = problem.score(recipes, split, ids, tick)
        tick(1.0, words)
        return scores

    def recall(self, problem: Problem, recipes: Sequence[Recipe], split: str, ids: Sequence[str] | None) -> list[Score]:
        """Scores that were made before; the tick stays where it is, also when one has to be made again."""
        return problem.score(recipes, split, ids, self._slice(self._done, 0, "recalling scores"))

    def skip(self, items: int) -> None:
        """Count items that were answered in an earlier session."""
        self._done += items

    def _slice(self, start: int, size: int, words: str) -> Tick:
        return lambda fraction, _: self._tick(min(1.0, (start + size * fraction) / self._total), words)


def survivors_of(settings: EvolutionSettings, size: int) -> int:
    """How many of a generation of `size` also meet the rest of the selection items."""
    return min(size, settings.survivors or math.ceil(size / 3))


def planned_items(problem: Problem, settings: EvolutionSettings, popsize: int) -> int:
    """Items an evolution answers when nothing stops it early."""
    full = len(problem.ids("selection"))
    part = len(subset_ids(problem.items["selection"], settings.items_per_task, settings.seed, 0))
    searched = settings.budget * part
    if part < full:
        sizes = [min(popsize, settings.budget - first) for first in range(0, settings.budget, popsize)]
        searched += sum(survivors_of(settings, size) for size in sizes) * (full - part)
    opt_in = {"lerp_sweep": len(SWEEP) * full, "random": settings.budget * full, "placebo": searched}
    chosen = sum(opt_in[name] for name in settings.controls)
    validated = settings.final_top * len(problem.ids("validation"))
    reported = 4 * len(problem.ids("report")) if settings.report else 0
    return len(problem.controls) * full + chosen + searched + validated + reported
