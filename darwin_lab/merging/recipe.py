"""The recipe: one row a tensor that decides the child's bytes.

genome + prescription + anatomy -> recipe is a pure function (`make_recipe`); `uniform_recipe` is the
one-number form. Reads no weights. Ratio is the mother's share everywhere.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from darwin_lab.checkpoint.anatomy import Anatomy, Part
from darwin_lab.errors import LabError
from darwin_lab.genome.genome import Genome, combine
from darwin_lab.genome.layouts import SHARES, Layout
from darwin_lab.genome.ownership import idle_shares, owners
from darwin_lab.merging.experts import expert_shares, unroused
from darwin_lab.merging.operators import IGNORES_RATIO, OPTIONS, USES_DENSITY_A, USES_DENSITY_B, USES_DRAWS
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
    def share(self) -> float:
        """The mother's share of the whole tensor: the mean over its experts where they differ."""
        return sum(self.expert_ratios) / len(self.expert_ratios) if self.expert_ratios else self.ratio

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
    """Rows by tensor name (the father's order), the seed of the masks and their rescaling.

    vocabulary: "same", or "by-token" where the mother's rows are found by token string. expert_order: layer -> for
    each of the father's experts the mother's that takes its place; layers left out go by index. options: the
    operators' own numbers, those left out at their default. Not in the hash: the genome and the prescription it came
    from, by which formula that advised, and warnings, what a person should know.
    """

    rows: dict[str, Row]
    seed: int = 0
    rescale: str = "inverse"
    genome_hash: str = ""
    prescription_hash: str = ""
    advised_by: str = ""
    vocabulary: str = "same"
    expert_order: dict[int, tuple[int, ...]] = field(default_factory=dict)
    options: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @cached_property
    def hash(self) -> str:
        """12 hex digits that name the child: equal hashes mean equal bytes of equal parents."""
        rows = [row.decision for row in self.rows.values()]
        merged = [row for row in self.rows.values() if row.action == "merge"]
        masked = any(row.operator in USES_DRAWS and min(row.density_a, row.density_b) < 1.0 for row in merged)
        content: list[Any] = [rows, self.seed if masked else 0, self.rescale if masked else ""]
        canonical = json.dumps([*content, *self._rare], sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    @property
    def _rare(self) -> list[dict[str, Any]]:
        """What few recipes say; nothing where a recipe says none of it, so that such a child keeps its name."""
        order = {str(layer): list(order) for layer, order in self.expert_order.items() if list(order) != sorted(order)}
        said = {
            "vocabulary": "" if self.vocabulary == "same" else self.vocabulary,
            "expert_order": order,
            "options": dict(sorted((name, value) for name, value in self.options.items() if self._acts(name, value))),
        }
        said = {key: value for key, value in said.items() if value}
        return [said] if said else []

    def _acts(self, option: str, value: float) -> bool:
        """Whether an option changes a byte: an operator in use has it, and its default is another number."""
        known = [OPTIONS[operator][option] for operator in self.operators if option in OPTIONS.get(operator, {})]
        return any(value != one.default for one in known)

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


def make_recipe(
    genome: Genome,
    anatomy: Anatomy,
    prescription: Prescription | None = None,
    *,
    vocabulary: str = "same",
    expert_order: Mapping[int, tuple[int, ...]] | None = None,
) -> Recipe:
    """What `genome` does to every tensor, with the MRI's advice where it asks for it (card V6).

    `vocabulary` and `expert_order` as in `Recipe`; the prescription counts the mother's experts by her own numbers.
    Raises `LabError` for an experts mode without a prescription, and for options the operator does not have.
    """
    layout = genome.layout_of(anatomy.layers)
    shares = {
        part.name: combine([genome.genes[n] for n in owners(part, layout, anatomy, genome.reading)], genome.reading)
        for part in anatomy.mergeable
    }
    sources = {
        layer: genome.router if isinstance(genome.router, str) else _source(genome.router, layout, layer)
        for layer in anatomy.moe_layers
    }
    return _recipe(genome, anatomy, prescription, shares, sources, vocabulary, dict(expert_order or {}))


def uniform_recipe(
    anatomy: Anatomy,
    ratio: float,
    operator: str = "lerp",
    density: float = 1.0,
    seed: int = 0,
    rescale: str = "inverse",
    *,
    experts: str = "blend",
    router: str = "blend",
    options: Mapping[str, float] | None = None,
    prescription: Prescription | None = None,
    vocabulary: str = "same",
    expert_order: Mapping[int, tuple[int, ...]] | None = None,
) -> Recipe:
    """Every mergeable tensor at one ratio; the other choices as in `Genome` and `make_recipe`.

    Raises `LabError` when `ratio` or `density` is out of range.
    """
    if not 0.0 <= ratio <= 1.0:
        raise LabError(f"ratio is {ratio:g}; give the mother's share, from 0 (father) to 1 (mother)")
    if not 0.05 <= density <= 1.0:
        raise LabError(f"density is {density:g}; give a number from .05 to 1")
    genome = Genome(
        "v4", {"density_a": density, "density_b": density}, seed, operator, rescale=rescale, experts=experts,
        router=router, options=dict(options or {}),
    )  # fmt: skip
    shares = {part.name: ratio for part in anatomy.mergeable}
    sources = dict.fromkeys(anatomy.moe_layers, router)
    made = _recipe(genome, anatomy, prescription, shares, sources, vocabulary, dict(expert_order or {}))
    return replace(made, genome_hash="")


def inert_genes(genome: Genome, anatomy: Anatomy, *, has_prescription: bool, has_ancestor: bool) -> frozenset[str]:
    """Genes that change no byte under the genome's choices; a search freezes them, the page greys them out."""
    layout, operator = genome.layout_of(anatomy.layers), genome.operator
    inert = set(idle_shares(layout, anatomy, genome.reading, genome.pinned))
    sparse = "dare_ties" if operator == "mix" and has_ancestor else "dare" if operator == "mix" else operator
    if sparse not in USES_DENSITY_A:
        inert.add("density_a")
    if sparse not in USES_DENSITY_B:
        inert.add("density_b")
    if not has_prescription:
        inert.add("mri_trust")
    if operator != "mix":
        inert.add("merge_method_weight")
    if operator in IGNORES_RATIO:
        inert |= {gene.name for gene in layout.genes if gene.group in SHARES} | {"mri_trust"}
    return frozenset(inert & set(layout.names))


def _recipe(
    genome: Genome,
    anatomy: Anatomy,
    prescription: Prescription | None,
    shares: Mapping[str, float],
    sources: Mapping[int, str],
    vocabulary: str,
    expert_order: dict[int, tuple[int, ...]],
) -> Recipe:
    check_options(genome.operator, genome.options)
    advice = prescription.reordered(expert_order) if prescription is not None and genome.reads_advice else None
    if advice is None and genome.experts != "blend" and anatomy.experts:
        raise LabError(f"experts {genome.experts!r} goes by the scans of both parents; scan them first, or use blend")
    rows = {
        part.name: _row(part, genome, anatomy, advice, shares[part.name], sources) if part.mergeable else _copied(part)
        for part in anatomy.parts.values()
    }
    warnings = []
    asleep = unroused(anatomy, rows, advice) if advice is not None and anatomy.experts else {}
    if asleep:
        layer, experts = next(iter(asleep.items()))
        warnings.append(
            "experts given weights without the router row that calls them, which changes nothing: "
            f"{sum(map(len, asleep.values()))} in all, from layer {layer}, expert {experts[0]}. Blend that router "
            "with a share between 0 and 1, or choose experts preserve."
        )
    for row in rows.values():
        if row.role == "router" and row.layer in asleep:
            why = f"{row.why}; {len(asleep[row.layer])} experts stay unchosen: their router rows are the other parent's"
            rows[row.name] = replace(row, why=why)
    told = prescription if advice else None
    return Recipe(
        rows, genome.seed, genome.rescale, genome.hash, told.hash if told else "", told.mode if told else "",
        vocabulary, expert_order, genome.options, tuple(warnings),
    )  # fmt: skip


def _row(
    part: Part,
    genome: Genome,
    anatomy: Anatomy,
    advice: Prescription | None,
    ratio: float,
    sources: Mapping[int, str],
) -> Row:
    """The genome's ratio, the MRI's advice mixed in by trust, then transplant, router source and single experts."""
    genes, why = genome.genes, f"ratio {ratio:.3f}"
    pinned = None if part.layer is None else genome.pinned.get(part.layer)
    if pinned is not None:
        ratio, why = pinned, f"layer pinned at {pinned:.3f}"
    trust = genes.get("mri_trust", 0.0) if advice is not None and pinned is None else 0.0
    if advice is not None and trust > 0:
        mri = advice.ratio.get(part.name, 0.5)
        why = f"{trust:.2f} x MRI {mri:.3f} + {1 - trust:.2f} x genome {ratio:.3f}"
        ratio = mri * trust + ratio * (1.0 - trust)
    transplant = ""
    if genome.operator in IGNORES_RATIO:
        ratio, why = (ratio, why) if ratio in (0.0, 1.0) else (0.5, f"{genome.operator} takes no ratio")
    elif pinned is None and (ratio < genome.transplant or ratio > 1.0 - genome.transplant):
        transplant = "father" if ratio < 0.5 else "mother"
        why = f"transplant: {ratio:.3f} is past {genome.transplant:g} ({why})"
        ratio = 0.0 if transplant == "father" else 1.0
    if part.role == "router" and part.layer is not None and pinned is None:
        source = sources.get(part.layer, "blend")
        if source != "blend":
            why = f"router source {source}"
        elif advice is not None and trust > 0:
            source = advice.router.get(part.layer, "blend")
            why = why if source == "blend" else f"router source {source} by the prescription"
        ratio = {"A": 0.0, "B": 1.0}.get(source, ratio)
    ratio = round(ratio, _RATIO_DIGITS)
    single = expert_shares(part, ratio, genome.experts, advice, anatomy.experts)
    if single is not None and genome.operator in IGNORES_RATIO:
        single = tuple(share if share in (0.0, 1.0) else ratio for share in single)
    if single is not None:
        why = f"{why}; {_expert_words(genome.experts, single)}"
    if single is not None and len(set(single)) == 1:
        ratio, single = single[0], None
    return Row(
        part.name, part.layer, part.role, part.component,
        action="copy" if ratio in (0.0, 1.0) and single is None else "merge",
        ratio=ratio,
        operator=genome.operator,
        density_a=round(genes.get("density_a", 1.0), _RATIO_DIGITS),
        density_b=round(genes.get("density_b", 1.0), _RATIO_DIGITS),
        mix=round(genes.get("merge_method_weight", 0.5), _RATIO_DIGITS),
        transplant=transplant, expert_ratios=single, why=why, numel=part.numel,
    )  # fmt: skip


def check_options(operator: str, options: Mapping[str, float]) -> None:
    """Raises `LabError` for an option the operator does not have, or a value out of its range."""
    known = OPTIONS.get(operator, {})
    for name, value in options.items():
        if name not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise LabError(f"{operator} has no option {name!r}; {has}")
        if not known[name].low <= value <= known[name].high:
            raise LabError(
                f"option {name} of {operator} is {value:g}, outside {known[name].low:g} to {known[name].high:g}"
            )


def _source(by_block: tuple[str, ...], layout: Layout, layer: int) -> str:
    block = layout.block_of(layer)
    return "blend" if block is None else by_block[block]


def _expert_words(mode: str, shares: tuple[float, ...]) -> str:
    if mode == "usage":
        return f"by use {min(shares):.3f} to {max(shares):.3f}" if len(shares) > 1 else f"by use {shares[0]:.3f}"
    return f"{shares.count(0.0)} of {len(shares)} experts dead in the mother, the father's kept"


def _copied(part: Part) -> Row:
    return Row(part.name, part.layer, part.role, "", "copy", 0.0, why=part.reason, numel=part.numel)


def _mean_ratio(rows: list[Row]) -> float | None:
    total = sum(row.numel for row in rows)
    return sum(row.share * row.numel for row in rows) / total if total else None
