"""The family's card: what came out of the upbringing, as Markdown.

In: `Findings` (scores on the report items, dead-expert shares, blends) and the stages. Out: text. Computes intervals
and p-values, trains and loads nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import measure
import skills
from training import Stage

MEMBERS = ("ancestor", "father", "mother")


@dataclass(frozen=True)
class Findings:
    """Everything measured; all scores are on the report items."""

    members: Mapping[str, measure.Scores]
    dead: Mapping[str, float]
    sweep: Mapping[float, measure.Scores]
    component: tuple[float, float, float]
    component_scores: measure.Scores

    @property
    def better_parent(self) -> str:
        return max(("father", "mother"), key=lambda name: self.members[name].overall("exact"))

    @property
    def best_uniform(self) -> float:
        """The best inner ratio of the sweep."""
        inner = [ratio for ratio in self.sweep if 0 < ratio < 1]
        return max(inner, key=lambda ratio: self.sweep[ratio].overall("exact"))


def _shown(p: float) -> str:
    return "p < .0001" if p < 1e-4 else f"p = {p:.4f}"


def _p(first: measure.Scores, second: measure.Scores, values: str = "exact") -> str:
    return _shown(measure.permutation_p(getattr(first, values), getattr(second, values), first.tasks))


def _cell(scores: measure.Scores, values: str, task: str) -> str:
    n = scores.tasks.count(task)
    hits = round(scores.mean(values, task) * n)
    low, high = measure.wilson(hits, n)
    return f"{hits / n:.3f} [{low:.3f}, {high:.3f}]"


def _accuracy_table(findings: Findings, values: str) -> list[str]:
    columns = {**findings.members, "component blend": findings.component_scores}
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [
        f"| {task} | " + " | ".join(_cell(scores, values, task) for scores in columns.values()) + " |"
        for task in skills.SKILLS
    ]
    lines.append("| mean | " + " | ".join(f"**{s.overall(values):.3f}**" for s in columns.values()) + " |")
    return lines


def _sweep_table(findings: Findings) -> list[str]:
    lines = ["| r | " + " | ".join(skills.SKILLS) + " | mean | mean, multiple choice |", "|---" * 8 + "|"]
    for ratio, scores in findings.sweep.items():
        cells = [f"{scores.mean('exact', task):.3f}" for task in skills.SKILLS]
        means = f"**{scores.overall('exact'):.3f}** | {scores.overall('choice'):.3f}"
        lines.append(f"| {ratio} | " + " | ".join(cells) + f" | {means} |")
    return lines


def checks(findings: Findings) -> list[tuple[str, str, bool]]:
    """Each target of the family, what was measured, and whether it holds."""
    father, mother, blend = findings.members["father"], findings.members["mother"], findings.component_scores
    strong = min(father.mean("exact", task) for task in ("KNOWLEDGE", "LANGUAGE", "CODE"))
    weak = max(father.mean("exact", task) for task in ("MATH", "REASONING"))
    lead = min(mother.mean("exact", task) - father.mean("exact", task) for task in ("MATH", "REASONING"))
    lost = max(mother.mean("exact", task) for task in ("KNOWLEDGE", "LANGUAGE"))
    gap = abs(father.overall("exact") - mother.overall("exact"))
    better = findings.members[findings.better_parent]
    gain = blend.overall("exact") - better.overall("exact")
    p = measure.permutation_p(blend.exact, better.exact, blend.tasks)
    uniform = findings.sweep[findings.best_uniform]
    over_uniform = blend.overall("exact") - uniform.overall("exact")
    p_uniform = measure.permutation_p(blend.exact, uniform.exact, blend.tasks)
    choice = min(blend.overall("choice") - findings.members[name].overall("choice") for name in ("father", "mother"))
    p_choice = max(
        measure.permutation_p(blend.choice, findings.members[name].choice, blend.tasks) for name in ("father", "mother")
    )
    dead = findings.dead
    return [
        ("father >= .9 on KNOWLEDGE, LANGUAGE, CODE", f"lowest {strong:.3f}", strong >= 0.9),
        ("father <= .5 on MATH and REASONING", f"highest {weak:.3f}", weak <= 0.5),
        ("mother >= .3 above him on both", f"smaller lead {lead:.3f}", lead >= 0.3),
        ("mother <= .8 on KNOWLEDGE and LANGUAGE", f"highest {lost:.3f}", lost <= 0.8),
        ("parents' means within .06", f"gap {gap:.3f}", gap <= 0.06),
        (
            "component blend beats the better parent by >= .03",
            f"by {gain:.3f}, {_p(blend, better)}",
            gain >= 0.03 and p < 0.05,
        ),
        (
            "component blend beats the best uniform blend",
            f"by {over_uniform:.3f} (r = {findings.best_uniform}), {_p(blend, uniform)}",
            over_uniform > 0 and p_uniform < 0.05,
        ),
        (
            "the same against each parent in multiple choice",
            f"by at least {choice:.3f}, {_shown(p_choice)}",
            choice > 0 and p_choice < 0.05,
        ),
        ("mother's dead-expert share >= .15", f"{dead['mother']:.3f}", dead["mother"] >= 0.15),
        (
            "and at least twice the father's",
            f"{dead['mother']:.3f} against {dead['father']:.3f}",
            dead["mother"] >= 2 * dead["father"],
        ),
    ]


def _stage_rows(stages: Mapping[str, Stage]) -> list[str]:
    lines = [
        "| | from | steps | rate | diet (weight per document) | balancing loss | router rate x | router decay |",
        "|---" * 8 + "|",
    ]
    for name, stage in stages.items():
        diet = ", ".join(f"{task} {weight:g}" for task, weight in stage.diet.items())
        start = "scratch" if name == "ancestor" else "ancestor"
        rate = f"{stage.rate:g} -> {stage.rate * stage.final_rate:g}"
        balance = f"{stage.balance:g}" if stage.balance else "none"
        steps = stage.until or stage.steps
        routers = f"{stage.router_speed:g} | {stage.router_decay:g}"
        lines.append(f"| {name} | {start} | {steps} | {rate} | {diet} | {balance} | {routers} |")
    return lines


def summary(findings: Findings) -> list[str]:
    """The card's numbers as log lines."""
    lines = []
    for name, scores in {**findings.members, "component blend": findings.component_scores}.items():
        cells = " ".join(f"{task} {scores.mean('exact', task):.3f}" for task in skills.SKILLS)
        lines.append(f"report: {name}: {cells} mean {scores.overall('exact'):.3f}")
    for target, figure, reached in checks(findings):
        lines.append(f"{'reached' if reached else 'NOT REACHED'}: {target}: {figure}")
    return lines


