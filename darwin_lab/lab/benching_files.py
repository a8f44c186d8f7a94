"""Files somebody added as benchmarks: read once, kept as a copy in the lab's home, found again by name.

Takes a path and a map of columns, gives `Benchmark`s. Knows no model.
"""

import filecmp
import re
import shutil
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darwin_lab.errors import LabError
from darwin_lab.lab import benching_hub, benching_sets
from darwin_lab.lab.benching_sets import Benchmark
from darwin_lab.lab.benching_views import BenchmarkInfo
from darwin_lab.scoring.items import split_items

if TYPE_CHECKING:
    from darwin_lab.lab.workbench import Workbench

_NAME = re.compile(r"[\w][\w .+-]{0,63}")
_BESIDE = re.compile(r"(?P<name>.+) \(file(?: \d+)?\)")
"""What a file is called beside parents with a task of its name; no file can be added under such a name."""
SPLIT_SEED = 0
COPY = "items"
"""What a copy is called, so that ids and splits of a file do not hang on its name."""


def infos(bench: "Workbench", tasks: Container[str] = ()) -> list[BenchmarkInfo]:
    """Every added file that can still be read, oldest first. One with the name of one of `tasks`, a pair's own, has
    another name beside that pair, and its note says so."""
    found = ((name, find(bench, _beside(name, tasks))) for name in bench.store.notes("file", ""))
    return [
        replace(known.info, note=f"{known.info.note}, added as {name}, which is a task of the parents' own items here")
        if known.name != name
        else known.info
        for name, known in found
        if known is not None
    ]


def add(
    bench: "Workbench",
    path: Path,
    fields: Mapping[str, str | Sequence[str]] | None,
    name: str | None,
    tasks: Container[str] = (),
) -> Benchmark:
    """See `Benchmarks.add_file`; `tasks` are names that pairs' own items have."""
    chosen = (name or path.stem).strip()
    if not _NAME.fullmatch(chosen):
        raise LabError(f"{chosen!r} cannot name a benchmark; use up to 64 letters, digits, spaces, dots, + - and _")
    if chosen in benching_hub.names():
        raise LabError(f"{chosen} is a benchmark of the Hub's catalogue; give the file another name")
    if chosen in tasks:
        raise LabError(f"{chosen} is a task of the parents' own items; give the file another name")
    told = None
    if fields is not None:
        told = {role: column if isinstance(column, str) else list(column) for role, column in fields.items()}
    note: dict[str, Any] = {"file": path.name, "copy": f"{COPY}{path.suffix}", "fields": told}
    _read(chosen, path, note)
    before = find(bench, chosen)
    if before is not None:
        if _same(bench.store.notes("file", "")[chosen], path, told):
            return before
        raise LabError(f"another file was added as {chosen}; give this one another name, or remove the other first")
    folder = bench.store.folder("benchmarks", bench.store.new_id())
    try:
        folder.mkdir(parents=True)
        shutil.copyfile(path, folder / note["copy"])
    except OSError as error:
        raise LabError(f"cannot keep a copy of {path.name} ({error.strerror}); free some space") from error
    bench.store.put_note("file", "", chosen, {**note, "folder": str(folder)})
    found = find(bench, chosen)
    if found is None:
        raise LabError(f"{path.name} could not be read back from {folder}; add it again")
    return found


def find(bench: "Workbench", name: str) -> Benchmark | None:
    """The added file of this name, also of the one it has beside a task of its name; None when there is none, or its
    copy is gone."""
    note = bench.store.notes("file", "").get(_added_as(name))
    if note is None or not (path := _copy(note)).is_file():
        return None
    key = ("benchmark file", str(path), name)
    if key not in bench.loaded:
        bench.loaded[key] = _read(name, path, note)
    found: Benchmark = bench.loaded[key]
    return found


def forget(bench: "Workbench", name: str) -> None:
    """See `Benchmarks.forget_file`."""
    stored = _added_as(name)
    note = bench.store.notes("file", "").get(stored)
    if note is None:
        raise LabError(f"no added file is called {name!r}; choose one of the catalogue")
    bench.store.forget_note("file", "", stored)
    shutil.rmtree(note["folder"], ignore_errors=True)


def _beside(name: str, tasks: Container[str]) -> str:
    """What a file is called beside a pair with these tasks."""
    if name not in tasks:
        return name
    called = (f"{name} (file{f' {number}' if number > 1 else ''})" for number in count(1))
    return next(one for one in called if one not in tasks)


def _added_as(name: str) -> str:
    """The name a file was added under."""
    found = _BESIDE.fullmatch(name)
    return found["name"] if found else name


def _copy(note: Mapping[str, Any]) -> Path:
    return Path(note["folder"], note.get("copy", note["file"]))


def _same(note: Mapping[str, Any], path: Path, fields: Mapping[str, str | list[str]] | None) -> bool:
    """Whether a file, read with these columns, is the one that was added."""
    kept = _copy(note)
    return note["fields"] == fields and kept.suffix == path.suffix and filecmp.cmp(kept, path, shallow=False)


def _read(name: str, path: Path, note: Mapping[str, Any]) -> Benchmark:
    from darwin_lab.scoring.fields import read_items

    dealt = split_items(read_items(path, note["fields"]), SPLIT_SEED)
    named = {
        split: [replace(item, task=name) if item.task == path.stem else item for item in items]
        for split, items in dealt.items()
    }
    return Benchmark(name, name, "file", benching_sets.as_one(name, named), note=f"from {note['file']}")
