"""Accuracy of child, father, mother and blend on each benchmark, with 95 % Wilson whiskers and the line of chance.

Takes one (value, low, high) a model and benchmark; gives a `Chart`. Father bars are hatched one way, mother bars the
other, so the four can be told apart without colour.
"""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from darwin_lab.ui.figures.style import COLOUR, NAME, Cell, Chart, frame, nothing

GREY_WHISKER = "#7B838D"
PATTERN = {"father": "\\", "mother": "/", "blend": ".", "child": ""}


def score_bars(
    scores: Mapping[str, Mapping[str, tuple[float, float, float]]],
    *,
    n: int,
    chance: Mapping[str, float] | None = None,
    split: str = "report",
) -> Chart:
    """scores: who -> benchmark -> (accuracy, low, high); chance: benchmark -> accuracy of guessing."""
    if not scores:
        return nothing("Nothing scored on these items yet.")
    figure = frame(y="accuracy", legend=True)
    rows: list[tuple[Cell, ...]] = []
    tasks: list[str] = []
    for who, by_task in scores.items():
        tasks = list(by_task)
        figure.add_trace(
            go.Bar(
                x=tasks,
                y=[value for value, _, _ in by_task.values()],
                name=NAME.get(who, who),
                marker={
                    "color": COLOUR.get(who, "#7D8590"),
                    "pattern": {"shape": PATTERN.get(who, ""), "size": 7, "solidity": 0.14, "fillmode": "overlay"},
                },
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [high - value for value, _, high in by_task.values()],
                    "arrayminus": [value - low for value, low, _ in by_task.values()],
                    "thickness": 1.3,
                    "width": 3,
                    "color": GREY_WHISKER,
                },
                hovertemplate="%{x} · " + NAME.get(who, who) + " %{y:.3f}<extra></extra>",
            )
        )
        rows += [(task, NAME.get(who, who), *numbers) for task, numbers in by_task.items()]
    if chance:
        figure.add_trace(
            go.Scatter(
                x=tasks,
                y=[chance.get(task) for task in tasks],
                mode="markers",
                name="chance",
                marker={"symbol": "line-ew", "size": 40, "line": {"width": 1.5, "color": GREY_WHISKER}},
                hovertemplate="%{x} · chance %{y:.3f}<extra></extra>",
            )
        )
    figure.update_layout(barmode="group", bargroupgap=0.06, bargap=0.3)
    figure.update_yaxes(range=[0, 1.02])
    figure.update_xaxes(showgrid=False, type="category")
    note = f"{split} items, n = {n} · whiskers: 95 % Wilson"
    columns = ("benchmark", "model", "accuracy", "low 95 %", "high 95 %")
    return Chart(figure, note, columns, tuple(rows), f"Accuracy per benchmark, {note}.")
