"""The child's blocks at a glance, over one axis of layers: whose weights, what they matter, which experts are dead.

Takes shares per layer and component, importance per layer of both parents and dead shares of experts; gives a
`Chart`. A strip that has no data is left out and the note says why. Colour is never alone: cells carry their number
where there is room, lines differ in dash, bars in pattern.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from darwin_lab.ui.figures.style import (
    COLOUR,
    DASH,
    FATHER,
    MOTHER,
    NAME,
    Cell,
    Chart,
    frame,
    layer_ticks,
    nothing,
    share,
)

TITLES = {"attn": "attention", "ffn": "FFN + experts"}
MIDDLE = "#C9CED6"
SHARE_SCALE = [(0.0, FATHER), (0.5, MIDDLE), (1.0, MOTHER)]
PATTERN = {"father": "", "mother": "/", "child": "x"}
ROOM = {"ratio": 1.0, "importance": 1.5, "dead": 1.0}
GAP = 0.13
MOST_NUMBERS = 16
"""Up to this many layers a cell carries its share as a number."""


def block_strip(
    ratios: Mapping[str, Sequence[float | None]],
    *,
    layers: int,
    blocks: Sequence[tuple[int, int]] = (),
    importance: Mapping[str, Sequence[float]] | None = None,
    dead: Mapping[str, Mapping[int, float]] | None = None,
    remarks: Sequence[str] = (),
) -> Chart:
    """ratios: component -> [L] mother's share or None; blocks: inclusive layer ranges; importance: who -> [L];
    dead: who -> layer -> share of dead experts; remarks: why a strip is missing, for the note."""
    if not ratios:
        return nothing("Choose a pair in Parents to see its child layer by layer.")
    strips = ["ratio", *(["importance"] if importance else []), *(["dead"] if dead else [])]
    figure = frame(left=100, legend=len(strips) > 1)
    places = _domains(strips)
    _ratio_cells(figure, ratios, layers)
    _name_axis(figure, 0, places["ratio"], "whose weights")
    if importance:
        axis = strips.index("importance")
        for who, values in importance.items():
            _line(figure, who, values, axis)
        _name_axis(figure, axis, places["importance"], "how much a layer matters", rangemode="tozero")
    if dead:
        axis = strips.index("dead")
        for who, found in dead.items():
            _bars(figure, who, found, axis, named=who not in (importance or {}))
        top = max(0.05, *(value * 1.15 for found in dead.values() for value in found.values()))
        _name_axis(figure, axis, places["dead"], "dead experts", tickformat=".0%", range=[0, top], nticks=4)
    for _, last in blocks[:-1]:
        figure.add_shape(
            type="line", x0=last + 0.5, x1=last + 0.5, y0=0, y1=1, yref="paper",
            line={"color": "rgba(128,134,142,.55)", "width": 1, "dash": "dot"},
        )  # fmt: skip
    figure.update_layout(barmode="group", bargap=0.3, hovermode="closest")
    figure.update_xaxes(**layer_ticks(layers), fixedrange=True, anchor=_axis(len(strips) - 1))
    note = " · ".join([_means(ratios), *remarks])
    return Chart(figure, note, *_table(ratios, layers, importance or {}, dead or {}), f"The child's layers. {note}.")


def _ratio_cells(figure: go.Figure, ratios: Mapping[str, Sequence[float | None]], layers: int) -> None:
    bands = list(ratios)[::-1]
    figure.add_trace(
        go.Heatmap(
            x=list(range(layers)),
            y=[TITLES.get(band, band) for band in bands],
            z=[list(ratios[band]) for band in bands],
            zmin=0,
            zmax=1,
            colorscale=SHARE_SCALE,
            showscale=False,
            xgap=2,
            ygap=2,
            name="mother's share",
            showlegend=False,
            hoverongaps=False,
            hovertemplate="<b>%{x}</b> %{y}<br>mother's share %{z:.3f}<extra></extra>",
        )
    )
    if layers > MOST_NUMBERS:
        return
    cells = [(layer, band, value) for band in bands for layer, value in enumerate(ratios[band]) if value is not None]
    figure.add_trace(
        go.Scatter(
            x=[layer for layer, _, _ in cells],
            y=[TITLES.get(band, band) for _, band, _ in cells],
            mode="text",
            text=[f"{value:.2f}".removeprefix("0") for _, _, value in cells],
            textfont={"size": 13, "color": [ink_on(share_colour(value)) for _, _, value in cells]},
            hoverinfo="skip",
            showlegend=False,
        )
    )


def share_colour(value: float) -> str:
    """The colour of a mother's share as the cells have it: blue at 0, grey in the middle, vermilion at 1."""
    low, high, at = (FATHER, MIDDLE, 2 * value) if value < 0.5 else (MIDDLE, MOTHER, 2 * value - 1)
    mixed = [round(a + (b - a) * at) for a, b in zip(_channels(low), _channels(high), strict=True)]
    return "#" + "".join(f"{channel:02X}" for channel in mixed)


