"""The static profile: what two checkpoints' weights say before any text is read.

Takes two checkpoints and their anatomy; gives one row per mergeable tensor, each parent's distribution and, what
actually discriminates, their difference. Sums run in float64 over fixed blocks, so a profile depends on no thread
count. Must not know: probes, ratios, genomes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from darwin_lab.errors import LabError
from darwin_lab.progress import Tick, part, silent

if TYPE_CHECKING:
    from darwin_lab.checkpoint.alignment import Aligned
    from darwin_lab.checkpoint.anatomy import Anatomy
    from darwin_lab.checkpoint.checkpoint import Checkpoint

Floats = NDArray[np.float64]
BINS = 256
REACH = 4.0
"""The histogram spans mean +- 4 standard deviations; values beyond count in the outermost bins."""
BLOCK = 32_768
POWER_STEPS = 24
_READING = 0.9
"""Share of the work that reading every tensor takes; the rest compares experts."""


@dataclass(frozen=True)
class StaticRow:
    """One tensor of both parents. Entropies in nats, at most ln 256."""

    name: str
    layer: int | None
    role: str
    component: str
    numel: int
    entropy_a: float
    entropy_b: float
    std_a: float
    std_b: float
    norm_a: float
    norm_b: float
    delta_norm: float
    """||B - A|| / ||A|| (over ||B|| where A is zero)."""
    cosine: float
    """cos(A, B) of the flattened tensors; 1 where both are zero."""
    sign_flips: float
    """Share of elements whose sign differs."""
    stable_rank: float
    """||D||_F^2 / ||D||_2^2 of D = B - A; mean over experts of a fused tensor; 0 without difference."""


@dataclass(frozen=True)
class StaticProfile:
    """Rows of all mergeable tensors, in the father's order.

    same_experts: MoE layer -> part of the father's experts that are most like the one of the mother's they would be
    blended with; empty for dense parents, and where it was not looked at. experts_correspond: whether they may be
    blended so.
    """

    father: str
    mother: str
    rows: tuple[StaticRow, ...]
    same_experts: Mapping[int, float] = field(default_factory=dict)
    experts_correspond: bool = True

    @cached_property
    def by_name(self) -> dict[str, StaticRow]:
        return {row.name: row for row in self.rows}

    def layer_delta(self, layers: int) -> Floats:
        """[layers] size-weighted mean of `delta_norm`."""
        total, size = np.zeros(layers), np.zeros(layers)
        for row in self.rows:
            if row.layer is not None:
                total[row.layer] += row.delta_norm * row.numel
                size[row.layer] += row.numel
        return np.divide(total, size, out=np.zeros(layers), where=size > 0)

    def to_json(self) -> dict[str, Any]:
        return {
            "version": 1,
            "father": self.father,
            "mother": self.mother,
            "rows": [asdict(row) for row in self.rows],
            "same_experts": {str(layer): share for layer, share in self.same_experts.items()},
            "experts_correspond": self.experts_correspond,
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> "StaticProfile":
        """The inverse of `to_json`. Raises `LabError` for anything else."""
        try:
            shares = {int(layer): float(share) for layer, share in data.get("same_experts", {}).items()}
            rows = tuple(StaticRow(**row) for row in data["rows"])
            same = bool(data.get("experts_correspond", True))
            return StaticProfile(data["father"], data["mother"], rows, shares, same)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LabError(f"not a static profile ({error}); measure it again") from error


def static_profile(father: "Checkpoint", mother: "Aligned", anatomy: "Anatomy", tick: Tick = silent) -> StaticProfile:
    """Read every mergeable tensor of both parents once; memory is one of each. The mother's are as `mother` aligns them
    to the father: under his names, with his tokens and his order of experts where she was aligned so.

    Raises `LabError` for a tensor the mother cannot supply, and for NaN or Inf (names tensor and parent).
    Source: methods, section 2.
    """
    from darwin_lab.merging.matching import expert_identity

    parts = anatomy.mergeable
    rows = []
    for number, one in enumerate(parts):
        tick(_READING * number / max(len(parts), 1), f"static profile: {one.name}")
        if one.name not in mother.tensors:
            raise LabError(f"{mother.name} has nothing that fits {one.name}; compare the parents first")
        a, b = _read(father, one.name), _read(mother, one.name)
        measured = compare_tensors(a, b, stacked=one.expert == -1)
        rows.append(StaticRow(one.name, one.layer, one.role, one.component, one.numel, **measured))
    identity = expert_identity(father, mother, anatomy, part(tick, _READING, 1.0))
    tick(1.0, "static profile done")
    share, same = (identity.share, identity.same) if identity else ({}, True)
    return StaticProfile(father.name, mother.name, tuple(rows), share, same)


def compare_tensors(a: NDArray[np.float32], b: NDArray[np.float32], *, stacked: bool = False) -> dict[str, float]:
    """The numbers of one `StaticRow`; with `stacked` the first axis counts separate matrices (fused experts)."""
    sum_a, square_a = _sum(a), _sum(a, a)
    sum_b, square_b = _sum(b), _sum(b, b)
    delta = b - a
    square_delta, dot = _sum(delta, delta), _sum(a, b)
    size = a.size
    std_a = float(np.sqrt(max(square_a / size - (sum_a / size) ** 2, 0)))
    std_b = float(np.sqrt(max(square_b / size - (sum_b / size) ** 2, 0)))
    norms = float(np.sqrt(square_a)), float(np.sqrt(square_b))
    return {
        "entropy_a": histogram_entropy(a, sum_a / size, std_a),
        "entropy_b": histogram_entropy(b, sum_b / size, std_b),
        "std_a": std_a,
        "std_b": std_b,
        "norm_a": norms[0],
        "norm_b": norms[1],
        "delta_norm": float(np.sqrt(square_delta)) / (norms[0] or norms[1] or 1.0),
        "cosine": min(1.0, max(-1.0, dot / (norms[0] * norms[1]))) if all(norms) else float(norms[0] == norms[1]),
        "sign_flips": float(np.count_nonzero(np.signbit(a) != np.signbit(b)) / size) if size else 0.0,
        "stable_rank": stable_rank(delta, stacked=stacked),
    }


def histogram_entropy(values: NDArray[np.float32], mean: float, std: float) -> float:
    """Shannon entropy (nats) of 256 equal bins over mean +- 4 std, the tails counted in the outermost bins.

    0 for a constant tensor. Source: methods, section 2.
    """
    if std == 0:
        return 0.0
    low, width = mean - REACH * std, 2 * REACH * std / BINS
    counts = np.zeros(BINS, dtype=np.int64)
    for block in _blocks(values):
        bins = np.clip(np.floor((block - low) / width), 0, BINS - 1).astype(np.int64)
        counts += np.bincount(bins, minlength=BINS)
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())


def stable_rank(delta: NDArray[np.float32], *, stacked: bool = False) -> float:
    """||D||_F^2 / ||D||_2^2, the spectral norm by power iteration from a fixed start; 0 for D = 0."""
    if stacked:
        return float(np.mean([stable_rank(matrix) for matrix in delta]))
    matrix = delta.reshape(delta.shape[0], -1).astype(np.float64) if delta.ndim > 1 else delta[None].astype(np.float64)
    frobenius = _sum(matrix, matrix)
    if frobenius == 0:
        return 0.0
    if min(matrix.shape) == 1:
        return 1.0
    vector = np.cos(np.arange(matrix.shape[1], dtype=np.float64))
    spectral = 0.0
    for _ in range(POWER_STEPS):
        image = matrix @ (vector / np.linalg.norm(vector))
        spectral = float(image @ image)
        vector = matrix.T @ image
        if spectral == 0:
            return 0.0
    return max(1.0, frobenius / spectral)


def _read(checkpoint: "Checkpoint | Aligned", name: str) -> NDArray[np.float32]:
    values: NDArray[np.float32] = checkpoint.read(name).float().numpy()
    if not np.isfinite(values).all():
        raise LabError(f"{name} of {checkpoint.name} holds NaN or Inf; get an undamaged copy of this checkpoint")
    return values


def _blocks(values: NDArray[Any]) -> Iterator[Floats]:
    flat = values.reshape(-1)
    for start in range(0, flat.size, BLOCK):
        yield flat[start : start + BLOCK].astype(np.float64)


def _sum(a: NDArray[Any], b: NDArray[Any] | None = None) -> float:
    """Sum of a, or of a x b, block by block in a fixed order (never through BLAS)."""
    if b is None:
        return float(sum(block.sum() for block in _blocks(a)))
    return float(sum((x * y).sum() for x, y in zip(_blocks(a), _blocks(b), strict=True)))
