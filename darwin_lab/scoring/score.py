"""A score: items answered by one model, column by column, so that two models can be compared item by item.

Takes what the scorers measured, gives benchmarks with intervals, and paired comparisons. Knows nothing about
tokenizers, torch or how an answer was obtained.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import isfinite, nan
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from darwin_lab.errors import LabError
from darwin_lab.statistics.paired import PairedTest, stratified_permutation
from darwin_lab.statistics.proportion import chance_corrected, wilson


@dataclass(frozen=True)
class Bench:
    """One benchmark of a score: means over its n items.

    `interval` is the 95 % Wilson interval of `acc`; `chance` the accuracy of guessing (0 for generated answers);
    `p_gold` None when no item of the task has choices. `invalid` counts items the model never answered: they are
    among the n, as wrong.
    """

    n: int
    acc: float
    acc_norm: float
    p_gold: float | None
    interval: tuple[float, float]
    chance: float
    invalid: int = 0

    @property
    def corrected(self) -> float:
        """acc above chance, as a share of what there is above it."""
        return chance_corrected(self.acc, self.chance)


@dataclass(frozen=True, eq=False)
class Score:
    """n answered items. Every column has length n, in the order the items were given.

    `acc`, `acc_norm` bool; `p_gold` float64, the probability of the right option (NaN where the answer was
    generated); `loglik` the total log-likelihood (nats) of each option, empty where a text was generated, NaN where a
    letter was, or the model gave none (such an item counts as wrong, with p_gold 0); `predictions` the option chosen
    under acc, or the generated answer, "" where the model never gave one; `clusters` which items are resampled
    together.
    """

    ids: tuple[str, ...]
    tasks: tuple[str, ...]
    acc: NDArray[np.bool_]
    acc_norm: NDArray[np.bool_]
    p_gold: NDArray[np.float64]
    loglik: tuple[tuple[float, ...], ...]
    predictions: tuple[int | str, ...]
    clusters: tuple[str, ...]

    @property
    def n(self) -> int:
        """Number of items."""
        return len(self.ids)

    def select(self, which: ArrayLike) -> Self:
        """The part of the score named by a bool mask [n] or by item ids, in the order given.

        Raises LabError for an id that was not scored, ValueError for a mask of another length.
        """
        chosen = np.asarray(which)
        if chosen.dtype == bool:
            if chosen.shape != (self.n,):
                raise ValueError(f"select: mask of shape {chosen.shape} for {self.n} items")
            rows = np.flatnonzero(chosen).tolist()
        else:
            place = {name: row for row, name in enumerate(self.ids)}
            unknown = [name for name in chosen.tolist() if name not in place]
            if unknown:
                raise LabError(f"item {unknown[0]!r} was not scored; score the same items for both models")
            rows = [place[name] for name in chosen.tolist()]
        columns: dict[str, Any] = {}
        for column in fields(self):
            values = getattr(self, column.name)
            picked = [values[row] for row in rows]
            columns[column.name] = (
                np.array(picked, dtype=values.dtype) if isinstance(values, np.ndarray) else tuple(picked)
            )
        return type(self)(**columns)

    def benchmarks(self) -> dict[str, Bench]:
        """Each task's means, in the order the tasks first appear."""
        chance = np.array([1 / len(values) if values else 0.0 for values in self.loglik])
        invalid = self.invalid
        result = {}
        for task, rows in self._rows_by_task().items():
            n, right = len(rows), int(self.acc[rows].sum())
            p_gold = self.p_gold[rows]
            result[task] = Bench(
                n=n,
                acc=right / n,
                acc_norm=float(self.acc_norm[rows].mean()),
                p_gold=None if np.isnan(p_gold).all() else float(np.nanmean(p_gold)),
                interval=wilson(right, n),
                chance=float(chance[rows].mean()),
                invalid=sum(invalid[row] for row in rows),
            )
        return result

    @property
    def invalid(self) -> list[bool]:
        """Per item whether the model gave no answer: nothing to read in what it wrote, or no number for a choice."""
        return [prediction == "" or prediction == -1 for prediction in self.predictions]

    @property
    def mean_acc(self) -> float:
        """Unweighted mean over tasks of accuracy; NaN without items."""
        return self._mean_over_tasks(self.acc.astype(np.float64))

    @property
    def mean_p_gold(self) -> float:
        """Unweighted mean over tasks of p(gold), the soft fitness; NaN when a task has generated answers only."""
        return self._mean_over_tasks(self.p_gold)

    def to_rows(self) -> list[dict[str, Any]]:
        """One JSON-ready object an item; `p_gold` is null where the answer was generated."""
        return [
            {
                "id": self.ids[row],
                "task": self.tasks[row],
                "acc": bool(self.acc[row]),
                "acc_norm": bool(self.acc_norm[row]),
                "p_gold": None if np.isnan(self.p_gold[row]) else float(self.p_gold[row]),
                "loglik": [value if isfinite(value) else None for value in self.loglik[row]],
                "prediction": self.predictions[row],
                "cluster": self.clusters[row],
            }
            for row in range(self.n)
        ]

    def _rows_by_task(self) -> dict[str, list[int]]:
        rows: dict[str, list[int]] = {}
        for row, task in enumerate(self.tasks):
            rows.setdefault(task, []).append(row)
        return rows

    def _mean_over_tasks(self, column: NDArray[np.float64]) -> float:
        means = []
        for rows in self._rows_by_task().values():
            values = column[rows]
            means.append(nan if np.isnan(values).all() else float(np.nanmean(values)))
        return float(np.mean(means)) if means else nan


def from_rows(rows: Sequence[Mapping[str, Any]]) -> Score:
    """The score that `Score.to_rows` wrote. Raises LabError for a row that lacks a field."""
    try:
        return Score(
            ids=tuple(row["id"] for row in rows),
            tasks=tuple(row["task"] for row in rows),
            acc=np.array([row["acc"] for row in rows], dtype=bool),
            acc_norm=np.array([row["acc_norm"] for row in rows], dtype=bool),
            p_gold=np.array([np.nan if row["p_gold"] is None else row["p_gold"] for row in rows], dtype=np.float64),
            loglik=tuple(tuple(nan if value is None else value for value in row["loglik"]) for row in rows),
            predictions=tuple(row["prediction"] for row in rows),
            clusters=tuple(row["cluster"] for row in rows),
        )
    except KeyError as error:
        raise LabError(f"a stored score row lacks the field {error}; score the model again") from error


def join_scores(parts: Sequence[Score], ids: Sequence[str] | None = None) -> Score:
    """Several scores of different items as one, in the order of `ids` when given."""
    joined = from_rows([row for part in parts for row in part.to_rows()])
    return joined if ids is None else joined.select(list(ids))


def compare_scores(a: Score, b: Score, draws: int = 10_000, seed: int = 0) -> PairedTest:
    """a minus b in mean accuracy over tasks: permutation stratified by task, clusters kept together.

    Both scores must hold the same items, in any order; LabError otherwise.
    """
    if set(a.ids) != set(b.ids):
        raise LabError(
            f"the two scores hold different items ({a.n} and {b.n}); score both models on the same items first"
        )
    other = b.select(list(a.ids))
    return stratified_permutation(
        a.acc.astype(np.float64), other.acc.astype(np.float64), a.tasks, a.clusters, draws, seed
    )
