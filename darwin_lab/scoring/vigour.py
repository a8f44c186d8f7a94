"""Hybrid vigour: a child's answers beside both parents', benchmark by benchmark; and what two parents leave to gain.

Takes scores of the same items, gives tables with intervals, paired tests and words. Never claims more than report
items show. Knows nothing about models, storage or how an answer was obtained.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from darwin_lab.scoring.score import Score
from darwin_lab.statistics.equivalence import newcombe_paired
from darwin_lab.statistics.paired import PairedTest, holm, mcnemar_exact, stratified_permutation
from darwin_lab.statistics.proportion import wilson
from darwin_lab.statistics.resample import resampled_counts

LEVEL = 0.05
DRAWS, SEED = 10_000, 0


@dataclass(frozen=True)
class VigourRow:
    """A child against both parents on the n items all three answered.

    `child`, `father`, `mother` are accuracies; `minus_father`, `minus_mother` the paired differences with 95 % interval
    and p. `p` is the larger of the p values of two McNemar tests, each two-sided against one parent: how well "ahead of
    both" is shown (1 when not ahead of both); `p_holm` the same after Holm's correction over the benchmarks of the
    table. `relative` is the gain on the better parent as a share of his accuracy (None when that is 0).
    """

    benchmark: str
    n: int
    child: float
    father: float
    mother: float
    minus_father: PairedTest
    minus_mother: PairedTest
    p: float
    p_holm: float
    relative: float | None
    verdict: str


@dataclass(frozen=True)
class Estimate:
    """A share or a difference of shares with its 95 % interval; `count` items, None for a difference."""

    value: float
    low: float
    high: float
    count: int | None = None


@dataclass(frozen=True)
class Complementarity:
    """What two parents know apart, on n items both answered.

    `only_father` ... `neither` are shares of the items (Wilson intervals). `headroom`: what a perfect child, right
    wherever a parent is, has above the better parent. `blend` the accuracy of the plain 0.5 blend and `barrier` the
    mean of the parents minus the blend, None until the blend was scored on the same items: above zero the plain blend
    loses what its parents know.
    """

    n: int
    only_father: Estimate
    only_mother: Estimate
    both: Estimate
    neither: Estimate
    headroom: Estimate
    blend: Estimate | None
    barrier: Estimate | None
    sentence: str


def paired_accuracy(a: Score, b: Score) -> PairedTest:
    """a minus b in accuracy over the same items in the same order.

    Items that stand alone: exact McNemar p and Newcombe's interval. Items in clusters: permutation and bootstrap of
    whole clusters. Raises ValueError for other items or none.
    """
    if a.ids != b.ids or not a.n:
        raise ValueError(f"paired_accuracy: {a.n} and {b.n} items that are not the same")
    if len(set(a.clusters)) < a.n:
        columns = a.acc.astype(np.float64), b.acc.astype(np.float64)
        return stratified_permutation(*columns, ["all"] * a.n, a.clusters, DRAWS, SEED)
    difference, low, high = newcombe_paired(a.acc, b.acc)
    return PairedTest(difference, low, high, mcnemar_exact(a.acc, b.acc).p, a.n)


def vigour_rows(
    scores: Mapping[str, tuple[Score, Score, Score]], *, report: bool, split: str = "report"
) -> list[VigourRow]:
    """One row a benchmark from (child, father, mother), in the order given; benchmarks without a common item are left
    out. "Surpasses both parents" needs report items, p < .05 against each, and p < .05 after Holm's correction."""
    found = []
    for benchmark, models in scores.items():
        child, father, mother = common(models)
        if child.n:
            tests = paired_accuracy(child, father), paired_accuracy(child, mother)
            ahead = all(test.difference > 0 for test in tests)
            found.append((benchmark, child, father, mother, tests, max(test.p for test in tests) if ahead else 1.0))
    adjusted = holm([p for *_, p in found])
    rows = []
    for (benchmark, child, father, mother, tests, p), p_holm in zip(found, adjusted, strict=True):
        ours, his, hers = (float(score.acc.mean()) for score in (child, father, mother))
        best = max(his, hers)
        rows.append(
            VigourRow(
                benchmark, child.n, ours, his, hers, tests[0], tests[1], p, p_holm,
                (ours - best) / best if best else None, _verdict(tests, p, p_holm, child.n, "" if report else split),
            )
        )  # fmt: skip
    return rows


