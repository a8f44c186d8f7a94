"""A child beside its parents: what may be said, and what two parents leave to gain."""

import numpy as np
import pytest

from darwin_lab.scoring.score import Score
from darwin_lab.scoring.vigour import common, complementarity, paired_accuracy, vigour_rows
from darwin_lab.statistics.paired import mcnemar_exact


def score(right: list[bool] | np.ndarray, clusters: list[str] | None = None, names: list[str] | None = None) -> Score:
    n = len(right)
    ids = tuple(names or [f"i{k}" for k in range(n)])
    return Score(
        ids, ("T",) * n, np.array(right, dtype=bool), np.array(right, dtype=bool), np.full(n, np.nan),
        tuple((0.0, -1.0) for _ in range(n)), (0,) * n, tuple(clusters or ids),
    )  # fmt: skip


def block(n: int, *right: int) -> np.ndarray:
    """n items, right on those from right[0] up to right[1]."""
    return (np.arange(n) >= right[0]) & (np.arange(n) < right[1])


def test_a_child_right_where_either_parent_is_surpasses_both_on_report_items() -> None:
    row = vigour_rows(
        {"A": (score(block(100, 0, 90)), score(block(100, 0, 60)), score(block(100, 30, 90)))}, report=True
    )[0]
    assert row.verdict == "surpasses both parents"
    assert (row.n, row.child, row.father, row.mother) == (100, 0.9, 0.6, 0.6)
    assert row.minus_father.p == mcnemar_exact(block(100, 0, 90), block(100, 0, 60)).p
    assert row.minus_father.low > 0 and row.relative == pytest.approx(0.5)


def test_on_other_items_the_same_numbers_claim_nothing() -> None:
    scores = {"A": (score(block(100, 0, 90)), score(block(100, 0, 60)), score(block(100, 30, 90)))}
    row = vigour_rows(scores, report=False, split="selection")[0]
    assert "surpasses" not in row.verdict and "only report items" in row.verdict


def test_a_small_lead_shows_no_difference_and_says_on_how_many_items() -> None:
    scores = {"A": (score(block(40, 0, 30)), score(block(40, 0, 28)), score(block(40, 0, 27)))}
    assert vigour_rows(scores, report=True)[0].verdict == "no difference shown (n=40)"


def test_a_lead_on_one_parent_alone_is_told_apart() -> None:
    scores = {"A": (score(block(200, 0, 150)), score(block(200, 0, 148)), score(block(200, 0, 90)))}
    assert vigour_rows(scores, report=True)[0].verdict == "no difference shown to the father, above the mother (n=200)"


def test_many_benchmarks_make_a_narrow_lead_no_claim() -> None:
    close = (score(block(100, 0, 66)), score(block(100, 0, 59)), score(block(100, 0, 59)))
    alone = vigour_rows({"A": close}, report=True)[0]
    assert alone.p < 0.05 and alone.p_holm == alone.p and alone.verdict == "surpasses both parents"
    others = {f"B{k}": (score(block(50, 0, 20)),) * 3 for k in range(4)}
    among = vigour_rows({"A": close, **others}, report=True)[0]
    assert among.p == alone.p and among.p_holm == pytest.approx(5 * alone.p)
    assert "Holm" in among.verdict and "surpasses" not in among.verdict


def test_only_items_all_three_answered_are_compared() -> None:
    names = [f"i{k}" for k in range(10)]
    child = score(block(6, 0, 6), names=names[4:])
    row = vigour_rows({"A": (child, score(block(10, 0, 5)), score(block(8, 0, 8), names=names[:8]))}, report=True)[0]
    assert (row.n, row.child, row.father, row.mother) == (4, 1.0, 0.25, 1.0)
    assert vigour_rows({"A": (child, score(block(2, 0, 2)), score(block(2, 0, 2)))}, report=True) == []


def test_items_of_one_passage_are_not_counted_as_if_they_stood_alone() -> None:
    clusters = [f"p{k // 10}" for k in range(60)]
    a, b = score(block(60, 0, 60), clusters), score(block(60, 0, 40), clusters)
    assert paired_accuracy(a, b).p == 0.5  # two passages of six differ: 2 of 4 flips are as far from zero
    assert paired_accuracy(score(block(60, 0, 60)), score(block(60, 0, 40))).p < 1e-5
    with pytest.raises(ValueError, match="not the same"):
        paired_accuracy(a, score(block(2, 0, 2)))


def test_complementarity_counts_every_item_once() -> None:
    found = complementarity(score(block(100, 0, 60)), score(block(100, 40, 90)))
    assert found is not None
    parts = (found.only_father, found.only_mother, found.both, found.neither)
    assert [part.count for part in parts] == [40, 30, 20, 10]
    assert sum(part.value for part in parts) == pytest.approx(1.0)
    assert all(part.low < part.value < part.high for part in parts)
    assert found.headroom.value == pytest.approx(0.30) and found.headroom.low < 0.30 < found.headroom.high
    assert found.blend is None and found.barrier is None


def test_a_blend_below_its_parents_is_a_barrier_and_one_between_them_is_none() -> None:
    father, mother = score(block(400, 0, 240)), score(block(400, 160, 400))
    low = complementarity(father, mother, score(block(400, 0, 100)))
    assert low is not None and low.barrier is not None and low.barrier.low > 0
    assert low.barrier.value == pytest.approx(0.35) and "loses 35.0 points" in low.sentence
    even = complementarity(father, mother, score(block(400, 80, 320)))
    assert even is not None and "no barrier is shown" in even.sentence
    high = complementarity(father, mother, score(block(400, 0, 380)))
    assert high is not None and "gains 35.0 points" in high.sentence


def test_complementarity_of_no_common_item_is_none() -> None:
    assert complementarity(score([True], names=["x"]), score([True], names=["y"])) is None
    assert [part.n for part in common([score([True], names=["x"]), score([True], names=["y"])])] == [0, 0]
