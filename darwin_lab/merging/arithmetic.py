"""The arithmetic of the merge operators: blocks of both parents (and an ancestor) in, blocks of the child out.

An operator is a function of a `Stretch` and `How`: it takes what it needs to know of the whole stretch in passes of
its own, and gives a function (block, ratio) -> float32 [count] that is then called for every block in order; `ratio`
is the mother's share, in (0, 1). What it gives is a buffer, good until the next call. Knows nothing of files or layers.
Formulas: methods section 5 and, where it has the operator, mergekit 0.1.5.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from darwin_lab.merging.operators import How
from darwin_lab.merging.passes import SUMMED, Block, Scratch, Stretch, number, totals
from darwin_lab.merging.select import KEEP_ALL, SIGN, Cut, find_cuts, find_ranks, magnitude_bits, sign_bits_
from darwin_lab.merging.thinning import Thin, at_random, by_magnitude, by_rank, delta_bits

SLERP_PARALLEL = 0.9995
_TINY = 1e-30
_SIGN_BIT = torch.tensor(-(1 << 31), dtype=torch.int32)

Blend = Callable[[Block, float], torch.Tensor]


def lerp(stretch: Stretch, how: How) -> Blend:
    """(1 - r) A + r B; a block that both parents have alike stays as it is, to the last bit."""
    return _lerp


def _lerp(block: Block, ratio: float) -> torch.Tensor:
    if torch.equal(block.a, block.b):
        return block.a
    return block.a.mul_(number(1.0 - ratio)).add_(block.b.mul_(number(ratio)))


def slerp(stretch: Stretch, how: How) -> Blend:
    """Along the great circle through A and B (flattened); `lerp` above cosine .9995 or beside a zero tensor."""
    aa, bb, ab = _dots(stretch, torch.float32)
    if not (math.isfinite(aa + bb) and min(aa, bb) > _TINY):
        stretch.require_finite()
        aa, bb, ab = _dots(stretch, torch.float64)
    cosine = max(-1.0, min(1.0, ab / math.sqrt(aa) / math.sqrt(bb))) if min(aa, bb) > 0.0 else 1.0
    if abs(cosine) > SLERP_PARALLEL:
        return _lerp
    angle = math.acos(cosine)

    def apply(block: Block, ratio: float) -> torch.Tensor:
        weight_a, weight_b = (math.sin(share * angle) / math.sin(angle) for share in (1.0 - ratio, ratio))
        return block.a.mul_(number(weight_a)).add_(block.b.mul_(number(weight_b)))

    return apply


def task_arithmetic(stretch: Stretch, how: How) -> Blend:
    """0 + lambda ((1 - r) dA + r dB), dX = X - 0 (arXiv 2212.04089); at lambda 1 this is `lerp`."""
    return _summed(how, Thin(), Thin())


def dare(stretch: Stretch, how: How) -> Blend:
    """A + r mask(d_b) (B - A) [/ d_b]: the one-delta form, for parents without an ancestor (arXiv 2311.03099)."""
    thin = at_random(stretch, how, "mother")

    def apply(block: Block, ratio: float) -> torch.Tensor:
        delta = thin.lay(block.b.sub_(block.a), block)
        return block.a.add_(delta.mul_(number(ratio * thin.scale)))

    return apply


def ties(stretch: Stretch, how: How) -> Blend:
    """Trim by magnitude, elect the sign of the weighted sum, average those that agree (arXiv 2306.01708).

    Of N entries the max(1, int(density N)) largest stay; among equals the earlier.
    """
    keep = [[max(1, int(density * stretch.count))] for density in (how.density_a, how.density_b)]
    (cut_a,), (cut_b,) = find_cuts(lambda: delta_bits(stretch), keep, stretch.count)
    return _averaged(how, by_magnitude(cut_a), by_magnitude(cut_b))


def dare_ties(stretch: Stretch, how: How) -> Blend:
    """Mask and rescale each delta at random, elect the sign of the weighted sum, sum those that agree.

    Of two numbers that is the sum where they agree and the larger where they do not: the largest magnitude of x, y
    and x + y, with the sign of x + y (plus at zero).
    """
    thin_a = at_random(stretch, how, "father")
    thin_b = at_random(stretch, how, "mother")
    times, scratch = _times_lambda(how), Scratch(2)

    def apply(block: Block, ratio: float) -> torch.Tensor:
        a, b = _weighted(block, ratio, thin_a, thin_b)
        total, sign = scratch(a)
        torch.bitwise_and(torch.add(a, b, out=total).view(torch.int32), _SIGN_BIT, out=sign.view(torch.int32))
        torch.maximum(torch.maximum(a.abs_(), b.abs_(), out=a), total.abs_(), out=a)
        a.view(torch.int32).bitwise_or_(sign.view(torch.int32))
        return block.base.add_(times(a))

    return apply


def mix(stretch: Stretch, how: How) -> Blend:
    """(1 - m) lerp + m dare_ties (`dare` without an ancestor), m = how.mix."""
    sparse = (dare_ties if stretch.has_base else dare)(stretch, replace(how, operator="dare_ties", options={}))
    scratch = Scratch(2)

    def apply(block: Block, ratio: float) -> torch.Tensor:
        plain, other = scratch(block.a)
        torch.mul(block.a, number(1.0 - ratio), out=plain).add_(torch.mul(block.b, number(ratio), out=other))
        return plain.mul_(number(1.0 - how.mix)).add_(sparse(block, ratio).mul_(number(how.mix)))

    return apply


def breadcrumbs(stretch: Stretch, how: How) -> Blend:
    """Of each delta the `gamma` N largest and as many of the smallest are dropped as leave density N (2312.06795)."""
    total, keep = stretch.count, []
    for density in (how.density_a, how.density_b):
        kept, top = int(density * total), int((how.option("gamma") or 0.0) * total)
        above = total - kept - max(0, total - kept - top)
        keep.append([above, above + kept] if density < 1.0 else [0, total])
    cuts = find_cuts(lambda: delta_bits(stretch), keep, total)
    return _summed(how, *(by_magnitude(wide, top) for top, wide in cuts))


def della(stretch: Stretch, how: How) -> Blend:
    """Keep probabilities rise with the magnitude's rank in its row; sign election, average (arXiv 2406.11617).

    They span density - epsilon .. density + epsilon; epsilon is cut where they would leave [0, 1].
    """
    thin_a = by_rank(stretch, how, "father")
    thin_b = by_rank(stretch, how, "mother")
    return _averaged(how, thin_a, thin_b)


def sce(stretch: Stretch, how: How) -> Blend:
    """Select entries by variance, weight by energy, erase the minority's sign (FuseChat, arXiv 2408.07990).

    The density_b share of the non-zero |dA - dB| is selected; weights are (1 - r) and r times the deltas' mean
    squares (r = .5: mergekit's), or (1 - r) and r alone where those are below 1e-6.
    """
    cut = Cut(KEEP_ALL)
    if how.density_b < 1.0:
        apart = sum(int(torch.count_nonzero(bits)) for (bits,) in _apart_bits(stretch))
        ((cut,),) = find_cuts(lambda: _apart_bits(stretch), [[int(how.density_b * apart)]], stretch.count)
    select, scratch, times = _selector(cut.again()), Scratch(2), _times_lambda(how)
    energies = [total / stretch.count for total in totals(stretch, lambda block: [x.square_() for x in select(block)])]
    if sum(energies) < 1e-6:
        energies = [1.0, 1.0]
    select_again = _selector(cut)

    def apply(block: Block, ratio: float) -> torch.Tensor:
        a, b = select_again(block)
        _elect_(a.mul_(number(1.0 - ratio)), b.mul_(number(ratio)), *scratch(a))
        shares = [(1.0 - ratio) * energies[0], ratio * energies[1]]
        whole = sum(shares)
        a.mul_(number(energies[0] / whole))
        b.mul_(number(energies[1] / whole))
        return block.base.add_(times(_mean_(a, b, shares[0] / whole, shares[1] / whole, 1e-6, scratch(a)[0])))

    return apply


def arcee_fusion(stretch: Stretch, how: How) -> Blend:
    """B where |B - A| x KL of its row is at least median + 1.5 x the quartiles' distance, else A (arcee.ai).

    KL: of the softmax of B's row (last axis) from that of A's. No ratio: between 0 and 1 it changes nothing.
    Quartiles are of all entries; mergekit's are of a sample above a million.
    """
    last = stretch.count - 1
    ranks = [stretch.count - quarter * last // 4 for quarter in (1, 2, 3)]
    found = find_ranks(lambda: _importance_bits(stretch), [ranks])
    bits = torch.tensor([found[0, rank][0] for rank in ranks], dtype=torch.int32)
    low, median, high = bits.view(torch.float32)
    limit = median + 1.5 * (high - low)

    def apply(block: Block, ratio: float) -> torch.Tensor:
        chosen = _importance(block, stretch.width) >= limit
        return torch.where(chosen, block.b, block.a)

    return apply


def nearswap(stretch: Stretch, how: How) -> Blend:
    """w B + (1 - w) A with w = t / |A - B| cut at 1 (alchemonaut/QuartetAnemoi-70B-t0.0001).

    Without the option `t` it is r / (1 - r) x mean |B - A|, so that the ratio acts (ours).
    """
    limit, mean, scratch = how.options.get("t"), 0.0, Scratch(1)
    if limit is None:
        mean = totals(stretch, lambda block: [block.b.sub_(block.a).abs_()])[0] / stretch.count

    def apply(block: Block, ratio: float) -> torch.Tensor:
        t = limit if limit is not None else ratio / (1.0 - ratio) * mean
        (share,) = scratch(block.a)
        torch.sub(block.a, block.b, out=share).abs_().clamp_min_(1e-6).reciprocal_().mul_(number(t)).clamp_max_(1.0)
        block.b.mul_(share)
        return block.a.mul_(share.neg_().add_(1.0)).add_(block.b)

    return apply


def passthrough(stretch: Stretch, how: How) -> Blend:
    """The nearer parent (the father at .5) x `scale`."""
    scale = number(how.option("scale") or 0.0)
    return lambda block, ratio: (block.a if ratio <= 0.5 else block.b).mul_(scale)


def _summed(how: How, thin_a: Thin, thin_b: Thin) -> Blend:
    """0 + lambda ((1 - r) dA + r dB) of thinned deltas."""
    times = _times_lambda(how)

    def apply(block: Block, ratio: float) -> torch.Tensor:
        a, b = _weighted(block, ratio, thin_a, thin_b)
        return block.base.add_(times(a.add_(b)))

    return apply


def _averaged(how: How, thin_a: Thin, thin_b: Thin) -> Blend:
    """0 + lambda x the weighted average of the thinned deltas that have the sign of their weighted sum."""
    times, scratch = _times_lambda(how), Scratch(2)

    def apply(block: Block, ratio: float) -> torch.Tensor:
        a, b = _weighted(block, ratio, thin_a, thin_b)
        spare = scratch(a)
        _elect_(a, b, *spare)
        return block.base.add_(times(_mean_(a, b, 1.0 - ratio, ratio, _TINY, spare[0])))

    return apply


def _weighted(block: Block, ratio: float, thin_a: Thin, thin_b: Thin) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = thin_a.lay(block.a.sub_(block.base), block), thin_b.lay(block.b.sub_(block.base), block)
    return a.mul_(number((1.0 - ratio) * thin_a.scale)), b.mul_(number(ratio * thin_b.scale))


def _elect_(a: torch.Tensor, b: torch.Tensor, total: torch.Tensor, spare: torch.Tensor) -> None:
    """Clears, in place, the entries of weighted deltas that disagree with their sum's sign; a zero sum elects plus."""
    elected = sign_bits_(torch.add(a, b, out=total).view(torch.int32)).bitwise_not_()
    agrees = spare.view(torch.int32)
    for delta in (a.view(torch.int32), b.view(torch.int32)):
        delta.bitwise_and_(torch.bitwise_right_shift(delta, SIGN, out=agrees).bitwise_xor_(elected))


def _mean_(a: torch.Tensor, b: torch.Tensor, w_a: float, w_b: float, floor: float, spare: torch.Tensor) -> torch.Tensor:
    """(a + b) / the weights of those that are not zero (at least `floor`), in place; a and b never differ in sign."""
    weights = torch.sign(a, out=spare).mul_(number(w_a))
    total = a.add_(b)
    return total.div_(weights.add_(b.sign_().mul_(number(w_b))).abs_().clamp_min_(floor))


def _dots(stretch: Stretch, dtype: torch.dtype) -> list[float]:
    """A.A, B.B and A.B."""
    scratch = Scratch(1)

    def products(block: Block) -> list[torch.Tensor]:
        a, b = (block.a, block.b) if dtype == torch.float32 else (block.a.to(dtype), block.b.to(dtype))
        product = torch.mul(a, b, out=scratch(a)[0] if dtype == torch.float32 else None)
        return [a.square_(), b.square_(), product]

    return totals(stretch, products, unchecked=True)


def _selector(cut: Cut) -> Callable[[Block], tuple[torch.Tensor, torch.Tensor]]:
    """Both deltas of a block, cleared where the cut does not select their difference."""
    scratch = Scratch(1)

    def select(block: Block) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = block.a.sub_(block.base), block.b.sub_(block.base)
        if cut.bits != KEEP_ALL:
            (apart,) = scratch(a)
            mask = cut.mask(magnitude_bits(torch.sub(a, b, out=apart)))
            a.view(torch.int32).bitwise_and_(mask)
            b.view(torch.int32).bitwise_and_(mask)
        return a, b

    return select


def _apart_bits(stretch: Stretch) -> Iterator[tuple[torch.Tensor]]:
    """One pass: the magnitude bits of dA - dB, which order as the variance does."""
    for block in stretch.blocks():
        yield (magnitude_bits(block.a.sub_(block.base).sub_(block.b.sub_(block.base))),)


def _importance(block: Block, width: int) -> torch.Tensor:
    """float32 [count]: |B - A| x KL(softmax of B's row from A's), with mergekit's 1e-8 on both."""
    a, b = block.a.view(-1, min(width, block.count)), block.b.view(-1, min(width, block.count))
    p, q = (torch.softmax(rows, dim=1).add_(1e-8) for rows in (b, a))
    divergence = torch.zeros((p.shape[0], 1), device=p.device)
    for part_p, part_q in zip(torch.split(p, SUMMED, 1), torch.split(q, SUMMED, 1), strict=True):
        divergence += (part_p / part_q).log_().mul_(part_p).sum(dim=1, keepdim=True)
    return (b - a).abs_().mul_(divergence.clamp_min_(0.0)).view(-1)


def _importance_bits(stretch: Stretch) -> Iterator[tuple[torch.Tensor]]:
    for block in stretch.blocks():
        yield (magnitude_bits(_importance(block, stretch.width)),)


def _times_lambda(how: How) -> Callable[[torch.Tensor], torch.Tensor]:
    factor = how.option("lambda")
    return (lambda delta: delta) if factor is None or factor == 1.0 else (lambda delta: delta.mul_(number(factor)))


BLENDS: dict[str, Callable[[Stretch, How], Blend]] = {
    function.__name__: function
    for function in (
        lerp, slerp, task_arithmetic, dare, ties, dare_ties, mix, breadcrumbs, della, sce, arcee_fusion, nearswap,
        passthrough,
    )
}  # fmt: skip
BY_ROWS = frozenset({"della", "arcee_fusion"})
"""Operators that need whole rows in a block (`Stretch.by_rows`)."""
SHOWS_IN_CHILD = frozenset({"lerp", "task_arithmetic"})
"""Operators whose child has NaN or Inf wherever a parent has."""
