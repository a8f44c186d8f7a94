"""The published formulas for the mother's share of a tensor: two model cards' and the paper's.

Takes two scans, the static profile and the anatomy; gives ratios. Each scores father and mother by themselves and
divides: mother's score over both. On fine-tunes of one model the scores hardly differ, and the ratio says nothing; the
caller tells. Must not know: swaps, genomes, what is made of a ratio.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from darwin_lab.errors import LabError
from darwin_lab.mri.probes import NEUTRAL
from darwin_lab.mri.record import Scan

if TYPE_CHECKING:
    from darwin_lab.checkpoint.anatomy import Anatomy
    from darwin_lab.mri.static import StaticProfile, StaticRow

Floats = NDArray[np.float64]
Weights = tuple[float, float, float]
"""Of a tensor's entropy (nats), standard deviation and norm (at most 100) in its static score."""
V5_STATIC: Weights = (0.5, 0.3, 0.002)
V6_STATIC: Weights = (0.3, 0.2, 0.002)
REASONING = "REASONING"
"""The probe that the paper's formula sets against neutral text."""
Score = Callable[["StaticRow", str, float], float]


def card_v5(static: "StaticProfile", anatomy: "Anatomy") -> dict[str, float]:
    """mri = .5 entropy + .3 std + .002 min(norm, 100) of the weights; no text is read. Source: methods, section 2."""
    still = np.zeros(anatomy.layers)
    return _shares(static, anatomy, (still, still), lambda row, side, _: static_score(row, side, V5_STATIC))


def card_v6(
    scans: tuple[Scan, Scan], static: "StaticProfile", anatomy: "Anatomy", share: Mapping[str, float]
) -> dict[str, float]:
    """combined = .4 (.3 entropy + .2 std + .002 min(norm, 100)) + .6 sum_p w_p cosdist_p, `share` being w, cosdist the
    `skip` importance. Source: methods, section 2."""

    def score(row: "StaticRow", side: str, distance: float) -> float:
        return 0.4 * static_score(row, side, V6_STATIC) + 0.6 * distance

    father, mother = (_weighted(scan.importance("skip"), share, scan.layers) for scan in scans)
    return _shares(static, anatomy, (father, mother), score)


def paper(
    scans: tuple[Scan, Scan], static: "StaticProfile", anatomy: "Anatomy", share: Mapping[str, float]
) -> dict[str, float]:
    """MRI = .5 static + .5 probe, probe = cosine distance of a layer's mean activation under reasoning and under
    neutral text. Source: methods, section 2.

    Open, so ours: static is the V6 card's score; without a REASONING probe the distances are averaged over the skills
    with `share`. Raises `LabError` without neutral texts, and for scans made before mean activations were kept.
    """

    def score(row: "StaticRow", side: str, distance: float) -> float:
        return 0.5 * static_score(row, side, V6_STATIC) + 0.5 * distance

    father, mother = (conditioning(scan, share) for scan in scans)
    return _shares(static, anatomy, (father, mother), score)


def conditioning(scan: Scan, share: Mapping[str, float]) -> Floats:
    """[L] 1 - cos of each layer's mean output over REASONING and over NEUTRAL tokens (see `paper`)."""
    if NEUTRAL not in scan.probes:
        raise LabError(f"the paper's formula needs a {NEUTRAL} probe to compare with; add one to these probes")
    wanted = {REASONING: 1.0} if REASONING in scan.probes else share
    lacking = [probe for probe in (*wanted, NEUTRAL) if probe not in scan.centroids]
    if lacking:
        raise LabError(f"the scan of {scan.model} holds no mean activations of {lacking[0]}; scan it again")
    neutral = scan.centroids[NEUTRAL].astype(np.float64)
    distances = {probe: 1.0 - _cosine(scan.centroids[probe].astype(np.float64), neutral) for probe in wanted}
    return _weighted(distances, wanted, scan.layers)


def static_score(row: "StaticRow", side: str, weights: Weights) -> float:
    """A tensor's static score in parent "a" or "b"."""
    entropy, std, norm = (
        (row.entropy_a, row.std_a, row.norm_a) if side == "a" else (row.entropy_b, row.std_b, row.norm_b)
    )
    return weights[0] * entropy + weights[1] * std + weights[2] * min(norm, 100.0)


def _shares(
    static: "StaticProfile", anatomy: "Anatomy", distances: tuple[Floats, Floats], score: Score
) -> dict[str, float]:
    """Mother's score over both, for every mergeable tensor; outside the layers no text counts."""
    missing = [part.name for part in anatomy.mergeable if part.name not in static.by_name]
    if missing:
        raise LabError(f"the static profile lacks {missing[0]}; measure it for these parents")
    ratio: dict[str, float] = {}
    for part in anatomy.mergeable:
        row = static.by_name[part.name]
        read = (0.0, 0.0) if part.layer is None else (float(one[part.layer]) for one in distances)
        of_a, of_b = (score(row, side, distance) for side, distance in zip("ab", read, strict=True))
        ratio[part.name] = round(of_b / (of_a + of_b), 6) if of_a + of_b > 0 else 0.5
    return ratio


def _weighted(by_probe: Mapping[str, Floats], share: Mapping[str, float], layers: int) -> Floats:
    return sum((weight * by_probe[probe] for probe, weight in share.items()), np.zeros(layers))


def _cosine(one: Floats, other: Floats) -> Floats:
    """[L] of rows [L, H]; 1 where both are zero."""
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosine: Floats = np.divide((one * other).sum(1), lengths, out=np.ones(len(one)), where=lengths > 0)
    return cosine
