"""Exact selection by magnitude over a stream: which elements are the k largest, in bounded memory.

Takes a function that streams blocks of magnitudes, gives cuts that mask a block. Two passes of histograms over the bits
of the floats (non-negative floats sort as their bits do); among equals the earlier are kept, so that exactly k are.
Knows nothing of tensors' names, parents or operators.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

Magnitudes = Callable[[], Iterator[Sequence[torch.Tensor]]]
"""A pass: for each block one int32 tensor a quantity, the bits of non-negative floats. The same at each call."""
Counts = NDArray[np.int64]
SIGN = torch.tensor(31, dtype=torch.int32)
_MAGNITUDE = torch.tensor(0x7FFFFFFF, dtype=torch.int32)
_LOW = 18
_BINS, _FINE = 1 << (31 - _LOW), 1 << _LOW
KEEP_ALL, KEEP_NONE = -1, (1 << 31) - 1


class Cut:
    """The largest of a stream: those above `bits`, and the first `equal` of those that equal it.

    `mask` is to be given every block of the stream once, in order.
    """

    def __init__(self, bits: int, equal: int = 0) -> None:
        self.bits, self.equal, self._left = bits, equal, equal
        self._limit = torch.tensor(bits, dtype=torch.int32)

    def again(self) -> "Cut":
        """The same cut for another pass."""
        return Cut(self.bits, self.equal)

    def mask(self, magnitudes: torch.Tensor) -> torch.Tensor:
        """int32 [N] from magnitude bits int32 [N]: all bits set where kept, else none."""
        above = sign_bits_(torch.sub(self._limit, magnitudes))
        if self._left == 0:
            return above
        from_here = sign_bits_(torch.sub(self._limit - 1, magnitudes))
        equal = int(above.sum(dtype=torch.int32) - from_here.sum(dtype=torch.int32))
        if equal <= self._left:
            self._left -= equal
            return from_here
        first, self._left = torch.cumsum(above != from_here, 0) <= self._left, 0
        return torch.where(first, from_here, above)


def magnitude_bits(values: torch.Tensor) -> torch.Tensor:
    """int32 [N]: the bits of |values|, float32 [N]."""
    return torch.bitwise_and(values.view(torch.int32), _MAGNITUDE)


def sign_bits_(values: torch.Tensor) -> torch.Tensor:
    """int32, in place: all bits set where negative, else none."""
    return torch.bitwise_right_shift(values, SIGN, out=values)


def find_cuts(magnitudes: Magnitudes, keep: Sequence[Sequence[int]], total: int) -> list[list[Cut]]:
    """For each quantity of the stream and each count k of `keep[quantity]`, the cut to its k largest of `total`."""
    wanted = [[k for k in counts if 0 < k < total] for counts in keep]
    found = find_ranks(magnitudes, wanted) if any(wanted) else {}
    ends = {False: (KEEP_NONE, 0), True: (KEEP_ALL, 0)}
    return [[Cut(*found.get((index, k), ends[k > 0])) for k in counts] for index, counts in enumerate(keep)]


def find_ranks(magnitudes: Magnitudes, wanted: Sequence[Sequence[int]]) -> dict[tuple[int, int], tuple[int, int]]:
    """(quantity, k) -> (bits of the k-th largest, how many that equal it are among the k largest)."""
    coarse = [np.zeros(_BINS, np.int64) for _ in wanted]
    for block in magnitudes():
        for index, counts in enumerate(wanted):
            if counts:
                coarse[index] += np.bincount(block[index].cpu().numpy() >> _LOW, minlength=_BINS)
    places = {(index, k): _place(coarse[index], k) for index, counts in enumerate(wanted) for k in counts}
    fine = {(index, high): np.zeros(_FINE, np.int64) for (index, _), (high, _) in places.items()}
    for block in magnitudes():
        for (index, high), bins in fine.items():
            bits = block[index].cpu().numpy()
            _count(bins, bits[bits >> _LOW == high])
    found = {}
    for (index, k), (high, rank) in places.items():
        low, equal = _place(fine[index, high], rank)
        found[index, k] = (high << _LOW | low, equal)
    return found


def _count(bins: Counts, inside: NDArray[np.int32]) -> None:
    """Few are inside, so that adding them one by one beats a histogram of all bins."""
    np.add.at(bins, inside & (_FINE - 1), 1)


def _place(counts: Counts, k: int) -> tuple[int, int]:
    """The bin of the k-th largest, and its rank (from 1) among those of this bin."""
    at_least = counts[::-1].cumsum()[::-1]
    place = int((at_least >= k).sum()) - 1
    return place, k - int(at_least[place] - counts[place])
