"""The merge operators: two parents (and an ancestor) in, one child tensor out, in float32.

Every function takes flat float32 tensors [N] and gives float32 [N]; `ratio` is the mother's share,
a number in (0, 1). Reductions run over fixed blocks in a fixed order, so that no thread count
changes a bit. Knows nothing of names, files or layers. Formulas: methods section 5.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from darwin_lab.merging.draws import draw_key, keep_mask

BLOCK = 1 << 14
SLERP_PARALLEL = 0.9995
_EPS = 1e-7

NEEDS_ANCESTOR = {
    "lerp": False, "slerp": False, "dare": False, "mix": False,
    "task_arithmetic": True, "ties": True, "dare_ties": True,
}  # fmt: skip
OPERATORS = tuple(name for name in NEEDS_ANCESTOR if name != "mix")
USES_DRAWS = frozenset({"dare", "dare_ties", "mix"})
USES_DENSITY_A = frozenset({"ties", "dare_ties", "mix"})
USES_DENSITY_B = USES_DENSITY_A | {"dare"}


@dataclass(frozen=True)
class Draw:
    """What the masks of one tensor depend on; `start` is the element index of the first entry given."""

    seed: int
    name: str
    start: int = 0


@dataclass(frozen=True)
class Blend:
    """How one tensor is blended. `rescale`: what a mask's survivors are multiplied by -
    "inverse" 1/density, "l1" the ratio of L1 norms before and after (the usual tool's way), "none" nothing."""

    operator: str
    ratio: float
    density_a: float = 1.0
    density_b: float = 1.0
    rescale: str = "inverse"
    mix: float = 0.5
    scale: float = 1.0


def blend(a: torch.Tensor, b: torch.Tensor, base: torch.Tensor | None, how: Blend, draw: Draw) -> torch.Tensor:
    """The child's values, float32 [N]. Raises `ValueError` when the operator needs a base and there is none."""
    if NEEDS_ANCESTOR[how.operator] and base is None:
        raise ValueError(f"{how.operator} needs an ancestor")
    match how.operator:
        case "lerp":
            return lerp(a, b, how.ratio)
        case "slerp":
            return slerp(a, b, how.ratio)
        case "dare":
            return dare(a, b, how, draw)
        case "mix":
            sparse = dare(a, b, how, draw) if base is None else dare_ties(a, b, base, how, draw)
            return lerp(lerp(a, b, how.ratio), sparse, how.mix)
    assert base is not None
    match how.operator:
        case "task_arithmetic":
            return task_arithmetic(a, b, base, how)
        case "ties":
            return ties(a, b, base, how)
        case "dare_ties":
            return dare_ties(a, b, base, how, draw)
    raise ValueError(f"unknown operator {how.operator!r}")


def lerp(a: torch.Tensor, b: torch.Tensor, ratio: float) -> torch.Tensor:
    """(1 - r) A + r B."""
    return a * (1.0 - ratio) + b * ratio


def slerp(a: torch.Tensor, b: torch.Tensor, ratio: float) -> torch.Tensor:
    """Along the great circle through A and B (flattened); `lerp` above cosine .9995 or beside a zero tensor."""
    norms = (block_dot(a, a) ** 0.5, block_dot(b, b) ** 0.5)
    if min(norms) == 0.0:
        return lerp(a, b, ratio)
    cosine = max(-1.0, min(1.0, block_dot(a, b) / (norms[0] * norms[1])))
    if abs(cosine) > SLERP_PARALLEL:
        return lerp(a, b, ratio)
    angle = torch.arccos(torch.tensor(cosine, dtype=torch.float64))
    weights = torch.sin(torch.stack([(1.0 - ratio) * angle, ratio * angle])) / torch.sin(angle)
    return a * float(weights[0]) + b * float(weights[1])


def task_arithmetic(a: torch.Tensor, b: torch.Tensor, base: torch.Tensor, how: Blend) -> torch.Tensor:
    """0 + lambda ((1 - r) dA + r dB), dX = X - 0 (arXiv 2212.04089); at lambda 1 this is `lerp`."""
    delta = (a - base) * (1.0 - how.ratio) + (b - base) * how.ratio
    return base + delta * how.scale


def dare(a: torch.Tensor, b: torch.Tensor, how: Blend, draw: Draw) -> torch.Tensor:
    """A + r mask(d_b) (B - A) [/ d_b]: the one-delta form, for parents without an ancestor (arXiv 2311.03099)."""
    return a + _sparse(b - a, how.density_b, how.rescale, draw, "mother") * how.ratio


def ties(a: torch.Tensor, b: torch.Tensor, base: torch.Tensor, how: Blend) -> torch.Tensor:
    """Trim by magnitude, elect the sign of the weighted sum, average those that agree (arXiv 2306.01708)."""
    delta_a = _trim(a - base, how.density_a)
    delta_b = _trim(b - base, how.density_b)
    agree_a, agree_b, total = _elect(delta_a, delta_b, how.ratio)
    weight = agree_a * (1.0 - how.ratio) + agree_b * how.ratio
    return base + total / torch.where(weight == 0, 1.0, weight)


def dare_ties(a: torch.Tensor, b: torch.Tensor, base: torch.Tensor, how: Blend, draw: Draw) -> torch.Tensor:
    """Mask and rescale each delta at random, elect the sign of the weighted sum, sum those that agree."""
    delta_a = _sparse(a - base, how.density_a, how.rescale, draw, "father")
    delta_b = _sparse(b - base, how.density_b, how.rescale, draw, "mother")
    return base + _elect(delta_a, delta_b, how.ratio)[2]


def block_dot(x: torch.Tensor, y: torch.Tensor) -> float:
    """Dot product of two flat tensors in float64, over fixed blocks in a fixed order."""
    return sum(float((p.double() * q.double()).sum()) for p, q in zip(_blocks(x), _blocks(y), strict=True))


def _blocks(x: torch.Tensor) -> Iterator[torch.Tensor]:
    return (x[start : start + BLOCK] for start in range(0, x.numel(), BLOCK))


def _l1(x: torch.Tensor) -> float:
    return sum(float(block.double().abs().sum()) for block in _blocks(x))


def _sparse(delta: torch.Tensor, density: float, rescale: str, draw: Draw, parent: str) -> torch.Tensor:
    if density >= 1.0:
        return delta
    key = draw_key(draw.seed, draw.name, parent)
    kept = delta * keep_mask(key, density, draw.start, delta.numel(), delta.device)
    if rescale == "inverse":
        return kept / density
    if rescale == "l1":
        before, after = _l1(delta), _l1(kept)
        return kept if min(before, after) < _EPS else kept * (before / after)
    return kept


def _trim(delta: torch.Tensor, density: float) -> torch.Tensor:
    """Keeps the largest `density` share by magnitude; among equals the earlier ones, so that the cut is exact."""
    keep = int(density * delta.numel())
    if keep >= delta.numel():
        return delta
    if keep == 0:
        return torch.zeros_like(delta)
    size = delta.abs()
    threshold = torch.kthvalue(size, delta.numel() - keep + 1).values
    above, equal = size > threshold, size == threshold
    spare = keep - int(above.sum())
    return delta * (above | (equal & (torch.cumsum(equal, 0) <= spare)))


def _elect(
    delta_a: torch.Tensor, delta_b: torch.Tensor, ratio: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Who agrees with the elected sign (bool, bool) and the weighted sum of those; a zero sum elects plus."""
    weighted_a, weighted_b = delta_a * (1.0 - ratio), delta_b * ratio
    sign = torch.where(weighted_a + weighted_b >= 0, 1.0, -1.0)
    agree_a, agree_b = weighted_a.sign() == sign, weighted_b.sign() == sign
    return agree_a, agree_b, weighted_a * agree_a + weighted_b * agree_b
