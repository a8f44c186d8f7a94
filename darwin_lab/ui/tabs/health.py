"""The Health tab: the child at hand (or a model in a folder) beside its parents, with a verdict that names the layers.

Takes the genome at hand; gives its health from the store, mends it by a measured prescription, and shows both checks
beside each other. What is shown of each is made in `health_views`.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from darwin_lab.checkpoint.opening import is_hub_id
from darwin_lab.errors import LabError
from darwin_lab.genome.genome import genome_from_json
from darwin_lab.lab.pairs import Pair
from darwin_lab.mri.health_record import Health, Thresholds
from darwin_lab.mri.mending import Mending
from darwin_lab.ui import words
from darwin_lab.ui.components.chart import chart_card
from darwin_lab.ui.components.data_table import data_table, table_value
from darwin_lab.ui.components.heading import heading
from darwin_lab.ui.components.job_line import job_line
from darwin_lab.ui.components.menus import Choice, Menu, picking
from darwin_lab.ui.figures.style import nothing
from darwin_lab.ui.session import (
    AT_ONCE,
    LATEST,
    PICKED,
    QUIET,
    Shared,
    genome_at_hand,
    guarded,
    layer_clicked,
    lead,
    on_a_space,
    pair_of,
    to_load,
    verdict,
)
from darwin_lab.ui.tabs import health_views as views

AT_HAND = "The child at hand"
LOOKING = "Looking up what is known of this child."
NOT_YET = "Press “Check health”: the child is scanned like a parent and laid beside both."
NO_PAIR = "Open a pair in Parents first."
DEFAULTS = Thresholds()
LIMITS = {
    "interference_factor": ("Interference: times the larger parent", 0.05),
    "interference_margin": ("… plus", 0.01),
    "loss_factor": ("Function loss: below times the parent", 0.05),
    "loss_quantile": ("… whose layer is above this quantile", 0.05),
    "inherited_factor": ("… and below the smaller parent over", 0.05),
    "unhealthy_layers": ("Unhealthy above this share of layers", 0.05),
    "broken_nll": ("Unhealthy above both by nats a token", 0.1),
}


def build(shared: Shared) -> None:
    """Put the tab's components on the page and wire them."""
    lab = shared.lab
    gr.HTML(lead("Health", "Does every layer of the child still do what it did in a parent?"))
    with gr.Row(elem_classes=["dl-row"]):
        sentence = gr.HTML(verdict("plain", "One moment.", LOOKING), elem_id="health_verdict", min_width=420)
        with gr.Column(scale=0, min_width=200):
            check = gr.Button("Check health", variant="primary", elem_id="health_check")
            save = gr.Button("Report, JSON", size="sm", interactive=False, elem_id="health_report")
            job_line("health_progress", "health")
    with gr.Row(elem_classes=["dl-row", "dl-controls"]):
        model = Menu([(AT_HAND, "")], value="", label="Model", elem_id="health_model", min_width=260)
        probe = Choice([views.ALL], value=views.ALL, label="Probe", elem_id="health_probe", elem_classes=["dl-seg"])
    with gr.Accordion(
        "Thresholds, and models from elsewhere", open=False, elem_id="health_more", elem_classes=["dl-card"]
    ):
        with gr.Row(elem_classes=["dl-tight"]):
            limits = [
                gr.Number(getattr(DEFAULTS, name), label=label, step=step, min_width=210, elem_id=f"health_{name}")
                for name, (label, step) in LIMITS.items()
            ]
        with gr.Row(elem_classes=["dl-tight"]):
            place = "A Hub id such as org/name" if on_a_space() else "An exported folder, or a Hub id such as org/name"
            folder = gr.Textbox(
                label="Check another model as a child of this pair", placeholder=place, max_length=400,
                elem_id="health_folder", scale=4, min_width=320,
            )  # fmt: skip
            other = gr.Button("Check this model", elem_id="health_folder_check", scale=1, min_width=150)
    with gr.Row(elem_classes=["dl-row"]):
        with gr.Column(scale=8, min_width=480):
            bars = chart_card(
                "health_bars", "Child beside its parents", words.HEALTH, empty=LOOKING, height=436, layered=True
            )
        with gr.Column(scale=5, min_width=360), gr.Column(elem_classes=["dl-card"]):
            mend_note = heading("health_mend_head", "What would mend it", words.HEALTH_MEND)
            advice = data_table("health_advice", label="Advice", pick=True, height=340, empty=LOOKING)
            mend = gr.Button("Mend: measure how far", size="sm", interactive=False, elem_id="health_mend")
            job_line("mend_progress", "mend")
    with gr.Column(elem_classes=["dl-card"], visible=False, elem_id="mended") as mended:
        mended_head = heading("mended_head", "Before and after mending", words.HEALTH_MENDED)
        mended_verdicts = gr.HTML(elem_id="mended_verdicts")
        mended_layers = data_table("mended_layers", label="Mended layers", pick=True)
        mended_losses = data_table("mended_nll", label="Loss before and after mending")
        with gr.Row(elem_classes=["dl-tight"]):
            use = gr.Button(
                "Use the mended genome", variant="primary", size="sm", elem_id="mended_use", scale=0, min_width=220
            )
        with gr.Accordion("Every ratio that was measured", open=False):
            tried = data_table("mended_tried", label="Ratios tried", height=320)
    with gr.Row(elem_classes=["dl-row"]):
        with gr.Column(scale=6, min_width=420):
            gaps = chart_card("health_gaps", "How the child reads", words.HEALTH_LOSS, empty=LOOKING, height=330)
        with gr.Column(scale=7, min_width=480, elem_classes=["dl-card"]):
            gr.HTML(
                "<h3>Loss by probe</h3><p class='dl-note'>NLL in nats a token; differences paired over texts, 95 %.</p>"
            )
            losses = data_table("health_nll", label="Loss by probe", empty=LOOKING)
            gr.HTML(
                "<h3>Texts that end in a loop</h3><p class='dl-note'>Written greedily after the first words of probe "
                "texts; in a loop: the last 16 tokens or more are three copies of one unit, or more.</p>"
            )
            loops = data_table("health_loops", label="Texts that end in a loop", empty=LOOKING)
    with gr.Row(elem_classes=["dl-row"]):
        with gr.Column(scale=8, min_width=480, elem_classes=["dl-card"]):
            moe_note = heading("health_moe_head", "Experts", words.HEALTH_MOE)
            moe = data_table("health_moe", label="Health of the experts", empty=LOOKING)
            with gr.Accordion("Experts revived or lost, one by one", open=False, elem_id="health_experts_fold"):
                experts = data_table("health_experts", label="Experts revived or lost", pick=True, height=260)
        with gr.Column(scale=5, min_width=360):
            dead = chart_card(
                "health_dead", "Dead experts in the child", words.HEALTH_DEAD, empty=LOOKING, height=300, layered=True
            )
    report = gr.Textbox("", visible="hidden", elem_id="health_json")

    def found(
        pair_key: str, at_hand: dict[str, Any] | None, ref: str | None, at: tuple[Any, ...]
    ) -> tuple[Pair, Any, Any]:
        """The pair, the health of the chosen model, and its mending."""
        pair = pair_of(lab, pair_key)
        if pair is None:
            raise LabError(NO_PAIR)
        asked = limits_of(at)
        if ref:
            return pair, lab.care.check(pair, ref, **asked), None
        child = lab.recipe(pair, genome_at_hand(pair, at_hand)).hash
        return pair, lab.health(pair, child, **asked), lab.care.mending(pair, child)

    def show(pair_key: str, at_hand: dict[str, Any] | None, ref: str | None, by: str | None, *at: Any) -> list[Any]:
        pair, health, mending, why, head = None, None, None, NOT_YET, "Not checked yet."
        try:
            pair, health, mending = found(pair_key, at_hand, ref, at)
        except LabError as error:
            why, head = str(error), "Nothing to show."
        known = [(AT_HAND, ""), *((one.name, one.ref) for one in (lab.care.checked(pair) if pair else ()))]
        if pair is None or health is None:
            if pair is not None and any(job.kind in ("health", "mend") for job in lab.active_jobs()):
                why, head = "Its layers appear as soon as every probe is read.", "Scanning the child."
            return [
                verdict("plain", head, why),
                gr.Dropdown(choices=known),
                gr.skip(),
                *[nothing(why).wire()] * 3,
                *[table_value((), (), empty=why)] * 5,
                why, "", gr.Button(interactive=False), gr.Button(interactive=False), "",
                gr.Column(visible=False), *[gr.skip()] * 6,
            ]  # fmt: skip
        size = pair.father.text_config.get("vocab_size")
        return [
            *shown_health(health, mending, known, by, ref, size if isinstance(size, int) else None),
            *shown_mending(mending),
        ]

    shown = [
        sentence, model, probe, bars, gaps, dead, losses, loops, advice, moe, experts, mend_note, moe_note, mend, save,
        report, mended, mended_head, mended_verdicts, mended_layers, mended_losses, tried, use,
    ]  # fmt: skip
    inputs = [shared.pair, shared.genome, model, probe, *limits]
    for change in (shared.child_stamp.change, probe.input, picking(model)):
        change(show, inputs, shown, **LATEST)
    for limit in limits:
        limit.input(show, inputs, shown, **LATEST)
    shared.genome.change(lambda: "", None, model, **QUIET)
    for chart in (bars, dead):
        chart.select(layer_clicked, None, shared.layer, **PICKED)
    save.click(None, report, None, js=DOWNLOAD, **AT_ONCE)

    @guarded
    def ask(pair_key: str, at_hand: dict[str, Any] | None, ref: str) -> Any:
        pair = pair_of(lab, pair_key)
        if pair is None:
            raise LabError(NO_PAIR)
        if ref:
            lab.care.request_check(pair, ref)
        else:
            lab.request_health(pair, genome_at_hand(pair, at_hand))
        return verdict("plain", "Scanning the child.", "Its layers appear as soon as every probe is read.")

    check.click(ask, [shared.pair, shared.genome, model], sentence, **QUIET)

    @guarded
    def ask_other(pair_key: str, ref: str) -> Any:
        pair = pair_of(lab, pair_key)
        if pair is None:
            raise LabError(NO_PAIR)
        named = ref.strip()
        if on_a_space() and not is_hub_id(named):
            raise LabError("folders of this machine are closed here; give a Hub id such as org/name")
        lab.care.request_check(pair, named)
        gr.Info("It appears under Model as soon as it is scanned.", title="Checking", duration=6)
        return ""

    other.click(ask_other, [shared.pair, folder], folder, **QUIET)

    @guarded
    def mend_all(pair_key: str, at_hand: dict[str, Any] | None, *at: Any) -> Any:
        pair = pair_of(lab, pair_key)
        if pair is None:
            raise LabError(NO_PAIR)
        lab.care.request_mending(pair, genome_at_hand(pair, at_hand), **limits_of(at))
        return (
            "Measuring: each flagged layer is moved step by step towards the parent named, then all is checked again."
        )

    mend.click(mend_all, [shared.pair, shared.genome, *limits], mend_note, **QUIET)

    @guarded
    def use_mended(pair_key: str, at_hand: dict[str, Any] | None) -> Any:
        pair = pair_of(lab, pair_key)
        if pair is None:
            raise LabError(NO_PAIR)
        mending = lab.care.mending(pair, lab.recipe(pair, genome_at_hand(pair, at_hand)).hash)
        if mending is None or mending.genome is None:
            raise LabError("no layer of this child was moved; there is no mended genome")
        genome = genome_from_json(mending.genome, pair.anatomy.layers)
        gr.Info("The mended child is now the child at hand, in every tab.", title="Mended genome")
        return to_load(genome, "mended:" + genome.hash)

    use.click(use_mended, [shared.pair, shared.genome], shared.load, **QUIET)

    def pick(event: gr.EventData) -> int:
        return int(str(event._data["id"]).split(":")[0])

    for table in (advice, mended_layers, experts):
        table.select(pick, None, shared.layer, **PICKED)


