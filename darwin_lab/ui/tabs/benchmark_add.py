"""Benchmark tab, part Benchmarks: what can be run here, adding a file of your own, and the leak check.

Takes a dropped file and a map of its columns; gives a benchmark in the catalogue. What is shown of a file before it
is added are its first items as the lab would read them.
"""

from __future__ import annotations

import html
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from darwin_lab.errors import LabError
from darwin_lab.scoring.fields import ROLES
from darwin_lab.scoring.items import Item
from darwin_lab.ui import words
from darwin_lab.ui.components.data_table import data_table, table_value
from darwin_lab.ui.components.heading import heading
from darwin_lab.ui.components.menus import picking
from darwin_lab.ui.figures.style import plural
from darwin_lab.ui.session import AT_ONCE, CHOSEN, PICKED, QUIET, as_uploaded, guarded, pair_of, say, verdict
from darwin_lab.ui.tabs import benchmark_leaks
from darwin_lab.ui.tabs.benchmark_place import NO_PAIR, Place, benchmark_names
from darwin_lab.ui.tabs.benchmark_views import catalogue_table

if TYPE_CHECKING:
    from darwin_lab.scoring.fields import FieldGuess

KINDS = [".jsonl", ".csv", ".parquet"]
DROP = "Drop a file: JSONL, CSV or parquet, one question a row. Nothing leaves this machine."
LABELS = {
    "question": "Question",
    "choices": "Options (one column that lists them, or one column each)",
    "answer": "Right answer",
    "context": "Context before the question",
    "id": "Item id",
    "task": "Task",
    "category": "Category",
    "split": "Split",
}
FIRST = ("question", "choices", "answer")
MOST_PROBLEMS = 5


def build(place: Place) -> None:
    """Put the part on the page and wire it."""
    shared, lab = place.shared, place.shared.lab
    with gr.Row(elem_classes=["dl-row"]):
        with gr.Column(scale=6, min_width=400, elem_classes=["dl-card"]):
            heading("bench_add_head", "Add a file of your own", words.BENCH_FIELDS, DROP)
            file = gr.File(label="Questions", file_types=KINDS, height=124, elem_id="bench_file_drop")
            state = gr.HTML("", elem_id="bench_file_state")
            with gr.Column(visible=False, elem_id="bench_fields") as form:
                fields = {role: _menu(role) for role in FIRST}
                with gr.Accordion("More columns", open=False, elem_id="bench_fields_more"):
                    fields |= {role: _menu(role) for role in ROLES if role not in FIRST}
                preview = gr.HTML(elem_id="bench_preview")
                with gr.Row(elem_classes=["dl-controls"]):
                    name = gr.Textbox("", label="Call it", elem_id="bench_file_name", max_lines=1)
                    add = gr.Button("Add", variant="primary", elem_id="bench_add", min_width=110)
        with gr.Column(scale=6, min_width=400, elem_classes=["dl-card"]):
            benchmark_leaks.build(place)
    with gr.Column(elem_classes=["dl-card"]):
        with gr.Row(elem_classes=["dl-tight", "dl-headline"]):
            heading("bench_list_head", "Benchmarks", words.BENCH_LIST, "Everything that can be run here.")
            forget = gr.Button(
                "Remove the picked file", size="sm", interactive=False, elem_id="bench_forget", scale=0, min_width=170
            )
        catalogue = data_table("bench_list", label="Benchmarks", pick=True, search=True, height=560)
    picked = gr.State("")
    menus = list(fields.values())

    @guarded
    def dropped(path: str | None) -> list[Any]:
        if not path:
            return ["", gr.Column(visible=False), *[gr.skip()] * (len(menus) + 3)]
        try:
            guess = lab.benchmarks.guess_fields(path, None)
        except LabError as error:
            bad = verdict("bad", "This file cannot be read.", as_uploaded(str(error)))
            return [bad, gr.Column(visible=False), *[gr.skip()] * (len(menus) + 3)]
        chosen = [_menu_value(role, guess) for role in fields]
        return [
            state_words(guess), gr.Column(visible=True), *chosen, preview_of(guess), Path(path).stem,
            gr.Button(interactive=not guess.problems),
        ]  # fmt: skip

    file.change(dropped, file, [state, form, *menus, preview, name, add], **QUIET)

    @guarded
    def changed(path: str | None, *values: Any) -> list[Any]:
        if not path:
            return [gr.skip()] * 3
        try:
            guess = lab.benchmarks.guess_fields(path, fields_from(values))
        except LabError as error:
            return [
                verdict("bad", "Read like this, it cannot be added.", as_uploaded(str(error))),
                "",
                gr.Button(interactive=False),
            ]
        return [state_words(guess), preview_of(guess), gr.Button(interactive=not guess.problems)]

    for menu in menus:
        picking(menu)(changed, [file, *menus], [state, preview, add], **CHOSEN)

    @guarded
    def take(path: str | None, called: str, *values: Any) -> Any:
        if not path:
            raise LabError("no file to add; drop one first")
        info = lab.benchmarks.add_file(path, fields_from(values), called.strip() or None)
        gr.Info(f"{info.title}: {plural(info.n or 0, 'item')}, chosen in Scores now.", title="Benchmark added")
        done = verdict("ok", f"{info.title} is added.", "It is chosen in Scores: press “Run” there.")
        return f"file\t{info.name}\t{secrets.token_hex(4)}", None, done, gr.Column(visible=False)

    add.click(take, [file, name, *menus], [place.listed, file, state, form], **QUIET)

    def listed(pair_key: str, row: str) -> list[Any]:
        pair = pair_of(lab, pair_key)
        if pair is None:
            return [table_value((), (), empty=NO_PAIR), gr.Button(interactive=False)]
        infos = lab.benchmarks.catalogue(pair)
        own = any(info.name == row and info.source == "file" for info in infos)
        table = catalogue_table(infos, benchmark_names(infos), row if own else None)
        return [table, gr.Button(interactive=own)]

    for change in (shared.child_stamp.change, place.listed.change, picked.change):
        change(listed, [shared.pair, picked], [catalogue, forget], **AT_ONCE)

    def pick(event: gr.EventData) -> str:
        return str(event._data["id"])

    catalogue.select(pick, None, picked, **PICKED)

    @guarded
    def remove(row: str) -> tuple[str, str]:
        lab.benchmarks.forget_file(row)
        return f"gone\t{row}\t{secrets.token_hex(4)}", ""

    forget.click(remove, picked, [place.listed, picked], **QUIET)


