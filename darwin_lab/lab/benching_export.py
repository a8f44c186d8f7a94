"""A table of benchmarks for other programs and for a model card, and published rows beside it.

Takes a desk's rows, gives text. Holds means and counts only: no item, no answer, no question is ever exported.
"""

import csv
import io
import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from darwin_lab.errors import LabError
from darwin_lab.lab.benching_views import BenchRow, Reference
from darwin_lab.statistics.claim import check_claim, shown
from darwin_lab.statistics.proportion import wilson

if TYPE_CHECKING:
    from darwin_lab.lab.benchmarks import Benchmarks
    from darwin_lab.lab.pairs import Pair

FORMS = ("csv", "json", "markdown")
UNPAIRED = "published, unpaired: no test against it is possible"


def export(desk: "Benchmarks", pair: "Pair", split: str, form: str) -> str:
    """See `Benchmarks.export`. LabError for another form, and when no model has answered anything yet."""
    if form not in FORMS:
        raise LabError(f"no export {form!r}; choose {', '.join(FORMS)}")
    rows = [row for row in desk.table(pair, split) if row.done]
    if not rows:
        raise LabError(f"no model has answered {split} items yet; run a benchmark first")
    references = {name: desk.references(name) for name in dict.fromkeys(row.benchmark for row in rows)}
    labels = {choice.key: choice.label for choice in desk.models(pair)}
    looks = {name: desk.looks(pair, name) for name in references}
    if form == "csv":
        return _csv(rows, labels, looks)
    if form == "json":
        told = {
            "split": split,
            "father": pair.father.name,
            "mother": pair.mother.name,
            "rows": [{**asdict(row), "label": labels.get(row.model, row.model)} for row in rows],
            "references": {name: [asdict(row) for row in found] for name, found in references.items() if found},
            "looks": looks,
        }
        return json.dumps(told, ensure_ascii=False, indent=2, allow_nan=False)
    return _markdown(rows, labels, references, split, looks)


def reference(name: str, acc: str, n: int, source: str) -> Reference:
    """A published row checked by `statistics.claim`. LabError for what cannot be a score."""
    try:
        claim = check_claim(acc, n)
    except (ValueError, TypeError) as error:
        raise LabError(
            f"{name}: {error}; give a score in percent and a number of items, such as 90.0 and 198"
        ) from None
    nearest = min(max(round(float(claim.score) * n / 100), 0), n)
    note = UNPAIRED
    if not claim.possible:
        below, above = (f"{shown(count, n, claim.decimals)} % ({count})" for count in (claim.below, claim.above))
        note = f"{UNPAIRED}; {claim.score} % of {n} is no possible count: {below} or {above} would be"
    return Reference(
        name, float(claim.score) / 100, str(claim.score), n, source, wilson(nearest, n), claim.possible, note
    )


def _csv(rows: list[BenchRow], labels: dict[str, str], looks: dict[str, int]) -> str:
    names = [entry.name for entry in fields(BenchRow) if entry.name != "interval"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*names, "low", "high", "label", "looks"])
    for row in rows:
        low, high = row.interval or ("", "")
        told = [low, high, labels.get(row.model, row.model), looks[row.benchmark]]
        writer.writerow([_cell(value) for value in (*(getattr(row, name) for name in names), *told)])
    return out.getvalue()


def _cell(value: Any) -> str:
    """A number as it is; a text so that no spreadsheet takes it for a formula."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str):
        return f"'{value}" if value.startswith(("=", "+", "-", "@")) else value
    return "" if value is None else str(value)


def _markdown(
    rows: list[BenchRow],
    labels: dict[str, str],
    references: dict[str, list[Reference]],
    split: str,
    looks: dict[str, int],
) -> str:
    lines = ["| benchmark | model | n | accuracy | 95 % interval | above chance | never answered |", "|---" * 7 + "|"]
    for name, published in references.items():
        for row in (row for row in rows if row.benchmark == name):
            low, high = row.interval or (0.0, 1.0)
            told = f"{100 * low:.1f} to {100 * high:.1f} | {100 * (row.corrected or 0):.1f} % | {row.invalid} |"
            who = _plain(labels.get(row.model, row.model))
            lines.append(f"| {_plain(name)} | {who} | {row.done} | {100 * (row.acc or 0):.1f} % | {told}")
        for entry in published:
            low, high = entry.interval
            flag = "" if entry.possible else ", not a possible count"
            who = f"{_plain(entry.name)} ({_plain(entry.source)}; published, unpaired{flag})"
            told = f"{entry.printed} % | {100 * low:.1f} to {100 * high:.1f} | - | - |"
            lines.append(f"| {_plain(name)} | {who} | {entry.n} | {told}")
    ending = " Selection numbers flatter what was selected on them." if split == "selection" else ""
    if split == "report":
        ending = f" Looks at the report items: {', '.join(f'{name} {count}' for name, count in looks.items())}."
    return "\n".join([*lines, "", f"Items of the {split} split; intervals are Wilson's.{ending}", ""])


def _plain(text: str) -> str:
    """A text that cannot break out of its cell."""
    return " ".join(text.replace("|", "\\|").split())
