"""What all charts share: the colours of people, the frame around a figure, and the words for layers.

Takes nothing but numbers and names; gives plotly figures wrapped in a `Chart`. It must not know where the numbers
come from, and it computes no statistic: whatever a chart shows was measured below floor 7.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Chart:
    """One drawing and everything that explains it: its table (the accessible twin), a note with n and unit, alt text.

    `figure` is None when there is nothing to draw; `empty` then says what to do next.
    """

    figure: go.Figure | None = None
    note: str = ""
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] = ()
    alt: str = ""
    empty: str = ""

    def wire(self) -> str:
        """The JSON text the chart component reads. Non-finite numbers in the table become null."""
        rows = [[_finite(cell) for cell in row] for row in self.rows]
        words = json.dumps(
            {"note": self.note, "columns": self.columns, "rows": rows, "alt": self.alt, "empty": self.empty}
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


def _finite(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
