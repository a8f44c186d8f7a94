"""The Parents tab: choose a pair, see whether it can be bred, what a merge would do and cost, and open it.

Takes references typed by a person; gives the selected pair. A look reads configs and headers only. Small parents are
opened at once and scanned; large ones, and those whose experts are to be matched, are read by a job. The scan of large
ones waits until somebody asks for it.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import gradio as gr

from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.checkpoint.opening import is_hub_id
from darwin_lab.engine.calibration import calibrate, calibrated
from darwin_lab.engine.plan import timed
from darwin_lab.errors import LabError
from darwin_lab.lab import planning
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import MATCHED, NUMBERED, Pair
from darwin_lab.lab.planning import Look
from darwin_lab.merging.operators import NEEDS_ANCESTOR
from darwin_lab.ui.components.data_table import data_table, table_value
from darwin_lab.ui.session import CHOSEN, QUIET, Shared, as_uploaded, guarded, lead, on_a_space, pair_of, verdict
from darwin_lab.ui.tabs import parents_views as views

FAMILY, OWN = "Embedded family", "Two checkpoints of your own"
VOCABULARIES = [("The same", "same"), ("Matched by token", "by-token")]
EXPERTS = [("By number", NUMBERED), ("Matched by weights", MATCHED)]
CHOOSE = "Choose a pair on the left; look at it first, or open it."
_FAMILY_REFS = ("family:father", "family:mother", "family:ancestor")


def build(shared: Shared) -> None:
    """Put the tab's components on the page and wire them."""
    lab = shared.lab
    gr.HTML(lead("Parents", "Two checkpoints of one architecture. Ratio 0 is the father, ratio 1 the mother."))
    with gr.Row(elem_classes=["dl-row"]):
        with gr.Column(scale=4, min_width=320, elem_classes=["dl-card"]):
            gr.HTML("<h3>Choose a pair</h3>")
            source = gr.Radio([FAMILY, OWN], value=FAMILY, show_label=False, container=False, elem_id="pair_source")
            with gr.Column(visible=False, elem_id="pair_own") as own:
                place = "Hub id" if on_a_space() else "Folder or Hub id"
                father = gr.Textbox(label="Father", placeholder=place, elem_id="father_ref")
                mother = gr.Textbox(label="Mother", placeholder=place, elem_id="mother_ref")
                ancestor = gr.Textbox(
                    label="Ancestor (optional)",
                    placeholder=place,
                    info="What both were tuned from. Opens ties, dare_ties and the other operators on changes.",
                    elem_id="ancestor_ref",
                )
                vocabulary = gr.Radio(
                    VOCABULARIES,
                    value="same",
                    label="Vocabulary",
                    info="By token: rows of tokens both have are merged by their text; the father's other rows stay.",
                    elem_id="pair_vocabulary",
                    elem_classes=["dl-seg"],
                )
                experts = gr.Radio(
                    EXPERTS,
                    value=NUMBERED,
                    label="Experts",
                    info="Matched: each expert of the father meets the mother's most alike, in weights and router row. "
                    "For mixtures of experts that were not tuned from one base; dense models have none.",
                    elem_id="pair_experts",
                    elem_classes=["dl-seg"],
                )
                items = gr.File(
                    label="Benchmark items, JSONL (needed to score and evolve)",
                    file_count="multiple",
                    file_types=[".jsonl"],
                    height=132,
                    elem_id="pair_items",
                )
            with gr.Row(elem_classes=["dl-tight"]):
                looked = gr.Button("Look first", elem_id="look_pair", min_width=110)
                opened = gr.Button("Open this pair", variant="primary", elem_id="open_pair", min_width=130)
            gr.HTML("<p class='dl-note'>A look reads configs and headers only, for parents of any size.</p>")
        with gr.Column(scale=8, min_width=420):
            verdict_box = gr.HTML(elem_id="pair_verdict")
            with gr.Row(visible=False, elem_classes=["dl-headline"]) as scan_row:
                scan_words = gr.HTML(elem_id="scan_pair_words")
                scan_now = gr.Button("Scan now", variant="primary", elem_id="scan_pair", scale=0, min_width=120)
            with gr.Column(elem_classes=["dl-card"]):
                people = data_table("pair_people", label="The parents side by side")
            layers = gr.HTML(elem_id="pair_layers", elem_classes=["dl-card"])
    with gr.Row(elem_classes=["dl-row"]):
        with gr.Column(scale=6, min_width=420, elem_classes=["dl-card"]):
            gr.HTML("<h3>Can they be bred?</h3><p class='dl-note'>Read from configs, headers and tokenizer files.</p>")
            checks = data_table("pair_checks", label="Compatibility report")
        with gr.Column(scale=6, min_width=420, elem_classes=["dl-card"]):
            gr.HTML("<h3>Anatomy</h3><p class='dl-note'>Every tensor of the father by role; nothing is left out.</p>")
            anatomy = data_table("pair_anatomy", label="Tensors by role")
    with gr.Row(elem_classes=["dl-row"]):
        with gr.Column(scale=6, min_width=420):
            cost = gr.HTML(elem_id="plan_cost", elem_classes=["dl-card"])
            fates = gr.HTML(elem_id="plan_fates", elem_classes=["dl-card"])
        with gr.Column(scale=6, min_width=420, elem_classes=["dl-card"]):
            cards_head = gr.HTML(elem_id="plan_memory")
            cards = data_table("plan_cards", label="Cards that hold the child", height=380)
            cards_note = gr.HTML(elem_id="plan_allowance")
    with gr.Column(elem_classes=["dl-card"]):
        gr.HTML("<h3>Tensor by tensor</h3>")
        tensors = data_table("plan_tensors", label="What happens to each tensor", search=True, height=420)
    waiting = gr.State("")
    clock = gr.Timer(1.0, active=False)
    chosen = [source, father, mother, ancestor, vocabulary, shared.genome]
    shown = [verdict_box, people, layers, checks, anatomy, fates, tensors, cost, cards_head, cards, cards_note]
    scanning = [scan_row, scan_words, scan_now]
    source.input(lambda choice: gr.Column(visible=choice == OWN), source, own, **CHOSEN)

    @guarded
    def look(choice: str, a: str, b: str, base: str, vocab: str, genes: dict[str, Any] | None) -> Any:
        found = looked_at(lab, choice, (a, b, base), vocab, genes)
        return [*look_updates(found, views.look_words(found), {}), *no_scan()]

    looked.click(look, chosen, [*shown, *scanning], **QUIET)

    @guarded
    def open_it(
        choice: str, a: str, b: str, base: str, vocab: str, genes: dict[str, Any] | None, numbering: str,
        files: list[str] | None,
    ) -> Any:  # fmt: skip
        found = looked_at(lab, choice, (a, b, base), vocab, genes)
        matching = experts_for(found, choice, numbering)
        if found.is_small and matching == NUMBERED:
            pair = lab.family_pair() if choice == FAMILY else open_own(lab, a, b, base, files or [], vocab)
            if pair.compatible:
                lab.request_scan(pair)
                gr.Info("The pair is open; its scan has started.", title="Parents", duration=4)
            return [pair.key, "", gr.Timer(active=False), *pair_updates(lab, pair, genes)]
        job = lab.request_open(*own_refs(a, b, base), items=files or [], vocabulary=vocab, experts=matching)
        return [
            gr.skip(), job, gr.Timer(active=True), *look_updates(found, views.reading_words(found), {}), *no_scan()
        ]  # fmt: skip

    opened.click(open_it, [*chosen, experts, items], [shared.pair, waiting, clock, *shown, *scanning], **QUIET)

    def arrived(job_id: str) -> Any:
        view = lab.job(job_id)
        if view.open:
            return gr.skip()
        if view.state != "done":
            why = as_uploaded(view.error or "The reading was stopped; open the pair again.")
            gr.Warning(html.escape(why), title="Not opened")
            return [gr.skip(), "", gr.Timer(active=False)]
        started = scan_small(lab, lab.pair(view.result["pair"]))
        gr.Info(f"The pair is open{'; its scan has started' if started else ''}.", title="Parents", duration=4)
        return [view.result["pair"], "", gr.Timer(active=False)]

    clock.tick(arrived, waiting, [shared.pair, waiting, clock], **QUIET)

    def show(pair_key: str, genes: dict[str, Any] | None) -> list[Any]:
        pair = pair_of(lab, pair_key)
        if pair is None:
            blank = table_value((), (), empty=CHOOSE)
            return [
                verdict("plain", "No pair is open.", CHOOSE), blank, "", blank, blank, "", blank, "", "", blank, "",
                *no_scan(),
            ]  # fmt: skip
        return pair_updates(lab, pair, genes)

    shared.pair.change(show, [shared.pair, shared.genome], [*shown, *scanning], **QUIET)

    @guarded
    def scan(pair_key: str) -> Any:
        pair = pair_of(lab, pair_key)
        if pair is None:
            raise LabError("no pair is open; open one first")
        lab.request_scan(pair)
        gr.Info("The scan has started.", title="Parents", duration=4)
        return no_scan()

    scan_now.click(scan, shared.pair, scanning, **QUIET)


