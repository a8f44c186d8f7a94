"""The Child tab: what the child can do on sealed items, beside both parents and the plain blend; and its export.

Takes the genome at hand; gives the report and the exported folder from the store.
"""

from __future__ import annotations

import html
import shutil
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr

from darwin_lab.errors import LabError
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.lab.views import ExportView
from darwin_lab.merging.recipe import Recipe
from darwin_lab.ui import words
from darwin_lab.ui.components.chart import chart_card
from darwin_lab.ui.components.data_table import Column, Row, data_table, mark, table_value
from darwin_lab.ui.figures.score_bars import score_bars
from darwin_lab.ui.figures.style import NAME, Chart, nothing, plural
from darwin_lab.ui.session import AT_ONCE, QUIET, Shared, facts, genome_at_hand, guarded, lead, pair_of, say, verdict

ORDER = ("child", "father", "mother", "blend")
SIGNIFICANT = 0.05
NOT_YET = "Press “Score on report items”: child, father, mother and blend answer the same sealed items."
BRING_ITEMS = "This pair came without benchmark items. Add JSONL files in Parents and open it again."


def build(shared: Shared) -> None:
    """Put the tab's components on the page and wire them."""
    lab = shared.lab
    gr.HTML(
        lead("Child", "Is the child better than both parents? Sealed items decide, and every look at them is counted.")
    )
    with gr.Row(elem_classes=["dl-row"]):
        with gr.Column(scale=8, min_width=480):
            sentence = gr.HTML(verdict("plain", "Not scored on report items.", NOT_YET), elem_id="child_verdict")
            bars = chart_card("score_bars", "Accuracy by skill", words.SCORES, empty=NOT_YET, height=340)
        with gr.Column(scale=4, min_width=320):
            with gr.Column(elem_classes=["dl-card"]):
                gr.HTML("<h3>The child at hand</h3>")
                about = gr.HTML(elem_id="child_facts")
                score = gr.Button("Score on report items", variant="primary", elem_id="child_report")
                looks = gr.HTML(elem_id="child_looks")
            with gr.Column(elem_classes=["dl-card"]):
                gr.HTML(
                    "<h3>Export</h3><p class='dl-note'>A folder with the father's tensor names, dtypes and side files; "
                    "it loads in plain transformers.</p>"
                )
                export = gr.Button("Export this child", elem_id="child_export")
                exported = gr.HTML(say("Not exported yet."), elem_id="child_exported")
                download = gr.DownloadButton("Download the folder (zip)", visible=False, elem_id="child_download")

    with gr.Column(elem_classes=["dl-card"]):
        gr.HTML(
            "<h3>Score table</h3><p class='dl-note'>Intervals: 95 % Wilson for a skill. p: paired permutation over "
            "items, stratified by skill, child against each.</p>"
        )
        table = data_table("score_table", label="Score table", empty=NOT_YET)

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
            hidden = gr.DownloadButton(visible=False)
            return [
                verdict("plain", "No child.", why),
                nothing(why).wire(),
                table_value((), (), empty=why),
                "",
                "",
                say(why),
                hidden,
            ]
        report = lab.report(pair, recipe.hash)
        kept = lab.export(pair, recipe.hash)
        busy = {job.kind for job in lab.active_jobs()}
        return [
            *report_views(pair, report, "report" in busy),
            child_words(pair, recipe),
            looks_words(lab, pair),
            export_words(kept, "export" in busy),
            download_of(kept),
        ]

    shown = [sentence, bars, table, about, looks, exported, download]
    shared.child_stamp.change(show, [shared.pair, shared.genome], shown, **AT_ONCE)

    @guarded
    def ask_report(pair_key: str, at_hand: dict[str, Any] | None) -> Any:
        pair, _ = at_hand_of(pair_key, at_hand)
        lab.request_report(pair, genome_at_hand(pair, at_hand))
        return verdict("plain", "Scoring on report items.", "Child, father, mother and blend answer the same items.")

    score.click(ask_report, [shared.pair, shared.genome], sentence, **QUIET)

    @guarded
    def ask_export(pair_key: str, at_hand: dict[str, Any] | None) -> Any:
        pair, _ = at_hand_of(pair_key, at_hand)
        lab.request_export(pair, genome_at_hand(pair, at_hand))
        return say("Writing the child, tensor by tensor. Progress is in the bar below.")

    export.click(ask_export, [shared.pair, shared.genome], exported, **QUIET)


