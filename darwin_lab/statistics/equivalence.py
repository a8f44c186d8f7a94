"""Differences of two paired shares: an interval that holds on few items, and the test that two models are alike.

Takes answers or numbers per item, gives intervals and p values. Knows nothing about models or benchmarks; nothing
here is random.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from darwin_lab.statistics.proportion import wilson


@dataclass(frozen=True)
class Equivalence:
    """Whether a minus b lies within +- `margin`: the difference, its 90 % interval, and the p value of both one-sided
    tests together. `equivalent` when p < .05, which is when the interval lies inside the margin."""

    difference: float
    low: float
    high: float
    margin: float
    p: float
    n: int

    @property
    def equivalent(self) -> bool:
        """Shown to differ by less than the margin."""
        return self.p < 0.05


def newcombe_paired(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """(difference, low, high) of the shares of bool[n] a minus bool[n] b on the same items.

    R. G. Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions based on
    paired data", method 10: the two Wilson intervals joined by the correlation of the answers, with his continuity
    correction. Unlike a bootstrap it keeps a width where no item tells the two apart. Raises ValueError for shapes
    that differ and for no items.
    """
    right_a, right_b = _answers(a), _answers(b)
    if right_a.shape != right_b.shape or not len(right_a):
        raise ValueError(f"newcombe_paired: shapes {right_a.shape} and {right_b.shape}")
    n = len(right_a)
    both, neither = int((right_a & right_b).sum()), int((~right_a & ~right_b).sum())
    count_a, count_b = int(right_a.sum()), int(right_b.sum())
    share_a, share_b = count_a / n, count_b / n
    (low_a, high_a), (low_b, high_b) = wilson(count_a, n, level), wilson(count_b, n, level)
    agreement = float(both * neither - (count_a - both) * (count_b - both))
    if agreement > 0:
        agreement = max(agreement - n / 2, 0.0)
    spread = sqrt(count_a * (n - count_a) * count_b * (n - count_b))
    phi = agreement / spread if spread else 0.0
    below = _joined(share_a - low_a, high_b - share_b, phi)
    above = _joined(high_a - share_a, share_b - low_b, phi)
    difference = share_a - share_b
    return difference, max(-1.0, difference - below), min(1.0, difference + above)


def tost_paired(diff: ArrayLike, margin: float, clusters: Sequence[str] | None = None) -> Equivalence:
    """Two one-sided paired t tests (D. J. Schuirmann 1987) that the mean of float[n] differences is within +- margin.

    Items of one cluster count as one unit: the error of the mean is that of the units' sums (a ratio, linearised),
    with one degree of freedom less than there are units. Where all differences are equal, one unit is taken to differ
    by 1 (ours: no data show that the spread is nothing). Raises ValueError on fewer than two units, on NaN and for a
    margin of 0 or less.
    """
    from scipy import stats

    values = np.asarray(diff, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError("tost_paired: the differences must be a row of finite numbers")
    if margin <= 0:
        raise ValueError(f"tost_paired: margin {margin}; give a difference above 0")
    unit = np.arange(len(values)) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    sizes = np.bincount(unit).astype(np.float64)
    if len(sizes) < 2:
        raise ValueError(f"tost_paired: {len(sizes)} units; two or more are needed")
    n, units, mean = len(values), len(sizes), float(values.mean())
    left = np.bincount(unit, weights=values) - mean * sizes
    error = sqrt(float((left**2).sum()) * units / (units - 1)) / n
    if error <= 1e-12:
        error = float(sizes.max()) / n
    student = stats.t(units - 1)
    p = max(float(student.sf((mean + margin) / error)), float(student.cdf((mean - margin) / error)))
    reach = float(student.ppf(0.95)) * error
    return Equivalence(mean, mean - reach, mean + reach, margin, p, n)


def _joined(one: float, other: float, phi: float) -> float:
    return sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))


def _answers(right: ArrayLike) -> NDArray[np.bool_]:
    values: NDArray[np.bool_] = np.asarray(right, dtype=bool)
    if values.ndim != 1:
        raise ValueError(f"newcombe_paired: shape {values.shape} instead of one row")
    return values
