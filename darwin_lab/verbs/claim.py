"""The verb `claim`: can this published score be, and what could it show."""

import argparse

from darwin_lab.errors import LabError
from darwin_lab.progress import Tick
from darwin_lab.statistics.claim import Claim, check_claim, shown
from darwin_lab.verbs.common import Result


def run(arguments: argparse.Namespace, tick: Tick) -> Result:
    """Check one score in percent on n items."""
    try:
        claim = check_claim(arguments.score, arguments.n)
    except ValueError as error:
        raise LabError(f"{error}; give a score in percent and a number of items, such as 90.0 198") from None
    data = {
        "score": float(claim.score),
        "n": claim.n,
        "decimals": claim.decimals,
        "possible": claim.possible,
        "counts": [claim.counts[0], claim.counts[-1]] if claim.counts else [],
        "nearest": [claim.below, claim.above],
        "possible_if_cut_off": claim.cut,
        "runs_whose_mean_could_be_it": claim.runs,
        "interval": list(claim.interval),
        "smallest_gap": claim.gap,
    }
    return Result(data, _words(claim))


def _words(claim: Claim) -> str:
    score, n, digits = claim.score, claim.n, claim.decimals
    if claim.counts:
        first, last = claim.counts[0], claim.counts[-1]
        which = f"{first}" if first == last else f"{first} to {last}"
        lines = [f"{score} % of {n} is possible: {which} right answer{'' if last == 1 else 's'}."]
    else:
        below, above = (f"{count} is {shown(count, n, digits)} %" for count in (claim.below, claim.above))
        lines = [f"{score} % of {n} is not possible: of {n}, {below} and {above}."]
        if claim.cut:
            lines.append(f"Cut off instead of rounded, {claim.above} would be printed so.")
        if claim.runs is None:
            lines.append("No mean of up to 64 runs on the same items gives it either.")
        else:
            lines.append(
                f"It could be the mean of {claim.runs} runs on the same items, the fewest that give it, or of "
                "another n."
            )
    low, high = claim.interval
    lines.append(f"95 % interval of the nearest count: {100 * low:.1f} to {100 * high:.1f} %.")
    items = f"{n} item{'' if n == 1 else 's'}"
    if claim.gap < 1:
        points = f"{100 * claim.gap:.1f} points"
        lines.append(f"On {items} another model has to differ by {points} to be told apart four times in five.")
    else:
        lines.append(f"{items[0].upper()}{items[1:]} are too few to tell any two models apart (p < .05).")
    return "\n".join(lines)
