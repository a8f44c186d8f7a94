"""The table of the page: sortable, filterable, exportable, and where asked for, a place to pick a row.

Takes columns and rows of plain values (`table_value`); fires `select` with {id} when a row is picked by mouse or
keyboard. Text is put in as text, never as HTML.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import gradio as gr

from darwin_lab.ui.components.head import on_load


@dataclass(frozen=True)
class Column:
    """One column; kind: text, long (a sentence), quote (a passage: two lines until clicked), code, number, signed,
    share (a percentage), bar (number and bar), mark (a verdict)."""

    label: str
    kind: str = "text"
    digits: int | None = None
    title: str = ""


@dataclass(frozen=True)
class Row:
    """One row; `id` is what `select` reports, `tone` a style: "", "father", "mother", "child", "blend", "bad"."""

    id: str
    cells: tuple[Any, ...]
    tone: str = ""


def mark(ok: bool | None, words: str) -> dict[str, str]:
    """A verdict cell: a sign and words, so that it never depends on colour."""
    tone = "plain" if ok is None else "ok" if ok else "bad"
    return {"tone": tone, "words": {"ok": "✓ ", "bad": "✕ ", "plain": ""}[tone] + words}


def data_table(
    elem_id: str,
    *,
    label: str,
    pick: bool = False,
    search: bool = False,
    facets: Sequence[str] = (),
    height: int | None = None,
    empty: str = "",
) -> gr.HTML:
    """An empty table; feed it with `table_value`. `height` bounds it and makes it scroll under its head.

    `search` gives it a bar with a text filter, the number of rows and CSV; `facets` are labels of columns that get a
    menu of their values there.
    """
    menus = "".join(
        f"<select data-facet='{html.escape(name, quote=True)}' aria-label='{html.escape(name, quote=True)}'></select>"
        for name in facets
    )
    bar = (
        "<div class='dl-data-bar'>"
        + ("<input type='search' placeholder='Filter' aria-label='Filter rows of {{label}}'>" if search else "")
        + menus
        + "<span class='dl-count'></span>"
        "<button type='button' class='dl-csv' title='Download as CSV'>CSV</button></div>"
        if search or facets
        else "<span class='dl-count' hidden></span>"
    )
    limit = f"max-height:{height}px" if height else ""
    return gr.HTML(
        {"columns": [], "rows": [], "chosen": None, "empty": empty},
        html_template="<div class='dl-data' role='region' aria-label='{{label}}'>"
        + bar
        + f"<div class='dl-scroll' tabindex='0' style='{limit}'></div></div>",
        js_on_load=on_load("data_table", "select"),
        apply_default_css=False,
        elem_id=elem_id,
        label=label,
        pick=pick,
        filename=f"darwin-lab-{elem_id.replace('_', '-')}",
    )


def table_value(
    columns: Sequence[Column], rows: Iterable[Row], *, chosen: str | None = None, empty: str = "Nothing here yet."
) -> dict[str, Any]:
    """The value of a table; numbers that are not finite become blanks."""
    return {
        "columns": [asdict(column) for column in columns],
        "rows": [{"id": row.id, "cells": [_plain(c) for c in row.cells], "tone": row.tone} for row in rows],
        "chosen": chosen,
        "empty": empty,
    }


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
