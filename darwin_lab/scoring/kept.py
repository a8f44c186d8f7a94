"""Answers kept as they are made, so that an equal run takes up what a stopped one left.

Takes a file of its own and what the answers depend on (`key`), gives back what lies there. A JSON line an entry,
written whole: a kill loses the batch under way, and a line that was cut off is dropped. Knows nothing about models.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from darwin_lab.errors import LabError

FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """`name` says what the plain `value` answers; `rows` are the items it completes, as `Score.to_rows` has them."""

    name: str
    value: Any
    rows: tuple[dict[str, Any], ...] = ()


class Kept:
    """The entries of one run in `path`. `key` is plain data: the model's fingerprint, the items' hash, the settings.

    Two equal runs at once do no harm: each makes everything. A context manager that closes the file. Raises LabError
    for a file that holds something else, and when it cannot be read or written.
    """

    def __init__(self, path: Path, key: Mapping[str, Any]) -> None:
        self.path = path
        self._values: dict[str, Any] = {}
        self._rows: list[dict[str, Any]] = []
        head = json.loads(json.dumps({"format": FORMAT, "key": dict(key)}))
        try:
            whole = path.read_bytes() if path.exists() else b""
            found, good = _entries(whole, path, head)
            for entry in found:
                self._take(entry)
            self._file: BinaryIO = path.open("ab")
            self._file.truncate(good)
        except OSError as error:
            raise LabError(f"cannot keep answers in {path}: {error.strerror}; choose another place") from None
        if good == 0:
            self._write(json.dumps(head) + "\n")

    def get(self, name: str) -> Any:
        """The value kept under `name`, or None."""
        return self._values.get(name)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The finished items so far, in the order they were finished."""
        return list(self._rows)

    def put(self, entries: Iterable[Entry]) -> None:
        """Keep entries, all in one write; what has a name already stays as it is."""
        new = [entry for entry in entries if entry.name not in self._values]
        lines = (json.dumps({"name": e.name, "value": e.value, "rows": list(e.rows)}) + "\n" for e in new)
        self._write("".join(lines))
        for entry in new:
            self._take(entry)

    def remove(self) -> None:
        """The run is done: nothing of it stays."""
        self.close()
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; what it holds stays."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, entry: Entry) -> None:
        if entry.name not in self._values:
            self._values[entry.name] = entry.value
            self._rows.extend(entry.rows)

    def _write(self, text: str) -> None:
        try:
            self._file.write(text.encode("ascii"))
            self._file.flush()
        except OSError as error:
            raise LabError(f"cannot keep answers in {self.path}: {error.strerror}; make room there") from None


def rows_so_far(path: Path) -> list[dict[str, Any]]:
    """The finished items in a file that a `Kept` may be writing right now; none when there is no such file."""
    try:
        lines = path.read_bytes().split(b"\n")[1:-1]
    except OSError:
        return []
    found: dict[str, dict[str, Any]] = {}
    for entry in _whole(lines):
        for row in entry.rows:
            found.setdefault(row["id"], row)
    return list(found.values())


def _entries(whole: bytes, path: Path, head: Mapping[str, Any]) -> tuple[list[Entry], int]:
    """The entries of a file, and how many of its bytes are whole lines; 0 for one cut off in its first line."""
    first, *lines = whole.split(b"\n")
    if not lines:
        return [], 0
    try:
        mine = json.loads(first)
    except ValueError:
        mine = None
    if not isinstance(mine, dict) or "key" not in mine:
        raise LabError(f"{path} is not a file of kept answers; move it away or choose another place")
    if mine != head:
        raise LabError(f"{path} holds answers of another model, other items or settings; remove it or choose another")
    entries = list(_whole(lines[:-1]))
    return entries, len(first) + 1 + sum(len(line) + 1 for line in lines[: len(entries)])


def _whole(lines: Iterable[bytes]) -> Iterator[Entry]:
    """The entries up to the first line that is damaged."""
    for line in lines:
        try:
            row = json.loads(line)
            yield Entry(row["name"], row["value"], tuple(row["rows"]))
        except (ValueError, KeyError, TypeError):
            return
