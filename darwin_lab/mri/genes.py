"""From a prescription to a place and a width for the search, and its placebo.

Takes a prescription, a layout and the anatomy; gives gene values with relative search widths, or the same
prescription with its layers permuted. Must not know: scans beyond their uncertainty, models, the optimiser.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from darwin_lab.errors import LabError
from darwin_lab.genome.ownership import owners
from darwin_lab.merging.prescription import V5_TRUST
from darwin_lab.mri.advantage import probe_weights
from darwin_lab.mri.record import DECISIVE, Scan

if TYPE_CHECKING:
    from darwin_lab.checkpoint.anatomy import Anatomy, Part
    from darwin_lab.genome.layouts import Layout
    from darwin_lab.merging.prescription import Prescription

T = TypeVar("T")
Floats = NDArray[np.float64]
TRUST = 0.5
DENSITY_PER_DEAD = 0.35
"""density_b = 1 - .35 x the mother's dead share: the published .799 at 57 % dead."""
EDGE = 0.05
"""A search starts at least this far from a gene's bounds."""
NARROW, WIDE = 0.5, 1.5
"""Relative search width of a gene where the scan is sure, and where it knows nothing."""


def prescription_genes(
    prescription: "Prescription", layout: "Layout", anatomy: "Anatomy", scan_b: Scan
) -> tuple[dict[str, float], dict[str, float]]:
    """(genes, widths): where a search starts, and how wide it looks, relative to its sigma0.

    Component, block and layer genes: least squares (the smallest solution) on the logits of mri_ratio, weighted by
    tensor size; the global gene stays neutral, mri_trust is .5 (.7 for the V5 card's advice, as that card has it),
    density_b 1 - .35 x the mother's dead share. Widths in [.5, 1.5] from the mother's scan: standard error of a layer's
    loss importance over that importance.
    Source: methods, section 1 (ours).
    """
    genes = {gene.name: gene.neutral for gene in layout.genes}
    searched = [gene for gene in layout.genes if gene.group in ("component", "block", "layer")]
    parts = [part for part in anatomy.mergeable if part.name in prescription.ratio]
    heard = [owners(part, layout, anatomy, "logit") for part in parts]
    owned = np.asarray([[gene.name in names for gene in searched] for names in heard], dtype=np.float64)
    owned = owned.reshape(len(parts), len(searched))
    size = np.asarray([part.numel for part in parts], dtype=np.float64)
    wanted = np.asarray([_logit(prescription.ratio[part.name]) for part in parts])
    if parts and searched:
        root = np.sqrt(size / size.sum())
        solution = np.linalg.lstsq(owned * root[:, None], wanted * root, rcond=1e-9)[0]
        for gene, value in zip(searched, solution, strict=True):
            share = round(float(1 / (1 + np.exp(-value))), 4)
            genes[gene.name] = min(max(share, gene.low + EDGE), gene.high - EDGE)
    report = scan_b.expert_report()
    dead = float(report.dead_share.mean()) if report is not None and report.certified else 0.0
    for gene in layout.genes:
        if gene.name == "density_b":
            genes[gene.name] = max(gene.low, 1 - DENSITY_PER_DEAD * dead)
        elif gene.name == "mri_trust":
            genes[gene.name] = V5_TRUST if prescription.mode == "card_v5" else TRUST
    doubt = _layer_doubt(scan_b)
    widths = {gene.name: 1.0 for gene in layout.genes}
    for column, gene in enumerate(searched):
        weight = np.asarray(
            [n * o for n, o, part in zip(size, owned[:, column], parts, strict=True) if part.layer is not None]
        )
        if weight.sum() > 0:
            doubts = np.asarray([doubt[part.layer] for part in parts if part.layer is not None])
            widths[gene.name] = round(NARROW + (WIDE - NARROW) * float(np.average(doubts, weights=weight)), 2)
    return genes, widths


def shuffled(prescription: "Prescription", anatomy: "Anatomy", seed: int) -> "Prescription":
    """The placebo: the same advice given to the wrong layers.

    Every layer takes another layer's level (its tensors keep their distance from it, in logits); golden layers,
    router sources and what is known of experts move along, the latter two among MoE layers. The same seed gives the
    same placebo. Raises `LabError` for a model of one layer.
    """
    if anatomy.layers < 2:
        raise LabError("a placebo permutes layers; this model has only one")
    rng = np.random.default_rng(seed)
    source = _derangement(anatomy.layers, rng)
    level = [_logit(value) for value in prescription.layer_ratio]
    ratio = dict(prescription.ratio)
    for part in anatomy.mergeable:
        if part.layer is not None and part.name in ratio:
            moved = _logit(ratio[part.name]) + level[source[part.layer]] - level[part.layer]
            ratio[part.name] = float(1 / (1 + np.exp(-moved)))
    moe = list(anatomy.moe_layers)
    partner = dict(zip(moe, [moe[i] for i in _derangement(len(moe), rng)], strict=True)) if len(moe) > 1 else {}
    return replace(
        prescription,
        ratio=ratio,
        layer_ratio=tuple(_layer_mean(ratio, anatomy.layer_parts(layer)) for layer in range(anatomy.layers)),
        golden=tuple(sorted(source.index(layer) for layer in prescription.golden)),
        router={layer: prescription.router[partner.get(layer, layer)] for layer in prescription.router},
        preserve=_moved(prescription.preserve, partner),
        utilisation=_moved(prescription.utilisation, partner),
        dead=_moved(prescription.dead, partner),
        spread=(min(ratio.values(), default=0.5), max(ratio.values(), default=0.5)),
        note=f"placebo (layers permuted, seed {seed}) of: {prescription.note}",
    )


def _moved(of_layer: dict[int, T], partner: dict[int, int]) -> dict[int, T]:
    """Every layer gets what was its partner's."""
    wanted = {layer: partner.get(layer, layer) for layer in sorted({*of_layer, *partner})}
    return {layer: of_layer[source] for layer, source in wanted.items() if source in of_layer}


def _layer_doubt(scan: Scan) -> Floats:
    """[L] in [0, 1]: error / (error + importance) of the loss, over the skills; 1 where nothing is known."""
    share = probe_weights(scan.probes)
    importance = scan.importance(DECISIVE)
    mean = np.abs(sum((w * importance[p] for p, w in share.items()), np.zeros(scan.layers)))
    variance = sum(((w * scan.error(DECISIVE, p)) ** 2 for p, w in share.items()), np.zeros(scan.layers))
    error = np.sqrt(variance)
    total = mean + error
    doubt: Floats = np.nan_to_num(np.divide(error, total, out=np.ones_like(mean), where=total > 0), nan=1.0)
    return doubt


def _derangement(count: int, rng: np.random.Generator) -> list[int]:
    """A permutation that leaves nothing in its place."""
    while True:
        order = [int(index) for index in rng.permutation(count)]
        if all(index != place for place, index in enumerate(order)):
            return order


def _layer_mean(ratio: dict[str, float], parts: tuple["Part", ...]) -> float:
    sizes = [(part.numel, ratio[part.name]) for part in parts if part.name in ratio]
    total = sum(size for size, _ in sizes)
    return sum(size * value for size, value in sizes) / total if total else 0.5


def _logit(share: float) -> float:
    clamped = min(max(share, 1e-4), 1 - 1e-4)
    return float(np.log(clamped / (1 - clamped)))
