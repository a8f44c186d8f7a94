"""The layouts: which genes there are, their bounds and what each one does.

Takes a layout name and a number of layers, gives a `Layout`. Knows no weights and no scans.
Source: methods section 1.
"""

from dataclasses import dataclass
from math import ceil

from darwin_lab.errors import LabError

LAYOUTS = ("v4", "v5", "v6", "v7", "layerwise")
BLOCK_LAYOUTS = ("v5", "v6")
MIN_DENSITY = 0.05
BANDS = ("early", "middle", "late")
SHARES = ("global", "component", "block", "layer")
"""Groups of genes that are a mother's share of some tensors."""

Blocks = int | tuple[tuple[int, int], ...] | None
"""How a layout's blocks are asked for: how many equal ones, or inclusive layer ranges; None is the layout's own."""


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
    """The genes of a genome, and the inclusive layer range of each block gene (empty when it has none)."""

    name: str
    genes: tuple[Gene, ...]
    blocks: tuple[tuple[int, int], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(gene.name for gene in self.genes)

    @property
    def block_names(self) -> tuple[str, ...]:
        """The block genes, in the order of `blocks`."""
        return tuple(gene.name for gene in self.genes if gene.group == "block")

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

    def layers_of(self, name: str) -> tuple[int, int] | None:
        """First and last layer of a block or layer gene, None for any other."""
        if name in self.block_names:
            return self.blocks[self.block_names.index(name)]
        if self.gene(name).group == "layer":
            layer = int(name.removeprefix("layer_"))
            return layer, layer
        return None


def equal_blocks(layers: int, count: int) -> tuple[tuple[int, int], ...]:
    """`count` contiguous, inclusive layer ranges of nearly equal length."""
    edges = [round(index * layers / count) for index in range(count + 1)]
    return tuple((edges[index], edges[index + 1] - 1) for index in range(count))


def layout_for(name: str, layers: int, blocks: Blocks = None) -> Layout:
    """The layout `name` for a model of `layers` layers; `v5` and `v6` have ceil(layers / 10) equal blocks unless told.

    Raises `LabError` for an unknown name, and for blocks that do not fit or that the layout has not.
    """
    if name not in LAYOUTS:
        raise LabError(f"unknown layout {name!r}; choose {', '.join(LAYOUTS)}")
    if blocks is not None and name not in BLOCK_LAYOUTS:
        raise LabError(f"layout {name} has no blocks to choose; leave blocks out, or use {' or '.join(BLOCK_LAYOUTS)}")
    match name:
        case "v4":
            whole = _share("ratio", "global", "the whole model")
            return Layout("v4", (whole, *_components("attn", "ffn"), *_densities()))
        case "v5":
            ranges = _ranges(blocks, layers)
            components = _components("attn_ratio", "ffn_ratio")
            return Layout("v5", (_whole(), *components, *_densities(), *_block_genes(ranges)), ranges)
        case "v6":
            ranges = _ranges(blocks, layers)
            components = _components("attn_ratio", "ffn_ratio", "embed_ratio")
            return Layout("v6", (_whole(), *components, *_densities(), *_block_genes(ranges), *_v6_tail()), ranges)
        case "v7":
            ranges = equal_blocks(layers, min(len(BANDS), layers))
            bands = [_band(band, *span) for band, span in zip(BANDS, ranges, strict=False)]
            components = tuple(_share(component, "component", what) for component, what in _V7_COMPONENTS.items())
            return Layout("v7", (*bands, *components), ranges)
    per_layer = tuple(_share(f"layer_{layer}", "layer", f"layer {layer}") for layer in range(layers))
    return Layout("layerwise", (*_components("attn_ratio", "ffn_ratio", "embed_ratio"), *per_layer))


_COMPONENTS = {
    "attn": "attention and the norm before it", "ffn": "FFN, experts, router and the norm before them",
    "embed": "embedding and output head",
}  # fmt: skip
_V7_COMPONENTS = {
    "embed": "the embedding", "lm_head": "the output head", "attn": "attention", "norm": "all norms",
    "router": "the routers", "shared_expert": "shared experts", "routed_expert": "routed experts",
}  # fmt: skip


def _ranges(blocks: Blocks, layers: int) -> tuple[tuple[int, int], ...]:
    """Inclusive layer ranges. A layer in none of them has no block gene."""
    if blocks is None or isinstance(blocks, int):
        count = ceil(layers / 10) if blocks is None else blocks
        if not 1 <= count <= layers:
            raise LabError(f"{count} blocks do not fit {layers} layers; choose 1 to {layers}")
        return equal_blocks(layers, count)
    ends = [-1, *(last for _, last in blocks)]
    apart = all(end < first <= last for end, (first, last) in zip(ends, blocks, strict=False))
    if not apart or ends[-1] >= layers:
        told = ", ".join(f"[{first}, {last}]" for first, last in blocks)
        raise LabError(
            f"blocks {told} do not fit {layers} layers; give [first, last] pairs in order, 0 to {layers - 1}"
        )
    return blocks


def _share(name: str, group: str, what: str) -> Gene:
    return Gene(name, group, 0.5, 0.0, 1.0, f"Mother's share of {what}: 0 is the father, 1 the mother, .5 neutral.")


def _whole() -> Gene:
    return _share("global_ratio", "global", "the whole model")


def _components(*names: str) -> tuple[Gene, ...]:
    return tuple(_share(name, "component", _COMPONENTS[name.removesuffix("_ratio")]) for name in names)


def _densities() -> tuple[Gene, ...]:
    text = "Share of the {}'s change from the base that is kept; used by operators that drop a part of it."
    return tuple(
        Gene(f"density_{side}", "density", 1.0, MIN_DENSITY, 1.0, text.format(who))
        for side, who in (("a", "father"), ("b", "mother"))
    )


def _block_genes(blocks: tuple[tuple[int, int], ...]) -> tuple[Gene, ...]:
    return tuple(_share(f"block_{i}", "block", f"layers {first} to {last}") for i, (first, last) in enumerate(blocks))


def _band(name: str, first: int, last: int) -> Gene:
    return _share(name, "block", f"the {name} layers, {first} to {last}")


def _v6_tail() -> tuple[Gene, ...]:
    trust = "Weight of the MRI's advice against the genome's own ratio; does nothing without a prescription."
    mix = "Share of dare_ties against lerp; used by the operator mix only."
    return (
        Gene("mri_trust", "meta", 0.5, 0.0, 1.0, trust),
        Gene("merge_method_weight", "meta", 0.5, 0.0, 1.0, mix),
    )
