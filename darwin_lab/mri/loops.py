"""Whether a model falls into repeating itself: what a loop is, and child beside parents with n, interval and test.

Takes the tokens of texts that were written; gives, text by text, whether they end in a loop, and the rows of a health
check. Must not know: how texts are written, recipes, where results are kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from darwin_lab.errors import LabError
from darwin_lab.statistics.paired import mcnemar_exact
from darwin_lab.statistics.proportion import wilson

TEXTS_OF_EACH = 4
"""So many texts of each probe are begun, the first ones."""
PROMPT_TOKENS = 12
"""A text is begun with so many of its tokens: all of them when it is shorter, fewer where a loop would have no room."""
WRITTEN_TOKENS = 64
LEAST_COPIES, LEAST_TOKENS = 3, 16
"""A text ends in a loop when its last tokens, at least so many, are so many copies of one unit, or more."""
LEVEL = 0.05


@dataclass(frozen=True)
class Loops:
    """One model: for every text begun, in the order of the probes, whether it ends in a loop."""

    looping: tuple[bool, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"version": 1, "looping": list(self.looping)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Loops":
        """The inverse of `to_json`. Raises `LabError` for anything else."""
        looping = data.get("looping")
        if data.get("version") != 1 or not isinstance(looping, list) or not looping:
            raise LabError("not a count of loops; check the health again")
        return Loops(tuple(bool(one) for one in looping))


@dataclass(frozen=True)
class LoopRow:
    """One of child, father and mother: texts in a loop of all, the share with its 95 % interval (Wilson), and for a
    parent the p of the exact McNemar test of the child against it, text by text."""

    who: str
    looping: int
    texts: int
    low: float
    high: float
    p: float | None = None


def loop_settings(dtype: str = "float32") -> dict[str, Any]:
    """What decides the count, beside the weights and the probes."""
    settings = {"version": 1, "of_each": TEXTS_OF_EACH, "prompt": PROMPT_TOKENS, "written": WRITTEN_TOKENS,
                "copies": LEAST_COPIES, "tokens": LEAST_TOKENS}  # fmt: skip
    return settings if dtype == "float32" else {**settings, "dtype": dtype}


def ends_in_loop(tokens: Sequence[int]) -> bool:
    """Whether the last `LEAST_TOKENS` tokens or more are `LEAST_COPIES` copies of one unit or more."""
    for unit in range(1, len(tokens) // LEAST_COPIES + 1):
        same = 0
        while same < len(tokens) - unit and tokens[-1 - same] == tokens[-1 - same - unit]:
            same += 1
        if same + unit >= max(LEAST_COPIES * unit, LEAST_TOKENS):
            return True
    return False


def loop_rows(loops: Mapping[str, Loops]) -> tuple[LoopRow, ...]:
    """Child, father and mother beside each other; the parents' rows carry the test."""
    rows = []
    for who, found in loops.items():
        count, texts = sum(found.looping), len(found.looping)
        p = None if who == "child" else mcnemar_exact(loops["child"].looping, found.looping).p
        rows.append(LoopRow(who, count, texts, *wilson(count, texts), p))
    return tuple(rows)


def loops_more(rows: Sequence[LoopRow]) -> bool:
    """Whether the child is shown to end in loops more often than both parents."""
    own = next((row.looping for row in rows if row.who == "child"), 0)
    parents = [row for row in rows if row.p is not None]
    return bool(parents) and all(own > row.looping and (row.p or 0.0) < LEVEL for row in parents)
