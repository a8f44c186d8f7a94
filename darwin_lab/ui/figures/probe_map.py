"""Importance of every layer for every probe, as a heat map: layers across, probes down.

Takes one importance profile a probe; gives a `Chart`. Probes not measured yet stay blank rows, so the map fills in
place while a scan runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from darwin_lab.ui.figures.style import Cell, Chart, colour_bar, frame, layer_names, layer_ticks, nothing, spread_scale

MEASURES = {
    "skip": ("1 − cosine to the output with the layer left out", "cosine distance"),
    "loss": ("rise in loss when the layer is left out", "Δ NLL, nats / token"),
    "kl": ("change of the next-token distribution", "KL, nats / token"),
    "influence": ("1 − cosine between what enters and what leaves", "cosine distance"),
}


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
    kinds: Sequence[str] = (),
) -> Chart:
    """importance: probe -> [L]; interval: probe -> [L, 2]; `ends` fixes the colour range (same for both parents)."""
    if not importance:
        return nothing(f"Nothing measured for the {who} yet. The scan fills this map probe by probe.")
    words, unit = MEASURES[measure]
    z = np.full((len(probes), layers), np.nan, dtype=np.float32)
    for row, probe in enumerate(probes):
        if probe in importance:
            z[row] = importance[probe]
    low, high = ends or (float(np.nanmin(z)), float(np.nanmax(z)))
    kinds = list(kinds) if len(kinds) == layers else [""] * layers
    figure = frame(left=104)
    figure.add_trace(
        go.Heatmap(
            z=z,
            x=list(range(layers)),
            y=list(probes),
            colorscale=spread_scale("Cividis"),
            zmin=0.0,
            zmax=high if high > 0 else 1.0,
            xgap=1.5,
            ygap=1.5,
            name=who,
            hoverongaps=False,
            customdata=[kinds] * len(probes),
            hovertemplate="<b>%{x}</b> %{customdata}<br>%{y}: %{z:.4f} " + unit + "<extra></extra>",
            colorbar=colour_bar(unit),
        )
    )
    figure.update_xaxes(**layer_ticks(layers))
    figure.update_yaxes(autorange="reversed", title=None, showgrid=False)
    measured = [probe for probe in probes if probe in importance]
    counted = sum((tokens or {}).get(probe, 0) for probe in measured)
    below = f" · below zero drawn as zero (lowest {low:.3g})" if low < 0 else ""
    note = f"{words} · {len(measured)} of {len(probes)} probes"
    note += (f" · {counted:,} tokens" if counted else "") + below
    rows: list[tuple[Cell, ...]] = []
    for probe in measured:
        for layer, value in enumerate(importance[probe]):
            bounds = interval[probe][layer] if interval and probe in interval else (None, None)
            rows.append((probe, layer_names([layer])[0], float(value), *map(_number, bounds)))
    peak = max(((p, i, float(v)) for p in measured for i, v in enumerate(importance[p])), key=lambda cell: cell[2])
    size = f"{len(measured)} probes by {layers} layers"
    alt = f"Heat map of {unit} for the {who}: {size}; highest {peak[2]:.3f} at L{peak[1]} on {peak[0]}."
    return Chart(figure, note, ("probe", "layer", unit, "low 95 %", "high 95 %"), tuple(rows), alt)


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)
