"""What a published score says: whether any count gives it, its interval, and what difference it could show.

Takes a score in percent as it was printed and the number of items, gives the check. Exact arithmetic on the decimal
digits; knows nothing about models or benchmarks.
"""

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from math import ceil, floor

from darwin_lab.statistics.paired import smallest_gap
from darwin_lab.statistics.proportion import wilson

MOST_RUNS = 64
MOST_ITEMS = 10**9


@dataclass(frozen=True)
class Claim:
    """A score in percent with `decimals` printed digits after the point, on n items.

    `counts`: the right answers that round to it, empty when it is not possible; `below` and `above`: the nearest
    counts. `cut`: a count gives it when digits are cut off instead of rounded. `runs`: the fewest runs on the n items
    whose mean could be it (None above 64). `interval`: 95 % Wilson, in shares, of the nearest count; `gap`: the
    smallest difference to another model, in shares, that n items show four times in five (models that err
    independently; a paired test of models that err alike sees less).
    """

    score: Decimal
    n: int
    decimals: int
    counts: range
    below: int
    above: int
    cut: bool
    runs: int | None
    interval: tuple[float, float]
    gap: float

    @property
    def possible(self) -> bool:
        """Whether some number of right answers out of n rounds to the score."""
        return bool(self.counts)


def is_possible(score_percent: float | str | Decimal, n: int, decimals: int | None = None) -> bool:
    """Whether any k of n, in percent, rounds to the score at its printed digits (ours; exact halves count both ways).

    `decimals` defaults to the digits of the text. Raises ValueError for a score outside 0..100 and for n outside
    1..10**9.
    """
    return bool(_counts(*_read(score_percent, n, decimals)))


def check_claim(score_percent: str, n: int) -> Claim:
    """The whole check of a score as printed, such as "90.0" or "82.89 %", on n items.

    Raises ValueError for a text that is no plain number, a score outside 0..100 and n outside 1..10**9.
    """
    score, n, decimals = _read(score_percent, n, None)
    exact = Fraction(score) * n / 100
    counts = _counts(score, n, decimals)
    nearest = min(max(round(exact), 0), n)
    unit = Fraction(1, 10**decimals)
    cut = any(
        Fraction(score) <= Fraction(100 * k, n) < Fraction(score) + unit for k in (floor(exact), ceil(exact)) if k <= n
    )
    runs = next((m for m in range(1, MOST_RUNS + 1) if _counts(score, n * m, decimals)), None)
    return Claim(
        score,
        n,
        decimals,
        counts,
        floor(exact),
        ceil(exact),
        cut,
        runs,
        wilson(nearest, n),
        smallest_gap(n, nearest / n),
    )


def shown(count: int, n: int, decimals: int) -> str:
    """A count of n as a percentage with so many digits."""
    return f"{Decimal(100 * count) / Decimal(n):.{decimals}f}"


def _read(score: float | str | Decimal, n: int, decimals: int | None) -> tuple[Decimal, int, int]:
    text = str(score).strip().removesuffix("%").strip()
    try:
        value = Decimal(text)
    except InvalidOperation as error:
        raise ValueError(f"{score!r} is not a score in percent") from error
    if isinstance(score, str) and "e" in text.lower():
        raise ValueError(f"{text!r} has an exponent, a printed score has none")
    if not value.is_finite() or not 0 <= value <= 100:
        raise ValueError(f"a score of {text} % is outside 0 to 100")
    if n < 1:
        raise ValueError(f"{n} items; a score needs 1 or more")
    if n > MOST_ITEMS:
        raise ValueError(f"no benchmark has more than {MOST_ITEMS:,} items")
    exponent = value.as_tuple().exponent
    return value, n, decimals if decimals is not None else max(0, -int(exponent))


def _counts(score: Decimal, n: int, decimals: int) -> range:
    half = Fraction(1, 2 * 10**decimals)
    low = ceil((Fraction(score) - half) * n / 100)
    high = floor((Fraction(score) + half) * n / 100)
    return range(max(low, 0), min(high, n) + 1)
