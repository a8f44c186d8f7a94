"""What is inside one layer: its importance for each probe in both parents, and how its experts share the tokens.

Takes numbers of one layer; gives `Chart`s. Whiskers are 95 % bootstrap intervals over probe texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from darwin_lab.ui.figures.style import COLOUR, GREY, NAME, Cell, Chart, frame, map_height, nothing, plural

MOST_BARS = 64
SYMBOL = {"father": "circle", "mother": "square", "child": "diamond"}


def layer_probes(
    values: Mapping[str, Mapping[str, tuple[float, float, float]]],
    *,
    layer: int,
    unit: str,
    texts: Mapping[str, int] | None = None,
) -> Chart:
    """values: who -> probe -> (value, low, high); texts: probe -> n."""
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
                customdata=[
                    f"95 %: {low:.4f} to {high:.4f}"
                    + (f" · n = {plural(texts[probe], 'text')}" if texts and probe in texts else "")
                    for probe, (_, low, high) in by_probe.items()
                ],
                hovertemplate="%{y} · " + NAME[who] + " %{x:.4f}<br>%{customdata}<extra></extra>",
            )
        )
        rows += [
            (NAME[who], probe, value, low, high, (texts or {}).get(probe))
            for probe, (value, low, high) in by_probe.items()
        ]
    figure.update_yaxes(autorange="reversed", type="category")
    figure.update_xaxes(rangemode="tozero")
    columns = ("model", "probe", unit, "low 95 %", "high 95 %", "texts")
    return Chart(
        figure,
        f"L{layer} · whiskers: 95 % interval over texts",
        columns,
        tuple(rows),
        f"Importance of layer {layer} per probe.",
        height=map_height(len(next(iter(drawn.values()))), 26, 220, 460),
    )


def layer_experts(
    loads: Mapping[str, Sequence[float]],
    dead: Mapping[str, Sequence[bool]],
    *,
    layer: int,
    saliency: Mapping[str, Sequence[float]] | None = None,
) -> Chart:
    """loads: who -> [E] shares summing to 1; dead: who -> [E]; saliency: who -> [E], for the hover and the table."""
    if not loads:
        return nothing(f"L{layer} has no routed experts.")
    figure = frame(x="expert", y="share of tokens", legend=True)
    rows: list[tuple[Cell, ...]] = []
    experts = max(len(load) for load in loads.values())
    added = {who: list(values) for who, values in (saliency or {}).items()}
    for who, load in loads.items():
        gone = list(dead.get(who, [False] * len(load)))
        extra = added.get(who, [float("nan")] * len(load))
        figure.add_trace(_use_of(who, load, gone, extra, bars=len(load) <= MOST_BARS))
        at = [e for e in range(len(load)) if gone[e]]
        aside = (-0.2 if who == "father" else 0.2) if experts <= MOST_BARS else 0
        figure.add_trace(
            go.Scatter(
                x=[e + aside for e in at],
                y=[0] * len(at),
                mode="markers",
                name=f"dead in the {who}",
                showlegend=False,
                marker={"symbol": "x-thin", "size": 9, "line": {"color": COLOUR[who], "width": 2}},
                hovertemplate="dead on these probes<extra></extra>",
            )
        )
        rows += [(NAME[who], e, float(load[e]), float(extra[e]), "dead" if gone[e] else "") for e in range(len(load))]
    figure.add_hline(y=1 / experts, line={"color": GREY, "width": 1, "dash": "dot"})
    figure.update_layout(barmode="group", bargroupgap=0.06)
    figure.update_yaxes(tickformat=".0%" if experts <= 32 else ".1%", rangemode="tozero")
    figure.update_xaxes(showgrid=False, dtick=1 if experts <= 32 else None)
    count = {who: int(np.sum(list(flags))) for who, flags in dead.items()}
    note = f"L{layer} · dotted line: uniform 1/{experts}" + "".join(f" · {who} {n} dead" for who, n in count.items())
    columns = ("model", "expert", "share of tokens", "saliency", "")
    return Chart(figure, note, columns, tuple(rows), f"Expert load in layer {layer}.")


def _use_of(
    who: str, load: Sequence[float], gone: Sequence[bool], extra: Sequence[float], *, bars: bool
) -> go.Bar | go.Scatter:
    """Load of one parent: bars, or points where hundreds of bars would be hairlines."""
    told = [
        f"{'dead · ' if lost else ''}" + (f"saliency {value:.4g}" if np.isfinite(value) else "")
        for lost, value in zip(gone, extra, strict=True)
    ]
    common = {
        "x": list(range(len(load))),
        "y": list(load),
        "name": NAME[who],
        "customdata": told,
        "hovertemplate": "expert %{x} · " + NAME[who] + " %{y:.3%}<br>%{customdata}<extra></extra>",
    }
    if not bars:
        return go.Scatter(**common, mode="markers", marker={"color": COLOUR[who], "symbol": SYMBOL[who], "size": 5})
    hatch = {"shape": "" if who == "father" else "/", "size": 6, "solidity": 0.2, "fillmode": "overlay"}
    return go.Bar(**common, marker={"color": COLOUR[who], "pattern": hatch})
