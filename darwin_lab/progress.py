"""How long work reports itself: one callback, called at every point where it is safe to stop."""

from collections.abc import Callable

Tick = Callable[[float, str], None]
"""`tick(fraction_done, words)`; fraction in [0, 1]. May raise `Cancelled`, which the work lets pass."""


def silent(fraction: float, words: str) -> None:
    """The tick of work that nobody watches."""


def part(tick: Tick, start: float, end: float) -> Tick:
    """A tick for the piece of work that fills `start`..`end` of a larger one."""
    return lambda fraction, words: tick(start + (end - start) * fraction, words)
