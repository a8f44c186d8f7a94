"""The chart card of the page: a plotly figure with its title, note, help, exports and table.

Takes the JSON a `Chart` makes (`Chart.wire()`) as its value; fires `select` with {x, y, curve, name, customdata} when
a point is clicked. The browser loads plotly.js from the installed package, nothing leaves the machine. Knows nothing
of what is drawn.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from darwin_lab.ui.components.head import on_load
from darwin_lab.ui.figures.style import Chart
from darwin_lab.ui.words import Help

_HTML = (Path(__file__).parent / "chart.html").read_text(encoding="utf-8")


def chart_card(
    elem_id: str, title: str, help_: Help, *, empty: str, height: int = 320, layered: bool = False
) -> gr.HTML:
    """A chart card showing `empty` until it gets a value. Outputs to it are the strings of `Chart.wire()`.

    `layered`: layers run across, so the selected one is framed (by the browser alone).
    """
    return gr.HTML(
        Chart(empty=empty).wire(),
        html_template=_HTML,
        js_on_load=on_load("chart", "select"),
        apply_default_css=False,
        elem_id=elem_id,
        elem_classes=["dl-card"],
        title=title,
        definition=help_.definition,
        reading=help_.reading,
        trap=help_.trap,
        height=height,
        layered=layered,
        filename=f"darwin-lab-{elem_id.replace('_', '-')}",
    )
