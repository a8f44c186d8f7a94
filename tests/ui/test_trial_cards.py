"""The two cards that try the lab's own advice: empty states, and what they say of a trial and of gradients."""

import json
from dataclasses import replace

import pytest

from darwin_lab.evolution.trial import Against, Arm, Trial
from darwin_lab.genome.genome import neutral_genome
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.views import JobView
from darwin_lab.mri.gradient import GeneEffect, Gradients, PathRow
from darwin_lab.ui.tabs import gradient_card, trial_card
from tests.ui.test_tabs import write_measures


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("home"))
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def pair(lab, tiny_llama_pair, tmp_path_factory):
    return lab.open_pair(*tiny_llama_pair, **write_measures(tmp_path_factory.mktemp("measures")))


def trial() -> Trial:
    arms = {
        name: Arm(name, 0.5 + place / 100, 0.4, (0.5, 0.5 + place / 50) if place < 2 else (0.5,), ("a", "b"))
        for place, name in enumerate(("prescription", "placebo", "blend", "lerp", "father", "mother"))
    }
    against = tuple(
        Against(rival, 0.02, 0.01, 0.03, 0.001, 0.003, (0.01, 0.03)) for rival in ("blend", "lerp", "placebo")
    )
    return Trial(2, 0, 2000, 1900, {"MATH": 2000}, {"MATH": 24, "CODE": 20}, 2, 0.6, 1000, {"0.5": 0.5}, arms, against)


def view() -> Gradients:
    effects = (
        GeneEffect("global_ratio", "MATH", -0.4, -0.5, -0.3),
        GeneEffect("global_ratio", "NEUTRAL", 0.1, -0.1, 0.3),
        GeneEffect("attn_ratio", "MATH", 0.2, 0.1, 0.3),
        GeneEffect("attn_ratio", "NEUTRAL", 0.0, -0.1, 0.1),
    )
    both = {"MATH": 4, "NEUTRAL": 3}
    return Gradients("abc", "def", "ghi", both, both, {}, (), {}, effects, {}, True)


def test_before_a_trial_the_card_says_what_it_costs_and_offers_it(lab, pair):
    said, forest, arms, button = trial_card.shown(lab, pair.key)
    assert "one look" in said
    assert json.loads(forest)["figure"] is None
    assert arms["rows"] == []
    assert button.interactive
    assert button.value == "Run the trial"


def test_a_pair_without_items_is_told_where_to_get_them_and_offers_nothing(lab, tiny_llama_pair):
    bare = lab.open_pair(*tiny_llama_pair)
    said, *_, button = trial_card.shown(lab, bare.key)
    assert "no items" in said
    assert not button.interactive


def test_a_finished_trial_is_shown_with_its_looks(lab, pair):
    lab.wait(lab.trials.request_trial(pair, draws=2))
    said, forest, arms, button = trial_card.shown(lab, pair.key)
    assert "looked at 1 time." in said
    assert json.loads(forest)["figure"] is not None
    assert [row["cells"][0] for row in arms["rows"]][:3] == ["Prescription", "Placebo (layers permuted)", "0.5 blend"]
    assert button.value == "Run it again"


def test_the_verdict_is_good_only_when_all_three_rivals_are_beaten_and_bad_when_one_wins():
    assert "data-tone='ok'" in trial_card.spoken(trial(), 3)
    assert "20 to 24 texts of each probe" in trial_card.spoken(trial(), 3)
    partly = replace(trial(), against=(*trial().against[:2], replace(trial().against[2], p_holm=0.4)))
    assert "data-tone='watch'" in trial_card.spoken(partly, 3)
    harmed = replace(trial(), against=tuple(replace(row, difference=-0.02) for row in trial().against))
    assert "data-tone='bad'" in trial_card.spoken(harmed, 3)


def test_the_chart_of_a_trial_has_a_dot_a_draw_and_a_diamond_a_rival():
    chart = trial_card.forest_of(trial())
    dots, diamonds = chart.figure.data
    assert (len(dots.x), len(diamonds.x)) == (6, 3)
    assert list(diamonds.error_x.array) == pytest.approx([1.0] * 3)
    assert [row[0] for row in chart.rows] == ["0.5 blend", "best lerp (0.6)", "placebo"]
    assert "n = 2,000" in chart.note


