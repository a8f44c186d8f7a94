"""From measurements of two parents to advice: the mother's share of every tensor.

Takes two scans, their contrast, the static profile and the anatomy; gives a `Prescription`: contrastive (default: what
swapping a layer does to the loss), or by a published formula (`cards`; shown with its spread, because on fine-tunes of
one model it says nothing). Pure arithmetic. Must not know: models in memory, genes' names.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from darwin_lab.errors import LabError
from darwin_lab.merging.prescription import DEAD, MODES, Prescription
from darwin_lab.mri.advantage import AdvantageMap, advantage, golden_layers, probe_weights
from darwin_lab.mri.cards import card_v5, card_v6, paper
from darwin_lab.mri.genes import prescription_genes, shuffled
from darwin_lab.mri.record import Scan, shared_probes

if TYPE_CHECKING:
    from darwin_lab.checkpoint.anatomy import Anatomy, Part
    from darwin_lab.mri.contrast import Contrast
    from darwin_lab.mri.static import StaticProfile

__all__ = [
    "AdvantageMap",
    "Gains",
    "advantage",
    "gains",
    "golden_layers",
    "layer_blocks",
    "prescribe",
    "prescription_genes",
    "shuffled",
]

Floats = NDArray[np.float64]
STEEPNESS = 1.5
"""mri_ratio = sigmoid(1.5 g' / rms(g'))."""
LOGIT_STEP = 0.01
"""Layer logits are rounded to this, far below their error, so that float rounding of a scan changes no recipe."""
MOST_SPREAD = 2.0
"""Inside a layer no tensor's logit exceeds this many times the layer's."""
NO_SPREAD = 0.005
"""Ratios all nearer to one half than this carry no signal."""
LAYERS_PER_BLOCK = 10


@dataclass(frozen=True, eq=False)
class Gains:
    """The contrast summed over probes, per layer: raw gain, its standard error, what is left after shrinking."""

    raw: Floats
    se: Floats
    shrunk: Floats
    tau2: float


def prescribe(
    scan_a: Scan,
    scan_b: Scan,
    anatomy: "Anatomy",
    *,
    mode: str = "contrastive",
    contrast: "Contrast | None" = None,
    static: "StaticProfile | None" = None,
    weights: Mapping[str, float] | None = None,
    n_blocks: int | None = None,
    block_split: str = "equal",
) -> Prescription:
    """The mother's share of every mergeable tensor; father is `scan_a`, mother `scan_b`.

    `contrastive` needs `contrast` and spreads a layer's advice over its tensors by `static`'s ||B-A||/||A|| when
    given; the published formulas (`card_v5`, `card_v6`, `paper`, see `cards`) need `static`. `weights` per probe,
    default uniform over all but NEUTRAL. `n_blocks` defaults to ceil(L / 10); `block_split` is "equal" or "change"
    (change points of the layer profile). Raises `LabError` for measurements that are missing or do not belong
    together. Source: methods, section 2.
    """
    probes = shared_probes(scan_a, scan_b)
    if anatomy.layers != scan_a.layers:
        raise LabError(f"the scans have {scan_a.layers} layers, the anatomy {anatomy.layers}; scan these parents again")
    if mode == "contrastive":
        ratio, signal, note = _contrastive(scan_a, scan_b, anatomy, contrast, static, weights)
    elif mode in MODES:
        share = probe_weights(probes, weights)
        ratio, signal, note = _published(mode, (scan_a, scan_b), anatomy, static, share)
    else:
        raise LabError(f"no prescription mode {mode}; choose one of {', '.join(MODES)}")
    profile = tuple(_mean_ratio(ratio, anatomy.layer_parts(layer)) for layer in range(anatomy.layers))
    components = {part.component for part in anatomy.mergeable}
    utilisation, dead = _expert_use(scan_a, scan_b)
    return Prescription(
        mode=mode,
        ratio=ratio,
        layer_ratio=profile,
        component_ratio={
            component: _mean_ratio(ratio, [part for part in anatomy.mergeable if part.component == component])
            for component in sorted(components)
        },
        blocks=layer_blocks(np.asarray(profile), n_blocks, block_split),
        golden=golden_layers(scan_a, scan_b, weights=weights),
        router=dict.fromkeys(anatomy.moe_layers, "blend"),
        preserve=_preserve(utilisation, dead),
        utilisation=utilisation,
        dead=dead,
        spread=(min(ratio.values(), default=0.5), max(ratio.values(), default=0.5)),
        signal=signal,
        note=note,
        sources=_sources(scan_a, scan_b, mode, weights),
    )


def gains(contrast: "Contrast", weights: Mapping[str, float] | None = None) -> Gains:
    """Probe-weighted sum of the contrast, shrunk towards zero: g' = g tau2 / (tau2 + SE^2).

    tau2 is the layers' mean square net of noise, floor 0: taken about zero, because the advice is not centred (about
    the mean, a mother who is worse in every layer alike would leave no signal). A probe of one text has no error, so
    nothing is left of any gain then.
    """
    share = probe_weights(contrast.probes, weights)
    mean, se = contrast.mean, contrast.se
    raw = sum((weight * mean[probe] for probe, weight in share.items()), np.zeros(contrast.layers))
    variance = sum(((weight * se[probe]) ** 2 for probe, weight in share.items()), np.zeros(contrast.layers))
    if not np.isfinite(variance).all():
        return Gains(raw, np.sqrt(variance), np.zeros_like(raw), 0.0)
    tau2 = max(0.0, float((raw**2 - variance).mean()))
    total = tau2 + variance
    shrunk = np.divide(raw * tau2, total, out=np.zeros_like(raw), where=total > 0)
    return Gains(raw, np.sqrt(variance), shrunk, tau2)


def layer_blocks(profile: Floats, count: int | None = None, split: str = "equal") -> tuple[tuple[int, int], ...]:
    """Inclusive layer ranges: equal lengths, or "change" = the split with the least squared deviation inside blocks.

    `count` defaults to ceil(L / 10). Raises `LabError` for a count outside 1..L or an unknown split.
    """
    layers = len(profile)
    count = ceil(layers / LAYERS_PER_BLOCK) if count is None else count
    if not 1 <= count <= layers:
        raise LabError(f"{count} blocks do not fit {layers} layers; choose 1 to {layers}")
    if split == "equal":
        edges = [round(index * layers / count) for index in range(count + 1)]
    elif split == "change":
        edges = _change_points(np.asarray(profile, dtype=np.float64), count)
    else:
        raise LabError(f"no block split {split}; choose equal or change")
    return tuple((edges[index], edges[index + 1] - 1) for index in range(count))


def _contrastive(
    scan_a: Scan,
    scan_b: Scan,
    anatomy: "Anatomy",
    contrast: "Contrast | None",
    static: "StaticProfile | None",
    weights: Mapping[str, float] | None,
) -> tuple[dict[str, float], bool, str]:
    if contrast is None:
        raise LabError("the contrastive prescription needs the contrast of both parents; measure it first")
    if contrast.fingerprints != (scan_a.fingerprint, scan_b.fingerprint):
        raise LabError("the contrast is of other parents than these scans; measure it for this pair")
    if contrast.layers != anatomy.layers:
        raise LabError(f"the contrast has {contrast.layers} layers, the anatomy {anatomy.layers}; measure it again")
    found = gains(contrast, weights)
    scale = float(np.sqrt((found.shrunk**2).mean()))
    if scale == 0:
        if not found.raw.any():
            note = "no difference between these parents on these probes, every ratio is .5"
        elif np.isfinite(found.se).all():
            note = "no signal for this pair: the layers' gains lie within their own noise, every ratio is .5"
        else:
            single = ", ".join(probe for probe, texts in contrast.lengths.items() if len(texts) < 2)
            note = f"no signal: a probe of one text ({single}) has no interval, add texts to it; every ratio is .5"
        return {part.name: 0.5 for part in anatomy.mergeable}, False, note
    logits = np.round(STEEPNESS * found.shrunk / scale / LOGIT_STEP) * LOGIT_STEP
    ratio: dict[str, float] = {}
    factors = _spread_factors(anatomy, static)
    for part in anatomy.mergeable:
        logit = 0.0 if part.layer is None else float(logits[part.layer]) * factors.get(part.name, 1.0)
        ratio[part.name] = float(1 / (1 + np.exp(-logit)))
    better = int((found.shrunk > 0).sum())
    where = "layers outside the stack (embeddings, head, final norm) are not measured and stay at .5"
    return ratio, True, f"mother's layer is better in {better} of {len(logits)} layers; {where}"


def _spread_factors(anatomy: "Anatomy", static: "StaticProfile | None") -> dict[str, float]:
    """Tensor -> ||B-A||/||A|| over its layer's size-weighted mean, at most `MOST_SPREAD`; empty without a profile."""
    if static is None:
        return {}
    layer_delta = static.layer_delta(anatomy.layers)
    return {
        row.name: min(MOST_SPREAD, row.delta_norm / float(layer_delta[row.layer]))
        for row in static.rows
        if row.layer is not None and layer_delta[row.layer] > 0
    }


