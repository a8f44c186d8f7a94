"""A problem of arithmetic: the best genes are known, scoring takes no model, and all that is asked is written down."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from darwin_lab.errors import Cancelled
from darwin_lab.evolution.problem import Problem, Start
from darwin_lab.evolution.settings import EvolutionSettings
from darwin_lab.genome.genome import Genome, neutral_genome
from darwin_lab.genome.layouts import layout_for
from darwin_lab.scoring.score import Score

LAYERS = 4
TASKS = ("MATH", "CODE")
SETTINGS = EvolutionSettings(layout="layerwise", items_per_task=0, budget=24, popsize=6, seed=7, start="neutral")


@dataclass(frozen=True)
class ToyRecipe:
    """Stands for a recipe: named by its genes, as good as they are near .8."""

    genes: tuple[tuple[str, float], ...]

    @property
    def hash(self) -> str:
        return hashlib.sha256(repr(self.genes).encode()).hexdigest()[:12]

    @property
    def quality(self) -> float:
        return -float(sum((value - 0.8) ** 2 for _, value in self.genes))


class ToyScorer:
    """p(gold) of an item is a fixed function of the recipe's quality and the item's difficulty."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.asked: list[tuple[str, str, int]] = []
        self.stop_after = stop_after
        self.known: dict[tuple[str, str, tuple[str, ...]], Score] = {}

    def __call__(self, recipes: Sequence[Any], split: str, ids: Sequence[str] | None, tick: Any) -> list[Score]:
        return [self._one(recipe, split, tuple(ids or ids_of(split)), tick) for recipe in recipes]

    def _one(self, recipe: ToyRecipe, split: str, ids: tuple[str, ...], tick: Any) -> Score:
        key = (recipe.hash, split, ids)
        if key not in self.known:
            if self.stop_after is not None and len(self.asked) >= self.stop_after:
                raise Cancelled("stopped")
            tick(0.5, "half way")
            self.asked.append((recipe.hash, split, len(ids)))
            self.known[key] = score_of(recipe.quality, ids)
        return self.known[key]


def ids_of(split: str, per_task: int = 30) -> tuple[str, ...]:
    return tuple(f"{task}-{split}-{number}" for task in TASKS for number in range(per_task))


def score_of(quality: float, ids: Sequence[str]) -> Score:
    """A score of two-choice items, from a quality and each item's own difficulty."""
    difficulty = np.array([np.random.default_rng(list(name.encode())).normal() for name in ids])
    p_gold = 1 / (1 + np.exp(-(quality - difficulty)))
    right = p_gold > 0.5
    return Score(
        ids=tuple(ids),
        tasks=tuple(name.split("-")[0] for name in ids),
        acc=right,
        acc_norm=right,
        p_gold=p_gold,
        loglik=tuple((float(p), float(1 - p)) for p in p_gold),
        predictions=tuple(int(not r) for r in right),
        clusters=tuple(ids),
    )


def toy_problem(scorer: ToyScorer, **changes: Any) -> Problem:
    layout = layout_for("layerwise", LAYERS)
    base = neutral_genome("layerwise", LAYERS)

    def genome_of(genes: Mapping[str, float]) -> Genome:
        return base.with_genes(**genes)

    def recipe_of(genome: Genome) -> Any:
        return ToyRecipe(tuple(sorted(genome.genes.items())))

    def uniform(ratio: float) -> Any:
        return ToyRecipe(tuple((name, ratio) for name in sorted(layout.names)))

    problem = Problem(
        score=scorer,
        genome_of=genome_of,
        recipe_of=recipe_of,
        layout=layout,
        start=Start(layout.neutral()),
        items={
            split: {task: tuple(name for name in ids_of(split) if name.startswith(task)) for task in TASKS}
            for split in ("selection", "validation", "report")
        },
        controls={"father": uniform(0.0), "mother": uniform(1.0), "blend": uniform(0.5)},
        lerp=uniform,
    )
    return replace(problem, **changes)


@dataclass
class Notebook:
    """A journal in memory."""

    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    generations: list[dict[str, Any]] = field(default_factory=list)
    controls: dict[str, dict[str, Any]] = field(default_factory=dict)
    phases: list[str] = field(default_factory=list)
    looks: list[str] = field(default_factory=list)

    def history(self) -> list[dict[str, Any]]:
        return [dict(self.rows[index]) for index in sorted(self.rows)]

    def candidate(self, row: Mapping[str, Any]) -> None:
        self.rows[row["index"]] = dict(row)

    def generation(self, row: Mapping[str, Any]) -> None:
        self.generations = [*self.generations[: row["generation"]], dict(row)]

    def control(self, name: str, row: Mapping[str, Any]) -> None:
        self.controls[name] = dict(row)

    def phase(self, name: str) -> None:
        self.phases.append(name)

    def look(self, recipe_hash: str, report: Mapping[str, Any]) -> None:
        self.looks.append(recipe_hash)