def own_refs(father: str, mother: str, ancestor: str) -> tuple[str, str, str | None]:
    """References as typed, checked. LabError for an empty one, and on a Space for one that is not a Hub id."""
    for who, ref in (("father", father), ("mother", mother)):
        if not ref or not ref.strip():
            raise LabError(f"no {who} given; type a folder or a Hub id such as owner/name")
    refs = [ref.strip() for ref in (father, mother, ancestor or "")]
    if on_a_space() and any(ref and not is_hub_id(ref) and not ref.startswith("family:") for ref in refs):
        raise LabError("on a Space only Hub ids can be opened; type owner/name")
    return refs[0], refs[1], refs[2] or None


def open_own(lab: Lab, father: str, mother: str, ancestor: str, items: list[str], vocabulary: str = "same") -> Pair:
    """Open two references. Raises LabError as `own_refs` does, and for parents that cannot be read."""
    refs = own_refs(father, mother, ancestor)
    return lab.open_pair(*refs, items=items, vocabulary=vocabulary)


def looked_at(
    lab: Lab, choice: str, refs: tuple[str, str, str], vocabulary: str, genes: Mapping[str, Any] | None
) -> Look:
    """A look at what was chosen, planned with the operator of the genome at hand, which is timed on this machine."""
    family = choice == FAMILY
    father, mother, base = _FAMILY_REFS if family else own_refs(*refs)
    vocab = "same" if family or vocabulary not in dict(VOCABULARIES).values() else vocabulary
    operator = operator_for(genes, has_ancestor=base is not None)
    found = lab.look(father, mother, base, vocabulary=vocab, operator=operator)
    if found.plan.compatible:
        calibrate(operator)
    return found


