"""Benchmark tab, part Complementarity: what the two parents know apart, before anything is merged.

Takes the place's split; gives the desk's counts as bars and a table, and its sentences.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr

from darwin_lab.ui import words
from darwin_lab.ui.components.chart import chart_card
from darwin_lab.ui.components.data_table import Column, Row, data_table, table_value
from darwin_lab.ui.components.heading import heading
from darwin_lab.ui.figures.overlap_bars import Overlap, overlap_bars
from darwin_lab.ui.figures.style import nothing
from darwin_lab.ui.session import AT_ONCE, pair_of, verdict
from darwin_lab.ui.tabs.benchmark_place import NO_PAIR, Place, benchmark_names, points

if TYPE_CHECKING:
    from darwin_lab.scoring.vigour import Complementarity, Estimate

NOT_YET = (
    "Score father and mother on the same benchmark first: choose both in Scores and press “Run”. No merge is needed."
)


def build(place: Place) -> None:
    """Put the part on the page and wire it."""
    shared, lab = place.shared, place.shared.lab
    head = gr.HTML(verdict("plain", "Not known yet.", NOT_YET), elem_id="bench_overlap_words")
    bars = chart_card("bench_overlap", "Who gets which items", words.BENCH_OVERLAP, empty=NOT_YET, height=320)
    with gr.Column(elem_classes=["dl-card"]):
        heading(
            "bench_overlap_head",
            "What a child could gain",
            words.BENCH_OVERLAP,
            "Points of accuracy with 95 % intervals; the headroom is over the better parent.",
        )
        table = data_table("bench_headroom", label="What a child could gain", height=360, empty=NOT_YET)
        said = gr.HTML("", elem_id="bench_overlap_said")

    def show(pair_key: str, split: str) -> list[Any]:
        pair = pair_of(lab, pair_key)
        if pair is None:
            return [
                verdict("plain", "No pair.", NO_PAIR),
                nothing(NO_PAIR).wire(),
                table_value((), (), empty=NO_PAIR),
                "",
            ]
        names = benchmark_names(lab.benchmarks.catalogue(pair))
        scored = dict.fromkeys(row.benchmark for row in lab.benchmarks.table(pair, split) if row.done)
        found: dict[str, Complementarity] = {}
        for name in scored:
            one = lab.benchmarks.complementarity(pair, name, split)
            if one is not None:
                found[name] = one
        if not found:
            empty = table_value((), (), empty=NOT_YET)
            return [verdict("plain", "Not known yet.", NOT_YET), nothing(NOT_YET).wire(), empty, ""]
        overlaps = [overlap_of(names.get(name, name), one) for name, one in found.items()]
        return [
            best_words(found, names),
            overlap_bars(overlaps, split=split).wire(),
            headroom_table(found, names),
            sentences(found, names),
        ]

    for change in (shared.child_stamp.change, place.split.change):
        change(show, [shared.pair, place.split], [head, bars, table, said], **AT_ONCE)


def overlap_of(title: str, found: Complementarity) -> Overlap:
    """The counts of one benchmark for the chart."""
    return Overlap(
        title,
        only_father=found.only_father.count or 0,
        both=found.both.count or 0,
        only_mother=found.only_mother.count or 0,
        neither=found.neither.count or 0,
        blend=None if found.blend is None else found.blend.value,
    )


def best_words(found: Mapping[str, Complementarity], names: Mapping[str, str]) -> str:
    """Where a perfect child would have most to gain."""
    name, most = max(found.items(), key=lambda pair: pair[1].headroom.value)
    room = most.headroom
    title = names.get(name, name)
    if room.value <= 0:
        return verdict("plain", "Nothing to gain here.", "Every item one parent gets the better parent gets too.")
    head = f"Most to gain on {title}: {points(room.value)} points over the better parent."
    tail = f"95 % interval {points(room.low)} to {points(room.high)}, if a child kept every item either parent gets."
    return verdict("plain", head, f"{tail} Part of that is guessing luck, which no merge can keep.")


def headroom_table(found: Mapping[str, Complementarity], names: Mapping[str, str]) -> dict[str, Any]:
    """Counts, headroom and barrier, one row a benchmark."""
    rows = [
        Row(
            name,
            (
                names.get(name, name),
                one.n,
                one.only_father.count,
                one.both.count,
                one.only_mother.count,
                one.neither.count,
                one.both.value + one.only_father.value,
                one.both.value + one.only_mother.value,
                1 - one.neither.value,
                _words(one.headroom),
                None if one.blend is None else one.blend.value,
                _words(one.barrier),
            ),
        )
        for name, one in found.items()
    ]
    columns = (
        Column("benchmark"),
        Column("items", "number"),
        Column("only father", "number"),
        Column("both", "number"),
        Column("only mother", "number"),
        Column("neither", "number"),
        Column("father", "share", title="The father's accuracy"),
        Column("mother", "share", title="The mother's accuracy"),
        Column("perfect child", "share", title="Right wherever a parent is"),
        Column("headroom", "number", title="Perfect child minus better parent, points"),
        Column("0.5 blend", "share", title="Accuracy of the plain blend"),
        Column("barrier", "number", title="Mean of the parents minus the blend, points; above zero the blend loses"),
    )
    return table_value(columns, rows, empty=NOT_YET)


def sentences(found: Mapping[str, Complementarity], names: Mapping[str, str]) -> str:
    """Each benchmark in words, folded away."""
    lines = "".join(
        f"<p><b>{html.escape(names.get(name, name))}</b> {html.escape(one.sentence)}</p>" for name, one in found.items()
    )
    return f"<details class='dl-table'><summary>The same in words</summary><div class='dl-say'>{lines}</div></details>"


def _words(value: Estimate | None) -> str | None:
    return None if value is None else f"{points(value.value)} [{points(value.low)}, {points(value.high)}]"
