"""What the page and the shell read about benchmarks: plain frozen records that hold numbers and words only."""

from collections.abc import Mapping
from dataclasses import dataclass, field

MODEL_KINDS = ("parent", "blend", "candidate", "child", "export", "folder")


@dataclass(frozen=True)
class BenchmarkInfo:
    """One benchmark that may be run.

    source    "pair" (a task of the pair's own items), "hub" or "file"
    licence   its own words, "" where nobody knows
    chance    accuracy of guessing; None while its items have not been read
    kind      "choice" (log-likelihood of the choices) or "generative" (what the model writes is read)
    n         items in all; None while they have not been read
    splits    "selection" | "validation" | "report" -> items in it, None while they have not been read
    gated     the items must not be shown or passed on, and the Hub asks for an agreement first
    cached    the items are on this machine
    note      one sentence more: revision, what has to be done first, where items come from
    """

    name: str
    title: str
    source: str
    licence: str
    chance: float | None
    kind: str
    n: int | None
    splits: Mapping[str, int | None] = field(hash=False)
    gated: bool = False
    cached: bool = True
    note: str = ""


@dataclass(frozen=True)
class ModelChoice:
    """A model that may be scored; `kind` is one of `MODEL_KINDS`, `key` what the desk's methods take."""

    key: str
    label: str
    kind: str


@dataclass(frozen=True)
class BenchRow:
    """One model on one benchmark, as far as it got.

    n, done    items of the split (None while they have not been read) and items answered; all means are over `done`
    acc, acc_norm, p_gold, interval, chance, corrected, invalid  as in `scoring.score.Bench`; None without answers
    state      "done" (nothing is under way), "running", "queued", or "none" (never asked)
    note       "50 of 200 items", or the one-line error the benchmark ended with
    """

    model: str
    benchmark: str
    n: int | None
    done: int = 0
    acc: float | None = None
    acc_norm: float | None = None
    p_gold: float | None = None
    interval: tuple[float, float] | None = None
    chance: float | None = None
    corrected: float | None = None
    invalid: int = 0
    state: str = "none"
    note: str = ""


@dataclass(frozen=True)
class CategoryRow:
    """A model's accuracy on the items of one category: `interval` is the 95 % Wilson one."""

    category: str
    n: int
    acc: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Reference:
    """A published row: its accuracy (a share) on `n` items, as printed in percent, and whether it can be.

    Never paired: nobody here has its answers, so no test against it is possible. `note` says so, and names what is
    wrong with a count that is not possible. `interval` is the 95 % Wilson one of the nearest count.
    """

    name: str
    acc: float
    printed: str
    n: int
    source: str
    interval: tuple[float, float]
    possible: bool
    note: str
