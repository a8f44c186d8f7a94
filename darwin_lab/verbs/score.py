"""The verb `score`: benchmark items answered by one model."""

import argparse
import json
from itertools import groupby

from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.resident import Resident
from darwin_lab.errors import LabError
from darwin_lab.evolution.report import task_table
from darwin_lab.lab.pairs import FAMILY_ITEMS
from darwin_lab.progress import Tick
from darwin_lab.scoring.evaluate import score_items
from darwin_lab.scoring.items import Item, load_items
from darwin_lab.scoring.score import Score
from darwin_lab.verbs.common import Result


def run(arguments: argparse.Namespace, tick: Tick) -> Result:
    """Score one model on items: by log-likelihood where they have options, by generation where not."""
    if not arguments.items and not arguments.model.startswith("family:"):
        raise LabError("no items; give --items FILE with one JSON object a line (the README has the format)")
    items = load_items(arguments.items or [FAMILY_ITEMS / "selection.jsonl"])
    if arguments.limit is not None:
        if arguments.limit < 1:
            raise LabError(f"--limit is {arguments.limit}; give 1 or more")
        items = _first_of_each_task(items, arguments.limit)
    if arguments.samples is not None and (
        arguments.samples.is_dir() or not arguments.samples.absolute().parent.is_dir()
    ):
        raise LabError(f"{arguments.samples} cannot be a file there; give a file name in a folder that exists")
    resident = Resident.load(open_checkpoint(arguments.model))
    result = score_items(resident, items, tick=tick)
    if arguments.samples is not None:
        rows = (json.dumps(row, ensure_ascii=False) + "\n" for row in result.to_rows())
        try:
            arguments.samples.write_text("".join(rows), encoding="utf-8")
        except OSError as error:
            arguments.samples.unlink(missing_ok=True)
            raise LabError(f"cannot write {arguments.samples}: {error.strerror}; choose another --samples") from None
    return Result({"model": arguments.model, "benchmarks": task_table(result)}, _score_text(result))


def _first_of_each_task(items: list[Item], limit: int) -> list[Item]:
    by_task = groupby(sorted(items, key=lambda item: item.task), key=lambda item: item.task)
    chosen = {item.id for _, group in by_task for item in list(group)[:limit]}
    return [item for item in items if item.id in chosen]


def _score_text(result: Score) -> str:
    lines = [
        f"{'benchmark':<18} {'n':>5} {'acc':>7} {'95 % interval':>16} {'acc_norm':>9} {'p(gold)':>8} {'chance':>7}"
    ]
    for task, bench in result.benchmarks().items():
        interval = f"{bench.interval[0]:.3f} - {bench.interval[1]:.3f}"
        gold = "-" if bench.p_gold is None else f"{bench.p_gold:.4f}"
        numbers = f"{bench.acc:>7.3f} {interval:>16} {bench.acc_norm:>9.3f} {gold:>8} {bench.chance:>7.2f}"
        lines.append(f"{task:<18} {bench.n:>5} {numbers}")
    return "\n".join([*lines, f"{'mean':<18} {result.n:>5} {result.mean_acc:>7.3f}"])
