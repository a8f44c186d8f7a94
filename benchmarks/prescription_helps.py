"""Does the contrastive prescription help? Over probe draws, on report items, against blend, best lerp and placebo.

Scans the pair, resamples the probe texts ten times, makes a child of each prescription and of its placebo (the same
advice with its layers permuted), chooses the best uniform ratio on selection items, and scores all of them, and the
children that the published formulas advise, on report items: one counted look, in a store of its own. Prints every
mean, every difference with its paired test, and the sentence, whatever it says. What a probe draw is, and what the
tests resample: darwin_lab/evolution/trial.py.

    python benchmarks/prescription_helps.py [--draws 10] [--seed 0] [--home DIR]
        [--father F --mother M --items FILE.jsonl]    (default: the embedded family)
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from darwin_lab.errors import LabError
from darwin_lab.lab.lab import Lab


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--father", default="family:father")
    arguments.add_argument("--mother", default="family:mother")
    arguments.add_argument("--items", action="append", default=[])
    arguments.add_argument("--draws", type=int, default=10)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--home", default="", help="keep scans and scores here, to resume (default: a throw-away)")
    chosen = arguments.parse_args()
    try:
        with tempfile.TemporaryDirectory() as throw_away:
            lab = Lab(chosen.home or throw_away)
            try:
                report(lab, chosen)
            finally:
                lab.close()
    except LabError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def report(lab: Lab, chosen: argparse.Namespace) -> None:
    """Run the trial and print it."""
    pair = lab.open_pair(chosen.father, chosen.mother, items=chosen.items)
    began = time.perf_counter()
    lab.wait(lab.trials.request_trial(pair, chosen.draws, chosen.seed), told())
    seconds = time.perf_counter() - began
    trial = lab.trials.trial(pair)
    assert trial is not None
    print(
        f"{pair.father.name} x {pair.mother.name}: {trial.n:,} report items of {len(trial.tasks)} tasks, "
        f"{seconds:.0f} s"
    )
    texts = ", ".join(f"{probe} {n}" for probe, n in trial.texts.items())
    print(
        f"a probe draw: texts with replacement within each probe ({texts}); {trial.informative} of {trial.draws} "
        "carry a signal"
    )
    print(f"best lerp on {trial.selected:,} selection items: {trial.lerp:g}  of", end=" ")
    print("  ".join(f"{ratio} {value:.4f}" for ratio, value in trial.sweep.items()))
    print(f"\n{'':14}{'accuracy':>9}{'p(gold)':>9}   draws, least to most")
    for name, arm in trial.arms.items():
        spread = f"{min(arm.by_draw):.4f} to {max(arm.by_draw):.4f}" if len(arm.by_draw) > 1 else ""
        print(f"{name:14}{arm.acc:9.4f}{'' if arm.p_gold is None else f'{arm.p_gold:9.4f}'}   {spread}")
    print(f"\nprescription minus {'difference':>12}  95 % interval       p      p Holm   draws above 0")
    for row in trial.against:
        above = sum(value > 0 for value in row.by_draw)
        print(
            f"{row.rival:18}{row.difference:+13.4f}  [{row.low:+.4f}, {row.high:+.4f}]  {row.p:.4f}  {row.p_holm:.4f}"
            f"   {above} of {len(row.by_draw)}   {row.verdict}"
        )
    print(f"tests: an item's answers pooled over the draws, {trial.clusters:,} units resampled within their task")
    print(f"\n{trial.sentence}\nlooks at these report items in this store: {lab.report_looks(pair)}")


def told() -> Callable[[float, str], None]:
    """A tick that prints a line every tenth of the way."""
    shown = [-1]

    def tick(fraction: float, words: str) -> None:
        if int(fraction * 10) > shown[0]:
            shown[0] = int(fraction * 10)
            print(f"{fraction:4.0%} {words}", file=sys.stderr)

    return tick


if __name__ == "__main__":
    sys.exit(main())
