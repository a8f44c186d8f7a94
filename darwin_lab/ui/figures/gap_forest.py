"""The child minus each parent, one row a probe or benchmark, with 95 % intervals of the paired difference.

Takes differences and the words of their unit; gives a `Chart`. Circles stand for the difference to the father, squares
for that to the mother.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from darwin_lab.ui.figures.style import COLOUR, Cell, Chart, forest_rows, frame, nothing

Gap = tuple[float, float, float]
"""(child minus parent, low, high); low and high are NaN where they are not known."""


@dataclass(frozen=True)
class Gaps:
    """One row: the child minus father and mother over n shared texts or items."""

    name: str
    n: int
    father: Gap
    mother: Gap


def nll_gaps(rows: Sequence[Gaps], empty: str = "") -> Chart:
    """Health: nats a token by probe; left of zero the child reads better."""
    columns = ("probe", "texts", "against", "child minus parent", "low 95 %", "high 95 %")
    return _forest(
        rows,
        x="child minus parent, nats a token (left: the child reads better)",
        digits=3,
        unit="",
        scale=1,
        columns=columns,
        note="paired over texts · whiskers: 95 % bootstrap",
        alt=f"NLL of the child minus each parent on {len(rows)} probes.",
        empty=empty,
    )


def vigour_forest(rows: Sequence[Gaps], *, split: str) -> Chart:
    """Benchmarks: points of accuracy; right of zero the child is ahead."""
    note = f"{split} items, paired item by item · whiskers: 95 %"
    return _forest(
        rows,
        x="child minus parent, points of accuracy",
        digits=1,
        unit=" points",
        scale=100,
        columns=("benchmark", "n", "against", "difference", "low 95 %", "high 95 %"),
        note=note,
        alt=f"Child minus each parent on {len(rows)} benchmarks, {note}.",
        empty="Score the child and both parents on the same benchmark: tick them in Scores and press “Run”.",
        height=118 + 42 * len(rows),
    )


def _forest(
    rows: Sequence[Gaps],
    *,
    x: str,
    digits: int,
    unit: str,
    scale: float,
    columns: tuple[str, ...],
    note: str,
    alt: str,
    empty: str,
    height: int | None = None,
) -> Chart:
    if not rows:
        return nothing(empty)
    figure = frame(x=x, legend=True, left=12)
    for who, shift, symbol in (("father", -0.15, "circle"), ("mother", 0.15, "square")):
        gaps = [[scale * value for value in getattr(row, who)] for row in rows]
        numbers = [f"%{{{place}:+.{digits}f}}" for place in ("x", "customdata[2]", "customdata[3]")]
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
                customdata=[[row.name, row.n, gap[1], gap[2]] for row, gap in zip(rows, gaps, strict=True)],
                hovertemplate=f"<b>%{{customdata[0]}}</b> child minus {who} {numbers[0]} "
                f"[{numbers[1]}, {numbers[2]}]{unit}, n %{{customdata[1]}}<extra></extra>",
            )
        )
    forest_rows(figure, [f"{row.name}  n = {row.n}" for row in rows])
    figure.update_xaxes(tickformat=f"+.{2 if scale == 1 else 0}f", nticks=7)
    table: list[tuple[Cell, ...]] = [
        (row.name, row.n, who, *getattr(row, who)) for row in rows for who in ("father", "mother")
    ]
    return Chart(figure, note, columns, tuple(table), alt, height=height)


def _side(length: float) -> float:
    """The length of a whisker; none where it is not known."""
    return length if math.isfinite(length) else 0.0
