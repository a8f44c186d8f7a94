"""How much worse or better the child reads each probe than either parent: NLL differences with paired intervals.

Takes one row a probe; gives a `Chart`. Circles stand for the father, squares for the mother; left of zero the child
reads better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from darwin_lab.ui.figures.style import COLOUR, GREY, Cell, Chart, frame, nothing

Gap = tuple[float, float, float]
"""(child minus parent, low, high) in nats a token; low and high are NaN for a single text."""


@dataclass(frozen=True)
class ProbeGap:
    """One probe: the child minus father and mother over its texts."""

    probe: str
    texts: int
    father: Gap
    mother: Gap


def nll_gaps(rows: Sequence[ProbeGap], empty: str = "") -> Chart:
    """One line a probe and parent."""
    if not rows:
        return nothing(empty)
    figure = frame(x="child minus parent, nats a token (left: the child reads better)", legend=True, left=12)
    for who, shift, symbol in (("father", -0.15, "circle"), ("mother", 0.15, "square")):
        gaps = [getattr(row, who) for row in rows]
        figure.add_trace(
            go.Scatter(
                x=[gap[0] for gap in gaps],
                y=[index + shift for index in range(len(rows))],
                mode="markers",
                name=f"against the {who}",
                marker={"color": COLOUR[who], "symbol": symbol, "size": 9},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [_side(gap[2] - gap[0]) for gap in gaps],
                    "arrayminus": [_side(gap[0] - gap[1]) for gap in gaps],
                    "color": COLOUR[who],
                    "thickness": 1.6,
                    "width": 4,
                },
                customdata=[[row.probe, row.texts, gap[1], gap[2]] for row, gap in zip(rows, gaps, strict=True)],
                hovertemplate="<b>%{customdata[0]}</b> child minus "
                + who
                + " %{x:+.3f} [%{customdata[2]:+.3f}, %{customdata[3]:+.3f}], n %{customdata[1]} texts<extra></extra>",
            )
        )
    figure.add_vline(x=0, line={"color": GREY, "width": 1.2})
    figure.update_yaxes(
        range=[len(rows) - 0.5, -0.5],
        tickvals=list(range(len(rows))),
        ticktext=[f"{row.probe}  n = {row.texts}" for row in rows],
        showgrid=False,
        automargin=True,
    )
    figure.update_xaxes(tickformat="+.2f", nticks=7)
    table: list[tuple[Cell, ...]] = [
        (row.probe, row.texts, who, *getattr(row, who)) for row in rows for who in ("father", "mother")
    ]
    columns = ("probe", "texts", "against", "child minus parent", "low 95 %", "high 95 %")
    note = "paired over texts · whiskers: 95 % bootstrap"
    return Chart(figure, note, columns, tuple(table), f"NLL of the child minus each parent on {len(rows)} probes.")


def _side(length: float) -> float:
    """The length of a whisker; none where it is not known."""
    return length if math.isfinite(length) else 0.0
