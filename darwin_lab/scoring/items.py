"""Benchmark items: read them, check them, split them.

Takes JSONL files (`id, task, question, choices, answer` and an optional `meta` a line), gives items and the three
splits. Knows nothing about tokenizers, models or scores.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darwin_lab.errors import LabError
from darwin_lab.scoring.extract import EXTRACTIONS

SPLITS = ("selection", "validation", "report")
SHARES = {"selection": 0.4, "validation": 0.2}  # the rest is report
STYLES = ("question", "continuation")
PRIMARIES = ("acc", "acc_norm")
_ALLOWED = {"split": SPLITS, "style": STYLES, "primary": PRIMARIES, "extract": EXTRACTIONS}


@dataclass(frozen=True)
class Item:
    """One question. With `choices`, `answer` is the index of the right one; without, the text to be generated.

    `meta` the rooms read: `split`, `style` ("continuation" scores the choice straight after the question),
    `delimiter` (between context and choice, " "), `primary` ("acc" or "acc_norm": which p_gold follows), `cluster`
    (items of one passage or translations of one item share it), `category`, `extract` (how a written answer is read;
    an item with choices is then asked to write it), `solution` (what a few-shot example shows after the question),
    and `prefix` (solved items before the question).
    """

    id: str
    task: str
    question: str
    choices: tuple[str, ...] | None
    answer: int | str
    meta: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def cluster(self) -> str:
        """The cluster the item is resampled with; an item without one stands alone."""
        return str(self.meta.get("cluster", self.id))

    @property
    def category(self) -> str:
        """What an accuracy by category groups by; the task where nothing finer is known."""
        return str(self.meta.get("category", self.task))


def by_choice(item: Item) -> bool:
    """Whether the item is scored by the log-likelihood of its choices; `meta.extract` asks for writing instead."""
    return item.choices is not None and "extract" not in item.meta


def load_items(paths: str | Path | Iterable[str | Path]) -> list[Item]:
    """Read and check items from one JSONL file or several, in file order; blank lines are skipped.

    Raises LabError that names file and line: unreadable file, line that is not a JSON object, missing or wrong
    field, answer out of range, empty or repeated choices, an id met before; and for a file given twice, and when no
    item is found at all.
    """
    files = [paths] if isinstance(paths, str | Path) else list(paths)
    for index, file in enumerate(files):
        if Path(file) in map(Path, files[:index]):
            raise LabError(f"{file} is given twice; give it once")
    items: list[Item] = []
    seen: dict[str, str] = {}
    for file in map(Path, files):
        for number, line in enumerate(_lines(file), start=1):
            if not line.strip():
                continue
            where = f"{file}:{number}"
            item = _parse(line, where)
            if item.id in seen:
                raise LabError(
                    f"{where}: id {item.id!r} was already used at {seen[item.id]}; give every item an id of its own"
                )
            seen[item.id] = where
            items.append(item)
    if not items:
        named = ", ".join(str(file) for file in files) or "the list of files"
        raise LabError(f"no items in {named}; write one JSON object a line: id, task, question, choices, answer")
    return items


def split_items(items: Sequence[Item], seed: int) -> dict[str, list[Item]]:
    """Selection / validation / report items, disjoint, each in the order given.

    `meta.split` wins. The other items of a task are dealt 40 / 20 / 40 by a hash of (seed, task, cluster), so a
    split depends on which items there are and on the seed alone, and a cluster is never torn apart.
    """
    chosen: dict[str, str] = {item.id: item.meta["split"] for item in items if "split" in item.meta}
    open_units: dict[str, dict[str, list[str]]] = {}
    for item in items:
        if item.id not in chosen:
            open_units.setdefault(item.task, {}).setdefault(item.cluster, []).append(item.id)
    for task, units in open_units.items():
        total = sum(len(ids) for ids in units.values())
        ends = (round(SHARES["selection"] * total), round((SHARES["selection"] + SHARES["validation"]) * total))
        dealt = 0
        for cluster in sorted(units, key=lambda name: _digest(f"{seed}\n{task}\n{name}")):
            name = SPLITS[sum(dealt >= end for end in ends)]
            chosen.update(dict.fromkeys(units[cluster], name))
            dealt += len(units[cluster])
    return {name: [item for item in items if chosen[item.id] == name] for name in SPLITS}


def items_hash(items: Sequence[Item]) -> str:
    """16 hex digits of the items' content, whatever their order."""
    rows = [
        [item.id, item.task, item.question, item.choices, item.answer, item.meta]
        for item in sorted(items, key=lambda item: item.id)
    ]
    return _digest(json.dumps(rows, sort_keys=True, ensure_ascii=False))[:16]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise LabError(f"cannot read items file {file}: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise LabError(f"items file {file} is not UTF-8 text (byte {error.start}); save it as UTF-8 JSONL") from error


def _parse(line: str, where: str) -> Item:
    try:
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise LabError(f"{where}: not valid JSON ({error}); write one JSON object a line") from error
    if not isinstance(row, dict):
        raise LabError(f"{where}: a {type(row).__name__} instead of a JSON object; write one object a line")
    return make_item(row, where)


def make_item(given: Mapping[str, Any], where: str) -> Item:
    """The item in `id, task, question, choices, answer, meta`; LabError that begins with `where` for a wrong field."""
    row = dict(given)
    for name in ("id", "task", "question", "answer"):
        if row.get(name) is None:
            raise LabError(f"{where}: field {name!r} is missing; an item needs id, task, question and answer")
    if isinstance(row["id"], int) and not isinstance(row["id"], bool):
        row["id"] = str(row["id"])
    for name in ("id", "task", "question"):
        if not isinstance(row[name], str) or not row[name].strip():
            raise LabError(f"{where}: {name!r} must be a text that is not empty")
    choices = _choices(row.get("choices"), where)
    return Item(
        id=row["id"],
        task=row["task"],
        question=row["question"],
        choices=choices,
        answer=_answer(row["answer"], choices, where),
        meta=_meta(_with_category(row, where), choices, where),
    )


def _with_category(row: dict[str, Any], where: str) -> Any:
    """The row's `meta`, with a `category` that stands beside the question, as many files have it."""
    category, meta = row.get("category"), row.get("meta")
    if category is None or not isinstance(meta, dict | None):
        return meta
    if not isinstance(category, str):
        raise LabError(f"{where}: 'category' must be a text, got {category!r}")
    return {"category": category, **(meta or {})}


def _choices(choices: Any, where: str) -> tuple[str, ...] | None:
    if choices is None:
        return None
    if not isinstance(choices, list) or len(choices) < 2:
        raise LabError(f"{where}: 'choices' must be a list of at least two texts; leave it out for generated answers")
    for index, choice in enumerate(choices):
        if not isinstance(choice, str) or not choice.strip():
            raise LabError(f"{where}: choice {index} is not a text or is empty; fill it in or remove it")
        if choice in choices[:index]:
            first = choices.index(choice)
            raise LabError(f"{where}: choices {first} and {index} are the same ({choice!r}); make every choice differ")
    return tuple(choices)


def _answer(answer: Any, choices: tuple[str, ...] | None, where: str) -> int | str:
    if choices is None:
        if not isinstance(answer, str) or not answer.strip():
            raise LabError(f"{where}: without 'choices' the answer must be a text; got {answer!r}")
        return answer
    if isinstance(answer, str) and answer not in choices:
        raise LabError(
            f"{where}: answer {answer!r} is not among the {len(choices)} choices; 'answer' must be the index of the "
            "right one, counted from 0"
        )
    if isinstance(answer, bool) or not isinstance(answer, int):
        raise LabError(f"{where}: 'answer' must be the index of the right choice, counted from 0; got {answer!r}")
    if not 0 <= answer < len(choices):
        last = len(choices) - 1
        raise LabError(f"{where}: answer {answer} is out of range; {len(choices)} choices count 0 to {last}")
    return answer


def _meta(meta: Any, choices: tuple[str, ...] | None, where: str) -> dict[str, Any]:
    if meta is None:
        return {}
    if not isinstance(meta, dict):
        raise LabError(f"{where}: 'meta' must be a JSON object, got {type(meta).__name__}")
    for name, allowed in _ALLOWED.items():
        if name in meta and meta[name] not in allowed:
            raise LabError(f"{where}: meta.{name} is {meta[name]!r}; use one of {', '.join(allowed)}")
    for name in ("delimiter", "prefix"):
        if not isinstance(meta.get(name, ""), str):
            raise LabError(f"{where}: meta.{name} must be a text, got {meta[name]!r}")
    if meta.get("extract") == "letter" and choices is None:
        raise LabError(f"{where}: meta.extract is 'letter', but the item has no choices; give it some")
    return meta
