"""The Health tab: the child at hand beside its parents, layer by layer, with a verdict that names the layers.

Takes the genome at hand; gives its health from the store, and a mended genome where the advice can be followed.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from darwin_lab.errors import LabError
from darwin_lab.genome.genome import Genome, neutral_genome
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.mri.health import Advice, Health
from darwin_lab.ui import words
from darwin_lab.ui.components.chart import chart_card
from darwin_lab.ui.components.data_table import Column, Row, data_table, mark, table_value
from darwin_lab.ui.figures.dead_share import dead_share
from darwin_lab.ui.figures.health_bars import health_bars
from darwin_lab.ui.figures.style import Chart, nothing
from darwin_lab.ui.session import (
    AT_ONCE,
    QUIET,
    Shared,
    genome_at_hand,
    guarded,
    layer_clicked,
    lead,
    pair_of,
    to_load,
    verdict,
)

ALL = "All skills"
TONE = {"healthy": "ok", "watch": "watch", "unhealthy": "bad"}
NOT_YET = "Press “Check this child's health”: the child is scanned like a parent and laid beside both."
STEP = 0.15
"""How far one click moves a flagged layer towards the parent that reads better there (mother's share)."""


def build(shared: Shared) -> None:
    """Put the tab's components on the page and wire them."""
    lab = shared.lab
    gr.HTML(lead("Health", "Does every layer of the child still do what it did in a parent?"))
    with gr.Row(elem_classes=["dl-row"]):
        sentence = gr.HTML(verdict("plain", "Not checked yet.", NOT_YET), elem_id="health_verdict", min_width=420)
        check = gr.Button(
            "Check this child's health", variant="primary", elem_id="health_check", scale=0, min_width=220
        )
    probe = gr.Radio([ALL], value=ALL, label="Probe", elem_id="health_probe", elem_classes=["dl-seg"])
    with gr.Row(elem_classes=["dl-row"]):
        with gr.Column(scale=8, min_width=480):
            bars = chart_card(
                "health_bars", "Child beside its parents", words.HEALTH, empty=NOT_YET, height=436, layered=True
            )
        with gr.Column(scale=5, min_width=360):
            with gr.Column(elem_classes=["dl-card"]):
                with gr.Row(elem_classes=["dl-tight"]):
                    gr.HTML("<h3>What would mend it</h3>")
                    mend = gr.Button(
                        "Mend all", size="sm", interactive=False, elem_id="health_mend", scale=0, min_width=110
                    )
                advice = data_table("health_advice", label="Advice", pick=True, height=170, empty=NOT_YET)
            dead = chart_card(
                "health_dead", "Dead experts in the child", words.HEALTH_DEAD, empty=NOT_YET, height=190, layered=True
            )
    with gr.Column(elem_classes=["dl-card"]):
        gr.HTML(
            "<h3>Loss by probe</h3><p class='dl-note'>NLL in nats a token; differences paired over texts, 95 %.</p>"
        )
        losses = data_table("health_nll", label="Loss by probe", empty=NOT_YET)

    def found(pair_key: str, at_hand: dict[str, Any] | None) -> tuple[Pair, Health | None]:
        pair = pair_of(lab, pair_key)
        if pair is None:
            raise LabError("open a pair in Parents first")
        return pair, lab.health(pair, lab.recipe(pair, genome_at_hand(pair, at_hand)).hash)

    def show(pair_key: str, at_hand: dict[str, Any] | None, by: str) -> list[Any]:
        try:
            pair, health = found(pair_key, at_hand)
        except LabError as error:
            pair, health, why = None, None, str(error)
        else:
            why = NOT_YET
        if pair is None or health is None:
            working = pair is not None and any(job.kind == "health" for job in lab.active_jobs())
            head = "Scanning the child." if working else "Not checked yet."
            why = "Its layers appear as soon as every probe is read." if working else why
            empty = table_value((), (), empty=why)
            return [
                verdict("plain", head, why),
                gr.skip(),
                *[nothing(why).wire()] * 2,
                empty,
                empty,
                gr.Button(interactive=False),
            ]
        probes = list(dict.fromkeys(row.probe for row in health.rows))
        by = by if by in probes else ALL
        return [
            verdict(TONE[health.verdict], health.sentence, threshold_words(health)),
            gr.Radio(choices=[ALL, *probes], value=by),
            bar_chart(health, by).wire(),
            dead_chart(health).wire(),
            loss_table(health),
            advice_table(health.advice),
            gr.Button(interactive=bool(health.advice)),
        ]

    shown = [sentence, probe, bars, dead, losses, advice, mend]
    inputs = [shared.pair, shared.genome, probe]
    for change in (shared.child_stamp.change, probe.input):
        change(show, inputs, shown, **AT_ONCE)
    for chart in (bars, dead):
        chart.select(layer_clicked, None, shared.layer, **QUIET)

    @guarded
    def ask(pair_key: str, at_hand: dict[str, Any] | None) -> Any:
        pair = pair_of(lab, pair_key)
        if pair is None:
            raise LabError("open a pair in Parents first")
        lab.request_health(pair, genome_at_hand(pair, at_hand))
        return verdict("plain", "Scanning the child.", "Its layers appear as soon as every probe is read.")

    check.click(ask, [shared.pair, shared.genome], sentence, **QUIET)

    @guarded
    def mend_all(pair_key: str, at_hand: dict[str, Any] | None) -> Any:
        pair, health = found(pair_key, at_hand)
        if health is None or not health.advice:
            raise LabError("there is nothing to mend; check the child's health first")
        genome = mended(lab, pair, genome_at_hand(pair, at_hand), health.advice)
        gr.Info(
            "Each flagged layer was moved a step towards the parent that reads better there.", title="Mended genome"
        )
        return to_load(genome, "mended:" + genome.hash), gr.Tabs(selected="genome")

    mend.click(mend_all, [shared.pair, shared.genome], [shared.load, shared.tabs], **QUIET)

    def pick(event: gr.EventData) -> int:
        return int(event._data["id"])

    advice.select(pick, None, shared.layer, **QUIET)


def threshold_words(health: Health) -> str:
    """The thresholds the verdict used."""
    limits = health.thresholds
    return (
        f"Interference above {limits.interference_factor:g} × the larger parent + {limits.interference_margin:g}; "
        f"function loss below {limits.loss_factor:g} × a parent's top quarter. Thresholds are ours."
    )


def flags_of(health: Health, probe: str) -> dict[int, str]:
    """Layer -> why it is flagged under a probe, or under any."""
    flags: dict[int, set[str]] = {}
    for row in health.rows:
        if probe not in (ALL, row.probe):
            continue
        named = {"interference": row.interference, "function loss": row.function_loss}
        for name in (name for name, hit in named.items() if hit):
            flags.setdefault(row.layer, set()).add(name)
    return {layer: " and ".join(sorted(why)) for layer, why in sorted(flags.items())}


def bar_chart(health: Health, probe: str) -> Chart:
    """Importance per layer of child, father and mother for one probe or over all skills."""
    if probe == ALL:
        lines = {who: health.layer_importance[who] for who in ("child", "father", "mother")}
    else:
        rows = sorted((row for row in health.rows if row.probe == probe), key=lambda row: row.layer)
        lines = {who: tuple(getattr(row, who) for row in rows) for who in ("child", "father", "mother")}
    return health_bars(lines["child"], lines["father"], lines["mother"], probe=probe, flags=flags_of(health, probe))


def dead_chart(health: Health) -> Chart:
    """Dead experts per layer of child and parents."""
    shares = {who: values for who, values in health.dead_share.items() if values is not None}
    if not health.moe_layers:
        return nothing("A dense model has no routed experts.")
    if not shares:
        return nothing("Too few tokens to call an expert dead in any of the three.")
    missing = {who: f"{who}: not enough tokens" for who, values in health.dead_share.items() if values is None}
    return dead_share(shares, moe_layers=health.moe_layers, uncertified=missing)


def loss_table(health: Health) -> dict[str, Any]:
    """NLL per probe of the three, and the child minus each parent with its interval."""
    rows = []
    for row in health.nll:
        words_ = "worse than both" if row.lost else "held"
        rows.append(
            Row(
                row.probe,
                (
                    row.probe, row.child, row.father, row.mother,
                    _gap(row.child_minus_father), _gap(row.child_minus_mother), mark(not row.lost, words_),
                ),
            )
        )  # fmt: skip
    columns = (
        Column("probe"),
        Column("child", "number", 3),
        Column("father", "number", 3),
        Column("mother", "number", 3),
        Column("child − father", "number"),
        Column("child − mother", "number"),
        Column("verdict", "mark"),
    )
    return table_value(columns, rows)


def advice_table(advice: tuple[Advice, ...]) -> dict[str, Any]:
    """One row a flagged layer: towards whom, and why."""
    rows = [
        Row(str(item.layer), (f"L{item.layer}", mark(None, f"towards the {item.towards}"), item.gap, item.reason))
        for item in advice
    ]
    columns = (
        Column("layer"),
        Column("move", "mark"),
        Column("NLL gap", "number", 3, "How much lower that parent reads there, nats a token"),
        Column("why", "long"),
    )
    return table_value(columns, rows, empty="No layer is flagged: there is nothing to mend.")


def mended(lab: Lab, pair: Pair, genome: Genome, advice: tuple[Advice, ...]) -> Genome:
    """A layerwise genome that keeps every layer's share and moves each flagged layer towards the better parent."""
    now = lab.recipe(pair, genome).layer_ratios()
    genes = {f"layer_{layer}": 0.5 if ratio is None else ratio for layer, ratio in enumerate(now)}
    for item in advice:
        moved = genes[f"layer_{item.layer}"] + (STEP if item.towards == "mother" else -STEP)
        genes[f"layer_{item.layer}"] = min(max(moved, 0.0), 1.0)
    kept = {name: getattr(genome, name) for name in ("operator", "options", "rescale", "seed", "experts")}
    return neutral_genome("layerwise", pair.anatomy.layers, **kept).with_genes(**genes)


def _gap(values: tuple[float, float, float]) -> str:
    mean, low, high = values
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
