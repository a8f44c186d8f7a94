"""The Health tab over a real lab: a child with an interference planted at one layer, its mending, and other models."""

import json
from dataclasses import replace

import pytest

from darwin_lab.errors import LabError
from darwin_lab.genome.genome import genome_from_json, neutral_genome
from darwin_lab.lab.lab import Lab
from darwin_lab.mri.health_record import Thresholds, Transplant
from darwin_lab.mri.moe_health import Expert, Metric, MoeHealth
from darwin_lab.ui.tabs import health, health_views
from tests.mri.planted import PLANTED, PROBES, write_parent


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("home"), cpus=1)
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def pair(lab, tmp_path_factory):
    root = tmp_path_factory.mktemp("planted")
    for who in ("father", "mother"):
        write_parent(root / who, who)
    rows = [{"probe": probe, "text": text} for probe, texts in PROBES.texts.items() for text in texts]
    (root / "probes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return lab.open_pair(root / "father", root / "mother", probes=root / "probes.jsonl")


@pytest.fixture(scope="module")
def genome(pair):
    return neutral_genome("v6", pair.anatomy.layers).with_genes(mri_trust=0.0)


@pytest.fixture(scope="module")
def mending(lab, pair, genome):
    lab.wait(lab.care.request_mending(pair, genome))
    return lab.care.mending(pair, lab.recipe(pair, genome).hash)


def test_the_planted_layer_is_hatched_and_labelled_and_no_other(lab, pair, genome, mending):
    chart = health_views.bar_chart(mending.before, health_views.ALL)
    child = chart.figure.data[0]
    assert [layer for layer, shape in enumerate(child.marker.pattern.shape) if shape] == [PLANTED]
    named = ", ".join(dict.fromkeys(row.probe for row in mending.before.rows if row.interference))
    assert list(chart.figure.data[-1].text) == [f"L{PLANTED}<br>interference<br>(on {named})"]
    assert f"L{PLANTED} interference (on {named})" in chart.note
    assert f"L{PLANTED} interference (on {named})" in health_views.flag_words(mending.before)
    assert health_views.flag_words(mending.after) == ""
    one = health_views.bar_chart(mending.before, named.split(", ")[0])
    assert list(one.figure.data[-1].text) == [f"L{PLANTED}<br>interference"]
    assert f"L{PLANTED}" in mending.before.sentence


def test_one_click_mends_and_both_checks_stand_side_by_side(lab, pair, genome, mending):
    assert mending.before.flagged_layers == (PLANTED,)
    assert mending.after.flagged_layers == ()
    words = health_views.mended_verdicts(mending)
    assert f"Before: {mending.before.verdict}" in words
    assert f"After: {mending.after.verdict}" in words
    (row,) = health_views.mended_layers(mending)["rows"]
    assert row["cells"][0] == f"L{PLANTED}"
    assert row["cells"][2] == pytest.approx(0.5)
    assert row["cells"][3] == mending.layers[0].after
    assert row["cells"][4].startswith("interference (on ")
    assert row["cells"][5] == "—"
    assert [row["id"] for row in health_views.mended_losses(mending)["rows"]] == list(PROBES.names)


def test_the_mended_genome_pins_the_layer_and_moves_no_other_tensor(lab, pair, genome, mending):
    moved = genome_from_json(mending.genome, pair.anatomy.layers)
    assert moved == replace(genome, pinned={PLANTED: mending.layers[0].after})
    before, after = lab.recipe(pair, genome), lab.recipe(pair, moved)
    assert after.hash == mending.mended
    changed = {name for name, row in after.rows.items() if row.decision != before.rows[name].decision}
    assert changed == {part.name for part in pair.anatomy.mergeable if part.layer == PLANTED}


def test_a_mending_is_there_for_a_later_lab_too(lab, pair, genome, mending):
    again = Lab(lab.store.home, cpus=1)
    try:
        known = again.pair(pair.key)
        assert again.care.mending(known, mending.child).to_json() == mending.to_json()
    finally:
        again.close()


def test_a_child_without_flags_has_nothing_to_mend(lab, pair, genome, mending):
    with pytest.raises(LabError, match="nothing to mend"):
        lab.wait(lab.care.request_mending(pair, genome_from_json(mending.genome, pair.anatomy.layers)))
    with pytest.raises(LabError, match="Plain blend"):
        lab.care.request_mending(pair, "mother")


def test_thresholds_act_at_once_on_what_is_stored(lab, pair, genome, mending):
    child = lab.recipe(pair, genome).hash
    strict = health.limits_of((1.25, 0.02, 0.5, 0.75, 1.25, 0.25, 0.5))
    assert lab.health(pair, child, **strict).flagged_layers == (PLANTED,)
    assert lab.health(pair, child, interference_margin=9.0).flagged_layers == ()
    assert health.limits_of((None,) * len(health.LIMITS))["interference_factor"] == Thresholds().interference_factor
    with pytest.raises(LabError, match="loss_quantile is 2"):
        lab.health(pair, child, loss_quantile=2.0)


def test_an_exported_folder_is_checked_as_its_virtual_child_is(lab, pair, genome, mending, tmp_path):
    lab.wait(lab.request_export(pair, genome, tmp_path / "child"))
    assert lab.care.check(pair, tmp_path / "child") is None
    lab.wait(lab.care.request_check(pair, tmp_path / "child"))
    found = lab.care.check(pair, tmp_path / "child")
    assert found.layer_importance == mending.before.layer_importance
    assert [row.child for row in found.nll] == [row.child for row in mending.before.nll]
    assert [one.name for one in lab.care.checked(pair)] == ["child"]


def test_a_folder_of_another_architecture_is_refused_at_once(lab, pair, tiny_llama_pair):
    with pytest.raises(LabError, match="parents differ in"):
        lab.care.request_check(pair, tiny_llama_pair[0])


def test_a_folder_that_is_not_there_is_refused_at_once(lab, pair, tmp_path):
    with pytest.raises(LabError, match="no folder"):
        lab.care.request_check(pair, tmp_path / "nowhere")


def test_the_report_holds_check_and_mending(mending):
    data = json.loads(health_views.report_text(mending.before, mending))
    assert data["flagged_layers"] == [PLANTED]
    assert data["mending"]["mended"] == mending.mended
    assert data["mending"]["after"]["verdict"] == mending.after.verdict


def test_the_losses_beside_both_parents_carry_their_intervals(mending):
    chart = health_views.gap_chart(mending.before)
    for trace, field in zip(chart.figure.data, ("child_minus_father", "child_minus_mother"), strict=True):
        gaps = [getattr(row, field) for row in mending.before.nll]
        assert list(trace.x) == [gap[0] for gap in gaps]
        assert list(trace.error_x.array) == pytest.approx([gap[2] - gap[0] for gap in gaps])


@pytest.mark.parametrize(
    ("father", "mother", "said"),
    [
        ((1.0, 0.5, 1.5), (1.0, 0.5, 1.5), "worse than both"),
        ((1.0, 0.5, 1.5), (-1.0, -1.5, -0.5), "between the parents"),
        ((1.0, 0.5, 1.5), (0.0, -0.1, 0.1), "worse than the father, not shown worse than the mother"),
        ((0.0, -0.1, 0.1), (-1.0, -1.5, -0.5), "better than the mother"),
        ((-1.0, -1.5, -0.5), (-1.0, -1.5, -0.5), "better than both"),
        ((0.0, -0.1, 0.1), (0.0, -0.1, 0.1), "not shown worse than either"),
        ((1.0, float("nan"), float("nan")), (0.0, -0.1, 0.1), "one text: no interval"),
    ],
)
def test_a_probe_says_where_the_child_lies_beside_its_parents(mending, father, mother, said):
    row = replace(mending.before.nll[0], child_minus_father=father, child_minus_mother=mother)
    assert health_views.loss_words(row, 0.0) == said


def test_a_probe_read_worse_than_by_guessing_is_marked_where_the_vocabulary_is_known(mending):
    told = replace(mending.before, nll=(replace(mending.before.nll[0], child=6.0, lost=False),))
    for size, guessed in ((None, False), (256, True), (1000, False)):
        (row,) = health_views.loss_table(told, size)["rows"]
        assert ("guessing a token" in row["cells"][-1]["words"]) == guessed
        assert (row["cells"][-1]["tone"] == "bad") == guessed


def test_what_was_tried_in_vain_is_said_and_no_genome_is_offered(mending):
    vain = replace(mending, layers=(replace(mending.layers[0], outcome="not cleared", after=None),), genome=None)

    def move(tried):
        return health_views.advice_table(mending.before, tried)["rows"][0]["cells"][1]["words"]

    assert "already tried: does not clear" in move(vain)
    assert "tried" not in move(mending)
    assert "tried" not in move(None)
    assert not health.shown_mending(vain)[-1].visible
    assert health.shown_mending(mending)[-1].visible


def test_golden_layers_say_whether_the_mothers_skill_arrived(mending):
    told = replace(
        mending.before,
        transplants=(Transplant(1, True, ("NEXT",), ()), Transplant(2, False, ("NEXT",), ("NEXT",))),
    )
    assert "L1 successful; L2 short of the mother on NEXT" in health_views.transplant_words(told)
    assert health_views.transplant_words(mending.before) == ""


def test_the_expert_table_says_value_status_and_meaning():
    metrics = (
        Metric("dead_share", 0.6, 0.1, 0.2, "bad", "dead on these probes"),
        Metric("similarity", None, None, None, "unknown"),
    )
    experts = Expert(2, 5, "mother", 41, 0.8), Expert(1, 0, "child", 0, 0.0)
    moe = MoeHealth(metrics, experts[:1], experts[1:], 4000, "dead on these probes")
    dead, similar = health_views.moe_table(moe)["rows"]
    assert dead["cells"][:4] == ["dead experts", "60.0%", "10.0%", "20.0%"]
    assert "alarm" in dead["cells"][4]["words"]
    assert similar["cells"][1] == "—"
    assert similar["cells"][4]["words"] == "not known"
    revived, died = health_views.expert_table(moe)["rows"]
    assert revived["cells"][:4] == ["L2", 5, {"tone": "ok", "words": "✓ revived: dead in the mother"}, 41]
    assert "died" in died["cells"][2]["words"]
    assert health_views.moe_table(None)["empty"] == health_views.DENSE
