"""Counter-based random draws: the same element of the same tensor always draws the same number.

Takes a key and element indices, gives draws and keep-masks. No state, no generator; integers only, worked out on the
CPU for every device, so devices, thread counts and chunk sizes agree.

An element's draw is u = (own + shared) / 2**16: 16 bits of its own, a quarter of splitmix64 (Steele et al. 2014) at
counter index // 4, and a fraction in [0, 1) that the elements of one run of 2**15 share, splitmix64 of the run's
number. Each u is uniform to 2**-69; that neighbours share bits below 2**-16 moves no joint probability by 2**-32.
"""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray

RUN = 1 << 15
"""Elements that share the low bits of their draws."""
_OWN = 1 << 16
_AT_ONCE = 1 << 17
_WORD = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))


def draw_key(seed: int, name: str, parent: str) -> int:
    """The 128-bit key of one tensor of one parent: first 16 bytes of SHA-256 of "seed|name|parent"."""
    digest = hashlib.sha256(f"{seed}|{name}|{parent}".encode()).digest()
    return int.from_bytes(digest[:16], "little")


class Draws:
    """The draws of one key: the low 64 bits are for the elements, the high 64 for the runs.

    What a call gives is good until the next call.
    """

    def __init__(self, key: int) -> None:
        self._key, self._runs = key & _WORD, key >> 64
        self._steps = np.arange(_AT_ONCE // 4, dtype=np.uint64) * np.uint64(_GOLDEN)
        self._words = np.empty(0, np.uint64)
        self._begin = 0

    def own(self, start: int, count: int) -> NDArray[np.uint16]:
        """[count]: the elements' own 16 bits."""
        if not self._begin <= start <= start + count <= self._begin + 4 * self._words.size:
            self._draw(start // 4, max(_AT_ONCE // 4, (start + count + 3) // 4 - start // 4))
        return self._words.view(np.uint16)[start - self._begin :][:count]

    def shared(self, run: int) -> float:
        """The fraction in [0, 1) that the elements of a run share."""
        word = (self._runs + (run + 1) * _GOLDEN) & _WORD
        for shift, factor in _ROUNDS:
            word = ((word ^ (word >> shift)) * factor) & _WORD
        return (word >> 11) / (1 << 53)

    def keep(self, density: float, start: int, count: int) -> torch.Tensor:
        """int8[count]: all bits set with probability `density`, else none; density 1 keeps everything, exactly."""
        own = self.own(start, count)
        kept = np.empty(count, np.bool_)
        for low, high, shared in self._parts(start, count):
            limit = max(int(np.ceil(density * _OWN - shared)), 0)
            if limit < _OWN:
                np.less(own[low:high], np.uint16(limit), out=kept[low:high])
            else:
                kept[low:high] = True
        return _mask(kept)

    def keep_each(self, chances: NDArray[np.float64], start: int) -> torch.Tensor:
        """int8[N]: as `keep`, with a probability for every element."""
        limits = np.empty(chances.size, np.uint32)
        for low, high, shared in self._parts(start, chances.size):
            limits[low:high] = np.ceil(np.maximum(chances[low:high] * _OWN - shared, 0.0))
        return _mask(self.own(start, chances.size) < limits)

    def _parts(self, start: int, count: int) -> list[tuple[int, int, float]]:
        """(first, end, shared fraction) of the runs in elements start..start+count, counted from `start`."""
        edges = [start, *range((start // RUN + 1) * RUN, start + count, RUN), start + count]
        return [(edges[i] - start, edges[i + 1] - start, self.shared(edges[i] // RUN)) for i in range(len(edges) - 1)]

    def _draw(self, first: int, words: int) -> None:
        if self._words.size != words:
            self._words, self._shifted = np.empty(words, np.uint64), np.empty(words, np.uint64)
            if self._steps.size < words:
                self._steps = np.arange(words, dtype=np.uint64) * np.uint64(_GOLDEN)
        z, shifted = self._words, self._shifted
        np.add(self._steps[:words], np.uint64((self._key + (first + 1) * _GOLDEN) & _WORD), out=z)
        for shift, factor in _ROUNDS:
            np.bitwise_xor(z, np.right_shift(z, np.uint64(shift), out=shifted), out=z)
            if factor != 1:
                np.multiply(z, np.uint64(factor), out=z)
        self._begin = 4 * first


def _mask(kept: NDArray[np.bool_]) -> torch.Tensor:
    return torch.from_numpy(np.negative(kept.view(np.int8)))
