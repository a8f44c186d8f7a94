"""The recipe: one row a tensor that decides the child's bytes.

genome + prescription + anatomy -> recipe is a pure function (`make_recipe`); `uniform_recipe` is the
one-number form. Reads no weights. Ratio is the mother's share everywhere.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from darwin_lab.checkpoint.anatomy import FUSED, Anatomy, Part
from darwin_lab.errors import LabError
from darwin_lab.genome.genome import Genome, combine
from darwin_lab.genome.layouts import Layout
from darwin_lab.merging.operators import USES_DENSITY_A, USES_DENSITY_B, USES_DRAWS
from darwin_lab.merging.prescription import Prescription

_RATIO_DIGITS = 6


@dataclass(frozen=True)
class Row:
    """What happens to one tensor.

    action: "copy" (ratio 0: the father's bytes, 1: the mother's) or "merge". mix: share of the sparse form in the
    operator "mix". transplant: "father" or "mother" where a threshold decided. expert_ratios: the mother's share
    per expert, where experts differ. why: one phrase for people, not part of the hash.
    """

    name: str
    layer: int | None
    role: str
    component: str
    action: str
    ratio: float
    operator: str = "lerp"
    density_a: float = 1.0
    density_b: float = 1.0
    mix: float = 0.5
    transplant: str = ""
    expert_ratios: tuple[float, ...] | None = None
    why: str = ""
    numel: int = 0

    @property
    def decision(self) -> tuple[Any, ...]:
        """What the bytes depend on; a copy depends on nothing but whose it is."""
        if self.action == "copy":
            return (self.name, "copy", self.ratio)
        density_a = self.density_a if self.operator in USES_DENSITY_A else 1.0
        density_b = self.density_b if self.operator in USES_DENSITY_B else 1.0
        mix = self.mix if self.operator == "mix" else 0.0
        return (self.name, "merge", self.ratio, self.operator, density_a, density_b, mix, self.expert_ratios)


@dataclass(frozen=True)
class Recipe:
    """Rows by tensor name (the father's order), the seed of the masks and their rescaling."""

    rows: dict[str, Row]
    seed: int = 0
    rescale: str = "inverse"
    genome_hash: str = ""
    prescription_hash: str = ""

    @cached_property
    def hash(self) -> str:
        """12 hex digits that name the child: equal hashes mean equal bytes of equal parents."""
        rows = [row.decision for row in self.rows.values()]
        merged = [row for row in self.rows.values() if row.action == "merge"]
        masked = any(row.operator in USES_DRAWS and min(row.density_a, row.density_b) < 1.0 for row in merged)
        canonical = json.dumps([rows, self.seed if masked else 0, self.rescale if masked else ""])
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    @property
    def operators(self) -> frozenset[str]:
        """Operators of the rows that are merged, not copied."""
        return frozenset(row.operator for row in self.rows.values() if row.action == "merge")

    def layer_ratios(self, component: str | None = None) -> list[float | None]:
        """Size-weighted mean ratio per layer (of one component); None where the layer has no such tensor."""
        rows = [row for row in self.rows.values() if row.layer is not None and row.component]
        layers = 1 + max((row.layer for row in rows if row.layer is not None), default=-1)
        return [
            _mean_ratio([row for row in rows if row.layer == layer and component in (None, row.component)])
            for layer in range(layers)
        ]

    def component_ratio(self, component: str) -> float | None:
        """Size-weighted mean ratio of one component over the whole model."""
        return _mean_ratio([row for row in self.rows.values() if row.component == component])

    def to_rows(self) -> list[dict[str, Any]]:
        """One plain dict a tensor, for tables and `recipe.json`."""
        return [asdict(row) for row in self.rows.values()]


def make_recipe(genome: Genome, anatomy: Anatomy, prescription: Prescription | None = None) -> Recipe:
    """What `genome` does to every tensor, with the MRI's advice where its `mri_trust` asks for it (card V6)."""
    layout = genome.layout_of(anatomy.layers)
    trust = genome.genes.get("mri_trust", 0.0) if prescription is not None else 0.0
    advice = prescription if trust > 0 else None
    rows = {
        part.name: _row(part, genome, layout, advice, trust, anatomy) if part.mergeable else _copied(part)
        for part in anatomy.parts.values()
    }
    return Recipe(rows, genome.seed, genome.rescale, genome.hash, prescription.hash if advice and prescription else "")


def uniform_recipe(
    anatomy: Anatomy,
    ratio: float,
    operator: str = "lerp",
    density: float = 1.0,
    seed: int = 0,
    rescale: str = "inverse",
) -> Recipe:
    """Every mergeable tensor at one ratio. Raises `LabError` when `ratio` or `density` is out of range."""
    if not 0.0 <= ratio <= 1.0:
        raise LabError(f"ratio is {ratio:g}; give the mother's share, from 0 (father) to 1 (mother)")
    if not 0.05 <= density <= 1.0:
        raise LabError(f"density is {density:g}; give a number from .05 to 1")
    rows = {}
    for part in anatomy.parts.values():
        settled = _settle(part, round(ratio, _RATIO_DIGITS), "uniform ratio", None)
        sparse = Row(**{**asdict(settled), "operator": operator, "density_a": density, "density_b": density})
        rows[part.name] = sparse if part.mergeable else _copied(part)
    return Recipe(rows, seed, rescale)


def inert_genes(layout: Layout, operator: str, *, has_prescription: bool, has_ancestor: bool, reading: str) -> set[str]:
    """Genes that change no byte under these choices; a search freezes them, the page greys them out and says why."""
    inert = set()
    masks_a = operator in ("ties", "dare_ties") or (operator == "mix" and has_ancestor)
    if not masks_a:
        inert.add("density_a")
    if not masks_a and operator not in ("dare", "mix"):
        inert.add("density_b")
    if not has_prescription:
        inert.add("mri_trust")
    if operator != "mix":
        inert.add("merge_method_weight")
    if reading == "component":
        inert |= {gene.name for gene in layout.genes if gene.group in ("block", "layer")}
    return inert & set(layout.names)


def _row(
    part: Part, genome: Genome, layout: Layout, advice: Prescription | None, trust: float, anatomy: Anatomy
) -> Row:
    ratio = combine(_shares(part, genome, layout, anatomy), genome.reading)
    why = f"genome {ratio:.3f}"
    if advice is not None:
        mri = advice.ratio.get(part.name, 0.5)
        why = f"{trust:.2f} x MRI {mri:.3f} + {1 - trust:.2f} x genome {ratio:.3f}"
        ratio = mri * trust + ratio * (1.0 - trust)
    transplant = ""
    if ratio < genome.transplant or ratio > 1.0 - genome.transplant:
        transplant = "father" if ratio < 0.5 else "mother"
        why = f"transplant: {ratio:.3f} is past {genome.transplant:g} ({why})"
        ratio = 0.0 if transplant == "father" else 1.0
    kept: tuple[int, ...] = ()
    if advice is not None and part.layer is not None:
        kept = advice.preserve.get(part.layer, ()) if genome.experts == "preserve" else ()
        source = advice.router.get(part.layer, "blend") if part.role == "router" else "blend"
        if source != "blend":
            ratio, why = (0.0 if source == "A" else 1.0), f"router source {source} by the prescription"
    row = _settle(part, round(ratio, _RATIO_DIGITS), why, _expert_ratios(part, ratio, kept, anatomy.experts))
    genes = genome.genes
    return Row(
        **{
            **asdict(row),
            "operator": genome.operator,
            "density_a": round(genes.get("density_a", 1.0), _RATIO_DIGITS),
            "density_b": round(genes.get("density_b", 1.0), _RATIO_DIGITS),
            "mix": round(genes.get("merge_method_weight", 0.5), _RATIO_DIGITS),
            "transplant": transplant,
        }
    )


def _shares(part: Part, genome: Genome, layout: Layout, anatomy: Anatomy) -> list[float]:
    """The genes that own a tensor, from the most general to the nearest; `component` reading picks one of them."""
    genes: Mapping[str, float] = genome.genes
    whole = [genes[name] for name in ("global_ratio", "ratio") if name in genes]
    names = () if part.component == "global" else (part.component, f"{part.component}_ratio")
    component = [genes[name] for name in names if name in genes]
    nearest: list[float] = []
    if layout.name == "layerwise" and part.component != "embed":
        layer = part.layer if part.layer is not None else anatomy.layers - 1
        nearest = [genes[f"layer_{layer}"]]
    elif part.layer is not None and (block := layout.block_of(part.layer)) is not None:
        nearest = [genes[f"block_{block}"]]
    if genome.reading == "component":
        return component or nearest or whole
    return whole + component + nearest


def _expert_ratios(part: Part, ratio: float, kept: tuple[int, ...], experts: int) -> tuple[float, ...] | None:
    """Per-expert shares where some experts stay the father's; None where all share one ratio."""
    if not kept or ratio == 0.0:
        return None
    if part.expert is not None and part.expert != FUSED:
        return (0.0,) if part.expert in kept else None
    per_expert_rows = part.role == "expert" or (part.role == "router" and part.shape[0] == experts)
    if not per_expert_rows:
        return None
    return tuple(0.0 if expert in kept else round(ratio, _RATIO_DIGITS) for expert in range(experts))


def _settle(part: Part, ratio: float, why: str, expert_ratios: tuple[float, ...] | None) -> Row:
    """A ratio of exactly 0 or 1 is a copy, unless single experts differ."""
    if expert_ratios == (0.0,):
        ratio, expert_ratios, why = 0.0, None, f"{why}; expert dead in the mother, the father's kept"
    elif expert_ratios is not None:
        why = f"{why}; {expert_ratios.count(0.0)} experts dead in the mother, the father's kept"
    action = "copy" if ratio in (0.0, 1.0) and expert_ratios is None else "merge"
    return Row(
        part.name, part.layer, part.role, part.component, action, ratio,
        expert_ratios=expert_ratios, why=why, numel=part.numel,
    )  # fmt: skip


def _copied(part: Part) -> Row:
    return Row(part.name, part.layer, part.role, "", "copy", 0.0, why=part.reason, numel=part.numel)


def _mean_ratio(rows: list[Row]) -> float | None:
    total = sum(row.numel for row in rows)
    return sum(row.ratio * row.numel for row in rows) / total if total else None
