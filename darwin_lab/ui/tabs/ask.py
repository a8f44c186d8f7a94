"""The Ask tab: one prompt, the answers of father, mother and child side by side as they are written; and their speed.

Takes the models the lab knows of the pair; nothing said here is a score. Answers come from a job: the page only reads.
"""

from __future__ import annotations

import os
from typing import Any

import gradio as gr

from darwin_lab.engine.plan import plan_model
from darwin_lab.errors import LabError
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.scoring.chat import MOST_TOKENS, Manner
from darwin_lab.scoring.prompt import context_of
from darwin_lab.ui.components.data_table import data_table
from darwin_lab.ui.components.menus import Menu, Ticks, picking
from darwin_lab.ui.session import AT_ONCE, LATEST, QUIET, Shared, genome_at_hand, guarded, lead, pair_of
from darwin_lab.ui.tabs.ask_views import answers_html, speed_table
from darwin_lab.ui.tabs.parents_views import cards_table

EXAMPLES = 4
NO_ANSWER = "Ask once and read father, mother and child side by side. It shows manner; Benchmark shows skill."
NO_SPEED = "Press “Measure speed”: three repeats at 1, 4 and 16 texts at once, a prompt of 128 tokens and 32 written."
TEMPLATES = [("As the model has it", "auto"), ("Chat template", "chat"), ("Plain text", "plain")]
THINKING = [("As the template has it", "auto"), ("On", "on"), ("Off", "off")]


