"""Share of dead experts per layer, both parents side by side (and the child, where there is one).

Takes one row of shares a model; gives a `Chart`. A model whose token count cannot certify death shows no bar: the
note says how many tokens are missing, never a percentage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from darwin_lab.ui.figures.style import COLOUR, NAME, Cell, Chart, frame, nothing, share

PATTERN = {"father": "", "mother": "/", "child": ""}


def dead_share(
    shares: Mapping[str, Sequence[float]],
    *,
    moe_layers: Sequence[int],
    uncertified: Mapping[str, str] | None = None,
    certified: Mapping[str, str] | None = None,
) -> Chart:
    """shares: who -> [M] in [0, 1]; uncertified: who -> the reason no number is shown; certified: who -> on what."""
    why = dict(uncertified or {})
    drawn = {who: list(values) for who, values in shares.items() if who not in why}
    if not drawn:
        return nothing(" ".join(why.values()) or "No routing counted yet. It arrives with the first probe of the scan.")
    names = [f"L{layer}" for layer in moe_layers]
    figure = frame(y="dead experts", legend=True)
    for who, values in drawn.items():
        figure.add_trace(
            go.Bar(
                x=names,
                y=values,
                name=NAME[who],
                marker={
                    "color": COLOUR[who],
                    "pattern": {"shape": PATTERN[who], "size": 6, "solidity": 0.2, "fillmode": "overlay"},
                },
                hovertemplate="%{x} · " + NAME[who] + ": %{y:.1%}<extra></extra>",
            )
        )
    figure.add_hline(y=0.5, line={"color": "#8B949E", "width": 1, "dash": "dot"})
    figure.update_layout(barmode="group", bargroupgap=0.08)
    top = max([0.55, *(value * 1.08 for values in drawn.values() for value in values)])
    figure.update_yaxes(tickformat=".0%", range=[0, top])
    figure.update_xaxes(showgrid=False, type="category", tickvals=names if len(names) <= 16 else names[::5])
    means = [f"{NAME[who].lower()} {share(sum(v) / len(v))}" for who, v in drawn.items()]
    told = [*why.values(), *(certified or {}).values()]
    note = "mean over layers: " + ", ".join(means) + "".join(f" · {words}" for words in told)
    rows: list[tuple[Cell, ...]] = [
        (name, *(values[row] for values in drawn.values())) for row, name in enumerate(names)
    ]
    columns = ("layer", *(f"{NAME[who].lower()}, share dead" for who in drawn))
    return Chart(figure, note, columns, tuple(rows), f"Dead experts per layer; {note}.")
