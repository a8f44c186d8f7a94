"""Which genes decide a tensor's ratio.

Takes a part of the anatomy and a layout; gives gene names. Knows roles and layers, no weights and no values.
Source: methods section 1, "Which gene owns what".
"""

from collections.abc import Collection

from darwin_lab.checkpoint.anatomy import Anatomy, Part
from darwin_lab.genome.layouts import SHARES, Layout

_V7_GENE = {
    "embedding": "embed", "per_layer_embedding": "embed", "lm_head": "lm_head", "attention": "attn",
    "linear_attention": "attn", "norm": "norm", "router": "router", "shared_expert": "shared_expert",
    "expert": "routed_expert",
}  # fmt: skip


def owners(part: Part, layout: Layout, anatomy: Anatomy, reading: str) -> tuple[str, ...]:
    """The genes whose shares make up the tensor's ratio, from the most general to the nearest.

    In `v5` a block's gene alone decides its tensors. The reading "component" looks at one gene: the component's, the
    block's where there is none, the whole model's where there is neither.
    """
    names = layout.names
    whole = tuple(name for name in ("global_ratio", "ratio") if name in names)
    asked = (_V7_GENE.get(part.role, ""),) if layout.name == "v7" else (part.component, f"{part.component}_ratio")
    component = tuple(name for name in asked if name in names and name not in whole)
    nearest: tuple[str, ...] = ()
    if layout.name == "layerwise" and part.component != "embed":
        nearest = (f"layer_{part.layer if part.layer is not None else anatomy.layers - 1}",)
    elif part.layer is not None and (block := layout.block_of(part.layer)) is not None:
        nearest = (layout.block_names[block],)
    if layout.name == "v5" and nearest:
        return nearest
    if reading == "component":
        return component or nearest or whole
    return whole + component + nearest


def idle_shares(layout: Layout, anatomy: Anatomy, reading: str, pinned: Collection[int] = ()) -> frozenset[str]:
    """The share genes that no mergeable tensor of this model listens to; those of `pinned` layers listen to none."""
    free = [part for part in anatomy.mergeable if part.layer not in pinned]
    heard = {name for part in free for name in owners(part, layout, anatomy, reading)}
    return frozenset(gene.name for gene in layout.genes if gene.group in SHARES and gene.name not in heard)