def experts_for(look: Look, choice: str, asked: str) -> str:
    """How the experts of a pair are to be paired. LabError for a dense father whose experts shall be matched.

    The embedded family is dense, and parents that cannot be bred have nothing to match.
    """
    if asked != MATCHED or choice == FAMILY or not look.plan.compatible:
        return NUMBERED
    if not look.anatomy.experts:
        raise LabError(f"{look.father.name} is dense, it has no experts to match; choose Experts “{EXPERTS[0][0]}”")
    return MATCHED


def scan_small(lab: Lab, pair: Pair) -> bool:
    """Queue the scan of small parents that were opened by a job, as of those opened at once; whether it was."""
    return pair.compatible and planning.is_small(pair.total_bytes) and bool(lab.request_scan(pair))


def operator_for(genes: Mapping[str, Any] | None, *, has_ancestor: bool) -> str:
    """The operator of the genome at hand where the pair allows it, else lerp."""
    asked = (genes or {}).get("operator", "lerp")
    return asked if asked in NEEDS_ANCESTOR and (has_ancestor or not NEEDS_ANCESTOR[asked]) else "lerp"


def look_updates(look: Look, head: str, fingerprints: Mapping[str, str]) -> list[Any]:
    """What the tab shows of a look, under a verdict; with a time where this machine was timed already."""
    measured = calibrated(look.plan.operator)
    plan = timed(look.plan, measured) if measured else look.plan
    return [
        head,
        views.people_table(plan, fingerprints),
        views.layers_html(plan),
        views.checks_table(plan),
        views.anatomy_table(look.anatomy),
        views.fates_html(plan),
        views.tensors_table(plan),
        views.cost_html(plan),
        views.cards_html(plan.father),
        views.cards_table(plan.father),
        views.allowance_html(plan.father),
    ]


def pair_updates(lab: Lab, pair: Pair, genes: Mapping[str, Any] | None) -> list[Any]:
    """What the tab shows of an open pair; a large one that was not scanned offers its scan."""
    people = {"father": pair.father, "mother": pair.mother, "ancestor": pair.ancestor}
    look = lab.look(
        pair.father,
        pair.mother,
        pair.ancestor,
        vocabulary=pair.vocabulary,
        operator=operator_for(genes, has_ancestor=pair.ancestor is not None),
    )
    prints = {who: member.fingerprint for who, member in people.items() if member is not None}
    asked = not look.is_small or pair.experts == MATCHED
    waits = pair.compatible and asked and not lab.scan_is_complete(pair, "father")
    busy = any(job.kind == "scan" for job in lab.active_jobs())
    if not waits or busy:
        return [*look_updates(look, views.pair_words(pair), prints), *no_scan()]
    offer = [gr.Row(visible=True), views.scan_html(lab.memory(pair)), gr.Button(interactive=True)]
    return [*look_updates(look, views.pair_words(pair), prints), *offer]


def no_scan() -> list[Any]:
    """The offer of a scan put away."""
    return [gr.Row(visible=False), "", gr.Button(interactive=False)]


def header_words(pair: Pair | None) -> str:
    """The pair in the page's header."""
    if pair is None:
        return "<div class='dl-pair'>No pair yet</div>"
    base = ""
    if pair.ancestor is not None:
        base = f"<span class='dl-person ancestor'>{_named(pair.ancestor, 'ancestor')}</span>"
    return (
        "<div class='dl-pair'>"
        f"<span class='dl-person father'>{_named(pair.father, 'father')}</span>"
        "<span class='dl-times'>×</span>"
        f"<span class='dl-person mother'>{_named(pair.mother, 'mother')}</span>" + base + "</div>"
    )


def _named(checkpoint: Checkpoint, role: str) -> str:
    name = html.escape(checkpoint.name)
    return name if name.endswith(role) else f"{name} <small>{role}</small>"
