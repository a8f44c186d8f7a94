"""What the Genome tab shows of a genome: editor rows, effective ratios, facts, recipe and score tables.

Takes a pair, a genome and its recipe; gives values for components. Reads the store through the lab, wires nothing.
"""

from __future__ import annotations

import html
from typing import Any

import gradio as gr

from darwin_lab.errors import LabError
from darwin_lab.genome.genome import Genome, operators_of
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.merging.operators import IGNORES_RATIO, NEEDS_ANCESTOR, OPTIONS, USES_DRAWS, Option
from darwin_lab.merging.prescription import MODES, Prescription
from darwin_lab.merging.recipe import Recipe, inert_genes
from darwin_lab.ui.components.data_table import Column, Row, table_value
from darwin_lab.ui.components.genome_editor import editor_value
from darwin_lab.ui.figures.ratio_strip import ratio_strip
from darwin_lab.ui.figures.style import NAME, Chart
from darwin_lab.ui.session import COMPONENTS, facts, say

WHY_IDLE = {
    "density_a": "{operator} keeps the father whole: this works with an ancestor, in ties, dare_ties, della and so on.",
    "density_b": "{operator} drops nothing by density.",
    "mri_trust": "No prescription yet: scan the pair first.",
    "merge_method_weight": "Only the operator mix reads it.",
}
OPERATOR_WORDS = {
    "lerp": "the straight line between both parents",
    "slerp": "the arc between both parents, which keeps the length of the weights",
    "dare": "drops a random part of the mother's difference and adds the rest to the father",
    "mix": "part lerp, part dare_ties (dare without an ancestor)",
    "nearswap": "takes the mother where she is near the father, and keeps him where she is far",
    "arcee_fusion": "copies the mother only where her difference stands out; there is no ratio",
    "passthrough": "one parent whole, whichever has the larger share, times a factor",
    "task_arithmetic": "adds both parents' changes to the ancestor, as strongly as λ says",
    "ties": "keeps the largest changes, lets each weight vote on a sign, averages those that agree",
    "dare_ties": "drops changes at random, rescales the rest, lets each weight vote on a sign",
    "breadcrumbs": "drops the smallest and the very largest changes",
    "della": "drops changes at random, small ones more often than large ones",
    "sce": "keeps where the parents change most, and weighs each by how much it changes",
}
OPTION_LABELS = {
    "lambda": "λ, strength",
    "gamma": "γ, outliers",
    "epsilon": "ε, spread",
    "t": "t, reach",
    "scale": "Factor",
}
OPTION_NAMES = tuple(OPTION_LABELS)
ROUTER_WORDS = (("Blended like the rest", "blend"), ("The father's", "A"), ("The mother's", "B"))
EXPERTS_WORDS = (
    ("Blend like the rest", "blend"),
    ("Preserve: father's where the mother's are dead", "preserve"),
    ("Usage: to the parent that uses them", "usage"),
)


def operator_choices(layout: str, *, has_ancestor: bool) -> list[tuple[str, str]]:
    """(label, name) of the operators this layout and pair allow: those without an ancestor first."""
    names = [name for name in operators_of(layout) if has_ancestor or not NEEDS_ANCESTOR[name]]
    return [(f"{name} · on the ancestor" if NEEDS_ANCESTOR[name] else name, name) for name in names]


def advice_of(lab: Lab, pair: Pair, genome: Genome) -> Prescription | None:
    """The advice a genome goes by: that of its prescription, or of the layer swaps; None while there is none, and while
    the scans that would carry it over to genes are not there."""
    try:
        return lab.advice(pair, genome.prescription) if lab.scan(pair, "mother") is not None else None
    except LabError:
        return None


def choice_values(lab: Lab, pair: Pair, genome: Genome) -> list[Any]:
    """What the widgets of `choices` show, in their order; those that do nothing for this pair and operator hide."""
    advice = advice_of(lab, pair, genome)
    operator = genome.operator
    masked, experts = operator in USES_DRAWS, pair.anatomy.experts > 0
    source = genome.router if isinstance(genome.router, str) else ",".join(genome.router)
    by_block = () if isinstance(genome.router, str) else ((f"By block: {', '.join(genome.router)}", source),)
    known = OPTIONS.get(operator, {})
    return [
        genome.layout,
        gr.Dropdown(operator_choices(genome.layout, has_ancestor=pair.ancestor is not None), value=operator),
        genome.reading,
        gr.Number(genome.seed, visible=masked),
        gr.Number(genome.transplant, visible=operator not in IGNORES_RATIO),
        gr.Dropdown(value=genome.rescale, visible=masked),
        gr.Dropdown(value=genome.experts, visible=experts),
        gr.Dropdown([*ROUTER_WORDS, *by_block], value=source, visible=experts),
        advice.mode if advice else None if genome.prescription else MODES[0],
        *(
            gr.Number(genome.options.get(name, known[name].default), visible=True, info=option_words(known[name]))
            if name in known
            else gr.Number(None, visible=False)
            for name in OPTION_NAMES
        ),
    ]


def option_words(option: Option) -> str:
    """What an option does and its range."""
    return f"{option.what[0].upper()}{option.what[1:]}; {option.low:g} to {option.high:g}"


