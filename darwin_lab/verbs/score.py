"""The verb `score`: benchmark items answered by one model, held in memory, streamed, or served by an endpoint."""

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.resident import Resident
from darwin_lab.engine.streamed import Streamed, load_model, weigh
from darwin_lab.errors import LabError
from darwin_lab.evolution.report import task_table
from darwin_lab.progress import Tick, part
from darwin_lab.scoring.asking import asked_of, score_of
from darwin_lab.scoring.endpoint import Endpoint
from darwin_lab.scoring.evaluate import cut_prompts, score_items
from darwin_lab.scoring.harness import require_harness, run_tasks
from darwin_lab.scoring.items import Item, items_hash
from darwin_lab.scoring.kept import Kept
from darwin_lab.scoring.leaks import Leak, find_leaks
from darwin_lab.scoring.letters import has_letters
from darwin_lab.scoring.protocols import Adaptive, Ask, Outcome, adaptive, at_the_same_budget, greedy, majority
from darwin_lab.scoring.questions import Asking, extraction_of, golds_of
from darwin_lab.scoring.score import Score, join_scores
from darwin_lab.scoring.shots import with_shots
from darwin_lab.statistics.paired import smallest_gap
from darwin_lab.verbs.common import Result
from darwin_lab.verbs.score_items import given_items, solved_items
from darwin_lab.verbs.score_words import (
    cut_words,
    gap_words,
    leak_words,
    margin_words,
    order_words,
    protocol_data,
    protocol_words,
    score_words,
    thinking_data,
    thinking_words,
)

_WAYS = (
    "protocol",
    "k",
    "gate",
    "seed",
    "max_new_tokens",
    "chat",
    "thinking",
    "thinking_budget",
    "cut_long",
    "letters",
)
"""Flags that an answer depends on, beside the model, the items and how it computes."""


def run(arguments: argparse.Namespace, tick: Tick) -> Result:
    """Score one model on items: by log-likelihood where they have options, by generation where not or when asked."""
    _check_flags(arguments)
    if arguments.lm_eval:
        return _harness(arguments, tick)
    given = given_items(arguments, tick)
    items = _items(arguments, given.items)
    arguments.max_new_tokens = arguments.max_new_tokens or given.max_new_tokens
    _check_samples(arguments.samples)
    leaks = _leaks(arguments, items)
    gaps = {task: smallest_gap(n) for task, n in _sizes(items).items()}
    tick(0.0, gap_words(gaps, items))
    outcomes: list[Outcome] = []
    memory: list[str] = []
    cut: list[str] = []
    served: list[str] = []
    data: dict[str, Any] = {"model": arguments.model or arguments.endpoint_model, **given.data}
    if arguments.endpoint:
        server = _endpoint(arguments)
        with _kept(arguments, items, {"endpoint": server.url, "model": server.model}) as keep:
            gated = arguments.protocol == "adaptive" and arguments.gate == "confidence"
            ask = server.asked(items, _asking(arguments), keep, margins=gated)
            outcomes = _protocol(ask, items, arguments, tick)
            result = score_of(items, outcomes[0])
            _write_samples(arguments, result)
        data["endpoint"] = server.url
        if arguments.thinking_budget is not None:
            data["thinking"] = thinking_data(arguments.thinking_budget, bool(server.continues), server.said.values())
            served.append(thinking_words(data["thinking"], arguments.max_new_tokens))
        if gated and all(said.margin is None for said in server.said.values()):
            served.append(margin_words(outcomes[0]))
    else:
        source, model, sentence = _model(arguments)
        with _kept(arguments, items, lambda: _computing(source, model)) as keep:
            if arguments.protocol:
                ask = asked_of(model, items, _asking(arguments), keep)
                outcomes = _protocol(ask, items, arguments, tick)
                result = score_of(items, outcomes[0])
            else:
                if arguments.cut_long:
                    ids, prompts = cut_prompts(model, items, letters=arguments.letters, seed=arguments.seed)
                    data["cut"] = {"prompts": prompts, "ids": list(ids)}
                    cut = [cut_words(ids, prompts)]
                result = score_items(
                    model, items, arguments.max_new_tokens, tick,
                    cut=arguments.cut_long, letters=arguments.letters, seed=arguments.seed, keep=keep,
                )  # fmt: skip
            _write_samples(arguments, result)
        if isinstance(model, Streamed):
            memory = [f"{sentence}; {model.bytes_read:,} bytes of weights read"]
            data["streamed"] = {"bytes_read": model.bytes_read}
    data["benchmarks"] = _benchmarks(result, gaps)
    if arguments.shots:
        data["shots"] = {"count": arguments.shots, "seed": arguments.shots_seed, "same": arguments.same_shots}
        data["shots"]["from"] = str(arguments.shots_from)
        data["shots"]["leaks"] = len(leaks)
    if outcomes:
        data["protocol"] = {**protocol_data(outcomes[0]), "beside": [protocol_data(other) for other in outcomes[1:]]}
    parts = [
        *given.words,
        gap_words(gaps, items),
        *memory,
        *leak_words(leaks),
        *cut,
        *_order_words(arguments, items),
        score_words(result),
        *protocol_words(outcomes, items),
        *served,
    ]
    return Result(data, "\n".join(parts))


