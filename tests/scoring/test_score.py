import json
from dataclasses import replace

import numpy as np
import pytest

from darwin_lab.errors import LabError
from darwin_lab.scoring.score import Score, compare_scores, from_rows, join_scores
from darwin_lab.statistics.proportion import wilson


def make(n: int = 6, seed: int = 0, prefix: str = "i") -> Score:
    rng = np.random.default_rng(seed)
    ids = tuple(f"{prefix}{row}" for row in range(n))
    return Score(
        ids=ids,
        tasks=tuple("uv"[row % 3 == 0] for row in range(n)),
        acc=rng.random(n) < 0.5,
        acc_norm=rng.random(n) < 0.5,
        p_gold=rng.random(n),
        loglik=tuple(tuple(rng.normal(size=4).tolist()) for _ in range(n)),
        predictions=tuple(int(choice) for choice in rng.integers(0, 4, n)),
        clusters=ids,
    )


def test_a_benchmark_holds_the_means_of_its_items_and_the_interval_of_acc() -> None:
    score = make(60)
    bench = score.benchmarks()["v"]
    rows = np.arange(0, 60, 3)
    assert bench.n == 20
    assert bench.acc == pytest.approx(score.acc[rows].mean())
    assert bench.acc_norm == pytest.approx(score.acc_norm[rows].mean())
    assert bench.p_gold == pytest.approx(score.p_gold[rows].mean())
    assert bench.interval == wilson(int(score.acc[rows].sum()), 20)
    assert bench.chance == 0.25


def test_the_headline_means_weigh_tasks_and_not_items() -> None:
    score = make(60)
    benchmarks = score.benchmarks().values()
    assert score.mean_acc == pytest.approx(np.mean([bench.acc for bench in benchmarks]))
    assert score.mean_p_gold == pytest.approx(np.mean([bench.p_gold for bench in benchmarks]))


def test_generated_answers_have_no_p_gold_and_no_chance() -> None:
    score = replace(make(), p_gold=np.full(6, np.nan), loglik=((),) * 6)
    assert {bench.p_gold for bench in score.benchmarks().values()} == {None}
    assert {bench.chance for bench in score.benchmarks().values()} == {0.0}
    assert np.isnan(score.mean_p_gold)
    assert not np.isnan(score.mean_acc)


def test_rows_go_through_json_and_come_back_the_same() -> None:
    score = make()
    score = replace(
        score,
        p_gold=np.array([*score.p_gold[:5], np.nan]),
        loglik=(*score.loglik[:4], (float("nan"), -1.0), ()),
        predictions=(*score.predictions[:5], "a text"),
    )
    text = "\n".join(json.dumps(row, allow_nan=False) for row in score.to_rows())
    back = from_rows([json.loads(line) for line in text.splitlines()])
    assert back.to_rows() == score.to_rows()
    assert back.p_gold == pytest.approx(score.p_gold, nan_ok=True)
    assert back.acc.dtype == bool


def test_a_row_without_a_field_is_refused() -> None:
    rows = make().to_rows()
    del rows[2]["acc"]
    with pytest.raises(LabError, match="lacks the field 'acc'"):
        from_rows(rows)


def test_a_selection_by_mask_or_by_ids_keeps_the_columns_together() -> None:
    score = make()
    assert score.select(np.array([0, 1, 0, 0, 0, 1], dtype=bool)).to_rows() == [score.to_rows()[row] for row in (1, 5)]
    assert score.select(["i4", "i2"]).to_rows() == [score.to_rows()[row] for row in (4, 2)]
    assert score.select([]).n == 0
    with pytest.raises(LabError, match="'i9' was not scored"):
        score.select(["i9"])
    with pytest.raises(ValueError, match="mask"):
        score.select(np.array([True]))


def test_joined_scores_follow_the_order_asked_for() -> None:
    joined = join_scores([make(3, prefix="a"), make(2, prefix="b")], ["b1", "a0", "b0", "a2", "a1"])
    assert joined.ids == ("b1", "a0", "b0", "a2", "a1")
    assert joined.loglik[1] == make(3, prefix="a").loglik[0]


def test_two_scores_are_compared_item_by_item_whatever_their_order() -> None:
    score = make(60)
    better = replace(score, acc=score.acc | (np.arange(60) % 4 == 0))
    test = compare_scores(better, score.select(list(reversed(score.ids))))
    assert test.n == 60
    assert test.difference == pytest.approx(better.mean_acc - score.mean_acc)
    assert test.p < 0.05
    assert test.low > 0


def test_items_of_one_cluster_are_not_counted_as_separate_evidence() -> None:
    score = make(60)
    better = replace(score, acc=score.acc | (np.arange(60) % 4 == 0))
    passages = tuple(str(row // 15) for row in range(60))
    clustered = compare_scores(replace(better, clusters=passages), replace(score, clusters=passages))
    assert clustered.p > compare_scores(better, score).p


def test_scores_of_different_items_are_not_compared() -> None:
    with pytest.raises(LabError, match="different items"):
        compare_scores(make(6), make(5))
