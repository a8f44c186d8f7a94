"""Benchmark tab, part Scores: what to run, the table that fills in while it runs, bars, and exports.

Takes the place's split and the desk; gives queued scores. Every number comes from `lab.benchmarks.table`.
"""

from __future__ import annotations

import html
import json
import secrets
from typing import Any

import gradio as gr

from darwin_lab.errors import LabError
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.ui import words
from darwin_lab.ui.components.chart import chart_card
from darwin_lab.ui.components.data_table import data_table, table_value
from darwin_lab.ui.components.heading import heading
from darwin_lab.ui.components.job_line import job_line
from darwin_lab.ui.components.menus import Menu
from darwin_lab.ui.figures.style import nothing
from darwin_lab.ui.session import AT_ONCE, LATEST, QUIET, guarded, on_a_space, pair_of
from darwin_lab.ui.tabs import benchmark_views as views
from darwin_lab.ui.tabs.benchmark_place import (
    NO_PAIR,
    PEOPLE,
    Place,
    benchmark_names,
    choices,
    kept,
    menu,
    model_names,
    opened,
    short_names,
)

JOB_KIND = "benchmark"
EXPORTS = {"csv": ("CSV", "csv"), "json": ("JSON", "json"), "markdown": ("Model-card table", "md")}
SAVE = """text => { if (!text) return; const {name, type, words} = JSON.parse(text), link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([words], {type})); link.download = name; link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000); }"""