def ink_on(colour: str) -> str:
    """Black or white, whichever stands out more on a colour: at least 4.5 to 1 (WCAG 2 contrast)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in _channels(colour))]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#FFFFFF"


def _channels(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))


def _line(figure: go.Figure, who: str, values: Sequence[float], axis: int) -> None:
    figure.add_trace(
        go.Scatter(
            x=list(range(len(values))),
            y=list(values),
            yaxis=_axis(axis),
            mode="lines+markers",
            name=NAME[who],
            legendgroup=who,
            line={"color": COLOUR[who], "width": 2.2, "dash": DASH[who]},
            marker={"size": 6, "symbol": "circle" if who == "father" else "square"},
            hovertemplate="<b>%{x}</b> " + who + " %{y:.4f}<extra></extra>",
        )
    )


def _bars(figure: go.Figure, who: str, found: Mapping[int, float], axis: int, *, named: bool) -> None:
    figure.add_trace(
        go.Bar(
            x=list(found),
            y=list(found.values()),
            yaxis=_axis(axis),
            name=NAME[who],
            legendgroup=who,
            showlegend=named,
            marker={
                "color": COLOUR[who],
                "pattern": {"shape": PATTERN[who], "size": 6, "solidity": 0.2, "fillmode": "overlay"},
            },
            hovertemplate="<b>%{x}</b> " + who + " %{y:.1%} dead<extra></extra>",
        )
    )


def _axis(number: int) -> str:
    return "y" if number == 0 else f"y{number + 1}"


def _domains(strips: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Strip -> (low, high) of its part of the height, first strip on top, with room for a heading over each."""
    free = 1 - GAP * (len(strips) - 1)
    unit = free / sum(ROOM[strip] for strip in strips)
    places, top = {}, 1.0
    for strip in strips:
        places[strip] = (max(0.0, top - unit * ROOM[strip]), top)
        top -= unit * ROOM[strip] + GAP
    return places


def _name_axis(figure: go.Figure, axis: int, place: tuple[float, float], title: str, **more: object) -> None:
    low, high = place
    settings = {"domain": [low, high], "zeroline": False, "fixedrange": True, "anchor": "x", "tickfont": {"size": 12}}
    figure.update_layout({f"yaxis{'' if axis == 0 else axis + 1}": {**settings, **more}})
    if axis:
        figure.add_annotation(
            text=title, x=0, xref="paper", xanchor="left", y=high, yref="paper", yanchor="bottom", showarrow=False,
            font={"size": 12},
        )  # fmt: skip


def _means(ratios: Mapping[str, Sequence[float | None]]) -> str:
    known = {band: [value for value in values if value is not None] for band, values in ratios.items()}
    parts = [f"{TITLES.get(band, band)} {sum(values) / len(values):.3f}" for band, values in known.items() if values]
    return "mother's share, mean over layers: " + ", ".join(parts)


def _table(
    ratios: Mapping[str, Sequence[float | None]],
    layers: int,
    importance: Mapping[str, Sequence[float]],
    dead: Mapping[str, Mapping[int, float]],
) -> tuple[tuple[str, ...], tuple[tuple[Cell, ...], ...]]:
    columns = (
        "layer",
        *(f"mother's share, {TITLES.get(band, band)}" for band in ratios),
        *(f"importance, {who}" for who in importance),
        *(f"dead experts, {who}" for who in dead),
    )
    rows: list[tuple[Cell, ...]] = []
    for layer in range(layers):
        experts = [share(found[layer]) if layer in found else None for found in dead.values()]
        rows.append(
            (
                f"L{layer}",
                *(values[layer] for values in ratios.values()),
                *(float(values[layer]) for values in importance.values()),
                *experts,
            )
        )
    return columns, tuple(rows)
