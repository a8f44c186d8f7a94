"""The card of the Genome tab that predicts: what moving each gene a little would do to each probe.

Takes the genome at hand; gives its gradient view from the store, and queues one when asked. Knows no arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr
import numpy as np

from darwin_lab.errors import LabError
from darwin_lab.genome.layouts import Layout
from darwin_lab.lab.lab import Lab
from darwin_lab.mri.gradient import Gradients, PathRow
from darwin_lab.ui import words
from darwin_lab.ui.components.chart import chart_card
from darwin_lab.ui.components.data_table import Column, Row, data_table, table_value
from darwin_lab.ui.components.genome_editor import label_of
from darwin_lab.ui.components.heading import heading
from darwin_lab.ui.components.job_line import job_line
from darwin_lab.ui.figures.gene_slopes import gene_slopes
from darwin_lab.ui.figures.style import Chart, nothing
from darwin_lab.ui.session import AT_ONCE, QUIET, Shared, genome_at_hand, guarded, pair_of, say, work_of

STEP = 0.1
NOT_YET = "Press “Predict”: one backward pass over the probe texts tells what a small move of every gene would do."
UNDER_WAY = "The probe texts are read forward and backward; the prediction comes when all are."
WAITS = "The prediction is waiting for its turn; the jobs before it are in the bar at the foot of the page."
ELSEWHERE = "The genome has changed since; press “Predict” for the one at hand."
NO_PATH = "Comes with the first prediction of a pair."


def build(shared: Shared) -> None:
    """Put the card on the page and wire it."""
    lab = shared.lab
    with gr.Accordion("What would moving a gene do?", open=False, elem_id="gradient_card", elem_classes=["dl-card"]):
        with gr.Row(elem_classes=["dl-row"]):
            about = gr.HTML(say(NOT_YET), elem_id="gradient_about", min_width=420)
            with gr.Column(scale=0, min_width=220):
                go = gr.Button("Predict", elem_id="gradient_go")
                job_line("gradient_progress", "gradients")
        with gr.Row(elem_classes=["dl-row"]):
            with gr.Column(scale=8, min_width=480):
                slopes = chart_card(
                    "gene_slopes", "Predicted effect of each gene", words.GRADIENT, empty=NOT_YET, height=340
                )
            with gr.Column(scale=4, min_width=320, elem_classes=["dl-card"]):
                heading("gradient_path_head", "From father to mother", words.GRADIENT_PATH, "nats a token")
                path = data_table("gradient_path", label="From father to mother", empty=NO_PATH)

    def show(pair_key: str, at_hand: dict[str, Any] | None) -> list[Any]:
        return shown(lab, pair_key, at_hand)

    shared.child_stamp.change(show, [shared.pair, shared.genome], [about, slopes, path, go], **AT_ONCE)

    @guarded
    def predict(pair_key: str, at_hand: dict[str, Any] | None) -> Any:
        pair = pair_of(lab, pair_key)
        if pair is None:
            raise LabError("no pair is open; open one in Parents")
        lab.trials.request_gradients(pair, genome_at_hand(pair, at_hand))
        return gr.Button("Under way", interactive=False)

    go.click(predict, [shared.pair, shared.genome], go, **QUIET)


def shown(lab: Lab, pair_key: str, at_hand: dict[str, Any] | None) -> list[Any]:
    """Words, chart, table and button for the genome at hand."""
    pair = pair_of(lab, pair_key)
    job = work_of(lab, "gradients")
    queued = job is not None and job.state == "queued"
    genome = genome_at_hand(pair, at_hand) if pair is not None else None
    try:
        view = lab.trials.gradients(pair, genome) if pair is not None and genome is not None else None
        path = lab.trials.path(pair) if pair is not None else None
        why = NOT_YET if path is None else ELSEWHERE
        if job is not None:
            why = WAITS if queued else UNDER_WAY
    except LabError as error:
        view, path, why = None, None, str(error)
    asked = "Waiting for its turn" if queued else "Under way" if job else "Predict"
    button = gr.Button(asked, interactive=job is None and view is None)
    table = path_table(path) if path else table_value((), (), empty=NO_PATH)
    trust = explained_words(path) if path else ""
    if pair is None or genome is None or view is None:
        return [say(why) + say(trust), nothing(why).wire(), table, button]
    names = labels_of(genome.layout_of(pair.anatomy.layers))
    return [say(view_words(view, names)) + say(trust), slope_chart(view, names).wire(), table, button]


def labels_of(layout: Layout) -> dict[str, str]:
    """Gene -> its name in the editor; with the gene's own beside it where two genes cover the same layers."""
    named = {gene.name: label_of(gene, layout) for gene in layout.genes}
    every = list(named.values())
    return {gene: label if every.count(label) == 1 else f"{label} ({gene})" for gene, label in named.items()}


def explained_words(rows: tuple[PathRow, ...]) -> str:
    """On which probes the slopes leave less than half of the measured difference over, and on which more."""
    good = [row.probe for row in rows if abs(row.residual) < abs(row.difference) / 2]
    poor = [row.probe for row in rows if row.probe not in good]
    if not good:
        return "On no probe do slopes explain half of the parents' difference: do not rely on them on this pair."
    told = f"Slopes explain more than half of the parents' difference on {', '.join(good)}"
    return f"{told}; not on {', '.join(poor)}." if poor else f"{told}: on every probe."


def view_words(view: Gradients, names: Mapping[str, str]) -> str:
    """What the view is of, and what it leaves out."""
    told = f"First-order prediction at child {view.recipe_hash}, for small moves of one gene at a time."
    if not view.exact:
        told += " Its operator is no lerp: the direction is that of a lerp from there."
    if view.jumps:
        left = ", ".join(f"{names.get(gene, gene)} ({count})" for gene, count in view.jumps.items())
        told += f" A threshold turns tensors into copies within the step, and those are left out: {left}."
    return told


def slope_chart(view: Gradients, names: Mapping[str, str]) -> Chart:
    """Genes by probes: slope times the step."""
    probes = tuple(view.texts)
    found = {(effect.gene, effect.probe): effect for effect in view.effects}
    value, low, high = (
        np.asarray([[STEP * getattr(found[gene, probe], name) for probe in probes] for gene in view.genes])
        for name in ("slope", "low", "high")
    )
    genes = [names.get(gene, gene) for gene in view.genes]
    return gene_slopes(value, low, high, genes=genes, probes=probes, texts=view.texts, step=STEP)


def path_table(rows: tuple[PathRow, ...]) -> dict[str, Any]:
    """The integral of the slope beside the difference it must explain."""
    columns = (
        Column("probe"),
        Column("integral", "signed", 4, "The slope summed along the straight way from father to mother"),
        Column("measured", "signed", 4, "NLL of the mother minus NLL of the father"),
        Column("residual", "signed", 4, "Measured minus integral"),
        Column("most of it", "text", None, "The piece of the way that the slopes at its two ends explain least"),
    )
    shown = [
        (
            row.probe,
            row.integral,
            row.difference,
            row.residual,
            f"{row.left:+.3f} from {row.start:.2f} to {row.end:.2f}",
        )
        for row in rows
    ]
    return table_value(columns, [Row(cells[0], cells) for cells in shown])
