from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darwin_lab.statistics.claim import check_claim, is_possible, shown
from darwin_lab.statistics.proportion import chance_corrected, wilson


@pytest.mark.parametrize(("score", "n", "possible"), [("90.0", 198, False), ("82.89", 200, False), ("88.9", 198, True)])
def test_the_published_scores_are_told_apart(score: str, n: int, possible: bool) -> None:
    assert is_possible(score, n) == possible
    assert check_claim(score, n).possible == possible


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.integers(0, 4))
def test_every_true_score_is_possible_and_its_count_is_named(count: tuple[int, int], decimals: int) -> None:
    k, n = count
    claim = check_claim(shown(k, n, decimals), n)
    assert claim.possible
    assert claim.counts[0] <= k <= claim.counts[-1]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.integers(0, 1000))
def test_a_score_is_possible_exactly_when_some_count_is_printed_so(n: int, tenths: int) -> None:
    score = Decimal(tenths) / 10
    near = [k for k in range(n + 1) if abs(Decimal(100 * k) / n - score) <= Decimal("0.05") + Decimal("1e-20")]
    assert is_possible(f"{score:.1f}", n) == bool(near)


def test_the_digits_printed_decide() -> None:
    assert is_possible("90", 198)
    assert not is_possible("90.0", 198)
    assert not is_possible(90.0, 198, decimals=1)
    assert is_possible("66.7", 3)
    assert not is_possible("66.6", 3)
    assert check_claim("66.6", 3).cut


def test_the_check_names_the_neighbours_the_runs_the_interval_and_the_gap() -> None:
    claim = check_claim("90.0 %", 198)
    assert (claim.below, claim.above) == (178, 179)
    assert claim.runs is not None
    assert is_possible("90.0", 198 * claim.runs)
    assert not any(is_possible("90.0", 198 * fewer) for fewer in range(1, claim.runs))
    assert claim.interval == wilson(178, 198)
    assert 0.05 < claim.gap < 0.12


NO_SCORES = [("ninety", 198), ("101", 5), ("-1", 5), ("nan", 5), ("50", 0), ("1e1", 10), ("1e-999999999", 10)]


@pytest.mark.parametrize(("score", "n"), [*NO_SCORES, ("90", 10**9 + 1), ("90", 10**30)])
def test_what_is_no_score_is_refused(score: str, n: int) -> None:
    with pytest.raises(ValueError, match=r"percent|outside|items|exponent"):
        check_claim(score, n)


def test_the_counts_of_many_items_are_two_ends_and_take_no_memory() -> None:
    claim = check_claim("90", 10**9)
    assert (claim.counts[0], claim.counts[-1]) == (895_000_000, 905_000_000)
    assert isinstance(claim.counts, range)


def test_accuracy_above_chance_is_zero_for_a_guesser_and_one_for_all_right() -> None:
    assert chance_corrected(0.25, 0.25) == 0
    assert chance_corrected(1, 0.25) == 1
    assert chance_corrected(0.625, 0.25) == pytest.approx(0.5)
    assert chance_corrected(0.1, 0.25) < 0
    with pytest.raises(ValueError, match="chance"):
        chance_corrected(0.5, 1.0)
