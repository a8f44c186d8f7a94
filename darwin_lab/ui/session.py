"""What the tabs share: the lab, one selection, one genome at hand, and how a handler answers bad input.

The selection of a browser session is the pair (its key), the layer, and the run with its candidate. The genome at hand
is its JSON; "the child" everywhere means what that genome makes of the pair. Knows no chart and no measurement.
"""

from __future__ import annotations

import functools
import html
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from darwin_lab.errors import LabError
from darwin_lab.genome.genome import Genome, genome_from_json, neutral_genome
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.lab.views import JobView

RunChoice = dict[str, Any]
"""{run: id or None, candidate: index or None}."""
NO_RUN_CHOSEN: RunChoice = {"run": None, "candidate": None}
QUIET: dict[str, Any] = {"show_progress": "hidden", "show_progress_on": [], "api_visibility": "private"}
"""For handlers that answer at once: no veil over what updates. Named as the place of progress, nothing: of each output
gradio would keep a status even so, and at every event copy the data of all components that have one."""
AT_ONCE: dict[str, Any] = {**QUIET, "queue": False}
"""For handlers that only draw: one plain request. Never for one that writes a `gr.State` others listen to: gradio tells
the browser of a changed state only through the queue."""
LATEST: dict[str, Any] = {**AT_ONCE, "trigger_mode": "always_last"}
"""For controls and what they draw: the last value always arrives. Without a mode, gradio drops an event that comes
while the one before is being answered, and the page then shows one choice and holds another."""
CHOSEN: dict[str, Any] = {**QUIET, "trigger_mode": "always_last"}
"""The same, for controls whose answer writes a `gr.State` others listen to."""
PICKED: dict[str, Any] = {**QUIET, "trigger_mode": "multiple"}
"""For picks of a cell, a point or a row: each is answered with its own place (the last of `always_last` would come with
the first one's)."""
COMPONENTS = ("all", "attn", "ffn")


@dataclass(frozen=True)
class Shared:
    """Handles every tab gets.

    `load`, written by any tab, puts a genome into the editor. The stamps, hidden texts, change when the store holds
    something new about what the page shows.
    """

    lab: Lab
    pair: gr.State
    layer: gr.State
    run: gr.State
    genome: gr.State
    load: gr.State
    scan_stamp: gr.Textbox
    run_stamp: gr.Textbox
    child_stamp: gr.Textbox
    bench_stamp: gr.Textbox
    tabs: gr.Tabs


def on_a_space() -> bool:
    """Whether the page runs on a public Space, where folders and logins are not the visitor's, nor is any setting."""
    return bool(os.environ.get("SPACE_ID"))


def pair_of(lab: Lab, pair_key: str) -> Pair | None:
    """The selected pair, None while there is none."""
    return lab.pair(pair_key) if pair_key else None


def genome_at_hand(pair: Pair, data: dict[str, Any] | None) -> Genome:
    """The genome in the session, or the neutral one when it does not fit the pair."""
    if data:
        try:
            return genome_from_json(data, pair.anatomy.layers)
        except LabError:
            pass
    return neutral_genome("v6", pair.anatomy.layers)


def work_of(lab: Lab, *kinds: str) -> JobView | None:
    """The job of one of these kinds that runs, or else the first that waits; None without one."""
    return next((job for job in lab.active_jobs() if job.kind in kinds), None)


def to_load(genome: Genome, why: str) -> dict[str, Any]:
    """What to write into `Shared.load`: the genome, and a stamp that differs for every reason to load it."""
    return {"genome": genome.to_json(), "stamp": f"{genome.hash}:{why}"}


def guarded(handler: Callable[..., Any]) -> Callable[..., Any]:
    """A handler whose bad input becomes a toast with the remedy and leaves the page as it is. Must be queued."""

    @functools.wraps(handler)
    def answer(*args: Any, **kwargs: Any) -> Any:
        try:
            return handler(*args, **kwargs)
        except LabError as error:
            gr.Warning(html.escape(as_uploaded(str(error))), title="That did not work", duration=12)
            return gr.skip()

    return answer


def as_uploaded(sentence: str) -> str:
    """An error that names an uploaded file as its owner knows it, not where the page keeps it."""
    return re.sub(rf"{re.escape(get_upload_folder())}[/\\][^/\\\s]+[/\\]", "", sentence)


def layer_clicked(event: gr.EventData) -> Any:
    """A click on a chart with layers across: that layer becomes the selected one everywhere."""
    place = str(event._data.get("x", "")).removeprefix("L")
    return int(place) if place.isdigit() else gr.skip()


def duration(seconds: float | None) -> str:
    """Time left in words, empty while unknown."""
    if seconds is None:
        return ""
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"


def say(words: str, *, bad: bool = False) -> str:
    """A line of explanation as HTML; `words` is put in as text."""
    return f"<div class='dl-hint{' bad' if bad else ''}'>{html.escape(words)}</div>" if words else ""


def facts(rows: list[tuple[str, str, str]]) -> str:
    """Small labelled numbers as HTML: (label, value, unit or remark); a label starting with # marks code."""
    cells = "".join(
        f"<div><dt>{html.escape(label.removeprefix('#'))}</dt><dd class='{'code' if label.startswith('#') else ''}'>"
        f"{html.escape(value)}{f' <small>{html.escape(remark)}</small>' if remark else ''}</dd></div>"
        for label, value, remark in rows
    )
    return f"<dl class='dl-facts'>{cells}</dl>"


def verdict(tone: str, head: str, words: str) -> str:
    """A verdict as HTML: sign, sentence and explanation; tone is ok, watch, bad or plain."""
    sign = {"ok": "✓", "watch": "◐", "bad": "▲", "plain": "○"}[tone]
    return (
        f"<div class='dl-verdict' data-tone='{tone}'><span class='dl-sign' aria-hidden='true'>{sign}</span>"
        f"<div><b>{html.escape(head)}</b><p>{html.escape(words)}</p></div></div>"
    )


def lead(title: str, words: str) -> str:
    """The head of a tab."""
    return f"<div class='dl-lead'><h2>{html.escape(title)}</h2><p>{html.escape(words)}</p></div>"
