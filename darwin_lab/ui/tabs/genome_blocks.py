"""The block card of the Genome tab: blocks typed or pasted as the cards print them, and what the MRI says of each.

Takes the genome at hand; gives a new one to load. Where blocks begin may be equal or follow the change points of the
MRI's layer profile. Knows no gene but those of blocks.
"""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np

from darwin_lab.errors import LabError
from darwin_lab.genome.block_text import EXAMPLE, Block, genome_of_blocks, read_blocks, text_of_blocks, with_blocks
from darwin_lab.genome.genome import Genome, genome_from_json, operators_of
from darwin_lab.genome.layouts import BLOCK_LAYOUTS
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.merging.prescription import Prescription
from darwin_lab.ui import words
from darwin_lab.ui.components.chart import chart_card
from darwin_lab.ui.components.data_table import Column, Row, data_table, table_value
from darwin_lab.ui.figures.block_recipe import block_recipe
from darwin_lab.ui.figures.style import Chart, nothing
from darwin_lab.ui.session import (
    AT_ONCE,
    LATEST,
    PICKED,
    QUIET,
    Shared,
    genome_at_hand,
    guarded,
    layer_clicked,
    pair_of,
    say,
    to_load,
)
from darwin_lab.ui.tabs.genome_views import advice_of

EQUAL, CHANGE = "equal", "change"
SPLITS = [("Equal length", EQUAL), ("Where the MRI changes", CHANGE)]
NO_PAIR = "Open a pair in Parents first."
NO_BLOCKS = "This layout has no blocks: choose v5 or v6, or type some."
NO_ADVICE = "The MRI is not complete yet; both scans and the layer swaps say where blocks begin."


def build(shared: Shared) -> None:
    """Put the card on the page and wire it."""
    lab = shared.lab
    title = "Blocks: type a recipe, or cut where the MRI changes"
    fold = gr.Accordion(title, open=False, elem_id="blocks_fold", elem_classes=["dl-card"])
    with fold, gr.Row(elem_classes=["dl-row"]):
        with gr.Column(scale=6, min_width=420, elem_classes=["dl-card"]):
            text = gr.Textbox(
                label="Recipe by block", info="Layers, t (the mother's share), whose router rows",
                placeholder=EXAMPLE, lines=3, max_length=4000, elem_id="blocks_text",
            )  # fmt: skip
            told = gr.HTML(elem_id="blocks_told", elem_classes=["dl-line"])
            with gr.Row(elem_classes=["dl-tight"]):
                take = gr.Button("Use this recipe (layout v5)", variant="primary", size="sm", elem_id="blocks_take")
                mine = gr.Button("Write out the genome's blocks", size="sm", elem_id="blocks_mine")
            split = gr.Radio(
                SPLITS, value=EQUAL, label="Cut into blocks", elem_id="blocks_split", elem_classes=["dl-seg"]
            )
            with gr.Row(elem_classes=["dl-tight"]):
                count = gr.Textbox(
                    "", label="Number of blocks", placeholder="a tenth of the layers", max_length=4,
                    elem_id="blocks_count", min_width=180,
                )  # fmt: skip
                cut = gr.Button("Cut", size="sm", elem_id="blocks_cut", min_width=90)
        with gr.Column(scale=6, min_width=420):
            strip = chart_card(
                "block_recipe", "The recipe, block by block", words.BLOCK_RECIPE, empty=NO_BLOCKS, height=150,
                layered=True,
            )  # fmt: skip
            with gr.Column(elem_classes=["dl-card"]):
                gr.HTML("<h3>What the MRI says of each block</h3>")
                advice_line = gr.HTML(elem_id="blocks_advice", elem_classes=["dl-line"])
                table = data_table("blocks_table", label="Advice by block", empty=NO_ADVICE)

    def drawn(typed: str, pair_key: str) -> list[Any]:
        """What is typed, read at once: drawn, or the part that cannot be read named."""
        pair = pair_of(lab, pair_key)
        if pair is None or not typed.strip():
            return [say(NO_PAIR) if pair is None else "", gr.skip()]
        try:
            blocks = read_blocks(typed, pair.anatomy.layers)
        except LabError as error:
            return [say(str(error), bad=True), gr.skip()]
        return [say("Read. “Use this recipe” makes it the genome at hand."), typed_chart(blocks, pair).wire()]

    text.change(drawn, [text, shared.pair], [told, strip], **LATEST)

    @guarded
    def use(typed: str, pair_key: str, at_hand: dict[str, Any] | None) -> Any:
        pair = opened(lab, pair_key)
        genome = typed_genome(typed, pair, genome_at_hand(pair, at_hand))
        lab.recipe(pair, genome)
        gr.Info(f"{len(genome.layout_of(pair.anatomy.layers).blocks)} blocks are the genome now.", title="Recipe")
        return [to_load(genome, "blocks"), say("Used: these blocks became the genome at hand.")]

    take.click(use, [text, shared.pair, shared.genome], [shared.load, told], **QUIET)

    @guarded
    def write_out(pair_key: str, at_hand: dict[str, Any] | None) -> Any:
        pair = opened(lab, pair_key)
        written = text_of_blocks(genome_at_hand(pair, at_hand), pair.anatomy.layers)
        if not written:
            raise LabError("this layout has no ratio a block; choose v5 or v6")
        return written

    mine.click(write_out, [shared.pair, shared.genome], text, **QUIET)

    @guarded
    def recut(how: str, number: str, pair_key: str, at_hand: dict[str, Any] | None) -> Any:
        pair = opened(lab, pair_key)
        genome = genome_at_hand(pair, at_hand)
        return to_load(cut_genome(lab, pair, genome, how, number), f"cut:{how}:{number}")

    cut.click(recut, [split, count, shared.pair, shared.genome], shared.load, **QUIET)

    def show(pair_key: str, at_hand: dict[str, Any] | None) -> list[Any]:
        pair = pair_of(lab, pair_key)
        if pair is None:
            return [nothing(NO_PAIR).wire(), "", table_value((), (), empty=NO_PAIR)]
        genome = genome_at_hand(pair, at_hand)
        advice = advice_of(lab, pair, genome)
        return [genome_chart(genome, pair, advice).wire(), advice_words(advice), advice_table(genome, pair, advice)]

    for change in (shared.child_stamp.change, shared.scan_stamp.change, fold.expand):
        change(show, [shared.pair, shared.genome], [strip, advice_line, table], **AT_ONCE)
    strip.select(layer_clicked, None, shared.layer, **PICKED)


