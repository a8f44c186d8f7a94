"""How many times an item is asked, and what is made of the answers: greedy, majority, three-stage adaptive.

Takes a way to ask (a model or a simulated one) and gives every item's final answer with what it cost. The right
answers are read in two places only: to count, and by the oracle gate, whose result is labelled an upper bound.
Knows nothing about prompts, tokens or devices.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from darwin_lab.errors import LabError
from darwin_lab.progress import Tick, part, silent
from darwin_lab.statistics.proportion import wilson

Answer = int | str
GATES = ("confidence", "oracle")
ORACLE_LABEL = "oracle-gated upper bound"
_WHY = (
    "the gate reads the gold labels: every item still wrong is tried again in both later stages, so a guesser on "
    "{choices} options reaches 1 - (1 - 1/{choices})^3 = {share:.1%} knowing nothing"
)


@dataclass(frozen=True)
class Call:
    """One question to a model: item number `item`, its `sample`-th answer (0 with temperature 0 is greedy).

    `showing` numbers the order its choices are shown in; `disputed` are earlier answers that the second turn shows.
    """

    item: int
    sample: int
    temperature: float
    showing: int = 0
    disputed: tuple[Answer, ...] = ()


@dataclass(frozen=True)
class Reply:
    """What came back: None where the model never answered. `margin` is p(best) - p(second) where it is known; the
    `thought` before the text is no part of it."""

    answer: Answer | None
    text: str = ""
    margin: float | None = None
    thought: str = ""


Ask = Callable[[Sequence[Call], Tick], list[Reply]]
"""Answers calls in any order and batching: a reply depends on its call alone."""


@dataclass(frozen=True)
class Stage:
    """A stage: how many items it asked, with how many calls, and how many were right after it."""

    name: str
    items: int
    calls: int
    right: int


@dataclass(frozen=True, eq=False)
class Outcome:
    """n items under a protocol: final `answers`, `right` bool[n], `calls` int[n] and the stages in order.

    `label` is what must stand beside the number: for the oracle gate that it is an upper bound.
    """

    protocol: str
    answers: tuple[Answer | None, ...]
    right: NDArray[np.bool_]
    calls: NDArray[np.int64]
    stages: tuple[Stage, ...]
    label: str = ""

    @property
    def n(self) -> int:
        """Number of items."""
        return len(self.answers)

    @property
    def acc(self) -> float:
        """Share of items right; an item without an answer is wrong."""
        return float(self.right.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of acc."""
        return wilson(int(self.right.sum()), self.n)

    @property
    def invalid(self) -> int:
        """Items for which no call gave an answer."""
        return sum(answer is None for answer in self.answers)

    @property
    def calls_per_item(self) -> float:
        """Mean calls per item."""
        return float(self.calls.mean())


@dataclass(frozen=True)
class Adaptive:
    """Settings of the three stages (methods.md 8; thresholds are ours).

    Stage 2 asks `samples` times, stage 3 `more` times with other orders of the choices, of which the last `turns`
    are second turns. The confidence gate lets an item go after stage 1 when its margin reaches `sure`, and after
    stage 2 when the leading answer is ahead by at least `lead` of its votes.
    """

    gate: str = "confidence"
    samples: int = 8
    more: int = 12
    turns: int = 4
    temperature: float = 0.7
    sure: float = 0.9
    lead: float = 0.5


def greedy(golds: Sequence[Answer], ask: Ask, tick: Tick = silent) -> Outcome:
    """One greedy answer an item."""
    replies = ask([Call(item, 0, 0.0) for item in range(_some(golds))], tick)
    answers = [reply.answer for reply in replies]
    calls = np.ones(len(golds), dtype=np.int64)
    return _outcome("greedy", golds, answers, calls, [_stage("greedy", calls, answers, golds)])


