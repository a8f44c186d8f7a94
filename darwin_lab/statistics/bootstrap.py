"""Bootstrap of means over texts, for scans: one number per text and cell in, intervals and max-T thresholds out.

Knows nothing about layers, probes or charts: a cell is whatever the trailing axes are.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from darwin_lab.statistics.resample import resampled_counts

Floats = NDArray[np.float64]


def bootstrap_mean(
    values: ArrayLike, weights: ArrayLike | None = None, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[Floats, Floats, Floats, Floats]:
    """Weighted mean over axis 0 of [n, ...] with its percentile bootstrap over the n texts.

    `weights` [n] (tokens of a text) travel with their texts. Returns (mean, low, high, se), each of the trailing
    shape; with a single text nothing is known about the spread, so low, high and se are NaN.
    Raises ValueError for no texts or weights that do not fit.
    """
    data, weight = _texts(values, weights)
    mean = _means(np.ones((1, len(data))), data, weight)[0]
    if len(data) == 1:
        unknown = np.full_like(mean, np.nan)
        return mean, unknown, unknown.copy(), unknown.copy()
    drawn = _means(resampled_counts(len(data), draws, np.random.default_rng(seed)), data, weight)
    low, high = np.percentile(drawn, [50 - 50 * level, 50 + 50 * level], axis=0)
    return mean, low, high, drawn.std(axis=0, ddof=1)


@dataclass(frozen=True)
class MaxT:
    """A map of differences judged cell by cell against the largest cell that chance would show.

    `estimate`, `se` and `different` have the map's shape [groups, ...]; a cell is `different` when
    |estimate| > threshold x se.
    """

    estimate: Floats
    se: Floats
    threshold: float
    different: NDArray[np.bool_]


def max_t_threshold(
    groups: Mapping[str, ArrayLike],
    weights: Mapping[str, ArrayLike] | None = None,
    neutral: str | None = None,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> MaxT:
    """Paired bootstrap of a map of mean differences, with the max over all cells (Westfall & Young's max-T).

    `groups`: probe -> paired differences per text [n_probe, ...cells], the same cells for every probe; texts of a
    probe are resampled together, probes independently. With `neutral`, that probe's mean is subtracted from
    every other probe's (both resampled) and has no row of its own. Rows follow the order of `groups`.
    Every resample is studentised by its own standard error: with one fixed error thirty texts would show a cell
    of pure noise three times too often. The threshold is the `level` quantile of the largest
    |resampled - estimate| / se over all cells. Cells without spread are left out of the maximum; they differ when
    they are not zero. Raises ValueError for a group with fewer than two texts, or for no group.

    With few texts the threshold is too strict: of 8 texts of noise and 48 cells it is about 10 where 5 would do, 13
    where texts count unevenly and 6 would. Bonferroni's t quantile is no cap for it: with uneven weights a cell of
    noise passed that in 10 % of such maps, of 8 texts as of 24, where 5 % are allowed.
    """
    rng = np.random.default_rng(seed)
    observed: dict[str, tuple[Floats, Floats]] = {}
    resampled: dict[str, tuple[Floats, Floats]] = {}
    for name, values in groups.items():
        data, weight = _texts(values, None if weights is None else weights[name])
        if len(data) < 2:
            raise ValueError(f"max_t_threshold: {name} has fewer than two texts")
        observed[name] = _means_and_variances(np.ones((1, len(data))), data, weight)
        resampled[name] = _means_and_variances(resampled_counts(len(data), draws, rng), data, weight)
    names = [name for name in groups if name != neutral]
    if not names:
        raise ValueError("max_t_threshold: no groups")
    estimate, se = _map(observed, names, neutral)
    means, errors = _map(resampled, names, neutral)
    deviation = np.abs(means - estimate)
    studentised = np.divide(deviation, errors, out=np.zeros_like(deviation), where=errors > 0)
    threshold = float(np.quantile(studentised.reshape(draws, -1).max(axis=1), level))
    return MaxT(estimate[0], se[0], threshold, np.abs(estimate[0]) > threshold * se[0])


def _map(parts: Mapping[str, tuple[Floats, Floats]], names: list[str], neutral: str | None) -> tuple[Floats, Floats]:
    """[draws, groups, ...] means, less the neutral one, and their standard errors."""
    mean = np.stack([parts[name][0] for name in names], axis=1)
    variance = np.stack([parts[name][1] for name in names], axis=1)
    if neutral is not None:
        mean = mean - parts[neutral][0][:, None]
        variance = variance + parts[neutral][1][:, None]
    return mean, np.sqrt(variance)


def _means_and_variances(counts: Floats, data: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """[draws, ...] weighted means and their variances (of a ratio, linearised; n - 1 in the divisor)."""
    mean = _means(counts, data, weight)
    heavy = counts * weight
    centred = data - data.mean(axis=0)
    shift = mean - data.mean(axis=0)
    flat = centred.reshape(len(data), -1)
    squares = counts * weight**2
    moved = shift.reshape(len(counts), -1)
    total = (
        np.einsum("dn,nk->dk", squares, flat**2)
        - 2 * moved * np.einsum("dn,nk->dk", squares, flat)
        + moved**2 * squares.sum(axis=1, keepdims=True)
    )
    spread = (np.abs(flat).max(axis=0) * 1e-9) ** 2 * squares.sum(axis=1, keepdims=True)
    total = np.where(total > spread, total, 0.0)  # what rounding leaves of a resample of equal texts is no spread
    n = len(data)
    variance = total / heavy.sum(axis=1, keepdims=True) ** 2 * (n / (n - 1))
    return mean, variance.reshape(mean.shape)


def _texts(values: ArrayLike, weights: ArrayLike | None) -> tuple[Floats, Floats]:
    data = np.asarray(values, dtype=np.float64)
    weight = np.ones(len(data)) if weights is None else np.asarray(weights, dtype=np.float64)
    if not len(data) or weight.shape != data.shape[:1]:
        raise ValueError(f"bootstrap: values of shape {data.shape} with weights of shape {weight.shape}")
    if (weight <= 0).any():
        raise ValueError("bootstrap: weights must be positive")
    return data, weight


def _means(counts: Floats, data: Floats, weight: Floats) -> Floats:
    """[draws, ...]: weighted means where text i counts counts[draw, i] times."""
    heavy = counts * weight
    total: Floats = np.einsum("dn,nk->dk", heavy, data.reshape(len(data), -1))
    means: Floats = total / heavy.sum(axis=1, keepdims=True)
    return means.reshape(len(counts), *data.shape[1:])
