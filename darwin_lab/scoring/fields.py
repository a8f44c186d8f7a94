"""Any table of questions as benchmark items: which column is what, guessed, shown, and checked row by row.

Takes a file (`tables`) and perhaps a map role -> column, gives items, or a guess with its first items and everything
that is wrong. Knows nothing about models.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darwin_lab.errors import LabError
from darwin_lab.scoring.cells import ANSWERS, choices_in, place_of, text_of
from darwin_lab.scoring.items import SPLITS, Item, load_items, make_item
from darwin_lab.scoring.tables import SUFFIXES, Table, read_table

ROLES = ("question", "choices", "answer", "context", "id", "task", "category", "split")
SHOWN, MOST_PROBLEMS = 3, 20
OWN = {"id", "task", "question", "answer"}
Fields = Mapping[str, str | Sequence[str]]

_NAMES = {
    "question": "question prompt query problem stem questiontext goal input ctx sentence instruction text",
    "choices": "choices options endings candidates mcoptions multiplechoice answers",
    "answer": "answer answerkey answeridx answerindex correctanswer correctoption correctchoice correct gold "
    "goldanswer target label key output solution",
    "context": "context passage narrative story article paragraph",
    "id": "id questionid qid itemid recordid uuid idx",
    "task": "task benchmark",
    "category": "category subject topic domain subdomain highleveldomain field area type",
    "split": "split",
}  # fmt: skip
_FAMILY = re.compile(
    r"^(choice|option|opt|op|answer|ans|ending|sol|distractor|incorrectanswer|wronganswer)?([a-j]|\d{1,2})$"
)


@dataclass(frozen=True)
class FieldGuess:
    """How a file is read: its `columns`, the map `fields` (role -> column, or the columns of the choices), how its
    answers name a choice (one of `ANSWERS`, "" for generated answers), the first `rows` as items, how many rows there
    are, what is wrong with some of them (`problems`, empty when every row can be read), and what somebody should check
    although it can be read (`notes`)."""

    columns: tuple[str, ...]
    fields: dict[str, str | list[str]]
    answers: str
    rows: tuple[Item, ...]
    n: int
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()


def guess_fields(path: str | Path, fields: Fields | None = None) -> FieldGuess:
    """Read a file with `fields`, or with what its column names suggest, and say what is wrong with it.

    Raises LabError only for a file that cannot be read as a table and for a map that names what is not there.
    """
    table = read_table(path)
    if fields is None and _is_own_row(table.rows[0]):
        found: dict[str, str | list[str]] = {role: role for role in ROLES if role in table.columns}
        items, problems = _collected(
            table, lambda place: make_item(table.rows[place], table.where[place]), MOST_PROBLEMS
        )
        answers = ANSWERS[3] if "choices" in found else ""
        return FieldGuess(table.columns, found, answers, tuple(items[:SHOWN]), len(table.rows), tuple(problems))
    chosen = _checked(fields, table) if fields is not None else _guessed(table)
    missing = [role for role in ("question", "answer") if role not in chosen]
    if missing:
        words = (f"no column looks like the {role}; say which with {role}=COLUMN" for role in missing)
        return FieldGuess(table.columns, chosen, "", (), len(table.rows), tuple(words))
    mapped = _Mapped(table, chosen)
    items, problems = mapped.items(MOST_PROBLEMS)
    return FieldGuess(
        table.columns, chosen, mapped.answers, tuple(items[:SHOWN]), len(table.rows), tuple(problems), mapped.notes
    )


def read_items(path: str | Path, fields: Fields | None = None) -> list[Item]:
    """The items of a file read with `fields`, or with what its column names suggest.

    JSONL in the lab's own columns goes through `load_items`, rule for rule. A row without an id is called by its
    place in the file, one without a task by the file's name. Raises LabError that names file and line of the first
    thing that is wrong: an answer not among the choices, an empty choice, an id met twice, a map that does not fit.
    """
    if fields is None and is_own_file(path):
        return load_items(path)
    table = read_table(path)
    chosen = _checked(fields, table) if fields is not None else _guessed(table)
    for role in ("question", "answer"):
        if role not in chosen:
            raise LabError(
                f"{table.path}: no column looks like the {role}; it has {', '.join(table.columns)}: say which, "
                f"as {role}=COLUMN"
            )
    items, problems = _Mapped(table, chosen).items(1)
    if problems:
        raise LabError(problems[0])
    return items


def parse_fields(given: Sequence[str]) -> dict[str, str | list[str]]:
    """The map that `role=column` and `choices=column,column,...` spell. LabError for anything else."""
    found: dict[str, str | list[str]] = {}
    for entry in given:
        role, equals, columns = entry.partition("=")
        if not equals or not columns.strip() or not role.strip():
            raise LabError(f"{entry!r} is no field; write role=column, such as question=Prompt or choices=A,B,C,D")
        names = [name.strip() for name in columns.split(",")] if role == "choices" else [columns.strip()]
        found[role.strip()] = names if len(names) > 1 else names[0]
    return found


def is_own_file(path: str | Path) -> bool:
    """Whether a JSONL file is in the lab's own format, by its first object; also where that cannot be told, so that
    `load_items` says what is wrong."""
    file = Path(path).expanduser()
    if file.suffix.lower() in SUFFIXES and file.suffix.lower() != ".jsonl":
        return False
    try:
        with file.open(encoding="utf-8-sig") as lines:
            first = json.loads(next((line for line in lines if line.strip()), "null"))
    except (OSError, ValueError, RecursionError):
        return True
    return not isinstance(first, dict) or _is_own_row(first)


# ---------------------------------------------------------------------------------------------------- guessing


def _is_own_row(row: Mapping[str, Any]) -> bool:
    """Whether a row is in the lab's own format."""
    choices = row.get("choices")
    return set(row) >= OWN and (choices is None or (isinstance(choices, list) and isinstance(row["answer"], int)))