def complementarity(father: Score, mother: Score, blend: Score | None = None) -> Complementarity | None:
    """The table of two parents on the items both (and the blend, when given) answered; None without one."""
    models = common([father, mother] + ([blend] if blend else []))
    his, hers = models[0].acc, models[1].acc
    n = models[0].n
    if not n:
        return None
    counts = _unit_counts(models[0].clusters)
    perfect = _means(counts, his | hers) - np.maximum(_means(counts, his), _means(counts, hers))
    headroom = _estimate(float((his | hers).mean() - max(his.mean(), hers.mean())), perfect)
    plain = barrier = None
    if blend is not None:
        right = models[2].acc
        plain = _share(right)
        loss = (his.astype(np.float64) + hers) / 2 - right
        barrier = _estimate(float(loss.mean()), _means(counts, loss))
    only = _share(his & ~hers), _share(hers & ~his)
    words = (
        f"Of {n} items the father alone knows {only[0].count}, the mother alone {only[1].count}: a perfect child would "
        f"be {100 * headroom.value:.1f} points above the better parent "
        f"[{100 * headroom.low:.1f}, {100 * headroom.high:.1f}]"
    )
    if barrier is not None:
        words += f"; {_barrier_words(barrier)}"
    return Complementarity(
        n, *only, _share(his & hers), _share(~his & ~hers), headroom, plain, barrier, f"{words}."
    )  # fmt: skip


def common(models: Sequence[Score]) -> list[Score]:
    """The scores cut to the items all of them hold, in the first one's order; none of none."""
    if not models:
        return []
    shared = set.intersection(*(set(score.ids) for score in models))
    ids = [name for name in models[0].ids if name in shared]
    return [score.select(ids) for score in models]


def _verdict(tests: tuple[PairedTest, PairedTest], p: float, p_holm: float, n: int, open_split: str) -> str:
    names = ("father", "mother")
    if p < LEVEL and open_split:
        return f"ahead of both parents on {open_split} items; only report items can show it"
    if p < LEVEL:
        return "surpasses both parents" if p_holm < LEVEL else "ahead of both parents, but not after Holm's correction"
    shown = [name for name, test in zip(names, tests, strict=True) if test.p < LEVEL]
    if not shown:
        return f"no difference shown (n={n})"
    words = [f"{'above' if test.difference > 0 else 'below'} the {name}" if name in shown else
             f"no difference shown to the {name}" for name, test in zip(names, tests, strict=True)]  # fmt: skip
    return f"{', '.join(words)} (n={n})"


def _barrier_words(barrier: Estimate) -> str:
    value, low, high = 100 * barrier.value, 100 * barrier.low, 100 * barrier.high
    if low > 0:
        return f"the plain blend loses {value:.1f} points [{low:.1f}, {high:.1f}] on the parents' mean"
    if high < 0:
        return f"the plain blend gains {-value:.1f} points [{-high:.1f}, {-low:.1f}] on the parents' mean"
    return f"no barrier is shown: the parents' mean is {value:+.1f} points [{low:+.1f}, {high:+.1f}] to the plain blend"


def _share(right: NDArray[np.bool_]) -> Estimate:
    count = int(right.sum())
    return Estimate(count / len(right), *wilson(count, len(right)), count)


def _estimate(value: float, drawn: NDArray[np.float64]) -> Estimate:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(value, float(low), float(high))


def _unit_counts(clusters: Sequence[str]) -> NDArray[np.float64]:
    """[draws, n]: how often each item was drawn when whole clusters are."""
    unit = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)[1]
    return resampled_counts(int(unit.max()) + 1, DRAWS // 10, np.random.default_rng(SEED))[:, unit]


def _means(counts: NDArray[np.float64], values: NDArray) -> NDArray[np.float64]:
    total: NDArray[np.float64] = np.einsum("dn,n->d", counts, values.astype(np.float64)) / counts.sum(axis=1)
    return total
