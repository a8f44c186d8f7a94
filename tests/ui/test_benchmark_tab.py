"""The Benchmark tab's plan, scores, hybrid vigour and complementarity over rows made by hand."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from benchmark_rows import ARC, MODELS, SPLITS, named, scored

from darwin_lab.errors import LabError
from darwin_lab.lab.benching_views import BenchRow, Reference
from darwin_lab.scoring.vigour import complementarity, vigour_rows
from darwin_lab.ui.figures.benchmark_bars import Mark, Series, benchmark_bars
from darwin_lab.ui.figures.gap_forest import Gaps, vigour_forest
from darwin_lab.ui.figures.overlap_bars import Overlap, overlap_bars
from darwin_lab.ui.tabs import benchmark_overlap as overlap
from darwin_lab.ui.tabs import benchmark_scores
from darwin_lab.ui.tabs import benchmark_views as views
from darwin_lab.ui.tabs import benchmark_vigour as vigour

# ------------------------------------------------------------------------------------------------ before a run


def test_a_plan_shows_the_gap_of_the_items_that_will_be_asked_not_of_all_there_are():
    def gap(n):
        return 1 / n

    def cells(limit):
        return views.plan_table([ARC], {"arc": "ARC"}, "selection", limit, gap)["rows"][0]["cells"]

    assert cells(0) == ["ARC", 100, "25 %", "1.0 points"]
    assert cells(20) == ["ARC", 20, "25 %", "5.0 points"]
    assert cells(5000)[1] == 100


def test_a_benchmark_that_was_not_read_yet_promises_no_gap():
    unread = replace(ARC, splits=dict.fromkeys(SPLITS), n=None, chance=None, cached=False)
    assert views.plan_table([unread], {"arc": "ARC"}, "report", 0, lambda n: 0.1)["rows"][0]["cells"] == [
        "ARC", None, "–", "known once fetched",
    ]  # fmt: skip
    assert "still to be fetched" in views.plan_words(2, [ARC, unread], "selection", 0, {})


def test_the_looks_at_report_items_are_told_before_one_more_is_taken():
    assert (
        views.plan_words(3, [ARC], "report", 0, {"ARC": 2})
        == "3 models × 1 benchmark: 450 answers. Looks so far: ARC 2."
    )
    assert "Looks" not in views.plan_words(3, [ARC], "selection", 0, {"ARC": 2})


def test_report_items_are_not_asked_while_the_seal_is_whole():
    asked = []
    desk = SimpleNamespace(request=lambda *args, **more: asked.append((args, more)) or ["job"])
    lab = SimpleNamespace(benchmarks=desk)
    with pytest.raises(LabError, match="sealed"):
        benchmark_scores.request(lab, None, "report", ["father"], ["arc"], 0, False)
    with pytest.raises(LabError, match="whole number"):
        benchmark_scores.request(lab, None, "selection", ["father"], ["arc"], 2.5, False)
    with pytest.raises(LabError, match="at least one model"):
        benchmark_scores.request(lab, None, "selection", [], ["arc"], 0, False)
    assert not asked
    assert benchmark_scores.request(lab, None, "report", ["father"], ["arc"], 7, True) == ["job"]
    assert asked == [((None, ["father"], ["arc"]), {"split": "report", "limit": 7})]


# ------------------------------------------------------------------------------------------------ scores


def rows_of_a_run():
    done = {"n": 100, "done": 100, "acc": 0.5, "acc_norm": 0.4, "p_gold": 0.45, "interval": (0.4, 0.6), "chance": 0.25}
    return [
        BenchRow("blend", "arc", state="running", **{**done, "done": 40, "acc": 0.3, "interval": (0.18, 0.45)}),
        BenchRow("mother", "arc", state="done", corrected=1 / 3, invalid=2, **done),
        BenchRow("father", "arc", 100, state="queued"),
        BenchRow("abc", "arc", 100, note="option 2 of item 7 is longer than the context"),
        BenchRow("old", "arc", 100),
    ]


def test_the_table_lists_parents_first_and_says_how_far_each_row_is():
    table = views.score_table(rows_of_a_run(), MODELS, {"arc": "ARC"})
    assert [row["cells"][0] for row in table["rows"]] == ["Father", "Mother", "0.5 blend", "Child"]
    assert [row["tone"] for row in table["rows"]] == ["father", "mother", "blend", "child"]
    states = [row["cells"][-1]["words"] for row in table["rows"]]
    assert states == ["queued", "✓ done", "running", "✕ option 2 of item 7 is longer than the context"]
    mother, blend = table["rows"][1]["cells"], table["rows"][2]["cells"]
    assert (mother[2], mother[3], mother[4], mother[8]) == (0.5, "40.0 to 60.0", "100", 2)
    assert blend[4] == "40 / 100"


def test_children_are_bars_and_parents_are_lines_with_whiskers_that_are_their_intervals():
    marks = {"ARC": Mark(0.5, 0.4, 0.65, 100), "GSM": Mark(0.2, 0.1, 0.3, 50)}
    series = [
        Series("Father", "father", marks),
        Series("Mother", "mother", {"ARC": marks["ARC"]}),
        Series("Kid", "child", marks),
    ]
    chart = benchmark_bars(series, {"ARC": 0.25, "GSM": None}, split="selection")
    assert [one.name for one in chart.figure.data if one.type == "bar"] == ["Kid"]
    assert (named(chart, "Father").line.dash, named(chart, "Mother").line.dash) == ("dash", "dot")
    assert list(named(chart, "Father").y) == [0.5, 0.5, None, 0.2, 0.2, None]
    whisker = named(chart, "Mother, interval").error_y
    assert whisker.array == pytest.approx((0.15,))
    assert whisker.arrayminus == pytest.approx((0.1,))
    assert ("GSM", "Kid", 0.2, 0.1, 0.3, 50, None) in chart.rows
    assert len(chart.rows) == 5


def test_bars_show_the_chosen_models_and_benchmarks_only():
    chart = views.score_bars(rows_of_a_run(), MODELS, {"arc": "ARC", "x": "X"}, ["mother"], ["arc"], "selection")
    assert {one.name for one in chart.figure.data} == {"Mother", "Mother, interval", "chance"}
    assert views.score_bars(rows_of_a_run(), MODELS, {"arc": "ARC"}, ["mother"], [], "selection").figure is None


# ------------------------------------------------------------------------------------------------ vigour and overlap


def test_only_a_child_that_surpasses_both_on_report_items_gets_the_tick():
    n = 200
    best = scored({str(i): True for i in range(n)})
    half = scored({str(i): i % 2 == 0 for i in range(n)})
    for report, words in ((True, "✓ surpasses both parents"), (False, "ahead of both parents on selection items")):
        found = vigour_rows({"arc": (best, half, half)}, report=report, split="selection")
        cells = vigour.vigour_table(found, {"arc": "ARC"})["rows"][0]["cells"]
        assert cells[-1]["words"].startswith(words)
        assert cells[:5] == ["ARC", n, 1.0, 0.5, 0.5]
        assert cells[6] == "< .001"
        assert cells[9] == "+100.0 %"


def test_the_forest_shows_the_difference_to_each_parent_in_points():
    chart = vigour_forest([Gaps("ARC", 50, (0.1, 0.02, 0.2), (-0.05, -0.1, 0.01))], split="report")
    father, mother = named(chart, "against the father"), named(chart, "against the mother")
    assert (list(father.x), list(mother.x)) == ([pytest.approx(10)], [pytest.approx(-5)])
    assert father.marker.symbol != mother.marker.symbol
    assert father.error_x.arrayminus == pytest.approx((8,))
    assert chart.rows[1] == ("ARC", 50, "mother", -0.05, -0.1, 0.01)


def test_along_an_overlap_bar_the_end_of_both_is_the_fathers_accuracy():
    chart = overlap_bars(
        [Overlap("ARC", only_father=10, both=30, only_mother=20, neither=40, blend=0.33)], split="selection"
    )
    widths = [trace.x[0] for trace in chart.figure.data if trace.type == "bar"]
    assert widths == pytest.approx([0.1, 0.3, 0.2, 0.4])
    assert [trace.name for trace in chart.figure.data][:4] == ["only the father", "both", "only the mother", "neither"]
    assert list(named(chart, "0.5 blend's accuracy").x) == [0.33]


def test_what_a_child_could_gain_is_said_before_any_merge():
    names = [str(i) for i in range(100)]
    father, mother = scored({n: int(n) < 50 for n in names}), scored({n: int(n) >= 30 for n in names})
    found = complementarity(father, mother)
    assert overlap.overlap_of("ARC", found) == Overlap("ARC", only_father=30, both=20, only_mother=50, neither=0)
    cells = overlap.headroom_table({"arc": found}, {"arc": "ARC"})["rows"][0]["cells"]
    assert cells[6:9] == pytest.approx([0.5, 0.7, 1.0])
    assert cells[9].startswith("+30.0 [")
    assert (cells[10], cells[11]) == (None, None)
    assert "Most to gain on ARC: +30.0 points" in overlap.best_words({"arc": found}, {"arc": "ARC"})


def test_published_rows_are_marked_as_unpaired_and_an_impossible_one_as_such():
    rows = [
        Reference("Card", 0.9, "90.0", 198, "a card", (0.85, 0.93), False, "no count of 198 gives it"),
        Reference("Paper", 0.8889, "88.89", 198, "a paper", (0.84, 0.92), True, ""),
    ]
    table = vigour.reference_table({"arc": rows, "x": []}, {"arc": "ARC", "x": "X"}, "arc\tCard")
    assert [row["cells"][5]["words"] for row in table["rows"]] == ["✕ unpaired · not possible", "unpaired"]
    assert table["chosen"] == table["rows"][0]["id"]