def opened(lab: Lab, pair_key: str) -> Pair:
    """The pair. LabError while there is none."""
    pair = pair_of(lab, pair_key)
    if pair is None:
        raise LabError(NO_PAIR)
    return pair


def typed_genome(typed: str, pair: Pair, at_hand: Genome) -> Genome:
    """The v5 genome of a typed recipe; operator, seed and the like stay those of the genome at hand."""
    operator = at_hand.operator if at_hand.operator in operators_of("v5") else "lerp"
    kept = {name: getattr(at_hand, name) for name in ("rescale", "seed", "experts")}
    options = at_hand.options if operator == at_hand.operator else {}
    return genome_of_blocks(typed, pair.anatomy.layers, operator=operator, options=options, **kept)


def cut_genome(lab: Lab, pair: Pair, genome: Genome, how: str, number: str = "") -> Genome:
    """The genome with its blocks cut anew: equal, or at the change points of the MRI's layer profile. `number` as it
    was typed; empty is a tenth of the layers."""
    if genome.layout not in BLOCK_LAYOUTS:
        raise LabError(f"layout {genome.layout} has no blocks; choose v5 or v6 first")
    if number.strip() and not (number.strip().isascii() and number.strip().isdigit()):
        raise LabError(f"{number.strip()[:20]!r} is no number of blocks; leave it empty for a tenth of the layers")
    count, layers = int(number) if number.strip() else None, pair.anatomy.layers
    if how == EQUAL:
        return with_blocks(genome, count, layers)
    advice = advice_of(lab, pair, genome)
    if advice is None:
        raise LabError(NO_ADVICE[0].lower() + NO_ADVICE[1:])
    if not advice.signal:
        raise LabError("the MRI carries no signal for this pair, so its profile has no change points; cut equal blocks")
    from darwin_lab.mri.prescribe import layer_blocks

    made = with_blocks(genome, layer_blocks(np.asarray(advice.layer_ratio), count, CHANGE), layers)
    return genome_from_json(made.to_json(), layers)


def typed_chart(blocks: tuple[Block, ...], pair: Pair) -> Chart:
    """A typed recipe as a strip."""
    return block_recipe(
        [(block.first, block.last) for block in blocks], [block.t for block in blocks],
        [block.router for block in blocks], layers=pair.anatomy.layers,
    )  # fmt: skip


def genome_chart(genome: Genome, pair: Pair, advice: Prescription | None) -> Chart:
    """The genome's block genes as a strip, with the MRI's golden layers."""
    layout = genome.layout_of(pair.anatomy.layers)
    if genome.layout not in BLOCK_LAYOUTS:
        return nothing(NO_BLOCKS)
    routers = [genome.router] * len(layout.blocks) if isinstance(genome.router, str) else list(genome.router)
    shares = [genome.genes[name] for name in layout.block_names]
    golden = advice.golden if advice else ()
    return block_recipe(layout.blocks, shares, routers, layers=pair.anatomy.layers, golden=golden)


def advice_words(advice: Prescription | None) -> str:
    """Golden layers in a line."""
    if advice is None:
        return ""
    if not advice.signal:
        return say(f"{advice.note[0].upper()}{advice.note[1:]}.")
    named = ", ".join(f"L{layer}" for layer in advice.golden)
    if not named:
        return say("No layer is golden: nowhere does the mother clearly lead.")
    return say(f"Golden layers, where the mother clearly leads: {named}.")


def advice_table(genome: Genome, pair: Pair, advice: Prescription | None) -> dict[str, Any]:
    """One row a block of the genome (or of the advice): its advised share, golden layers, router, experts to keep."""
    if advice is None:
        return table_value((), (), empty=NO_ADVICE)
    blocks = genome.layout_of(pair.anatomy.layers).blocks or advice.blocks
    preserve = advice.reordered(pair.expert_order).preserve
    rows = []
    for first, last in blocks:
        covered = range(first, last + 1)
        share = sum(advice.layer_ratio[layer] for layer in covered) / len(covered)
        golden = ", ".join(f"L{layer}" for layer in advice.golden if layer in covered)
        sources = {advice.router[layer] for layer in covered if layer in advice.router}
        kept = "; ".join(f"L{layer}: {', '.join(map(str, preserve[layer]))}" for layer in covered if layer in preserve)
        name = f"L{first}" if first == last else f"L{first}–L{last}"
        rows.append(Row(name, (name, share, golden or "—", " / ".join(sorted(sources)) or "—", kept or "—")))
    columns = (
        Column("block"),
        Column("MRI's share", "number", 3, "Mean of the advised mother's share over the block's layers"),
        Column("golden layers"),
        Column("router"),
        Column("experts to preserve", "long", None, "Dead in the mother, used by the father: layer: expert numbers"),
    )
    return table_value(columns, rows)