def build(place: Place) -> gr.HTML:
    """Put the part on the page and wire it; gives the score table, whose rows can be picked."""
    shared, lab = place.shared, place.shared.lab
    with gr.Row(elem_classes=["dl-row"]):
        with gr.Column(scale=4, min_width=340), gr.Column(elem_classes=["dl-card"]):
            plan_head = heading("bench_plan_head", "Run", words.BENCH_PLAN)
            models = Menu([], multiselect=True, label="Models", elem_id="bench_models")
            names = Menu([], multiselect=True, label="Benchmarks", elem_id="bench_names")
            limit = gr.Number(0, label="Items a benchmark (0 = all)", precision=0, elem_id="bench_limit")
            plan = data_table("bench_plan", label="What a run will answer", height=230)
            seal = gr.Checkbox(
                False,
                label="Break the seal: this counts one look a benchmark",
                visible=False,
                elem_id="bench_seal",
            )
            with gr.Row(elem_classes=["dl-tight"]):
                go = gr.Button("Run", variant="primary", elem_id="bench_go", min_width=110)
                stop = gr.Button("Stop", interactive=False, elem_id="bench_stop", min_width=80)
            job_line("bench_job", JOB_KIND)
            with gr.Accordion("Add a model folder", open=False, elem_id="bench_folder_fold", visible=not on_a_space()):
                folder = gr.Textbox(
                    label="Folder of a checkpoint",
                    placeholder="/path/to/model",
                    info="Any checkpoint, also one of another architecture: it answers with its own tokenizer.",
                    elem_id="bench_folder",
                )
                add_folder = gr.Button("Add this folder", size="sm", elem_id="bench_folder_add")
        with gr.Column(scale=9, min_width=480):
            bars = chart_card("bench_bars", "Accuracy", words.BENCH_SCORES, empty=views.NOTHING_RUN, height=340)
            with gr.Column(elem_classes=["dl-card"]):
                with gr.Row(elem_classes=["dl-tight", "dl-headline"]):
                    heading("bench_table_head", "Scores", words.BENCH_SCORES, "Click a row to read its items.")
                    with gr.Row(elem_classes=["dl-tight"], elem_id="bench_exports"):
                        saves = {
                            form: gr.Button(label, size="sm", elem_id=f"bench_export_{form}", scale=0, min_width=70)
                            for form, (label, _) in EXPORTS.items()
                        }
                table = data_table(
                    "bench_table",
                    label="Scores",
                    pick=True,
                    search=True,
                    facets=("benchmark", "model"),
                    height=420,
                    empty=views.NOTHING_RUN,
                )
    file = gr.Textbox("", visible="hidden", elem_id="bench_file")

    def menus(pair_key: str, at_hand: dict[str, Any] | None, now: list[str], some: list[str]) -> list[Any]:
        pair = pair_of(lab, pair_key)
        if pair is None:
            return [gr.Dropdown(choices=[], value=[]), gr.Dropdown(choices=[], value=[])]
        known = model_names(lab, pair, at_hand)
        infos = lab.benchmarks.catalogue(pair)
        titles = benchmark_names(infos)
        own = [info.name for info in infos if info.source == "pair"]
        return [
            menu(known, now, kept(now, known, PEOPLE)),
            menu(titles, some, kept(some, titles, own)),
        ]

    chosen = [shared.pair, shared.genome, models, names]
    offered = [shared.child_stamp.change(menus, chosen, [models, names], **AT_ONCE)]

    def added(pair_key: str, at_hand: dict[str, Any] | None, now: list[str], some: list[str], what: str) -> list[Any]:
        pair, (kind, _, rest) = pair_of(lab, pair_key), what.partition("\t")
        if pair is None or kind not in ("model", "file"):
            return menus(pair_key, at_hand, now, some)
        new = rest.partition("\t")[0]
        if kind == "model":
            known = model_names(lab, pair, at_hand)
            return [gr.Dropdown(choices=choices(known), value=kept([*now, new], known, PEOPLE)), gr.skip()]
        titles = benchmark_names(lab.benchmarks.catalogue(pair))
        return [gr.skip(), gr.Dropdown(choices=choices(titles), value=kept([*some, new], titles, ()))]

    offered.append(place.listed.change(added, [*chosen, place.listed], [models, names], **AT_ONCE))
    # A menu of several fires `change` each time the page is drawn, whether or not it changed: only `input` is heard.
    picked = (models.input, names.input, place.split.change, *(event.then for event in offered))

    def planned(pair_key: str, split: str, some: list[str], which: list[str], most: float | None) -> list[Any]:
        pair = pair_of(lab, pair_key)
        if pair is None:
            return [NO_PAIR, table_value((), (), empty=NO_PAIR)]
        found = lab.benchmarks.catalogue(pair)
        titles = benchmark_names(found)
        infos = [info for info in found if info.name in which]
        looks = {titles[info.name]: lab.benchmarks.looks(pair, info.name) for info in infos}
        items = max(0, int(most or 0))
        return [
            views.plan_words(len(some), infos, split, items, looks),
            views.plan_table(infos, titles, split, items, lab.benchmarks.smallest_gap),
        ]

    asked = [shared.pair, place.split, models, names, limit]
    for change in (*picked, limit.change):
        change(planned, asked, [plan_head, plan], **LATEST)
    place.split.change(lambda split: gr.Checkbox(False, visible=split == "report"), place.split, seal, **AT_ONCE)

    def show(pair_key: str, at_hand: dict[str, Any] | None, split: str, some: list[str], which: list[str]) -> list[Any]:
        pair = pair_of(lab, pair_key)
        if pair is None:
            return [table_value((), (), empty=NO_PAIR), nothing(NO_PAIR).wire(), gr.skip(), gr.skip()]
        rows = lab.benchmarks.table(pair, split)
        known, titles = short_names(model_names(lab, pair, at_hand)), benchmark_names(lab.benchmarks.catalogue(pair))
        open_ = any(job.kind == JOB_KIND for job in lab.active_jobs())
        return [
            views.score_table(rows, known, titles),
            views.score_bars(rows, known, titles, some, which, split).wire(),
            gr.Button("Add to the run" if open_ else "Run"),
            gr.Button(interactive=open_),
        ]

    at = [shared.pair, shared.genome, place.split, models, names]
    for change in (*picked, shared.bench_stamp.change):
        change(show, at, [table, bars, go, stop], **LATEST)

    @guarded
    def run(pair_key: str, *wish: Any) -> Any:
        request(lab, opened(lab, pair_key), *wish)
        return gr.Button(interactive=True), gr.Checkbox(value=False)

    go.click(run, [shared.pair, place.split, models, names, limit, seal], [stop, seal], **QUIET)

    @guarded
    def halt() -> Any:
        for job in lab.active_jobs():
            if job.kind == JOB_KIND:
                lab.cancel(job.id)
        return gr.Button(interactive=False)

    stop.click(halt, None, stop, **QUIET)

    @guarded
    def take_folder(pair_key: str, path: str) -> Any:
        if not path.strip():
            raise LabError("no folder given; write the path of a checkpoint folder")
        if on_a_space():
            raise LabError("a Space has no local folders; open a Hub model as a pair instead")
        found = lab.benchmarks.add_folder(opened(lab, pair_key), path.strip())
        gr.Info(f"{found.label} is chosen now.", title="Model added")
        return "", f"model\t{found.key}\t{secrets.token_hex(4)}"

    add_folder.click(take_folder, [shared.pair, folder], [folder, place.listed], **QUIET)

    for form, button in saves.items():
        button.click(exporter(place, form), [shared.pair, place.split], file, **QUIET).then(
            None, file, None, js=SAVE, show_progress="hidden"
        )
    return table


def request(
    lab: Lab, pair: Pair, split: str, models: list[str], benchmarks: list[str], most: float | None, broken: bool
) -> list[str]:
    """Queue a run as asked for in the form; the ids of its jobs. LabError for a form that is not ready, and for report
    items while their seal is not `broken`."""
    if not models or not benchmarks:
        raise LabError("nothing to run; choose at least one model and one benchmark")
    if split == "report" and not broken:
        raise LabError("report items are sealed; tick “Break the seal” first, or choose another split")
    if most is not None and (most < 0 or most != int(most)):
        raise LabError(f"{most:g} items a benchmark; give a whole number, 0 for all")
    return lab.benchmarks.request(pair, models, benchmarks, split=split, limit=int(most or 0) or None)


def exporter(place: Place, form: str) -> Any:
    """A handler that writes one form of the table for the browser to save; "" where there is nothing."""
    lab = place.shared.lab

    def write(pair_key: str, split: str) -> str:
        try:
            words_ = lab.benchmarks.export(opened(lab, pair_key), split, form)
        except LabError as error:
            gr.Warning(html.escape(str(error)), title="Nothing exported", duration=12)
            return ""
        name = f"darwin-lab-scores-{split}.{EXPORTS[form][1]}"
        return json.dumps({"name": name, "type": "text/plain", "words": words_})

    return write