def report_views(pair: Pair, report: dict[str, Any] | None, busy: bool) -> list[Any]:
    """Verdict, chart and table of a report."""
    if pair.items_by_split is None:
        return [
            verdict("plain", "No items to score on.", BRING_ITEMS),
            nothing(BRING_ITEMS).wire(),
            table_value((), (), empty=BRING_ITEMS),
        ]
    if report is None:
        head = "Scoring on report items." if busy else "Not scored on report items."
        return [verdict("plain", head, NOT_YET), nothing(NOT_YET).wire(), table_value((), (), empty=NOT_YET)]
    tone = "ok" if report["surpasses_both"] else "plain"
    looks = report["looks"]
    note = f"n = {report['n']} report items; look number {looks} at them for this pair."
    return [verdict(tone, report["sentence"], note), report_chart(report).wire(), report_table(report)]


def report_chart(report: dict[str, Any]) -> Chart:
    """Accuracy per benchmark of the four models."""
    models = {who: report["models"][who] for who in ORDER if who in report["models"]}
    scores = {
        who: {task: (bench["acc"], *map(float, bench["interval"])) for task, bench in model["benchmarks"].items()}
        for who, model in models.items()
    }
    chance = {task: bench["chance"] for task, bench in next(iter(models.values()))["benchmarks"].items()}
    return score_bars(scores, n=report["n"], chance=chance)


def report_table(report: dict[str, Any]) -> dict[str, Any]:
    """Means with the paired tests, then every benchmark with n and interval."""
    models = report["models"]
    tasks = list(models["child"]["benchmarks"])
    rows = []
    for who in (who for who in ORDER if who in models):
        model, test = models[who], report["tests"].get(who)
        cells: list[Any] = [NAME[who], model["mean_acc"]]
        if test:
            cells += [f"{test['difference']:+.3f} [{test['low']:+.3f}, {test['high']:+.3f}]", _p(test["p"])]
            cells.append(_told_apart(test))
        else:
            cells += ["", "", ""]
        for task in tasks:
            bench = model["benchmarks"][task]
            low, high = bench["interval"]
            cells.append(f"{bench['acc']:.3f} [{low:.3f}, {high:.3f}]")
        rows.append(Row(who, tuple(cells), who))
    sizes = {task: models["child"]["benchmarks"][task]["n"] for task in tasks}
    columns = (
        Column("model"),
        Column("mean accuracy", "number", 3, "Unweighted mean over skills"),
        Column("child − it, 95 %", "number"),
        Column("p", "number"),
        Column("verdict", "mark"),
        *(Column(f"{task.lower()} (n {sizes[task]})", "number") for task in tasks),
    )
    return table_value(columns, rows)


def child_words(pair: Pair, recipe: Recipe) -> str:
    """What the child at hand is."""
    mean = [ratio for ratio in recipe.layer_ratios() if ratio is not None]
    rows = [
        ("#child (recipe)", recipe.hash, ""),
        ("mother's share", f"{sum(mean) / len(mean):.3f}", f"mean of {len(mean)} layers"),
        ("parents", f"{pair.father.name} × {pair.mother.name}", ""),
    ]
    return facts(rows)


def looks_words(lab: Lab, pair: Pair) -> str:
    """How often the sealed items were used."""
    if pair.items_by_split is None:
        return ""
    return say(f"{plural(lab.report_looks(pair), 'look')} at the report items of this pair so far.")


def export_words(kept: ExportView | None, busy: bool) -> str:
    """Where the export lies."""
    if busy:
        return say("Writing the child, tensor by tensor. Progress is in the bar below.")
    if kept is None:
        return say("Not exported yet.")
    place = html.escape(kept.folder)
    return f"<div class='dl-hint'>{kept.bytes / 1e6:.1f} MB in <code id='child_folder'>{place}</code></div>"


def download_of(kept: ExportView | None) -> Any:
    """The download button, holding the zip of the newest export (a link in the temporary folder gradio may serve)."""
    if kept is None or kept.archive is None or not Path(kept.archive).is_file():
        return gr.DownloadButton(visible=False)
    place = Path(tempfile.gettempdir()) / "darwin-lab-downloads" / kept.id
    served = place / f"{Path(kept.folder).name}.zip"
    if not served.exists():
        place.mkdir(parents=True, exist_ok=True)
        try:
            served.hardlink_to(kept.archive)
        except OSError:
            shutil.copyfile(kept.archive, served)
    return gr.DownloadButton(value=str(served), visible=True)


def _told_apart(test: dict[str, Any]) -> dict[str, str]:
    if test["p"] >= SIGNIFICANT:
        return mark(None, "no difference shown")
    better = test["difference"] > 0
    return mark(better, "child better" if better else "child worse")


def _p(value: float) -> str:
    return "< .001" if value < 0.001 else f"{value:.3f}"
