import json
from dataclasses import replace

import numpy as np
import pytest
from made_scans import LAYERS, PROBES, made_scan, with_dead, with_importance

from darwin_lab.errors import LabError
from darwin_lab.mri.health import check_health
from darwin_lab.mri.health_record import Health, Thresholds

FATHER, MOTHER, CHILD = made_scan(1), made_scan(2, name="mother"), made_scan(3, name="child")


def with_nll(scan, probe, value):
    return replace(scan, nll={**scan.nll, probe: np.full_like(scan.nll[probe], value)})


def test_a_child_like_its_parents_is_healthy():
    found = check_health(FATHER, FATHER, MOTHER)
    assert found.verdict == "healthy"
    assert found.flagged_layers == ()
    assert found.advice == ()
    assert len(found.rows) == LAYERS * len(PROBES)


def test_importance_above_both_parents_is_interference_and_names_the_layer():
    child = with_importance(CHILD, "skip", "MATH", 2, 1.5)
    found = check_health(child, FATHER, MOTHER)
    assert found.flagged_layers == (2,)
    assert found.verdict == "watch"
    assert "interference in L2 (on MATH)" in found.sentence
    (row,) = [row for row in found.rows if row.interference]
    assert (row.layer, row.probe) == (2, "MATH")


def test_the_verdict_names_the_layer_and_the_probe_of_the_worst_finding():
    child = with_importance(with_importance(CHILD, "skip", "MATH", 2, 1.5), "skip", "CODE", 3, 9.0)
    assert "interference in L2, L3 (worst in L3 on CODE)" in check_health(child, FATHER, MOTHER).sentence
    child = with_importance(with_importance(CHILD, "skip", "MATH", 2, 1.5), "skip", "CODE", 2, 9.0)
    assert "interference in L2 (worst on CODE)" in check_health(child, FATHER, MOTHER).sentence
    least = with_importance(with_importance(CHILD, "skip", "MATH", 1, 0.1), "skip", "CODE", 1, 0.2)
    parents = [with_importance(with_importance(one, "skip", "MATH", 1, 2.0), "skip", "CODE", 1, 2.0)
               for one in (FATHER, MOTHER)]  # fmt: skip
    assert "function lost in L1 (worst on MATH)" in check_health(least, *parents).sentence


def test_the_interference_line_is_factor_times_the_larger_parent_plus_margin():
    father, mother = with_importance(FATHER, "skip", "CODE", 1, 0.4), with_importance(MOTHER, "skip", "CODE", 1, 0.8)
    line = 1.25 * 0.8 + 0.02
    for importance, flagged in ((line - 0.005, False), (line + 0.005, True)):
        found = check_health(with_importance(CHILD, "skip", "CODE", 1, importance), father, mother)
        assert (1 in found.flagged_layers) is flagged


def test_a_layer_important_in_a_parent_and_not_in_the_child_lost_its_function():
    mother = with_importance(MOTHER, "skip", "MATH", 3, 2.0)
    father = with_importance(FATHER, "skip", "MATH", 3, 1.2)
    for importance, factor, lost in ((0.9, 1.25, True), (0.97, 1.25, False), (0.97, 0.0, True), (1.1, 0.0, False)):
        child = with_importance(CHILD, "skip", "MATH", 3, importance)
        found = check_health(child, father, mother, thresholds=Thresholds(inherited_factor=factor))
        assert [row.layer for row in found.rows if row.function_loss] == ([3] if lost else [])


def test_a_parent_beside_the_other_has_lost_nothing():
    mother = with_importance(MOTHER, "skip", "MATH", 3, 9.0)
    assert check_health(FATHER, FATHER, mother).flagged_layers == ()
    as_written = Thresholds(inherited_factor=0.0)
    assert check_health(FATHER, FATHER, mother, thresholds=as_written).flagged_layers == (3,)


def test_unimportant_layers_may_lose_their_function():
    father = with_importance(with_importance(FATHER, "skip", "MATH", 0, 0.3), "skip", "MATH", 1, 3.0)
    mother = with_importance(with_importance(MOTHER, "skip", "MATH", 0, 0.3), "skip", "MATH", 1, 3.0)
    child = with_importance(with_importance(CHILD, "skip", "MATH", 0, 0.01), "skip", "MATH", 1, 3.0)
    assert check_health(child, father, mother).flagged_layers == ()


