"""Published genomes, read-only, stretched by relative depth to a model of another size.

Numbers are those of the public Darwin model cards (methods section 1); nothing is invented.
"""

from dataclasses import dataclass
from typing import Any

from darwin_lab.errors import LabError
from darwin_lab.genome.genome import Genome, genome_from_json, neutral_genome
from darwin_lab.genome.layouts import layout_for


@dataclass(frozen=True)
class Preset:
    """A named genome. `published_blocks` are stretched over the blocks of the model at hand."""

    name: str
    label: str
    model: str
    note: str
    layout: str
    genes: dict[str, float]
    choices: dict[str, Any]
    published_blocks: tuple[float, ...] = ()


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
    Preset("darwin-31b-opus", "Darwin-31B-Opus (V6)", "Darwin-31B-Opus", "Published V6 genome of a 60-layer model.",
           "v6", {"global_ratio": 0.5147, "attn_ratio": 0.3169, "ffn_ratio": 0.9316, "embed_ratio": 0.7748,
                  "density_a": 0.8997, "density_b": 0.9539, "mri_trust": 0.3631, "merge_method_weight": 0.6897},
           {"operator": "mix"}, (0.6628, 0.6431, 0.5146, 0.5971, 0.6339, 0.8583)),
)  # fmt: skip
PRESET_NAMES = tuple(preset.name for preset in PRESETS)


def preset_genome(name: str, layers: int, *, has_ancestor: bool = True) -> Genome:
    """The preset for a model of `layers` layers. Without an ancestor `dare_ties` becomes its one-delta form `dare`.

    Raises `LabError` for an unknown name.
    """
    preset = next((preset for preset in PRESETS if preset.name == name), None)
    if preset is None:
        raise LabError(f"unknown preset {name!r}; choose {', '.join(PRESET_NAMES)}")
    choices = dict(preset.choices)
    if choices.get("operator") == "dare_ties" and not has_ancestor:
        choices["operator"] = "dare"
    genome = neutral_genome(preset.layout, layers, **choices)
    blocks = stretch(preset.published_blocks, len(layout_for(preset.layout, layers).blocks))
    return genome_from_json(genome.with_genes(**preset.genes, **blocks).to_json(), layers)


def stretch(published: tuple[float, ...], count: int) -> dict[str, float]:
    """Block genes by relative depth: each of `count` blocks takes the mean of the published ones that it covers."""
    if not published:
        return {}
    size = len(published) / count
    return {f"block_{i}": _overlap_mean(published, i * size, (i + 1) * size) for i in range(count)}


def _overlap_mean(values: tuple[float, ...], start: float, end: float) -> float:
    overlaps = [max(0.0, min(end, i + 1) - max(start, i)) for i in range(len(values))]
    return sum(value * overlap for value, overlap in zip(values, overlaps, strict=True)) / sum(overlaps)
