"""How the models of a pair are held: whole in memory, or streamed with one layer of each in memory at a time.

Takes a pair, what was chosen ("auto", "always", "never" stream; the numbers to compute in) and what is held already;
gives the decision with its figures. Loads nothing and keeps nothing.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from darwin_lab.lab.pairs import Pair
from darwin_lab.sizes import bytes_words

if TYPE_CHECKING:
    import torch

AUTO = "auto"
WAYS = (AUTO, "always", "never")
"""When to stream: by free memory, always, never."""
FLOAT32 = "float32"
DTYPES = (FLOAT32, "bfloat16")
"""The numbers a scan can be computed in."""


@dataclass(frozen=True)
class MemoryChoice:
    """What was chosen (`way`) and what follows: `needed` bytes for `models` models held whole, of which `reserve` is no
    weights but room for the libraries and what a layer computes with; `free` bytes; computed in `dtype`."""

    way: str
    streamed: bool
    needed: int
    free: int
    models: int = 1
    reserve: int = 0
    dtype: str = FLOAT32

    @property
    def sentence(self) -> str:
        """One line for people."""
        whose = "a model takes" if self.models == 1 else f"{self.models} models at once take"
        kept = f" and a reserve of {bytes_words(self.reserve)}" if self.reserve else ""
        weights, free = bytes_words(self.needed - self.reserve), bytes_words(self.free)
        figures = f"{whose} {weights} of weights{in_words(self.dtype)}{kept}, {free} are free"
        asked = "" if self.way == AUTO else ", as you chose"
        if self.streamed:
            return f"Streamed, one layer in memory at a time{asked}: held whole, {figures}."
        return f"Held in memory{asked}: {figures}."


def in_words(dtype: str) -> str:
    """What a phrase says of the precision something is computed in: nothing of the default."""
    return "" if dtype == FLOAT32 else f" in {dtype}"


def in_torch(dtype: str) -> "torch.dtype":
    """What torch calls one of `DTYPES`."""
    import torch

    found: torch.dtype = getattr(torch, dtype)
    return found


def choose(
    pair: Pair, way: str, device: str, models: int, held: int, *, dtype: str = FLOAT32, small: bool = False
) -> MemoryChoice:
    """The decision for `models` models of this pair in `dtype`, where models now held (`held` bytes) would make room.

    `small` models are held whole unless they shall always be streamed. LabError for a device that is not there.
    """
    from darwin_lab.engine.streamed import SHARE_OF_FREE, SPARE_BYTES, free_bytes, weigh

    each = [weigh(member, way, device, in_torch(dtype)).needed - SPARE_BYTES for member in (pair.father, pair.mother)]
    needed = SPARE_BYTES + (max(each) if models == 1 else sum(each))
    free = free_bytes(device) + held
    crowded = not small and needed > SHARE_OF_FREE * free
    streamed = way == "always" or (way == AUTO and crowded)
    return MemoryChoice(way, streamed, needed, free, models, SPARE_BYTES, dtype)
