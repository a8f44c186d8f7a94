"""The MRI tab: what matters where in each parent, which experts work, and where the parents differ.

Takes scans from the store as they fill; gives the selected layer. Everything shown here was measured by the scan.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from darwin_lab.errors import LabError
from darwin_lab.lab.lab import Lab
from darwin_lab.ui import words
from darwin_lab.ui.components.chart import chart_card
from darwin_lab.ui.components.data_table import data_table, table_value
from darwin_lab.ui.figures.style import nothing
from darwin_lab.ui.session import AT_ONCE, QUIET, Shared, guarded, layer_clicked, lead, pair_of, say
from darwin_lab.ui.tabs.mri_views import (
    dead_chart,
    difference,
    expert_charts,
    experts_of_layer,
    layer_facts,
    probe_charts,
    probes_of_layer,
    progress_words,
    tensor_table,
)

MEASURE_CHOICES = [("Loss", "loss"), ("Layer skip", "skip"), ("KL", "kl"), ("Influence", "influence")]
MODELS = [("Both", "both"), ("Father", "father"), ("Mother", "mother")]
VIEWS = [("Importance", "importance"), ("Swap gain", "gain")]
EXPERT_ORDER = [("Expert number", "number"), ("Load", "load")]
WAITING = "The scan fills this map probe by probe. Open a pair in Parents to start one."
CLICK = "Click a cell of any map to open its layer here."


def build(shared: Shared) -> None:
    """Put the tab's components on the page and wire them."""
    lab = shared.lab
    with gr.Row(elem_classes=["dl-row", "dl-headline"]):
        gr.HTML(
            lead("MRI", "What each layer is worth to each skill, measured by leaving it out, and which experts work.")
        )
        progress = gr.HTML(elem_id="mri_progress", min_width=280)
    with gr.Row(elem_classes=["dl-row", "dl-controls"]):
        measure = gr.Radio(
            MEASURE_CHOICES, value="loss", label="Measure", elem_id="mri_measure", elem_classes=["dl-seg"]
        )
        model = gr.Radio(MODELS, value="both", label="Model", elem_id="mri_model", elem_classes=["dl-seg"])
        view = gr.Radio(
            VIEWS, value="importance", label="Father against mother by", elem_id="mri_view", elem_classes=["dl-seg"]
        )
        order = gr.Radio(
            EXPERT_ORDER, value="number", label="Experts ordered by", elem_id="mri_order", elem_classes=["dl-seg"]
        )
        scan_now = gr.Button("Scan this pair", size="sm", elem_id="scan_now", visible=False, min_width=140)
    with gr.Row(elem_classes=["dl-row"]):
        with gr.Column(scale=8, min_width=480):
            maps = {
                who: chart_card(
                    f"probe_map_{who}",
                    f"{who.capitalize()}: importance",
                    words.PROBE_MAP,
                    empty=WAITING,
                    height=232,
                    layered=True,
                )
                for who in ("father", "mother")
            }
            differ = chart_card(
                "advantage_map", "Father against mother", words.ADVANTAGE, empty=WAITING, height=232, layered=True
            )
            experts = {
                who: chart_card(
                    f"expert_map_{who}",
                    f"{who.capitalize()}: experts",
                    words.EXPERT_MAP,
                    empty=WAITING,
                    height=300,
                    layered=True,
                )
                for who in ("father", "mother")
            }
            dead = chart_card("dead_share", "Dead experts", words.DEAD_SHARE, empty=WAITING, height=240, layered=True)
        with (
            gr.Column(scale=4, min_width=340, elem_classes=["dl-side"]),
            gr.Column(elem_classes=["dl-card"], elem_id="layer_panel"),
        ):
            with gr.Row(elem_classes=["dl-tight"]):
                head = gr.HTML("<h3>Layer</h3>", elem_id="layer_head")
                back = gr.Button("‹", size="sm", min_width=36, scale=0, elem_id="layer_back")
                forth = gr.Button("›", size="sm", min_width=36, scale=0, elem_id="layer_forth")
            about = gr.HTML(say(CLICK), elem_id="layer_about")
            probes = chart_card("layer_probes", "Importance by probe", words.LAYER_PROBES, empty=CLICK, height=290)
            loads = chart_card("layer_experts", "Expert load", words.LAYER_EXPERTS, empty=CLICK, height=230)
            gr.HTML("<h4>Tensors</h4>")
            tensors = data_table("layer_tensors", label="Tensors of the layer", height=300, empty=CLICK)
            to_gene = gr.Button("Open its gene", size="sm", elem_id="layer_to_gene")
    charts = [maps["father"], maps["mother"], differ, experts["father"], experts["mother"], dead]
    controls = [shared.pair, measure, model, view, order]

    def draw(pair_key: str, by: str, who: str, shown: str, sort: str) -> list[Any]:
        pair = pair_of(lab, pair_key)
        if pair is None:
            return [nothing(WAITING).wire()] * 6 + ["", gr.Button(visible=False)]
        scans = {person: lab.scan(pair, person) for person in ("father", "mother")}
        try:
            differing = difference(lab, pair, scans, by, shown)
        except (LabError, ValueError) as error:
            differing = nothing(str(error))
        drawn = [*probe_charts(pair, scans, by), differing]
        drawn += [*expert_charts(scans, sort), dead_chart(scans)]
        shown_for = ["father", "mother", "both", "father", "mother", "both"]
        charts_out = [
            gr.update(value=chart.wire(), visible=who == "both" or whose in (who, "both"))
            for chart, whose in zip(drawn, shown_for, strict=True)
        ]
        busy = any(job.kind.startswith(("scan", "contrast", "static")) for job in lab.active_jobs())
        whole = all(lab.scan_is_complete(pair, person) for person in scans) and lab.contrast(pair) is not None
        idle = not whole and not busy and all(check.ok for check in pair.checks)
        return [*charts_out, progress_words(lab, pair, scans), gr.Button(visible=idle)]

    def open_layer(pair_key: str, layer: int | None, by: str) -> list[Any]:
        pair = pair_of(lab, pair_key)
        if pair is None or layer is None or not 0 <= layer < pair.anatomy.layers:
            return ["<h3>Layer</h3>", say(CLICK), *[nothing(CLICK).wire()] * 2, table_value((), (), empty=CLICK)]
        scans = {person: lab.scan(pair, person) for person in ("father", "mother")}
        kind = pair.anatomy.layer_kinds[layer].replace("_", " ")
        return [
            f"<h3>Layer L{layer}</h3><p class='dl-note'>{kind}</p>",
            layer_facts(lab, pair, layer),
            probes_of_layer(scans, by, layer).wire(),
            experts_of_layer(scans, layer).wire(),
            tensor_table(lab, pair, layer),
        ]

    for change in (measure.input, model.input, view.input, order.input, shared.scan_stamp.change):
        change(draw, controls, [*charts, progress, scan_now], **AT_ONCE)
    panel = [head, about, probes, loads, tensors]
    for change in (measure.input, shared.layer.change, shared.scan_stamp.change):
        change(open_layer, [shared.pair, shared.layer, measure], panel, **AT_ONCE)
    for chart in charts:
        chart.select(layer_clicked, None, shared.layer, **QUIET)
    for button, step in ((back, -1), (forth, 1)):
        button.click(_stepper(lab, step), [shared.pair, shared.layer], shared.layer, **QUIET)
    to_gene.click(lambda: gr.Tabs(selected="genome"), None, shared.tabs, **AT_ONCE)

    @guarded
    def scan(pair_key: str) -> Any:
        pair = pair_of(lab, pair_key)
        if pair is None:
            raise LabError("no pair is open; open one in Parents")
        lab.request_scan(pair)
        return gr.Button(visible=False)

    scan_now.click(scan, shared.pair, scan_now, **QUIET)


def _stepper(lab: Lab, step: int) -> Any:
    def go(pair_key: str, layer: int | None) -> int | None:
        pair = pair_of(lab, pair_key)
        if pair is None:
            return layer
        return 0 if layer is None else (layer + step) % pair.anatomy.layers

    return go
