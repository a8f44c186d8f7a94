"""Masks over a parent's delta: at random, by magnitude, by rank.

Takes a stretch and what is asked of it, gives `Thin`s. A mask is int32 words, all bits set or none, laid over the bits
of the delta. Must not know ratios or how thinned deltas are put together.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from darwin_lab.merging.draws import Draws, draw_key
from darwin_lab.merging.operators import How
from darwin_lab.merging.passes import Block, Stretch, totals
from darwin_lab.merging.select import KEEP_ALL, Cut, magnitude_bits

_EPS = 1e-7
_TINY = 1e-30

Lay = Callable[[torch.Tensor, Block], torch.Tensor]
"""Lays a mask over the delta of a block, in place. To be given every block once, in order."""


@dataclass(frozen=True)
class Thin:
    """How a delta is thinned out; `scale` is the survivors' factor, left to the caller."""

    lay: Lay = lambda delta, block: delta
    scale: float = 1.0


def delta(block: Block, parent: str, *, has_base: bool) -> torch.Tensor:
    """That parent less the ancestor, in place; less the father where there is no ancestor."""
    return (block.a if parent == "father" else block.b).sub_(block.base if has_base else block.a)


def delta_bits(stretch: Stretch) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """One pass: the magnitude bits of both deltas."""
    for block in stretch.blocks():
        yield magnitude_bits(block.a.sub_(block.base)), magnitude_bits(block.b.sub_(block.base))


def at_random(stretch: Stretch, how: How, parent: str) -> Thin:
    """DARE (arXiv 2311.03099): each entry kept with the same probability."""
    density = how.density_a if parent == "father" else how.density_b
    if density >= 1.0:
        return Thin()
    draws = Draws(draw_key(how.seed, stretch.name, parent))

    def lay(values: torch.Tensor, block: Block) -> torch.Tensor:
        values.view(torch.int32).bitwise_and_(draws.keep(density, block.offset, block.count).to(values.device))
        return values

    return Thin(lay, 1.0 / density if how.rescale == "inverse" else _scale(stretch, how, parent, lay))


def by_rank(stretch: Stretch, how: How, parent: str) -> Thin:
    """DELLA (arXiv 2406.11617): kept with a probability that rises with the magnitude's rank in its row.

    From density - epsilon at the smallest to density + epsilon at the largest, among equals by index; epsilon is cut
    so that they stay in [0, 1]. "inverse" divides each entry by its own probability.
    """
    density = how.density_a if parent == "father" else how.density_b
    if density >= 1.0:
        return Thin()
    draws = Draws(draw_key(how.seed, stretch.name, parent))
    reach = min(how.option("epsilon") or 0.0, density, 1.0 - density)

    def lay(values: torch.Tensor, block: Block) -> torch.Tensor:
        rows = values.view(-1, min(stretch.width, block.count))
        order = rows.abs().argsort(dim=1, stable=True)
        ramp = _ramp(density, reach, rows.shape[1], rows.device).expand_as(rows)
        chances = torch.empty_like(ramp).scatter_(1, order, ramp).view(-1)
        mask = draws.keep_each(chances.cpu().numpy(), block.offset)
        values.view(torch.int32).bitwise_and_(mask.to(values.device))
        return values.div_(chances.float().clamp_min_(_TINY)) if how.rescale == "inverse" else values

    return Thin(lay, 1.0 if how.rescale == "inverse" else _scale(stretch, how, parent, lay))


def by_magnitude(cut: Cut, without: Cut | None = None) -> Thin:
    """The cut's largest entries, less the (larger still) ones of `without`."""

    def lay(values: torch.Tensor, block: Block) -> torch.Tensor:
        bits = magnitude_bits(values)
        mask = cut.mask(bits)
        if without is not None:
            mask.bitwise_xor_(without.mask(bits))
        values.view(torch.int32).bitwise_and_(mask)
        return values

    return Thin() if cut.bits == KEEP_ALL and without is None else Thin(lay)


def _ramp(density: float, reach: float, ranks: int, device: torch.device) -> torch.Tensor:
    """float64 [ranks]: the keep probability of each rank, the smallest magnitude first; a single one has `density`."""
    steps = torch.arange(ranks, dtype=torch.float64, device=device).div_(max(ranks - 1, 1))
    return steps * (2 * reach) + (density - reach) if ranks > 1 else steps + density


def _scale(stretch: Stretch, how: How, parent: str, lay: Lay) -> float:
    """What keeps the delta's L1 norm under this mask where `how` asks for it, else 1."""
    if how.rescale != "l1":
        return 1.0

    def norms(block: Block) -> list[torch.Tensor]:
        whole = delta(block, parent, has_base=stretch.has_base)
        return [whole.abs(), lay(whole, block).abs_()]

    before, after = totals(stretch, norms)
    return before / after if min(before, after) >= _EPS else 1.0
