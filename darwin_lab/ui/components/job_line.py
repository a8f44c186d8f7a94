"""One line beside a button: how far the job is that the button started, in its own words, with the time left and a
way to stop it.

Takes the kinds of jobs to follow; the browser copies them from the status bar. Shows nothing while none is open.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr

_HTML = (
    "<div class='dl-job' hidden><div class='dl-job-head'><span class='dl-job-words' aria-live='polite'></span>"
    "<button type='button' class='dl-status-stop'>Cancel</button></div>"
    "<span class='dl-job-track' role='progressbar' aria-label='Progress' aria-valuemin='0' aria-valuemax='100'>"
    "<span class='dl-job-fill'></span></span></div>"
)


def job_line(elem_id: str, *kinds: str) -> gr.HTML:
    """The line for jobs of these kinds (`JobView.kind`)."""
    return gr.HTML(
        {},
        html_template=_HTML,
        js_on_load=(Path(__file__).parent / "job_line.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id=elem_id,
        elem_classes=["dl-line"],
        kinds=list(kinds),
    )
