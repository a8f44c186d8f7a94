"""The child's layers beside its parents': green bars, the father a dashed blue line, the mother a dotted vermilion one.

Takes importance per layer of the three and the flags of the health check; gives a `Chart`. A flagged layer is
hatched and carries a triangle with its name and reason, so that nothing depends on colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from darwin_lab.ui.figures.style import CHILD, COLOUR, DASH, GREY, NAME, Cell, Chart, frame, layer_names, layer_ticks


def health_bars(
    child: Sequence[float],
    father: Sequence[float],
    mother: Sequence[float],
    *,
    probe: str,
    flags: Mapping[int, str] | None = None,
    unit: str = "cosine distance when skipped",
) -> Chart:
    """child, father, mother: [L]; flags: layer -> short reason ("interference", "function loss")."""
    flagged = dict(flags or {})
    layers = len(child)
    figure = frame(y=unit, legend=True, left=64)
    figure.add_trace(
        go.Bar(
            x=list(range(layers)),
            y=list(child),
            name="Child",
            marker={
                "color": CHILD,
                "opacity": 0.9,
                "pattern": {
                    "shape": ["x" if layer in flagged else "" for layer in range(layers)],
                    "size": 6,
                    "solidity": 0.35,
                },
            },
            hovertemplate="<b>%{x}</b> child %{y:.4f}<extra></extra>",
        )
    )
    for who, values in (("father", father), ("mother", mother)):
        figure.add_trace(
            go.Scatter(
                x=list(range(layers)),
                y=list(values),
                mode="lines+markers",
                name=NAME[who],
                line={"color": COLOUR[who], "width": 2.2, "dash": DASH[who]},
                marker={"size": 6, "symbol": "circle" if who == "father" else "square"},
                hovertemplate="<b>%{x}</b> " + who + " %{y:.4f}<extra></extra>",
            )
        )
    ceiling = max([*child, *father, *mother, 1e-9])
    if flagged:
        figure.add_trace(
            go.Scatter(
                x=list(flagged),
                y=[max(child[at], father[at], mother[at]) + 0.06 * ceiling for at in flagged],
                mode="markers+text",
                name="flagged",
                marker={"symbol": "triangle-up", "size": 12, "color": GREY},
                text=[_label(layer, why, len(flagged)) for layer, why in flagged.items()],
                textposition="top center",
                textfont={"size": 12},
                cliponaxis=False,
                customdata=list(flagged.values()),
                hovertemplate="<b>%{x}</b> %{customdata}<extra></extra>",
            )
        )
    figure.update_xaxes(**layer_ticks(layers))
    figure.update_yaxes(range=[min(0.0, *child, *father, *mother), ceiling * (1.28 if flagged else 1.18)])
    rows: list[tuple[Cell, ...]] = [
        (name, float(child[i]), float(father[i]), float(mother[i]), flagged.get(i, ""))
        for i, name in enumerate(layer_names(layers))
    ]
    named = ", ".join(f"L{layer} {why}" for layer, why in flagged.items()) or "no layer flagged"
    note = f"{probe} · {named}"
    return Chart(
        figure,
        note,
        ("layer", "child", "father", "mother", "flag"),
        tuple(rows),
        f"Child beside its parents on {note}.",
    )


SPELLED = 3
"""Up to this many flagged layers the reason is spelled out over the bar; more are named, the reason is in the hover."""


def _label(layer: int, why: str, count: int) -> str:
    why = why.replace(" (", "<br>(")
    return f"L{layer}<br>{why}" if count <= SPELLED else f"L{layer}" if count <= 4 * SPELLED else ""
