"""What is inside one layer: its importance for each probe in both parents, and how its experts share the tokens.

Takes numbers of one layer; gives `Chart`s. Whiskers are 95 % bootstrap intervals over probe texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from darwin_lab.ui.figures.style import COLOUR, GREY, NAME, Cell, Chart, frame, nothing

SYMBOL = {"father": "circle", "mother": "square", "child": "diamond"}


def layer_probes(values: Mapping[str, Mapping[str, tuple[float, float, float]]], *, layer: int, unit: str) -> Chart:
    """values: who -> probe -> (value, low, high)."""
    drawn = {who: by_probe for who, by_probe in values.items() if by_probe}
    if not drawn:
        return nothing("Not scanned yet. Importance appears here as soon as the first probe is measured.")
    figure = frame(x=unit, legend=True, left=104)
    rows: list[tuple[Cell, ...]] = []
    for who, by_probe in drawn.items():
        middle = [value for value, _, _ in by_probe.values()]
        figure.add_trace(
            go.Scatter(
                x=middle,
                y=list(by_probe),
                mode="markers",
                name=NAME[who],
                marker={"size": 10, "color": COLOUR[who], "symbol": SYMBOL[who]},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [high - value for value, _, high in by_probe.values()],
                    "arrayminus": [value - low for value, low, _ in by_probe.values()],
                    "thickness": 1.6,
                    "width": 4,
                },
                hovertemplate="%{y} · " + NAME[who] + " %{x:.4f}<extra></extra>",
            )
        )
        rows += [(NAME[who], probe, value, low, high) for probe, (value, low, high) in by_probe.items()]
    figure.update_yaxes(autorange="reversed", type="category")
    figure.update_xaxes(rangemode="tozero")
    columns = ("model", "probe", unit, "low 95 %", "high 95 %")
    return Chart(
        figure,
        f"L{layer} · whiskers: 95 % interval over texts",
        columns,
        tuple(rows),
        f"Importance of layer {layer} per probe.",
    )


def layer_experts(loads: Mapping[str, Sequence[float]], dead: Mapping[str, Sequence[bool]], *, layer: int) -> Chart:
    """loads: who -> [E] shares summing to 1; dead: who -> [E]."""
    if not loads:
        return nothing(f"L{layer} has no routed experts.")
    figure = frame(x="expert", y="share of tokens", legend=True)
    rows: list[tuple[Cell, ...]] = []
    experts = 0
    for who, load in loads.items():
        experts = len(load)
        gone = list(dead.get(who, [False] * experts))
        figure.add_trace(
            go.Bar(
                x=list(range(experts)),
                y=list(load),
                name=NAME[who],
                marker={
                    "color": COLOUR[who],
                    "pattern": {
                        "shape": "" if who == "father" else "/",
                        "size": 6,
                        "solidity": 0.2,
                        "fillmode": "overlay",
                    },
                },
                hovertemplate="expert %{x} · " + NAME[who] + " %{y:.2%}<extra></extra>",
            )
        )
        at = [e for e in range(experts) if gone[e]]
        figure.add_trace(
            go.Scatter(
                x=[e + (-0.2 if who == "father" else 0.2) for e in at],
                y=[0] * len(at),
                mode="markers",
                name=f"dead in the {who}",
                showlegend=False,
                marker={"symbol": "x-thin", "size": 9, "line": {"color": COLOUR[who], "width": 2}},
                hovertemplate="dead on these probes<extra></extra>",
            )
        )
        rows += [(NAME[who], e, float(load[e]), "dead" if gone[e] else "") for e in range(experts)]
    figure.add_hline(y=1 / experts, line={"color": GREY, "width": 1, "dash": "dot"})
    figure.update_layout(barmode="group", bargroupgap=0.06)
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    figure.update_xaxes(showgrid=False, dtick=1 if experts <= 32 else None)
    count = {who: int(np.sum(list(flags))) for who, flags in dead.items()}
    note = f"L{layer} · dotted line: uniform 1/{experts}" + "".join(f" · {who} {n} dead" for who, n in count.items())
    return Chart(
        figure, note, ("model", "expert", "share of tokens", ""), tuple(rows), f"Expert load in layer {layer}."
    )
