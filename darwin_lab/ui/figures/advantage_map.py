"""Where father and mother differ: layers across, probes down, blue where the father leads, red where the mother does.

Takes the map of differences (father minus mother, above the NEUTRAL probe) and which cells are told apart from
chance; gives a `Chart`. Cells inside the noise lie under a grey veil; told-apart cells carry a diamond.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from darwin_lab.ui.figures.style import VEIL, Cell, Chart, colour_bar, frame, layer_ticks, spread_scale


def advantage_map(
    values: np.ndarray,
    *,
    probes: Sequence[str],
    different: np.ndarray | None = None,
    unit: str = "Δ NLL, nats / token",
) -> Chart:
    """values [P, L]: father minus mother, positive favours the father; different [P, L] bool (max-T over all cells)."""
    z = np.asarray(values, dtype=np.float32)
    count, layers = z.shape
    reach = float(np.nanmax(np.abs(z))) or 1.0
    figure = frame(left=104)
    figure.add_trace(
        go.Heatmap(
            z=z,
            x=list(range(layers)),
            y=list(probes),
            colorscale=spread_scale("RdBu", centred=True),
            zmid=0,
            zmin=-reach,
            zmax=reach,
            xgap=1.5,
            ygap=1.5,
            name="advantage",
            hovertemplate="<b>%{x}</b> · %{y}<br>%{z:+.4f} " + unit + "<extra></extra>",
            colorbar=colour_bar(
                "← mother   father →", tickvals=[-reach, 0, reach], ticktext=[f"−{reach:.3g}", "0", f"+{reach:.3g}"]
            ),
        )
    )
    told_apart = 0
    if different is not None:
        apart = np.asarray(different, dtype=bool)
        told_apart = int(apart.sum())
        figure.add_trace(
            go.Heatmap(
                z=np.where(apart, np.nan, 1).astype(np.float32),
                x=list(range(layers)),
                y=list(probes),
                colorscale=[[0, VEIL], [1, VEIL]],
                showscale=False,
                xgap=1.5,
                ygap=1.5,
                hoverinfo="skip",
                name="inside the noise",
            )
        )
        at = np.argwhere(apart)
        figure.add_trace(
            go.Scatter(
                x=at[:, 1].tolist(),
                y=[probes[row] for row in at[:, 0]],
                mode="markers",
                name="told apart",
                hoverinfo="skip",
                marker={"symbol": "diamond", "size": 6, "color": "#FFFFFF", "line": {"color": "#1B2430", "width": 1}},
            )
        )
    figure.update_xaxes(**layer_ticks(layers))
    figure.update_yaxes(autorange="reversed", title=None, showgrid=False)
    note = f"father − mother, {unit} · {told_apart} of {z.size} cells told apart (max-T 95 %)"
    rows: list[tuple[Cell, ...]] = [
        (
            probes[p],
            f"L{layer}",
            float(z[p, layer]),
            "" if different is None else "yes" if different[p][layer] else "no",
            "father" if z[p, layer] > 0 else "mother",
        )
        for p in range(count)
        for layer in range(layers)
    ]
    alt = f"Advantage map, {count} probes by {layers} layers; {told_apart} cells are told apart from chance."
    return Chart(
        figure, note, ("probe", "layer", f"father − mother ({unit})", "told apart", "leans to"), tuple(rows), alt
    )
