"""What the Ask tab shows of answers and speeds: HTML and table values.

Takes replies and rates; wires nothing. What a model wrote is put in as text, never as HTML.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from darwin_lab.lab.chat import Reply
from darwin_lab.ui.components.data_table import Column, Row, table_value

ROLES = ("father", "mother", "blend")
_STATES = {
    "waiting": "waits for its turn",
    "loading": "its weights are being loaded",
    "writing": "writes",
    "done": "",
    "stopped": "",
    "failed": "could not answer",
}


def answers_html(replies: Sequence[Reply]) -> str:
    """The replies side by side."""
    return f"<div class='dl-answers' aria-live='polite'>{''.join(map(_card, replies))}</div>"


def speed_table(rows: Sequence[dict[str, Any]] | None, empty: str) -> dict[str, Any]:
    """Tokens a second by batch size, median with the range of the repeats."""
    columns = (
        Column("batch", "number", 0, "Texts at once"),
        Column("prompt read", "number", title="Tokens a second, all texts together: median [slowest, fastest]"),
        Column("answer written", "number", title="Tokens a second, all texts together: median [slowest, fastest]"),
        Column("written, a text", "number", 1, "Tokens a second each text gets"),
    )
    made = [
        Row(
            str(row["batch"]),
            (
                row["batch"],
                _rate(row["reading"]),
                _rate(row["writing"]),
                row["writing"][0] / row["batch"] if row["writing"] else None,
            ),
        )
        for row in rows or ()
    ]
    return table_value(columns, made, empty=empty)


def _card(reply: Reply) -> str:
    role = reply.model if reply.model in ROLES else "child"
    thought = ""
    if reply.thought:
        still = " open" if reply.state == "writing" and not reply.text else ""
        thought = f"<details{still}><summary>Thought</summary><div>{html.escape(reply.thought)}</div></details>"
    caret = "<span class='dl-caret' aria-hidden='true'></span>" if reply.state == "writing" else ""
    silent = "<i>It wrote nothing.</i>" if reply.state == "done" and not reply.text and not reply.thought else ""
    words = " · ".join(filter(None, (_STATES[reply.state], reply.note, *_numbers(reply))))
    label = html.escape(reply.label, quote=True)
    return (
        f"<article class='dl-answer {role}' data-state='{reply.state}' aria-label='{label}'>"
        f"<h4><span class='dl-person {role}'>{label}</span></h4>{thought}"
        f"<div class='dl-answer-text'>{html.escape(reply.text)}{silent}{caret}</div>"
        f"<p class='dl-note'>{html.escape(words)}</p></article>"
    )


def _numbers(reply: Reply) -> list[str]:
    if not reply.tokens:
        return []
    told = [f"{reply.tokens} tokens after {reply.prompt_tokens} of prompt"]
    if reply.speed is not None:
        told.append(f"{reply.speed:.1f} tokens/s, the first after {reply.first:.2f} s")
    told.append("chat template" if reply.chat else "plain text continued")
    return told


def _rate(rate: Sequence[float] | None) -> str | None:
    return None if rate is None else f"{rate[0]:,.0f} [{rate[1]:,.0f}, {rate[2]:,.0f}]"
