"""Importance of every layer for every probe, as a heat map: layers across, probes down.

Takes one importance profile a probe; gives a `Chart`. Probes not measured yet stay blank rows, so the map fills in
place while a scan runs. A cell below zero, a layer whose loss is a gain, has the colour of zero and a minus sign.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from darwin_lab.ui.figures.style import (
    Cell,
    Chart,
    colour_bar_below,
    frame,
    gap,
    layer_names,
    layer_ticks,
    map_height,
    nothing,
    plural,
    spread_scale,
)

MEASURES = {
    "skip": ("1 − cosine to the output with the layer left out", "cosine distance"),
    "loss": ("rise in loss when the layer is left out", "Δ NLL, nats / token"),
    "kl": ("change of the next-token distribution", "KL, nats / token"),
    "influence": ("1 − cosine between what enters and what leaves", "cosine distance"),
}
HALVES = {"attn": "attention", "ffn": "FFN"}


def probe_map(
    importance: Mapping[str, Sequence[float]],
    *,
    probes: Sequence[str],
    layers: int,
    measure: str,
    who: str,
    ends: tuple[float, float] | None = None,
    interval: Mapping[str, np.ndarray] | None = None,
    tokens: Mapping[str, int] | None = None,
    texts: Mapping[str, int] | None = None,
    kinds: Sequence[str] = (),
    half: str | None = None,
) -> Chart:
    """importance: probe -> [L]; interval: probe -> [L, 2]; `ends` fixes the colour range (same for both parents).

    `tokens` and `texts` are what each probe was measured on; `half` says that only that half of a layer was left out.
    """
    if not importance:
        return nothing(f"Nothing measured for the {who} yet. The scan fills this map probe by probe.")
    words, unit = MEASURES[measure]
    z = np.full((len(probes), layers), np.nan, dtype=np.float32)
    for row, probe in enumerate(probes):
        if probe in importance:
            z[row] = importance[probe]
    high = ends[1] if ends else float(np.nanmax(z))
    kinds = list(kinds) if len(kinds) == layers else [""] * layers
    told = [
        [_hover(probe, layer, kind, interval, tokens, texts) for layer, kind in enumerate(kinds)] for probe in probes
    ]
    figure = frame(left=100)
    figure.add_trace(
        go.Heatmap(
            z=z,
            x=list(range(layers)),
            y=list(probes),
            colorscale=spread_scale("Cividis"),
            zmin=0.0,
            zmax=high if high > 0 else 1.0,
            xgap=gap(layers),
            ygap=1.5,
            name=who,
            hoverongaps=False,
            customdata=told,
            hovertemplate="<b>%{x}</b> %{customdata[0]}<br>%{y}: %{z:.4f} "
            + unit
            + "<br>%{customdata[1]}<extra></extra>",
            colorbar=colour_bar_below(unit),
        )
    )
    under = np.argwhere(z < 0)
    if len(under):
        figure.add_trace(
            go.Scatter(
                x=under[:, 1].tolist(),
                y=[probes[row] for row in under[:, 0]],
                mode="text",
                text=["−"] * len(under),
                textfont={"size": 13, "color": "#FFFFFF"},
                hoverinfo="skip",
                showlegend=False,
                name="below zero",
            )
        )
    figure.update_layout(margin={"b": 70, "autoexpand": False})
    figure.update_xaxes(**layer_ticks(layers))
    figure.update_yaxes(autorange="reversed", title=None, showgrid=False)
    measured = [probe for probe in probes if probe in importance]
    counted = sum((tokens or {}).get(probe, 0) for probe in measured)
    below = ""
    if len(under):
        lowest = f"{float(np.nanmin(z)):.3g}".replace("-", "−")
        below = f" · {plural(len(under), 'cell')} below zero, marked − and coloured as zero (lowest {lowest})"
    if half:
        short = words.removesuffix(" when the layer is left out").removesuffix(" with the layer left out")
        words = f"{HALVES[half]} alone left out: {short}"
    note = f"{words} · {len(measured)} of {len(probes)} probes"
    note += (f" · {counted:,} tokens" if counted else "") + below
    blank = sum(not np.isfinite(value) for probe in measured for value in importance[probe])
    note += f" · {plural(blank, 'cell')} blank: these layers have no separate halves" if half and blank else ""
    rows: list[tuple[Cell, ...]] = []
    for probe in measured:
        for layer, value in enumerate(importance[probe]):
            bounds = interval[probe][layer] if interval and probe in interval else (None, None)
            rows.append((probe, layer_names([layer])[0], float(value), *map(_number, bounds)))
    top = np.unravel_index(int(np.nanargmax(z)), z.shape) if np.isfinite(z).any() else (0, 0)
    size = f"{len(measured)} probes by {layers} layers"
    alt = f"Heat map of {unit} for the {who}: {size}; highest {z[top]:.3f} at L{top[1]} on {probes[int(top[0])]}."
    columns = ("probe", "layer", unit, "low 95 %", "high 95 %")
    return Chart(figure, note, columns, tuple(rows), alt, height=map_height(len(probes)))


def _hover(
    probe: str,
    layer: int,
    kind: str,
    interval: Mapping[str, np.ndarray] | None,
    tokens: Mapping[str, int] | None,
    texts: Mapping[str, int] | None,
) -> tuple[str, str]:
    """What a cell says beside its value: the kind of its layer; interval and n."""
    said = []
    if interval and probe in interval and np.isfinite(interval[probe][layer]).all():
        low, high = interval[probe][layer]
        said.append(f"95 %: {low:.4f} to {high:.4f}")
    if texts and probe in texts:
        said.append(f"n = {plural(texts[probe], 'text')}")
    if tokens and probe in tokens:
        said.append(f"{tokens[probe]:,} tokens")
    return kind, " · ".join(said)


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)
