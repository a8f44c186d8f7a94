"""What all charts share: the colours of people, the frame around a figure, and the words for layers.

Takes nothing but numbers and names; gives plotly figures wrapped in a `Chart`. It must not know where the numbers
come from, and it computes no statistic: whatever a chart shows was measured below floor 7.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

FATHER, MOTHER, CHILD, BLEND, ANCESTOR = "#0072B2", "#D55E00", "#009E73", "#7D8590", "#8A6FB0"
ALERT = "#CC79A7"
GREY = "#8B949E"
VEIL = "rgba(128,134,142,0.62)"
COLOUR = {"father": FATHER, "mother": MOTHER, "child": CHILD, "blend": BLEND, "ancestor": ANCESTOR}
DASH = {"father": "dash", "mother": "dot", "child": "solid", "blend": "dashdot", "ancestor": "longdash"}
NAME = {"father": "Father", "mother": "Mother", "child": "Child", "blend": "0.5 blend", "ancestor": "Ancestor"}

Cell = str | int | float | bool | None


@dataclass(frozen=True, eq=False)
class Cells:
    """The table of a large map: one row for every name across (outer) and down (inner), its values packed as bytes.

    `labels` name the two first columns, `values` the others: column -> [across, down] numbers, or a mask whose true
    cells say the word of `words`. `multiples` are columns the browser works out: column -> (other column, factor).
    A heat map [down, across] whose `meta` is {"hover": columns} gets its customdata from here, so that nothing goes
    over the wire twice.
    """

    labels: tuple[str, str]
    across: tuple[str, ...]
    down: tuple[str | int, ...]
    values: Mapping[str, np.ndarray]
    words: Mapping[str, str] = field(default_factory=dict)
    multiples: Mapping[str, tuple[str, float]] = field(default_factory=dict)

    def wire(self) -> dict[str, Any]:
        """Plain data; arrays as {dtype, bdata} (base64, little-endian), a mask with its word."""
        packed = {name: _packed(values, self.words.get(name)) for name, values in self.values.items()}
        packed |= {name: {"of": other, "factor": factor} for name, (other, factor) in self.multiples.items()}
        return {"labels": self.labels, "across": self.across, "down": self.down, "values": packed}


@dataclass(frozen=True)
class Chart:
    """One drawing and everything that explains it: its table (the accessible twin), a note with n and unit, alt text.

    `figure` is None when there is nothing to draw; `empty` then says what to do next. `cells` takes the place of
    `columns` and `rows` in a large map. `height` in pixels replaces the card's own; a `hidden` chart leaves no room.
    """

    figure: go.Figure | None = None
    note: str = ""
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] = ()
    alt: str = ""
    empty: str = ""
    cells: Cells | None = None
    height: int | None = None
    hidden: bool = False

    def wire(self) -> str:
        """The JSON text the chart component reads. Non-finite numbers in the table become null."""
        rows = [[_finite(cell) for cell in row] for row in self.rows]
        words = json.dumps(
            {
                "note": self.note,
                "columns": self.columns,
                "rows": rows,
                "cells": self.cells.wire() if self.cells else None,
                "alt": self.alt,
                "empty": self.empty,
                "height": self.height,
                "hidden": self.hidden,
            }
        )
        figure = "null" if self.figure is None else self.figure.to_json(validate=False)
        return f'{words[:-1]}, "figure": {figure}}}'


def nothing(words: str) -> Chart:
    """An empty state: says what to do next."""
    return Chart(empty=words)


def frame(*, x: str = "", y: str = "", legend: bool = False, top: int = 12, left: int = 56) -> go.Figure:
    """An empty figure with the house's margins and axes; colours that follow light and dark come from the browser."""
    axis = {"zeroline": False, "ticks": ""}
    return go.Figure(
        layout={
            "template": "none",
            "margin": {"l": left, "r": 16, "t": top + (24 if legend else 0), "b": 44 if x else 26},
            "uirevision": "keep",
            "showlegend": legend,
            "legend": {
                "orientation": "h",
                "x": 0,
                "xanchor": "left",
                "y": 1.02,
                "yanchor": "bottom",
                "font": {"size": 12},
            },
            "font": {"size": 12},
            "hoverlabel": {"font": {"size": 12}, "align": "left"},
            "bargap": 0.28,
            "xaxis": {**axis, "title": {"text": x, "standoff": 8, "font": {"size": 12}}},
            "yaxis": {**axis, "title": {"text": y, "standoff": 8, "font": {"size": 12}}},
        }
    )


