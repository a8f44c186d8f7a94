"""A run as a curve: best so far, mean and spread of each generation, step size below, the parents as level lines.

Takes rows of generations and candidates as the store keeps them and the controls' fitness; gives a `Chart`.
Candidates are points one can pick. Selection scores only: report scores never share this axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from darwin_lab.ui.figures.style import BLEND, CHILD, COLOUR, DASH, NAME, Cell, Chart, frame, nothing, plural


def evolution_curve(
    generations: Sequence[Mapping[str, Any]],
    candidates: Sequence[Mapping[str, Any]],
    controls: Mapping[str, float],
    *,
    items: int = 0,
    chosen: int | None = None,
) -> Chart:
    """generations: {generation, best, mean, worst, sigma}; candidates: {index, generation, fitness}.

    controls: who -> fitness; items: how many they met; chosen: index of the marked candidate.
    """
    scored = [row for row in candidates if row.get("fitness") is not None]
    if not scored and not controls:
        return nothing("No candidate scored yet. Start an evolution: the curve grows as each child is scored.")
    figure = frame(x="candidate, in the order scored", y="fitness · mean p(gold)", legend=True, left=64)
    best, best_at = _best_so_far(scored)
    spread = [row for row in generations if row.get("worst") is not None]
    ends = _last_index(scored)
    at = [ends.get(row["generation"], 0) for row in spread]
    if spread:
        figure.add_trace(
            go.Scatter(
                x=at + at[::-1],
                y=[row["best"] for row in spread] + [row["worst"] for row in reversed(spread)],
                fill="toself",
                mode="lines",
                fillcolor="rgba(0,158,115,0.12)",
                line={"width": 0},
                hoverinfo="skip",
                name="best – worst of a generation",
            )
        )
        figure.add_trace(
            go.Scatter(
                x=at,
                y=[row["mean"] for row in spread],
                mode="lines",
                name="mean of a generation",
                line={"color": CHILD, "width": 1.5, "dash": "dot"},
                hovertemplate="generation mean %{y:.4f}<extra></extra>",
            )
        )
    figure.add_trace(
        go.Scatter(
            x=[row["index"] for row in scored],
            y=[row["fitness"] for row in scored],
            mode="markers",
            name="candidate",
            customdata=[row["index"] for row in scored],
            marker={
                "size": [11 if row["index"] == chosen else 6 for row in scored],
                "color": CHILD,
                "opacity": 0.55,
                "line": {"width": [2 if row["index"] == chosen else 0 for row in scored], "color": "#E8A33D"},
            },
            hovertemplate="candidate %{x}<br>fitness %{y:.4f}<extra></extra>",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=best_at,
            y=best,
            mode="lines",
            name="best so far",
            line={"color": CHILD, "width": 2.5, "shape": "hv"},
            hovertemplate="best so far %{y:.4f}<extra></extra>",
        )
    )
    right = max([1, *(row["index"] for row in scored)])
    for who, value in controls.items():
        levels = _levels(who, spread)
        figure.add_trace(
            go.Scatter(
                x=[0, *at] if levels else [0, right],
                y=[levels[0], *levels] if levels else [value, value],
                mode="lines",
                name=NAME.get(who, who),
                line={"color": COLOUR.get(who, BLEND), "width": 1.8, "dash": DASH.get(who, "dash"), "shape": "vh"},
                hovertemplate=f"{NAME.get(who, who)} %{{y:.4f}}<extra></extra>",
            )
        )
    if spread:
        figure.add_trace(
            go.Scatter(
                x=at,
                y=[row["sigma"] for row in spread],
                mode="lines+markers",
                name="step size σ",
                yaxis="y2",
                line={"color": "#8A6FB0", "width": 1.5},
                marker={"size": 4},
                hovertemplate="σ %{y:.4f}<extra></extra>",
            )
        )
    figure.update_layout(
        yaxis={"domain": [0.24, 1] if spread else [0, 1]},
        yaxis2={
            "domain": [0, 0.16],
            "title": {"text": "σ", "font": {"size": 12}},
            "rangemode": "tozero",
            "zeroline": False,
            "nticks": 3,
        },
    )
    figure.update_xaxes(showgrid=False, rangemode="tozero", anchor="y2" if spread else "y")
    rows: list[tuple[Cell, ...]] = [
        (row["generation"], row["best"], row["mean"], row.get("worst"), row.get("sigma")) for row in generations
    ]
    lead = f"best {best[-1]:.4f}, candidate {best_at[best.index(best[-1])]}" if best else "no candidate yet"
    each = max((row.get("items") or items for row in scored), default=items)
    same = all(_levels(who, generations) for who in controls)
    lines = "the level lines on the same" if same else f"{items:,} for the level lines"
    met = f"n = {items:,} items" if each == items else f"n = {each:,} items a candidate, {lines}"
    note = f"{plural(len(scored), 'candidate')} · {plural(len(generations), 'generation')} · {lead}"
    note += f" · {met}" if items else ""
    columns = ("generation", "best", "mean", "worst", "sigma")
    return Chart(figure, note, columns, tuple(rows), f"Evolution curve: {note}.")


def _levels(who: str, generations: Sequence[Mapping[str, Any]]) -> list[float]:
    """What a control has on the items of each generation; empty where that is not known."""
    levels = [row.get(who) for row in generations]
    return [level for level in levels if level is not None] if None not in levels else []


def _best_so_far(scored: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[int]]:
    values: list[float] = []
    at: list[int] = []
    for row in sorted(scored, key=lambda r: r["index"]):
        values.append(max(row["fitness"], values[-1] if values else row["fitness"]))
        at.append(row["index"])
    return values, at


def _last_index(scored: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    ends: dict[int, int] = {}
    for row in scored:
        generation = row.get("generation", 0)
        ends[generation] = max(row["index"], ends.get(generation, 0))
    return ends
