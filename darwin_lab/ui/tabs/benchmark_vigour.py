"""Benchmark tab, part Hybrid vigour: the child against both parents, and published rows beside it.

Takes the place's split and child; gives the desk's paired rows and remembers reference rows. It tests nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from darwin_lab.errors import LabError
from darwin_lab.ui import words
from darwin_lab.ui.components.chart import chart_card
from darwin_lab.ui.components.data_table import Column, Row, data_table, mark, table_value
from darwin_lab.ui.components.heading import heading
from darwin_lab.ui.components.menus import Menu
from darwin_lab.ui.figures.gap_forest import Gaps, vigour_forest
from darwin_lab.ui.figures.style import nothing
from darwin_lab.ui.session import AT_ONCE, PICKED, QUIET, guarded, pair_of
from darwin_lab.ui.tabs.benchmark_place import (
    NO_PAIR,
    Place,
    benchmark_names,
    interval_words,
    menu,
    p_words,
    points,
    whole,
)

if TYPE_CHECKING:
    from darwin_lab.lab.benching_views import Reference
    from darwin_lab.scoring.vigour import VigourRow
    from darwin_lab.statistics.paired import PairedTest

NOT_YET = "Score the child and both parents on the same benchmark: choose them in Scores and press “Run”."
UNPAIRED = "Unpaired: nobody here has their answers, so they stand beside and are never tested against."
NO_REFERENCE = "No published row yet. Add one below; it is checked against its n and never tested against."
COLUMNS = (
    Column("benchmark"),
    Column("n", "number", title="Items all three answered"),
    Column("child", "share"),
    Column("father", "share"),
    Column("mother", "share"),
    Column("child − father, points", "number", title="Difference in accuracy with its 95 % paired interval"),
    Column("p, father", "number", title="Exact McNemar, two-sided, against the father"),
    Column("child − mother, points", "number", title="Difference in accuracy with its 95 % paired interval"),
    Column("p, mother", "number", title="Exact McNemar, two-sided, against the mother"),
    Column("relative", "number", title="Gain on the better parent, as a share of that parent's accuracy"),
    Column("p, Holm", "number", title="Ahead of both parents, corrected for the benchmarks of this table"),
    Column("verdict", "mark"),
)


def build(place: Place) -> None:
    """Put the part on the page and wire it."""
    shared, lab = place.shared, place.shared.lab
    forest = chart_card("bench_forest", "Child minus each parent", words.BENCH_VIGOUR, empty=NOT_YET, height=300)
    with gr.Column(elem_classes=["dl-card"]):
        heading(
            "bench_vigour_head", "Hybrid vigour", words.BENCH_VIGOUR, "Same items for all three, paired one by one."
        )
        table = data_table("bench_vigour", label="Hybrid vigour", height=360, empty=NOT_YET)
    with gr.Column(elem_classes=["dl-card"]):
        with gr.Row(elem_classes=["dl-tight", "dl-headline"]):
            heading("bench_reference_head", "Published rows", words.BENCH_REFERENCES, UNPAIRED)
            forget = gr.Button(
                "Remove the picked row", size="sm", elem_id="ref_forget", interactive=False, scale=0, min_width=170
            )
        listed = data_table("bench_references", label="Published rows", pick=True, height=240, empty=NO_REFERENCE)
        with gr.Row(elem_classes=["dl-controls"]):
            benchmark = Menu([], label="Benchmark", elem_id="ref_benchmark", min_width=180)
            name = gr.Textbox("", label="Model", placeholder="as published", elem_id="ref_name", min_width=180)
            score = gr.Textbox("", label="Score, %", placeholder="90.0", elem_id="ref_score", min_width=90)
            n = gr.Textbox("", label="Items", placeholder="198", elem_id="ref_n", min_width=90, max_lines=1)
            source = gr.Textbox("", label="Source", placeholder="link or paper", elem_id="ref_source", min_width=200)
            add = gr.Button("Add row", elem_id="ref_add", min_width=100)
    picked = gr.State("")

    def show(pair_key: str, split: str, child: str | None) -> list[Any]:
        pair = pair_of(lab, pair_key)
        if pair is None or not child:
            why = NO_PAIR if pair is None else NOT_YET
            return [nothing(why).wire(), table_value((), (), empty=why)]
        names = benchmark_names(lab.benchmarks.catalogue(pair))
        try:
            rows = lab.benchmarks.vigour(pair, child, split)
        except LabError as error:
            return [nothing(str(error)).wire(), table_value((), (), empty=str(error))]
        gaps = [
            Gaps(names.get(r.benchmark, r.benchmark), r.n, _gap(r.minus_father), _gap(r.minus_mother)) for r in rows
        ]
        return [vigour_forest(gaps, split=split).wire(), vigour_table(rows, names)]

    for change in (shared.child_stamp.change, place.split.change, place.child.change):
        change(show, [shared.pair, place.split, place.child], [forest, table], **AT_ONCE)

    def references(pair_key: str, now: str | None, row: str) -> list[Any]:
        pair = pair_of(lab, pair_key)
        if pair is None:
            return [
                gr.Dropdown(choices=[], value=None),
                table_value((), (), empty=NO_PAIR),
                gr.Button(interactive=False),
            ]
        names = benchmark_names(lab.benchmarks.catalogue(pair))
        found = {key: lab.benchmarks.references(key) for key in names}
        return [
            menu(names, now, now if now in names else next(iter(names), None)),
            reference_table(found, names, row),
            gr.Button(interactive=bool(row)),
        ]

    at = [shared.pair, benchmark, picked]
    for change in (shared.pair.change, place.listed.change, picked.change):
        change(references, at, [benchmark, listed, forget], **AT_ONCE)

    @guarded
    def add_row(pair_key: str, key: str | None, who: str, printed: str, items: str, where: str) -> Any:
        if not key:
            raise LabError("no benchmark chosen for the published row; choose one")
        count = whole(items, "number of items")
        lab.benchmarks.add_reference(key, who.strip(), printed.strip(), count, where.strip())
        return "", "", "", *references(pair_key, key, "")

    filled = [shared.pair, benchmark, name, score, n, source]
    add.click(add_row, filled, [name, score, picked, benchmark, listed, forget], **QUIET)

    def pick(event: gr.EventData) -> str:
        return str(event._data["id"])

    listed.select(pick, None, picked, **PICKED)

    @guarded
    def drop(row: str) -> str:
        key, _, who = row.partition("\t")
        lab.benchmarks.forget_reference(key, who)
        return ""

    forget.click(drop, picked, picked, **QUIET)


def vigour_table(rows: Sequence[VigourRow], names: Mapping[str, str]) -> dict[str, Any]:
    """One row a benchmark."""
    shown = [
        Row(
            row.benchmark,
            (
                names.get(row.benchmark, row.benchmark),
                row.n,
                row.child,
                row.father,
                row.mother,
                gap_words(row.minus_father),
                p_words(row.minus_father.p),
                gap_words(row.minus_mother),
                p_words(row.minus_mother.p),
                None if row.relative is None else f"{points(row.relative)} %",
                p_words(row.p_holm),
                mark(True if row.verdict == "surpasses both parents" else None, row.verdict),
            ),
        )
        for row in rows
    ]
    return table_value(COLUMNS, shown, empty=NOT_YET)


def reference_table(
    found: Mapping[str, Sequence[Reference]], names: Mapping[str, str], picked: str = ""
) -> dict[str, Any]:
    """Published rows of every benchmark, each marked as unpaired."""
    rows = [
        Row(
            f"{key}\t{row.name}",
            (
                names[key],
                row.name,
                f"{row.printed} %",
                row.n,
                interval_words(row.interval),
                mark(None, "unpaired") if row.possible else mark(False, "unpaired · not possible"),
                row.note,
                row.source,
            ),
        )
        for key, references in found.items()
        for row in references
    ]
    columns = (
        Column("benchmark"),
        Column("model"),
        Column("score", "number"),
        Column("n", "number"),
        Column("95 % interval", "number", title="Wilson interval of the nearest count, in percent"),
        Column("kind", "mark"),
        Column("note", "long"),
        Column("source", "long"),
    )
    return table_value(columns, rows, chosen=picked, empty=NO_REFERENCE)


def gap_words(test: PairedTest) -> str:
    """A paired difference in points with its interval."""
    return f"{points(test.difference)} [{points(test.low)}, {points(test.high)}]"


def _gap(test: PairedTest) -> tuple[float, float, float]:
    return test.difference, test.low, test.high
