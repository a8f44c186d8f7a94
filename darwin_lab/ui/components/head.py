"""The scripts of the page's head: what charts, tables and menus share, sent once and not with each of them.

Gives the head that `launch` puts into the page. plotly.js, from the installed package, is fetched there while gradio
still builds the page. Knows no component's value.
"""

from __future__ import annotations

import json
from pathlib import Path

import gradio as gr
import plotly

PLOTLY_JS = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
_HERE = Path(__file__).parent
_SHARED = ("chart", "data_table")


def on_load(name: str, *events: str) -> str:
    """The `js_on_load` of a component whose script is `name`.js; gradio must find its events quoted in it."""
    return f"window.__darwin.{name}(element, props, trigger, watch);  // fires {json.dumps(events)}"


def page_head() -> str:
    """The head for `launch`."""
    bodies = {name: (_HERE / f"{name}.js").read_text(encoding="utf-8") for name in _SHARED}
    shared = ",\n".join(f"{name}(element, props, trigger, watch) {{\n{body}\n}}" for name, body in bodies.items())
    source = json.dumps(f"/gradio_api/file={PLOTLY_JS}")
    loader, menus = ((_HERE / name).read_text(encoding="utf-8") for name in ("plotly_loader.js", "menus.js"))
    return f"<script>const source = {source};\n{loader}\n{menus}\nwindow.__darwin = {{{shared}}};</script>"


def serve_plotly() -> None:
    """Let the browser fetch plotly.min.js, and only that file, from the installed package. Call before `launch`."""
    gr.set_static_paths([PLOTLY_JS])
