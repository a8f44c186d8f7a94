"""The Genome tab: the numbers a child is made of, and at once what they do to every layer.

Takes the genome at hand and what a person moves; gives the genome at hand, its recipe, and jobs that score it.
"""

from __future__ import annotations

import html
import json
import time
from dataclasses import replace
from typing import Any

import gradio as gr

from darwin_lab.errors import LabError
from darwin_lab.genome.genome import READINGS, RESCALES, Genome, genome_from_json, neutral_genome, operators_of
from darwin_lab.genome.layouts import LAYOUTS
from darwin_lab.genome.presets import PRESETS, preset_genome, stretch_words
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.merging.operators import OPTIONS
from darwin_lab.merging.prescription import MODES, V5_TRANSPLANT, Prescription
from darwin_lab.ui import words
from darwin_lab.ui.components.chart import chart_card
from darwin_lab.ui.components.data_table import data_table, table_value
from darwin_lab.ui.components.genome_editor import genes_from, genome_editor
from darwin_lab.ui.components.job_line import job_line
from darwin_lab.ui.components.menus import picking
from darwin_lab.ui.figures.style import nothing
from darwin_lab.ui.session import (
    AT_ONCE,
    CHOSEN,
    LATEST,
    QUIET,
    Shared,
    genome_at_hand,
    guarded,
    lead,
    pair_of,
    say,
    to_load,
)
from darwin_lab.ui.tabs import genome_blocks, gradient_card
from darwin_lab.ui.tabs.genome_views import (
    EXPERTS_WORDS,
    OPTION_LABELS,
    OPTION_NAMES,
    ROUTER_WORDS,
    advice_of,
    choice_values,
    editor_of,
    genome_words,
    operator_choices,
    operator_words,
    score_words,
    strip_chart,
)
from darwin_lab.ui.tabs.recipe_views import recipe_rows

LAYOUT_WORDS = {
    "v4": "v4 · 5 genes", "v5": "v5 · one ratio a block", "v6": "v6 · components and blocks",
    "v7": "v7 · bands and parts, linear", "layerwise": "Layerwise · one gene a layer",
}  # fmt: skip
READING_WORDS = {"logit": "Log-odds summed", "mean": "Mean", "component": "Component alone"}
KEYS = (
    "The amber tick is the MRI’s advice. Arrows move a gene by .001, Page Up and Down by .1; M takes the advice, "
    "Backspace the neutral value."
)
NO_PAIR = "Open a pair in Parents first."


