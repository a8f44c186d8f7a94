"""The page: header, eight tabs, status bar, and the clock that lets it follow the store.

Takes a `Lab`; gives the `gr.Blocks` that `app.py` launches. Handlers only queue jobs and read; one clock a page asks
the store what changed, and only what changed is redrawn.
"""

from __future__ import annotations

import html
import os
from typing import Any

import gradio as gr

from darwin_lab.errors import LabError
from darwin_lab.genome.genome import neutral_genome
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.lab.views import JobView
from darwin_lab.ui.components.head import serve_plotly
from darwin_lab.ui.components.status_bar import address, status_bar, status_value
from darwin_lab.ui.session import (
    AT_ONCE,
    NO_RUN_CHOSEN,
    PICKED,
    QUIET,
    RunChoice,
    Shared,
    as_uploaded,
    genome_at_hand,
    guarded,
    pair_of,
    to_load,
)
from darwin_lab.ui.tabs import ask, benchmark, child, evolution, genome, health, mri, parents

TABS = ("parents", "mri", "genome", "evolution", "benchmark", "ask", "health", "child")
HOME = "mri"
BRAND = (
    "<div class='dl-brand'><svg width='26' height='26' viewBox='0 0 26 26' aria-hidden='true' fill='none' "
    "stroke-width='2' stroke-linecap='round'><path d='M7 3c0 7 12 6 12 10S7 17 7 23' stroke='#0072B2'/>"
    "<path d='M19 3c0 7-12 6-12 10s12 4 12 10' stroke='#D55E00'/><path d='M9.5 6h7M9.5 20h7M11 13h4' stroke='#8B949E' "
    "stroke-width='1.4'/></svg>Darwin Lab</div>"
)