def build(shared: Shared) -> None:
    """Put the tab's components on the page and wire them."""
    lab = shared.lab
    gr.HTML(lead("Ask", "One prompt to several models, told word by word. The child is asked without being exported."))
    with gr.Row(elem_classes=["dl-row"]):
        with gr.Column(scale=4, min_width=330), gr.Column(elem_classes=["dl-card"]):
            prompt = gr.Textbox(
                label="Prompt", lines=4, max_lines=12, elem_id="ask_prompt", placeholder="What shall they answer?",
                info="Shift + Enter asks.",
            )  # fmt: skip
            examples = Menu([], label="Or take one of the pair's own questions", elem_id="ask_examples", value=None)
            models = Ticks([], label="Who answers", elem_id="ask_models")
            with gr.Row(elem_classes=["dl-tight"]):
                ask = gr.Button("Ask", variant="primary", elem_id="ask_now", min_width=120)
                stop = gr.Button("Stop", elem_id="ask_stop", min_width=90, interactive=False)
            with gr.Accordion("How they answer", open=False, elem_id="ask_manner"):
                tokens = gr.Slider(
                    1, MOST_TOKENS, value=200, step=1, label="Tokens at most", elem_id="ask_tokens", min_width=220
                )
                heat = gr.Slider(
                    0, 2, value=0, step=0.05, label="Temperature", info="0 takes the likeliest token.",
                    elem_id="ask_temperature", min_width=220,
                )  # fmt: skip
                seed = gr.Number(0, label="Seed of the draws", precision=0, elem_id="ask_seed")
                template = gr.Radio(
                    TEMPLATES, value="auto", label="Prompt goes in as", elem_id="ask_template", elem_classes=["dl-seg"]
                )
                thinking = gr.Radio(
                    THINKING, value="auto", label="Thinking", elem_id="ask_thinking", elem_classes=["dl-seg"]
                )
        with gr.Column(scale=9, min_width=460):
            answers = gr.HTML(f"<p class='dl-nothing'>{NO_ANSWER}</p>", elem_id="ask_answers")
    with gr.Accordion("Speed on this device", open=False, elem_id="ask_speed", elem_classes=["dl-card"]):
        with gr.Row(elem_classes=["dl-row"]):
            timed = gr.Radio(
                [("Father", "father"), ("Mother", "mother")], value="father", label="Model", elem_id="speed_model",
                elem_classes=["dl-seg"],
            )  # fmt: skip
            measure = gr.Button("Measure speed", size="sm", elem_id="speed_now", scale=0, min_width=160)
        with gr.Row(elem_classes=["dl-row"]):
            with gr.Column(scale=6, min_width=380, elem_classes=["dl-card"]):
                gr.HTML(
                    "<h3>Tokens a second, here</h3><p class='dl-note'>float32 as the lab computes, with the threads it "
                    "uses; vLLM and SGLang on a GPU are another matter. A child has its father's speed.</p>"
                )
                speeds = data_table("speed_table", label="Speed by batch size", empty=NO_SPEED)
            with gr.Column(scale=6, min_width=380, elem_classes=["dl-card"]):
                gr.HTML("<h3>Which cards hold it</h3><p class='dl-note'>From the plan of the father.</p>")
                cards = data_table("speed_cards", label="Cards that hold the model", height=260)
    job, shown = gr.State(""), gr.State("")
    beat = gr.Timer(1.5 if os.environ.get("SPACE_ID") else 0.4, active=False)

    def offer(pair_key: str, genes: dict[str, Any] | None, chosen: list[str]) -> list[Any]:
        pair = pair_of(lab, pair_key)
        if pair is None:
            return [gr.CheckboxGroup(choices=[], value=[]), gr.Dropdown(choices=[], value=None)]
        listed = offered(lab, pair, genes)
        keys = [key for _, key in listed]
        first = [key for key in ("father", "mother", *keys[3:4]) if key in keys]
        kept = [key for key in chosen if key in keys] or first
        picked = {} if kept == chosen else {"value": kept}
        questions = [(text.replace("\n", " ⏎ "), text) for text in questions_of(pair)]
        return [gr.CheckboxGroup(choices=listed, **picked), gr.Dropdown(choices=questions, value=None)]

    shared.child_stamp.change(offer, [shared.pair, shared.genome, models], [models, examples], **AT_ONCE)
    picking(examples)(lambda text: text or gr.skip(), examples, prompt, **LATEST)

    @guarded
    def begin(pair_key: str, text: str, who: list[str], *how: Any) -> Any:
        pair = pair_of(lab, pair_key)
        if pair is None:
            raise LabError("no pair is open; open one in Parents")
        asked = lab.chat.ask(pair, text or "", who, manner_of(*how))
        return asked, answers_html(lab.chat.replies(asked)), gr.Timer(active=True), gr.Button(interactive=True)

    asking = [shared.pair, prompt, models, tokens, heat, seed, template, thinking]
    for event in (ask.click, prompt.submit):
        event(begin, asking, [job, answers, beat, stop], **QUIET)

    def tell(asked: str, before: str) -> list[Any]:
        over = not asked or not lab.job(asked).open
        told = answers_html(lab.chat.replies(asked)) if asked else before
        return [
            told if told != before else gr.skip(),
            told,
            gr.Timer(active=False) if over else gr.skip(),
            gr.Button(interactive=False) if over else gr.skip(),
        ]

    beat.tick(tell, [job, shown], [answers, shown, beat, stop], **AT_ONCE)

    @guarded
    def halt(asked: str) -> Any:
        if asked:
            lab.cancel(asked)
        return gr.skip()

    stop.click(halt, job, stop, **QUIET)

    def show_speed(pair_key: str, who: str) -> list[Any]:
        pair = pair_of(lab, pair_key)
        if pair is None:
            return [speed_table(None, NO_SPEED), gr.skip()]
        return [speed_table(lab.chat.speed(pair, who), NO_SPEED), cards_table(plan_model(pair.father, pair.anatomy))]

    for change in (shared.child_stamp.change, timed.input):
        change(show_speed, [shared.pair, timed], [speeds, cards], **LATEST)

    @guarded
    def time_it(pair_key: str, who: str) -> Any:
        pair = pair_of(lab, pair_key)
        if pair is None:
            raise LabError("no pair is open; open one in Parents")
        lab.chat.request_speed(pair, who)
        return gr.skip()

    measure.click(time_it, [shared.pair, timed], measure, **QUIET)


def offered(lab: Lab, pair: Pair, genes: dict[str, Any] | None) -> list[tuple[str, str]]:
    """(label, key) of every model that can be asked: parents, blend, child at hand, finalists, exports, folders."""
    at_hand = lab.recipe(pair, genome_at_hand(pair, genes)).hash if pair.compatible else None
    return [(choice.label, choice.key) for choice in lab.benchmarks.models(pair, at_hand)]


def questions_of(pair: Pair) -> list[str]:
    """The first selection question of each of the pair's tasks, as a model is asked it."""
    first: dict[str, str] = {}
    for item in (pair.items_by_split or {}).get("selection", ()):
        first.setdefault(item.task, context_of(item))
    return list(first.values())[:EXAMPLES]


def manner_of(tokens: float, heat: float, seed: float | None, template: str, thinking: str) -> Manner:
    """What the controls say. Raises `LabError` for numbers that make no sense."""
    switch = {"auto": None, "chat": True, "plain": False, "on": True, "off": False}
    return Manner(int(tokens), float(heat), int(seed or 0), switch[template], switch[thinking])