def build(shared: Shared) -> tuple[gr.HTML, gr.Button]:
    """Put the tab's components on the page and wire them; gives the editor and the button "Evolve from here"."""
    lab = shared.lab
    gr.HTML(lead("Genome", "Move a gene; the chart shows at once whose weights each layer gets."))
    with gr.Row(elem_classes=["dl-row"]):
        with gr.Column(scale=6, min_width=420, elem_classes=["dl-card"]):
            with gr.Row(elem_classes=["dl-tight"]):
                layout = gr.Dropdown(
                    [(LAYOUT_WORDS[n], n) for n in LAYOUTS], value="v6", label="Layout", elem_id="layout", min_width=250
                )
                names = [(preset.label, preset.name) for preset in PRESETS if preset.name != "mri"]
                preset = gr.Dropdown(names, value=None, label="Load a preset", elem_id="preset", min_width=250)
                operator = gr.Dropdown(
                    operator_choices("v6", has_ancestor=True), value="lerp", label="Operator", elem_id="operator",
                    min_width=250,
                )  # fmt: skip
                reading = gr.Dropdown(
                    [(READING_WORDS[n], n) for n in READINGS],
                    value="logit",
                    label="Genes combine by",
                    elem_id="reading",
                    min_width=250,
                )
            meaning = gr.HTML(operator_words("lerp"), elem_id="operator_words")
            editor = genome_editor()
            with gr.Row(elem_classes=["dl-tight", "dl-controls"]):
                advised_by = gr.Dropdown(
                    [(name, mode) for mode, name in words.ADVICE_WORDS.items()], value=MODES[0], label="Advice by",
                    elem_id="advised_by", min_width=130,
                )  # fmt: skip
                follow = gr.Button("Follow the MRI", size="sm", elem_id="follow_mri")
                reset = gr.Button("All neutral", size="sm", elem_id="reset_genome")
                unpin = gr.Button("Unpin layers", size="sm", elem_id="unpin_layers")
            gr.HTML(f"<p class='dl-note'>{KEYS}</p>")
            with gr.Accordion("More choices", open=False, elem_id="genome_more"), gr.Row(elem_classes=["dl-tight"]):
                experts = gr.Dropdown(
                    list(EXPERTS_WORDS), value="blend", label="Experts", elem_id="experts_mode", min_width=250
                )
                router = gr.Dropdown(
                    list(ROUTER_WORDS), value="blend", label="Router", elem_id="router_source", min_width=250
                )
                transplant = gr.Number(
                    0.15, label="Transplant below", step=0.01, elem_id="transplant",
                    min_width=250,
                    info="Ratios below it become 0, above 1 minus it 1; 0 = off",
                )  # fmt: skip
                options = [
                    gr.Number(
                        None, label=OPTION_LABELS[name], step=0.01, elem_id=f"option_{name}", min_width=250,
                        visible=False,
                    )
                    for name in OPTION_NAMES
                ]  # fmt: skip
                rescale = gr.Dropdown(
                    list(RESCALES), value="inverse", label="Rescale what is kept", elem_id="rescale", min_width=250,
                    visible=False,
                )  # fmt: skip
                seed = gr.Number(
                    0, label="Seed of the masks", precision=0, elem_id="genome_seed", min_width=250,
                    visible=False,
                )  # fmt: skip
        with gr.Column(scale=6, min_width=420):
            strip = chart_card(
                "ratio_strip",
                "Whose weights each layer gets",
                words.RATIO,
                empty=words.AWAITED,
                height=348,
                layered=True,
            )
            with gr.Column(elem_classes=["dl-card"]):
                numbers = gr.HTML(elem_id="genome_facts")
                with gr.Row(elem_classes=["dl-tight"]):
                    score = gr.Button("Score this genome", elem_id="score_genome")
                    evolve = gr.Button("Evolve from here", variant="primary", elem_id="evolve_from_here")
                job_line("score_progress", "score")
                scored_words = gr.HTML(elem_id="genome_score_words")
                scored = data_table("genome_score", label="Score on selection items", empty="Not scored yet.")
    genome_blocks.build(shared)
    gradient_card.build(shared)
    with gr.Accordion("Recipe: one row a tensor", open=False, elem_id="recipe_fold", elem_classes=["dl-card"]) as fold:
        recipe_table = data_table(
            "recipe_table", label="Recipe", search=True, height=420, empty="Move a gene or load a preset."
        )
    with gr.Accordion("Genome as JSON: copy, paste, keep", open=False, elem_id="json_fold", elem_classes=["dl-card"]):
        text = gr.Code(language="json", label="Genome", lines=8, max_lines=24, elem_id="genome_json", interactive=True)
        with gr.Row(elem_classes=["dl-tight"]):
            paste = gr.Button("Load this JSON", size="sm", elem_id="genome_paste")
            upload = gr.UploadButton("Open a file", size="sm", file_types=[".json"], elem_id="genome_upload")
            copy = gr.Button("Download", size="sm", elem_id="genome_download")

    choices = [layout, operator, reading, seed, transplant, rescale, experts, router, advised_by, *options]

    def read_choices(pair: Pair, payload: Any, at_hand: dict[str, Any] | None, picked: tuple[Any, ...]) -> Genome:
        """The genome the widgets say; what the layout or the operator has no use for falls back to its default."""
        name, merge, read, number, limit, scale, mode, source, way, *values = picked
        known = genome_at_hand(pair, at_hand)
        shape = neutral_genome(name, pair.anatomy.layers, blocks=known.blocks if known.layout == name else None)
        spans = shape.layout_of(pair.anatomy.layers)
        genes, _ = genes_from(payload, spans)
        merge = merge if merge in operators_of(name) else "lerp"
        has = OPTIONS.get(merge, {})
        set_ = {option: value for option, value in zip(OPTION_NAMES, values, strict=True)
                if option in has and value is not None and value != has[option].default}  # fmt: skip
        sources = source.split(",")
        data = {
            **shape.to_json(), "genes": genes, "operator": merge, "reading": read, "seed": int(number or 0),
            "transplant": float(limit or 0), "rescale": scale, "experts": mode, "options": set_,
            "router": sources[0] if len(sources) == 1 else sources if len(sources) == len(spans.blocks) else "blend",
            "pinned": known.to_json().get("pinned", {}),
            "prescription": prescription_by(lab, pair, known, way),
        }  # fmt: skip
        return genome_from_json(data, pair.anatomy.layers)

    def moved(payload: Any, pair_key: str, at_hand: dict[str, Any] | None, *picked: Any) -> list[Any]:
        pair = pair_of(lab, pair_key)
        if pair is None:
            return [gr.skip(), nothing(NO_PAIR).wire(), "", gr.skip()]
        try:
            genome = read_choices(pair, payload, at_hand, picked)
            recipe = lab.recipe(pair, genome)
        except LabError as error:
            return [gr.skip(), gr.skip(), say(str(error), bad=True), gr.skip()]
        drawn = strip_chart(lab, pair, genome, recipe).wire()
        return [genome.to_json(), drawn, genome_words(genome, recipe), json.dumps(genome.to_json(), indent=2)]

    answer = [shared.genome, strip, numbers, text]
    editor.input(moved, [editor, shared.pair, shared.genome, *choices], answer, **LATEST)

    def chosen(payload: Any, pair_key: str, at_hand: dict[str, Any] | None, *picked: Any) -> Any:
        """Another layout, operator or reading: what can be kept is kept, the editor shows what is idle now. A choice
        that cannot be made is said and taken back."""
        pair = pair_of(lab, pair_key)
        if pair is None:
            raise LabError(NO_PAIR)
        try:
            genome = read_choices(pair, payload, at_hand, picked)
            lab.recipe(pair, genome)
        except LabError as error:
            gr.Warning(html.escape(str(error)), title="That did not work", duration=12)
            return to_load(genome_at_hand(pair, at_hand), f"back:{time.monotonic_ns()}")
        return to_load(genome, "choice:" + ",".join(map(str, picked)))

    for widget in choices:
        picking(widget)(guarded(chosen), [editor, shared.pair, shared.genome, *choices], shared.load, **CHOSEN)

    def show(load: dict[str, Any], pair_key: str) -> list[Any]:
        """Put a genome that some tab asked for into the editor and everything beside it."""
        pair = pair_of(lab, pair_key)
        if pair is None:
            return [gr.skip()] * (len(choices) + len(answer) + 2)
        genome = genome_at_hand(pair, load.get("genome"))
        drawn = [
            editor_of(lab, pair, genome, load.get("stamp", "")),
            operator_words(genome.operator),
            *choice_values(lab, pair, genome),
        ]
        try:
            recipe = lab.recipe(pair, genome)
        except LabError as error:
            return [*drawn, gr.skip(), nothing(str(error)).wire(), say(str(error), bad=True), gr.skip()]
        return [
            *drawn,
            genome.to_json(),
            strip_chart(lab, pair, genome, recipe).wire(),
            genome_words(genome, recipe),
            json.dumps(genome.to_json(), indent=2),
        ]

    def redraw(load: dict[str, Any], pair_key: str, at_hand: dict[str, Any] | None, payload: Any) -> list[Any]:
        """What was loaded, or, where the editor has that already, the genome at hand beside new advice.

        One listener for both: the answer to one of two could undo what the other showed.
        """
        pair, stamp = pair_of(lab, pair_key), load.get("stamp", "")
        if pair is None or not isinstance(payload, dict) or payload.get("stamp") != stamp:
            return show(load, pair_key)
        genome, kept = genome_at_hand(pair, at_hand), [gr.skip()] * (len(choices) + 2)
        try:
            recipe = lab.recipe(pair, genome)
        except LabError as error:
            return [gr.skip(), *kept, nothing(str(error)).wire(), say(str(error), bad=True), gr.skip()]
        drawn = strip_chart(lab, pair, genome, recipe).wire()
        return [editor_of(lab, pair, genome, stamp), *kept, drawn, genome_words(genome, recipe), gr.skip()]

    loaded, shown = [shared.load, shared.pair, shared.genome, editor], [editor, meaning, *choices, *answer]
    gr.on([shared.load.change, shared.scan_stamp.change], redraw, loaded, shown, **LATEST)

    @guarded
    def load_preset(name: str | None, pair_key: str, at_hand: dict[str, Any] | None) -> Any:
        pair = pair_of(lab, pair_key)
        if pair is None or not name:
            raise LabError(NO_PAIR)
        genome = preset_genome(name, pair.anatomy.layers, has_ancestor=pair.ancestor is not None)
        if stretched := stretch_words(name, pair.anatomy.layers):
            gr.Info(f"{stretched}.", title="Preset", duration=8)
        if genome_at_hand(pair, at_hand).prescription:
            gr.Info(
                "A preset goes by the layer swaps; choose “Advice by” anew for another.", title="Preset", duration=8
            )
        return to_load(genome, f"preset:{name}")

    picking(preset)(load_preset, [preset, shared.pair, shared.genome], shared.load, **CHOSEN)

    @guarded
    def advised(payload: Any, pair_key: str, at_hand: dict[str, Any] | None, *picked: Any) -> Any:
        pair = pair_of(lab, pair_key)
        if pair is None:
            raise LabError(NO_PAIR)
        genome = read_choices(pair, payload, at_hand, picked)
        advice = advice_by(lab, pair, picked[choices.index(advised_by)])
        if not advice.signal:
            gr.Info(f"{advice.note[0].upper()}{advice.note[1:]}.", title="MRI")
        own = advice.mode == "card_v5" or genome.transplant == V5_TRANSPLANT
        kept: dict[str, Any] = {} if own else {"transplant": genome.transplant}
        told = lab.advised_genome(pair, genome.layout, advice=advice, blocks=genome.blocks, **kept)
        made = replace(genome, genes=told.genes, prescription=told.prescription, transplant=told.transplant)
        return to_load(made, f"mri:{advice.hash}")

    follow.click(advised, [editor, shared.pair, shared.genome, *choices], shared.load, **QUIET)

    @guarded
    def neutral(payload: Any, pair_key: str, at_hand: dict[str, Any] | None, *picked: Any) -> Any:
        pair = pair_of(lab, pair_key)
        if pair is None:
            raise LabError(NO_PAIR)
        genome = read_choices(pair, payload, at_hand, picked)
        return to_load(replace(genome, genes=genome.layout_of(pair.anatomy.layers).neutral(), pinned={}), "neutral")

    reset.click(neutral, [editor, shared.pair, shared.genome, *choices], shared.load, **QUIET)

    @guarded
    def free(pair_key: str, at_hand: dict[str, Any] | None) -> Any:
        pair = pair_of(lab, pair_key)
        if pair is None:
            raise LabError(NO_PAIR)
        genome = genome_at_hand(pair, at_hand)
        if not genome.pinned:
            raise LabError("no layer is pinned; mending in the Health tab pins layers")
        return to_load(replace(genome, pinned={}), "unpinned")

    unpin.click(free, [shared.pair, shared.genome], shared.load, **QUIET)

    @guarded
    def from_text(words_: str, pair_key: str) -> Any:
        pair = pair_of(lab, pair_key)
        if pair is None:
            raise LabError(NO_PAIR)
        return to_load(genome_from_json(words_ or "", pair.anatomy.layers), "json")

    paste.click(from_text, [text, shared.pair], shared.load, **QUIET)

    @guarded
    def from_file(path: str, pair_key: str) -> Any:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - a file gradio has checked
            return from_text(file.read(200_000), pair_key)

    upload.upload(from_file, [upload, shared.pair], shared.load, **QUIET)
    copy.click(None, text, None, js=DOWNLOAD, **AT_ONCE)

    @guarded
    def score_it(pair_key: str, at_hand: dict[str, Any] | None) -> Any:
        pair = pair_of(lab, pair_key)
        if pair is None:
            raise LabError(NO_PAIR)
        for who in ("father", "mother", "blend"):
            if lab.score(pair, who) is None:
                lab.request_score(pair, who)
        lab.request_score(pair, genome_at_hand(pair, at_hand))
        return say("Scoring. The result appears here.")

    score.click(score_it, [shared.pair, shared.genome], scored_words, **QUIET)

    def show_score(pair_key: str, at_hand: dict[str, Any] | None) -> list[Any]:
        pair = pair_of(lab, pair_key)
        if pair is None:
            return ["", table_value((), (), empty=NO_PAIR)]
        try:
            child = lab.recipe(pair, genome_at_hand(pair, at_hand)).hash
        except LabError as error:
            return ["", table_value((), (), empty=str(error))]
        return score_words(lab, pair, child)

    shared.child_stamp.change(show_score, [shared.pair, shared.genome], [scored_words, scored], **AT_ONCE)

    def show_recipe(pair_key: str, at_hand: dict[str, Any] | None) -> Any:
        pair = pair_of(lab, pair_key)
        if pair is None:
            return gr.skip()
        return recipe_rows(lab.recipe(pair, genome_at_hand(pair, at_hand)))

    fold.expand(guarded(show_recipe), [shared.pair, shared.genome], recipe_table, **QUIET)
    shared.child_stamp.change(guarded(show_recipe), [shared.pair, shared.genome], recipe_table, **QUIET)

    return editor, evolve


def advice_by(lab: Lab, pair: Pair, mode: str) -> Prescription:
    """What the MRI advises by one way. LabError, with what to do, while it says nothing."""
    advice = lab.prescription(pair, mode)
    if advice is None:
        raise LabError("the MRI is not complete yet; scan this pair in the MRI tab, or wait for the scan under way")
    return advice


def prescription_by(lab: Lab, pair: Pair, known: Genome, way: str | None) -> str | None:
    """The prescription of the genome at hand when it goes by `way`: the one it names where that is of this way (or not
    known here, which is no way), else the present one; none for the layer swaps, which a genome that names none goes
    by. Raises as `advice_by`."""
    if way is None:
        return known.prescription
    named = advice_of(lab, pair, known) if known.prescription else None
    if named is not None and named.mode == way:
        return known.prescription
    return None if way == MODES[0] else advice_by(lab, pair, way).hash


DOWNLOAD = """text => { const a = document.createElement('a');
  a.href = URL.createObjectURL(new Blob([text], {type: 'application/json'})); a.download = 'genome.json'; a.click();
  setTimeout(() => URL.revokeObjectURL(a.href), 1000); }"""
