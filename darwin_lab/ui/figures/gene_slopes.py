"""What moving each gene up a little is predicted to do to the loss on each probe: genes down, probes across.

Takes predicted changes with their intervals; gives a `Chart`. Blue: the loss rises, the father's side is better; red:
it falls, the mother's is. Cells whose interval holds zero lie under a veil.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from darwin_lab.ui.figures.style import VEIL, Cell, Chart, colour_bar_below, frame, map_height, nothing, spread_scale


def gene_slopes(
    values: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    *,
    genes: Sequence[str],
    probes: Sequence[str],
    texts: Mapping[str, int],
    step: float,
) -> Chart:
    """values, low, high [G, P]: predicted change of NLL in nats a token when a gene moves up by `step`."""
    if not len(genes):
        return nothing("No gene of this genome moves a ratio: there is nothing to predict.")
    z = np.asarray(values, dtype=np.float32)
    reach = float(np.nanmax(np.abs(z))) or 1.0
    sure = (np.asarray(low) > 0) | (np.asarray(high) < 0)
    figure = frame(left=12)
    figure.add_trace(
        go.Heatmap(
            z=z,
            x=list(probes),
            y=list(genes),
            colorscale=spread_scale("RdBu", centred=True),
            zmid=0,
            zmin=-reach,
            zmax=reach,
            xgap=1.5,
            ygap=1.5,
            name="predicted",
            customdata=np.stack([low, high], axis=-1).astype(np.float32),
            hovertemplate="<b>%{y}</b> up by "
            + f"{step:g}"
            + " · %{x}<br>%{z:+.4f} [%{customdata[0]:+.4f}, %{customdata[1]:+.4f}] nats / token<extra></extra>",
            colorbar=colour_bar_below(
                "← loss falls   loss rises →",
                tickvals=[-reach, 0, reach],
                ticktext=[f"−{reach:.3g}", "0", f"+{reach:.3g}"],
            ),
        )
    )
    figure.add_trace(
        go.Heatmap(
            z=np.where(sure, np.nan, 1).astype(np.float32),
            x=list(probes),
            y=list(genes),
            colorscale=[[0, VEIL], [1, VEIL]],
            showscale=False,
            xgap=1.5,
            ygap=1.5,
            hoverinfo="skip",
            name="interval holds zero",
        )
    )
    figure.update_layout(margin_b=80)
    figure.update_yaxes(autorange="reversed", title=None, showgrid=False, automargin=True)
    figure.update_xaxes(showgrid=False, type="category", tickangle=0)
    least, most = min(texts.values()), max(texts.values())
    read = f"{least}" if least == most else f"{least} to {most}"
    note = (
        f"predicted change of the loss for +{step:g}, nats / token · {int(sure.sum())} of {z.size} intervals (95 %, "
        f"{read} texts a probe) leave zero out"
    )
    rows: list[tuple[Cell, ...]] = [
        (gene, probe, float(z[g, p]), float(low[g][p]), float(high[g][p]), texts[probe])
        for g, gene in enumerate(genes)
        for p, probe in enumerate(probes)
    ]
    alt = f"Predicted effect of {len(genes)} genes on {len(probes)} probes; {note}."
    columns = ("gene", "probe", f"change for +{step:g}", "low 95 %", "high 95 %", "texts")
    return Chart(figure, note, columns, tuple(rows), alt, height=map_height(len(genes), 24))