def _items(arguments: argparse.Namespace, items: list[Item]) -> list[Item]:
    """The items as they are asked: the first of each task, after shots, read in another way."""
    if arguments.limit is not None:
        items = _first_of_each_task(items, arguments.limit)
    if arguments.shots_from is not None and not arguments.shots:
        raise LabError("--shots-from without --shots; say how many with --shots K")
    if arguments.shots and arguments.shots_from is None:
        raise LabError("--shots needs solved items to draw from; give --shots-from FILE, best of another split")
    if arguments.shots:
        pool = solved_items(arguments, items)
        items = with_shots(items, pool, arguments.shots, seed=arguments.shots_seed, same=arguments.same_shots)
    return [_read_by(item, arguments.extract) for item in items] if arguments.protocol else items


def _read_by(item: Item, extract: str | None) -> Item:
    """The item as its written answer is read: its own way, else the one asked for, else by letter where it has
    choices."""
    extract = extract or ("letter" if item.choices else None)
    return replace(item, meta={"extract": extract, **item.meta}) if extract else item


def _order_words(arguments: argparse.Namespace, items: Sequence[Item]) -> list[str]:
    """A line on items that have one order, where others were to be shown."""
    if not arguments.letters and arguments.protocol not in ("majority", "adaptive"):
        return []
    shown = [item for item in items if arguments.letters or extraction_of(item) == "letter"]
    fixed = sum(has_letters(item) for item in shown)
    return [order_words(fixed, len(items))] if fixed else []


def _check_flags(arguments: argparse.Namespace) -> None:
    """What makes no sense together, said before anything is read. An endpoint without a protocol is asked greedily."""
    for name, value in (("--limit", arguments.limit), ("--max-new-tokens", arguments.max_new_tokens)):
        if value is not None and value < 1:
            raise LabError(f"{name} is {value}; give 1 or more")
    if not arguments.model and not arguments.endpoint:
        raise LabError("no MODEL; give a folder or a Hub id, or --endpoint URL with --endpoint-model NAME")
    if arguments.endpoint:
        if arguments.letters or arguments.lm_eval or arguments.stream != "auto":
            raise LabError("an endpoint only writes answers; leave out --letters, --lm-eval and --stream")
        arguments.protocol = arguments.protocol or "greedy"
    elif arguments.endpoint_model or arguments.key_env:
        raise LabError("--endpoint-model and --key-env belong to --endpoint URL; give it, or leave them out")
    if arguments.extract and not arguments.protocol:
        raise LabError("--extract reads written answers; give --protocol greedy, majority or adaptive with it")
    if arguments.letters and arguments.protocol:
        raise LabError("--letters scores choices, --protocol asks for written answers; give one of the two")
    if not arguments.protocol and (arguments.chat or arguments.thinking or arguments.thinking_budget is not None):
        raise LabError("--chat and --thinking ask for written answers; give --protocol greedy, majority or adaptive")
    if arguments.lm_eval and (arguments.items or arguments.benchmark or arguments.protocol or arguments.letters):
        raise LabError(
            "--lm-eval runs tasks of lm-evaluation-harness; leave out --items, --benchmark, --protocol and --letters"
        )
    if arguments.lm_eval:
        require_harness()


def _check_samples(path: Path | None) -> None:
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise LabError(f"{path} cannot be a file there; give a file name in a folder that exists")


def _leaks(arguments: argparse.Namespace, items: Sequence[Item]) -> list[Leak]:
    """Items that are also among those the shots are drawn from, or nearly; the very same id is left out by the draw."""
    if arguments.shots_from is None:
        return []
    asked = {item.id for item in items}
    pool = [item for item in solved_items(arguments, items) if item.id not in asked]
    return find_leaks({"items": items, "shots": pool})


