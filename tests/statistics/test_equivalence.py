"""Newcombe's paired interval by exact coverage; TOST against scipy's one-sided tests."""

from itertools import product
from math import comb

import numpy as np
import pytest
from scipy import stats

from darwin_lab.statistics.equivalence import newcombe_paired, tost_paired


def answers(both: int, only_a: int, only_b: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    a = np.repeat([True, True, False, False], [both, only_a, only_b, neither])
    return a, np.repeat([True, False, True, False], [both, only_a, only_b, neither])


def test_models_that_no_item_tells_apart_still_have_an_interval() -> None:
    a, b = answers(30, 0, 0, 0)
    difference, low, high = newcombe_paired(a, b)
    assert difference == 0 and low < -0.05 and high > 0.05
    more = newcombe_paired(*answers(3000, 0, 0, 0))
    assert more[2] < high / 10


def test_swapping_the_models_mirrors_the_interval() -> None:
    a, b = answers(40, 12, 5, 20)
    difference, low, high = newcombe_paired(a, b)
    assert newcombe_paired(b, a) == pytest.approx((-difference, -high, -low))
    assert low < difference < high


def test_the_paired_interval_is_narrower_than_the_unpaired_one_for_models_that_err_alike() -> None:
    a, b = answers(80, 10, 5, 55)
    _, low, high = newcombe_paired(a, b)
    rng = np.random.default_rng(0)
    _, wide_low, wide_high = newcombe_paired(a, rng.permutation(b))
    assert high - low < 0.8 * (wide_high - wide_low)


@pytest.mark.parametrize("cells", [(0.5, 0.1, 0.1, 0.3), (0.7, 0.15, 0.05, 0.1), (0.25, 0.3, 0.2, 0.25)])
def test_the_interval_covers_the_truth_by_exact_enumeration(cells: tuple[float, ...]) -> None:
    n, truth, covered = 20, cells[1] - cells[2], 0.0
    for both, only_a, only_b in product(range(n + 1), repeat=3):
        neither = n - both - only_a - only_b
        if neither < 0:
            continue
        ways = comb(n, both) * comb(n - both, only_a) * comb(n - both - only_a, only_b)
        weight = ways * cells[0] ** both * cells[1] ** only_a * cells[2] ** only_b * cells[3] ** neither
        _, low, high = newcombe_paired(*answers(both, only_a, only_b, neither))
        covered += weight * (low <= truth <= high)
    assert 0.93 <= covered <= 0.985


def test_tost_is_scipys_two_one_sided_paired_tests() -> None:
    rng = np.random.default_rng(3)
    for margin in (0.05, 0.2):
        diff = rng.normal(0.02, 0.4, 120)
        found = tost_paired(diff, margin)
        above = stats.ttest_1samp(diff, -margin, alternative="greater").pvalue
        below = stats.ttest_1samp(diff, margin, alternative="less").pvalue
        assert found.p == pytest.approx(max(above, below), rel=1e-9)
        interval = stats.ttest_1samp(diff, 0.0).confidence_interval(0.90)
        assert (found.low, found.high) == pytest.approx(tuple(interval))


def test_models_are_equivalent_exactly_when_the_90_percent_interval_lies_inside_the_margin() -> None:
    rng = np.random.default_rng(4)
    outcomes = set()
    for _ in range(60):
        found = tost_paired(rng.choice([-1.0, 0.0, 1.0], 200, p=[0.1, 0.8, 0.1]), 0.06)
        inside = found.low > -0.06 and found.high < 0.06
        assert found.equivalent == inside
        outcomes.add(found.equivalent)
    assert outcomes == {True, False}


def test_a_false_claim_of_equivalence_is_made_in_one_run_of_twenty_at_most() -> None:
    rng = np.random.default_rng(5)
    claims = [tost_paired(rng.choice([-1.0, 0.0, 1.0], 300, p=[0.05, 0.8, 0.15]), 0.1).equivalent for _ in range(1500)]
    assert np.mean(claims) <= 0.065


def test_whole_clusters_count_as_one_unit() -> None:
    rng = np.random.default_rng(6)
    units = rng.choice([-1.0, 0.0, 1.0], 40)
    copies, clusters = np.repeat(units, 5), np.repeat(np.arange(40), 5).astype(str).tolist()
    assert tost_paired(copies, 0.2, clusters).p == pytest.approx(tost_paired(units, 0.2).p)
    assert tost_paired(copies, 0.2).p < tost_paired(copies, 0.2, clusters).p


def test_a_few_equal_answers_show_no_equivalence() -> None:
    assert not tost_paired(np.zeros(12), 0.05).equivalent
    assert tost_paired(np.zeros(500), 0.05).equivalent


@pytest.mark.parametrize(("diff", "margin"), [([0.0], 0.1), ([0.0, np.nan], 0.1), ([0.0, 1.0], 0.0)])
def test_what_cannot_be_tested_is_refused(diff: list[float], margin: float) -> None:
    with pytest.raises(ValueError, match="tost_paired"):
        tost_paired(diff, margin)
    with pytest.raises(ValueError, match="newcombe_paired"):
        newcombe_paired([True], [True, False])