def _guessed(table: Table) -> dict[str, str | list[str]]:
    plain = {_plain(name): name for name in reversed(table.columns)}
    found: dict[str, str | list[str]] = {}
    taken: set[str] = set()
    for role, names in _NAMES.items():
        for name in names.split():
            column = plain.get(name)
            if column is not None and column not in taken and _fits(role, [row.get(column) for row in table.rows]):
                found[role] = column
                taken.add(column)
                break
    if "choices" not in found:
        several = _choice_columns(table, found.get("answer"))
        if several:
            found["choices"] = several
            if found.get("answer") in several and not _plain(str(found["answer"])).startswith("correct"):
                del found["answer"]
    return {role: found[role] for role in ROLES if role in found}


def _fits(role: str, values: list[Any]) -> bool:
    """Whether a column of that name holds what the role needs."""
    some = [value for value in values if value not in (None, "")]
    if role == "choices":
        return bool(some) and all(choices_in(value) is not None for value in some[:SHOWN])
    if role == "split":
        return bool(some) and set(map(str, some)) <= set(SPLITS)
    if role == "answer":
        return bool(some) and not any(isinstance(value, list | dict) for value in some[:SHOWN])
    return bool(some)


def _choice_columns(table: Table, answer: str | Sequence[str] | None) -> list[str]:
    """Columns such as A B C D, choice1 choice2, or a right answer with its wrong ones."""
    families: dict[str, list[str]] = {}
    for column in table.columns:
        match = _FAMILY.match(_plain(column))
        if match:
            families.setdefault(match[1] or "", []).append(column)
    for prefix, columns in families.items():
        if prefix in ("distractor", "incorrectanswer", "wronganswer") and isinstance(answer, str):
            return [answer, *columns]
        if len(columns) > 1:
            return columns
    return []


