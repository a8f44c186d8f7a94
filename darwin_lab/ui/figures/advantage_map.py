"""Where father and mother differ: layers across, probes down, blue where the father leads, red where the mother does.

Takes the map of differences (father minus mother, above the NEUTRAL probe) and which cells are told apart from
chance; gives a `Chart`. Cells inside the noise lie under a grey veil; told-apart cells carry a diamond.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import plotly.graph_objects as go

from darwin_lab.ui.figures.style import (
    VEIL,
    Cell,
    Chart,
    colour_bar_below,
    frame,
    gap,
    layer_ticks,
    map_height,
    spread_scale,
)

PARENTS = ("father", "mother")
STRICT = 1.5
"""A threshold this many times that of many texts hides real differences: plain maps of about 20 texts and fewer."""


def advantage_map(
    values: np.ndarray,
    *,
    probes: Sequence[str],
    different: np.ndarray | None = None,
    se: np.ndarray | None = None,
    threshold: float | None = None,
    unit: str = "Δ NLL, nats / token",
    people: tuple[str, str] = PARENTS,
) -> Chart:
    """values [P, L]: father minus mother, positive favours the father; different [P, L] bool (max-T over all cells).

    A cell is told apart beyond `threshold` x its `se` [P, L]; both show in the hover and the table. Other `people` than
    father and mother get colours of their own: blue and red mean the parents.
    """
    one, other = people
    z = np.asarray(values, dtype=np.float32)
    count, layers = z.shape
    reach = float(np.nanmax(np.abs(z))) or 1.0
    bound = None if se is None or threshold is None else np.asarray(se, dtype=np.float64) * threshold
    figure = frame(left=100)
    figure.add_trace(
        go.Heatmap(
            z=z,
            x=list(range(layers)),
            y=list(probes),
            colorscale=spread_scale("RdBu" if people == PARENTS else "PuOr", centred=True),
            zmid=0,
            zmin=-reach,
            zmax=reach,
            xgap=gap(layers),
            ygap=1.5,
            name="advantage",
            customdata=None if bound is None else bound.astype(np.float32),
            hovertemplate="<b>%{x}</b> · %{y}<br>%{z:+.4f} "
            + unit
            + ("" if bound is None else "<br>told apart beyond ±%{customdata:.4f}")
            + "<extra></extra>",
            colorbar=colour_bar_below(
                f"← {other}   {one} →", tickvals=[-reach, 0, reach], ticktext=[f"−{reach:.3g}", "0", f"+{reach:.3g}"]
            ),
        )
    )
    figure.update_layout(margin={"b": 70, "autoexpand": False})
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
                xgap=gap(layers),
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
    note = f"{one} − {other}, {unit} · {told_apart} of {z.size} cells told apart (max-T 95 %)"
    note += _strict(threshold, z.size)
    if not z.any():
        note = f"no difference: {one} and {other} agree in every one of {z.size} cells"
    rows: list[tuple[Cell, ...]] = [
        (
            probes[p],
            f"L{layer}",
            float(z[p, layer]),
            None if bound is None else float(bound[p, layer]),
            "" if different is None else "yes" if different[p][layer] else "no",
            one if z[p, layer] > 0 else other if z[p, layer] < 0 else "",
        )
        for p in range(count)
        for layer in range(layers)
    ]
    alt = f"Advantage map, {count} probes by {layers} layers; {told_apart} cells are told apart from chance."
    columns = ("probe", "layer", f"{one} − {other} ({unit})", "told apart beyond ±", "told apart", "leans to")
    return Chart(figure, note, columns, tuple(rows), alt, height=map_height(count))


def _strict(threshold: float | None, cells: int) -> str:
    """What the caption adds where the texts are too few for a fair threshold: many would need about Bonferroni's."""
    usual = NormalDist().inv_cdf(1 - 0.05 / (2 * cells))
    if threshold is None or threshold <= STRICT * usual:
        return ""
    return (
        f" · few or uneven texts: a cell is told apart only beyond {threshold:.1f} standard errors (about {usual:.1f} "
        "with many), so real differences may go unmarked"
    )
