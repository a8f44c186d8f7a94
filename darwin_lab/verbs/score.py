"""The verb `score`: benchmark items answered by one model."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch

from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.resident import Resident
from darwin_lab.errors import LabError
from darwin_lab.evolution.report import task_table
from darwin_lab.lab.pairs import FAMILY_ITEMS
from darwin_lab.progress import Tick, part
from darwin_lab.scoring.asking import Asking, asked_of, golds_of, score_of
from darwin_lab.scoring.evaluate import score_items
from darwin_lab.scoring.items import Item, load_items
from darwin_lab.scoring.leaks import Leak, find_leaks
from darwin_lab.scoring.protocols import (
    Adaptive,
    Outcome,
    adaptive,
    at_the_same_budget,
    greedy,
    majority,
    why_upper_bound,
)
from darwin_lab.scoring.score import Score
from darwin_lab.scoring.shots import with_shots
from darwin_lab.statistics.paired import smallest_gap
from darwin_lab.verbs.common import Result


def run(arguments: argparse.Namespace, tick: Tick) -> Result:
    """Score one model on items: by log-likelihood where they have options, by generation where not or when asked."""
    items = _items(arguments)
    if arguments.samples is not None and (
        arguments.samples.is_dir() or not arguments.samples.absolute().parent.is_dir()
    ):
        raise LabError(f"{arguments.samples} cannot be a file there; give a file name in a folder that exists")
    leaks = _leaks(arguments, items)
    gaps = {task: smallest_gap(n) for task, n in _sizes(items).items()}
    tick(0.0, _gap_words(gaps, items))
    resident = Resident.load(open_checkpoint(arguments.model), dtype=getattr(torch, arguments.dtype))
    outcomes: list[Outcome] = []
    if arguments.protocol is None:
        result = score_items(
            resident,
            items,
            arguments.max_new_tokens,
            tick,
            cut=arguments.cut_long,
            letters=arguments.letters,
            seed=arguments.seed,
        )
    else:
        outcomes = _protocol(resident, items, arguments, tick)
        result = score_of(items, outcomes[0])
    if arguments.samples is not None:
        _write_samples(arguments, result)
    invalid = {task: bench.invalid for task, bench in result.benchmarks().items()}
    corrected = {task: bench.corrected for task, bench in result.benchmarks().items()}
    benchmarks = {
        task: {**row, "invalid": invalid[task], "corrected": corrected[task], "smallest_gap": gaps[task]}
        for task, row in task_table(result).items()
    }
    data: dict[str, Any] = {"model": arguments.model, "benchmarks": benchmarks}
    if arguments.shots:
        data["shots"] = {"count": arguments.shots, "seed": arguments.shots_seed, "same": arguments.same_shots}
        data["shots"]["from"] = str(arguments.shots_from)
        data["shots"]["leaks"] = len(leaks)
    if outcomes:
        data["protocol"] = {**_protocol_data(outcomes[0]), "beside": [_protocol_data(other) for other in outcomes[1:]]}
    parts = [
        _gap_words(gaps, items),
        *_leak_words(leaks),
        _score_text(result),
        *(_protocol_text(outcomes, items) if outcomes else []),
    ]
    return Result(data, "\n".join(parts))


def _items(arguments: argparse.Namespace) -> list[Item]:
    if not arguments.items and not arguments.model.startswith("family:"):
        raise LabError("no items; give --items FILE with one JSON object a line (the README has the format)")
    items = load_items(arguments.items or [FAMILY_ITEMS / "selection.jsonl"])
    for name, value in (("--limit", arguments.limit), ("--max-new-tokens", arguments.max_new_tokens)):
        if value is not None and value < 1:
            raise LabError(f"{name} is {value}; give 1 or more")
    if arguments.limit is not None:
        items = _first_of_each_task(items, arguments.limit)
    if arguments.extract and not arguments.protocol:
        raise LabError("--extract reads written answers; give --protocol greedy, majority or adaptive with it")
    if arguments.letters and arguments.protocol:
        raise LabError("--letters scores choices, --protocol asks for written answers; give one of the two")
    if arguments.shots_from is not None and not arguments.shots:
        raise LabError("--shots-from without --shots; say how many with --shots K")
    if arguments.shots and arguments.shots_from is None:
        raise LabError("--shots needs solved items to draw from; give --shots-from FILE, best of another split")
    if arguments.shots:
        pool = load_items(arguments.shots_from)
        items = with_shots(items, pool, arguments.shots, seed=arguments.shots_seed, same=arguments.same_shots)
    if arguments.extract:
        items = [replace(item, meta={"extract": arguments.extract, **item.meta}) for item in items]
    return items


def _leaks(arguments: argparse.Namespace, items: Sequence[Item]) -> list[Leak]:
    """Items that are also among those the shots are drawn from, or nearly; the very same id is left out by the draw."""
    if arguments.shots_from is None:
        return []
    asked = {item.id for item in items}
    pool = [item for item in load_items(arguments.shots_from) if item.id not in asked]
    return find_leaks({"items": items, "shots": pool})


def _leak_words(leaks: Sequence[Leak]) -> list[str]:
    if not leaks:
        return []
    first = leaks[0]
    return [
        f"{len(leaks)} items are among the solved ones too, or nearly: first {first.first} as {first.second} "
        f"({first.kind}, {first.similarity:.0%}); take shots of another source"
    ]


def _first_of_each_task(items: list[Item], limit: int) -> list[Item]:
    by_task = groupby(sorted(items, key=lambda item: item.task), key=lambda item: item.task)
    chosen = {item.id for _, group in by_task for item in list(group)[:limit]}
    return [item for item in items if item.id in chosen]


def _sizes(items: Sequence[Item]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for item in items:
        sizes[item.task] = sizes.get(item.task, 0) + 1
    return sizes


def _gap_words(gaps: dict[str, float], items: Sequence[Item]) -> str:
    told = ", ".join(f"{task} {100 * gap:.0f}" for task, gap in list(gaps.items())[:6])
    more = ", ..." if len(gaps) > 6 else ""
    return f"{len(items)} items; the smallest difference they show four times in five, in points: {told}{more}"


def _protocol(resident: Resident, items: Sequence[Item], arguments: argparse.Namespace, tick: Tick) -> list[Outcome]:
    """The outcome asked for, and what it has to be compared with."""
    thinking = None if arguments.thinking is None else arguments.thinking == "on"
    how = Asking(arguments.max_new_tokens, arguments.seed, arguments.chat, thinking)
    golds, ask = golds_of(items), asked_of(resident, items, how)
    if arguments.protocol == "greedy":
        return [greedy(golds, ask, tick)]
    if arguments.protocol == "majority":
        return [majority(golds, ask, arguments.k, tick=tick)]
    outcome = adaptive(golds, ask, Adaptive(gate=arguments.gate), part(tick, 0.0, 0.7))
    return [outcome, at_the_same_budget(golds, ask, outcome, part(tick, 0.7, 1.0))]


def _protocol_data(outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.protocol,
        "label": outcome.label,
        "acc": outcome.acc,
        "interval": list(outcome.interval),
        "calls_per_item": outcome.calls_per_item,
        "invalid": outcome.invalid,
        "stages": [{"name": s.name, "items": s.items, "calls": s.calls, "right": s.right} for s in outcome.stages],
    }


def _protocol_text(outcomes: Sequence[Outcome], items: Sequence[Item]) -> list[str]:
    lines = []
    for outcome in outcomes:
        low, high = outcome.interval
        label = f" ({outcome.label})" if outcome.label else ""
        lines.append(
            f"{outcome.protocol}{label}: {outcome.acc:.3f} [{low:.3f}, {high:.3f}], {outcome.calls_per_item:.1f} calls "
            f"an item, {outcome.invalid} of {outcome.n} never answered"
        )
        if len(outcome.stages) > 1:
            lines.extend(
                f"  stage {stage.name}: {stage.items} items, {stage.calls} calls, {stage.right} right after it"
                for stage in outcome.stages
            )
        choices = [len(item.choices) for item in items if item.choices]
        if outcome.label and choices:
            lines.append(f"  {why_upper_bound(round(sum(choices) / len(choices)))}")
    return lines


def _write_samples(arguments: argparse.Namespace, result: Score) -> None:
    rows = (json.dumps(row, ensure_ascii=False) + "\n" for row in result.to_rows())
    try:
        arguments.samples.write_text("".join(rows), encoding="utf-8")
    except OSError as error:
        arguments.samples.unlink(missing_ok=True)
        raise LabError(f"cannot write {arguments.samples}: {error.strerror}; choose another --samples") from None


def _score_text(result: Score) -> str:
    lines = [
        f"{'benchmark':<18} {'n':>5} {'acc':>7} {'95 % interval':>16} {'acc_norm':>9} {'p(gold)':>8} {'chance':>7} "
        f"{'above chance':>12} {'invalid':>7}"
    ]
    for task, bench in result.benchmarks().items():
        interval = f"{bench.interval[0]:.3f} - {bench.interval[1]:.3f}"
        gold = "-" if bench.p_gold is None else f"{bench.p_gold:.4f}"
        numbers = f"{bench.acc:>7.3f} {interval:>16} {bench.acc_norm:>9.3f} {gold:>8} {bench.chance:>7.2f}"
        lines.append(f"{task:<18} {bench.n:>5} {numbers} {bench.corrected:>12.3f} {bench.invalid:>7}")
    return "\n".join([*lines, f"{'mean':<18} {result.n:>5} {result.mean_acc:>7.3f}"])
