"""A recipe of blocks as a strip: every block as wide as its layers, with its share and whose router rows it has.

Takes spans, shares and router sources; gives a `Chart`. Colour follows the mother's share; the number and the words
say the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from darwin_lab.ui.figures.block_strip import SHARE_SCALE, ink_on, share_colour
from darwin_lab.ui.figures.style import Cell, Chart, frame, layer_ticks

SAID = {"A": "router A (father)", "B": "router B (mother)", "blend": "router blended"}
NARROW = 0.12
"""Where a block is under this part of the width, all say their share in two digits and their router's letter alone."""
SHORT = {"A": "A", "B": "B", "blend": "A+B"}


def block_recipe(
    spans: Sequence[tuple[int, int]],
    shares: Sequence[float],
    routers: Sequence[str],
    *,
    layers: int,
    golden: Sequence[int] = (),
) -> Chart:
    """spans: inclusive layer ranges; shares: mother's share of each; routers: "A", "B" or "blend"; golden: layers where
    the mother clearly leads, marked above the strip."""
    figure = frame(left=16, top=26 if golden else 12)
    blocks = [
        (first, last, value, router, f"L{first}" if first == last else f"L{first}–L{last}")
        for (first, last), value, router in zip(spans, shares, routers, strict=True)
    ]
    by_layer = {layer: block for block in blocks for layer in range(block[0], block[1] + 1)}
    figure.add_trace(
        go.Heatmap(
            x=list(by_layer),
            y=["recipe"],
            z=[[block[2] for block in by_layer.values()]],
            zmin=0,
            zmax=1,
            colorscale=SHARE_SCALE,
            showscale=False,
            customdata=[[[block[4], SAID[block[3]]] for block in by_layer.values()]],
            name="mother's share",
            hovertemplate="<b>%{customdata[0]}</b> mother's share %{z:.4f}, %{customdata[1]}<extra></extra>",
        )
    )
    wide = all((last - first + 1) / layers > NARROW for first, last, *_ in blocks)
    figure.add_trace(
        go.Scatter(
            x=[(first + last) / 2 for first, last, *_ in blocks],
            y=["recipe"] * len(blocks),
            mode="text",
            text=[
                f"t {value:.4g}<br>{SAID[router]}"
                if wide
                else f"{value:.2f}".removeprefix("0") + f"<br>{SHORT[router]}"
                for _, _, value, router, _ in blocks
            ],
            textfont={"size": 13, "color": [ink_on(share_colour(value)) for _, _, value, *_ in blocks]},
            hoverinfo="skip",
            showlegend=False,
        )
    )
    for first, *_ in blocks[1:]:
        figure.add_shape(
            type="line", x0=first - 0.5, x1=first - 0.5, y0=0, y1=1, yref="paper",
            line={"color": "#FFFFFF", "width": 3},
        )  # fmt: skip
    for layer in golden:
        figure.add_annotation(
            x=layer, y=1, yref="paper", yanchor="bottom", text="★", showarrow=False, font={"size": 14}
        )
    figure.update_layout(hovermode="closest")
    figure.update_xaxes(**layer_ticks(layers), fixedrange=True)
    figure.update_yaxes(visible=False, fixedrange=True)
    rows: list[tuple[Cell, ...]] = [
        (f"L{first}", f"L{last}", value, router)
        for (first, last), value, router in zip(spans, shares, routers, strict=True)
    ]
    note = f"{len(spans)} blocks over {layers} layers" + (" · ★ golden layers" if golden else "")
    note += "" if wide else " · letter: whose router rows, A father, B mother"
    return Chart(figure, note, ("first", "last", "mother's share", "router"), tuple(rows), f"The recipe: {note}.")