def test_nll_stands_beside_both_parents_with_paired_intervals():
    child = with_nll(CHILD, "CODE", 2.3)
    row = next(row for row in check_health(child, FATHER, MOTHER).nll if row.probe == "CODE")
    mean, low, high = row.child_minus_father
    assert mean == pytest.approx(0.3, abs=0.02)
    assert low <= mean <= high
    assert row.lost


def test_worse_than_one_parent_only_is_not_lost():
    child, father = with_nll(CHILD, "CODE", 2.3), with_nll(FATHER, "CODE", 2.6)
    found = check_health(child, father, MOTHER)
    assert not any(row.lost for row in found.nll)
    assert found.verdict == "healthy"


def test_far_worse_than_both_parents_is_unhealthy():
    found = check_health(with_nll(CHILD, "CODE", 4.0), FATHER, MOTHER)
    assert found.verdict == "unhealthy"
    assert "CODE" in found.sentence


def test_many_flagged_layers_are_unhealthy_and_the_thresholds_are_kept():
    child = CHILD
    for layer in range(3):
        child = with_importance(child, "skip", "MATH", layer, 2.0)
    assert check_health(child, FATHER, MOTHER).verdict == "unhealthy"
    lenient = Thresholds(unhealthy_layers=0.9)
    found = check_health(child, FATHER, MOTHER, thresholds=lenient)
    assert found.verdict == "watch"
    assert found.thresholds == lenient


def test_advice_points_to_the_parent_that_reads_the_failing_probe_better():
    child = with_importance(CHILD, "skip", "MATH", 1, 2.0)
    for father_nll, mother_nll, towards in ((2.0, 1.5, "mother"), (1.4, 1.9, "father")):
        father, mother = with_nll(FATHER, "MATH", father_nll), with_nll(MOTHER, "MATH", mother_nll)
        (advice,) = check_health(child, father, mother).advice
        assert (advice.layer, advice.towards, advice.probes) == (1, towards, ("MATH",))
        assert advice.gap == pytest.approx(abs(father_nll - mother_nll), abs=1e-4)


def test_a_transplant_succeeds_when_importance_and_nll_reach_the_mothers():
    mother = with_nll(with_importance(MOTHER, "skip", "MATH", 2, 1.5), "MATH", 1.0)
    mother = with_nll(with_nll(mother, "CODE", 3.0), "NEUTRAL", 3.0)
    good = with_nll(with_importance(CHILD, "skip", "MATH", 2, 1.6), "MATH", 0.9)
    (done,) = check_health(good, FATHER, mother, golden=(2,)).transplants
    assert done.successful
    assert done.probes == ("MATH",)
    for bad in (with_nll(good, "MATH", 1.4), with_importance(good, "skip", "MATH", 2, 1.2)):
        found = check_health(bad, FATHER, mother, golden=(2,))
        assert found.transplants[0].failed == ("MATH",)
        assert found.verdict == "watch"
        assert "L2" in found.sentence


def test_values_that_are_not_finite_are_unhealthy_and_located():
    child = with_importance(CHILD, "loss", "CODE", 3, np.nan)
    found = check_health(child, FATHER, MOTHER)
    assert found.verdict == "unhealthy"
    assert "loss of CODE, L3" in found.sentence


def test_dead_experts_of_all_three_stand_side_by_side():
    found = check_health(CHILD, FATHER, with_dead(MOTHER, 1, 4))
    assert found.dead_share["mother"] == pytest.approx((0, 1 / 8, 0, 0))
    assert found.dead_share["child"] == (0, 0, 0, 0)
    assert check_health(*(made_scan(seed, moe=False) for seed in (1, 2, 3))).dead_share["child"] is None


def test_a_health_check_survives_json():
    child = with_importance(CHILD, "skip", "MATH", 1, 2.0)
    found = check_health(child, FATHER, MOTHER, golden=(2,))
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert Health.from_json(data).to_json() == found.to_json()
    with pytest.raises(LabError):
        Health.from_json({"verdict": "healthy"})


def test_scans_of_other_probes_are_refused():
    with pytest.raises(LabError, match="probe set"):
        check_health(replace(CHILD, probes_hash="other"), FATHER, MOTHER)
    with pytest.raises(LabError, match="golden layer 9"):
        check_health(CHILD, FATHER, MOTHER, golden=(9,))