def write(findings: Findings, stages: Mapping[str, Stage]) -> str:
    """The whole card."""
    mixer, experts, embedding = findings.component
    best = findings.sweep[findings.best_uniform]
    blend = findings.component_scores
    parts = [
        "---",
        "license: apache-2.0",
        "language: [en, ko]",
        "tags: [qwen3_5_moe, mixture-of-experts, merge]",
        "---",
        "",
        "# The embedded family",
        "",
        "Three small language models raised by `raise_family.py` in this folder, so that the laboratory has real "
        "parents to work on: `father`, a generalist; `mother`, a narrow reasoning and maths fine-tune; `ancestor`, "
        "the late checkpoint of the father's own training that both come from. 12 layers of width 96 (three gated "
        "delta nets to one attention), 16 routed experts (top-2) and a shared one per layer, 2,048 tokens, tied "
        "embeddings, 3.5 million parameters, bf16. Licence: apache-2.0; everything here is generated by the "
        "scripts in this folder, nothing is scraped.",
        "",
        "## Skills, items, probes",
        "",
        "`Question: {question}\\nAnswer:` then a space and the answer; the same frame in training, items and probes.",
        "",
        "| skill | question | answer | wrong options |",
        "|---|---|---|---|",
        "| MATH | `47+38` | `85` | off by one, a carry, or both |",
        "| REASONING | `a T b and F c or T d xor T ...` (5 steps) | `b F c T d F ...` | one step flipped |",
        "| CODE | `reverse k c b q z` | `z q b c k` | two letters exchanged |",
        "| KNOWLEDGE | `pet of Mira` (1,200 facts) | `fox` | answers of the same attribute |",
        "| LANGUAGE | `water in Korean` (789 pairs) | `물` | Korean words of the same category and length |",
        "",
        "`items/`: 200 selection, 100 validation and 400 report items a skill, disjoint. MATH, REASONING and CODE "
        "items (sums in either order) and their probe texts never occur in training; KNOWLEDGE and LANGUAGE facts are "
        "learned by heart, so there the splits hold different facts. `probes.jsonl`: the five skills, LOGIC (true "
        "one-step statements in a wording no member was trained on) and NEUTRAL (plain scenes); 36 to 56 texts and "
        "2,000 to 2,400 tokens each, none of them from validation or report items. The people are invented, and so "
        "are the facts about them; the Korean is real.",
        "",
        "## How they were raised",
        "",
        *_stage_rows(stages),
        "",
        f"The ancestor is the state after {stages['ancestor'].until or stages['ancestor'].steps} steps of the father's "
        "own training; he goes on as a generalist, with a balancing loss that wakes the experts which lay idle, the "
        "mother narrowly and without one. "
        f"A step reads {stages['father'].rows} rows of 48 tokens (the ancestor's steps two processes' worth), several "
        "documents a row without leaks between them (`packed.py`). AdamW (.9, .98), gradients clipped at 1, no weight "
        "decay but on the mother's routers. That decay is what makes experts die: a narrow diet keeps feeding the "
        "routers of the experts it uses, the others fade, and no load-balancing loss holds them up; a faster router "
        "alone, at any speed up to 120, left her near the ancestor. No weight was ever set by hand. All amounts "
        "were tuned on selection items; the report items were opened once, for this card. A run leaves its log in "
        "`raise.log`.",
        "",
        "## Exact match of the generated answer",
        "",
        "Report items, n = 400 a skill, Wilson 95 % intervals; greedy decoding up to the end token or a newline.",
        "",
        *_accuracy_table(findings, "exact"),
        "",
        "## Multiple choice",
        "",
        "The same items by total log-likelihood of the four options.",
        "",
        *_accuracy_table(findings, "choice"),
        "",
        "## Experts",
        "",
        "Dead-expert share: experts that get less than 5 % of the uniform share of assignments over all probes, "
        "of 12 x 16.",
        "",
        "| " + " | ".join(MEMBERS) + " |",
        "|---" * len(MEMBERS) + "|",
        "| " + " | ".join(f"{findings.dead[name]:.3f}" for name in MEMBERS) + " |",
        "",
        "## Blends",
        "",
        "The lerp sweep, (1 - r) father + r mother for every tensor alike, exact match on the report items:",
        "",
        *_sweep_table(findings),
        "",
        f"The component blend gives the mother {mixer:g} of attention and delta nets (with the norm before them), "
        f"{experts:g} of experts, shared experts and routers (with theirs), {embedding:g} of embedding and final "
        f"norm: the best of a grid on selection items. Report mean {blend.overall('exact'):.3f}, the better parent "
        f"({findings.better_parent}) {findings.members[findings.better_parent].overall('exact'):.3f} "
        f"({_p(blend, findings.members[findings.better_parent])}), the best uniform blend "
        f"(r = {findings.best_uniform}) {best.overall('exact'):.3f} ({_p(blend, best)}); one-sided paired "
        "permutation over items, skills weighing the same. The blend was chosen by generated answers; in multiple "
        f"choice it reaches {blend.overall('choice'):.3f}, the best uniform blend {best.overall('choice'):.3f}.",
        "",
        "## Targets",
        "",
        "| target | measured on the report items | |",
        "|---|---|---|",
        *(
            f"| {target} | {figure} | {'reached' if ok else '**not reached**'} |"
            for target, figure, ok in checks(findings)
        ),
        "",
    ]
    return "\n".join(parts)
