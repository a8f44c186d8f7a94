from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from darwin_lab.statistics.paired import (
    can_be_shown,
    holm,
    mcnemar_exact,
    paired_bootstrap,
    smallest_gap,
    stratified_permutation,
)

bools = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@settings(deadline=None, max_examples=50)
@given(bools)
def test_mcnemar_is_the_binomial_test_of_the_discordant_items(pairs: list[tuple[bool, bool]]) -> None:
    a, b = np.array(pairs).T
    result = mcnemar_exact(a, b)
    assert result.a_only == sum(x and not y for x, y in pairs)
    assert result.b_only == sum(y and not x for x, y in pairs)
    discordant = result.a_only + result.b_only
    reference = stats.binomtest(result.a_only, discordant, 0.5).pvalue if discordant else 1.0
    assert result.p == pytest.approx(reference, rel=1e-9)


def test_mcnemar_refuses_different_lengths() -> None:
    with pytest.raises(ValueError, match="shapes"):
        mcnemar_exact([True], [True, False])


def brute_force_p(diff: np.ndarray, strata: list[str]) -> float:
    def statistic(values: np.ndarray) -> float:
        return float(np.mean([values[np.array(strata) == name].mean() for name in sorted(set(strata))]))

    observed = abs(statistic(diff))
    flips = [abs(statistic(diff * np.array(signs))) for signs in product((-1, 1), repeat=len(diff))]
    return float(np.mean([flip >= observed - 1e-9 for flip in flips]))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(-2, 2), st.sampled_from("xyz")), min_size=1, max_size=8))
def test_few_items_are_tested_exactly_as_brute_force_does(rows: list[tuple[int, str]]) -> None:
    diff, strata = np.array([row[0] for row in rows], dtype=float), [row[1] for row in rows]
    assert stratified_permutation(diff, 0 * diff, strata, draws=50).p == pytest.approx(brute_force_p(diff, strata))


def test_many_items_agree_with_scipys_permutation_test() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random(80) + 0.07, rng.random(80)
    ours = stratified_permutation(a, b, ["only"] * 80, draws=20_000)
    reference = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=20_000, rng=1
    )
    assert ours.p == pytest.approx(reference.pvalue, abs=0.02)


def test_each_stratum_counts_the_same_however_many_items_it_has() -> None:
    a = np.array([1.0] * 90 + [0.0] * 10)
    b = np.zeros(100)
    result = stratified_permutation(a, b, ["large"] * 90 + ["small"] * 10)
    assert result.difference == pytest.approx(0.5)
    assert result.n == 100


def test_swapping_the_models_mirrors_difference_and_interval_and_keeps_p() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.random(60), rng.random(60)
    strata = ["s", "t"] * 30
    one, other = stratified_permutation(a, b, strata), stratified_permutation(b, a, strata)
    assert (one.difference, one.low, one.high) == pytest.approx((-other.difference, -other.high, -other.low))
    assert one.p == other.p


def test_equal_models_differ_by_nothing_with_p_one() -> None:
    result = stratified_permutation([1.0, 0.0] * 20, [1.0, 0.0] * 20, ["s"] * 40)
    assert (result.difference, result.low, result.high, result.p) == (0, 0, 0, 1)


def test_the_same_seed_gives_the_same_test_and_another_seed_another_interval() -> None:
    rng = np.random.default_rng(5)
    a, b, strata = rng.random(50), rng.random(50), ["s"] * 50
    assert stratified_permutation(a, b, strata, seed=7) == stratified_permutation(a, b, strata, seed=7)
    assert stratified_permutation(a, b, strata, seed=7).low != stratified_permutation(a, b, strata, seed=8).low


def test_copies_of_an_item_in_one_cluster_add_no_evidence() -> None:
    rng = np.random.default_rng(6)
    diff = rng.normal(0.2, 1, 30)
    alone = stratified_permutation(diff, 0 * diff, ["s"] * 30)
    copied = stratified_permutation(
        np.repeat(diff, 4), np.zeros(120), ["s"] * 120, clusters=[str(i) for i in range(30) for _ in range(4)]
    )
    counted = stratified_permutation(np.repeat(diff, 4), np.zeros(120), ["s"] * 120)
    assert copied.p == pytest.approx(alone.p, abs=0.02)
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=0.05)
    assert counted.p < copied.p / 2


