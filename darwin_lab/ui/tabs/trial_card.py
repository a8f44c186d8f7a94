"""The card "Does the prescription help?": the trial of the advice against plain blends and its own placebo.

Takes the selected pair; gives the newest trial from the store, and queues one when asked. Knows no arithmetic.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from darwin_lab.errors import LabError
from darwin_lab.evolution.trial import Arm, Trial
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.memory import in_words
from darwin_lab.merging.prescription import MODES
from darwin_lab.ui import words
from darwin_lab.ui.components.chart import chart_card
from darwin_lab.ui.components.data_table import Column, Row, data_table, table_value
from darwin_lab.ui.components.job_line import job_line
from darwin_lab.ui.figures.style import nothing
from darwin_lab.ui.figures.trial_forest import Rival, trial_forest
from darwin_lab.ui.session import AT_ONCE, QUIET, Shared, guarded, pair_of, verdict, work_of

NOT_YET = "Not tried on this pair yet. A trial takes a few minutes and counts one look at the report items."
UNDER_WAY = "The arms answer the report items one after the other; the chart comes when all have."
WAITS = "The trial is waiting for its turn; the jobs before it are in the bar at the foot of the page."
NO_ITEMS = "This pair has no items to try it on: open it with JSONL files of items, in Parents."
ARMS = {
    "prescription": ("Prescription", "child"),
    "placebo": ("Placebo (layers permuted)", ""),
    "blend": ("0.5 blend", "blend"),
    "lerp": ("Best lerp", "blend"),
    "father": ("Father", "father"),
    "mother": ("Mother", "mother"),
    **{mode: (words.ADVICE_WORDS[mode], "") for mode in MODES[1:]},
}


def build(shared: Shared) -> None:
    """Put the card on the page and wire it."""
    lab = shared.lab
    with gr.Accordion("Does the prescription help?", open=False, elem_id="trial_card", elem_classes=["dl-card"]):
        with gr.Row(elem_classes=["dl-row"]):
            said = gr.HTML(verdict("plain", "Not tried.", NOT_YET), elem_id="trial_sentence", min_width=420)
            with gr.Column(scale=0, min_width=220):
                go = gr.Button("Run the trial", variant="primary", elem_id="trial_go")
                job_line("trial_progress", "trial")
        with gr.Row(elem_classes=["dl-row"]):
            with gr.Column(scale=7, min_width=420):
                forest = chart_card(
                    "trial_forest", "Prescription against its rivals", words.TRIAL, empty=NOT_YET, height=280
                )
            with gr.Column(scale=5, min_width=340, elem_classes=["dl-card"]):
                gr.HTML("<h3>What was scored</h3>")
                arms = data_table("trial_arms", label="What was scored", empty=NOT_YET)

    def show(pair_key: str) -> list[Any]:
        return shown(lab, pair_key)

    shared.child_stamp.change(show, shared.pair, [said, forest, arms, go], **AT_ONCE)

    @guarded
    def run(pair_key: str) -> Any:
        pair = pair_of(lab, pair_key)
        if pair is None:
            raise LabError("no pair is open; open one in Parents")
        lab.trials.request_trial(pair)
        return gr.Button("Trial under way", interactive=False)

    go.click(run, shared.pair, go, **QUIET)


def shown(lab: Lab, pair_key: str) -> list[Any]:
    """Sentence, chart, table and button for a pair."""
    pair = pair_of(lab, pair_key)
    trial = lab.trials.trial(pair) if pair is not None else None
    job = work_of(lab, "trial")
    queued = job is not None and job.state == "queued"
    able = pair is not None and pair.items_by_split is not None and pair.compatible
    offer = "Run it again" if trial else "Run the trial"
    button = gr.Button(
        "Waiting for its turn" if queued else "Trial under way" if job else offer,
        variant="secondary" if trial else "primary",
        interactive=able and job is None,
    )
    if pair is None or trial is None:
        head, why = "Not tried.", NOT_YET if able or pair is None else NO_ITEMS
        if able and job is not None:
            head, why = ("Waiting for its turn.", WAITS) if queued else ("Trial under way.", UNDER_WAY)
        return [verdict("plain", head, why), nothing(why).wire(), table_value((), (), empty=why), button]
    return [spoken(trial, lab.report_looks(pair)), forest_of(trial).wire(), arm_table(trial), button]


def spoken(trial: Trial, looks: int) -> str:
    """The sentence as a verdict, with what a probe draw is and how often report items were looked at."""
    found = set(trial.verdicts.values())
    tone = "ok" if found == {"better"} else "watch" if "better" in found else "bad" if "worse" in found else "plain"
    head, _, rest = trial.sentence.partition(": ")
    texts = sorted(set(trial.texts.values()))
    each = f"{texts[0]}" if len(texts) == 1 else f"{texts[0]} to {texts[-1]}"
    more = (
        f" A probe draw takes {each} texts of each probe with replacement; draws share their texts, so an item's "
        f"answers over the draws are one unit of the test ({trial.clusters:,} units). Report items of this pair were "
        f"looked at {looks} time{'' if looks == 1 else 's'}."
    )
    more += f" The scans that advised were made{in_words(trial.dtype)}." if in_words(trial.dtype) else ""
    return verdict(tone, f"{head}.", rest[:1].upper() + rest[1:] + more)


def forest_of(trial: Trial) -> Any:
    """The chart of the differences."""
    names = {"blend": "0.5 blend", "lerp": f"best lerp ({trial.lerp:g})", "placebo": "placebo", **words.ADVICE_WORDS}
    rows = [
        Rival(names[row.rival], row.difference, row.low, row.high, row.p_holm, row.verdict, row.by_draw)
        for row in trial.against
    ]
    return trial_forest(rows, n=trial.n, draws=trial.draws)


def arm_table(trial: Trial) -> dict[str, Any]:
    """Accuracy and p(gold) of every arm; of those with draws, the least and the most."""
    rows = []
    for name, arm in trial.arms.items():
        label, tone = ARMS[name]
        rows.append(
            Row(name, (f"{label} {trial.lerp:g}" if name == "lerp" else label, arm.acc, arm.p_gold, _spread(arm)), tone)
        )
    columns = (
        Column("model"),
        Column("accuracy", "number", 4, f"Unweighted mean over {len(trial.tasks)} tasks, n = {trial.n:,}"),
        Column("p(gold)", "number", 4, "Mean probability of the right option"),
        Column("draws, least to most"),
    )
    return table_value(columns, rows)


def _spread(arm: Arm) -> str:
    return f"{min(arm.by_draw):.4f} to {max(arm.by_draw):.4f}" if len(arm.by_draw) > 1 else ""
