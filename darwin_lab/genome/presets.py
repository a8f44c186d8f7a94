"""Published genomes, read-only, stretched by relative depth to a model of another size.

Numbers are those of the public Darwin model cards (methods section 1); nothing is invented.
"""

from dataclasses import dataclass
from typing import Any

from darwin_lab.errors import LabError
from darwin_lab.genome.genome import Genome, genome_from_json, neutral_genome


@dataclass(frozen=True)
class Preset:
    """A named genome. What was published for `layers` layers is stretched over those of the model at hand:
    `block_genes` over its blocks, or, where `ranges` says which layers each covers, the ranges themselves.
    """

    name: str
    label: str
    model: str
    note: str
    layout: str
    genes: dict[str, float]
    choices: dict[str, Any]
    layers: int = 0
    block_genes: tuple[float, ...] = ()
    ranges: tuple[tuple[int, int], ...] = ()


PRESETS = (
    Preset("blend", "Plain blend", "any", "Every tensor half and half: the control every child is held against.",
           "v6", {"mri_trust": 0.0}, {"transplant": 0.0}),
    Preset("father", "Father", "any", "Ratio 0 everywhere: the father, byte for byte.",
           "v6", {"global_ratio": 0.0, "mri_trust": 0.0}, {"transplant": 0.0}),
    Preset("mother", "Mother", "any", "Ratio 1 everywhere: the mother in the father's layout.",
           "v6", {"global_ratio": 1.0, "mri_trust": 0.0}, {"transplant": 0.0}),
    Preset("mri", "Follow the MRI", "any", "mri_trust 1: the prescription alone decides (needs scans).",
           "v6", {"mri_trust": 1.0}, {"transplant": 0.0}),
    Preset("darwin-v4", "Darwin V4 (35B)", "Darwin V4 35B", "Published blind-evolution genome.",
           "v4", {"ratio": 0.481, "attn": 0.168, "ffn": 0.841, "density_a": 0.855, "density_b": 0.971},
           {"operator": "dare_ties"}),
    Preset("darwin-35b-opus", "Darwin-35B-A3B-Opus (V5)", "Darwin-35B-A3B-Opus",
           "Published V5 genome of a 40-layer model: three blocks with their router's source, one delta, unscaled.",
           "v5", {"global_ratio": 0.8, "attn_ratio": 0.32, "ffn_ratio": 0.59, "density_a": 0.799, "density_b": 0.799},
           {"operator": "dare", "rescale": "none", "router": ("B", "B", "A")},
           40, (0.5988, 0.9, 0.5336), ((0, 37), (38, 38), (39, 39))),
    Preset("darwin-31b-opus", "Darwin-31B-Opus (V6)", "Darwin-31B-Opus", "Published V6 genome of a 60-layer model.",
           "v6", {"global_ratio": 0.5147, "attn_ratio": 0.3169, "ffn_ratio": 0.9316, "embed_ratio": 0.7748,
                  "density_a": 0.8997, "density_b": 0.9539, "mri_trust": 0.3631, "merge_method_weight": 0.6897},
           {"operator": "mix"}, 60, (0.6628, 0.6431, 0.5146, 0.5971, 0.6339, 0.8583)),
    Preset("mistral-g1", "Ratio bands (V7)", "Mistral-G1",
           "Start values of a published V7 card; what it says nothing of (routers, experts) stays one half.",
           "v7", {"early": 0.25, "middle": 0.7, "late": 0.5, "embed": 0.0, "lm_head": 0.0, "attn": 0.5, "norm": 0.5},
           {"reading": "component"}),
)  # fmt: skip
PRESET_NAMES = tuple(preset.name for preset in PRESETS)


def preset_of(name: str) -> Preset:
    """Raises `LabError` for an unknown name."""
    preset = next((preset for preset in PRESETS if preset.name == name), None)
    if preset is None:
        raise LabError(f"unknown preset {name!r}; choose {', '.join(PRESET_NAMES)}")
    return preset


def preset_genome(name: str, layers: int, *, has_ancestor: bool = True) -> Genome:
    """The preset for a model of `layers` layers. Without an ancestor `dare_ties` becomes its one-delta form `dare`.

    Raises `LabError` for an unknown name, and for a model with fewer layers than the preset has ranges.
    """
    preset = preset_of(name)
    choices = dict(preset.choices)
    if choices.get("operator") == "dare_ties" and not has_ancestor:
        choices["operator"] = "dare"
    blocks = stretch_ranges(preset.ranges, preset.layers, layers) if preset.ranges else None
    genome = neutral_genome(preset.layout, layers, blocks=blocks, **choices)
    layout = genome.layout_of(layers)
    genes = {**preset.genes, **stretch(preset.block_genes, len(layout.blocks))}
    fitting = {gene: value for gene, value in genes.items() if gene in layout.names}
    return genome_from_json(genome.with_genes(**fitting).to_json(), layers)


def stretch_words(name: str, layers: int) -> str:
    """What was done to fit a preset to a model of `layers` layers; empty where it was published for that depth."""
    preset = preset_of(name)
    if preset.layers in (0, layers):
        return ""
    return f"{preset.label} was published for {preset.layers} layers; its blocks are stretched to these {layers}"


def stretch_ranges(ranges: tuple[tuple[int, int], ...], published: int, layers: int) -> tuple[tuple[int, int], ...]:
    """Layer ranges that cover `published` layers, by relative depth over `layers`; each keeps at least one layer.

    Raises `LabError` when there are fewer layers than ranges.
    """
    count = len(ranges)
    if layers < count:
        raise LabError(f"the preset has {count} blocks, this model {layers} layers; choose another preset")
    edges = [0]
    for number, (_, last) in enumerate(ranges):
        wanted = round((last + 1) * layers / published)
        edges.append(min(max(wanted, edges[-1] + 1), layers - (count - number - 1)))
    return tuple((edges[number], edges[number + 1] - 1) for number in range(count))


def stretch(published: tuple[float, ...], count: int) -> dict[str, float]:
    """Block genes by relative depth: each of `count` blocks takes the mean of the published ones that it covers."""
    if not published:
        return {}
    size = len(published) / count
    return {f"block_{i}": _overlap_mean(published, i * size, (i + 1) * size) for i in range(count)}


def _overlap_mean(values: tuple[float, ...], start: float, end: float) -> float:
    overlaps = [max(0.0, min(end, i + 1) - max(start, i)) for i in range(len(values))]
    return sum(value * overlap for value, overlap in zip(values, overlaps, strict=True)) / sum(overlaps)
