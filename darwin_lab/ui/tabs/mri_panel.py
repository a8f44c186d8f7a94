"""The layer panel of the MRI tab: one layer's importance, texts, experts and tensors, in both parents.

Takes the selected layer and what the maps show; gives nothing but a way to the layer's gene. Empty until a layer is
chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from darwin_lab.lab.lab import Lab
from darwin_lab.ui import words
from darwin_lab.ui.components.chart import chart_card
from darwin_lab.ui.components.data_table import data_table, table_value
from darwin_lab.ui.components.heading import heading
from darwin_lab.ui.figures.style import nothing
from darwin_lab.ui.session import AT_ONCE, LATEST, PICKED, QUIET, Shared, pair_of, say
from darwin_lab.ui.tabs import mri_layer_views as views
from darwin_lab.ui.tabs.mri_views import UNITS, both_scans, half_of

CLICK = "Click a cell of any map, or move with the arrow keys, to open its layer here."

NO_LAYER = "<h3 class='dl-unchosen'>Layer</h3>"
"""The style sheet hides the body of a panel that says this, and the experts of a layer that has none."""


@dataclass(frozen=True)
class Panel:
    """What the maps need of the panel: the probe whose texts it lists."""

    probe: gr.Dropdown


def build(shared: Shared, measure: gr.Radio, half: gr.Radio) -> Panel:
    """Put the panel on the page and wire it."""
    lab = shared.lab
    with gr.Column(elem_classes=["dl-card"], elem_id="layer_panel"):
        with gr.Row(elem_classes=["dl-tight", "dl-panel-head"]):
            head = gr.HTML(NO_LAYER, elem_id="layer_head")
            about = gr.HTML(say(CLICK), elem_id="layer_about")
            back = gr.Button("‹ Previous", size="sm", min_width=90, scale=0, elem_id="layer_back")
            forth = gr.Button("Next ›", size="sm", min_width=90, scale=0, elem_id="layer_forth")
            to_gene = gr.Button("Open its gene", size="sm", min_width=120, scale=0, elem_id="layer_to_gene")
        with gr.Column(elem_id="layer_body"):
            with gr.Row(elem_classes=["dl-row", "dl-pairs"]):
                probes = chart_card("layer_probes", "Importance by probe", words.LAYER_PROBES, empty=CLICK, height=290)
                with gr.Column(elem_classes=["dl-part"]):
                    about_texts = heading("layer_texts_head", "Texts of the probe", words.LAYER_TEXTS)
                    probe = gr.Dropdown(
                        [],
                        label="Probe",
                        show_label=False,
                        elem_id="layer_probe",
                        min_width=160,
                        allow_custom_value=True,  # a click may name a probe before the list of this pair is there
                    )
                    texts = data_table("layer_texts", label="Texts of the probe", search=True, height=250, empty=CLICK)
            with gr.Row(elem_classes=["dl-row", "dl-pairs"], elem_id="layer_moe"):
                loads = chart_card("layer_experts", "Expert load", words.LAYER_EXPERTS, empty=CLICK, height=270)
                experts = data_table(
                    "layer_expert_table", label="Experts of the layer", search=True, height=250, empty=CLICK
                )
            about_tensors = heading("layer_tensors_head", "Tensors of the layer", words.TENSORS)
            tensors = data_table("layer_tensors", label="Tensors of the layer", height=320, empty=CLICK)

    def open_layer(pair_key: str, layer: int | None, by: str, part: str, name: str | None) -> list[Any]:
        pair = pair_of(lab, pair_key)
        if pair is None or layer is None or not 0 <= layer < pair.anatomy.layers:
            chart, table = nothing(CLICK).wire(), table_value((), (), empty=CLICK)
            return [NO_LAYER, say(CLICK), chart, "", gr.skip(), table, chart, table, "", table]
        scans, half = both_scans(lab, pair), half_of(part)
        named = list(pair.probes.texts)
        name = name if name in named else named[0]
        kind = pair.anatomy.layer_kinds[layer].replace("_", " ")
        routed = layer in pair.anatomy.moe_layers
        return [
            f"<h3 class='{'dl-routed' if routed else 'dl-plain-layer'}'>Layer L{layer}</h3>"
            f"<p class='dl-note'>{kind} · {layer + 1} of {pair.anatomy.layers}</p>",
            views.layer_facts(lab, pair, layer),
            views.probes_of_layer(scans, by, layer, half).wire(),
            f"L{layer} · {UNITS[by]} · largest effect first",
            gr.Dropdown(named, value=name),
            views.text_table(pair, scans, by, layer, name, half),
            views.experts_of_layer(scans, layer).wire(),
            views.expert_table(scans, layer),
            views.layer_tensors_note(pair, layer),
            views.tensor_table(lab, pair, layer),
        ]

    def list_texts(pair_key: str, layer: int | None, by: str, part: str, name: str | None) -> Any:
        pair = pair_of(lab, pair_key)
        if pair is None or layer is None or not 0 <= layer < pair.anatomy.layers or not name:
            return table_value((), (), empty=CLICK)
        return views.text_table(pair, both_scans(lab, pair), by, layer, name, half_of(part))

    asked = [shared.pair, shared.layer, measure, half, probe]
    shown = [head, about, probes, about_texts, probe, texts, loads, experts, about_tensors, tensors]
    for change in (measure.input, half.input, shared.layer.change, shared.scan_stamp.change):
        change(open_layer, asked, shown, **LATEST)
    probe.change(list_texts, asked, texts, **AT_ONCE)
    probes.select(_probe_clicked, None, probe, **PICKED)
    for button, step in ((back, -1), (forth, 1)):
        button.click(_stepper(lab, step), [shared.pair, shared.layer], shared.layer, **QUIET)
    to_gene.click(lambda: gr.Tabs(selected="genome"), None, shared.tabs, **AT_ONCE)
    return Panel(probe)


def when_open(shared: Shared, shown: gr.State, part: str) -> gr.Textbox:
    """A hidden text that follows the scan's stamp while `part` is the open one.

    What is drawn for a part listens to it: a handler that answered `gr.skip()` to charts not on the page yet would
    make gradio forget their titles.
    """
    stamp = gr.Textbox("", visible="hidden", elem_id=f"mri_{part}_stamp")
    shared.scan_stamp.change(
        lambda opened, now: now if opened == part else gr.skip(), [shown, shared.scan_stamp], stamp, **AT_ONCE
    )
    return stamp


def _probe_clicked(event: gr.EventData) -> Any:
    named = event._data.get("y")
    return named if isinstance(named, str) and named else gr.skip()


def _stepper(lab: Lab, step: int) -> Any:
    def go(pair_key: str, layer: int | None) -> int | None:
        pair = pair_of(lab, pair_key)
        if pair is None:
            return layer
        return 0 if layer is None else (layer + step) % pair.anatomy.layers

    return go
