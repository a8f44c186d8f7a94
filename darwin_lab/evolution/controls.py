"""What a child has to be held against: father, mother and the .5 blend always; three dearer controls on request.

`lerp_sweep` is the best of nine uniform ratios, `random` the best of as many random genomes as the budget, `placebo`
the same search started from, and trusting, a prescription whose layers were permuted. All meet the run's own
selection items, none of them ever meets report items.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from darwin_lab.errors import LabError
from darwin_lab.evolution.fitness import fitness_of
from darwin_lab.evolution.generations import run_search
from darwin_lab.evolution.problem import Journal, Problem
from darwin_lab.evolution.report import task_table
from darwin_lab.evolution.settings import EvolutionSettings
from darwin_lab.evolution.workload import SWEEP, Workload
from darwin_lab.genome.layouts import Layout
from darwin_lab.merging.recipe import Recipe
from darwin_lab.scoring.score import Score


def score_controls(problem: Problem, settings: EvolutionSettings, journal: Journal, work: Workload) -> dict[str, Score]:
    """Score and record the controls; the scores on all selection items of those that are always drawn."""
    scores = {}
    words = f"controls: {', '.join(problem.controls)}"
    found = work.score(problem, list(problem.controls.values()), "selection", None, words)
    for (name, recipe), score in zip(problem.controls.items(), found, strict=True):
        journal.control(name, control_row(recipe, score))
        scores[name] = score
    if "lerp_sweep" in settings.controls:
        recipes = {f"{ratio:g}": problem.lerp(ratio) for ratio in SWEEP}
        journal.control("lerp_sweep", _best_of(problem, recipes, work, "lerp sweep"))
    if "random" in settings.controls:
        recipes = {}
        for place, genes in enumerate(random_genes(problem.layout, problem, settings)):
            recipes[str(place + 1)] = problem.recipe_of(problem.genome_of(genes))
        journal.control("random", _best_of(problem, recipes, work, "random genomes"))
    if "placebo" in settings.controls:
        journal.control("placebo", _placebo(problem, settings, work, scores))
    return scores


def control_row(recipe: Recipe, score: Score, **more: Any) -> dict[str, Any]:
    """A control as it is recorded: what it is, its fitness and its tasks, on how many items."""
    return {
        "recipe_hash": recipe.hash,
        "fitness": fitness_of(score),
        "mean_acc": score.mean_acc,
        "tasks": task_table(score),
        "n": score.n,
        **more,
    }


def random_genes(layout: Layout, problem: Problem, settings: EvolutionSettings) -> list[dict[str, float]]:
    """As many random gene sets as the budget, uniform in the free genes' bounds; frozen ones keep their value."""
    rng = np.random.default_rng([settings.seed, 1])
    drawn = []
    for _ in range(settings.budget):
        genes = dict(problem.start.genes)
        for gene in layout.genes:
            if gene.name not in problem.start.frozen:
                genes[gene.name] = round(float(rng.uniform(gene.low, gene.high)), 6)
        drawn.append(genes)
    return drawn


def _best_of(problem: Problem, recipes: Mapping[str, Recipe], work: Workload, words: str) -> dict[str, Any]:
    scores = work.score(problem, list(recipes.values()), "selection", None, f"control: {words}")
    rows = [
        control_row(recipe, score, label=label, tried=len(recipes))
        for (label, recipe), score in zip(recipes.items(), scores, strict=True)
    ]
    best = max(rows, key=lambda row: row["fitness"])
    return {**best, "all": {row["label"]: row["fitness"] for row in rows}}


def _placebo(
    problem: Problem, settings: EvolutionSettings, work: Workload, controls: Mapping[str, Score]
) -> dict[str, Any]:
    if problem.placebo is None:
        raise LabError("the placebo control needs a prescription; scan the parents first or leave the control out")
    _, rows = run_search(problem.placebo, settings, _Unrecorded(), work, controls)
    full = [row for row in rows if row["full_fitness"] is not None]
    best = max(full, key=lambda row: row["full_fitness"])
    recipe = problem.placebo.recipe_of(problem.placebo.genome_of(best["genes"]))
    score = work.recall(problem.placebo, [recipe], "selection", None)[0]
    return control_row(recipe, score, tried=len(rows))


class _Unrecorded:
    """A journal that keeps nothing: the placebo's candidates are no candidates of the run."""

    def history(self) -> list[dict[str, Any]]:
        return []

    def candidate(self, row: Mapping[str, Any]) -> None: ...

    def generation(self, row: Mapping[str, Any]) -> None: ...

    def control(self, name: str, row: Mapping[str, Any]) -> None: ...

    def phase(self, name: str) -> None: ...

    def look(self, recipe_hash: str, report: Mapping[str, Any]) -> None: ...