def operator_words(operator: str) -> str:
    """What an operator does, in a line."""
    return f"<p class='dl-note'><b>{operator}</b>: {html.escape(OPERATOR_WORDS[operator])}.</p>"


def editor_of(lab: Lab, pair: Pair, genome: Genome, stamp: str) -> dict[str, Any]:
    """The editor's value for a genome: advice of the MRI, idle genes with their reason."""
    layout = genome.layout_of(pair.anatomy.layers)
    advice = advice_of(lab, pair, genome)
    told = lab.advised_genome(pair, genome.layout, advice=advice, blocks=genome.blocks).genes if advice else {}
    inert = inert_genes(
        genome, pair.anatomy, has_prescription=advice is not None, has_ancestor=pair.ancestor is not None
    )
    idle = {name: why_idle(name, genome) for name in inert}
    return editor_value(layout, genome.genes, stamp=stamp, advice=told, idle=idle, router=genome.router)


def why_idle(name: str, genome: Genome) -> str:
    """Why a gene changes nothing under the genome's choices."""
    if name in ("density_a", "density_b", "merge_method_weight"):
        return WHY_IDLE[name].format(operator=genome.operator)
    if genome.operator in IGNORES_RATIO:
        return f"{genome.operator} takes no ratio; only 0 and 1 act, as copies of a parent."
    if name in WHY_IDLE:
        return WHY_IDLE[name]
    if genome.pinned and genome.reading != "component" and name.startswith(("block_", "layer_")):
        return "Its layers are pinned, whatever the genes say."
    if genome.layout == "v5":
        return "Every layer is in a block, whose ratio holds for all its tensors."
    if genome.reading == "component":
        return "This reading looks at one gene a tensor, and another comes first."
    return "This model has no such tensors."


def strip_chart(lab: Lab, pair: Pair, genome: Genome, recipe: Recipe) -> Chart:
    """Effective ratios of the recipe, with the MRI's advice."""
    advice = advice_of(lab, pair, genome)
    ratios = {name: recipe.layer_ratios(None if name == "all" else name) for name in COMPONENTS}
    return ratio_strip(
        ratios,
        layers=pair.anatomy.layers,
        advised=advice.layer_ratio if advice is not None else None,
        blocks=genome.layout_of(pair.anatomy.layers).blocks,
        outside={"embedding": recipe.component_ratio("embed")},
    )


def genome_words(genome: Genome, recipe: Recipe) -> str:
    """Hashes and what the recipe comes to."""
    rows = list(recipe.rows.values())
    merged = sum(row.action == "merge" for row in rows)
    moved = {who: sum(row.transplant == who for row in rows) for who in ("father", "mother")}
    shares = [row.ratio for row in rows if row.component]
    needs = " · needs the ancestor" if NEEDS_ANCESTOR.get(genome.operator) else ""
    told = facts(
        [
            ("#genome", genome.hash, ""),
            ("#child (recipe)", recipe.hash, ""),
            ("tensors merged", f"{merged:,}", f"of {len(rows):,}{needs}"),
            ("ratios reach", f"{min(shares):.2f} – {max(shares):.2f}", "mother's share"),
            ("transplants", f"{moved['father']} / {moved['mother']}", "father / mother"),
        ]
    )
    return told + "".join(say(warning) for warning in (*pins_words(genome), *recipe.warnings))


def pins_words(genome: Genome) -> tuple[str, ...]:
    """Which layers are pinned, and where."""
    if not genome.pinned:
        return ()
    told = ", ".join(f"L{layer} at {share:.3f}" for layer, share in genome.pinned.items())
    return (f"Pinned by mending, whatever the genes say: {told}.",)


def score_words(lab: Lab, pair: Pair, child: str) -> list[Any]:
    """The child beside father, mother and blend on selection items, and one sentence."""
    if pair.items_by_split is None:
        return ["", table_value((), (), empty="This pair came without benchmark items; add them in Parents to score.")]
    found = {who: lab.score(pair, child if who == "child" else who) for who in ("child", "father", "mother", "blend")}
    tasks = next((list(score.benchmarks()) for score in found.values() if score is not None), [])
    rows = []
    for who, score in found.items():
        if score is None:
            continue
        benches = score.benchmarks()
        rows.append(Row(who, (NAME[who], score.mean_p_gold, score.mean_acc, *(benches[t].acc for t in tasks)), who))
    columns = (
        Column("model"), Column("mean p(gold)", "number", 4), Column("mean accuracy", "number", 3),
        *(Column(task.lower(), "number", 3) for task in tasks),
    )  # fmt: skip
    scored, father, mother = found["child"], found["father"], found["mother"]
    if scored is None:
        press = "Press “Score this genome” to see it beside both parents."
        return [say(press) if rows else "", table_value(columns, rows, empty=press)]
    if father is None or mother is None:
        return ["", table_value(columns, rows)]
    better = max(("father", father.mean_p_gold), ("mother", mother.mean_p_gold), key=lambda named: named[1])
    gap = scored.mean_p_gold - better[1]
    side = "above" if gap > 0 else "below"
    sentence = f"p(gold) {abs(gap):.4f} {side} the better parent ({better[0]}) on {scored.n} selection items."
    return [say(f"{sentence} Selection items choose; report items, in Child, decide."), table_value(columns, rows)]
