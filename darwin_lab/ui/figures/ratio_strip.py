"""The mother's share in every layer, as the genome really resolves it: one band a component.

Takes effective ratios per layer and component; gives a `Chart`. Bars grow from one half: up and vermilion towards
the mother, down and blue towards the father. A tick shows what the MRI advises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from darwin_lab.ui.figures.style import FATHER, GREY, MOTHER, Cell, Chart, frame, layer_ticks, nothing

TITLES = {"all": "whole layer", "attn": "attention", "ffn": "FFN + experts"}
SPACE = 0.1


def ratio_strip(
    ratios: Mapping[str, Sequence[float | None]],
    *,
    layers: int,
    advised: Sequence[float] | None = None,
    blocks: Sequence[tuple[int, int]] = (),
    outside: Mapping[str, float | None] | None = None,
) -> Chart:
    """ratios: component -> [L] in [0, 1] or None; advised [L]; blocks: inclusive layer ranges.

    outside: what lies in no layer, name -> mean ratio.
    """
    if not ratios:
        return nothing("Choose a pair in Parents to see what a genome does to it.")
    bands = list(ratios)
    height = (1 - SPACE * (len(bands) - 1)) / len(bands)
    figure = frame(left=64)
    for row, band in enumerate(bands):
        top = 1 - row * (height + SPACE)
        axis = "y" if row == 0 else f"y{row + 1}"
        values = ratios[band]
        figure.update_layout(
            {
                f"yaxis{'' if row == 0 else row + 1}": {
                    "domain": [max(0.0, top - height), top],
                    "range": [-0.02, 1.02],
                    "tickvals": [0, 0.5, 1],
                    "ticktext": ["father", "½", "mother"],
                    "tickfont": {"size": 11},
                    "zeroline": False,
                    "fixedrange": True,
                    "anchor": "x",
                }
            }
        )
        figure.add_trace(
            go.Bar(
                x=list(range(layers)),
                y=[None if v is None else v - 0.5 for v in values],
                base=0.5,
                yaxis=axis,
                name=TITLES.get(band, band),
                customdata=[None if v is None else round(v, 6) for v in values],
                marker={
                    "color": [MOTHER if v is not None and v >= 0.5 else FATHER for v in values],
                    "line": {"width": 0},
                },
                hovertemplate="<b>%{x}</b> "
                + TITLES.get(band, band)
                + "<br>mother's share %{customdata:.3f}<extra></extra>",
            )
        )
        figure.add_trace(
            go.Scatter(
                x=list(range(layers)),
                y=list(values),
                yaxis=axis,
                mode="lines",
                name=f"{TITLES.get(band, band)}, outline",
                line={"shape": "hvh", "width": 1.5, "color": GREY},
                hoverinfo="skip",
            )
        )
        figure.add_annotation(
            text=TITLES.get(band, band),
            x=0,
            xref="paper",
            xanchor="left",
            y=top,
            yref="paper",
            yanchor="bottom",
            yshift=-1,
            showarrow=False,
            font={"size": 11},
        )
        if advised is not None and band == "all":
            figure.add_trace(
                go.Scatter(
                    x=list(range(layers)),
                    y=list(advised),
                    yaxis=axis,
                    mode="markers",
                    name="MRI advises",
                    marker={"symbol": "line-ew", "size": 14, "line": {"width": 2.5, "color": "#E8A33D"}},
                    hovertemplate="<b>%{x}</b> MRI advises %{y:.3f}<extra></extra>",
                )
            )
    for _, last in blocks[:-1]:
        figure.add_shape(
            type="line",
            x0=last + 0.5,
            x1=last + 0.5,
            y0=0,
            y1=1,
            yref="paper",
            line={"color": "rgba(128,134,142,.45)", "width": 1, "dash": "dot"},
        )
    figure.update_layout(bargap=0.18, hovermode="closest", margin={"t": 22})
    figure.update_xaxes(**layer_ticks(layers), fixedrange=True, anchor="y" if len(bands) == 1 else f"y{len(bands)}")
    means = [
        f"{TITLES.get(band, band)} {sum(known) / len(known):.3f}"
        for band in bands
        if (known := [v for v in ratios[band] if v is not None])
    ]
    means += [f"{name} {value:.3f}" for name, value in (outside or {}).items() if value is not None]
    rows: list[tuple[Cell, ...]] = [
        (f"L{layer}", *(ratios[band][layer] for band in bands), None if advised is None else float(advised[layer]))
        for layer in range(layers)
    ]
    columns = ("layer", *(TITLES.get(band, band) for band in bands), "MRI advises")
    note = "mother's share, mean: " + " · ".join(means)
    return Chart(figure, note, columns, tuple(rows), f"Effective mother's share per layer. {note}.")
