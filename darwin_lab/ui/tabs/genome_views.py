"""What the Genome tab shows of a genome: editor rows, effective ratios, facts, recipe and score tables.

Takes a pair, a genome and its recipe; gives values for components. Reads the store through the lab, wires nothing.
"""

from __future__ import annotations

from typing import Any

from darwin_lab.genome.genome import Genome
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.merging.operators import NEEDS_ANCESTOR
from darwin_lab.merging.recipe import Recipe, inert_genes
from darwin_lab.ui.components.data_table import Column, Row, table_value
from darwin_lab.ui.components.genome_editor import editor_value
from darwin_lab.ui.figures.ratio_strip import ratio_strip
from darwin_lab.ui.figures.style import NAME, Chart
from darwin_lab.ui.session import COMPONENTS, facts, say

WHY_IDLE = {
    "density_a": "Needs ties, dare_ties or mix with an ancestor: {operator} keeps the father whole.",
    "density_b": "{operator} drops nothing: densities work in dare, ties, dare_ties and mix.",
    "mri_trust": "No prescription yet: scan the pair first.",
    "merge_method_weight": "Only the operator mix reads it.",
}


def choice_values(genome: Genome) -> list[Any]:
    """Values of the dropdowns, in the order of `choices`."""
    return [
        genome.layout, genome.operator, genome.reading, genome.seed, genome.transplant, genome.rescale, genome.experts,
    ]  # fmt: skip


def editor_of(lab: Lab, pair: Pair, genome: Genome, stamp: str) -> dict[str, Any]:
    """The editor's value for a genome: advice of the MRI, idle genes with their reason."""
    layout = genome.layout_of(pair.anatomy.layers)
    advice = lab.prescription(pair)
    told = lab.advised_genome(pair, genome.layout, blocks=genome.blocks).genes if advice is not None else {}
    inert = inert_genes(
        layout,
        genome.operator,
        has_prescription=advice is not None,
        has_ancestor=pair.ancestor is not None,
        reading=genome.reading,
    )
    idle = {
        name: WHY_IDLE.get(name, "This reading looks at components only.").format(operator=genome.operator)
        for name in inert
    }
    return editor_value(layout, genome.genes, stamp=stamp, advice=told, idle=idle)


def strip_chart(lab: Lab, pair: Pair, genome: Genome, recipe: Recipe) -> Chart:
    """Effective ratios of the recipe, with the MRI's advice."""
    advice = lab.prescription(pair)
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
    return facts(
        [
            ("#genome", genome.hash, ""),
            ("#child (recipe)", recipe.hash, ""),
            ("tensors merged", f"{merged:,}", f"of {len(rows):,}{needs}"),
            ("ratios reach", f"{min(shares):.2f} – {max(shares):.2f}", "mother's share"),
            ("transplants", f"{moved['father']} / {moved['mother']}", "father / mother"),
        ]
    )


def recipe_rows(recipe: Recipe) -> dict[str, Any]:
    """The recipe as a table."""
    columns = (
        Column("tensor", "code"),
        Column("layer", "number"),
        Column("role"),
        Column("action"),
        Column("mother's share", "number", 4),
        Column("operator"),
        Column("why"),
    )
    rows = (
        Row(
            row.name,
            (
                row.name, row.layer, row.role.replace("_", " "), row.action, row.ratio,
                row.operator if row.action == "merge" else "", row.why,
            ),
        )
        for row in recipe.rows.values()
    )  # fmt: skip
    return table_value(columns, rows)


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
        return ["", table_value(columns, rows, empty="Press “Score this genome” to see it beside both parents.")]
    if father is None or mother is None:
        return ["", table_value(columns, rows)]
    better = max(("father", father.mean_p_gold), ("mother", mother.mean_p_gold), key=lambda named: named[1])
    gap = scored.mean_p_gold - better[1]
    side = "above" if gap > 0 else "below"
    sentence = f"p(gold) {abs(gap):.4f} {side} the better parent ({better[0]}) on {scored.n} selection items."
    return [say(f"{sentence} Selection items choose; report items, in Child, decide."), table_value(columns, rows)]