def forest_rows(figure: go.Figure, names: Sequence[str]) -> None:
    """The rows of a forest, the first on top, about a line at no difference."""
    figure.add_vline(x=0, line={"color": GREY, "width": 1.2})
    figure.update_yaxes(
        range=[len(names) - 0.5, -0.5],
        tickvals=list(range(len(names))),
        ticktext=list(names),
        showgrid=False,
        automargin=True,
    )


def layer_names(layers: Sequence[int] | int) -> list[str]:
    """`L0`, `L1`, ...: how a layer is written everywhere."""
    return [f"L{layer}" for layer in (range(layers) if isinstance(layers, int) else layers)]


def layer_ticks(layers: int) -> dict[str, Any]:
    """Axis settings for a layer axis in numbers: every layer up to 16, then every fifth (tenth above 80).

    The prefix also reaches hover labels, so templates write `%{x}`, not `L%{x}`.
    """
    step = 1 if layers <= 16 else 5 if layers <= 80 else 10
    return {"tick0": 0, "dtick": step, "tickprefix": "L", "range": [-0.5, layers - 0.5], "showgrid": False}


def colour_bar(title: str, **more: Any) -> dict[str, Any]:
    """A slim colour bar with its unit as a title."""
    return {
        "title": {"text": title, "side": "right", "font": {"size": 11}},
        "thickness": 10,
        "outlinewidth": 0,
        "tickfont": {"size": 11},
        "xpad": 8,
        **more,
    }


def colour_bar_below(title: str, **more: Any) -> dict[str, Any]:
    """The same under the chart, for maps that stand side by side: it costs height instead of width."""
    below = {"orientation": "h", "x": 0.5, "y": 0, "yanchor": "top", "ypad": 26, "len": 0.9}
    return {**colour_bar(title, **more), "title": {"text": title, "side": "bottom", "font": {"size": 11}}, **below}


def map_height(rows: int, each: int = 22, least: int = 190, most: int = 460) -> int:
    """Pixels of a map of so many rows, axis and colour bar included."""
    return max(least, min(most, rows * each + 86))


def gap(across: int) -> float:
    """Pixels between the cells of a map: none where the cells themselves are a few pixels."""
    return 1.5 if across <= 32 else 0.5


def spread_scale(name: str, *, centred: bool = False) -> list[tuple[float, str]]:
    """A colour scale whose colours follow the square root of the value, so that small values can be told apart.

    The values themselves stay as they are. `centred`: the square root is taken on both sides of the middle.
    """
    steps = np.linspace(0, 1, 21)
    colours = sample_colorscale(name, steps.tolist())
    places = 0.5 + 2 * (steps - 0.5) * np.abs(steps - 0.5) if centred else steps**2
    return [(round(float(place), 6), colour) for place, colour in zip(places, colours, strict=True)]


def plural(number: int, noun: str) -> str:
    """`1 layer`, `2 layers`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def share(value: float) -> str:
    """A share as a percentage with one digit."""
    return f"{100 * value:.1f} %"


def as_list(values: Any) -> list[Any]:
    """Plain numbers for JSON: NaN and infinities become None."""
    return [_finite(v) for v in np.asarray(values, dtype=object).tolist()]


def _packed(values: np.ndarray, word: str | None) -> dict[str, Any]:
    kind = "u1" if word is not None else "i2" if np.issubdtype(values.dtype, np.integer) else "f4"
    data = base64.b64encode(np.ascontiguousarray(values, dtype=f"<{kind}").tobytes()).decode()
    return {"dtype": kind, "bdata": data, **({"word": word} if word is not None else {})}


def _finite(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
