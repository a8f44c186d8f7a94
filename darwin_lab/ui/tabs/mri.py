"""The MRI tab: what matters where in each parent, which experts work, and where the parents differ.

Takes scans from the store as they fill; gives the selected layer. Everything shown here was measured by the scan. The
Layers part is here, Experts and the layer panel beside it (`mri_experts`, `mri_panel`).
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from darwin_lab.errors import LabError
from darwin_lab.ui import words
from darwin_lab.ui.components.chart import chart_card
from darwin_lab.ui.components.data_table import data_table, table_value
from darwin_lab.ui.components.heading import heading
from darwin_lab.ui.figures.style import nothing
from darwin_lab.ui.session import AT_ONCE, LATEST, PICKED, QUIET, Shared, guarded, layer_clicked, lead, pair_of
from darwin_lab.ui.tabs import mri_experts, mri_panel, scan_card, trial_card
from darwin_lab.ui.tabs.mri_layer_views import NO_PROFILE, model_tensors, tensors_note
from darwin_lab.ui.tabs.mri_views import (
    PEOPLE,
    advice_chart,
    both_scans,
    difference,
    half_of,
    probe_charts,
    progress_words,
    shown_charts,
    signal_awaited,
    signal_words,
)

MEASURE_CHOICES = [("Loss", "loss"), ("Layer skip", "skip"), ("KL", "kl"), ("Influence", "influence")]
HALF_CHOICES = [("Whole layer", "all"), ("Attention", "attn"), ("FFN", "ffn")]
MODELS = [("All", "both"), ("Father", "father"), ("Mother", "mother"), ("Difference", "difference")]
VIEWS = [("Importance", "importance"), ("Swap gain", "gain")]
WAITING = "The scan fills this map probe by probe. Open a pair in Parents to start one."


def build(shared: Shared) -> None:
    """Put the tab's components on the page and wire them."""
    lab = shared.lab
    shown = gr.State("layers")
    with gr.Row(elem_classes=["dl-row", "dl-headline"]):
        gr.HTML(
            lead("MRI", "What each layer is worth to each skill, measured by leaving it out, and which experts work.")
        )
        progress = gr.HTML(elem_id="mri_progress", min_width=280)
        scan_now = gr.Button("Scan this pair", size="sm", elem_id="scan_now", visible=False, min_width=140)

    def draw(pair_key: str, by: str, part: str, who: str, view_by: str) -> list[Any]:
        pair = pair_of(lab, pair_key)
        if pair is None:
            return [nothing(WAITING).wire()] * 3 + [signal_awaited("no pair is open"), "", gr.Button(visible=False)]
        scans, asked = both_scans(lab, pair), half_of(part)
        try:
            differing = difference(lab, pair, scans, by, view_by, asked)
        except (LabError, ValueError) as error:
            differing = nothing(str(error))
        charts = shown_charts([*probe_charts(pair, scans, by, asked), differing], who)
        busy = any(job.kind.startswith(("scan", "contrast", "static")) for job in lab.active_jobs())
        whole = all(lab.scan_is_complete(pair, person) for person in scans) and lab.contrast(pair) is not None
        whole = whole and all(scan is not None and scan.has_centroids for scan in scans.values())
        idle = not whole and not busy and all(check.ok for check in pair.checks)
        return [*charts, signal_words(lab, pair), progress_words(lab, pair, scans), gr.Button(visible=idle)]

    with gr.Tabs(elem_id="mri_parts", selected="layers"):
        with gr.Tab("Layers", id="layers", elem_id="mri_part_layers") as layers_part:
            signal = gr.HTML(signal_awaited(), elem_id="mri_signal")
            with gr.Row(elem_classes=["dl-row", "dl-controls"]):
                measure = gr.Radio(
                    MEASURE_CHOICES, value="loss", label="Measure", elem_id="mri_measure", elem_classes=["dl-seg"]
                )
                half = gr.Radio(
                    HALF_CHOICES, value="all", label="Left out", elem_id="mri_half", elem_classes=["dl-seg"]
                )
                model = gr.Radio(MODELS, value="both", label="Model", elem_id="mri_model", elem_classes=["dl-seg"])
                view = gr.Radio(
                    VIEWS, value="importance", label="Difference by", elem_id="mri_view", elem_classes=["dl-seg"]
                )
            with gr.Row(elem_classes=["dl-row", "dl-maps"]):
                maps = [
                    chart_card(
                        f"probe_map_{who}",
                        f"{who.capitalize()}: importance",
                        words.PROBE_MAP,
                        empty=mri_experts.LOOKING,
                        height=260,
                        layered=True,
                    )
                    for who in PEOPLE
                ]
                maps.append(
                    chart_card(
                        "advantage_map",
                        "Father against mother",
                        words.ADVANTAGE,
                        empty=mri_experts.LOOKING,
                        height=260,
                        layered=True,
                    )
                )
            # what is seen first listens first: gradio asks the listeners of one change one after the other
            controls = [shared.pair, measure, half, model, view]
            for change in (measure.input, half.input, model.input, view.input, shared.scan_stamp.change):
                change(draw, controls, [*maps, signal, progress, scan_now], **LATEST)
            advised = chart_card(
                "advice_map",
                "Layer swaps and published formulas: what each advises",
                words.ADVICE,
                empty=mri_experts.LOOKING,
                height=250,
                layered=True,
            )
        with gr.Tab("Experts", id="experts", elem_id="mri_part_experts") as experts_part:
            expert_maps = mri_experts.build(shared, experts_part, shown)
        with (
            gr.Tab("Tensors", id="tensors", elem_id="mri_part_tensors") as tensors_part,
            gr.Column(elem_classes=["dl-card"]),
        ):
            tensors_head = heading("mri_tensors_head", "Tensors of the model", words.TENSORS)
            tensors = data_table(
                "mri_tensors",
                label="Tensors of the model",
                search=True,
                facets=("layer", "role"),
                height=520,
                empty=NO_PROFILE,
            )
    panel = mri_panel.build(shared, measure, half)
    trial_card.build(shared)
    scan_card.build(shared)

    def advise(pair_key: str) -> str:
        pair = pair_of(lab, pair_key)
        return (nothing(WAITING) if pair is None or not pair.compatible else advice_chart(lab, pair)).wire()

    def list_tensors(pair_key: str) -> list[Any]:
        pair = pair_of(lab, pair_key)
        if pair is None:
            return [NO_PROFILE, table_value((), (), empty=NO_PROFILE)]
        return [tensors_note(lab, pair), model_tensors(lab, pair)]

    listed = [tensors_head, tensors]
    tensors_part.select(list_tensors, shared.pair, listed, **LATEST)
    mri_panel.when_open(shared, shown, "tensors").change(list_tensors, shared.pair, listed, **AT_ONCE)
    for name, part_tab in (("layers", layers_part), ("experts", experts_part), ("tensors", tensors_part)):
        part_tab.select(lambda opened=name: opened, None, shown, **LATEST)
    shared.scan_stamp.change(advise, shared.pair, advised, **AT_ONCE)
    advised.select(layer_clicked, None, shared.layer, **PICKED)
    for chart in maps:
        chart.select(_cell_clicked, panel.probe, [shared.layer, panel.probe], **PICKED)
    for chart in expert_maps:
        chart.select(layer_clicked, None, shared.layer, **PICKED)

    @guarded
    def scan(pair_key: str) -> Any:
        pair = pair_of(lab, pair_key)
        if pair is None:
            raise LabError("no pair is open; open one in Parents")
        lab.request_scan(pair)
        return gr.Button(visible=False)

    scan_now.click(scan, shared.pair, scan_now, **QUIET)


def _cell_clicked(probe: str | None, event: gr.EventData) -> list[Any]:
    """A click on a cell: its layer, and its probe for the list of texts."""
    named = event._data.get("y")
    return [layer_clicked(event), named if isinstance(named, str) and named else probe]