def test_the_table_says_what_a_draw_varied_and_nothing_where_there_are_none():
    rows = {row["id"]: row["cells"] for row in trial_card.arm_table(trial())["rows"]}
    assert rows["placebo"][3] == "0.5000 to 0.5200"
    assert rows["lerp"][0] == "Best lerp 0.6"
    assert rows["father"][3] == ""


def test_the_gradient_card_waits_then_shows_the_genome_at_hand_and_not_another(lab, pair):
    genome = neutral_genome("v6", pair.anatomy.layers).with_genes(attn_ratio=0.6)
    words, chart, table, button = gradient_card.shown(lab, pair.key, genome.to_json())
    assert "backward pass" in words
    assert button.interactive
    assert table["rows"] == []
    lab.wait(lab.trials.request_gradients(pair, genome))
    words, chart, table, button = gradient_card.shown(lab, pair.key, genome.to_json())
    assert "First-order prediction" in words
    assert json.loads(chart)["figure"] is not None
    assert len(table["rows"]) == len(pair.probes.names)
    assert not button.interactive
    other = genome.with_genes(attn_ratio=0.2)
    words, chart, _, button = gradient_card.shown(lab, pair.key, other.to_json())
    assert "has changed since" in words
    assert json.loads(chart)["figure"] is None
    assert button.interactive


def test_a_gene_cell_is_the_slope_times_a_tenth_and_uncertain_ones_lie_under_a_veil():
    chart = gradient_card.slope_chart(view(), {"global_ratio": "whole model"})
    assert chart.rows[0][:3] == ("whole model", "MATH", pytest.approx(-0.04))
    veil = chart.figure.data[1].z
    assert [[cell != cell for cell in row] for row in veil.tolist()] == [[True, False], [True, False]]
    assert "2 of 4 intervals" in chart.note


def test_what_the_gradient_view_leaves_out_is_said():
    assert "no lerp" in gradient_card.view_words(replace(view(), exact=False), {})
    jumping = replace(view(), jumps={"attn_ratio": 3})
    assert "attention (3)" in gradient_card.view_words(jumping, {"attn_ratio": "attention"})


def test_a_row_of_slopes_is_named_as_in_the_editor_and_no_two_alike(pair):
    names = gradient_card.labels_of(neutral_genome("v6", pair.anatomy.layers).layout_of(pair.anatomy.layers))
    assert (names["global_ratio"], names["attn_ratio"]) == ("whole model", "attention")
    assert names["block_0"].startswith("L0")
    assert len(set(names.values())) == len(names)


def test_the_probes_that_slopes_explain_are_told_from_those_they_do_not():
    rows = (PathRow("MATH", 0.30, 0.32, 0.0, 0.9, 1.0), PathRow("CODE", 0.1, 0.4, 0.0, 0.9, 1.0))
    assert gradient_card.explained_words(rows).endswith("difference on MATH; not on CODE.")
    assert gradient_card.explained_words(rows[:1]).endswith("on MATH: on every probe.")
    assert "On no probe" in gradient_card.explained_words(rows[1:])


@pytest.mark.parametrize(("state", "told"), [("queued", "aiting for its turn"), ("running", "nder way")])
def test_a_card_at_work_says_only_that(lab, pair, monkeypatch, state, told):
    busy = [JobView("1", "trial", "Trial", state), JobView("2", "gradients", "Gradients", state)]
    monkeypatch.setattr(lab, "active_jobs", lambda: busy)
    monkeypatch.setattr(lab.trials, "trial", lambda pair: None)
    monkeypatch.setattr(lab.trials, "gradients", lambda pair, genome: None)
    for said, _, _, button in (trial_card.shown(lab, pair.key), gradient_card.shown(lab, pair.key, None)):
        assert told in button.value
        assert not button.interactive
        assert "Not tried" not in said
        assert "Press" not in said
        assert ("waiting for its turn" in said) == (state == "queued")


def test_the_way_between_the_parents_shows_its_residual():
    row = gradient_card.path_table((PathRow("MATH", 0.30, 0.32, 0.015, 0.9, 1.0),))["rows"][0]
    assert row["cells"] == ["MATH", 0.30, 0.32, pytest.approx(0.02), "+0.015 from 0.90 to 1.00"]
