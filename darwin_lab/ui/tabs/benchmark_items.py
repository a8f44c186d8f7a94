"""Benchmark tab, part Items: read the questions, the options and what every model answered; accuracy by category.

Takes a benchmark, a filter and a search; gives items from the desk. Items of gated benchmarks stay hidden until asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from darwin_lab.errors import LabError
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.ui import words
from darwin_lab.ui.components.data_table import Column, Row, data_table, table_value
from darwin_lab.ui.components.heading import heading
from darwin_lab.ui.components.menus import Menu, picking
from darwin_lab.ui.session import AT_ONCE, LATEST, PICKED, pair_of, say
from darwin_lab.ui.tabs import benchmark_answers as answers
from darwin_lab.ui.tabs.benchmark_place import (
    NO_PAIR,
    Place,
    benchmark_names,
    interval_words,
    menu,
    model_names,
    short_names,
)

if TYPE_CHECKING:
    from darwin_lab.lab.benching_views import CategoryRow

NOT_YET = "No model has answered these items yet. Choose models in Scores and press “Run”."
GATED = "These items are gated: they must not be published or shown around, so they are hidden here."
PICK = "Pick an item in the table to read it with every model's answer."


def build(place: Place) -> gr.Dropdown:
    """Put the part on the page and wire it; gives the menu of benchmarks, which another part may set."""
    shared, lab = place.shared, place.shared.lab
    with gr.Column(elem_classes=["dl-card"]):
        note = heading("bench_items_head", "Items", words.BENCH_ITEMS)
        with gr.Row(elem_classes=["dl-tight"]):
            benchmark = Menu([], label="Benchmark", elem_id="items_benchmark", scale=3, min_width=180)
            which = Menu(
                [("All items", answers.EVERY)], value=answers.EVERY, label="Show", elem_id="items_filter", scale=4,
                min_width=240,
            )  # fmt: skip
            category = Menu(
                [("All categories", "")],
                value="",
                label="Category",
                visible=False,
                elem_id="items_category",
                scale=3,
                min_width=160,
            )
            text = gr.Textbox(
                "",
                label="Search",
                placeholder="in id, question and options",
                elem_id="items_search",
                scale=3,
                min_width=160,
            )
        gated = gr.Checkbox(False, label="Show gated items on this screen", visible=False, elem_id="items_gated")
        with gr.Row(elem_classes=["dl-row"]):
            with gr.Column(scale=7, min_width=420):
                table = data_table("bench_items", label="Items", pick=True, height=460, empty=NOT_YET)
            with gr.Column(scale=6, min_width=360):
                detail = gr.HTML(say(PICK), elem_id="bench_item")
    with gr.Column(elem_classes=["dl-card"], visible=False, elem_id="bench_category") as groups:
        heading("bench_category_head", "Accuracy by category", words.BENCH_CATEGORY)
        split_table = data_table("bench_categories", label="Accuracy by category", height=360)
    item = gr.State("")

    def menus(pair_key: str, now: str | None) -> Any:
        pair = pair_of(lab, pair_key)
        if pair is None:
            return gr.Dropdown(choices=[], value=None)
        names = benchmark_names(lab.benchmarks.catalogue(pair))
        return menu(names, now, now if now in names else next(iter(names), None))

    for change in (shared.pair.change, place.listed.change):
        change(menus, [shared.pair, benchmark], benchmark, **AT_ONCE)

    def show(pair_key: str, at_hand: dict[str, Any] | None, *wish: Any) -> list[Any]:
        pair = pair_of(lab, pair_key)
        return nothing_to_read(NO_PAIR) if pair is None else reading(lab, pair, at_hand, Wish(*wish))

    inputs = [shared.pair, shared.genome, place.split, place.child, benchmark, which, category, text, gated, item]
    outputs = [note, which, category, table, detail, gated, split_table, groups]
    changes = (shared.child_stamp.change, place.split.change, place.child.change, benchmark.change, picking(which),
               picking(category), text.input, gated.input, item.change)  # fmt: skip
    for change in changes:
        change(show, inputs, outputs, **LATEST)

    def pick(event: gr.EventData) -> str:
        return str(event._data["id"])

    table.select(pick, None, item, **PICKED)
    return benchmark


@dataclass(frozen=True)
class Wish:
    """What the controls ask for. `child` is a model's key; `filter` a key of the menu of filters; `category` and
    `text` "" for all; `open_` shows gated items; `picked` an item's id."""

    split: str
    child: str | None
    benchmark: str | None
    filter: str | None = answers.EVERY
    category: str | None = ""
    text: str = ""
    open_: bool = False
    picked: str = ""


