"""The Child tab: what the child can do on sealed items beside its parents, what it is made of, and how it leaves.

Takes the genome at hand; gives report, block strip, inheritance and languages from the store, the exported folder and
its push to the Hub. What is shown of each is made in `child_views`.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from darwin_lab.engine.shards import parse_size
from darwin_lab.errors import LabError
from darwin_lab.lab.pairs import Pair
from darwin_lab.merging.recipe import Recipe
from darwin_lab.ui import words
from darwin_lab.ui.components.chart import chart_card
from darwin_lab.ui.components.data_table import data_table, table_value
from darwin_lab.ui.components.job_line import job_line
from darwin_lab.ui.figures.style import nothing
from darwin_lab.ui.session import (
    AT_ONCE,
    PICKED,
    QUIET,
    Shared,
    genome_at_hand,
    guarded,
    layer_clicked,
    lead,
    on_a_space,
    pair_of,
    say,
    verdict,
)
from darwin_lab.ui.tabs import child_views as views
from darwin_lab.ui.tabs.recipe_views import FACETS, recipe_rows

LIKE_FATHER = "Like the father's"
SHARD_SIZES = (LIKE_FATHER, "1 GB", "2 GB", "5 GB", "10 GB")
WHAT_PUSH_IS = (
    "The exported folder as a model repository of yours, with the login of this machine (<code>hf auth login</code>)."
)
WHAT_PUSH_IS_HERE = "The exported folder as a model repository of yours. The lab uses your sign-in and no other."


def build(shared: Shared) -> None:
    """Put the tab's components on the page and wire them."""
    lab = shared.lab
    gr.HTML(
        lead("Child", "Is the child better than both parents? Sealed items decide, and every look at them is counted.")
    )
    with gr.Row(elem_classes=["dl-row"]):
        with gr.Column(scale=8, min_width=480):
            sentence = gr.HTML(verdict("plain", "Not scored on report items.", views.NOT_YET), elem_id="child_verdict")
            bars = chart_card("score_bars", "Accuracy by skill", words.SCORES, empty=views.NOT_YET, height=300)
            strip = chart_card(
                "block_strip", "The child, layer by layer", words.BLOCK_STRIP, empty=words.AWAITED,
                height=380, layered=True,
            )  # fmt: skip
        with gr.Column(scale=4, min_width=320):
            with gr.Column(elem_classes=["dl-card"]):
                gr.HTML("<h3>The child at hand</h3>")
                about = gr.HTML(elem_id="child_facts")
                score = gr.Button("Score on report items", variant="primary", elem_id="child_report")
                job_line("report_progress", "report")
                looks = gr.HTML(elem_id="child_looks")
            with gr.Column(elem_classes=["dl-card"]):
                gr.HTML(
                    "<h3>Export</h3><p class='dl-note'>A folder with the father's tensor names, dtypes and side files; "
                    "it loads in plain transformers.</p>"
                )
                shards = gr.Dropdown(list(SHARD_SIZES), value=LIKE_FATHER, label="Shards", elem_id="child_shards")
                export = gr.Button("Export this child", elem_id="child_export")
                job_line("child_export_progress", "export")
                exported = gr.HTML(say(views.NOT_EXPORTED), elem_id="child_exported")
                download = gr.DownloadButton("Download the folder (zip)", visible=False, elem_id="child_download")
            with gr.Column(elem_classes=["dl-card"]):
                here = on_a_space()
                gr.HTML(f"<h3>Push to the Hub</h3><p class='dl-note'>{WHAT_PUSH_IS_HERE if here else WHAT_PUSH_IS}</p>")
                if views.can_sign_in():
                    gr.LoginButton(size="sm", elem_id="push_login")
                repo = gr.Textbox(label="Repository", placeholder="account/name", max_length=200, elem_id="push_repo")
                private = gr.Checkbox(True, label="Private", elem_id="push_private")
                with gr.Row(elem_classes=["dl-tight"]):
                    dry = gr.Button("Dry run", size="sm", elem_id="push_dry", min_width=90)
                    push = gr.Button("Push", size="sm", elem_id="push_go", min_width=90)
                job_line("push_progress", "push")
                pushed = gr.HTML(elem_id="push_result", elem_classes=["dl-line"])
                planned = gr.HTML(elem_id="push_planned", elem_classes=["dl-line"])

    with gr.Column(elem_classes=["dl-card"]):
        gr.HTML(
            "<h3>Score table</h3><p class='dl-note'>Intervals: 95 % Wilson for a skill. p: paired permutation over "
            "items, stratified by skill, child against each.</p>"
        )
        table = data_table("score_table", label="Score table", empty=views.NOT_YET)
    with gr.Column(elem_classes=["dl-card"]):
        with gr.Row(elem_classes=["dl-headline"]):
            gr.HTML("<h3>What was inherited</h3><p class='dl-note'>Weights are compared byte by byte, files whole.</p>")
            measure = gr.Button("Measure", size="sm", elem_id="inherit_go", scale=0, min_width=110)
        job_line("inherit_progress", "inherit")
        measured = gr.HTML(elem_id="inherit_words", elem_classes=["dl-line"])
        inherited = data_table("inherit_table", label="What was inherited", empty=views.NOT_MEASURED)
    with gr.Column(elem_classes=["dl-card"]):
        with gr.Row(elem_classes=["dl-headline"]):
            gr.HTML(
                "<h3>Languages</h3><p class='dl-note'>NLL in nats a token on twelve short texts a language; "
                "differences paired over texts, 95 %.</p>"
            )
            read = gr.Button("Read a dozen languages", size="sm", elem_id="languages_go", scale=0, min_width=180)
        job_line("languages_progress", "languages")
        languages_said = gr.HTML(elem_id="languages_words", elem_classes=["dl-line"])
        languages = data_table("languages_table", label="Languages", empty=views.NOT_READ)
    with gr.Column(elem_classes=["dl-card"]):
        gr.HTML(
            "<h3>Recipe</h3><p class='dl-note'>One row a tensor: what happens to it, and why. Click a heading to sort; "
            "experts that are treated alike share a row.</p>"
        )
        recipe_table = data_table(
            "child_recipe", label="Recipe of the child", search=True, facets=FACETS, height=420,
            empty=words.AWAITED,
        )  # fmt: skip

    def at_hand_of(pair_key: str, at_hand: dict[str, Any] | None) -> tuple[Pair, Recipe]:
        pair = pair_of(lab, pair_key)
        if pair is None:
            raise LabError("open a pair in Parents first")
        return pair, lab.recipe(pair, genome_at_hand(pair, at_hand))

    def show(pair_key: str, at_hand: dict[str, Any] | None) -> list[Any]:
        try:
            pair, recipe = at_hand_of(pair_key, at_hand)
        except LabError as error:
            why = str(error)
            none = table_value((), (), empty=why)
            hidden = gr.DownloadButton(visible=False)
            return [verdict("plain", "No child.", why), nothing(why).wire(), none, "", "", say(why), hidden,
                    "", "", none, "", none, none]  # fmt: skip
        kept, busy = lab.export(pair, recipe.hash), {job.kind for job in lab.active_jobs()}
        found, heard = lab.inheritance(pair, recipe.hash), lab.languages(pair, recipe.hash)
        return [
            *views.report_views(pair, lab.report(pair, recipe.hash), "report" in busy),
            views.child_words(pair, recipe),
            views.looks_words(lab, pair),
            views.export_words(kept, "export" in busy),
            views.download_of(kept),
            views.push_words(lab.pushed(pair, recipe.hash), kept, "push" in busy),
            views.inherited_words(found, kept, "inherit" in busy),
            views.inherited_table(found),
            views.language_words(heard, "languages" in busy),
            views.language_table(heard, "languages" in busy),
            recipe_rows(recipe),
        ]

    shown = [sentence, bars, table, about, looks, exported, download, pushed, measured, inherited, languages_said,
             languages, recipe_table]  # fmt: skip
    shared.child_stamp.change(show, [shared.pair, shared.genome], shown, **AT_ONCE)

    def show_strip(pair_key: str, at_hand: dict[str, Any] | None) -> str:
        try:
            return views.strip_chart(lab, *at_hand_of(pair_key, at_hand)).wire()
        except LabError as error:
            return nothing(str(error)).wire()

    for change in (shared.child_stamp.change, shared.scan_stamp.change):
        change(show_strip, [shared.pair, shared.genome], strip, **AT_ONCE)
    strip.select(layer_clicked, None, shared.layer, **PICKED)

    @guarded
    def ask_report(pair_key: str, at_hand: dict[str, Any] | None) -> Any:
        pair, _ = at_hand_of(pair_key, at_hand)
        lab.request_report(pair, genome_at_hand(pair, at_hand))
        return verdict("plain", views.SCORING, views.SAME_ITEMS)

    score.click(ask_report, [shared.pair, shared.genome], sentence, **QUIET)

    @guarded
    def ask_export(pair_key: str, at_hand: dict[str, Any] | None, size: str) -> None:
        pair, _ = at_hand_of(pair_key, at_hand)
        limit = None if size not in SHARD_SIZES or size == LIKE_FATHER else parse_size(size.replace(" ", ""))
        lab.request_export(pair, genome_at_hand(pair, at_hand), shard_size=limit)

    # No words from the click itself: an export can be over before they arrive, and would stand there as under way.
    export.click(ask_export, [shared.pair, shared.genome, shards], None, **QUIET)

    @guarded
    def ask_inheritance(pair_key: str, at_hand: dict[str, Any] | None) -> Any:
        pair, _ = at_hand_of(pair_key, at_hand)
        lab.request_inheritance(pair, genome_at_hand(pair, at_hand))
        return views.inherited_words(None, None, True)

    measure.click(ask_inheritance, [shared.pair, shared.genome], measured, **QUIET)

    @guarded
    def ask_languages(pair_key: str, at_hand: dict[str, Any] | None) -> Any:
        pair, _ = at_hand_of(pair_key, at_hand)
        lab.request_languages(pair, genome_at_hand(pair, at_hand))
        return views.language_words(None, True)

    read.click(ask_languages, [shared.pair, shared.genome], languages_said, **QUIET)

    @guarded
    def show_plan(pair_key: str, at_hand: dict[str, Any] | None, name: str, hidden: bool) -> Any:
        pair, recipe = at_hand_of(pair_key, at_hand)
        return views.plan_words(lab.push_plan(pair, recipe.hash, name, private=bool(hidden)))

    dry.click(show_plan, [shared.pair, shared.genome, repo, private], planned, **QUIET)
    shared.genome.change(lambda: "", None, planned, **AT_ONCE)

    @guarded
    def ask_push(
        pair_key: str, at_hand: dict[str, Any] | None, name: str, hidden: bool, visitor: gr.OAuthToken | None
    ) -> Any:
        pair, recipe = at_hand_of(pair_key, at_hand)
        lab.request_push(
            pair, recipe.hash, name, private=bool(hidden), visitor=visitor.token if visitor is not None else None
        )
        return views.push_words(None, None, True)

    push.click(ask_push, [shared.pair, shared.genome, repo, private], pushed, **QUIET)
