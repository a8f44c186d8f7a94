"""The layouts: which genes there are, their bounds and what each one does.

Takes a layout name and a number of layers, gives a `Layout`. Knows no weights and no scans.
Source: methods section 1.
"""

from dataclasses import dataclass
from math import ceil

from darwin_lab.errors import LabError

LAYOUTS = ("v4", "v6", "layerwise")
MIN_DENSITY = 0.05


@dataclass(frozen=True)
class Gene:
    """One number of a genome. `group`: global, component, density, block, layer or meta."""

    name: str
    group: str
    neutral: float
    low: float
    high: float
    help: str


@dataclass(frozen=True)
class Layout:
    """The genes of a genome, and the inclusive layer range of each block (empty when it has none)."""

    name: str
    genes: tuple[Gene, ...]
    blocks: tuple[tuple[int, int], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(gene.name for gene in self.genes)

    def gene(self, name: str) -> Gene:
        """Raises `LabError` for a gene the layout does not have."""
        found = next((gene for gene in self.genes if gene.name == name), None)
        if found is None:
            raise LabError(f"layout {self.name} has no gene {name!r}; it has {', '.join(self.names)}")
        return found

    def neutral(self) -> dict[str, float]:
        return {gene.name: gene.neutral for gene in self.genes}

    def block_of(self, layer: int) -> int | None:
        return next((i for i, (first, last) in enumerate(self.blocks) if first <= layer <= last), None)


def equal_blocks(layers: int, count: int) -> tuple[tuple[int, int], ...]:
    """`count` contiguous, inclusive layer ranges of nearly equal length."""
    edges = [round(index * layers / count) for index in range(count + 1)]
    return tuple((edges[index], edges[index + 1] - 1) for index in range(count))


def layout_for(name: str, layers: int, n_blocks: int | None = None) -> Layout:
    """The layout `name` for a model of `layers` layers; `v6` has ceil(layers / 10) blocks unless told."""
    match name:
        case "v4":
            return Layout(
                "v4", (_share("ratio", "global", "the whole model"), *_components("attn", "ffn"), *_densities())
            )
        case "v6":
            count = n_blocks if n_blocks is not None else ceil(layers / 10)
            if not 1 <= count <= layers:
                raise LabError(f"{count} blocks do not fit {layers} layers; choose 1 to {layers}")
            blocks = equal_blocks(layers, count)
            return Layout("v6", (*_v6_head(), *_block_genes(blocks), *_v6_tail()), blocks)
        case "layerwise":
            per_layer = tuple(_share(f"layer_{layer}", "layer", f"layer {layer}") for layer in range(layers))
            return Layout("layerwise", (*_components("attn_ratio", "ffn_ratio", "embed_ratio"), *per_layer))
    raise LabError(f"unknown layout {name!r}; choose {', '.join(LAYOUTS)}")


def _share(name: str, group: str, what: str) -> Gene:
    return Gene(name, group, 0.5, 0.0, 1.0, f"Mother's share of {what}: 0 is the father, 1 the mother, .5 neutral.")


def _components(*names: str) -> tuple[Gene, ...]:
    what = {"attn": "attention and the norm before it", "ffn": "FFN, experts, router and the norm before them",
            "embed": "embedding and output head"}  # fmt: skip
    return tuple(_share(name, "component", what[name.removesuffix("_ratio")]) for name in names)


def _densities() -> tuple[Gene, ...]:
    text = "Share of the {}'s change from the base that is kept; used by dare, ties and dare_ties only."
    return tuple(
        Gene(f"density_{side}", "density", 1.0, MIN_DENSITY, 1.0, text.format(who))
        for side, who in (("a", "father"), ("b", "mother"))
    )


def _v6_head() -> tuple[Gene, ...]:
    components = _components("attn_ratio", "ffn_ratio", "embed_ratio")
    return (_share("global_ratio", "global", "the whole model"), *components, *_densities())


def _block_genes(blocks: tuple[tuple[int, int], ...]) -> tuple[Gene, ...]:
    return tuple(_share(f"block_{i}", "block", f"layers {first} to {last}") for i, (first, last) in enumerate(blocks))


def _v6_tail() -> tuple[Gene, ...]:
    trust = "Weight of the MRI's advice against the genome's own ratio; does nothing without a prescription."
    mix = "Share of dare_ties against lerp; used by the operator mix only."
    return (
        Gene("mri_trust", "meta", 0.5, 0.0, 1.0, trust),
        Gene("merge_method_weight", "meta", 0.5, 0.0, 1.0, mix),
    )
