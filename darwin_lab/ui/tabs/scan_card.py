"""The card of the MRI tab for what lies behind the maps: how models are held, the probes, and kept scans.

Takes the selection of the page; changes how a pair is scanned, or the pair itself (other probes make another pair).
Scans are only queued. What is shown is made in `scan_card_views`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from darwin_lab.errors import LabError
from darwin_lab.lab.memory import DTYPES, FLOAT32
from darwin_lab.lab.pairs import Pair
from darwin_lab.ui import words
from darwin_lab.ui.components.chart import chart_card
from darwin_lab.ui.components.data_table import data_table
from darwin_lab.ui.components.download import served
from darwin_lab.ui.components.heading import heading
from darwin_lab.ui.components.job_line import job_line
from darwin_lab.ui.components.menus import Menu, picking
from darwin_lab.ui.figures.style import nothing
from darwin_lab.ui.session import (
    AT_ONCE,
    CHOSEN,
    LATEST,
    PICKED,
    QUIET,
    Shared,
    genome_at_hand,
    guarded,
    layer_clicked,
    on_a_space,
    pair_of,
    say,
)
from darwin_lab.ui.tabs import scan_card_views as views

WAYS = [("By free memory", "auto"), ("Always stream", "always"), ("Never stream", "never")]
PRECISIONS = [(dtype, dtype) for dtype in DTYPES]
STREAMED_NOTE = "A streamed model is read layer by layer: the same results, and a stopped scan goes on where it was."
WHOSE = [("Father", "father"), ("Mother", "mother"), ("Child at hand", "child")]
MEASURE_CHOICES = [("Loss", "loss"), ("Layer skip", "skip"), ("KL", "kl"), ("Influence", "influence")]
PASTE = "MATH: 12 + 30 = 42\nMATH: Half of ninety is forty-five.\nNEUTRAL: The shop opens at nine.\nNEUTRAL: It rained."
PICK = "Pick a kept scan above: it can be renamed, shared, deleted, and compared."
SMALL_BYTES = 2 * 10**9
"""Pairs up to this size are scanned at once when probes or precision change; larger ones when somebody asks."""
_CONFIRM = "id => id && confirm('Delete this kept scan? Its file goes with it.') ? id : ''"


def build(shared: Shared) -> None:
    """Put the card on the page and wire it."""
    lab = shared.lab
    with gr.Accordion(
        "Scan settings and saved scans", open=False, elem_id="scan_card", elem_classes=["dl-card"]
    ) as card:
        with gr.Row(elem_classes=["dl-row"]):
            with gr.Column(scale=5, min_width=340, elem_classes=["dl-card"]):
                heading("scan_held_head", "How models are held", words.HELD, STREAMED_NOTE)
                memory = gr.HTML(views.memory_words(None), elem_id="scan_memory")
                way = gr.Radio(WAYS, value="auto", label="Stream", elem_id="scan_way", elem_classes=["dl-seg"])
                precision = gr.Radio(
                    PRECISIONS,
                    value=FLOAT32,
                    label="Scan in",
                    elem_id="scan_dtype",
                    elem_classes=["dl-seg"],
                    visible=not on_a_space(),
                )
                gr.HTML(
                    "<p class='dl-note'>A scan in bfloat16 is another measurement: scans, layer swaps and health are "
                    "made anew, those in float32 stay. Scores and evolutions are always computed in float32.</p>"
                )
                halves_note = gr.HTML(say(views.HALVES_NOTE), elem_id="scan_halves_note")
                halves = gr.Button(views.HALVES, size="sm", elem_id="scan_halves")
                job_line("scan_card_progress", "scan")
            with gr.Column(scale=7, min_width=420, elem_classes=["dl-card"]):
                gr.HTML("<h3>Probes</h3>")
                probes = gr.HTML(views.probe_words(None), elem_id="scan_probes")
                pasted = gr.Textbox(
                    label="Other probes, one text a line: LABEL: text, or JSONL with “probe” and “text”",
                    placeholder=PASTE,
                    lines=4,
                    max_lines=12,
                    elem_id="probes_paste",
                )
                with gr.Row(elem_classes=["dl-tight"]):
                    use = gr.Button("Use the pasted probes", size="sm", elem_id="probes_use", min_width=160)
                    upload = gr.UploadButton(
                        "Upload a JSONL file", size="sm", file_types=[".jsonl"], elem_id="probes_upload", min_width=150
                    )
                    own = gr.Button("Use the built-in probes", size="sm", elem_id="probes_built_in", min_width=160)
                gr.HTML(
                    "<p class='dl-note'>Another probe set makes another pair: scans, runs and scores stay with the "
                    "probes they were made with. A NEUTRAL probe is the yardstick of the difference map.</p>"
                )
        with gr.Column(elem_classes=["dl-card"]):
            gr.HTML("<h3>Kept scans</h3>")
            with gr.Row(elem_classes=["dl-controls"]):
                whose = gr.Radio(WHOSE, value="father", label="Keep the scan of", elem_id="keep_who",
                                 elem_classes=["dl-seg"])  # fmt: skip
                name = gr.Textbox(
                    label="under the name", placeholder="before the fix", max_length=80, elem_id="keep_name"
                )
                keep = gr.Button("Keep", size="sm", elem_id="keep_go", min_width=90)
                load = gr.UploadButton("Load a shared file", size="sm", file_types=[".zip"], elem_id="keep_load",
                                       min_width=150)  # fmt: skip
            table = data_table("kept_scans", label="Kept scans", pick=True, height=260, empty=views.NONE_KEPT)
            chosen = gr.Textbox("", visible="hidden", elem_id="kept_chosen")
            about = gr.HTML(elem_id="kept_about")
            with gr.Column(visible="hidden", elem_id="kept_more") as more:
                with gr.Row(elem_classes=["dl-controls"]):
                    new_name = gr.Textbox(label="Name", max_length=80, elem_id="kept_name")
                    rename = gr.Button("Rename", size="sm", elem_id="kept_rename", min_width=90)
                    download = gr.DownloadButton("Download to share", size="sm", elem_id="kept_download", min_width=150)
                    delete = gr.Button("Delete", size="sm", elem_id="kept_delete", min_width=90)
                with gr.Row(elem_classes=["dl-controls"]):
                    against = Menu(
                        views.against_choices([], ""), value="father", label="Compare it with", elem_id="kept_against",
                        min_width=240,
                    )  # fmt: skip
                    measure = gr.Radio(MEASURE_CHOICES, value="loss", label="Measure", elem_id="kept_measure",
                                       elem_classes=["dl-seg"])  # fmt: skip
                told = gr.HTML(elem_id="kept_told")
                chart = chart_card("kept_map", "Difference of two scans", words.SCAN_COMPARED, empty=PICK,
                                   height=260, layered=True)  # fmt: skip

    picked = [about, more, new_name, download, against]
    comparing = [shared.pair, shared.genome, chosen, against, measure]

    def opened(pair_key: str) -> Pair:
        pair = pair_of(lab, pair_key)
        if pair is None:
            raise LabError("no pair is open; open one in Parents")
        return pair

    def recipe_hash(pair: Pair, at_hand: dict[str, Any] | None) -> str:
        return lab.recipe(pair, genome_at_hand(pair, at_hand)).hash

    def scan_if_small(pair: Pair) -> None:
        if pair.compatible and pair.total_bytes <= SMALL_BYTES:
            lab.request_scan(pair)

    def way_now(pair_key: str) -> list[Any]:
        pair = pair_of(lab, pair_key)
        choice = lab.memory(pair) if pair is not None else None
        return [views.memory_words(choice), *([choice.way, choice.dtype] if choice else [gr.skip()] * 2)]

    def measured_now(pair_key: str) -> list[Any]:
        pair = pair_of(lab, pair_key)
        there = pair is not None and views.has_halves(lab, pair)
        return [
            say(views.HALVES_THERE if there else views.HALVES_NOTE),
            gr.Button(interactive=pair is not None and not there),
            views.probe_words(pair, lab.scan(pair, "father") if pair is not None else None),
        ]

    def found(scan_id: str) -> list[Any]:
        return [views.kept_table(lab.saved.list(), scan_id), *show(scan_id)]

    shared.pair.change(way_now, shared.pair, [memory, way, precision], **AT_ONCE)
    shared.scan_stamp.change(measured_now, shared.pair, [halves_note, halves, probes], **AT_ONCE)
    card.expand(found, chosen, [table, *picked], **AT_ONCE)

    @guarded
    def choose_way(pair_key: str, wanted: str) -> Any:
        return views.memory_words(lab.set_memory(opened(pair_key), wanted))

    @guarded
    def choose_precision(pair_key: str, wanted: str) -> Any:
        pair = opened(pair_key)
        choice = lab.set_dtype(pair, wanted)
        scan_if_small(pair)
        return views.memory_words(choice)

    way.input(choose_way, [shared.pair, way], memory, **CHOSEN)
    precision.input(choose_precision, [shared.pair, precision], memory, **CHOSEN)

    @guarded
    def ask_halves(pair_key: str) -> Any:
        lab.request_scan(opened(pair_key), halves=True)
        gr.Info("The halves are being measured; the maps fill probe by probe.", title="Scan", duration=4)
        return gr.Button(interactive=False)

    halves.click(ask_halves, shared.pair, halves, **QUIET)

    def measured_with(pair_key: str, source: str | Path | None) -> list[Any]:
        pair = lab.with_probes(opened(pair_key), source)
        scan_if_small(pair)
        return [pair.key, ""]

    @guarded
    def use_pasted(pair_key: str, text: str) -> Any:
        return measured_with(pair_key, text or "")

    @guarded
    def use_file(pair_key: str, path: str) -> Any:
        return measured_with(pair_key, Path(path))

    @guarded
    def use_own(pair_key: str) -> Any:
        return measured_with(pair_key, None)

    use.click(use_pasted, [shared.pair, pasted], [shared.pair, pasted], **QUIET)
    upload.upload(use_file, [shared.pair, upload], [shared.pair, pasted], **QUIET)
    own.click(use_own, shared.pair, [shared.pair, pasted], **QUIET)

    def show(scan_id: str) -> list[Any]:
        """The row with this id, opened; nothing is open without one."""
        kept = lab.saved.list()
        one = next((about for about in kept if about.id == scan_id), None)
        against_now = gr.Dropdown(views.against_choices(kept, scan_id))
        if one is None:
            words_ = say(PICK) if kept else ""
            return [words_, gr.Column(visible="hidden"), "", gr.DownloadButton(visible=False), against_now]
        try:
            file = lab.saved.share(one.id)
            offer, note = gr.DownloadButton(value=served(file, one.id, file.name), visible=True), ""
        except LabError as error:
            offer, note = gr.DownloadButton(visible=False), say(str(error), bad=True)
        return [note, gr.Column(visible=True), one.name, offer, against_now]

    def pick(event: gr.EventData) -> list[Any]:
        scan_id = str(event._data.get("id", ""))
        return [scan_id, *found(scan_id)]

    table.select(pick, None, [chosen, table, *picked], **PICKED)

    @guarded
    def keep_it(pair_key: str, at_hand: dict[str, Any] | None, who: str, wanted: str) -> list[Any]:
        pair = opened(pair_key)
        made = lab.saved.keep(pair, recipe_hash(pair, at_hand) if who == "child" else who, wanted)
        return ["", made.id, *found(made.id)]

    kept_now = [chosen, table, *picked]
    keep.click(keep_it, [shared.pair, shared.genome, whose, name], [name, *kept_now], **QUIET)
    name.submit(keep_it, [shared.pair, shared.genome, whose, name], [name, *kept_now], **QUIET)

    @guarded
    def take_it(path: str) -> list[Any]:
        made = lab.saved.take(Path(path))
        gr.Info(f"Kept as {made.name}.", title="Kept scans", duration=4)
        return [made.id, *found(made.id)]

    load.upload(take_it, load, kept_now, **QUIET)

    @guarded
    def rename_it(scan_id: str, wanted: str) -> list[Any]:
        lab.saved.rename(scan_id, wanted)
        return found(scan_id)

    for change in (rename.click, new_name.submit):
        change(rename_it, [chosen, new_name], [table, *picked], **QUIET)

    @guarded
    def delete_it(scan_id: str) -> Any:
        if not scan_id:
            return gr.skip()
        lab.saved.forget(scan_id)
        return ["", *found("")]

    delete.click(delete_it, chosen, kept_now, js=_CONFIRM, **QUIET)

    def compare(pair_key: str, at_hand: dict[str, Any] | None, scan_id: str, asked: str | None, by: str) -> Any:
        with_ = asked or "father"
        one = next((about for about in lab.saved.list() if about.id == scan_id), None)
        if one is None:
            return "", nothing(PICK).wire()
        pair = pair_of(lab, pair_key)
        offered = views.against_choices(lab.saved.list(), "")
        called = next((shown for shown, value in offered if value == with_), with_)
        if lab.store.is_id(with_):
            called = f"“{called}”"
        try:
            other = recipe_hash(pair, at_hand) if with_ == "child" and pair is not None else with_
        except LabError as error:
            return say(str(error), bad=True), nothing(str(error)).wire()
        return views.compared(lab, pair, (other, scan_id), (called, f"“{one.name}”"), by)

    for change in (chosen.change, picking(against), measure.input, shared.pair.change):
        change(compare, comparing, [told, chart], **LATEST)
    chart.select(layer_clicked, None, shared.layer, **PICKED)
