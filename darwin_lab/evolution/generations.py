"""The search itself: generation after generation, each candidate recorded as it is scored.

Candidates already in the journal are not scored again; the search is told their recorded fitness and must ask for the
same genes again. Knows nothing of controls' making, validation or report items.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from darwin_lab.evolution.fitness import fitness_of, subset_ids
from darwin_lab.evolution.problem import Journal, Problem
from darwin_lab.evolution.report import task_table
from darwin_lab.evolution.search import FreeGene, Search
from darwin_lab.evolution.settings import EvolutionSettings
from darwin_lab.evolution.workload import Workload, survivors_of
from darwin_lab.merging.recipe import Recipe
from darwin_lab.scoring.score import Score, join_scores
from darwin_lab.statistics.paired import stratified_permutation

_DRAWS = 2000
_TOLD_BEHIND = 1e-6


def run_search(
    problem: Problem,
    settings: EvolutionSettings,
    journal: Journal,
    work: Workload,
    controls: Mapping[str, Score],
) -> tuple[str, list[dict[str, Any]]]:
    """The search alone: why it stopped ("budget", "patience" or "converged") and all candidate rows."""
    search = search_of(problem, settings)
    recorded = journal.history()
    rows: list[dict[str, Any]] = []
    rival: Score | None = None
    stale = 0
    while len(rows) < settings.budget and not search.converged:
        began = time.monotonic()
        asked = search.ask()[: settings.budget - len(rows)]
        known = recorded[len(rows) : len(rows) + len(asked)]
        search.expect([row["genes"] for row in known])
        generation = _Generation(problem, settings, journal, work, search.generation, first=len(rows))
        generation.score(asked, known)
        generation.promote()
        rows.extend(generation.rows)
        sigma = search.sigma
        if len(asked) == search.popsize:
            search.tell(generation.told())
        best = generation.best_score()
        improved = rival is None or _is_better(best, rival)
        rival, stale = (best, 0) if improved else (rival, stale + 1)
        summary = generation.summary(controls, rows)
        journal.generation(
            {**summary, "sigma": round(sigma, 6), "improved": improved, "seconds": round(time.monotonic() - began, 3)}
        )
        if stale >= settings.patience:
            return "patience", rows
    return ("budget" if len(rows) >= settings.budget else "converged"), rows


def search_of(problem: Problem, settings: EvolutionSettings) -> Search:
    """A fresh search over the free genes of the problem."""
    start = problem.start
    free = [
        FreeGene(gene.name, gene.low, gene.high, start.genes[gene.name], start.stds.get(gene.name, 1.0))
        for gene in problem.layout.genes
        if gene.name not in start.frozen
    ]
    fixed = {name: start.genes[name] for name in start.frozen}
    return Search(free, fixed, sigma0=settings.sigma0, popsize=settings.popsize, seed=settings.seed)


class _Generation:
    """The candidates of one generation: scored on its items, the best ones also on all the others."""

    def __init__(
        self, problem: Problem, settings: EvolutionSettings, journal: Journal, work: Workload, number: int, first: int
    ) -> None:
        self.problem, self.settings, self.journal, self.work = problem, settings, journal, work
        self.number, self.first = number, first
        self.ids = subset_ids(problem.items["selection"], settings.items_per_task, settings.seed, number)
        self.whole = len(self.ids) == len(problem.ids("selection"))
        self.rows: list[dict[str, Any]] = []

    def score(self, asked: Sequence[Mapping[str, float]], known: Sequence[Mapping[str, Any]]) -> None:
        """Rows of all candidates: recorded ones as they are, the others scored and recorded one by one."""
        self.rows = [dict(row) for row in known]
        self.work.skip(len(known) * len(self.ids))
        step = self.problem.at_once
        for start in range(len(known), len(asked), step):
            genomes = [self.problem.genome_of(genes) for genes in asked[start : start + step]]
            recipes = [self.problem.recipe_of(genome) for genome in genomes]
            began = time.monotonic()
            words = f"candidate {self.first + start + 1} of {self.settings.budget}"
            scores = self.work.score(self.problem, recipes, "selection", self._chosen(), words)
            seconds = (time.monotonic() - began) / len(recipes)
            for genome, recipe, score in zip(genomes, recipes, scores, strict=True):
                fitness = fitness_of(score)
                row = {
                    "index": self.first + len(self.rows),
                    "generation": self.number,
                    "genes": dict(genome.genes),
                    "genome_hash": genome.hash,
                    "recipe_hash": recipe.hash,
                    "fitness": fitness,
                    "items": score.n,
                    "full_fitness": fitness if self.whole else None,
                    "tasks": task_table(score),
                    "mean_acc": score.mean_acc,
                    "seconds": round(seconds, 3),
                }
                self.journal.candidate(row)
                self.rows.append(row)

    def promote(self) -> None:
        """Let the generation's best meet the rest of the selection items, so that generations can be compared."""
        if self.whole:
            return
        ahead = self._ranked()[: survivors_of(self.settings, len(self.rows))]
        todo = [row for row in ahead if row["full_fitness"] is None]
        for start in range(0, len(todo), self.problem.at_once):
            wave = todo[start : start + self.problem.at_once]
            for row, score in zip(wave, self._full_scores(wave, self._score_rest), strict=True):
                row["full_fitness"] = fitness_of(score)
                self.journal.candidate(row)

    def told(self) -> list[float]:
        """What the optimiser is told: full fitness for those that met all items, the others ranked below them."""
        if self.whole:
            return [row["fitness"] for row in self.rows]
        floor = min(row["full_fitness"] for row in self.rows if row["full_fitness"] is not None)
        behind = [row for row in self._ranked() if row["full_fitness"] is None]
        rank = {row["index"]: place + 1 for place, row in enumerate(behind)}
        return [
            row["full_fitness"] if row["full_fitness"] is not None
            else min(row["fitness"], floor) - _TOLD_BEHIND * rank[row["index"]]
            for row in self.rows
        ]  # fmt: skip

    def best_score(self) -> Score:
        """The score on all selection items of the generation's best candidate."""
        best = max(self._complete(), key=lambda row: (row["full_fitness"], -row["index"]))
        return self._full_scores([best], self._recall)[0]

    def summary(self, controls: Mapping[str, Score], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The generation in one row, its controls measured on its own items."""
        values = [row["fitness"] for row in self.rows]
        ids = list(self.ids)
        return {
            "generation": self.number,
            "best": max(values),
            "mean": round(float(np.mean(values)), 6),
            "worst": min(values),
            "best_so_far": max(row["full_fitness"] for row in rows if row["full_fitness"] is not None),
            "items": len(ids),
            "evaluated": len(rows),
            **{name: fitness_of(score if self.whole else score.select(ids)) for name, score in controls.items()},
        }

    def _ranked(self) -> list[dict[str, Any]]:
        return sorted(self.rows, key=lambda row: (-row["fitness"], row["index"]))

    def _complete(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["full_fitness"] is not None]

    def _chosen(self) -> Sequence[str] | None:
        return None if self.whole else self.ids

    def _full_scores(
        self, rows: Sequence[Mapping[str, Any]], rest: Callable[[Sequence[Recipe], Sequence[str]], list[Score]]
    ) -> list[Score]:
        """Candidates' scores on all selection items: on the generation's own from before, on the others by `rest`."""
        recipes = [self.problem.recipe_of(self.problem.genome_of(row["genes"])) for row in rows]
        known = self._recall(recipes, self._chosen())
        if self.whole:
            return known
        seen, all_ids = set(self.ids), self.problem.ids("selection")
        others = rest(recipes, [item for item in all_ids if item not in seen])
        return [join_scores(parts, all_ids) for parts in zip(known, others, strict=True)]

    def _recall(self, recipes: Sequence[Recipe], ids: Sequence[str] | None) -> list[Score]:
        return self.work.recall(self.problem, recipes, "selection", ids)

    def _score_rest(self, recipes: Sequence[Recipe], ids: Sequence[str]) -> list[Score]:
        words = f"best of generation {self.number + 1} on all items"
        return self.work.score(self.problem, recipes, "selection", ids, words)


def _is_better(challenger: Score, rival: Score) -> bool:
    """Whether the gain in p(gold) on the same items is above zero with its paired 95 % interval."""
    test = stratified_permutation(
        challenger.p_gold, rival.select(list(challenger.ids)).p_gold, challenger.tasks, challenger.clusters, _DRAWS
    )
    return test.low > 0
