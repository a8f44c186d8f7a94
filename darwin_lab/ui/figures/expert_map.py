"""How the router spreads tokens over experts, or what the experts add: MoE layers across, experts down, log colours.

Takes the load or the saliency of one model and its dead mask; gives a `Chart`. A dead cell is grey, with a cross
while there is room for crosses, and never the bottom colour of the scale, so that "dead" and "rare" cannot be mistaken
for each other. The table goes as packed cells: 64 layers of 256 experts stay under a megabyte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from darwin_lab.ui.figures.style import (
    GREY,
    Cells,
    Chart,
    colour_bar_below,
    frame,
    gap,
    layer_names,
    map_height,
    nothing,
    spread_scale,
)

REACH = 4.0
"""The colour scale of the load ends at 16 times less and 16 times more than uniform, the same for both parents."""
MOST_CROSSES = 600
DEAD_CELL = "rgba(128,134,142,0.55)"
BACKGROUND = "rgba(128,134,142,0.16)"
NO_SALIENCY = "This scan was made without saliency. Scan the pair again to measure what each expert adds."


@dataclass(frozen=True, eq=False)
class ExpertUse:
    """What is drawn of one model: load [M, E] (rows sum to 1), dead [M, E], saliency [M, E] or None, and n."""

    load: np.ndarray
    dead: np.ndarray
    moe_layers: tuple[int, ...]
    tokens: int
    top_k: int
    certified: bool = True
    saliency: np.ndarray | None = None
    probe: str | None = None
    """The one probe that load and saliency are of; dead is always told over all probes."""


def expert_map(
    use: ExpertUse | None,
    *,
    who: str,
    measure: str = "load",
    ends: tuple[float, float] | None = None,
    in_order_of_load: bool = False,
) -> Chart:
    """`measure` "load" or "saliency"; `ends` fixes the saliency range of both parents; or sort each layer by load."""
    if use is None:
        return nothing(f"No routing counted for the {who} yet. It arrives with the first probe of the scan.")
    if measure == "saliency" and use.saliency is None:
        return nothing(NO_SALIENCY)
    load = np.asarray(use.load, dtype=np.float64)
    count, experts = load.shape
    gone = np.asarray(use.dead, dtype=bool) if use.certified else np.zeros(load.shape, bool)
    numbers = np.tile(np.arange(experts), (count, 1))
    saliency = use.saliency if measure == "saliency" else None
    if in_order_of_load:
        order = np.argsort(-load, axis=1, kind="stable")
        load, gone, numbers = (np.take_along_axis(array, order, axis=1) for array in (load, gone, numbers))
        saliency = None if saliency is None else np.take_along_axis(saliency, order, axis=1)
    values: dict[str, np.ndarray] = {"share of tokens": load, "dead": gone}
    told = ["share of tokens", "load ÷ uniform", "dead"]
    hover = f"%{{customdata[0]:.3%}} of {use.tokens:,} tokens, %{{customdata[1]:.2f}} × even<br>%{{customdata[2]}}"
    with np.errstate(divide="ignore"):
        drawn = np.clip(np.log2(load * experts), -REACH, REACH)
    ticks: dict[str, Any] = {"tickvals": [-4, -2, 0, 2, 4], "ticktext": ["1/16", "1/4", "1", "4×", "16×"]}
    scale: dict[str, Any] = {"zmin": -REACH, "zmax": REACH, "colorbar": colour_bar_below("load ÷ uniform", **ticks)}
    if saliency is not None:
        drawn, scale = _saliency_heat(np.asarray(saliency, dtype=np.float64), ends)
        values["saliency"], told = saliency, [*told, "saliency"]
        hover += " saliency %{customdata[3]:.4g}"
    if in_order_of_load:
        values["expert"], told = numbers, [*told, "expert"]
    which = f"%{{customdata[{len(told) - 1}]}}" if in_order_of_load else "%{y}"
    figure = _heat(
        np.where(gone, np.nan, drawn),
        use.moe_layers,
        who,
        title="rank by load" if in_order_of_load else "expert",
        colorscale="Viridis",
        meta={"hover": told},
        hovertemplate=f"<b>%{{x}}</b> · expert {which}<br>{hover}<extra></extra>",
        **scale,
    )
    figure.add_trace(_dead(gone, use.moe_layers))
    marked = f"{int(gone.sum()):,} of {gone.size:,} dead" if use.certified else "too few tokens to call an expert dead"
    read = f"{use.probe}: {use.tokens:,} tokens" if use.probe else f"{use.tokens:,} tokens"
    said = "mean gate × output norm of its tokens" if measure == "saliency" else "share of routed tokens"
    note = f"{said}, top-{use.top_k} of {experts} · {read} · {marked}{' on all probes' if use.probe else ''}"
    cells = Cells(
        ("layer", "rank" if in_order_of_load else "expert"),
        tuple(layer_names(use.moe_layers)),
        tuple(range(experts)),
        values,
        {"dead": "dead"},
        {"load ÷ uniform": ("share of tokens", experts)},
    )
    alt = f"Expert {measure} of the {who}: {count} layers by {experts} experts; {marked}."
    return Chart(figure, note, alt=alt, cells=cells, height=_height(experts))


def expert_difference(father: ExpertUse | None, mother: ExpertUse | None, *, measure: str = "load") -> Chart:
    """log2 of the father's load (or saliency) over the mother's, expert by expert; blue where his works more."""
    if father is None or mother is None:
        return nothing("The difference appears when both parents' routing was counted.")
    if father.load.shape != mother.load.shape or father.moe_layers != mother.moe_layers:
        return nothing("The parents have unlike experts, so no expert of one stands beside one of the other.")
    one, other = (use.saliency if measure == "saliency" else use.load for use in (father, mother))
    if one is None or other is None:
        return nothing(NO_SALIENCY)
    count, experts = father.load.shape
    both = np.asarray(father.dead, dtype=bool) & np.asarray(mother.dead, dtype=bool)
    both &= father.certified and mother.certified
    with np.errstate(divide="ignore", invalid="ignore"):
        fold = np.clip(np.log2(np.asarray(one, dtype=np.float64)) - np.log2(np.asarray(other, dtype=np.float64)), -4, 4)
    fold = np.where(both | ((one == 0) & (other == 0)), np.nan, fold)
    columns = [f"father's {measure}", f"mother's {measure}", "dead"]
    ticks = {"tickvals": [-4, -2, 0, 2, 4], "ticktext": ["16×", "4×", "equal", "4×", "16×"]}
    figure = _heat(
        fold,
        father.moe_layers,
        "difference",
        colorscale=spread_scale("RdBu", centred=True),
        zmin=-REACH,
        zmax=REACH,
        meta={"hover": columns},
        hovertemplate="<b>%{x}</b> · expert %{y}<br>father %{customdata[0]:.4g}, mother %{customdata[1]:.4g}"
        "<br>%{customdata[2]}<extra></extra>",
        colorbar=colour_bar_below("← mother's works more   father's works more →", **ticks),
    )
    figure.add_trace(_dead(both, father.moe_layers))
    apart = int((np.abs(np.nan_to_num(fold)) >= 1).sum())
    note = f"{measure} of father ÷ mother, same expert number · {apart:,} of {fold.size:,} differ by 2× or more"
    cells = Cells(
        ("layer", "expert"),
        tuple(layer_names(father.moe_layers)),
        tuple(range(experts)),
        dict(zip(columns, (one, other, both), strict=True)),
        {"dead": "dead in both"},
    )
    alt = f"Expert {measure}, father against mother: {count} layers by {experts} experts; {apart} differ by 2× or more."
    return Chart(figure, note, alt=alt, cells=cells, height=_height(experts))


def _heat(z: np.ndarray, layers: Sequence[int], name: str, *, title: str = "expert", **trace: Any) -> go.Figure:
    """z [M, E] as a heat map with layers across and experts down, the first on top."""
    count, experts = z.shape
    where = layer_names(layers)
    figure = frame(y=title, left=56)
    figure.add_trace(
        go.Heatmap(
            z=z.T.astype(np.float32),
            x=where,
            y=np.arange(experts, dtype=np.int16),
            xgap=gap(count),
            ygap=1 if experts <= 64 else 0,
            name=name,
            **trace,
        )
    )
    figure.update_xaxes(
        type="category", showgrid=False, range=[-0.5, count - 0.5], tickvals=where if count <= 16 else where[::5]
    )
    figure.update_layout(plot_bgcolor=BACKGROUND, margin={"b": 70, "autoexpand": False})
    figure.update_yaxes(range=[experts - 0.5, -0.5], showgrid=False)
    return figure


def _height(experts: int) -> int:
    return map_height(experts, 14 if experts <= 32 else 6 if experts <= 64 else 2, 220, 620)


def _saliency_heat(saliency: np.ndarray, ends: tuple[float, float] | None) -> tuple[np.ndarray, dict[str, Any]]:
    """log10 of the saliency with a blank where an expert was never chosen; colour range and colour bar."""
    with np.errstate(divide="ignore"):
        drawn = np.where(saliency > 0, np.log10(saliency), np.nan)
    low, high = ends or (float(np.nanmin(drawn)), float(np.nanmax(drawn)))
    ticks = np.linspace(low, high, 5)
    bar = colour_bar_below("gate × ‖output‖", tickvals=ticks.tolist(), ticktext=[f"{10**tick:.2g}" for tick in ticks])
    return drawn, {"zmin": low, "zmax": high if high > low else low + 1, "colorbar": bar}


def _dead(gone: np.ndarray, layers: Sequence[int]) -> go.Heatmap | go.Scatter:
    """Dead cells: crosses while they can be told apart, plain grey cells in a large map."""
    at, where = np.argwhere(gone), layer_names(layers)
    if len(at) > MOST_CROSSES:
        return go.Heatmap(
            z=gone.T.astype(np.uint8),
            x=where,
            y=np.arange(gone.shape[1], dtype=np.int16),
            zmin=0,
            zmax=1,
            colorscale=[[0, "rgba(0,0,0,0)"], [1, DEAD_CELL]],
            showscale=False,
            name="dead",
            hoverinfo="skip",
        )
    return go.Scatter(
        x=[where[row] for row in at[:, 0]],
        y=at[:, 1].tolist(),
        mode="markers",
        name="dead",
        hoverinfo="skip",
        marker={"symbol": "x-thin", "size": 8, "line": {"color": GREY, "width": 1.6}},
    )