def _published(
    mode: str,
    scans: tuple[Scan, Scan],
    anatomy: "Anatomy",
    static: "StaticProfile | None",
    share: Mapping[str, float],
) -> tuple[dict[str, float], bool, str]:
    """The ratios of a published formula, and whether they say anything."""
    if static is None:
        raise LabError(f"{mode} needs the static profile of both parents; measure it first")
    if mode == "card_v5":
        ratio = card_v5(static, anatomy)
    else:
        ratio = (card_v6 if mode == "card_v6" else paper)(scans, static, anatomy, share)
    low, high = min(ratio.values(), default=0.5), max(ratio.values(), default=0.5)
    spread = f"{'the paper' if mode == 'paper' else 'the card'}'s ratio lies in {low:.4f} to {high:.4f}"
    if max(abs(low - 0.5), abs(high - 0.5)) < NO_SPREAD:
        return ratio, False, f"{spread}: it carries no signal"
    return ratio, True, spread


def _mean_ratio(ratio: Mapping[str, float], parts: Iterable["Part"]) -> float:
    """Size-weighted mean; .5 where nothing is merged."""
    sizes = [(part.numel, ratio[part.name]) for part in parts if part.name in ratio]
    total = sum(size for size, _ in sizes)
    return sum(size * value for size, value in sizes) / total if total else 0.5


