"""Where two scans differ: the advantage map with its max-T threshold, and the golden layers.

Takes two scans of the same probes; gives maps probe x layer. Advantage is father minus mother, above zero favours
the father. Must not know: tensors, ratios, what is done about a difference.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from darwin_lab.errors import LabError
from darwin_lab.mri.probes import NEUTRAL
from darwin_lab.mri.record import DECISIVE, MEASURES, Scan, shared_probes
from darwin_lab.statistics.bootstrap import bootstrap_mean, max_t_threshold

Floats = NDArray[np.float64]
GOLDEN_SPREADS = 3.0
"""A golden layer leads the median layer by this many robust standard deviations (1.4826 MAD)."""
NORMAL_95 = 1.96


@dataclass(frozen=True, eq=False)
class AdvantageMap:
    """adv = (I_A^p - I_A^neutral) - (I_B^p - I_B^neutral), P probes (without the neutral one) x L layers.

    A cell is `different` when |value| > threshold x se, where the threshold is that of the largest cell by chance.
    """

    measure: str
    neutral: str | None
    """The probe subtracted; None when the scans do not hold it (then adv = I_A^p - I_B^p)."""
    probes: tuple[str, ...]
    values: Floats
    se: Floats
    threshold: float
    different: NDArray[np.bool_]


def advantage(
    scan_a: Scan, scan_b: Scan, measure: str = DECISIVE, neutral: str | None = NEUTRAL, draws: int = 1000
) -> AdvantageMap:
    """The advantage map of two scans, by paired bootstrap over texts with the max over all cells.

    Raises `LabError` for scans that cannot be compared and for probes of fewer than two texts.
    Source: methods, sections 2 and 3.
    """
    differences, weights = _paired(scan_a, scan_b, measure)
    present = neutral if neutral in differences and len(differences) > 1 else None
    judged = max_t_threshold(differences, weights, neutral=present, draws=draws)
    return AdvantageMap(
        measure=measure,
        neutral=present,
        probes=tuple(probe for probe in differences if probe != present),
        values=judged.estimate,
        se=judged.se,
        threshold=judged.threshold,
        different=judged.different,
    )


def golden_layers(
    scan_a: Scan, scan_b: Scan, measure: str = DECISIVE, weights: Mapping[str, float] | None = None
) -> tuple[int, ...]:
    """Layers where the mother clearly leads: -adv, weighted over probes (uniformly by default), lies above
    median + 3 x 1.4826 MAD over layers and its 95 % interval lies above zero. None where a probe has a single text,
    hence no interval.

    Source: methods, section 3.
    """
    if any(scan_a.texts[probe] < 2 for probe in shared_probes(scan_a, scan_b)):
        return ()
    differences, tokens = _paired(scan_a, scan_b, measure)
    share = probe_weights(tuple(differences), weights)
    lead = np.zeros(scan_a.layers)
    variance = np.zeros(scan_a.layers)
    signed = {**share, NEUTRAL: -1.0} if NEUTRAL in differences and NEUTRAL not in share else share
    for probe, weight in signed.items():
        mean, _, _, se = bootstrap_mean(differences[probe], tokens[probe])
        lead -= weight * mean
        variance += (weight * se) ** 2
    centre = float(np.median(lead))
    spread = 1.4826 * float(np.median(np.abs(lead - centre)))
    leads = (lead > centre + GOLDEN_SPREADS * spread) & (lead > NORMAL_95 * np.sqrt(variance))
    return tuple(int(layer) for layer in np.flatnonzero(leads & (lead > 0)))


def probe_weights(probes: tuple[str, ...], weights: Mapping[str, float] | None = None) -> dict[str, float]:
    """Weights that sum to 1: as given, else uniform over the probes other than NEUTRAL (over all if it is alone).

    Raises `LabError` for an unknown probe, a negative weight, or no weight at all.
    """
    if weights is None:
        skills = [probe for probe in probes if probe != NEUTRAL] or list(probes)
        return {probe: 1 / len(skills) for probe in skills}
    unknown = [probe for probe in weights if probe not in probes]
    if unknown:
        raise LabError(f"probe weight for {unknown[0]}, which was not scanned; scanned are {', '.join(probes)}")
    total = sum(weights.values())
    if min(weights.values(), default=0) < 0 or not total > 0:
        raise LabError("probe weights must be zero or more with one above zero; correct them")
    return {probe: weight / total for probe, weight in weights.items() if weight > 0}


def _paired(scan_a: Scan, scan_b: Scan, measure: str) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Father minus mother per text, and what each text counts."""
    if measure not in MEASURES:
        raise LabError(f"no measure named {measure}; choose one of {', '.join(MEASURES)}")
    probes = shared_probes(scan_a, scan_b)
    for probe in probes:
        if scan_a.texts[probe] < 2:
            raise LabError(f"probe {probe} has one text; a difference needs at least two texts to have an interval")
    differences = {
        probe: scan_a.per_text[measure][probe].astype(np.float64) - scan_b.per_text[measure][probe] for probe in probes
    }
    return differences, {probe: scan_a.weights(measure, probe) for probe in probes}
