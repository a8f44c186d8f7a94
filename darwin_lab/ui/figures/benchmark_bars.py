"""Accuracy of the children on each benchmark as bars, the parents as lines across them, all with 95 % whiskers.

Takes one series a model (what it is called, who it is, its numbers by benchmark); gives a `Chart`. The father's
whisker stands at the left end of his line, the mother's at the right end of hers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from darwin_lab.ui.figures.style import COLOUR, DASH, Cell, Chart, frame, nothing

WHISKER = "#7B838D"
PATTERNS = ("", "x", "+", "/", "-", ".")
HALF = 0.42


@dataclass(frozen=True)
class Mark:
    """One accuracy in [0, 1] with its interval, on n items."""

    acc: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Series:
    """One model; role: father, mother, blend or child."""

    label: str
    role: str
    marks: Mapping[str, Mark]


def benchmark_bars(series: Sequence[Series], chance: Mapping[str, float | None], *, split: str) -> Chart:
    """`chance`: benchmark -> accuracy of guessing, None if unknown; its order is the order across, and it names all."""
    series = [one for one in series if one.marks]
    if not series:
        return nothing("No score on these items yet. Choose models and benchmarks and press “Run”.")
    names = [name for name in chance if any(name in one.marks for one in series)]
    place = {name: at for at, name in enumerate(names)}
    figure = frame(y="accuracy", legend=True)
    bars = [one for one in series if one.role not in ("father", "mother")]
    width = 2 * (HALF - 0.06) / max(1, len(bars))
    children = 0
    for index, one in enumerate(bars):
        shift = (index - (len(bars) - 1) / 2) * width
        pattern = "." if one.role == "blend" else PATTERNS[children % len(PATTERNS)]
        children += one.role != "blend"
        figure.add_trace(_bar(one, place, shift, width * 0.9, pattern))
    for one in series:
        if one.role in ("father", "mother"):
            figure.add_traces(_line(one, place))
    figure.add_trace(_chance(names, chance))
    figure.update_layout(barmode="overlay")
    figure.update_yaxes(range=[0, 1.04], tickformat=".0%", dtick=0.2)
    ticks = [name if len(name) <= 18 else name[:17] + "…" for name in names]
    figure.update_xaxes(
        showgrid=False, tickvals=list(range(len(names))), ticktext=ticks, range=[-0.6, len(names) - 0.4]
    )
    note = f"{split} items · whiskers: 95 % Wilson of each model alone"
    rows = tuple(_rows(series, names, chance))
    columns = ("benchmark", "model", "accuracy", "low 95 %", "high 95 %", "n", "chance")
    return Chart(figure, note, columns, rows, f"Accuracy of {len(series)} models on {len(names)} benchmarks, {note}.")


def _rows(series: Sequence[Series], names: Sequence[str], chance: Mapping[str, float | None]) -> list[tuple[Cell, ...]]:
    return [
        (name, one.label, mark.acc, mark.low, mark.high, mark.n, chance[name])
        for name in names
        for one in series
        if (mark := one.marks.get(name)) is not None
    ]


def _whiskers(marks: Sequence[Mark], **more: Any) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [mark.high - mark.acc for mark in marks],
        "arrayminus": [mark.acc - mark.low for mark in marks],
        "thickness": 1.3,
        "width": 3,
        **more,
    }


def _bar(one: Series, place: Mapping[str, int], shift: float, width: float, pattern: str) -> go.Bar:
    known = [name for name in place if name in one.marks]
    marks = [one.marks[name] for name in known]
    return go.Bar(
        x=[place[name] + shift for name in known],
        y=[mark.acc for mark in marks],
        width=width,
        name=one.label,
        marker={
            "color": COLOUR.get(one.role, COLOUR["child"]),
            "pattern": {"shape": pattern, "size": 7, "solidity": 0.16, "fillmode": "overlay"},
        },
        error_y=_whiskers(marks, color=WHISKER),
        customdata=[[name, mark.low, mark.high, mark.n] for name, mark in zip(known, marks, strict=True)],
        hovertemplate=_hover(one.label),
    )


def _line(one: Series, place: Mapping[str, int]) -> list[go.Scatter]:
    """A line across each benchmark, and the whisker at its end."""
    known = [name for name in place if name in one.marks]
    marks = [one.marks[name] for name in known]
    x = [at for name in known for at in (place[name] - HALF, place[name] + HALF, None)]
    y = [at for mark in marks for at in (mark.acc, mark.acc, None)]
    end = -HALF if one.role == "father" else HALF
    colour = COLOUR[one.role]
    line = go.Scatter(
        x=x,
        y=y,
        mode="lines",
        name=one.label,
        line={"color": colour, "dash": DASH[one.role], "width": 2.4},
        legendgroup=one.role,
        hoverinfo="skip",
    )
    ends = go.Scatter(
        x=[place[name] + end for name in known],
        y=[mark.acc for mark in marks],
        mode="markers",
        name=f"{one.label}, interval",
        marker={"color": colour, "size": 7, "symbol": "circle" if one.role == "father" else "square"},
        error_y=_whiskers(marks, color=colour),
        legendgroup=one.role,
        showlegend=False,
        customdata=[[name, mark.low, mark.high, mark.n] for name, mark in zip(known, marks, strict=True)],
        hovertemplate=_hover(one.label),
    )
    return [line, ends]


def _chance(names: Sequence[str], chance: Mapping[str, float | None]) -> go.Scatter:
    x = [at for index in range(len(names)) for at in (index - HALF, index + HALF, None)]
    y = [at for name in names for at in (chance[name], chance[name], None)]
    return go.Scatter(
        x=x, y=y, mode="lines", name="chance", line={"color": WHISKER, "width": 1, "dash": "1px,3px"}, hoverinfo="skip"
    )


def _hover(label: str) -> str:
    escaped = label.replace("%{", "% {").replace("<", "&lt;")
    return (
        f"%{{customdata[0]}} · {escaped}<br>%{{y:.1%}} [%{{customdata[1]:.1%}}, %{{customdata[2]:.1%}}]"
        " · n = %{customdata[3]}<extra></extra>"
    )