def _expert_use(
    scan_a: Scan, scan_b: Scan
) -> tuple[dict[int, tuple[tuple[float, ...], tuple[float, ...]]], dict[int, tuple[int, ...]]]:
    """Layer -> utilisation of each expert in father and mother, and layer -> experts certified dead in the mother."""
    father, mother = scan_a.expert_report(), scan_b.expert_report()
    if father is None or mother is None or father.layers != mother.layers:
        return {}, {}
    both = zip(father.layers, father.utilisation, mother.utilisation, strict=True)
    use = {layer: (tuple(map(float, use_a)), tuple(map(float, use_b))) for layer, use_a, use_b in both}
    dead = {layer: tuple(map(int, np.flatnonzero(row))) for layer, row in zip(mother.layers, mother.dead, strict=True)}
    return use, {layer: experts for layer, experts in dead.items() if experts}


def _preserve(
    utilisation: Mapping[int, tuple[tuple[float, ...], tuple[float, ...]]], dead: Mapping[int, tuple[int, ...]]
) -> dict[int, tuple[int, ...]]:
    """Layer -> experts certified dead in the mother whose use by the father is not below the dead line."""
    found = {}
    for layer, experts in dead.items():
        father = utilisation[layer][0]
        kept = tuple(expert for expert in experts if father[expert] >= DEAD / len(father))
        if kept:
            found[layer] = kept
    return found


def _change_points(profile: Floats, count: int) -> list[int]:
    """Edges of `count` segments with the least within-segment squared deviation (dynamic programming)."""
    layers = len(profile)
    cost = np.full((layers + 1, layers + 1), np.inf)
    for start in range(layers):
        for end in range(start + 1, layers + 1):
            segment = profile[start:end]
            cost[start, end] = float(((segment - segment.mean()) ** 2).sum())
    best = np.full((count + 1, layers + 1), np.inf)
    best[0, 0] = 0
    came = np.zeros((count + 1, layers + 1), dtype=int)
    for used in range(1, count + 1):
        for end in range(used, layers + 1):
            options = best[used - 1, :end] + cost[:end, end]
            came[used, end] = int(np.argmin(options))
            best[used, end] = options[came[used, end]]
    edges = [layers]
    for used in range(count, 0, -1):
        edges.append(int(came[used, edges[-1]]))
    return edges[::-1]


def _sources(scan_a: Scan, scan_b: Scan, mode: str, weights: Mapping[str, float] | None) -> str:
    """12 hex digits: parents, probes, settings and mode."""
    content = [scan_a.fingerprint, scan_b.fingerprint, scan_a.probes_hash, scan_a.settings, mode, dict(weights or {})]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
