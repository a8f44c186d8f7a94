"""Benchmark tab, part Claim check: can a published score be, and what could it show.

Takes a score in percent as printed and a number of items; gives the words of `statistics.claim`. Needs no pair.
"""

from __future__ import annotations

import gradio as gr

from darwin_lab.errors import LabError
from darwin_lab.statistics.claim import Claim, check_claim, shown
from darwin_lab.ui import words
from darwin_lab.ui.components.heading import heading
from darwin_lab.ui.figures.style import plural
from darwin_lab.ui.session import QUIET, facts, guarded, verdict
from darwin_lab.ui.tabs.benchmark_place import whole

EXAMPLES = (("90.0", 198), ("82.89", 200), ("88.89", 198))
START = verdict(
    "plain", "Paste a published score.", "Its digits count: 90.0 is rounded to a tenth, 90 to a whole percent."
)


def build() -> None:
    """Put the part on the page and wire it."""
    with gr.Column(elem_classes=["dl-card"]):
        heading("claim_head", "Claim check", words.BENCH_CLAIM, "Whether any k of n gives a published score.")
        with gr.Row(elem_classes=["dl-controls"]):
            score = gr.Textbox(
                "", label="Score as printed, %", placeholder="90.0", elem_id="claim_score", min_width=160, max_lines=1
            )
            n = gr.Textbox("", label="Items, n", placeholder="198", elem_id="claim_n", min_width=120, max_lines=1)
            check = gr.Button("Check", variant="primary", elem_id="claim_go", min_width=110)
            tries = [gr.Button(f"{text} % of {items}", size="sm", min_width=120) for text, items in EXAMPLES]
        result = gr.HTML(START, elem_id="claim_result")

    @guarded
    def answer(printed: str, items: str) -> str:
        if not printed.strip():
            raise LabError("no score given; a claim is a score in percent and a number of items, such as 90.0 and 198")
        count = whole(items, "number of items")
        try:
            return claim_words(check_claim(printed, count))
        except ValueError as error:
            raise LabError(f"{error}; give a score in percent and a number of items, such as 90.0 and 198") from None

    for event in (check.click, score.submit, n.submit):
        event(answer, [score, n], result, **QUIET)
    for button, (text, items) in zip(tries, EXAMPLES, strict=True):

        def fill(text: str = text, items: int = items) -> tuple[str, str, str]:
            return text, str(items), claim_words(check_claim(text, items))

        button.click(fill, None, [score, n, result], **QUIET)


def claim_words(claim: Claim) -> str:
    """The check as HTML: verdict, why, and the numbers."""
    score, n, digits = claim.score, claim.n, claim.decimals
    if claim.counts:
        first, last = claim.counts[0], claim.counts[-1]
        count = f"{first:,}" if first == last else f"{first:,} to {last:,}"
        head = verdict(
            "ok", f"{score} % of {n:,} is possible.", f"{count} right answer{'' if last == 1 else 's'} round to it."
        )
        fitting = count
    else:
        below, above = (f"{count:,} is {shown(count, n, digits)} %" for count in (claim.below, claim.above))
        why = [f"Of {n:,}, {below} and {above}."]
        if claim.cut:
            why.append(f"Cut off instead of rounded, {claim.above:,} would be printed so.")
        why.append(
            "No mean of up to 64 runs on the same items gives it either."
            if claim.runs is None
            else f"It could be the mean of {claim.runs} runs on the same items, the fewest that give it, or belong to "
            "another n."
        )
        head = verdict("bad", f"{score} % of {n:,} is not possible.", " ".join(why))
        fitting = "none"
    low, high = claim.interval
    rows = [
        ("right answers that give it", fitting, f"of {n:,}"),
        ("95 % interval", f"{100 * low:.1f} to {100 * high:.1f} %", "Wilson, nearest count"),
        (
            "smallest gap",
            f"{100 * claim.gap:.1f} points" if claim.gap < 1 else "none",
            f"to another model, seen four times in five on {plural(n, 'item')}",
        ),
    ]
    return head + f"<div class='dl-claim'>{facts(rows)}</div>"
