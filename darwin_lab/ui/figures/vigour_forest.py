"""The child minus each parent, benchmark by benchmark, with 95 % intervals of the paired difference.

Takes differences in accuracy; gives a `Chart`. Circles stand for the difference to the father, squares for that to
the mother; right of zero the child is ahead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from darwin_lab.ui.figures.style import COLOUR, GREY, Cell, Chart, frame, nothing

Gap = tuple[float, float, float]
"""(difference, low, high) in accuracy."""


@dataclass(frozen=True)
class Vigour:
    """One benchmark: the child minus father and mother on n shared items."""

    benchmark: str
    n: int
    father: Gap
    mother: Gap


def vigour_forest(rows: Sequence[Vigour], *, split: str) -> Chart:
    """One line a benchmark and parent."""
    if not rows:
        return nothing("Score the child and both parents on the same benchmark: tick them in Scores and press “Run”.")
    figure = frame(x="child minus parent, points of accuracy", legend=True, left=12)
    ticks = [f"{row.benchmark}  n = {row.n}" for row in rows]
    for who, shift, symbol in (("father", -0.14, "circle"), ("mother", 0.14, "square")):
        gaps = [[100 * value for value in getattr(row, who)] for row in rows]
        figure.add_trace(
            go.Scatter(
                x=[gap[0] for gap in gaps],
                y=[index + shift for index in range(len(rows))],
                mode="markers",
                name=f"against the {who}",
                marker={"color": COLOUR[who], "symbol": symbol, "size": 10},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [gap[2] - gap[0] for gap in gaps],
                    "arrayminus": [gap[0] - gap[1] for gap in gaps],
                    "color": COLOUR[who],
                    "thickness": 1.6,
                    "width": 4,
                },
                customdata=[[row.benchmark, gap[1], gap[2]] for row, gap in zip(rows, gaps, strict=True)],
                hovertemplate="%{customdata[0]} · child minus "
                + who
                + " %{x:+.1f} [%{customdata[1]:+.1f}, %{customdata[2]:+.1f}] points<extra></extra>",
            )
        )
    figure.add_vline(x=0, line={"color": GREY, "width": 1.2})
    figure.update_yaxes(
        range=[len(rows) - 0.5, -0.5],
        tickvals=list(range(len(rows))),
        ticktext=ticks,
        showgrid=False,
        automargin=True,
    )
    table: list[tuple[Cell, ...]] = [
        (row.benchmark, row.n, who, *getattr(row, who)) for row in rows for who in ("father", "mother")
    ]
    columns = ("benchmark", "n", "against", "difference", "low 95 %", "high 95 %")
    note = f"{split} items, paired item by item · whiskers: 95 %"
    alt = f"Child minus each parent on {len(rows)} benchmarks, {note}."
    return Chart(figure, note, columns, tuple(table), alt, height=118 + 42 * len(rows))
