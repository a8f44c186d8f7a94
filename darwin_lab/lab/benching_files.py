"""Files somebody added as benchmarks: read once, kept as a copy in the lab's home, found again by name.

Takes a path and a map of columns, gives `Benchmark`s. Knows no model.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
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
SPLIT_SEED = 0


def infos(bench: "Workbench") -> list[BenchmarkInfo]:
    """Every added file that can still be read, oldest first."""
    found = (find(bench, name) for name in bench.store.notes("file", ""))
    return [benchmark.info for benchmark in found if benchmark is not None]


def add(
    bench: "Workbench", path: Path, fields: Mapping[str, str | Sequence[str]] | None, name: str | None
) -> Benchmark:
    """See `Benchmarks.add_file`."""
    chosen = (name or path.stem).strip()
    if not _NAME.fullmatch(chosen):
        raise LabError(f"{chosen!r} cannot name a benchmark; use up to 64 letters, digits, spaces, dots, + - and _")
    if chosen in benching_hub.names():
        raise LabError(f"{chosen} is a benchmark of the Hub's catalogue; give the file another name")
    note = {"file": path.name, "fields": dict(fields) if fields is not None else None}
    _read(chosen, path, note)
    folder = bench.store.folder("benchmarks", bench.store.new_id())
    try:
        folder.mkdir(parents=True)
        shutil.copyfile(path, folder / path.name)
    except OSError as error:
        raise LabError(f"cannot keep a copy of {path.name} ({error.strerror}); free some space") from error
    before = bench.store.notes("file", "").get(chosen)
    bench.store.put_note("file", "", chosen, {**note, "folder": str(folder)})
    if before is not None:
        shutil.rmtree(before["folder"], ignore_errors=True)
    found = find(bench, chosen)
    if found is None:
        raise LabError(f"{path.name} could not be read back from {folder}; add it again")
    return found


def find(bench: "Workbench", name: str) -> Benchmark | None:
    """The added file of this name; None when there is none, or its copy is gone."""
    note = bench.store.notes("file", "").get(name)
    if note is None or not (path := Path(note["folder"]) / note["file"]).is_file():
        return None
    key = ("benchmark file", str(path))
    if key not in bench.loaded:
        bench.loaded[key] = _read(name, path, note)
    found: Benchmark = bench.loaded[key]
    return found


def forget(bench: "Workbench", name: str) -> None:
    """See `Benchmarks.forget_file`."""
    note = bench.store.notes("file", "").get(name)
    if note is None:
        raise LabError(f"no added file is called {name!r}; choose one of the catalogue")
    bench.store.forget_note("file", "", name)
    shutil.rmtree(note["folder"], ignore_errors=True)


def _read(name: str, path: Path, note: Mapping[str, Any]) -> Benchmark:
    from darwin_lab.scoring.fields import read_items

    items = benching_sets.as_one(name, split_items(read_items(path, note["fields"]), SPLIT_SEED))
    return Benchmark(name, name, "file", items, note=f"from {note['file']}")
