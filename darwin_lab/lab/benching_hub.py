"""The Hub's benchmarks in a lab: what the catalogue says of them, and their items once they were fetched.

Pins live in the lab's home; the files in huggingface_hub's cache. Only `fetch` downloads, and only the worker calls it.
"""

from typing import TYPE_CHECKING

from darwin_lab.errors import LabError
from darwin_lab.lab import benching_sets
from darwin_lab.lab.benching_sets import Benchmark
from darwin_lab.lab.benching_views import BenchmarkInfo
from darwin_lab.progress import Tick, silent
from darwin_lab.scoring import hub
from darwin_lab.scoring.catalogue import CATALOGUE, Entry, entry

if TYPE_CHECKING:
    from pathlib import Path

    from darwin_lab.lab.workbench import Workbench


def names() -> tuple[str, ...]:
    """Every benchmark of the catalogue."""
    return tuple(CATALOGUE)


def infos(bench: "Workbench") -> list[BenchmarkInfo]:
    """What is known of each: published numbers until its items have been read in this process."""
    return [_info(bench, chosen) for chosen in CATALOGUE.values()]


def cached(bench: "Workbench", name: str) -> Benchmark | None:
    """A benchmark that was fetched before; None while it was not. LabError for no such name."""
    chosen = _entry(name)
    known: Benchmark | None = bench.loaded.get(("hub", name))
    if known is None and hub.pinned(chosen, folder(bench)) is not None:
        return fetch(bench, name, silent)
    return known


def fetch(bench: "Workbench", name: str, tick: Tick) -> Benchmark:
    """The benchmark, downloaded if need be. LabError as `hub.load`."""
    chosen = _entry(name)
    loaded, revision = hub.load(chosen, folder(bench), tick)
    left = f"; {loaded.left_out}" if loaded.left_out else ""
    made = Benchmark(
        name, chosen.title, "hub", benching_sets.as_one(name, loaded.items), chosen.licence, chosen.gated,
        f"{chosen.repo} at {revision[:12]}; {chosen.note}{left}", chosen.max_new_tokens,
    )  # fmt: skip
    bench.loaded["hub", name] = made
    return made


def folder(bench: "Workbench") -> "Path":
    """Where the pins are."""
    return bench.store.home / "hub"


def _entry(name: str) -> Entry:
    if name not in CATALOGUE:
        raise LabError(f"no benchmark is called {name!r}; choose one of the catalogue, or add a file of items")
    return entry(name)


def _info(bench: "Workbench", chosen: Entry) -> BenchmarkInfo:
    known: Benchmark | None = bench.loaded.get(("hub", chosen.name))
    if known is not None:
        return known.info
    pin = hub.pinned(chosen, folder(bench))
    where = f"{chosen.repo} at {pin.revision[:12]}" if pin else f"{chosen.repo}, downloaded when it is first run"
    sizes = chosen.split_sizes
    return BenchmarkInfo(
        chosen.name, chosen.title, "hub", chosen.licence, chosen.chance, chosen.kind, sum(sizes.values()), dict(sizes),
        chosen.gated, pin is not None, f"{where}; {chosen.note}",
    )  # fmt: skip