def fields_from(values: Sequence[Any]) -> dict[str, str | list[str]]:
    """Role -> column (or columns of the options) as chosen in the menus, in their order; empty ones are left out."""
    order = (*FIRST, *(role for role in ROLES if role not in FIRST))
    found: dict[str, str | list[str]] = {}
    for role, value in zip(order, values, strict=True):
        if value:
            several = list(value) if isinstance(value, list | tuple) else [value]
            found[role] = several if len(several) > 1 else several[0]
    return found


def state_words(guess: FieldGuess) -> str:
    """What the file holds and how it is read; what is wrong with it, line by line."""
    rows = plural(guess.n, "row")
    if guess.problems:
        more = len(guess.problems) - MOST_PROBLEMS
        unknown = [LABELS[role].lower() for role in ("question", "answer") if role not in guess.fields]
        told = [f"no column looks like the {what}; choose it below" for what in unknown] or guess.problems[
            :MOST_PROBLEMS
        ]
        listed = "".join(f"<li>{html.escape(as_uploaded(problem))}</li>" for problem in told)
        tail = f"<li>and {more} more</li>" if more > 0 else ""
        head = verdict("bad", "Not ready to be added.", f"{rows}; correct the file, or say which column is what.")
        return f"{head}<ul class='dl-lines' id='bench_problems'>{listed}{tail}</ul>"
    how = f"answers are read as {guess.answers}" if guess.answers else "answers are written out and compared as text"
    remarks = " ".join(note if note.endswith("?") else f"{note}." for note in map(_sentence, guess.notes))
    explained = f"As mapped below, {how}. Check the first three. {remarks}".strip()
    return verdict("watch" if guess.notes else "ok", f"{rows}, ready to be added.", explained)


def _sentence(note: str) -> str:
    return note[:1].upper() + note[1:]


def preview_of(guess: FieldGuess) -> str:
    """The first items as a model would meet them, the right option marked."""
    if not guess.rows:
        return say("No row can be read with these columns yet.")
    return f"<h4>The first {len(guess.rows)} as they will be asked</h4>{''.join(map(_sketch, guess.rows))}"


def _sketch(item: Item) -> str:
    """One item in a few lines: the question, its options in a row with the right one marked, its category and split."""
    told = " · ".join([item.id, item.category, *([item.meta["split"]] if "split" in item.meta else [])])
    shown = item.choices or (str(item.answer),)
    options = "".join(
        f"<li class='{'gold' if right else ''}'>{html.escape(text)}{' <b>✓</b>' if right else ''}</li>"
        for place, text in enumerate(shown)
        for right in [not item.choices or place == item.answer]
    )
    return (
        f"<div class='dl-sketch'><p class='dl-note'>{html.escape(told)}</p>"
        f"<p class='dl-question'>{html.escape(item.question)}</p><ul>{options}</ul></div>"
    )


def _menu(role: str) -> gr.Dropdown:
    return gr.Dropdown(
        [],
        label=LABELS[role],
        multiselect=role == "choices",
        elem_id=f"field_{role}",
        value=[] if role == "choices" else None,
    )


def _menu_value(role: str, guess: FieldGuess) -> gr.Dropdown:
    now = guess.fields.get(role)
    if role == "choices":
        several = [] if now is None else [now] if isinstance(now, str) else list(now)
        return gr.Dropdown(choices=list(guess.columns), value=several)
    return gr.Dropdown(
        choices=[("–", ""), *((one, one) for one in guess.columns)], value=now if isinstance(now, str) else ""
    )
