"""One tensor of both parents (and the ancestor) as float32 blocks, read again as often as an operator asks.

Takes functions that read flat pieces, gives blocks at fixed places, whatever the size of the pieces read. Finds NaN
and Inf on the first pass. Knows nothing of rows, recipes or formulas.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch

from darwin_lab.errors import LabError

Read = Callable[[int, int], torch.Tensor]
"""(start, count) -> elements start..start+count of a flattened tensor, in the dtype it is stored in."""
BLOCK = 1 << 18
"""Elements of a block at most."""
SUMMED = 1 << 15
"""Elements of a sum at most: torch splits longer ones among its threads, which changes the last bit."""
CHUNK = 1 << 18
PARENTS = ("father", "mother", "ancestor")


@dataclass(slots=True)
class Block:
    """Elements offset..offset+count of the tensor, float32 [count] each; `base` is the ancestor's, empty without one.

    The tensors are buffers: an operator may overwrite them, and the next block does.
    """

    offset: int
    count: int
    a: torch.Tensor
    b: torch.Tensor
    base: torch.Tensor


@dataclass
class Stretch:
    """Elements start..start+count of a tensor - all of it, or one expert's slice - that an operator sees as a whole.

    reads: of father, mother and, where there is one, ancestor. width: elements of a row (last axis). block: elements
    of a block; chunk: elements read at once.
    """

    name: str
    reads: tuple[Read, ...]
    start: int
    count: int
    width: int
    chunk: int = CHUNK
    block: int = BLOCK
    _checked: bool = field(default=False, repr=False)

    @property
    def has_base(self) -> bool:
        return len(self.reads) > 2

    def by_rows(self) -> "Stretch":
        """The same in blocks of whole rows; a row longer than a block is a block of its own."""
        return replace(self, block=max(SUMMED // max(self.width, 1), 1) * max(self.width, 1))

    def part(self, start: int, count: int) -> "Stretch":
        """A shorter stretch of the same tensor."""
        return replace(self, start=start, count=count)

    def copied(self, parent: int) -> Iterator[torch.Tensor]:
        """The parent's pieces as they are stored. Raises `LabError` when either holds NaN or Inf."""
        for begin in range(self.start, self.start + self.count, self.chunk):
            pieces = [read(begin, min(self.chunk, self.start + self.count - begin)) for read in self.reads]
            if not all(all_finite(piece) for piece in pieces):
                self.require_finite()
            yield pieces[parent]

    def blocks(self, *, unchecked: bool = False) -> Iterator[Block]:
        """Every block in order. Raises `LabError` on the first pass when a parent holds NaN or Inf.

        `unchecked`: the caller looks for them, in something they would show in, and calls `require_finite`.
        """
        check, self._checked = not (self._checked or unchecked), True
        buffers: list[torch.Tensor] = []
        step = max(self.chunk // self.block, 1) * self.block
        end = self.start + self.count
        for begin in range(self.start, end, step):
            pieces = [_cut(read(begin, min(step, end - begin)), self.block) for read in self.reads]
            if not buffers:
                size = min(self.block, self.count)
                buffers = [torch.empty(size, dtype=torch.float32, device=pieces[0][0].device) for _ in range(3)]
            for number, parts in enumerate(zip(*pieces, strict=True)):
                count = parts[0].numel()
                filled = buffers if count == buffers[0].numel() else [buffer[:count] for buffer in buffers]
                for buffer, part in zip(filled, parts, strict=False):
                    buffer.copy_(part)
                    if check and not sums_finite(buffer):
                        self.require_finite()
                yield Block(begin + number * self.block, count, filled[0], filled[1], filled[2])

    def require_finite(self) -> None:
        """Raises `LabError` naming tensor and parent when one of them holds NaN or Inf in this stretch."""
        for parent, read in zip(PARENTS, self.reads, strict=False):
            require_finite(self.name, parent, read, self.start, self.count)


def _cut(piece: torch.Tensor, size: int) -> tuple[torch.Tensor, ...]:
    return torch.split(piece, size) if piece.numel() > size else (piece,)


def sums_finite(values: torch.Tensor) -> bool:
    """False when some value is NaN or Inf; also, seldom, when finite ones are too large to add."""
    return math.isfinite(values.sum().item())


def totals(stretch: Stretch, terms: Callable[[Block], list[torch.Tensor]], *, unchecked: bool = False) -> list[float]:
    """Sums over a stretch of what `terms` makes of a block: float32 up to `SUMMED` elements, then exact."""
    sums: list[list[torch.Tensor]] = []
    for block in stretch.blocks(unchecked=unchecked):
        parts = zip(*(torch.split(term, SUMMED) for term in terms(block)), strict=True)
        sums += [[term.sum() for term in terms_of_part] for terms_of_part in parts]
    return [_exact_sum(torch.stack(column).tolist()) for column in zip(*sums, strict=True)]


def _exact_sum(values: list[float]) -> float:
    try:
        return math.fsum(values)
    except (ValueError, OverflowError):
        return math.nan


class Scratch:
    """Buffers like a block's tensors, made once."""

    def __init__(self, buffers: int) -> None:
        self._buffers = buffers
        self._whole: tuple[torch.Tensor, ...] = ()
        self._fitting: tuple[torch.Tensor, ...] = ()

    def __call__(self, like: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """float32 [N] each, for a tensor [N]."""
        count = like.numel()
        if not self._whole or self._whole[0].numel() < count:
            self._whole = tuple(torch.empty_like(like) for _ in range(self._buffers))
        if not self._fitting or self._fitting[0].numel() != count:
            self._fitting = tuple(buffer[:count] for buffer in self._whole)
        return self._fitting


@lru_cache(maxsize=4096)
def number(value: float) -> torch.Tensor:
    """A float32 without dimensions, which costs torch less than a number."""
    return torch.tensor(value, dtype=torch.float32)


def require_finite(name: str, parent: str, read: Read, start: int, count: int) -> None:
    """Raises `LabError` naming tensor and parent, with the number of bad values, when there are any."""
    bad = 0
    for begin in range(start, start + count, CHUNK):
        bad += int((~torch.isfinite(read(begin, min(CHUNK, start + count - begin)))).sum())
    if bad:
        raise LabError(f"{name} of the {parent} holds {bad} NaN or Inf of {count:,} values; mend that checkpoint")


def all_finite(piece: torch.Tensor) -> bool:
    """Whether a flat piece in its stored dtype holds neither NaN nor Inf: no exponent of ones only."""
    if not piece.is_floating_point() or not piece.numel():
        return True
    bits, exponent = _EXPONENTS[piece.dtype]
    return bool(piece.view(bits).bitwise_and(exponent).max() < exponent)


_EXPONENTS = {
    torch.bfloat16: (torch.int16, 0x7F80), torch.float16: (torch.int16, 0x7C00),
    torch.float32: (torch.int32, 0x7F800000), torch.float64: (torch.int64, 0x7FF0 << 48),
}  # fmt: skip
