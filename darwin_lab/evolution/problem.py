"""What an evolution is given: a way to score recipes, a way to make them from genes, and where to write things down.

Only records and protocols; the lab fills them with models and a store, a test with three lines of arithmetic.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from darwin_lab.genome.genome import Genome
from darwin_lab.genome.layouts import Layout
from darwin_lab.merging.recipe import Recipe
from darwin_lab.progress import Tick
from darwin_lab.scoring.score import Score

Scorer = Callable[[Sequence[Recipe], str, Sequence[str] | None, Tick], list[Score]]
"""`score(recipes, split, item_ids, tick)`: one Score a recipe, over these items of the split in the split's own order
(None is all of them)."""


@dataclass(frozen=True)
class Start:
    """Where a search begins: every gene's value, the width of each free one, and which are frozen with the reason."""

    genes: dict[str, float]
    stds: dict[str, float] = field(default_factory=dict)
    frozen: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"genes": dict(self.genes), "stds": dict(self.stds), "frozen": dict(self.frozen)}


@dataclass(frozen=True)
class Problem:
    """One pair to evolve.

    score      scores recipes; remembers what it scored, so that asking again costs nothing
    genome_of  the genome of a set of genes
    recipe_of  the recipe of a genome
    layout     bounds of the genes
    start      where the search begins
    items      per split, per task, the ids of its items in order
    controls   recipes that are always scored beside the candidates: father, mother, blend
    lerp       the recipe of one ratio for everything (control "lerp_sweep")
    placebo    the same problem with the prescription's layers permuted (control "placebo"), None without one
    at_once    how many recipes `score` likes to be given together
    """

    score: Scorer
    genome_of: Callable[[Mapping[str, float]], Genome]
    recipe_of: Callable[[Genome], Recipe]
    layout: Layout
    start: Start
    items: Mapping[str, Mapping[str, tuple[str, ...]]]
    controls: Mapping[str, Recipe]
    lerp: Callable[[float], Recipe]
    placebo: "Problem | None" = None
    at_once: int = 1

    def ids(self, split: str) -> tuple[str, ...]:
        """All item ids of a split."""
        return tuple(item for ids in self.items.get(split, {}).values() for item in ids)


class Journal(Protocol):
    """Where a run is written down as it happens, and read back when it is resumed."""

    def history(self) -> list[dict[str, Any]]:
        """The candidate rows recorded so far, by index."""

    def candidate(self, row: Mapping[str, Any]) -> None:
        """Record a candidate, or the same one again with its full fitness."""

    def generation(self, row: Mapping[str, Any]) -> None:
        """Record a finished generation."""

    def control(self, name: str, row: Mapping[str, Any]) -> None:
        """Record a control."""

    def phase(self, name: str) -> None:
        """The run enters a phase: controls, search, validation, report, done."""

    def look(self, recipe_hash: str, report: Mapping[str, Any]) -> None:
        """Record a report: one look at the report items."""
