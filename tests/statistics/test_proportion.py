import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from darwin_lab.statistics.proportion import wilson


@settings(deadline=None, max_examples=50)
@given(n=st.integers(1, 500), share=st.floats(0, 1), level=st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_scipys_wilson_interval(n: int, share: float, level: float) -> None:
    successes = round(share * n)
    reference = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    assert wilson(successes, n, level) == pytest.approx((reference.low, reference.high), abs=1e-9)


def test_without_observations_nothing_is_known() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_all_right_reaches_exactly_one_and_none_right_exactly_zero() -> None:
    assert wilson(7, 7)[1] == 1.0
    assert wilson(0, 7)[0] == 0.0


@pytest.mark.parametrize("successes", [-1, 6])
def test_impossible_counts_are_refused(successes: int) -> None:
    with pytest.raises(ValueError, match="out of 5"):
        wilson(successes, 5)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.93])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(p: float) -> None:
    counts = np.random.default_rng(1).binomial(100, p, size=4000)
    covered = np.mean([low <= p <= high for low, high in (wilson(int(count), 100) for count in counts)])
    assert 0.92 < covered < 0.98
