"""Rows of a file somebody has: JSONL, CSV, TSV or parquet, each with the place it stands at.

Takes a path, gives columns and rows. Knows nothing of items: what a column means is `fields`' business.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darwin_lab.errors import LabError

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
MOST_BYTES = 512 << 20
MOST_ROWS = 1_000_000
PYARROW = "pip install pyarrow"


@dataclass(frozen=True)
class Table:
    """The rows of a file in order: `where[i]` names the line (or row) of `rows[i]`, for errors."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    where: tuple[str, ...]


def read_table(path: str | Path) -> Table:
    """Read a whole file: one JSON object a line, a JSON list of objects, CSV or TSV with a header, or parquet.

    Cells of CSV stay text. Raises LabError that names file and line: a suffix that is none of these, a file that
    cannot be read, is empty or too large, a line that is no object, a CSV line with another number of cells, a header
    that names a column twice.
    """
    file = Path(path).expanduser()
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise LabError(f"{file} ends in {suffix or 'nothing'}; give one of {', '.join(SUFFIXES)}")
    try:
        size = file.stat().st_size
    except OSError as error:
        raise LabError(f"cannot read {file}: {error.strerror}; check the path") from error
    if size > MOST_BYTES:
        raise LabError(f"{file} has {size >> 20} MB; files of items up to {MOST_BYTES >> 20} MB are read, cut it first")
    if suffix == ".parquet":
        found = _parquet(file)
    elif suffix in (".csv", ".tsv"):
        found = list(_csv(file, "\t" if suffix == ".tsv" else None))
    else:
        found = list(_json(file))
    if not found:
        raise LabError(f"{file} holds no rows; give one row an item")
    if len(found) > MOST_ROWS:
        raise LabError(f"{file} holds {len(found)} rows; up to {MOST_ROWS} are read, cut it first")
    columns = tuple(dict.fromkeys(name for _, row in found for name in row))
    return Table(file, columns, tuple(row for _, row in found), tuple(where for where, _ in found))


def _json(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    text = _text(file)
    if text.lstrip().startswith("["):
        try:
            entries = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise LabError(f"{file}: not valid JSON ({error}); write one JSON object a line") from error
        for number, entry in enumerate(entries, start=1):
            yield f"{file}: entry {number}", _object(entry, f"{file}: entry {number}")
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{file}:{number}"
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise LabError(f"{where}: not valid JSON ({error}); write one JSON object a line") from error
            yield where, _object(entry, where)


def _object(entry: Any, where: str) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise LabError(f"{where}: a {type(entry).__name__} instead of a JSON object; write one object an item")
    return entry


def _csv(file: Path, delimiter: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    text = _text(file)
    header = text.split("\n", 1)[0]
    chosen = delimiter or max(",;\t", key=header.count)
    csv.field_size_limit(1 << 24)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=chosen, strict=True)
    columns: list[str] | None = None
    before = 0
    try:
        for cells in reader:
            where, before = f"{file}:{before + 1}", reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = [cell.strip() for cell in cells]
                twice = [name for place, name in enumerate(columns) if name in columns[:place]]
                if twice:
                    raise LabError(f"{where}: column {twice[0]!r} stands twice in the header; name every column once")
                continue
            if len(cells) != len(columns):
                raise LabError(
                    f"{where}: {len(cells)} cells, but the header names {len(columns)} columns; quote the text"
                )
            yield where, dict(zip(columns, cells, strict=True))
    except csv.Error as error:
        raise LabError(f"{file}:{reader.line_num}: {error}; check the quotes around this line") from error


def _parquet(file: Path) -> list[tuple[str, dict[str, Any]]]:
    try:
        from pyarrow import ArrowException, parquet  # type: ignore[import-not-found, import-untyped]
    except ImportError:
        raise LabError(f"reading {file.name} needs pyarrow: `{PYARROW}`; or save the file as JSONL or CSV") from None
    try:
        rows = parquet.ParquetFile(file).read().to_pylist()
    except (ArrowException, OSError) as error:
        words = str(error).split("\n")[0]
        raise LabError(f"{file} is no parquet file that can be read ({words}); save it again") from error
    return [(f"{file}: row {number}", row) for number, row in enumerate(rows, start=1)]


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise LabError(f"cannot read {file}: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise LabError(f"{file} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
