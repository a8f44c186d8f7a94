"""CMA-ES over the free genes of a layout, as ask and tell, restored by replay instead of saved state.

Takes gene bounds, a starting point and a seed; gives candidates as complete gene dicts. The trajectory depends on
these and on the fitnesses told, on nothing else: no global random state, no clock, no file. So a run is restored by
telling its recorded fitnesses to a fresh search and expecting the recorded genes back; nothing is ever unpickled.
Knows nothing of models and scores.

Source: Hansen, "The CMA Evolution Strategy" (arXiv 1604.00772), through pycma; bounds by its BoundTransform.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from darwin_lab.errors import LabError

_DIGITS = 6
_STAGNATION = ("tolx", "tolfun", "tolfunhist", "tolflatfitness", "noeffectaxis", "noeffectcoord", "tolconditioncov")


@dataclass(frozen=True)
class FreeGene:
    """One gene that is searched: its bounds, where the search starts, and its width relative to the others."""

    name: str
    low: float
    high: float
    start: float
    std: float = 1.0


class Search:
    """CMA-ES that maximises fitness.

    free     genes searched, at least two (pycma does not search one dimension)
    fixed    genes that keep their value; part of every candidate
    sigma0   first step size in units of a gene's range (methods.md 7: .18)
    popsize  candidates a generation; None is 4 + floor(3 ln n)
    seed     of this search's own generator
    """

    def __init__(
        self, free: Sequence[FreeGene], fixed: Mapping[str, float], *, sigma0: float, popsize: int | None, seed: int
    ) -> None:
        if len(free) < 2:
            names = ", ".join(gene.name for gene in free) or "none"
            raise LabError(f"a search needs at least two free genes, here: {names}; freeze fewer")
        self._free = tuple(free)
        self._fixed = dict(fixed)
        self.popsize = popsize or 4 + math.floor(3 * math.log(len(free)))
        spans = np.array([gene.high - gene.low for gene in free])
        self._strategy = _strategy(self._free, spans, sigma0, self.popsize, seed)
        self._asked: list[np.ndarray] = []
        self.generation = 0

    @property
    def sigma(self) -> float:
        """The present step size, in units of a gene's range."""
        return float(self._strategy.sigma)

    @property
    def spread(self) -> dict[str, float]:
        """The present standard deviation of each free gene, in the gene's own units."""
        return {gene.name: float(s) for gene, s in zip(self._free, self._strategy.stds, strict=True)}

    @property
    def converged(self) -> bool:
        """Whether the strategy itself says that going on changes nothing."""
        return any(reason in _STAGNATION for reason in self._strategy.stop())

    def ask(self) -> list[dict[str, float]]:
        """The candidates of the next generation, genes rounded to 1e-6. Asking twice gives the same ones."""
        if not self._asked:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._asked = self._strategy.ask()
        return [self._genes_of(point) for point in self._asked]

    def tell(self, fitness: Sequence[float]) -> None:
        """The fitness (higher is better) of the candidates last asked for, in their order."""
        if not self._asked:
            raise ValueError("tell before ask")
        if len(fitness) != len(self._asked):
            raise ValueError(f"{len(self._asked)} candidates were asked for, {len(fitness)} fitnesses told")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._strategy.tell(self._asked, [-float(value) for value in fitness])
        self._asked = []
        self.generation += 1

    def expect(self, recorded: Sequence[Mapping[str, float]]) -> None:
        """Check that the next generation begins with the candidates that were recorded (all of them or its first).

        LabError when other genes come out: the recorded run then belongs to other settings or another version.
        """
        asked = self.ask()
        for index, genes in enumerate(recorded):
            if index >= len(asked) or not same_genes(asked[index], genes):
                raise LabError(
                    f"the recorded run cannot be continued: candidate {index} of generation {self.generation} has "
                    "other genes than were recorded; start a new run with the same settings"
                )

    def _genes_of(self, point: np.ndarray) -> dict[str, float]:
        genes = dict(self._fixed)
        for gene, value in zip(self._free, point, strict=True):
            genes[gene.name] = round(min(max(float(value), gene.low), gene.high), _DIGITS)
        return genes


def same_genes(a: Mapping[str, float], b: Mapping[str, float]) -> bool:
    """Whether two candidates are the same one: equal names, values equal to half a unit of the recorded rounding."""
    return set(a) == set(b) and all(abs(a[name] - b[name]) <= 0.5 * 10**-_DIGITS for name in a)


def _strategy(free: Sequence[FreeGene], spans: np.ndarray, sigma0: float, popsize: int, seed: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it complains when matplotlib is missing
        import cma

    options = {
        "bounds": [[gene.low for gene in free], [gene.high for gene in free]],
        "BoundaryHandler": "BoundTransform",
        "CMA_stds": [float(span * gene.std) for gene, span in zip(free, spans, strict=True)],
        "popsize": popsize,
        # Its own generator, and a seed of nan so that pycma neither seeds nor draws from numpy's global one.
        "randn": np.random.RandomState(seed).randn,
        "seed": math.nan,
        "signals_filename": None,
        "verbose": -9,
        "verb_log": 0,
    }
    start = [min(max(gene.start, gene.low), gene.high) for gene in free]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cma.CMAEvolutionStrategy(start, sigma0, options)
