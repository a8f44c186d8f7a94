"""Choice scoring against lm-evaluation-harness's HF model: same model, items, dtype, threads and batch size.

Both sides score the same prompts with at most --batch-size rows a forward; the clock of either runs over tokenising
and all forwards, not over loading. It counts processor seconds, which on an idle machine with one thread are seconds
and on a busy one wander less. The sides alternate, `--repeats` times, and the fastest run of each counts. A context
runs once for its options here and once an option there. The lines "same" have shots that all items share (lm-eval's
`first_n` sampler; here they run once for all). Prints seconds, the ratio and how many argmaxes differ; exits 1 when
the ratio over all lines (sum of seconds by sum of seconds) is below 1.5.

    python benchmarks/lm_eval_speed.py [--limit 200] [--batch-size 16] [--repeats 3] [--data ../shared/data] [--env DIR]
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from lm_eval_agreement import ROOT, family_tasks
from lm_eval_env import DEFAULT_FOLDER, Task, ask, prepare

from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.resident import Resident
from darwin_lab.scoring.choice import score_choices
from darwin_lab.scoring.items import Item, load_items
from darwin_lab.scoring.shots import with_shots

TARGET = 1.5
HEAD = f"{'model':<12} {'task':<11} {'shots':>6} {'items':>5} {'lm-eval s':>9} {'lab s':>7} {'ratio':>6} argmax differs"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=200, help="items a task (default 200)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads of both sides (default 1)")
    parser.add_argument("--batch-size", type=int, default=16, help="rows a forward at most (default 16)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side (default 3)")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of shared data")
    parser.add_argument("--env", type=Path, default=DEFAULT_FOLDER, help="where lm-eval is installed")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    python = prepare(chosen.env)
    print(HEAD, flush=True)
    total = np.zeros(2)
    stories = chosen.data / "stories260K"
    sides = [(open_checkpoint("family:father").folder, family_tasks(chosen.limit))]
    if stories.exists():
        sides.append((stories, stories_tasks(chosen.data / "items", chosen.limit)))
    else:
        print(f"stories260K is not in {chosen.data}: skipped")
    for folder, tasks in sides:
        for shots, same in ((0, False), (5, False), (5, True)):
            total += compare(python, folder, tasks, shots, same, chosen)
    ratio = total[0] / total[1]
    print(f"all lines: lm-eval {total[0]:.1f} s, lab {total[1]:.1f} s, ratio {ratio:.2f}, target {TARGET}")
    return int(ratio < TARGET)


def stories_tasks(folder: Path, limit: int) -> list[Task]:
    """ARC-Easy and OpenBookQA, shots from items that are not asked."""
    tasks = []
    for name in ("arc_easy", "openbookqa"):
        items = load_items(folder / f"{name}.jsonl")
        tasks.append(Task(name, items[:limit], items[-100:]))
    return tasks


def compare(
    python: Path, folder: Path, tasks: list[Task], shots: int, same: bool, chosen: argparse.Namespace
) -> NDArray[np.float64]:
    """Prints a line a task, both sides timed on all its items; returns [lm-eval's seconds, ours]."""
    resident = Resident.load(open_checkpoint(str(folder)))
    asked = {task.name: with_shots(task.items, task.pool or (), shots, same=same) for task in tasks}
    given = [
        Task(task.name, task.items, first_shots(task, asked[task.name]) if same else task.pool, same) for task in tasks
    ]
    seconds = {task.name: np.full(2, np.inf) for task in tasks}
    differ = {}
    for _ in range(chosen.repeats):
        theirs = ask(python, folder, given, shots=shots, threads=chosen.threads, batch_size=chosen.batch_size)
        for name, items in asked.items():
            start = time.process_time()
            score = score_choices(resident, items, batch_rows=chosen.batch_size, cut=True)
            spent = time.process_time() - start
            seconds[name] = np.minimum(seconds[name], [theirs[name]["seconds"], spent])
            rows = [theirs[name]["items"][item.id]["loglik"] for item in items]
            differ[name] = sum(int(np.argmax(a)) != b for a, b in zip(rows, score.predictions, strict=True))
    for name, (slow, fast) in seconds.items():
        print(
            f"{folder.name:<12} {name:<11} {f'{shots} same' if same else shots:>6} {len(asked[name]):>5} {slow:>9.2f} "
            f"{fast:>7.2f} {slow / fast:>6.2f} {differ[name]:>14}",
            flush=True,
        )
    return np.sum(list(seconds.values()), axis=0)


def first_shots(task: Task, asked: list[Item]) -> list[Item]:
    """The shots that all items of the task follow, in their order."""
    by_id = {item.id: item for item in task.pool or ()}
    return [by_id[name] for name in asked[0].meta["shots"]]


if __name__ == "__main__":
    raise SystemExit(main())
