"""What may be said of a child on report items: the numbers beside its parents', the paired tests, one honest sentence.

Takes scores, gives JSON. Never decides which child is reported.
"""

from collections.abc import Mapping
from typing import Any

from darwin_lab.scoring.score import Score, compare_scores

LEVEL = 0.05
PARENTS = ("father", "mother")


def task_table(score: Score) -> dict[str, dict[str, Any]]:
    """{task: {n, acc, acc_norm, p_gold, interval, chance}} of a score; interval is the 95 % Wilson one of acc."""
    return {
        task: {
            "n": bench.n,
            "acc": bench.acc,
            "acc_norm": bench.acc_norm,
            "p_gold": bench.p_gold,
            "interval": list(bench.interval),
            "chance": bench.chance,
        }
        for task, bench in score.benchmarks().items()
    }


def make_report(scores: Mapping[str, Score], recipe_hash: str, genome_hash: str) -> dict[str, Any]:
    """The report of scores["child"] beside scores["father"], ["mother"] and ["blend"], on the same items.

    Tests are on acc, unweighted mean over tasks, stratified paired permutation (methods.md 8): child minus the other.
    "Surpasses both" needs p < .05 and a gain against each parent.
    """
    child = scores["child"]
    tests = {}
    for name, other in scores.items():
        if name != "child":
            test = compare_scores(child, other)
            tests[name] = {
                "difference": test.difference,
                "low": test.low,
                "high": test.high,
                "p": test.p,
                "n": test.n,
            }
    models = {
        name: {"mean_acc": score.mean_acc, "mean_p_gold": score.mean_p_gold, "benchmarks": task_table(score)}
        for name, score in scores.items()
    }
    surpasses = all(tests[name]["p"] < LEVEL and tests[name]["difference"] > 0 for name in PARENTS)
    return {
        "recipe_hash": recipe_hash,
        "genome_hash": genome_hash,
        "n": child.n,
        "models": models,
        "tests": tests,
        "surpasses_both": surpasses,
        "sentence": sentence(tests, child.n),
    }


def sentence(tests: Mapping[str, Mapping[str, Any]], n: int) -> str:
    """One sentence on a child and its parents that claims no more than the tests show."""
    shown = {name: tests[name]["p"] < LEVEL for name in PARENTS}
    gains = {name: tests[name]["difference"] > 0 for name in PARENTS}
    if all(shown.values()) and all(gains.values()):
        words = " and ".join(f"{_by(tests[name])} over the {name}" for name in PARENTS)
        return f"Surpasses both parents on {n} report items: {words}."
    parts = []
    for name in PARENTS:
        if not shown[name]:
            parts.append(f"no difference shown to the {name} (n={n}, {_p(tests[name]['p'])})")
        else:
            parts.append(f"{'better' if gains[name] else 'worse'} than the {name} by {_by(tests[name])}")
    text = "; ".join(parts)
    return text[0].upper() + text[1:] + "."


def _by(test: Mapping[str, Any]) -> str:
    """The size of a difference with its interval; which way it goes is said in words."""
    low, high = (test["low"], test["high"]) if test["difference"] > 0 else (-test["high"], -test["low"])
    return f"{abs(test['difference']):.3f} [{low:.3f}, {high:.3f}] ({_p(test['p'])})"


def _p(value: float) -> str:
    return "p < .001" if value < 0.001 else f"p = {value:.3f}"
