"""The experts of a child beside its parents': revived ones are counted, contradictions flagged, doubt said."""

from dataclasses import replace

import numpy as np
import pytest
from made_scans import EXPERTS, LAYERS, PROBES, TEXTS, made_scan, with_dead

from darwin_lab.mri.health import check_health
from darwin_lab.mri.health_record import Health
from darwin_lab.mri.moe_health import entropy_cap, moe_health

FATHER, MOTHER, CHILD = made_scan(1), made_scan(2, name="mother"), made_scan(3, name="child")


def metric(found, name):
    return next(row for row in found.metrics if row.name == name)


def test_an_expert_dead_in_the_mother_and_used_in_the_child_is_revived_with_the_tokens_that_chose_it():
    found = moe_health(CHILD, FATHER, with_dead(MOTHER, 1, 4))
    (one,) = found.revived
    assert (one.layer, one.expert, one.dead_in) == (1, 4, "mother")
    assert one.tokens == sum(int(CHILD.counts[probe][:, 1, 4].sum()) for probe in PROBES)
    assert one.load == pytest.approx(1.0)
    assert metric(found, "revived").child == 1
    assert found.died == ()


def test_an_expert_dead_in_both_and_alive_in_the_child_says_both():
    (one,) = moe_health(CHILD, with_dead(FATHER, 2, 0), with_dead(MOTHER, 2, 0)).revived
    assert one.dead_in == "both"


def test_an_expert_that_was_matched_is_looked_up_under_the_mothers_own_number():
    mother, order = with_dead(MOTHER, 1, 4), (0, 1, 4, 3, 2, *range(5, EXPERTS))
    (one,) = moe_health(CHILD, FATHER, mother, {1: order}).revived
    assert (one.layer, one.expert, one.dead_in) == (1, 2, "mother")
    (same,) = moe_health(CHILD, FATHER, mother, {2: order}).revived
    assert same.expert == 4
    assert not moe_health(with_dead(CHILD, 1, 2), FATHER, mother, {1: order}).died
    assert check_health(CHILD, FATHER, mother, expert_order={1: order}).moe.revived == (one,)


def test_a_handful_of_tokens_revives_nothing():
    counts = {probe: values.copy() for probe, values in with_dead(CHILD, 1, 4).counts.items()}
    counts["MATH"][0, 1, 4] = 1
    found = moe_health(replace(CHILD, counts=counts), FATHER, with_dead(MOTHER, 1, 4))
    assert found.revived == ()


def test_an_expert_alive_in_both_parents_and_dead_in_the_child_died():
    found = moe_health(with_dead(CHILD, 3, 2), FATHER, MOTHER)
    assert [(one.layer, one.expert, one.tokens) for one in found.died] == [(3, 2, 0)]
    assert metric(found, "died").status == "watch"
    assert metric(found, "dead_share").status == "ok"


def test_more_dead_than_in_either_parent_is_watched_and_more_than_half_is_an_alarm():
    two = with_dead(with_dead(CHILD, 3, 2), 1, 0)
    assert metric(moe_health(two, FATHER, MOTHER), "dead_share").status == "watch"
    most = CHILD
    for layer in range(LAYERS):
        for expert in range(EXPERTS - 2):
            most = with_dead(most, layer, expert)
    assert metric(moe_health(most, FATHER, MOTHER), "dead_share").status == "bad"


def test_half_of_256_dead_experts_cap_the_load_entropy_at_the_published_875():
    use = np.r_[np.full(128, 1 / 128), np.zeros(128)][None]
    assert entropy_cap(use, use == 0) == pytest.approx(np.log(128) / np.log(256))
    even = np.full((1, 256), 1 / 256)
    assert entropy_cap(even, np.zeros((1, 256), dtype=bool)) == pytest.approx(1.0)


def test_a_load_entropy_above_its_ceiling_is_a_contradiction_that_names_the_layer(monkeypatch):
    child = with_dead(CHILD, 1, 4)
    assert metric(moe_health(child, FATHER, MOTHER), "entropy_cap").status == "ok"
    report = child.expert_report()
    wrong = replace(report, load_entropy=np.ones_like(report.load_entropy))
    monkeypatch.setitem(child.__dict__, "_experts", wrong)
    found = metric(moe_health(child, FATHER, MOTHER), "entropy_cap")
    assert found.status == "bad"
    assert "L1" in found.note


def test_with_too_few_tokens_nothing_is_claimed():
    few = [made_scan(seed, tokens=4) for seed in (1, 2, 3)]
    found = moe_health(*few)
    assert metric(found, "dead_share").child is None
    assert {metric(found, name).status for name in ("dead_share", "entropy_cap", "revived", "died")} == {"unknown"}
    assert "not enough tokens" in found.note
    assert few[0].texts["MATH"] == TEXTS


def test_a_dense_model_has_no_experts_to_check():
    assert moe_health(*(made_scan(seed, moe=False) for seed in (1, 2, 3))) is None


def test_the_experts_survive_the_health_checks_json():
    found = check_health(with_dead(CHILD, 3, 2), FATHER, with_dead(MOTHER, 1, 4))
    assert Health.from_json(found.to_json()).moe == found.moe
