"""How the routers fare layer by layer: the entropy of load and of single tokens, and how alike the experts answer.

Takes one row of numbers a parent; gives `Chart`s with MoE layers across. Father dashed, mother dotted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from darwin_lab.ui.figures.style import COLOUR, DASH, NAME, Cell, Chart, as_list, frame, nothing

KINDS = {"load": ("load entropy", "circle"), "token": ("token entropy", "diamond-open")}
SYMBOL = {"father": "circle", "mother": "square", "child": "diamond"}
NO_SIMILARITY = "This scan was made before experts were compared. Scan the pair again to measure it."


def router_entropy(
    values: Mapping[str, Mapping[str, Sequence[float]]], *, moe_layers: Sequence[int], tokens: int = 0
) -> Chart:
    """values: who -> "load" and "token" -> [M] entropies over ln E, both in [0, 1]."""
    if not values:
        return nothing("No routing counted yet. It arrives with the first probe of the scan.")
    where = [f"L{layer}" for layer in moe_layers]
    figure = frame(y="entropy ÷ ln E", legend=True)
    for who, by_kind in values.items():
        for kind, (words, symbol) in KINDS.items():
            figure.add_trace(
                go.Scatter(
                    x=where,
                    y=as_list(by_kind[kind]),
                    mode="lines+markers",
                    name=f"{NAME[who]}, {kind}",
                    line={"color": COLOUR[who], "dash": DASH[who], "width": 2 if kind == "load" else 1.2},
                    marker={"symbol": symbol, "size": 6, "color": COLOUR[who]},
                    hovertemplate="%{x} · " + f"{NAME[who]}, {words}" + " %{y:.4f}<extra></extra>",
                )
            )
    figure.update_yaxes(range=[0, 1.04])
    _layers_across(figure, where)
    columns = ("layer", *(f"{NAME[who].lower()}, {KINDS[kind][0]}" for who in values for kind in KINDS))
    rows: list[tuple[Cell, ...]] = [
        (name, *(float(by_kind[kind][row]) for by_kind in values.values() for kind in KINDS))
        for row, name in enumerate(where)
    ]
    counted = f" · {tokens:,} tokens" if tokens else ""
    note = f"filled: load (even use is 1) · open: one token's choice (sure is 0){counted}"
    return Chart(figure, note, columns, tuple(rows), f"Router entropies per layer of {_names(values)}.")


def output_similarity(
    values: Mapping[str, Sequence[float]], *, moe_layers: Sequence[int], tokens: Mapping[str, int] | None = None
) -> Chart:
    """values: who -> [M] mean cosine between the outputs of two experts on the same tokens."""
    if not values:
        return nothing(NO_SIMILARITY)
    where = [f"L{layer}" for layer in moe_layers]
    figure = frame(y="mean pairwise cosine", legend=True)
    for who, row in values.items():
        figure.add_trace(
            go.Scatter(
                x=where,
                y=as_list(row),
                mode="lines+markers",
                name=NAME[who],
                line={"color": COLOUR[who], "dash": DASH[who], "width": 2},
                marker={"symbol": SYMBOL[who], "size": 6},
                hovertemplate="%{x} · " + NAME[who] + " %{y:.4f}<extra></extra>",
            )
        )
    figure.add_hline(y=0, line={"color": "#8B949E", "width": 1, "dash": "dot"})
    _layers_across(figure, where)
    sampled = " · ".join(f"{who} on {count:,} tokens a layer" for who, count in (tokens or {}).items() if count)
    rows: list[tuple[Cell, ...]] = [(name, *(float(v[i]) for v in values.values())) for i, name in enumerate(where)]
    columns = ("layer", *(f"{NAME[who].lower()}, mean cosine" for who in values))
    note = "1: all experts answer alike · 0: unrelated" + (f" · {sampled}" if sampled else "")
    return Chart(figure, note, columns, tuple(rows), f"Similarity of expert outputs per layer of {_names(values)}.")


def _layers_across(figure: go.Figure, where: Sequence[str]) -> None:
    figure.update_xaxes(type="category", showgrid=False, tickvals=list(where) if len(where) <= 16 else list(where)[::5])


def _names(values: Mapping[str, object]) -> str:
    return " and ".join(NAME[who].lower() for who in values)
