"""A proportion: its interval, and what of it is above chance.

Takes two counts, gives an interval. Knows nothing about models, items or charts.
"""

from math import sqrt
from statistics import NormalDist


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval (E. B. Wilson 1927, no continuity correction) of `successes` out of `n`.

    Returns (low, high) in [0, 1]; with n = 0 nothing is known, so (0, 1).
    Raises ValueError for counts that cannot be.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"wilson: {successes} successes out of {n}")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def chance_corrected(share: float, chance: float) -> float:
    """(share - chance) / (1 - chance): 0 for a guesser, 1 for all right, below 0 for worse than guessing.

    The correction is a straight line, so the ends of an interval are corrected alike. Raises ValueError for a chance
    of 1 or more.
    """
    if not 0 <= chance < 1:
        raise ValueError(f"chance_corrected: chance {chance}")
    return (share - chance) / (1 - chance)