def test_a_cluster_may_span_strata() -> None:
    diff = np.random.default_rng(7).normal(size=40)
    doubled = np.concatenate([diff, diff])
    strata = ["en"] * 40 + ["ko"] * 40
    result = stratified_permutation(doubled, 0 * doubled, strata, clusters=[str(i) for i in range(40)] * 2)
    alone = stratified_permutation(diff, 0 * diff, ["en"] * 40)
    assert result.difference == pytest.approx(alone.difference)
    assert result.p == pytest.approx(alone.p, abs=0.02)
    assert result.high - result.low == pytest.approx(alone.high - alone.low, rel=0.05)


def test_under_the_null_p_is_below_a_twentieth_about_that_often() -> None:
    rng = np.random.default_rng(8)
    strata = ["s"] * 20 + ["t"] * 30
    ps = [stratified_permutation(rng.random(50), rng.random(50), strata, draws=400).p for _ in range(400)]
    assert 0.02 < np.mean(np.array(ps) <= 0.05) < 0.085


def test_the_stratified_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(9)
    strata = ["s"] * 60 + ["t"] * 120
    centre = np.array([0.1] * 60 + [0.3] * 120)
    hits = []
    for _ in range(300):
        diff = rng.normal(centre, 1.0)
        result = stratified_permutation(diff, 0 * diff, strata, draws=300)
        hits.append(result.low <= 0.2 <= result.high)
    assert 0.91 < np.mean(hits) < 0.98


@pytest.mark.parametrize(
    ("a", "b", "strata"), [([], [], []), ([1.0], [1.0, 2.0], ["s"]), ([np.nan], [0.0], ["s"]), ([1.0], [0.0], [])]
)
def test_input_that_cannot_be_tested_is_refused(a: list[float], b: list[float], strata: list[str]) -> None:
    with pytest.raises(ValueError, match=r"paired test|stratified_permutation"):
        stratified_permutation(a, b, strata)


def test_the_paired_bootstrap_gives_the_normal_interval_of_a_large_sample() -> None:
    diff = np.random.default_rng(10).normal(0.3, 2.0, 2000)
    mean, low, high = paired_bootstrap(diff, draws=4000)
    half = 1.96 * diff.std(ddof=1) / np.sqrt(2000)
    assert mean == pytest.approx(diff.mean())
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.1 * half)


def test_clustered_copies_do_not_narrow_the_bootstrap() -> None:
    diff = np.random.default_rng(11).normal(size=50)
    _, low, high = paired_bootstrap(diff)
    copies = [str(i) for i in range(50) for _ in range(3)]
    _, low_copied, high_copied = paired_bootstrap(np.repeat(diff, 3), clusters=copies)
    assert high_copied - low_copied == pytest.approx(high - low, rel=0.05)


def test_holm_of_the_textbook_case() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_never_lowers_a_p_value_nor_changes_their_order(ps: list[float]) -> None:
    adjusted = holm(ps)
    assert all(p <= q <= 1 for p, q in zip(ps, adjusted, strict=True))
    order = np.argsort(ps, kind="stable")
    assert np.all(np.diff(np.array(adjusted)[order]) >= 0)


@pytest.mark.parametrize(("n", "p"), [(6, 0.5), (20, 0.9), (50, 1.0), (198, 0.5), (198, 0.995), (1000, 0.7)])
def test_the_smallest_gap_is_found_four_times_in_five(n: int, p: float) -> None:
    gap = smallest_gap(n, p)
    better = min(1.0, p + gap / 2)
    rng = np.random.default_rng(12)
    a, b = rng.random((2000, n)) < better, rng.random((2000, n)) < better - gap
    found = [mcnemar_exact(left, right).p < 0.05 for left, right in zip(a, b, strict=True)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.035)


def test_too_few_items_show_no_gap() -> None:
    assert smallest_gap(5) == 1.0
    assert not can_be_shown(5)
    assert can_be_shown(6)


def test_more_items_and_agreeing_models_show_smaller_gaps() -> None:
    assert smallest_gap(0) == 1.0
    assert smallest_gap(400) < smallest_gap(100)
    assert smallest_gap(400, correlation=0.8) < smallest_gap(400)