def reading(lab: Lab, pair: Pair, at_hand: dict[str, Any] | None, wish: Wish) -> list[Any]:
    """Values of note, filters, categories, table, item, the box for gated items, the table by category, its card."""
    desk, name, split = lab.benchmarks, wish.benchmark, wish.split
    info = next((one for one in desk.catalogue(pair) if one.name == name), None)
    if info is None or name is None:
        return nothing_to_read(NOT_YET)
    models = answering(lab, pair, at_hand, name, split)
    by_category = category_table({key: desk.categories(pair, key, name, split) for key in models}, models)
    grouped = [by_category, gr.Column(visible=bool(by_category["rows"]))]
    gated = not desk.shown(info)
    box = gr.Checkbox(visible=gated)
    if gated and not wish.open_:
        return [*nothing_to_read(GATED)[:-3], box, *grouped]
    scores = {key: desk.score(pair, key, name, split) for key in models}
    held = {key: score for key, score in scores.items() if score is not None}
    try:
        every = answers.join(desk.items(pair, name, split), held) if held else []
    except LabError as error:
        return [*nothing_to_read(str(error))[:-3], box, *grouped]
    groups = list(dict.fromkeys(one.item.category for one in every))
    group = wish.category if wish.category in groups else ""
    reset = {} if group == wish.category else {"value": group}
    rows = answers.found(every, wish.filter or answers.EVERY, wish.child, group, wish.text)
    picked = next((one for one in rows if one.item.id == wish.picked), rows[0] if rows else None)
    why = "No item fits; choose another filter or clear the search." if every else NOT_YET
    table = answers.answer_table(
        rows, models, categories=len(groups) > 1, chosen=picked.item.id if picked else None, empty=why
    )
    return [
        items_words(len(rows), len(every)),
        gr.Dropdown(choices=answers.filter_choices(every, wish.child)),
        gr.Dropdown(
            choices=[("All categories", ""), *((one, one) for one in groups)], visible=len(groups) > 1, **reset
        ),
        table,
        answers.item_page(picked, models) if picked else say(why),
        box,
        *grouped,
    ]


def answering(lab: Lab, pair: Pair, at_hand: dict[str, Any] | None, name: str, split: str) -> dict[str, str]:
    """Models with answers to a benchmark, key -> short label, in the order of the menu."""
    known = short_names(model_names(lab, pair, at_hand))
    done = {row.model for row in lab.benchmarks.table(pair, split) if row.benchmark == name and row.done}
    return {key: known.get(key, key) for key in [*known, *sorted(done - set(known))] if key in done}


def nothing_to_read(why: str) -> list[Any]:
    """The part with nothing to show, and why."""
    empty = table_value((), (), empty=why)
    return [
        "",
        gr.skip(),
        gr.Dropdown(visible=False),
        empty,
        say(why),
        gr.Checkbox(visible=False),
        table_value((), (), empty=why),
        gr.Column(visible=False),
    ]


def items_words(fitting: int, every: int) -> str:
    """How many items fit, and how many of them are listed."""
    if not every:
        return ""
    listed = f"; the first {answers.MOST} are listed, search for the others" if fitting > answers.MOST else ""
    return f"{fitting:,} of {every:,} answered items{listed}."


def category_table(found: Mapping[str, Sequence[CategoryRow]], models: Mapping[str, str]) -> dict[str, Any]:
    """One row a category: each model's accuracy with its interval; one category alone says nothing new."""
    groups = list(dict.fromkeys(row.category for rows in found.values() for row in rows))
    if len(groups) < 2:
        return table_value((), (), empty="These items have no categories; a “category” column in a file makes them.")
    by_model = {models[key]: {row.category: row for row in rows} for key, rows in found.items()}
    rows = []
    for group in groups:
        cells: list[Any] = [group, max((by[group].n for by in by_model.values() if group in by), default=None)]
        for by in by_model.values():
            one = by.get(group)
            cells += [None, ""] if one is None else [one.acc, interval_words(one.interval)]
        rows.append(Row(group, tuple(cells)))
    columns = [Column("category"), Column("items", "number")]
    for label in by_model:
        columns += [Column(label, "share", title=f"Accuracy of {label}"), Column("95 %", "number")]
    return table_value(columns, rows)
