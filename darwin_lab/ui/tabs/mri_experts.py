"""The Experts part of the MRI tab: who works, who is dead, how the routers fare, in both parents.

Takes scans from the store; a click on a map selects its layer. A dense pair shows one line and nothing else.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from darwin_lab.ui import words
from darwin_lab.ui.components.chart import chart_card
from darwin_lab.ui.components.data_table import data_table, table_value
from darwin_lab.ui.components.heading import heading
from darwin_lab.ui.components.menus import Menu, picking
from darwin_lab.ui.figures.style import nothing
from darwin_lab.ui.session import LATEST, Shared, pair_of, say
from darwin_lab.ui.tabs import mri_expert_views as views
from darwin_lab.ui.tabs.mri_panel import when_open
from darwin_lab.ui.tabs.mri_views import PEOPLE, both_scans, shown_charts

MEASURES = [("Load", "load"), ("Saliency", "saliency")]
ORDERS = [("Expert number", "index"), ("Load", "load")]
MODELS = [("All", "both"), ("Father", "father"), ("Mother", "mother"), ("Difference", "difference")]
EVERY = ("All probes", views.EVERY_PROBE)
LOOKING = "Looking up the scan…"
EMPTY = "The scan counts expert use with its first probe. Open a pair in Parents to start one."


def build(shared: Shared, tab: gr.Tab, shown: gr.State) -> list[gr.HTML]:
    """Put the part on the page and wire it; the maps, whose clicks select a layer."""
    lab = shared.lab
    dense = gr.HTML(elem_id="experts_dense")
    with gr.Column(elem_id="experts_body"):
        with gr.Row(elem_classes=["dl-row", "dl-controls"]):
            measure = gr.Radio(
                MEASURES, value="load", label="Measure", elem_id="expert_measure", elem_classes=["dl-seg"]
            )
            order = gr.Radio(ORDERS, value="index", label="Sorted by", elem_id="mri_order", elem_classes=["dl-seg"])
            model = gr.Radio(MODELS, value="both", label="Model", elem_id="expert_model", elem_classes=["dl-seg"])
            probe = Menu(
                [EVERY],
                value=views.EVERY_PROBE,
                label="Probe",
                show_label=False,
                elem_id="expert_probe",
                min_width=200,
            )
        with gr.Row(elem_classes=["dl-row", "dl-maps"]):
            maps = [
                chart_card(
                    f"expert_map_{who}",
                    f"{who.capitalize()}: experts",
                    words.EXPERT_MAP,
                    empty=LOOKING,
                    height=300,
                    layered=True,
                )
                for who in PEOPLE
            ]
            maps.append(
                chart_card(
                    "expert_difference",
                    "Experts, father against mother",
                    words.EXPERT_DIFFERENCE,
                    empty=LOOKING,
                    height=300,
                    layered=True,
                )
            )
        with gr.Row(elem_classes=["dl-row", "dl-maps"]):
            lines = [
                chart_card("dead_share", "Dead experts", words.DEAD_SHARE, empty=LOOKING, height=240, layered=True),
                chart_card(
                    "router_entropy", "Router entropy", words.ROUTER_ENTROPY, empty=LOOKING, height=240, layered=True
                ),
                chart_card(
                    "output_similarity",
                    "Output similarity",
                    words.OUTPUT_SIMILARITY,
                    empty=LOOKING,
                    height=240,
                    layered=True,
                ),
            ]
        with gr.Column(elem_classes=["dl-card"]):
            head = heading("moe_health_head", "Expert health", words.MOE_HEALTH)
            health = data_table("moe_health", label="Expert health of both parents", empty=LOOKING)

    def draw(pair_key: str, by: str, sort: str, who: str, asked: str | None) -> list[Any]:
        pair = pair_of(lab, pair_key)
        if pair is None:
            return ["", *[nothing(EMPTY).wire()] * 6, "", table_value((), (), empty=EMPTY), gr.skip()]
        scans = both_scans(lab, pair)
        known = [EVERY, *((name, name) for name in pair.probes.texts)]
        only = asked if asked in pair.probes.texts else views.EVERY_PROBE
        said = views.dense_words(scans)
        charts = shown_charts(views.expert_charts(scans, sort, by, only), who)
        charts += [drawn(scans).wire() for drawn in (views.dead_chart, views.entropy_chart, views.similarity_chart)]
        return [
            f"<div data-dense='{'all' if said == views.DENSE else 'some'}'>{say(said)}</div>" if said else "",
            *charts,
            views.health_note(scans, lab.static(pair)),
            views.health_table(scans),
            gr.Dropdown(known) if only == asked else gr.Dropdown(known, value=only),
        ]

    controls = [shared.pair, measure, order, model, probe]
    drawn = [dense, *maps, *lines, head, health, probe]
    for change in (measure.input, order.input, model.input, picking(probe), tab.select):
        change(draw, controls, drawn, **LATEST)
    when_open(shared, shown, "experts").change(draw, controls, drawn, **LATEST)
    return [*maps, *lines]
