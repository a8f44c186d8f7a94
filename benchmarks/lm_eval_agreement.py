"""Item-by-item agreement with lm-evaluation-harness: the same items, prompts and shots through both.

Three choice tasks on each of two models, 0- and 5-shot. stories260K answers ARC-Easy, OpenBookQA and XCOPA
(continuation style) from ../shared/data; its context is 512 tokens, so most 5-shot prompts are cut at the beginning,
by both sides. The embedded family's father answers MATH, KNOWLEDGE and LANGUAGE from its selection items with shots
from its validation items, and so does its mother. lm-eval runs its own task, sampler and metric code in an
environment of its own (`lm_eval_env.py`). Prints a line a task: items, prompts that differ, the largest difference of
a log-likelihood, items with another argmax, acc and acc_norm of both; exits 1 when any of them is missed.

    python benchmarks/lm_eval_agreement.py [--limit 100] [--data ../shared/data] [--env DIR]
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from lm_eval_env import DEFAULT_FOLDER, Task, ask, prepare

from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.resident import Resident
from darwin_lab.lab.pairs import FAMILY_ITEMS
from darwin_lab.scoring.choice import ChoicePlan
from darwin_lab.scoring.items import load_items
from darwin_lab.scoring.prompt import context_of
from darwin_lab.scoring.shots import with_shots

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = 1e-3
SHARED_TASKS, FAMILY_TASKS = ("arc_easy", "openbookqa", "xcopa"), ("MATH", "KNOWLEDGE", "LANGUAGE")
HEAD = (
    f"{'model':<15} {'task':<11} {'shots':>5} {'items':>5} {'cut':>5} {'prompts':>8} {'max |diff|':>10} "
    f"{'argmax':>7} {'acc':>14} {'acc_norm':>15}"
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=100, help="items a task (default 100)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads of both sides (default 1)")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of shared data")
    parser.add_argument("--env", type=Path, default=DEFAULT_FOLDER, help="where lm-eval is installed")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    python = prepare(chosen.env)
    print(HEAD, flush=True)
    missed = 0
    stories = chosen.data / "stories260K"
    if stories.exists():
        missed += compare(python, stories, shared_tasks(chosen.data / "items", chosen.limit), chosen.threads)
    else:
        print(f"stories260K is not in {chosen.data}: skipped")
    for member in ("father", "mother"):
        folder = open_checkpoint(f"family:{member}").folder
        missed += compare(python, folder, family_tasks(chosen.limit), chosen.threads)
    print("every item agrees" if not missed else f"{missed} lines miss the bar")
    return int(missed > 0)


def shared_tasks(folder: Path, limit: int) -> list[Task]:
    return [Task(name, load_items(folder / f"{name}.jsonl")[:limit], None) for name in SHARED_TASKS]


def family_tasks(limit: int) -> list[Task]:
    items, pool = (load_items(FAMILY_ITEMS / f"{name}.jsonl") for name in ("selection", "validation"))
    return [
        Task(name, [i for i in items if i.task == name][:limit], [i for i in pool if i.task == name])
        for name in FAMILY_TASKS
    ]


def compare(python: Path, folder: Path, tasks: list[Task], threads: int) -> int:
    """Prints a line a task and number of shots; returns how many miss the bar."""
    resident = Resident.load(open_checkpoint(str(folder)))
    missed = 0
    for shots in (0, 5):
        theirs = ask(python, folder, tasks, shots=shots, threads=threads)
        for task in tasks:
            items = with_shots(task.items, task.pool or task.items, shots)
            plan = ChoicePlan(items, resident.tokenizer, cut_to=resident.context_length)
            ours = plan.score(resident)
            other = theirs[task.name]
            rows = [other["items"][item.id] for item in items]
            prompts = sum(row["prompt"] != context_of(item) for row, item in zip(rows, items, strict=True))
            worst = max(
                float(np.abs(np.array(row["loglik"]) - np.array(mine)).max())
                for row, mine in zip(rows, ours.loglik, strict=True)
            )
            argmax = sum(
                int(np.argmax(row["loglik"])) != chosen for row, chosen in zip(rows, ours.predictions, strict=True)
            )
            per_item = sum(
                bool(row["acc"]) != acc or bool(row["acc_norm"]) != norm
                for row, acc, norm in zip(rows, ours.acc, ours.acc_norm, strict=True)
            )
            acc, norm = float(ours.acc.mean()), float(ours.acc_norm.mean())
            same = abs(acc - other["acc"]) < 1e-12 and abs(norm - other["acc_norm"]) < 1e-12
            missed += not (prompts == argmax == per_item == 0 and worst <= TOLERANCE and same)
            print(
                f"{folder.name:<15} {task.name:<11} {shots:>5} {len(items):>5} {len(plan.cut_ids):>5} "
                f"{prompts:>8} {worst:>10.1e} {argmax:>7} {acc:>6.3f} = {other['acc']:.3f} "
                f"{norm:>7.3f} = {other['acc_norm']:.3f}",
                flush=True,
            )
    return missed


if __name__ == "__main__":
    raise SystemExit(main())
