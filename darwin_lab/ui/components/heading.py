"""The head of a card that is no chart: title, a note that may change, and the "?" that explains the numbers below.

Takes a title and a `Help`; its value is the note, put in as text. Knows nothing of what the card shows.
"""

from __future__ import annotations

import gradio as gr

from darwin_lab.ui.words import Help

_HTML = (
    "<header class='dl-chart-head'><div class='dl-chart-words'><h3>{{title}}</h3><p class='dl-note'>{{value}}</p></div>"
    "<div class='dl-tools'><details class='dl-pop dl-help'><summary aria-label='About: {{title}}' "
    "title='What is this?'>?</summary><div class='dl-pop-body'><h4>What it is</h4><p>{{definition}}</p>"
    "<h4>How to read it</h4><p>{{reading}}</p><h4>Known trap</h4><p>{{trap}}</p></div></details></div></header>"
)
_JS = (
    "const pop = () => element.querySelector('details.dl-pop[open]');"
    "document.addEventListener('click', event => { const open = pop(); if (open && !open.contains(event.target)) "
    "open.open = false; });"
    "element.addEventListener('keydown', event => { const open = pop(); if (open && event.key === 'Escape') { "
    "open.open = false; open.querySelector('summary').focus(); } });"
)


def heading(elem_id: str, title: str, help_: Help, note: str = "") -> gr.HTML:
    """A card's head; outputs to it are the words of its note."""
    return gr.HTML(
        note,
        html_template=_HTML,
        js_on_load=_JS,
        apply_default_css=False,
        elem_id=elem_id,
        title=title,
        definition=help_.definition,
        reading=help_.reading,
        trap=help_.trap,
    )
