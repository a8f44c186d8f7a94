"""The prescription minus each of its rivals: the mean over the probe draws with its interval, and every draw as a dot.

Takes differences in accuracy; gives a `Chart`. Right of zero the prescription is ahead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from darwin_lab.ui.figures.style import CHILD, GREY, Cell, Chart, forest_rows, frame, nothing


@dataclass(frozen=True)
class Rival:
    """One rival: the difference in accuracy, its 95 % interval, p after Holm, the verdict, and every draw's."""

    name: str
    difference: float
    low: float
    high: float
    p_holm: float
    verdict: str
    by_draw: tuple[float, ...]


def trial_forest(rows: Sequence[Rival], *, n: int, draws: int) -> Chart:
    """One line a rival."""
    if not rows:
        return nothing("No trial yet.")
    figure = frame(x="prescription minus rival, points of accuracy", legend=True, left=12)
    places = [place for place, row in enumerate(rows) for _ in row.by_draw]
    figure.add_trace(
        go.Scatter(
            x=[100 * value for row in rows for value in row.by_draw],
            y=[place + 0.22 for place in places],
            mode="markers",
            name="one probe draw",
            marker={"color": GREY, "size": 7, "opacity": 0.6, "symbol": "circle-open"},
            customdata=[rows[place].name for place in places],
            hovertemplate="one draw, against %{customdata}: %{x:+.2f} points<extra></extra>",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=[100 * row.difference for row in rows],
            y=list(range(len(rows))),
            mode="markers",
            name="mean of the draws, 95 %",
            marker={"color": CHILD, "size": 11, "symbol": "diamond"},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [100 * (row.high - row.difference) for row in rows],
                "arrayminus": [100 * (row.difference - row.low) for row in rows],
                "color": CHILD,
                "thickness": 1.8,
                "width": 5,
            },
            customdata=[[row.name, 100 * row.low, 100 * row.high, row.p_holm, row.verdict] for row in rows],
            hovertemplate="against %{customdata[0]}: %{x:+.2f} [%{customdata[1]:+.2f}, %{customdata[2]:+.2f}] points, "
            "p after Holm %{customdata[3]:.3g}: %{customdata[4]}<extra></extra>",
        )
    )
    forest_rows(figure, [f"minus {row.name}" for row in rows])
    table: list[tuple[Cell, ...]] = [
        (row.name, row.difference, row.low, row.high, row.p_holm, row.verdict, min(row.by_draw), max(row.by_draw))
        for row in rows
    ]
    columns = ("against", "difference", "low 95 %", "high 95 %", "p after Holm", "verdict", "least draw", "most draw")
    note = f"n = {n:,} report items, {draws} probe draws pooled per item · whiskers: 95 %"
    return Chart(figure, note, columns, tuple(table), f"Prescription minus {len(rows)} rivals, {note}.")
