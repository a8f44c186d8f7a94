"""The bar at the foot of the page and the keeper of the address: two small components that show and remember.

`status_bar` takes the open jobs as plain rows and fires `select` with {cancel: ids of jobs to stop}, none to dismiss a
notice. `address` takes a dict of query values and writes them into the address bar, so that a reload or a shared link
shows the same.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from darwin_lab.lab.views import JobView

_HERE = Path(__file__).parent
_HTML = (
    "<div class='dl-status' data-state='idle' role='status' aria-live='polite'>"
    "<span class='dl-status-dot' aria-hidden='true'></span><span class='dl-status-words'></span>"
    "<span class='dl-status-more'></span>"
    "<span class='dl-status-track' role='progressbar' aria-label='Progress' aria-valuemin='0' aria-valuemax='100'>"
    "<span class='dl-status-fill'></span></span>"
    "<span class='dl-status-number'></span><button type='button' class='dl-status-stop' hidden>Cancel</button>"
    "<button type='button' class='dl-status-stop dl-status-all' hidden>Cancel all</button></div>"
)


def status_bar() -> gr.HTML:
    """The status bar, idle until it gets `status_value`."""
    return gr.HTML(
        {"jobs": [], "notice": ""},
        html_template=_HTML,
        js_on_load=(_HERE / "status_bar.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id="status_bar",
    )


def status_value(jobs: Sequence[JobView], notice: str = "") -> dict[str, Any]:
    """What the bar shows: the first job in front, the others counted; `notice` when nothing runs."""
    rows = [
        {
            "id": job.id,
            "kind": job.kind,
            "title": job.title,
            "message": job.message,
            "fraction": round(job.fraction, 3),
            "eta": None if job.eta_seconds is None else round(job.eta_seconds),
            "state": job.state,
        }
        for job in jobs
    ]
    return {"jobs": rows, "notice": notice}


def address(home: str) -> gr.HTML:
    """An invisible component: its value, a dict, becomes the query string (None removes a key), and so does the open
    tab once it is another than `home`."""
    return gr.HTML(
        {},
        html_template=f"<span hidden data-home='{html.escape(home)}'></span>",
        js_on_load=(_HERE / "address.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id="address",
        elem_classes=["dl-address"],
    )
