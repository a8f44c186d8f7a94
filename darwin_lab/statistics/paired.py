"""Tests for two models that answered the same items.

Takes numbers per item, gives differences with intervals and p values. Knows nothing about models or benchmarks;
never draws. Everything random is seeded: the same input gives the same output.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from darwin_lab.statistics.resample import all_signs, random_signs, resampled_indices

EXACT_UNITS = 13  # up to 2**13 sign flips are enumerated, not drawn


@dataclass(frozen=True)
class McNemar:
    """Items only one of two models got right, and the exact two-sided p value."""

    b_only: int
    a_only: int
    p: float


@dataclass(frozen=True)
class PairedTest:
    """a minus b: the estimate, its 95 % interval, the two-sided p value and the number of items."""

    difference: float
    low: float
    high: float
    p: float
    n: int


def mcnemar_exact(a: ArrayLike, b: ArrayLike) -> McNemar:
    """Exact McNemar test (binomial, two-sided) of bool[n] against bool[n]; p = 1 when nothing is discordant.

    Raises ValueError when the lengths differ.
    """
    right_a, right_b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if right_a.shape != right_b.shape or right_a.ndim != 1:
        raise ValueError(f"mcnemar_exact: shapes {right_a.shape} and {right_b.shape}")
    a_only = int((right_a & ~right_b).sum())
    b_only = int((right_b & ~right_a).sum())
    discordant = a_only + b_only
    tail = sum(comb(discordant, k) for k in range(min(a_only, b_only) + 1))
    return McNemar(b_only=b_only, a_only=a_only, p=min(1.0, 2 * tail / 2**discordant))


def stratified_permutation(
    a: ArrayLike,
    b: ArrayLike,
    strata: Sequence[str],
    clusters: Sequence[str] | None = None,
    draws: int = 10_000,
    seed: int = 0,
) -> PairedTest:
    """Unweighted mean over strata of mean(a - b), tested by flipping the sign of each unit's difference.

    `a`, `b` float[n]; a unit is an item, or all items of one cluster (a passage, an item's translations), which
    flip and are resampled together. p is two-sided, (1 + hits) / (1 + draws), or exact when at most 13 units
    differ. The interval is the 2.5-97.5 percentile of a bootstrap that resamples units within the strata they
    belong to. Raises ValueError on NaN, on lengths that differ and on no items.
    """
    diff = _paired_difference(a, b)
    n = len(diff)
    if len(strata) != n or (clusters is not None and len(clusters) != n):
        raise ValueError(f"stratified_permutation: {n} items, but strata or clusters have another length")
    stratum_names, stratum = np.unique(np.asarray(strata, dtype=str), return_inverse=True)
    unit = np.arange(n) if clusters is None else np.unique(np.asarray(clusters, dtype=str), return_inverse=True)[1]
    sums = np.zeros((int(unit.max()) + 1, len(stratum_names)))
    counts = np.zeros_like(sums)
    np.add.at(sums, (unit, stratum), diff)
    np.add.at(counts, (unit, stratum), 1.0)
    difference = float((sums.sum(axis=0) / counts.sum(axis=0)).mean())
    rng = np.random.default_rng(seed)
    p = _sign_flip_p((sums / counts.sum(axis=0)).mean(axis=1), draws, rng)
    low, high = np.percentile(_stratified_bootstrap(sums, counts, draws, rng), [2.5, 97.5])
    return PairedTest(difference, float(low), float(high), p, n)


def paired_bootstrap(
    diff: ArrayLike,
    clusters: Sequence[str] | None = None,
    draws: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Mean of the paired differences float[n] and its percentile bootstrap interval: (mean, low, high).

    Items of one cluster are resampled together. Raises ValueError on NaN and on no items.
    """
    values = _paired_difference(diff, 0.0)
    unit = (
        np.arange(len(values))
        if clusters is None
        else np.unique(np.asarray(clusters, dtype=str), return_inverse=True)[1]
    )
    sums = np.bincount(unit, weights=values).astype(np.float64)[:, None]
    counts = np.bincount(unit).astype(np.float64)[:, None]
    means = _stratified_bootstrap(sums, counts, draws, np.random.default_rng(seed))
    low, high = np.percentile(means, [50 - 50 * level, 50 + 50 * level])
    return float(values.mean()), float(low), float(high)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values (S. Holm 1979), in the order given."""
    order = sorted(range(len(ps)), key=lambda index: ps[index])
    adjusted = [0.0] * len(ps)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = running
    return adjusted


@lru_cache(maxsize=512)
def smallest_gap(n: int, p: float = 0.5, power: float = 0.8, correlation: float = 0.0, level: float = 0.95) -> float:
    """Smallest true gap between two accuracies about `p` that the exact McNemar test on n items shows with `power`.

    The two accuracies are p -+ gap / 2, moved together where that leaves [0, 1]. correlation = 0 (models err
    independently) is the cautious default; with it, the two agree by correlation x the mean of their variances more.
    Exact: binomial number of items they differ on, binomial wins among those. Returns a gap in (0, 1]; 1 also when no
    gap can be shown, which `can_be_shown` tells (five items never give p < .05).
    """
    if not can_be_shown(n, level):
        return 1.0
    low, high = 0.0, 1.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if _power(n, middle, p, correlation, level) >= power else (middle, high)
    return high


def can_be_shown(n: int, level: float = 0.95) -> bool:
    """Whether n items, all won by one side, make the exact McNemar test significant."""
    return 2 * 0.5**n <= 1 - level


def _power(n: int, gap: float, p: float, correlation: float, level: float) -> float:
    """How often the exact McNemar test on n items sees a true gap (see `smallest_gap`)."""
    from scipy.stats import binom

    better = min(1.0, max(gap, p + gap / 2))
    worse = better - gap
    agree = better * worse + correlation * (better * (1 - better) + worse * (1 - worse)) / 2
    wins, losses = better - min(agree, worse), worse - min(agree, worse)
    differ = min(1.0, wins + losses)
    spread = 8 * sqrt(n * differ * (1 - differ)) + 2
    some = np.arange(max(0, int(n * differ - spread)), min(n, int(n * differ + spread)) + 1)
    needed = binom.isf((1 - level) / 2, some, 0.5) + 1
    share = wins / differ
    shown = binom.sf(needed - 1, some, share) + binom.cdf(some - needed, some, share)
    return float((binom.pmf(some, n, differ) * shown).sum())


def _paired_difference(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.ndim != 1 or (right.ndim and right.shape != left.shape):
        raise ValueError(f"paired test: shapes {left.shape} and {right.shape}")
    diff = left - right
    if not len(diff):
        raise ValueError("paired test: no items")
    if not np.isfinite(diff).all():
        raise ValueError(f"paired test: item {int(np.flatnonzero(~np.isfinite(diff))[0])} has no finite difference")
    return diff


def _sign_flip_p(contribution: NDArray[np.float64], draws: int, rng: np.random.Generator) -> float:
    """Two-sided p of |sum| under independent sign flips of the units; units of zero cannot matter."""
    moving = contribution[contribution != 0]
    if not len(moving):
        return 1.0
    observed = abs(float(contribution.sum()))
    # A draw that ties with the observation counts as a hit whatever order its terms were added in.
    bar = observed - 1e-9 * float(np.abs(moving).sum())
    if len(moving) <= EXACT_UNITS:
        return float((np.abs(np.einsum("du,u->d", all_signs(len(moving)), moving)) >= bar).mean())
    hits = sum(
        int((np.abs(np.einsum("du,u->d", signs, moving)) >= bar).sum())
        for signs in random_signs(len(moving), draws, rng)
    )
    return (1 + hits) / (1 + draws)


def _stratified_bootstrap(
    sums: NDArray[np.float64], counts: NDArray[np.float64], draws: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """[draws] unweighted means over strata; units [u, strata] are resampled among those touching the same strata."""
    patterns, pattern = np.unique(counts > 0, axis=0, return_inverse=True)
    total = np.zeros((draws, sums.shape[1]))
    items = np.zeros_like(total)
    for index in range(len(patterns)):
        members = np.flatnonzero(pattern == index)
        touched = np.flatnonzero(patterns[index])
        start = 0
        for drawn in resampled_indices(len(members), draws, rng):
            rows = slice(start, start + len(drawn))
            for column in touched:
                total[rows, column] += sums[members, column][drawn].sum(axis=1)
                items[rows, column] += counts[members, column][drawn].sum(axis=1)
            start += len(drawn)
    means: NDArray[np.float64] = (total / items).mean(axis=1)
    return means