def _checked(fields: Fields, table: Table) -> dict[str, str | list[str]]:
    for role, column in fields.items():
        if role not in ROLES:
            raise LabError(f"{role!r} is no role of a column; use {', '.join(ROLES)}")
        for name in [column] if isinstance(column, str) else column:
            if name not in table.columns:
                raise LabError(f"{table.path} has no column {name!r} for the {role}; it has {', '.join(table.columns)}")
        if not isinstance(column, str) and role != "choices":
            raise LabError(f"{role} takes one column, not {len(column)}; only choices may be several")
    chosen = {role: fields[role] for role in ROLES if role in fields}
    found = {role: column if isinstance(column, str) else list(column) for role, column in chosen.items()}
    question, choices = found.get("question"), found.get("choices", [])
    if question in ([choices] if isinstance(choices, str) else choices):
        raise LabError(
            f"{table.path}: column {question!r} is both the question and a choice; map one of them to another column"
        )
    return found


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).lower()


# ---------------------------------------------------------------------------------------------------- reading


class _Mapped:
    """Rows read through a map of columns."""

    def __init__(self, table: Table, fields: Mapping[str, str | Sequence[str]]) -> None:
        self._table, self._fields = table, fields
        self._choices: list[tuple[list[str], list[str]] | None] = [self._choices_of(row) for row in table.rows]
        self.answers, self.notes = self._way() if "choices" in fields else ("", ())
        answer, choices = fields["answer"], fields.get("choices", ())
        self._shuffled = not isinstance(choices, str) and answer in choices
        self.notes += tuple(self._doubts())

    def items(self, most: int) -> tuple[list[Item], list[str]]:
        """The items that can be read, and up to `most` sentences on those that cannot."""
        return _collected(self._table, self._item, most)

    def _item(self, place: int) -> Item:
        row, where = self._table.rows[place], self._table.where[place]
        stem = self._table.path.stem
        question = str(self._cell(row, "question") or "")
        if self._cell(row, "context"):
            question = f"{self._cell(row, 'context')}\n\n{question}"
        made: dict[str, Any] = {
            "id": str(self._cell(row, "id") if self._cell(row, "id") not in (None, "") else f"{stem}-{place + 1}"),
            "task": str(self._cell(row, "task") or stem),
            "question": question,
            "meta": {
                **(row["meta"] if isinstance(row.get("meta"), dict) else {}),
                **{role: str(self._cell(row, role)) for role in ("category", "split") if self._cell(row, role)},
            },
        }
        answer = self._cell(row, "answer")
        if answer is None or (isinstance(answer, str) and not answer.strip()):
            raise LabError(f"{where}: the answer (column {self._fields['answer']}) is empty; fill it in")
        if "choices" not in self._fields:
            return make_item({**made, "answer": str(answer)}, where)
        found = self._choices[place]
        if found is None:
            raise LabError(
                f"{where}: the choices (column {self._fields['choices']}) are no list of texts; map others with "
                "choices=COLUMN, or choices=A,B,C,D for a column each"
            )
        texts, labels = found
        right = place_of(answer, texts, labels, self.answers)
        if right is None:
            raise LabError(
                f"{where}: answer {str(answer)[:40]!r} (column {self._fields['answer']}, read as {self.answers}) is "
                f"not among the {len(texts)} choices; correct it, or map another column with answer=COLUMN"
            )
        if self._shuffled:
            order = sorted(range(len(texts)), key=lambda choice: _digest(f"{made['id']}\n{texts[choice]}"))
            texts, right = [texts[choice] for choice in order], order.index(right)
        return make_item({**made, "choices": texts, "answer": right}, where)

    def _cell(self, row: Mapping[str, Any], role: str) -> Any:
        column = self._fields.get(role)
        return row.get(column) if isinstance(column, str) else None

    def _choices_of(self, row: Mapping[str, Any]) -> tuple[list[str], list[str]] | None:
        column = self._fields.get("choices")
        if column is None:
            return None
        if isinstance(column, str):
            return choices_in(row.get(column))
        cells = [row.get(name) for name in column]
        while len(cells) > 1 and cells[-1] in (None, ""):
            cells.pop()
        return [text_of(cell) for cell in cells], []

    def _way(self) -> tuple[str, tuple[str, ...]]:
        """The way of naming a choice that reads the most rows, the earlier one of equals, and a note on a doubt."""
        pairs = [
            (self._cell(row, "answer"), found)
            for row, found in zip(self._table.rows, self._choices, strict=True)
            if found is not None
        ]
        read = {way: sum(place_of(answer, *found, way) is not None for answer, found in pairs) for way in ANSWERS}
        chosen = max(ANSWERS, key=lambda way: read[way])
        if chosen != "number from 0" or read["number from 0"] < len(pairs) or read["number from 1"] < len(pairs):
            return chosen, ()
        return chosen, (
            f"answers (column {self._fields['answer']}) fit counting from 0 and from 1; they were taken as counted "
            "from 0: check the first items, and write letters instead if they count from 1",
        )

    def _doubts(self) -> Iterator[str]:
        """A sentence on an answer that is a choice by its name too, and one on choices that are not shown."""
        answer, choices = str(self._fields["answer"]), self._fields.get("choices", [])
        if self._shuffled and _plain(answer) not in _NAMES["answer"].split():
            keys = [column for column in self._table.columns if column not in choices and self._is_key(column)]
            another = f"; is the key another column ({', '.join(keys)})?" if keys else "; check that this is so"
            yield f"the right answer is always column {answer}, which is also among the choices{another}"
        if isinstance(choices, str):
            return
        mapped = {name for one in self._fields.values() for name in ([one] if isinstance(one, str) else one)}
        family = _choice_columns(self._table, None)
        if choices and not set(choices) & set(family):
            return
        left = [column for column in family if column not in mapped and self._is_filled(column)]
        lists = [column for column in self._table.columns if column not in mapped and self._lists(column)]
        if len(left) > 1:
            yield f"columns {', '.join(left)} look like choices and are not shown; if they are, map them as choices"
        elif left:
            yield f"column {left[0]} looks like a choice and is not shown; if it is, map it as one"
        elif lists and not choices:
            yield f"column {lists[0]} looks like choices and is not shown; if it is, map it as choices"

    def _is_key(self, column: str) -> bool:
        """Whether every cell of a column names one of its row's choices, as keys do."""
        if column in (self._fields["question"], self._fields.get("context"), self._fields.get("id")):
            return False
        ways = ANSWERS if _plain(column) in _NAMES["answer"].split() else ("text", "letter")
        pairs = [(row.get(column), found) for row, found in zip(self._table.rows, self._choices, strict=True) if found]
        return any(all(place_of(cell, *found, way) is not None for cell, found in pairs) for way in ways)

    def _is_filled(self, column: str) -> bool:
        return any(row.get(column) not in (None, "") for row in self._table.rows)

    def _lists(self, column: str) -> bool:
        """Whether a column lists choices by its name and its cells; "answers" may as well be all that are right."""
        named = _plain(column) in _NAMES["choices"].split() and _plain(column) != "answers"
        return named and _fits("choices", [row.get(column) for row in self._table.rows])


def _collected(table: Table, make: Callable[[int], Item], most: int) -> tuple[list[Item], list[str]]:
    items: list[Item] = []
    problems: list[str] = []
    seen: dict[str, str] = {}
    for place, where in enumerate(table.where):
        try:
            item = make(place)
            if item.id in seen:
                raise LabError(f"{where}: id {item.id!r} was already used at {seen[item.id]}; give every item its own")
            seen[item.id] = where
            items.append(item)
        except LabError as error:
            problems.append(str(error))
            if len(problems) >= most:
                break
    return items, problems


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
