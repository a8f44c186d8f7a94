"""The genome editor of the page: all genes of a layout as sliders, with the MRI's advice, locks and one `input` event.

Takes rows of genes as its value (`editor_value`); what comes back from the browser is read by `genes_from`, which
trusts nothing: it keeps the genes of the layout, clamps them, and drops everything else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from darwin_lab.errors import LabError
from darwin_lab.genome.layouts import BANDS, Gene, Layout

LABELS = {
    "ratio": "whole model", "global_ratio": "whole model", "attn": "attention", "attn_ratio": "attention",
    "ffn": "FFN + experts", "ffn_ratio": "FFN + experts", "embed_ratio": "embedding", "embed": "embedding",
    "lm_head": "output head", "norm": "norms", "router": "routers", "density_a": "father's change",
    "density_b": "mother's change", "mri_trust": "trust in the MRI", "merge_method_weight": "dare_ties share",
}  # fmt: skip
ROUTER_LABELS = {"A": " · router A", "B": " · router B"}
_JS = (Path(__file__).parent / "genome_editor.js").read_text(encoding="utf-8")


def genome_editor(elem_id: str = "genome_editor") -> gr.HTML:
    """An empty editor; feed it with `editor_value`. Its `input` event fires on every slider, number or lock change."""
    return gr.HTML(
        {"genes": [], "stamp": ""},
        html_template="<div class='dl-genome' role='group' aria-label='Genome'></div>",
        js_on_load=_JS,
        apply_default_css=False,
        elem_id=elem_id,
    )


def editor_value(
    layout: Layout,
    genes: Mapping[str, float],
    *,
    stamp: str,
    advice: Mapping[str, float] | None = None,
    locked: Sequence[str] = (),
    idle: Mapping[str, str] | None = None,
    router: str | tuple[str, ...] = "blend",
) -> dict[str, Any]:
    """The value for a genome. `stamp` names what was loaded: a new stamp brings new values and resets the marks of
    changed genes; under the same stamp the browser keeps what the user moved or locked and takes only the advice.

    `idle`: gene -> why it does nothing under the chosen operator; such a gene is greyed out with the reason. `router`:
    whose router rows, shown beside the blocks where it differs by block.
    """
    why = dict(idle or {})
    sources = dict(zip(layout.block_names, router, strict=False)) if isinstance(router, tuple) else {}
    rows = []
    for gene in layout.genes:
        mri = (advice or {}).get(gene.name)
        rows.append(
            {
                "name": gene.name,
                "label": label_of(gene, layout) + ROUTER_LABELS.get(sources.get(gene.name, ""), ""),
                "group": gene.group,
                "value": float(genes.get(gene.name, gene.neutral)),
                "low": gene.low,
                "high": gene.high,
                "neutral": gene.neutral,
                "mri": None if mri is None else float(mri),
                "locked": gene.name in locked,
                "idle": why.get(gene.name, ""),
                "help": f"{gene.help} Gene {gene.name}.",
                "layers": layout.layers_of(gene.name),
                "people": gene.group in ("global", "component", "block", "layer"),
            }
        )
    return {"genes": rows, "stamp": stamp}


def label_of(gene: Gene, layout: Layout) -> str:
    """A gene's name in words; blocks and layers by the layers they cover, with their name where they have one."""
    covered = layout.layers_of(gene.name)
    if covered is None:
        return LABELS.get(gene.name, gene.name.replace("_", " "))
    layers = " – ".join(f"L{layer}" for layer in dict.fromkeys(covered))
    return f"{gene.name} {layers}" if gene.name in BANDS else layers


def genes_from(payload: Any, layout: Layout) -> tuple[dict[str, float], tuple[str, ...]]:
    """(genes, locked names) out of what the browser sent; unknown genes are dropped, values clamped to their range.

    Raises LabError for a value that is no number.
    """
    known = {gene.name: gene for gene in layout.genes}
    genes = {name: gene.neutral for name, gene in known.items()}
    locked: list[str] = []
    rows = payload.get("genes", []) if isinstance(payload, Mapping) else []
    for row in rows if isinstance(rows, list) else []:
        gene = known.get(str(row.get("name"))) if isinstance(row, Mapping) else None
        if gene is None:
            continue
        value = row.get("value")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise LabError(f"gene {gene.name} is not a number; move its slider")
        genes[gene.name] = round(min(max(float(value), gene.low), gene.high), 6)
        if row.get("locked") is True:
            locked.append(gene.name)
    return genes, tuple(locked)
