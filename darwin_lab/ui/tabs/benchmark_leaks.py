"""Benchmark tab, card Leak check: items that stand in two splits, or inside the probes, are found before they flatter.

Takes the pair; queues the comparison and reads its result from the job. Compares nothing itself.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import gradio as gr

from darwin_lab.errors import LabError
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.progress import Tick
from darwin_lab.ui import words
from darwin_lab.ui.components.data_table import Column, Row, data_table, table_value
from darwin_lab.ui.components.heading import heading
from darwin_lab.ui.components.job_line import job_line
from darwin_lab.ui.figures.style import plural
from darwin_lab.ui.session import AT_ONCE, QUIET, guarded
from darwin_lab.ui.tabs.benchmark_place import Place, opened

START = "Not checked. The selection, validation and report items are compared with each other and with the probes."
KINDS = {
    "exact": "the same text",
    "near": "nearly the same text",
    "inside": "stands inside a probe",
    "question": "same question, other options",
    "cluster": "one passage, torn apart",
}
MOST = 400


def build(place: Place) -> None:
    """Put the card on the page and wire it."""
    shared, lab = place.shared, place.shared.lab
    with gr.Row(elem_classes=["dl-tight", "dl-headline"]):
        note = heading("bench_leaks_head", "Leak check", words.BENCH_LEAKS, START)
        check = gr.Button("Check for leaks", size="sm", elem_id="bench_leaks_go", scale=0, min_width=140)
    job_line("bench_leaks_job", "leaks")
    table = data_table("bench_leaks", label="Leaks", height=240, empty=START)
    job = gr.State("")

    @guarded
    def ask(pair_key: str) -> str:
        return request(lab, opened(lab, pair_key))

    check.click(ask, shared.pair, job, **QUIET)

    def show(pair_key: str, job_id: str) -> list[Any]:
        return leak_views(None if not job_id else lab.job(job_id).result, pair_key)

    for change in (shared.child_stamp.change, job.change):
        change(show, [shared.pair, job], [note, table], **AT_ONCE)


def request(lab: Lab, pair: Pair) -> str:
    """Queue the comparison; the job's id. Its result is {"pair", "leaks": rows}. LabError without items."""
    if not pair.items_by_split:
        raise LabError("the pair has no items of its own; open it with a JSONL file of items in Parents")

    def work(tick: Tick) -> dict[str, Any]:
        tick(0.0, "comparing every item with every other")
        return {"pair": pair.key, "leaks": [asdict(leak) for leak in lab.benchmarks.leaks(pair)]}

    return lab.jobs.submit("leaks", "Leak check", work, key=f"leaks:{pair.key}", interactive=True)


def leak_views(result: dict[str, Any] | None, pair_key: str) -> list[Any]:
    """The sentence and the table for a finished check of this pair; the start otherwise."""
    if not result or result["pair"] != pair_key:
        return [START, table_value((), (), empty=START)]
    leaks = result["leaks"]
    if not leaks:
        return [
            "No leak: no item stands in two splits, none inside a probe.",
            table_value((), (), empty="No leak found."),
        ]
    counts = ", ".join(f"{sum(leak['kind'] == kind for leak in leaks)} {said}" for kind, said in KINDS.items()
                       if any(leak["kind"] == kind for leak in leaks))  # fmt: skip
    rows = [
        Row(
            str(place),
            (
                KINDS[leak["kind"]],
                f"{leak['first_set']} × {leak['second_set']}",
                leak["first"],
                leak["second"],
                leak["similarity"],
            ),
        )
        for place, leak in enumerate(sorted(leaks, key=lambda leak: -leak["similarity"])[:MOST])
    ]
    columns = (
        Column("kind"),
        Column("between"),
        Column("first", "code"),
        Column("second", "code"),
        Column("alike", "share", 0, "Share of common five-letter pieces"),
    )
    return [f"{plural(len(leaks), 'pair')}: {counts}.", table_value(columns, rows)]
