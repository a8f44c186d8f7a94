"""The MRI tab: what matters where in each parent, which experts work, and where the parents differ.

Takes scans from the store as they fill; gives the selected layer. Everything shown here was measured by the scan.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import gradio as gr
import numpy as np

from darwin_lab.errors import LabError
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.mri.advantage import AdvantageMap, advantage
from darwin_lab.mri.record import Scan
from darwin_lab.ui import words
from darwin_lab.ui.components.chart import chart_card
from darwin_lab.ui.components.data_table import Column, Row, data_table, table_value
from darwin_lab.ui.figures.advantage_map import advantage_map
from darwin_lab.ui.figures.dead_share import dead_share
from darwin_lab.ui.figures.expert_map import expert_map
from darwin_lab.ui.figures.layer_panel import layer_experts, layer_probes
from darwin_lab.ui.figures.probe_map import MEASURES, probe_map
from darwin_lab.ui.figures.style import Chart, nothing
from darwin_lab.ui.session import AT_ONCE, QUIET, Shared, facts, guarded, layer_clicked, lead, pair_of, say

MEASURE_CHOICES = [("Loss", "loss"), ("Layer skip", "skip"), ("KL", "kl"), ("Influence", "influence")]
MODELS = [("Both", "both"), ("Father", "father"), ("Mother", "mother")]
VIEWS = [("Importance", "importance"), ("Swap gain", "gain")]
EXPERT_ORDER = [("Expert number", "number"), ("Load", "load")]
UNITS = {name: unit for name, (_, unit) in MEASURES.items()}
WAITING = "The scan fills this map probe by probe. Open a pair in Parents to start one."
CLICK = "Click a cell of any map to open its layer here."


def build(shared: Shared) -> None:
    """Put the tab's components on the page and wire them."""
    lab = shared.lab
    with gr.Row(elem_classes=["dl-row", "dl-headline"]):
        gr.HTML(lead("MRI", "What each layer is worth to each skill, measured by leaving it out, and which experts work."))
        progress = gr.HTML(elem_id="mri_progress", min_width=280)
    with gr.Row(elem_classes=["dl-row", "dl-controls"]):
        measure = gr.Radio(MEASURE_CHOICES, value="loss", label="Measure", elem_id="mri_measure", elem_classes=["dl-seg"])
        model = gr.Radio(MODELS, value="both", label="Model", elem_id="mri_model", elem_classes=["dl-seg"])
        view = gr.Radio(VIEWS, value="importance", label="Father against mother by", elem_id="mri_view", elem_classes=["dl-seg"])
        order = gr.Radio(EXPERT_ORDER, value="number", label="Experts ordered by", elem_id="mri_order", elem_classes=["dl-seg"])
        scan_now = gr.Button("Scan this pair", size="sm", elem_id="scan_now", visible=False, min_width=140)
    with gr.Row(elem_classes=["dl-row"]):
        with gr.Column(scale=8, min_width=480):
            maps = {
                who: chart_card(f"probe_map_{who}", f"{who.capitalize()}: importance", words.PROBE_MAP, empty=WAITING, height=232, layered=True)
                for who in ("father", "mother")
            }
            differ = chart_card("advantage_map", "Father against mother", words.ADVANTAGE, empty=WAITING, height=232, layered=True)
            experts = {
                who: chart_card(f"expert_map_{who}", f"{who.capitalize()}: experts", words.EXPERT_MAP, empty=WAITING, height=300, layered=True)
                for who in ("father", "mother")
            }
            dead = chart_card("dead_share", "Dead experts", words.DEAD_SHARE, empty=WAITING, height=240, layered=True)
        with gr.Column(scale=4, min_width=340, elem_classes=["dl-side"]):
            with gr.Column(elem_classes=["dl-card"], elem_id="layer_panel"):
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
        drawn = [*probe_charts(pair, scans, by), difference(lab, pair, scans, by, shown)]
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


Scans = dict[str, Scan | None]


def probe_charts(pair: Pair, scans: Scans, measure: str) -> list[Chart]:
    """Father's and mother's importance map on one colour range."""
    found = {who: scan.importance(measure) if scan else {} for who, scan in scans.items()}
    every = [row for by_probe in found.values() for row in by_probe.values()]
    ends = (float(min(row.min() for row in every)), float(max(row.max() for row in every))) if every else None
    return [
        probe_map(
            {probe: row.tolist() for probe, row in found[who].items()},
            probes=list(pair.probes.texts),
            layers=pair.anatomy.layers,
            measure=measure,
            who=who,
            ends=ends,
            interval={probe: scan.interval(measure, probe) for probe in scan.probes} if scan else None,
            tokens=scan.tokens if scan else None,
            kinds=[kind.replace("_", " ") for kind in pair.anatomy.layer_kinds],
        )
        for who, scan in scans.items()
    ]


@lru_cache(maxsize=64)
def _advantage(lab: Lab, pair_key: str, probes: tuple[tuple[str, ...], ...], measure: str) -> AdvantageMap | None:
    """The advantage of two scans that hold these probes; None if the store holds others by now."""
    scans = [lab.scan(lab.pair(pair_key), who) for who in ("father", "mother")]
    if tuple(scan.probes for scan in scans if scan) != probes:
        return None
    return advantage(scans[0], scans[1], measure)  # type: ignore[arg-type]


