"""Does the default evolution of the embedded family beat both parents on report items, over several seeds?

    python benchmarks/evolve_family.py [--seeds 5] [--budget N]

Runs `family:father x family:mother` once a seed with the default settings, in a store of its own, and prints for each
run its time and the report accuracies, then the seeds pooled per item: the mean over seeds of the child's answer
against the parent's, tested by a permutation stratified over the skills. Seeds share their items, so an item is one
unit, not one a seed. Looks at the report items once a seed.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from darwin_lab.evolution.settings import EvolutionSettings
from darwin_lab.lab.lab import Lab
from darwin_lab.scoring.score import Score
from darwin_lab.statistics.paired import stratified_permutation

PARENTS = ("father", "mother", "blend")


def main() -> None:
    """Runs the seeds one after the other and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=EvolutionSettings().budget)
    arguments = parser.parse_args()
    children: list[Score] = []
    with tempfile.TemporaryDirectory() as home:
        lab = Lab(home)
        pair = lab.family_pair()
        print("seed  seconds  candidates  " + "  ".join(f"{who:>8}" for who in ("child", *PARENTS)))
        for seed in range(arguments.seeds):
            started = time.monotonic()
            run_id = lab.start_evolution(pair, EvolutionSettings(seed=seed, budget=arguments.budget))
            lab.wait(str(lab.run(run_id).job_id))
            run = lab.run(run_id)
            assert run.result is not None
            child = lab.score(pair, run.result["pick"]["recipe_hash"], "report")
            assert child is not None
            children.append(child)
            means = [child.mean_acc, *(_stored(lab, who).mean_acc for who in PARENTS)]
            seconds = time.monotonic() - started
            print(f"{seed:>4}  {seconds:7.0f}  {run.evaluated:>10}  " + "  ".join(f"{mean:8.4f}" for mean in means))
        pooled = np.mean([child.acc for child in children], axis=0)
        for who in PARENTS:
            other = _stored(lab, who)
            test = stratified_permutation(pooled, other.acc.astype(float), children[0].tasks, seed=0)
            print(
                f"child - {who}: {test.difference:+.4f} [{test.low:+.4f}, {test.high:+.4f}], p = {test.p:.4f}, "
                f"n = {test.n} items, {len(children)} seeds pooled per item"
            )
        lab.close()


def _stored(lab: Lab, who: str) -> Score:
    score = lab.score(lab.family_pair(), who, "report")
    assert score is not None
    return score


if __name__ == "__main__":
    main()