def limits_of(at: tuple[Any, ...]) -> dict[str, float]:
    """The thresholds of the form; a field left empty keeps its default."""
    named = zip(LIMITS, at, strict=True)
    return {name: float(getattr(DEFAULTS, name) if value is None else value) for name, value in named}


def shown_health(
    health: Health,
    mending: Mending | None,
    known: list[tuple[str, str]],
    by: str | None,
    ref: str | None,
    vocabulary: int | None = None,
) -> list[Any]:
    """What the tab shows of a check, in the order of its outputs."""
    probes = list(dict.fromkeys(row.probe for row in health.rows))
    chosen = by if by in probes else views.ALL
    moved = {} if chosen == by else {"value": chosen}
    flagged = len(health.advice)
    told = f"{flagged} of {len(health.layer_importance['child'])} layers flagged" if flagged else views.NO_FLAG
    if flagged and ref:
        told += ". A folder is checked as it is; load its genome to mend it"
    return [
        verdict(
            views.TONE[health.verdict],
            health.sentence,
            views.flag_words(health) + views.transplant_words(health) + views.threshold_words(health),
        ),
        gr.Dropdown(choices=known),
        gr.Radio(choices=[views.ALL, *probes], **moved),
        views.bar_chart(health, chosen).wire(),
        views.gap_chart(health).wire(),
        views.dead_chart(health).wire(),
        views.loss_table(health, vocabulary),
        views.loop_table(health),
        views.advice_table(health, mending),
        views.moe_table(health.moe),
        views.expert_table(health.moe),
        told,
        health.moe.note if health.moe else views.DENSE,
        gr.Button(interactive=bool(flagged) and not ref),
        gr.Button(interactive=True),
        views.report_text(health, mending),
    ]


def shown_mending(mending: Mending | None) -> list[Any]:
    """What the tab shows of a mending, in the order of its outputs."""
    if mending is None:
        return [gr.Column(visible=False), *[gr.skip()] * 6]
    return [
        gr.Column(visible=True),
        mending.sentence,
        views.mended_verdicts(mending),
        views.mended_layers(mending),
        views.mended_losses(mending),
        views.tried_table(mending),
        gr.Button(visible=mending.genome is not None),
    ]


DOWNLOAD = """text => { const a = document.createElement('a');
  a.href = URL.createObjectURL(new Blob([text], {type: 'application/json'})); a.download = 'health.json'; a.click();
  setTimeout(() => URL.revokeObjectURL(a.href), 1000); }"""
