"""Charts show the numbers they were given, and say in words and shapes what they say in colour."""

import json

import numpy as np
import pytest

from darwin_lab.ui.figures.advantage_map import advantage_map
from darwin_lab.ui.figures.dead_share import dead_share
from darwin_lab.ui.figures.evolution_curve import evolution_curve
from darwin_lab.ui.figures.health_bars import health_bars
from darwin_lab.ui.figures.layer_panel import layer_experts, layer_probes
from darwin_lab.ui.figures.probe_map import probe_map
from darwin_lab.ui.figures.ratio_strip import ratio_strip
from darwin_lab.ui.figures.score_bars import score_bars
from darwin_lab.ui.figures.style import CHILD, FATHER, MOTHER, nothing, spread_scale

RUN = {
    "generations": [
        {"generation": 0, "best": 0.5, "mean": 0.4, "worst": 0.3, "sigma": 0.18},
        {"generation": 1, "best": 0.6, "mean": 0.5, "worst": 0.4, "sigma": 0.2},
    ],
    "candidates": [{"index": i, "generation": i // 2, "fitness": f} for i, f in enumerate([0.3, 0.5, 0.4, 0.6])],
    "controls": {"father": 0.45, "mother": 0.35, "blend": 0.42},
}


def trace(chart, name):
    return next(one for one in chart.figure.data if one.name == name)


def test_probe_map_draws_the_scan_and_leaves_unread_probes_blank():
    chart = probe_map(
        {"MATH": [0.1, 0.2, 0.3]}, probes=["MATH", "CODE"], layers=3, measure="loss", who="father", ends=(0.0, 0.9)
    )
    heat = chart.figure.data[0]
    assert np.allclose(heat.z[0], [0.1, 0.2, 0.3])
    assert np.isnan(heat.z[1]).all()
    assert (heat.zmin, heat.zmax) == (0.0, 0.9)
    assert "1 of 2 probes" in chart.note
    assert [row[:3] for row in chart.rows] == [("MATH", "L0", 0.1), ("MATH", "L1", 0.2), ("MATH", "L2", 0.3)]


def test_cells_below_zero_are_marked_and_counted_from_this_parents_own_values():
    def drawn(values):
        return probe_map(
            {"MATH": values}, probes=["CODE", "MATH"], layers=3, measure="loss", who="father", ends=(-9.0, 1.0)
        )

    chart = drawn([0.1, -0.25, -0.5])
    marks = trace(chart, "below zero")
    assert list(zip(marks.x, marks.y, marks.text, strict=True)) == [(1, "MATH", "−"), (2, "MATH", "−")]
    assert "2 cells below zero, marked − and coloured as zero (lowest −0.5)" in chart.note
    assert "below zero" not in drawn([0.1, 0.2, 0.3]).note


def test_probe_map_without_a_scan_says_what_to_do():
    chart = probe_map({}, probes=["MATH"], layers=3, measure="skip", who="mother")
    assert chart.figure is None
    assert "scan" in chart.empty


def test_advantage_is_blue_for_the_father_red_for_the_mother_and_centred_on_zero():
    chart = advantage_map(np.array([[0.5, -1.0]]), probes=["MATH"], different=np.array([[False, True]]))
    heat = chart.figure.data[0]
    assert heat.zmin == -heat.zmax == -1.0
    low, high = (tuple(map(int, colour[4:-1].split(","))) for colour in (heat.colorscale[0][1], heat.colorscale[-1][1]))
    assert low[0] > low[2]
    assert high[2] > high[0]
    assert [row[-1] for row in chart.rows] == ["father", "mother"]


def test_cells_inside_the_noise_are_veiled_and_the_others_carry_a_mark():
    chart = advantage_map(np.array([[0.5, -1.0]]), probes=["MATH"], different=np.array([[False, True]]))
    veil, marks = trace(chart, "inside the noise"), trace(chart, "told apart")
    assert np.isnan(veil.z[0][1])
    assert veil.z[0][0] == 1
    assert list(marks.x) == [1]


def test_dead_share_shows_a_reason_instead_of_a_bar_where_nothing_is_certified():
    chart = dead_share(
        {"father": [0.1, 0.2], "mother": [float("nan")] * 2},
        moe_layers=[0, 1],
        uncertified={"mother": "too few tokens"},
    )
    assert [bar.name for bar in chart.figure.data] == ["Father"]
    assert "too few tokens" in chart.note
    assert dead_share({}, moe_layers=[]).figure is None


def test_ratio_bars_grow_from_one_half_in_the_colour_of_their_parent():
    chart = ratio_strip({"all": [0.2, 0.9, None]}, layers=3, advised=[0.5, 0.6, 0.5])
    bars = chart.figure.data[0]
    assert bars.base == 0.5
    assert list(bars.y) == [pytest.approx(-0.3), pytest.approx(0.4), None]
    assert list(bars.marker.color)[:2] == [FATHER, MOTHER]
    assert list(trace(chart, "MRI advises").y) == [0.5, 0.6, 0.5]


def test_the_curve_holds_every_candidate_the_running_best_and_the_parents():
    chart = evolution_curve(**RUN, items=10)
    assert list(trace(chart, "candidate").y) == [0.3, 0.5, 0.4, 0.6]
    assert list(trace(chart, "best so far").y) == [0.3, 0.5, 0.5, 0.6]
    assert set(trace(chart, "Father").y) == {0.45}
    assert trace(chart, "Father").line.dash == "dash"
    assert trace(chart, "Mother").line.dash == "dot"
    assert list(trace(chart, "step size σ").y) == [0.18, 0.2]


def test_the_parents_lines_follow_the_items_of_each_generation():
    rows = [{**row, "father": 0.41 + row["generation"] / 10, "items": 5} for row in RUN["generations"]]
    some = [{**row, "items": 5} for row in RUN["candidates"]]
    father = {"father": 0.45}
    chart = evolution_curve(rows, some, father, items=10)
    assert list(trace(chart, "Father").x) == [0, 1, 3]
    assert list(trace(chart, "Father").y) == [0.41, 0.41, 0.51]
    assert "n = 5 items a candidate, the level lines on the same" in chart.note
    unknown = evolution_curve(RUN["generations"], some, father, items=10)
    assert "10 for the level lines" in unknown.note


def test_the_curve_of_nothing_is_an_empty_state():
    assert evolution_curve([], [], {}).figure is None


def test_the_child_is_bars_the_father_dashed_blue_the_mother_dotted_vermilion():
    chart = health_bars([0.1, 0.9], [0.1, 0.2], [0.2, 0.1], probe="MATH", flags={1: "interference"})
    child, father, mother, flagged = chart.figure.data
    assert (child.type, child.marker.color) == ("bar", CHILD)
    assert (father.line.color, father.line.dash) == (FATHER, "dash")
    assert (mother.line.color, mother.line.dash) == (MOTHER, "dot")
    assert list(child.marker.pattern.shape) == ["", "x"]
    assert list(flagged.x) == [1]
    assert "L1 interference" in chart.note


def test_a_layer_shows_intervals_of_both_parents():
    chart = layer_probes(
        {"father": {"MATH": (0.5, 0.4, 0.7)}, "mother": {"MATH": (0.3, 0.2, 0.4)}}, layer=2, unit="nats"
    )
    father = trace(chart, "Father")
    assert father.error_x.array[0] == pytest.approx(0.2)
    assert father.error_x.arrayminus[0] == pytest.approx(0.1)
    assert layer_probes({}, layer=2, unit="nats").figure is None


def test_expert_bars_mark_the_dead_ones():
    chart = layer_experts({"father": [0.5, 0.5, 0.0]}, {"father": [False, False, True]}, layer=1)
    assert list(trace(chart, "dead in the father").x) == [pytest.approx(1.8)]
    assert "father 1 dead" in chart.note


def test_score_bars_carry_wilson_whiskers():
    chart = score_bars({"child": {"MATH": (0.6, 0.5, 0.7)}}, n=100, chance={"MATH": 0.25})
    assert chart.figure.data[0].error_y.array[0] == pytest.approx(0.1)
    assert list(trace(chart, "chance").y) == [0.25]
    assert "n = 100" in chart.note


def test_a_chart_on_the_wire_is_json_without_nan():
    chart = probe_map({"MATH": [0.1, float("nan")]}, probes=["MATH"], layers=2, measure="skip", who="father")
    wire = json.loads(chart.wire(), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert wire["rows"][1][2] is None
    assert wire["figure"]["layout"]["uirevision"] == "keep"
    assert json.loads(nothing("Do this next.").wire())["figure"] is None


def test_a_spread_scale_runs_from_end_to_end_and_favours_small_values():
    places = [place for place, _ in spread_scale("Cividis")]
    assert (places[0], places[-1]) == (0.0, 1.0)
    assert places == sorted(places)
    assert places[10] == pytest.approx(0.25)
    centred = [place for place, _ in spread_scale("RdBu", centred=True)]
    assert centred[10] == pytest.approx(0.5)
    assert centred == sorted(centred)
