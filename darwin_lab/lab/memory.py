"""How the models of a pair are held: whole in memory, or streamed with one layer of each in memory at a time.

Takes a pair, what was chosen ("auto", "always", "never" stream) and what is held already; gives the decision with its
figures. Loads nothing and keeps nothing.
"""

from dataclasses import dataclass

from darwin_lab.lab.pairs import Pair
from darwin_lab.sizes import bytes_words

AUTO = "auto"
WAYS = (AUTO, "always", "never")
"""When to stream: by free memory, always, never."""


@dataclass(frozen=True)
class MemoryChoice:
    """What was chosen (`way`) and what follows: `needed` bytes for `models` models held whole, of which `reserve` is no
    weights but room for the libraries and what a layer computes with; `free` bytes."""

    way: str
    streamed: bool
    needed: int
    free: int
    models: int = 1
    reserve: int = 0

    @property
    def sentence(self) -> str:
        """One line for people."""
        whose = "a model takes" if self.models == 1 else f"{self.models} models at once take"
        kept = f" and a reserve of {bytes_words(self.reserve)}" if self.reserve else ""
        weights, free = bytes_words(self.needed - self.reserve), bytes_words(self.free)
        figures = f"{whose} {weights} of weights{kept}, {free} are free"
        asked = "" if self.way == AUTO else ", as you chose"
        if self.streamed:
            return f"Streamed, one layer in memory at a time{asked}: held whole, {figures}."
        return f"Held in memory{asked}: {figures}."


def choose(pair: Pair, way: str, device: str, models: int, held: int, *, small: bool = False) -> MemoryChoice:
    """The decision for `models` models of this pair, where models now held (`held` bytes) would make room.

    `small` models are held whole unless they shall always be streamed. LabError for a device that is not there.
    """
    from darwin_lab.engine.streamed import SHARE_OF_FREE, SPARE_BYTES, free_bytes, weigh

    each = [weigh(member, way, device).needed - SPARE_BYTES for member in (pair.father, pair.mother)]
    needed = SPARE_BYTES + (max(each) if models == 1 else sum(each))
    free = free_bytes(device) + held
    crowded = not small and needed > SHARE_OF_FREE * free
    return MemoryChoice(way, way == "always" or (way == AUTO and crowded), needed, free, models, SPARE_BYTES)
