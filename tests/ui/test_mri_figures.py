"""The charts of the MRI tab show the numbers they were given, also where there are sixteen thousand of them."""

import base64
import json

import numpy as np
import pytest

from darwin_lab.ui.figures.advantage_map import advantage_map
from darwin_lab.ui.figures.expert_map import MOST_CROSSES, ExpertUse, expert_difference, expert_map
from darwin_lab.ui.figures.layer_panel import MOST_BARS, layer_experts
from darwin_lab.ui.figures.probe_map import probe_map
from darwin_lab.ui.figures.router_lines import output_similarity, router_entropy
from darwin_lab.ui.figures.style import Cells, Chart

KINDS = {"f4": "<f4", "i2": "<i2", "u1": "u1"}


def use(load, dead=None, **more):
    load = np.asarray(load, dtype=float)
    gone = load == 0 if dead is None else np.asarray(dead)
    return ExpertUse(load, gone, tuple(range(3, 3 + len(load))), 100, 2, **more)


def trace(chart, name):
    return next(one for one in chart.figure.data if one.name == name)


def cells_of(chart):
    """The values of a packed table as the browser reads them: column -> [across, down]."""
    told = json.loads(chart.wire())["cells"]
    shape = len(told["across"]), len(told["down"])
    return {
        name: np.frombuffer(base64.b64decode(one["bdata"]), KINDS[one["dtype"]]).reshape(shape)
        for name, one in told["values"].items()
        if "bdata" in one
    }


def test_a_dead_expert_is_a_cross_and_never_the_bottom_colour():
    chart = expert_map(use([[0.5, 0.25, 0.25, 0.0]]), who="father")
    heat, dead = chart.figure.data
    assert np.isnan(heat.z[3][0])
    assert heat.z[0][0] == pytest.approx(1.0)
    assert (list(dead.x), list(dead.y)) == (["L3"], [3])


def test_hundreds_of_dead_experts_are_one_grey_heat_map_instead_of_hundreds_of_crosses():
    load = np.zeros((4, MOST_CROSSES))
    load[:, 0] = 1
    dead = expert_map(use(load), who="father").figure.data[1]
    assert (dead.type, dead.name) == ("heatmap", "dead")
    assert np.nansum(dead.z) == 4 * (MOST_CROSSES - 1)


def test_without_a_certificate_no_expert_is_called_dead():
    chart = expert_map(use([[1.0, 0.0]], certified=False), who="father")
    assert len(chart.figure.data[1].x) == 0
    assert "too few tokens" in chart.note


def test_experts_in_order_of_load_keep_their_own_numbers():
    chart = expert_map(use([[0.2, 0.8]]), who="father", in_order_of_load=True)
    assert cells_of(chart)["expert"].tolist() == [[1, 0]]
    assert cells_of(chart)["share of tokens"].tolist() == [[pytest.approx(0.8), pytest.approx(0.2)]]


def test_saliency_is_drawn_on_a_log_scale_that_both_parents_share():
    salient = use([[0.5, 0.4, 0.1]], saliency=np.asarray([[0.01, 1.0, 0.0]]))
    heat = expert_map(salient, who="father", measure="saliency", ends=(-3.0, 1.0)).figure.data[0]
    assert [row[0] for row in heat.z[:2]] == pytest.approx([-2.0, 0.0])
    assert np.isnan(heat.z[2][0])
    assert (heat.zmin, heat.zmax) == (-3.0, 1.0)


def test_a_scan_without_saliency_says_how_to_get_it():
    chart = expert_map(use([[1.0]]), who="father", measure="saliency")
    assert chart.figure is None
    assert "Scan the pair again" in chart.empty


def test_the_expert_difference_is_positive_where_the_fathers_works_more_and_blank_where_both_are_dead():
    father, mother = use([[0.6, 0.4, 0.0]]), use([[0.3, 0.7, 0.0]])
    heat = expert_difference(father, mother).figure.data[0]
    assert heat.z[0][0] == pytest.approx(1.0)
    assert heat.z[1][0] < 0
    assert np.isnan(heat.z[2][0])


def test_experts_that_cannot_stand_side_by_side_say_so():
    assert "unlike experts" in expert_difference(use([[1.0]]), use([[0.5, 0.5]])).empty