def majority(golds: Sequence[Answer], ask: Ask, k: float, temperature: float = 0.7, tick: Tick = silent) -> Outcome:
    """The most frequent of k sampled answers, the earlier one of equals.

    k may be a fraction: then round(k n) calls are dealt, the first items getting one more, so that a budget can be
    met exactly. Raises LabError for less than one call an item.
    """
    n = _some(golds)
    total = round(k * n)
    if total < n:
        raise LabError(f"majority of {k:g} answers an item; ask for 1 or more")
    per_item = [total // n + (item < total % n) for item in range(n)]
    votes: list[list[Answer | None]] = [[] for _ in golds]
    wanted = [Call(item, sample, temperature, sample) for item in range(n) for sample in range(per_item[item])]
    for call, reply in zip(wanted, ask(wanted, tick), strict=True):
        votes[call.item].append(reply.answer)
    answers = [winner(heard) for heard in votes]
    calls = np.array(per_item, dtype=np.int64)
    return _outcome(f"majority of {k:g}", golds, answers, calls, [_stage("majority", calls, answers, golds)])


def adaptive(golds: Sequence[Answer], ask: Ask, settings: Adaptive = Adaptive(), tick: Tick = silent) -> Outcome:
    """Three stages: greedy; `samples` answers and their majority; close ties again, with other orders of the choices
    and a second turn that shows the model its own disagreement.

    gate "confidence" sends an item on by its margin or the agreement of its samples and knows no right answer; the
    votes of stages 2 and 3 count together. gate "oracle" is the card's: an item goes on while it is wrong, and each
    stage's own votes decide.
    """
    if settings.gate not in GATES:
        raise LabError(f"gate {settings.gate!r}; use one of {', '.join(GATES)}")
    oracle, n = settings.gate == "oracle", _some(golds)
    first = ask([Call(item, 0, 0.0) for item in range(n)], part(tick, 0.0, 0.1))
    answers = [reply.answer for reply in first]
    calls = np.ones(n, dtype=np.int64)
    stages = [_stage("1 greedy", calls, answers, golds)]

    def wrong(item: int) -> bool:
        return answers[item] is None or answers[item] != golds[item]

    def unsure(reply: Reply) -> bool:
        return reply.answer is None or reply.margin is None or reply.margin < settings.sure

    going = [item for item in range(n) if (wrong(item) if oracle else unsure(first[item]))]
    votes: dict[int, list[Answer | None]] = {item: [] for item in going}
    wanted = [Call(item, sample, settings.temperature, sample) for item in going for sample in range(settings.samples)]
    for call, reply in zip(wanted, ask(wanted, part(tick, 0.1, 0.5)), strict=True):
        votes[call.item].append(reply.answer)
    for item in going:
        answers[item] = winner(votes[item])
    asked = np.zeros(n, dtype=np.int64)
    asked[going] = settings.samples
    calls += asked
    stages.append(_stage("2 samples", asked, answers, golds))

    going = [item for item in going if (wrong(item) if oracle else lead(votes[item]) < settings.lead)]
    plain, turns = settings.more - settings.turns, settings.turns
    later: dict[int, list[Answer | None]] = {item: [] if oracle else list(votes[item]) for item in going}
    wanted = [
        Call(item, sample, settings.temperature, sample, disputed=() if sample < settings.samples + plain else named)
        for item in going
        for named in [tuple(answer for answer, _ in _counted(votes[item]).most_common(2))]
        for sample in range(settings.samples, settings.samples + plain + turns)
    ]
    for call, reply in zip(wanted, ask(wanted, part(tick, 0.5, 1.0)), strict=True):
        later[call.item].append(reply.answer)
    for item in going:
        answers[item] = winner(later[item])
    asked = np.zeros(n, dtype=np.int64)
    asked[going] = settings.more
    calls += asked
    stages.append(_stage("3 ties again", asked, answers, golds))
    label = ORACLE_LABEL if oracle else ""
    return _outcome(f"adaptive, {settings.gate} gate", golds, answers, calls, stages, label)


def at_the_same_budget(golds: Sequence[Answer], ask: Ask, outcome: Outcome, tick: Tick = silent) -> Outcome:
    """Plain majority with as many calls in all as `outcome` took: what any protocol has to be compared with."""
    return majority(golds, ask, outcome.calls_per_item, tick=tick)


def guessers_share(choices: int, tries: int = 3) -> float:
    """What a random guesser reaches when every wrong answer is tried again: 1 - (1 - 1/choices)^tries."""
    return 1 - (1 - 1 / choices) ** tries


def why_upper_bound(choices: int) -> str:
    """One sentence on what the oracle gate does to a guesser."""
    return _WHY.format(choices=choices, share=guessers_share(choices))


def winner(votes: Sequence[Answer | None]) -> Answer | None:
    """The most frequent answer, the one heard first among equals; None when there is none."""
    counted = _counted(votes).most_common(1)
    return counted[0][0] if counted else None


def lead(votes: Sequence[Answer | None]) -> float:
    """Share of the votes (those without an answer included) by which the leading answer is ahead; 0 for a tie."""
    counts = [count for _, count in _counted(votes).most_common(2)]
    return (counts[0] - (counts[1] if len(counts) > 1 else 0)) / len(votes) if counts else 0.0


def _counted(votes: Sequence[Answer | None]) -> Counter[Any]:
    return Counter(answer for answer in votes if answer is not None)


def _some(golds: Sequence[Answer]) -> int:
    if not golds:
        raise LabError("no items to ask; give items")
    return len(golds)


def _stage(name: str, asked: NDArray[np.int64], answers: Sequence[Answer | None], golds: Sequence[Answer]) -> Stage:
    return Stage(name, int((asked > 0).sum()), int(asked.sum()), int(_right(answers, golds).sum()))


def _right(answers: Sequence[Answer | None], golds: Sequence[Answer]) -> NDArray[np.bool_]:
    return np.array([answer == gold for answer, gold in zip(answers, golds, strict=True)], dtype=bool)


def _outcome(
    protocol: str,
    golds: Sequence[Answer],
    answers: Sequence[Answer | None],
    calls: NDArray[np.int64],
    stages: Sequence[Stage],
    label: str = "",
) -> Outcome:
    return Outcome(protocol, tuple(answers), _right(answers, golds), calls, tuple(stages), label)
