"""What each way to advise says of every layer: layers across, ways down, coloured by the mother's share.

Takes one profile a way; gives a `Chart`. Beside each row stands how far the ratios of its tensors reach. A way that
cannot be worked out is a blank row, and the note says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from darwin_lab.ui.figures.block_strip import SHARE_SCALE, ink_on, share_colour
from darwin_lab.ui.figures.style import Cell, Chart, colour_bar_below, frame, gap, layer_ticks, map_height, nothing

NUMBERS = 40
"""Up to this many layers a cell carries its share as a number."""
_NOTE = "mean of each layer's tensors; beside a row how far single tensors reach"


def advice_map(
    shares: Mapping[str, Sequence[float]],
    *,
    spans: Mapping[str, str],
    layers: int,
    missing: Mapping[str, str],
    golden: Sequence[int] = (),
) -> Chart:
    """shares: way -> [L] mother's share; spans: way -> how far the ratios of single tensors reach, in words; missing:
    way -> why there is none; golden: layers where the mother clearly leads, marked above."""
    if not shares:
        return nothing("; ".join(f"{way}: {why}" for way, why in missing.items()) + ".")
    ways = [*shares, *missing]
    z = np.full((len(ways), layers), np.nan, dtype=np.float32)
    for row, way in enumerate(shares):
        z[row] = shares[way]
    labels = [f"{way}<br>{spans.get(way, 'not known')}" for way in ways]
    figure = frame(left=150, top=26 if golden else 12)
    figure.add_trace(
        go.Heatmap(
            z=z,
            x=list(range(layers)),
            y=labels,
            colorscale=SHARE_SCALE,
            zmin=0.0,
            zmax=1.0,
            xgap=gap(layers),
            ygap=1.5,
            hoverongaps=False,
            name="advice",
            customdata=[[way] * layers for way in ways],
            hovertemplate="<b>%{x}</b> %{customdata}: mother's share %{z:.4f}<extra></extra>",
            colorbar=colour_bar_below("mother's share advised: 0 father, 1 mother"),
        )
    )
    if layers <= NUMBERS:
        cells = [(row, layer) for row in range(len(shares)) for layer in range(layers)]
        figure.add_trace(
            go.Scatter(
                x=[layer for _, layer in cells],
                y=[labels[row] for row, _ in cells],
                mode="text",
                text=[f"{z[cell]:.2f}".removeprefix("0") for cell in cells],
                textfont={"size": 11, "color": [ink_on(share_colour(float(z[cell]))) for cell in cells]},
                hoverinfo="skip",
                showlegend=False,
            )
        )
    for layer in golden:
        figure.add_annotation(
            x=layer, y=1, yref="paper", yanchor="bottom", text="★", showarrow=False, font={"size": 14}
        )
    figure.update_layout(margin={"b": 70, "autoexpand": False})
    figure.update_xaxes(**layer_ticks(layers))
    figure.update_yaxes(autorange="reversed", title=None, showgrid=False)
    said = [_NOTE, *(["★ golden layers"] if golden else []), *(f"{way}: {why}" for way, why in missing.items())]
    rows: list[tuple[Cell, ...]] = [
        (way, f"L{layer}", float(value)) for way, values in shares.items() for layer, value in enumerate(values)
    ]
    alt = f"Heat map of the mother's share advised for {layers} layers by {', '.join(shares)}."
    return Chart(
        figure, " · ".join(said), ("way", "layer", "mother's share"), tuple(rows), alt, height=map_height(len(ways), 34)
    )