def _first_of_each_task(items: list[Item], limit: int) -> list[Item]:
    by_task = groupby(sorted(items, key=lambda item: item.task), key=lambda item: item.task)
    chosen = {item.id for _, group in by_task for item in list(group)[:limit]}
    return [item for item in items if item.id in chosen]


def _sizes(items: Sequence[Item]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for item in items:
        sizes[item.task] = sizes.get(item.task, 0) + 1
    return sizes


def _model(arguments: argparse.Namespace) -> tuple[Checkpoint, Resident, str]:
    """The checkpoint, the model as it fits or as asked for, and a line on that."""
    source = open_checkpoint(arguments.model)
    dtype = getattr(torch, arguments.dtype)
    memory = weigh(source, arguments.stream, arguments.device, dtype)
    return source, load_model(source, memory, arguments.device, dtype), memory.sentence


def _endpoint(arguments: argparse.Namespace) -> Endpoint:
    return Endpoint(
        arguments.endpoint,
        arguments.endpoint_model or arguments.model or "",
        key_env=arguments.key_env,
        concurrency=arguments.concurrency,
        retries=arguments.retries,
        timeout=arguments.timeout,
    )


def _computing(source: Checkpoint, model: Resident) -> dict[str, Any]:
    """What the numbers of a model depend on: weights, and how they are computed with."""
    return {
        "fingerprint": source.fingerprint,
        "dtype": str(model.dtype),
        "device": str(model.device),
        "streamed": model.streamed,
        "threads": torch.get_num_threads(),
    }


@contextmanager
def _kept(
    arguments: argparse.Namespace, items: Sequence[Item], computing: Mapping[str, Any] | Callable[[], Mapping[str, Any]]
) -> Iterator[Kept | None]:
    """With --samples FILE what is answered is kept beside it until the run is done; the same command goes on there."""
    if arguments.samples is None:
        yield None
        return
    ways = {name: getattr(arguments, name) for name in _WAYS}
    answered = computing() if callable(computing) else computing
    key = {**answered, "items": items_hash(items), "settings": ways}
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    with Kept(arguments.samples.parent / f".{arguments.samples.name}.partial-{name}", key) as keep:
        yield keep
        keep.remove()


def _asking(arguments: argparse.Namespace) -> Asking:
    thinking = None if arguments.thinking is None else arguments.thinking == "on"
    return Asking(arguments.max_new_tokens, arguments.seed, arguments.chat, thinking, arguments.thinking_budget)


def _protocol(ask: Ask, items: Sequence[Item], arguments: argparse.Namespace, tick: Tick) -> list[Outcome]:
    """The outcome asked for, and what it has to be compared with."""
    golds = golds_of(items)
    if arguments.protocol == "greedy":
        return [greedy(golds, ask, tick)]
    if arguments.protocol == "majority":
        return [majority(golds, ask, arguments.k, tick=tick)]
    outcome = adaptive(golds, ask, Adaptive(gate=arguments.gate), part(tick, 0.0, 0.7))
    return [outcome, at_the_same_budget(golds, ask, outcome, part(tick, 0.7, 1.0))]


def _harness(arguments: argparse.Namespace, tick: Tick) -> Result:
    """Tasks of lm-evaluation-harness, by its own rules, on the model in memory."""
    _check_samples(arguments.samples)
    _, model, _ = _model(arguments)
    result = join_scores(run_tasks(model, arguments.lm_eval, arguments.limit, arguments.shots or None, tick))
    _write_samples(arguments, result)
    gaps = {task: smallest_gap(bench.n) for task, bench in result.benchmarks().items()}
    return Result({"model": arguments.model, "benchmarks": _benchmarks(result, gaps)}, score_words(result))


def _benchmarks(result: Score, gaps: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    benches = result.benchmarks()
    return {
        task: {
            **row,
            "invalid": benches[task].invalid,
            "corrected": benches[task].corrected,
            "smallest_gap": gaps[task],
        }
        for task, row in task_table(result).items()
    }


def _write_samples(arguments: argparse.Namespace, result: Score) -> None:
    if arguments.samples is None:
        return
    rows = (json.dumps(row, ensure_ascii=False) + "\n" for row in result.to_rows())
    try:
        arguments.samples.write_text("".join(rows), encoding="utf-8")
    except OSError as error:
        arguments.samples.unlink(missing_ok=True)
        raise LabError(f"cannot write {arguments.samples}: {error.strerror}; choose another --samples") from None