def test_a_packed_table_holds_blanks_words_and_numbers():
    values = {"n": np.asarray([[1.5, np.nan]]), "k": np.asarray([[7, 8]]), "dead": np.asarray([[True, False]])}
    told = json.loads(Chart(cells=Cells(("layer", "expert"), ("L0",), (0, 1), values, {"dead": "gone"})).wire())
    assert told["cells"]["values"]["dead"]["word"] == "gone"
    assert [one["dtype"] for one in told["cells"]["values"].values()] == ["f4", "i2", "u1"]
    assert np.isnan(np.frombuffer(base64.b64decode(told["cells"]["values"]["n"]["bdata"]), "<f4")[1])


def test_a_cell_of_the_probe_map_tells_its_interval_and_how_many_texts_it_is_made_of():
    chart = probe_map(
        {"MATH": [0.1, 0.2]},
        probes=["MATH"],
        layers=2,
        measure="loss",
        who="father",
        interval={"MATH": np.asarray([[0.0, 0.2], [0.1, 0.3]])},
        tokens={"MATH": 1234},
        texts={"MATH": 40},
        kinds=["attention", "attention"],
    )
    kind, told = chart.figure.data[0].customdata[0][1]
    assert kind == "attention"
    assert told == "95 %: 0.1000 to 0.3000 · n = 40 texts · 1,234 tokens"


def test_a_layer_without_that_half_is_a_blank_cell_and_is_counted():
    chart = probe_map({"MATH": [0.1, np.nan]}, probes=["MATH"], layers=2, measure="loss", who="father", half="attn")
    assert np.isnan(chart.figure.data[0].z[0][1])
    assert "1 cell blank" in chart.note
    assert chart.note.startswith("attention alone left out: rise in loss")


def test_a_map_of_differences_says_how_far_a_cell_must_go_to_be_told_apart():
    chart = advantage_map(
        np.asarray([[0.5, -1.0]]), probes=["MATH"], se=np.asarray([[0.2, 0.1]]), threshold=3.0,
        different=np.asarray([[False, True]]),
    )  # fmt: skip
    assert [row[3] for row in chart.rows] == pytest.approx([0.6, 0.3])
    assert "told apart beyond" in chart.figure.data[0].hovertemplate


def test_a_threshold_of_few_texts_is_called_strict_and_that_of_many_is_not():
    notes = [advantage_map(np.ones((4, 12)), probes=list("ABCD"), threshold=found).note for found in (3.9, 12.4)]
    assert "texts" not in notes[0]
    assert "only beyond 12.4 standard errors (about 3.3 with many), so real differences may go unmarked" in notes[1]


def test_parents_that_agree_everywhere_are_told_so_in_words():
    chart = advantage_map(np.zeros((2, 3)), probes=["MATH", "CODE"], different=np.zeros((2, 3), bool))
    assert chart.note.startswith("no difference")
    assert {row[-1] for row in chart.rows} == {""}


def test_router_lines_keep_the_colours_of_their_parent_and_stay_between_zero_and_one():
    both = {who: {"load": [0.9, 0.8], "token": [0.2, 0.3]} for who in ("father", "mother")}
    chart = router_entropy(both, moe_layers=[1, 3])
    assert list(trace(chart, "Father, load").x) == ["L1", "L3"]
    assert trace(chart, "Mother, token").line.dash == "dot"
    assert chart.figure.layout.yaxis.range[0] == 0
    assert chart.rows[1] == ("L3", 0.8, 0.3, 0.8, 0.3)


def test_similarity_names_the_tokens_it_was_measured_on():
    chart = output_similarity({"father": [0.1]}, moe_layers=[0], tokens={"father": 56})
    assert "56 tokens" in chart.note
    assert "Scan the pair again" in output_similarity({}, moe_layers=[0]).empty


def test_a_layer_of_many_experts_is_points_instead_of_hairline_bars():
    few, many = ([1 / n] * n for n in (4, MOST_BARS + 1))
    assert trace(layer_experts({"father": few}, {}, layer=0), "Father").type == "bar"
    assert trace(layer_experts({"father": many}, {}, layer=0), "Father").type == "scatter"
