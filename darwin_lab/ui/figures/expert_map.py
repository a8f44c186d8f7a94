"""How the router spreads tokens over experts: MoE layers across, experts down, log2 of load over uniform.

Takes utilisation and the dead mask of one model; gives a `Chart`. A dead cell is grey with a cross, never the bottom
colour of the scale, so "dead" and "rare" cannot be mistaken for each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from darwin_lab.ui.figures.style import GREY, Cell, Chart, colour_bar, frame, layer_names, nothing

REACH = 4.0
"""The colour scale ends at 16 times less and 16 times more than uniform, the same for both parents."""


def expert_map(
    utilisation: np.ndarray | None,
    dead: np.ndarray | None,
    *,
    moe_layers: Sequence[int],
    who: str,
    tokens: int = 0,
    top_k: int = 0,
    certified: bool = True,
    in_order_of_load: bool = False,
) -> Chart:
    """utilisation [M, E] (rows sum to 1), dead [M, E] bool; `in_order_of_load` sorts each layer's experts by load."""
    if utilisation is None:
        return nothing(f"No routing counted for the {who} yet. It arrives with the first probe of the scan.")
    load = np.asarray(utilisation, dtype=np.float64)
    count, experts = load.shape
    gone = np.zeros(load.shape, bool) if dead is None or not certified else np.asarray(dead, dtype=bool)
    names = np.tile(np.arange(experts), (count, 1))
    if in_order_of_load:
        order = np.argsort(-load, axis=1, kind="stable")
        load, gone, names = (np.take_along_axis(array, order, axis=1) for array in (load, gone, names))
    with np.errstate(divide="ignore"):
        fold = np.log2(load * experts)
    shown = np.where(gone, np.nan, np.clip(fold, -REACH, REACH)).astype(np.float32)
    where = layer_names(moe_layers)
    figure = frame(y="rank by load" if in_order_of_load else "expert", left=56)
    figure.add_trace(
        go.Heatmap(
            z=shown.T,
            x=where,
            y=list(range(experts)),
            colorscale="Viridis",
            zmin=-REACH,
            zmax=REACH,
            xgap=1.5,
            ygap=1,
            name=who,
            hoverongaps=False,
            customdata=np.stack([load, names], axis=-1).transpose(1, 0, 2).tolist(),
            hovertemplate="<b>%{x}</b> · expert %{customdata[1]}<br>%{customdata[0]:.2%} of tokens"
            "<br>2<sup>%{z:.2f}</sup> × uniform<extra></extra>",
            colorbar=colour_bar(
                "load ÷ uniform", tickvals=[-4, -2, 0, 2, 4], ticktext=["1/16", "1/4", "1", "4×", "16×"]
            ),
        )
    )
    at = np.argwhere(gone)
    figure.add_trace(
        go.Scatter(
            x=[where[row] for row in at[:, 0]],
            y=at[:, 1].tolist(),
            mode="markers",
            name="dead",
            customdata=[int(names[row, column]) for row, column in at],
            hovertemplate="<b>%{x}</b> · expert %{customdata}<br>dead on these probes<extra></extra>",
            marker={"symbol": "x-thin", "size": 8, "line": {"color": GREY, "width": 1.6}},
        )
    )
    figure.update_xaxes(
        type="category",
        showgrid=False,
        range=[-0.5, count - 0.5],
        tickvals=where if count <= 16 else where[::5],
    )
    figure.update_layout(plot_bgcolor="rgba(128,134,142,0.16)")
    figure.update_yaxes(range=[experts - 0.5, -0.5], showgrid=False)
    marked = f"{int(gone.sum())} of {gone.size} dead (×)" if certified else "too few tokens to call an expert dead"
    note = f"share of routed tokens, top-{top_k} of {experts} · {tokens:,} tokens · {marked}"
    rows: list[tuple[Cell, ...]] = [
        (
            f"L{moe_layers[m]}",
            int(names[m, e]),
            float(load[m, e]),
            float(load[m, e] * experts),
            "dead" if gone[m, e] else "",
        )
        for m in range(count)
        for e in range(experts)
    ]
    alt = f"Expert load of the {who}: {count} layers by {experts} experts; {marked}."
    return Chart(figure, note, ("layer", "expert", "share of tokens", "load ÷ uniform", ""), tuple(rows), alt)