def build(lab: Lab, first: Pair | None = None) -> gr.Blocks:
    """The page over one lab; `first` is the pair a visitor meets."""
    serve_plotly()
    with gr.Blocks(title="Darwin Lab", fill_width=True, analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        pair, layer, run = gr.State(""), gr.State(None), gr.State(NO_RUN_CHOSEN)
        at_hand, load = gr.State(None), gr.State({"genome": None, "stamp": ""})
        scan, evo, kid, scores = (
            gr.Textbox("", visible="hidden", elem_id=f"{name}_stamp") for name in ("scan", "run", "child", "bench")
        )
        seen = gr.State({"ended": None, "notice": "", "bar": None, "place": None})
        header = gr.HTML(header_of(None), elem_id="header")
        place = address(HOME)
        with gr.Tabs(elem_id="tabs", selected=HOME) as tabs:
            shared = Shared(lab, pair, layer, run, at_hand, load, scan, evo, kid, scores, tabs)
            with gr.Tab("Parents", id="parents", elem_id="tab_parents"):
                parents.build(shared)
            with gr.Tab("MRI", id="mri", elem_id="tab_mri"):
                mri.build(shared)
            with gr.Tab("Genome", id="genome", elem_id="tab_genome"):
                editor, evolve = genome.build(shared)
            with gr.Tab("Evolution", id="evolution", elem_id="tab_evolution"):
                evolution.build(shared, editor, evolve)
            with gr.Tab("Benchmark", id="benchmark", elem_id="tab_benchmark"):
                benchmark.build(shared)
            with gr.Tab("Ask", id="ask", elem_id="tab_ask"):
                ask.build(shared)
            with gr.Tab("Health", id="health", elem_id="tab_health"):
                health.build(shared)
            with gr.Tab("Child", id="child", elem_id="tab_child"):
                child.build(shared)
        bar = status_bar()

        @guarded
        def arrive(request: gr.Request) -> Any:
            return on_arrival(lab, first, dict(request.query_params))

        page.load(arrive, None, [pair, layer, run, load, scan, tabs], **QUIET)

        pair.change(lambda key: header_of(pair_of(lab, key)), pair, header, **AT_ONCE)

        def tick(key: str, at: int | None, chosen: RunChoice, genes: dict[str, Any] | None, *known: Any) -> list[Any]:
            opened = pair_of(lab, key)
            named = {"pair": key if first is None or key != first.key else None, "layer": at, **chosen}
            named["child"] = child_hash(lab, opened, genes) if opened is not None and genes is not None else None
            fresh = benchmark.stamp(lab, opened, named["child"])
            shown = follow(lab, (opened, chosen, genes), named, known[:3], known[3])
            return [*shown, fresh if fresh != known[4] else gr.skip()]

        pulse = gr.Timer(3.0 if os.environ.get("SPACE_ID") else 1.0)
        for beat in (pulse.tick, pair.change, layer.change, run.change):
            told, heard = [pair, layer, run, at_hand, scan, evo, kid, seen], [bar, place, scan, evo, kid, seen]
            beat(tick, [*told, scores], [*heard, scores], **AT_ONCE)

        @guarded
        def stop_jobs(known: dict[str, Any], event: gr.EventData) -> Any:
            refused = None
            for job in event._data["cancel"]:
                try:
                    lab.cancel(str(job))
                except LabError as error:  # another process's; the others are stopped all the same
                    refused = error
            if refused is not None:
                raise refused
            return gr.skip() if event._data["cancel"] else {**known, "notice": ""}

        bar.select(stop_jobs, seen, seen, **PICKED)
    return page


def header_of(pair: Pair | None) -> str:
    """The page's head: name and pair."""
    return f"<header class='dl-header'>{BRAND}{parents.header_words(pair)}</header>"


def child_hash(lab: Lab, pair: Pair, genes: dict[str, Any]) -> str | None:
    """The recipe hash of the genome at hand, None for parents that cannot be bred."""
    try:
        return lab.recipe(pair, genome_at_hand(pair, genes)).hash
    except LabError:
        return None


def on_arrival(lab: Lab, first: Pair | None, query: dict[str, str]) -> list[Any]:
    """What a visitor's link asks for: pair, layer, run, candidate, child, tab. A broken part is named and left out. The
    stamp of the scan comes with it: the maps need not wait for the clock."""
    pair, chosen = first, dict(NO_RUN_CHOSEN)
    wanted = None
    try:
        if query.get("pair"):
            pair = arriving(lab, query["pair"], pair)
        if query.get("run"):
            run = lab.run(lab.check_id(query["run"]))
            pair, chosen["run"] = arriving(lab, run.pair_key, pair), run.id
            chosen["candidate"] = int(query["candidate"]) if query.get("candidate", "").isdigit() else None
        if query.get("child") and pair is not None:
            wanted = lab.genome_of(pair, lab.check_id(query["child"]))
    except LabError as error:
        gr.Warning("That link is not valid: " + html.escape(str(error)), title="Link", duration=8)
    tab = gr.Tabs(selected=query["tab"]) if query.get("tab") in TABS else gr.skip()
    if pair is None:
        return ["", None, NO_RUN_CHOSEN, gr.skip(), gr.skip(), tab]
    layer = int(query["layer"]) if query.get("layer", "").isdigit() else None
    genome_ = wanted or neutral_genome("v6", pair.anatomy.layers)
    inside = layer is not None and layer < pair.anatomy.layers
    known = scan_stamp(lab, pair, lab.active_jobs())
    return [pair.key, layer if inside else None, chosen, to_load(genome_, "arrival"), known, tab]


def arriving(lab: Lab, key: str, instead: Pair | None) -> Pair | None:
    """The pair of a link; `instead` while its weights have to be read first, which is started and said."""
    if lab.request_pair(key) is None:
        return lab.pair(key)
    gr.Info("Its weights are being read first; open the link again when the bar below is done.", title="Link")
    return instead


def follow(
    lab: Lab,
    at: tuple[Pair | None, RunChoice, dict[str, Any] | None],
    place: dict[str, Any],
    known: tuple[str, ...],
    seen: dict[str, Any],
) -> list[Any]:
    """Status bar, address and stamps of what the page shows (pair, run, genome); what did not change is left alone."""
    pair, chosen, genes = at
    jobs = lab.active_jobs()
    ended = lab.ended_jobs()
    notice = seen["notice"]
    for over in map(lab.job, ended[len(ended) if seen["ended"] is None else seen["ended"] :]):
        notice = f"{over.title} failed: {as_uploaded(over.error or '')}" if over.state == "failed" else ""
    shown = status_value(jobs, notice)
    fresh = ("", "", "")
    if pair is not None:
        fresh = (
            scan_stamp(lab, pair, jobs),
            run_stamp(lab, pair, chosen),
            child_stamp(lab, pair, genes, jobs, len(ended)),
        )
    stamps = [new if new != old else gr.skip() for new, old in zip(fresh, known, strict=True)]
    kept = {"ended": len(ended), "notice": notice, "bar": shown, "place": place}
    return [
        shown if shown != seen["bar"] else gr.skip(),
        place if place != seen["place"] else gr.skip(),
        *stamps,
        kept if kept != seen else gr.skip(),
    ]


def scan_stamp(lab: Lab, pair: Pair, jobs: list[JobView]) -> str:
    """Changes when the MRI of the pair holds more than before, or is scanned in another precision."""
    scans = [lab.scan(pair, who) for who in ("father", "mother")]
    held = [len(found.probes) if found else 0 for found in (*scans, lab.contrast(pair))]
    busy = any(job.kind == "scan" for job in jobs)
    try:
        advised = lab.prescription(pair) is not None
    except LabError:  # these scans lack what advice needs
        advised = False
    known = f"{lab.static(pair) is not None}:{advised}"
    return f"{pair.key}:{lab.dtype(pair)}:{held}:{known}:{busy}"


def run_stamp(lab: Lab, pair: Pair, chosen: RunChoice) -> str:
    """Changes when the chosen run or the list of runs does."""
    listed = [(known.id, known.state, known.evaluated) for known in lab.runs(pair.key)]
    run = evolution.run_of(lab, chosen)
    if run is None:
        return f"{listed}"
    left = "" if run.eta_seconds is None or not run.open else round(run.eta_seconds / 5)
    counts = (len(run.candidates), len(run.generations), len(run.controls))
    return f"{run.id}:{run.state}:{run.phase}:{counts}:{left}:{listed}"


def child_stamp(lab: Lab, pair: Pair, genes: dict[str, Any] | None, jobs: list[JobView], ended: int) -> str:
    """Changes with the child at hand and the precision it is scanned in, whenever a job about a child starts, and
    whenever any job ends."""
    about = sorted(job.id for job in jobs if job.kind not in ("scan", "evolution"))
    return f"{pair.key}:{lab.dtype(pair)}:{genome_at_hand(pair, genes).hash}:{about}:{ended}"
