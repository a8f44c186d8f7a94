"""Tables and charts of the Benchmark tab out of what the benchmark desk read; pure functions, no request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from darwin_lab.ui.components.data_table import Column, Row, mark, table_value
from darwin_lab.ui.figures.benchmark_bars import Mark, Series, benchmark_bars
from darwin_lab.ui.figures.style import Chart, plural
from darwin_lab.ui.tabs.benchmark_place import SPLIT_WORDS, interval_words, percent, role_of

if TYPE_CHECKING:
    from darwin_lab.lab.benching_views import BenchmarkInfo, BenchRow

NOTHING_RUN = "No score on these items yet. Choose models and benchmarks on the left and press “Run”."
ORDER = {"father": 0, "mother": 1, "blend": 2}


def asked(info: BenchmarkInfo, split: str, limit: int) -> int | None:
    """How many items a run would ask; None while the benchmark has not been read."""
    held = info.splits.get(split)
    return held if held is None or not limit else min(held, limit)


def plan_table(
    infos: Sequence[BenchmarkInfo],
    names: Mapping[str, str],
    split: str,
    limit: int,
    gap: Callable[[int], float],
) -> dict[str, Any]:
    """What a run would answer: items, chance and the smallest gap of each chosen benchmark."""
    rows = []
    for info in infos:
        n = asked(info, split, limit)
        least = gap(n) if n else 0.0
        points = f"{100 * least:.1f} points" if least < 1 else "too few items"
        found = points if n else "known once fetched" if n is None else "no items here"
        rows.append(Row(info.name, (names[info.name], n, percent(info.chance, 0), found)))
    columns = (
        Column("benchmark"),
        Column("items", "number", title="Items of this split that will be asked"),
        Column("chance", "number", title="Accuracy of guessing"),
        Column("smallest gap", "number", title="Difference seen four times in five, p < .05"),
    )
    return table_value(columns, rows, empty="Choose a benchmark to see what its items can show.")


def plan_words(models: int, infos: Sequence[BenchmarkInfo], split: str, limit: int, looks: Mapping[str, int]) -> str:
    """The size of a run in one line, and on report items the looks taken so far."""
    if not models or not infos:
        return "Choose models and benchmarks."
    known = [asked(info, split, limit) for info in infos]
    answers = sum(n or 0 for n in known) * models
    more = "" if None not in known else " and those still to be fetched"
    words = f"{plural(models, 'model')} × {plural(len(infos), 'benchmark')}: {answers:,} answers{more}."
    if split == "report":
        words += f" Looks so far: {', '.join(f'{name} {count}' for name, count in looks.items())}."
    return words


def score_table(rows: Sequence[BenchRow], models: Mapping[str, str], names: Mapping[str, str]) -> dict[str, Any]:
    """Everything scored or under way on one split, benchmark by benchmark, parents first."""
    place = {name: at for at, name in enumerate(names)}
    known = {model: at for at, model in enumerate(models)}
    kept = [row for row in rows if row.state != "none" or row.done or row.note]
    kept.sort(key=lambda row: (place.get(row.benchmark, len(place)), known.get(row.model, len(known))))
    shown = []
    for row in kept:
        role = role_of(row.model)
        shown.append(
            Row(
                row_id(row.model, row.benchmark),
                (
                    models.get(row.model, row.model),
                    names.get(row.benchmark, row.benchmark),
                    row.acc,
                    interval_words(row.interval),
                    str(row.done) if row.n is None or row.n == row.done else f"{row.done} / {row.n}",
                    row.corrected,
                    row.acc_norm,
                    row.p_gold,
                    row.invalid if row.done else None,
                    state_mark(row),
                ),
                role,
            )
        )
    columns = (
        Column("model"),
        Column("benchmark"),
        Column("accuracy", "share", title="Share of the items answered right"),
        Column("95 % interval", "number", title="Wilson interval of the accuracy, in percent"),
        Column("items", "number", title="Items answered, of those on this split"),
        Column("above chance", "share", title="Accuracy minus guessing, as a share of what there is above guessing"),
        Column("length-normed", "share", title="Accuracy when options are judged by log-likelihood per character"),
        Column("p(gold)", "number", 3, "Mean probability of the right option"),
        Column("invalid", "number", title="Items the model never answered; they count as wrong"),
        Column("state", "mark"),
    )
    return table_value(columns, shown, empty=NOTHING_RUN)


def row_id(model: str, benchmark: str) -> str:
    """The id of a row: model and benchmark."""
    return f"{model}\t{benchmark}"


def state_mark(row: BenchRow) -> dict[str, str]:
    """How far a row is; what went wrong with it in its own words."""
    if row.state in ("running", "queued"):
        return mark(None, row.state)
    if row.note and not row.done:
        return mark(False, row.note)
    return mark(True, "done") if row.n is None or row.done >= row.n else mark(None, row.note or "part of the items")


def score_bars(
    rows: Sequence[BenchRow],
    models: Mapping[str, str],
    names: Mapping[str, str],
    chosen: Sequence[str],
    benchmarks: Sequence[str],
    split: str,
) -> Chart:
    """Bars of the chosen models on the chosen benchmarks, parents as lines."""
    series = []
    for model in sorted(chosen, key=lambda key: (ORDER.get(key, 3), list(models).index(key) if key in models else 0)):
        marks = {
            names[row.benchmark]: Mark(row.acc, *row.interval, row.done)
            for row in rows
            if row.model == model and row.benchmark in benchmarks and row.acc is not None and row.interval is not None
        }
        series.append(Series(models.get(model, model), role_of(model), marks))
    chance: dict[str, float | None] = {names[name]: None for name in names if name in benchmarks}
    for row in rows:
        if row.benchmark in benchmarks and row.chance is not None:
            chance[names[row.benchmark]] = row.chance
    return benchmark_bars(series, chance, split=split)


def catalogue_table(
    infos: Sequence[BenchmarkInfo], names: Mapping[str, str], chosen: str | None = None
) -> dict[str, Any]:
    """Every benchmark that can be run here."""
    rows = [
        Row(
            info.name,
            (
                names[info.name],
                {"pair": "own items", "hub": "Hub", "file": "your file"}.get(info.source, info.source),
                "options" if info.kind == "choice" else "written",
                info.n,
                *(info.splits.get(split) for split in SPLIT_WORDS),
                percent(info.chance, 0),
                mark(True, "on this machine")
                if info.cached
                else mark(None, "gated" if info.gated else "to be fetched"),
                info.licence or None,
                info.note,
            ),
        )
        for info in infos
    ]
    columns = (
        Column("benchmark"),
        Column("source"),
        Column("answers"),
        Column("items", "number"),
        Column("selection", "number"),
        Column("validation", "number"),
        Column("report", "number"),
        Column("chance", "number"),
        Column("at hand", "mark"),
        Column("licence", "long"),
        Column("note", "long"),
    )
    return table_value(columns, rows, chosen=chosen, empty="No benchmark yet: drop a file on the right.")
