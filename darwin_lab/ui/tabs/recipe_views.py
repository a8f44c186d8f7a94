"""A recipe as a table: one row a tensor, with filters by what a tensor is and what happens to it.

Takes a recipe; gives the value of a `data_table`. Experts stored one by one that are all treated alike share a row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from darwin_lab.merging.recipe import Recipe
from darwin_lab.merging.recipe import Row as RecipeRow
from darwin_lab.ui.components.data_table import Column, Row, table_value

FACETS = ("layer", "role", "component", "action")
COMPONENT_WORDS = {"attn": "attention", "ffn": "FFN + experts", "embed": "embedding", "global": "whole model"}
_EXPERT = re.compile(r"(?<=\.experts\.)\d+(?=\.)")


def recipe_rows(recipe: Recipe) -> dict[str, Any]:
    """The recipe as a table; `FACETS` name the columns to filter by."""
    columns = (
        Column("tensor", "code"),
        Column("layer", "number"),
        Column("role"),
        Column("component", title="The genes that own the tensor"),
        Column("action"),
        Column("mother's share", "number", 4, "0 the father, 1 the mother"),
        Column("operator"),
        Column("numbers", "number", title="How many numbers the tensor holds"),
        Column("why", "long", title="Why this ratio"),
    )
    return table_value(columns, (_table_row(rows) for rows in _alike(recipe.rows.values())))


def _table_row(rows: list[RecipeRow]) -> Row:
    first, merged = rows[0], rows[0].action == "merge"
    cells = (
        _name(rows),
        None if first.layer is None else f"L{first.layer}",
        first.role.replace("_", " "),
        COMPONENT_WORDS.get(first.component, "father's copy"),
        _action(first),
        first.ratio,
        first.operator if merged else "",
        sum(row.numel for row in rows),
        first.why,
    )
    return Row(first.name, cells)


def _action(row: RecipeRow) -> str:
    if row.action == "merge":
        return "merge"
    return "copy of the mother" if row.ratio == 1.0 else "copy of the father"


def _alike(rows: Iterable[RecipeRow]) -> list[list[RecipeRow]]:
    """Rows in their order, single experts of one projection joined where the recipe does the same to them."""
    groups: dict[tuple[Any, ...], list[RecipeRow]] = {}
    for row in rows:
        general = _EXPERT.sub("*", row.name)
        key = (row.name,) if general == row.name else (general, row.decision[1:], row.why)
        groups.setdefault(key, []).append(row)
    return list(groups.values())


def _name(rows: list[RecipeRow]) -> str:
    if len(rows) == 1:
        return rows[0].name
    numbers = sorted(int(match[0]) for row in rows if (match := _EXPERT.search(row.name)))
    together = numbers == list(range(numbers[0], numbers[-1] + 1))
    words = f"{numbers[0]}…{numbers[-1]}" if together else f"{{{len(numbers)} experts}}"
    return _EXPERT.sub(words, rows[0].name)
