"""Draws that every resampling method here shares.

Takes sizes and a seed, gives indices and signs, a block at a time so that memory stays bounded. Knows nothing
about what is resampled. Draws come from one PCG64 stream, and sums run outside BLAS, so that a result depends
on neither the thread count nor the block size.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

BLOCK = 2_000_000  # drawn elements held at once


def blocks(draws: int, width: int) -> Iterator[int]:
    """Sizes of the blocks of draws, each of at most `BLOCK` elements (one draw has `width`)."""
    most = max(1, BLOCK // max(1, width))
    for start in range(0, draws, most):
        yield min(most, draws - start)


def resampled_indices(n: int, draws: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Bootstrap indices in blocks: [block, n] whole numbers below n, `draws` rows in all."""
    for size in blocks(draws, n):
        yield rng.integers(0, n, size=(size, n))


def resampled_counts(n: int, draws: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """How often each of n units was drawn: [draws, n], every row sums to n."""
    rows = []
    for indices in resampled_indices(n, draws, rng):
        flat = indices + n * np.arange(len(indices))[:, None]
        rows.append(np.bincount(flat.ravel(), minlength=indices.size).reshape(indices.shape))
    return np.concatenate(rows).astype(np.float64)


def random_signs(n: int, draws: int, rng: np.random.Generator) -> Iterator[NDArray[np.float64]]:
    """Fair coin flips in blocks: [block, n] of -1. and 1., `draws` rows in all."""
    for size in blocks(draws, n):
        yield rng.integers(0, 2, size=(size, n), dtype=np.int8).astype(np.float64) * 2 - 1


def all_signs(n: int) -> NDArray[np.float64]:
    """Every assignment of signs to n units: [2**n, n]."""
    bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    return bits.astype(np.float64) * 2 - 1
