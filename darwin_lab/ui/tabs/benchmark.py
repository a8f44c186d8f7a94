"""The Benchmark tab: models x benchmarks on one split, and what may be said of the scores, in six parts.

Takes the selected pair and the genome at hand; gives queued scores. Each part is a module of its own; this one holds
what they share: the split and the child.
"""

from __future__ import annotations

import html
from typing import Any

import gradio as gr

from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.ui.components.menus import Menu
from darwin_lab.ui.session import AT_ONCE, PICKED, Shared, lead, pair_of
from darwin_lab.ui.tabs import (
    benchmark_add,
    benchmark_claim,
    benchmark_items,
    benchmark_overlap,
    benchmark_scores,
    benchmark_vigour,
)
from darwin_lab.ui.tabs.benchmark_place import PEOPLE, SPLIT_WORDS, SPLITS, Place, child_at_hand, menu, model_names

FIRST = "selection"


def build(shared: Shared) -> None:
    """Put the tab's components on the page and wire them."""
    lab = shared.lab
    gr.HTML(lead("Benchmark", "The same items for every model, with intervals, paired tests and sealed report items."))
    with gr.Row(elem_classes=["dl-controls"]):
        split = gr.Radio(SPLITS, value=FIRST, label="Items", elem_id="bench_split", elem_classes=["dl-seg"])
        child = Menu([], label="Child", elem_id="bench_child", min_width=300)
        about = gr.HTML(split_words(FIRST), elem_id="bench_split_words")
    listed = gr.Textbox("", visible="hidden", elem_id="bench_listed")
    with gr.Tabs(elem_id="bench_parts", selected="scores") as parts:
        place = Place(shared, split, child, listed)
        with gr.Tab("Scores", id="scores", elem_id="bench_part_scores"):
            scores = benchmark_scores.build(place)
        with gr.Tab("Hybrid vigour", id="vigour", elem_id="bench_part_vigour"):
            benchmark_vigour.build(place)
        with gr.Tab("Complementarity", id="overlap", elem_id="bench_part_overlap"):
            benchmark_overlap.build(place)
        with gr.Tab("Items", id="items", elem_id="bench_part_items"):
            reading = benchmark_items.build(place)
        with gr.Tab("Benchmarks", id="list", elem_id="bench_part_list"):
            benchmark_add.build(place)
        with gr.Tab("Claim check", id="claim", elem_id="bench_part_claim"):
            benchmark_claim.build()

    def read_items(event: gr.EventData) -> Any:
        return str(event._data["id"]).partition("\t")[2], gr.Tabs(selected="items")

    scores.select(read_items, None, [reading, parts], **PICKED)
    split.change(split_words, split, about, **AT_ONCE)

    def children(pair_key: str, at_hand: dict[str, Any] | None, now: str | None) -> Any:
        pair = pair_of(lab, pair_key)
        if pair is None:
            return gr.Dropdown(choices=[], value=None)
        names = {key: name for key, name in model_names(lab, pair, at_hand).items() if key not in ("father", "mother")}
        hand = child_at_hand(lab, pair, at_hand)
        default = hand if hand in names else next((key for key in names if key not in PEOPLE), next(iter(names), None))
        return menu(names, now, now if now in names else default)

    for change in (shared.child_stamp.change, listed.change):
        change(children, [shared.pair, shared.genome, child], child, **AT_ONCE)


def split_words(split: str) -> str:
    """What the items of a split are for."""
    return f"<p class='dl-note'>{html.escape(SPLIT_WORDS[split])}</p>"


def stamp(lab: Lab, pair: Pair | None, child: str | None) -> str:
    """Changes with the pair and the child at hand, as a benchmark job goes on, and whenever any job ends."""
    if pair is None:
        return ""
    jobs = [(job.id, round(job.fraction, 2)) for job in lab.active_jobs() if job.kind == benchmark_scores.JOB_KIND]
    return f"{pair.key}:{child}:{jobs}:{len(lab.ended_jobs())}"