def difference(lab: Lab, pair: Pair, scans: Scans, measure: str, view: str) -> Chart:
    """The advantage map (difference of importances), or the gain of swapping each layer, father positive."""
    if view == "gain":
        swapped = lab.contrast(pair)
        if swapped is None:
            return nothing("The layer swaps come after both scans; they take about as long.")
        mean, error = swapped.mean, swapped.se
        probes = list(swapped.probes)
        values = -np.stack([mean[probe] for probe in probes])
        told = np.abs(values) > 1.96 * np.stack([error[probe] for probe in probes])
        drawn = advantage_map(values, probes=probes, different=told, unit="loss saved by the father's layer, nats / token")
        return Chart(drawn.figure, "swap gain, per-cell 95 % (not corrected for many cells) · " + drawn.note.split(" · ")[0],
                     drawn.columns, drawn.rows, drawn.alt)  # fmt: skip
    father, mother = scans["father"], scans["mother"]
    if father is None or mother is None or not set(father.probes) & set(mother.probes):
        return nothing("The difference appears when both parents were read on the same probe.")
    found = _advantage(lab, pair.key, (father.probes, mother.probes), measure)
    if found is None:
        return nothing("The scan moved on; the map follows in a moment.")
    return advantage_map(
        found.values,
        probes=list(found.probes),
        different=found.different,
        threshold=None,
        unit=f"{UNITS[measure]}{' above neutral' if found.neutral else ''}",
    )


def expert_charts(scans: Scans, order: str) -> list[Chart]:
    """Father's and mother's expert load."""
    drawn = []
    for who, scan in scans.items():
        report = scan.expert_report() if scan else None
        if scan is not None and report is None:
            drawn.append(nothing(f"The {who} has no routed experts: this is a dense model."))
            continue
        drawn.append(
            expert_map(
                report.utilisation if report else None,
                report.dead if report else None,
                moe_layers=report.layers if report else (),
                who=who,
                tokens=report.tokens if report else 0,
                top_k=scan.top_k if scan else 0,
                certified=report.certified if report else False,
                in_order_of_load=order == "load",
                )
        )
    return drawn


def dead_chart(scans: Scans) -> Chart:
    """Share of dead experts per layer of both parents, with the certificate."""
    reports = {who: scan.expert_report() for who, scan in scans.items() if scan is not None}
    known = {who: report for who, report in reports.items() if report is not None}
    if reports and not known:
        return nothing("Dense models have no routed experts.")
    shares = {who: report.dead_share.tolist() for who, report in known.items()}
    missing = {who: f"{who}: {report.note}" for who, report in known.items() if not report.certified}
    layers = next((report.layers for report in known.values()), ())
    return dead_share(shares, moe_layers=layers, uncertified=missing)


def progress_words(lab: Lab, pair: Pair, scans: Scans) -> str:
    """How far the scan is: probes read of each parent and of the swaps."""
    total = len(pair.probes.texts)
    swapped = lab.contrast(pair)
    rows = [(who, f"{len(scan.probes) if scan else 0} / {total}", "probes") for who, scan in scans.items()]
    rows.append(("layer swaps", f"{len(swapped.probes) if swapped else 0} / {total}", "probes"))
    return facts(rows)


def layer_facts(lab: Lab, pair: Pair, layer: int) -> str:
    """What the prescription advises for the layer."""
    advice = lab.prescription(pair)
    if advice is None:
        return say("The MRI's advice for this layer appears when both scans and the layer swaps are done.")
    rows = [("MRI advises", f"{advice.layer_ratio[layer]:.3f}", "mother's share")]
    if layer in advice.golden:
        rows.append(("golden layer", "yes", "the mother clearly leads"))
    kept = advice.preserve.get(layer, ())
    if kept:
        rows.append(("preserve", str(len(kept)), "experts dead in the mother"))
    return facts(rows)


def probes_of_layer(scans: Scans, measure: str, layer: int) -> Chart:
    """Importance of one layer on every probe, with intervals, in both parents."""
    values: dict[str, dict[str, tuple[float, float, float]]] = {}
    for who, scan in scans.items():
        if scan is None:
            continue
        mean = scan.importance(measure)
        values[who] = {
            probe: (float(mean[probe][layer]), *(float(v) for v in scan.interval(measure, probe)[layer]))
            for probe in scan.probes
        }  # type: ignore[assignment]
    return layer_probes(values, layer=layer, unit=UNITS[measure])


def experts_of_layer(scans: Scans, layer: int) -> Chart:
    """Expert load of one layer in both parents."""
    loads: dict[str, list[float]] = {}
    dead: dict[str, list[bool]] = {}
    for who, scan in scans.items():
        report = scan.expert_report() if scan else None
        if report is None or layer not in report.layers:
            continue
        row = report.layers.index(layer)
        loads[who] = report.utilisation[row].tolist()
        if report.certified:
            dead[who] = report.dead[row].tolist()
    return layer_experts(loads, dead, layer=layer)


def tensor_table(lab: Lab, pair: Pair, layer: int) -> dict[str, Any]:
    """The layer's tensors with what tells the parents apart, where the static profile is there."""
    profile = lab.static(pair)
    by_name = profile.by_name if profile else {}
    rows = []
    for part in pair.anatomy.layer_parts(layer):
        static = by_name.get(part.name)
        rows.append(
            Row(
                part.name,
                (
                    part.name.split(f".{layer}.", 1)[-1],
                    "×".join(str(axis) for axis in part.shape),
                    static.delta_norm if static else None,
                    static.cosine if static else None,
                    static.sign_flips if static else None,
                ),
            )
        )
    columns = (
        Column("tensor", "code"),
        Column("shape", "code"),
        Column("‖B−A‖/‖A‖", "number", 3, "Size of the change from father to mother over the father's norm"),
        Column("cosine", "number", 4, "Cosine between father's and mother's tensor"),
        Column("sign flips", "share", 1, "Share of entries whose sign differs"),
    )
    return table_value(columns, rows)
