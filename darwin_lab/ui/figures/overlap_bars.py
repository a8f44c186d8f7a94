"""What two parents know together: per benchmark the share of items only one, both or neither gets, and the blend.

Takes counts of items; gives a `Chart`. Along each bar the end of "both" is the father's accuracy and the end of "only
the mother" that of a child that loses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from darwin_lab.ui.figures.style import BLEND, FATHER, MOTHER, Cell, Chart, frame, nothing

BOTH, NEITHER = "#5B6472", "#C9CFD8"


@dataclass(frozen=True)
class Overlap:
    """Items of one benchmark by who gets them; `blend` the accuracy of the plain 0.5 blend, None while unscored."""

    benchmark: str
    only_father: int
    both: int
    only_mother: int
    neither: int
    blend: float | None = None

    @property
    def n(self) -> int:
        """Number of items."""
        return self.only_father + self.both + self.only_mother + self.neither


PARTS = (
    ("only the father", "only_father", FATHER, "\\"),
    ("both", "both", BOTH, ""),
    ("only the mother", "only_mother", MOTHER, "/"),
    ("neither", "neither", NEITHER, "."),
)


def overlap_bars(overlaps: Sequence[Overlap], *, split: str) -> Chart:
    """One stacked bar a benchmark."""
    if not overlaps:
        return nothing("Score father and mother on the same benchmark first: tick both in Scores and press “Run”.")
    figure = frame(x="share of items", legend=True, left=12)
    names = [one.benchmark for one in overlaps]
    for label, field, colour, pattern in PARTS:
        counts = [getattr(one, field) for one in overlaps]
        figure.add_trace(
            go.Bar(
                y=names,
                x=[count / one.n for count, one in zip(counts, overlaps, strict=True)],
                orientation="h",
                name=label,
                marker={
                    "color": colour,
                    "pattern": {"shape": pattern, "size": 7, "solidity": 0.12, "fillmode": "overlay"},
                },
                text=[str(count) if count / one.n > 0.04 else "" for count, one in zip(counts, overlaps, strict=True)],
                textposition="inside",
                insidetextanchor="middle",
                textangle=0,
                insidetextfont={"color": "#171D28" if field == "neither" else "#FFFFFF", "size": 12},
                customdata=[[count, one.n] for count, one in zip(counts, overlaps, strict=True)],
                hovertemplate="%{y} · " + label + " %{customdata[0]} of %{customdata[1]} (%{x:.1%})<extra></extra>",
            )
        )
    blended = [one for one in overlaps if one.blend is not None]
    if blended:
        figure.add_trace(
            go.Scatter(
                x=[one.blend for one in blended],
                y=[one.benchmark for one in blended],
                mode="markers",
                name="0.5 blend's accuracy",
                cliponaxis=False,
                marker={"symbol": "diamond", "size": 12, "color": BLEND, "line": {"color": "#FFFFFF", "width": 1.6}},
                hovertemplate="%{y} · 0.5 blend %{x:.1%}<extra></extra>",
            )
        )
    figure.update_layout(barmode="stack", bargap=0.34, legend={"traceorder": "normal"})
    figure.update_xaxes(range=[0, 1.001], tickformat=".0%", dtick=0.2)
    figure.update_layout(margin={"r": 28})
    figure.update_yaxes(autorange="reversed", showgrid=False, automargin=True, type="category")
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (one.benchmark, one.n, one.only_father, one.both, one.only_mother, one.neither, one.blend) for one in overlaps
    )
    columns = ("benchmark", "items", "only the father", "both", "only the mother", "neither", "blend's accuracy")
    note = f"{split} items, counts inside the bars"
    alt = f"Who gets which items on {len(overlaps)} benchmarks, {note}."
    return Chart(figure, note, columns, rows, alt, height=118 + 42 * len(overlaps))
