"""The MRI as lab work: which parts are there, which are missing, and the jobs that make them.

Every part is a folder named by what it depends on (weights, probes, settings), written after each probe, so a page
sees it grow and a restart goes on where it stopped. A part that is deleted is made again and comes out the same. A job
measures in the dtype that was chosen when it was asked for; what is read is of the dtype chosen now, unless one is
named.
"""

import json
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darwin_lab.checkpoint.alignment import align
from darwin_lab.errors import LabError
from darwin_lab.lab import looping
from darwin_lab.lab.memory import in_words
from darwin_lab.lab.pairs import Pair
from darwin_lab.lab.scan_places import (
    contrast_folder,
    fingerprint_of,
    folders,
    loaded,
    parent,
    scan_folder,
    static_file,
)
from darwin_lab.lab.streaming import streamed_scan
from darwin_lab.lab.workbench import Workbench
from darwin_lab.merging.prescription import MODES, Prescription
from darwin_lab.merging.recipe import Recipe
from darwin_lab.progress import Tick, part

if TYPE_CHECKING:
    from darwin_lab.engine.source import Source
    from darwin_lab.mri.contrast import Contrast
    from darwin_lab.mri.health_record import Health
    from darwin_lab.mri.scan import Scan
    from darwin_lab.mri.static import StaticProfile

_BESIDE = ", mother"
_OWN_PLACE, _BETWEEN = "sweep", "lane 0"
"""Where a streamed scan holds its model: a place of its own, because interactive jobs run between its layers."""
PARTS = ("father", "mother", "static", "contrast")
_WORDS = {
    "father": "Scan of the father",
    "mother": "Scan of the mother",
    "static": "Static profile of both parents",
    "contrast": "Layer swaps between father and mother",
}
_SHARES = {"father": 0.3, "mother": 0.3, "static": 0.05, "contrast": 0.35}

# ---------------------------------------------------------------------------------------------------- what is there


def newest(bench: Workbench, pair: Pair, who: str, dtype: str | None = None) -> "Scan | None":
    """The stored scan of "father", "mother", "ancestor" or a known recipe hash, whole or partial."""
    from darwin_lab.mri.scan import Scan

    fingerprint = fingerprint_of(bench, pair, who)
    folder = None if fingerprint is None else scan_folder(bench, pair, fingerprint, dtype)
    return None if folder is None else loaded(bench, folder, "scan", Scan.load)


def complete(bench: Workbench, pair: Pair, who: str, dtype: str | None = None, *, halves: bool = False) -> bool:
    """Whether that scan holds every probe (and, asked for, the attention and FFN halves)."""
    scan = newest(bench, pair, who, dtype)
    return scan is not None and not _lacking(scan, pair, halves=halves)


def contrast(bench: Workbench, pair: Pair, dtype: str | None = None) -> "Contrast | None":
    """The stored contrast, whole or partial."""
    from darwin_lab.mri.contrast import Contrast

    found: Contrast | None = loaded(bench, contrast_folder(bench, pair, dtype), "contrast", Contrast.load)
    return found


def static(bench: Workbench, pair: Pair) -> "StaticProfile | None":
    """The stored static profile."""
    from darwin_lab.mri.static import StaticProfile

    path = static_file(bench, pair)
    if not path.exists():
        return None
    stamp = path.stat().st_mtime_ns
    if bench.loaded.get(path, (None, None))[0] != stamp:
        bench.loaded[path] = (stamp, StaticProfile.from_json(json.loads(path.read_text(encoding="utf-8"))))
    profile: StaticProfile = bench.loaded[path][1]
    return profile


def prescription(bench: Workbench, pair: Pair, mode: str = MODES[0], dtype: str | None = None) -> Prescription | None:
    """What the whole MRI advises; None while a part is missing. LabError for an unknown mode, and for one that needs
    what these scans do not hold."""
    from darwin_lab.mri.prescribe import prescribe

    if mode not in MODES:
        raise LabError(f"unknown prescription mode {mode!r}; choose {' or '.join(MODES)}")
    dtype = dtype or bench.dtype(pair)
    if any(not _is_there(bench, pair, name, dtype) for name in PARTS if mode == MODES[0] or name != "contrast"):
        return None
    scans = [newest(bench, pair, who, dtype) for who in ("father", "mother")]
    swaps = contrast(bench, pair, dtype) if mode == MODES[0] else None
    key = ("prescription", pair.key, mode)
    profile = static(bench, pair)
    sources = (*scans, swaps, profile)
    known, advice = bench.loaded.get(key, (None, None))
    if known is None or any(one is not other for one, other in zip(known, sources, strict=True)):
        if scans[0] is None or scans[1] is None:
            return None
        advice = prescribe(scans[0], scans[1], pair.anatomy, mode=mode, contrast=swaps, static=profile)
        bench.loaded[key] = (sources, advice)
    return advice  # type: ignore[no-any-return]


def health(bench: Workbench, pair: Pair, recipe_hash: str, thresholds: Mapping[str, float]) -> "Health | None":
    """The child beside its parents; None until all three scans are whole."""
    fingerprint = fingerprint_of(bench, pair, recipe_hash)
    return None if fingerprint is None else health_of(bench, pair, fingerprint, thresholds)


def health_of(
    bench: Workbench, pair: Pair, fingerprint: str, thresholds: Mapping[str, float], dtype: str | None = None
) -> "Health | None":
    """The model with this fingerprint beside the parents; None until all three scans are whole."""
    from darwin_lab.mri.health import check_health
    from darwin_lab.mri.health_record import Thresholds

    dtype = dtype or bench.dtype(pair)
    child, father, mother = (whole(bench, pair, one, dtype) for one in (fingerprint, *parents_prints(bench, pair)))
    if child is None or father is None or mother is None:
        return None
    try:
        limits = Thresholds(**dict(thresholds))  # type: ignore[arg-type]
    except TypeError as error:
        raise LabError(f"unknown health threshold ({error}); see the thresholds in the health tab") from error
    advice = prescription(bench, pair, dtype=dtype)
    loops = looping.counted(bench, pair, fingerprint, *parents_prints(bench, pair), dtype=dtype)
    sources = (child, father, mother, limits, advice.golden if advice else (), loops)
    known, found = bench.loaded.get(("health", pair.key, fingerprint), (None, None))
    if known is None or any(one is not other and one != other for one, other in zip(known, sources, strict=True)):
        found = check_health(child, father, mother, sources[4], limits, pair.expert_order, loops)
        bench.loaded["health", pair.key, fingerprint] = (sources, found)
    return found  # type: ignore[no-any-return]


def whole(bench: Workbench, pair: Pair, fingerprint: str | None, dtype: str | None = None) -> "Scan | None":
    """The stored scan of the model with this fingerprint, once it holds every probe."""
    from darwin_lab.mri.scan import Scan

    if fingerprint is None:
        return None
    scan: Scan | None = loaded(bench, scan_folder(bench, pair, fingerprint, dtype), "scan", Scan.load)
    return scan if scan is not None and not _lacking(scan, pair, halves=False) else None


def parents_prints(bench: Workbench, pair: Pair) -> list[str | None]:
    """The fingerprints of father and mother as they are read."""
    return [fingerprint_of(bench, pair, who) for who in ("father", "mother")]


# ---------------------------------------------------------------------------------------------------- what is made


def request(bench: Workbench, pair: Pair, *, again: bool = False, halves: bool = False) -> list[str]:
    """Queue the missing parts; see `Lab.request_scan`."""
    dtype = bench.dtype(pair)
    if again:
        for folder in folders(bench, pair, dtype):
            shutil.rmtree(folder, ignore_errors=True)
        static_file(bench, pair).unlink(missing_ok=True)
    wanted = PARTS if pair.compatible else PARTS[:2]
    jobs = []
    for name in wanted:
        with_halves = halves and name in PARTS[:2]
        if not _is_there(bench, pair, name, dtype, halves=with_halves, centroids=True):
            computed = "" if name == "static" else in_words(dtype)
            words = f"{_WORDS[name]}{computed}{', halves too' if with_halves else ''}"
            key = f"scan:{pair.key}:{name}{computed}{':halves' if with_halves else ''}"
            jobs.append(bench.jobs.submit("scan", words, _job(bench, pair, name, dtype, halves=with_halves), key=key))
    return jobs


def request_child(bench: Workbench, pair: Pair, recipe: Recipe) -> str:
    """Queue the scan of a child and of whatever its health is read beside; see `Lab.request_health`."""

    dtype = bench.dtype(pair)

    def work(tick: Tick) -> dict[str, str]:
        beside_parents(bench, pair, bench.child(pair, recipe), tick, f"child {recipe.hash}", dtype)
        return {"recipe_hash": recipe.hash}

    key = f"health:{pair.key}:{recipe.hash}:{dtype}"
    words = f"Health of child {recipe.hash}{in_words(dtype)}"
    return bench.jobs.submit("health", words, work, key=key, interactive=True)


def beside_parents(bench: Workbench, pair: Pair, source: "Source", tick: Tick, words: str, dtype: str) -> None:
    """Scan a child and both parents and count their loops, whatever is missing; for an interactive job that already
    runs on the worker."""
    _scan(bench, pair, source, part(tick, 0.0, 0.4), words, _BETWEEN, dtype)
    looping.count(bench, pair, source, part(tick, 0.4, 0.46), dtype)
    for place, who in enumerate(("father", "mother")):
        start = 0.46 + 0.27 * place
        make(bench, pair, who, part(tick, start, start + 0.22), dtype, _BETWEEN)
        looping.count(bench, pair, parent(pair, who), part(tick, start + 0.22, start + 0.27), dtype)


def ensure(bench: Workbench, pair: Pair, tick: Tick, dtype: str, *, centroids: bool = False) -> None:
    """Make every missing part now; for work that already runs on the worker. `centroids` as in `make`."""
    start = 0.0
    for name in PARTS:
        make(bench, pair, name, part(tick, start, start + _SHARES[name]), dtype, centroids=centroids)
        start += _SHARES[name]


def make(
    bench: Workbench,
    pair: Pair,
    name: str,
    tick: Tick,
    dtype: str,
    place: str = _OWN_PLACE,
    *,
    halves: bool = False,
    centroids: bool = False,
) -> None:
    """Make one part of the MRI unless it is there; `place` holds what is streamed. With `centroids` a scan made before
    mean activations were kept is not there."""
    if _is_there(bench, pair, name, dtype, halves=halves, centroids=centroids):
        return
    if name == "static":
        _profile(bench, pair, tick)
    elif name == "contrast":
        _contrast(bench, pair, tick, dtype)
    else:
        _scan(bench, pair, parent(pair, name), tick, name, place, dtype, halves=halves, centroids=centroids)


def _job(bench: Workbench, pair: Pair, name: str, dtype: str, *, halves: bool) -> Callable[[Tick], None]:
    return lambda tick: make(bench, pair, name, tick, dtype, halves=halves, centroids=True)


def _scan(
    bench: Workbench,
    pair: Pair,
    source: "Source",
    tick: Tick,
    words: str,
    place: str,
    dtype: str,
    *,
    halves: bool = False,
    centroids: bool = False,
) -> None:
    from darwin_lab.mri.scan import Scan, merged, scan_probe

    folder = scan_folder(bench, pair, source.fingerprint, dtype)
    known = loaded(bench, folder, "scan", Scan.load)
    todo = list(pair.probes.names) if known is None else _lacking(known, pair, halves=halves, centroids=centroids)
    if not todo:
        return
    keep = _keeping(known, todo, merged, folder)

    def measure(name: str, lane: str, share: Tick) -> None:
        resident = bench.resident(pair, source, lane, dtype=dtype)
        texts, basis = pair.probes.texts[name], pair.probes.hash
        keep(scan_probe(resident, source, name, texts, probes_hash=basis, tick=share, halves=halves))

    if bench.memory(pair, dtype=dtype).streamed:
        if place == _OWN_PLACE:
            bench.release_all()
        streamed_scan(bench, pair, source, todo, place, tick, keep, dtype=dtype, halves=halves)
    else:
        _by_probe(bench, pair, todo, measure, tick, words, dtype=dtype)


def _contrast(bench: Workbench, pair: Pair, tick: Tick, dtype: str) -> None:
    from darwin_lab.mri.contrast import Contrast, merged_contrast
    from darwin_lab.mri.contrast import contrast as swap

    pair.require_mergeable()
    folder = contrast_folder(bench, pair, dtype)
    known = loaded(bench, folder, "contrast", Contrast.load)
    todo = [name for name in pair.probes.names if known is None or name not in known.probes]
    keep = _keeping(known, todo, merged_contrast, folder)

    def measure(names: list[str], lane: str, share: Tick) -> None:
        father = bench.resident(pair, pair.father, lane, models=2, dtype=dtype)
        mother = bench.resident(pair, parent(pair, "mother"), lane + _BESIDE, models=2, dtype=dtype)
        people = (pair.father.name, pair.mother.name)
        swap(
            father, mother, pair.probes.only(*names), share,
            lambda found: keep(replace(found, probes_hash=pair.probes.hash)), names=people,
        )  # fmt: skip

    try:
        if bench.memory(pair, 2, dtype).streamed:
            bench.release_all()
            measure(todo, _OWN_PLACE, bench.letting_in(tick))
        else:
            _by_probe(
                bench, pair, todo, lambda name, *rest: measure([name], *rest), tick, "layer swaps", _BESIDE, dtype=dtype
            )
    finally:
        bench.release_all(ending=_BESIDE)
        bench.release_all(ending=_OWN_PLACE)


def _keeping(known: Any, todo: Sequence[str], merge: Callable[[list[Any]], Any], folder: Path) -> Callable[[Any], None]:
    """What keeps a piece, of one probe or several, in the folder beside what is known, in the order of `todo`."""
    lock = threading.Lock()
    pieces: dict[str, Any] = {}

    def keep(piece: Any) -> None:
        with lock:
            pieces[piece.probes[0]] = piece
            inside = [
                pieces[name] for name in sorted(pieces, key=lambda name: todo.index(name) if name in todo else -1)
            ]
            merge([*([known] if known is not None else []), *inside]).save(folder)

    return keep


def _by_probe(
    bench: Workbench,
    pair: Pair,
    todo: Sequence[str],
    measure: Callable[[str, str, Tick], None],
    tick: Tick,
    words: str,
    *beside: str,
    dtype: str,
) -> None:
    """Measure the probes that are missing, as many at once as there are lanes; each is kept as soon as it is done."""

    def work(name: str, place: str, share: Tick) -> None:
        share(0.0, f"{words}: {name}")
        measure(name, place, share)

    lanes = bench.lanes(pair, dtype)
    for start in range(0, len(todo), lanes):
        bench.jobs.yield_point()
        wave = todo[start : start + lanes]
        bench.prepare(pair, pair.father, len(wave), *beside, dtype=dtype)
        share = part(tick, start / len(todo), (start + len(wave)) / len(todo))
        bench.side_by_side([partial(work, name) for name in wave], share)


def _profile(bench: Workbench, pair: Pair, tick: Tick) -> None:
    from darwin_lab.mri.static import static_profile

    pair.require_mergeable()
    path = static_file(bench, pair)
    mother = align(pair.father, pair.mother, vocabulary=pair.vocabulary, expert_order=pair.expert_order)
    profile = static_profile(pair.father, mother, pair.anatomy, tick)
    bench.store.keep_text(path, json.dumps(profile.to_json()))


def _is_there(
    bench: Workbench, pair: Pair, name: str, dtype: str, *, halves: bool = False, centroids: bool = False
) -> bool:
    if name == "static":
        return static_file(bench, pair).exists()
    if name == "contrast":
        found = contrast(bench, pair, dtype)
        return found is not None and set(found.probes) >= set(pair.probes.names)
    scan = newest(bench, pair, name, dtype)
    return scan is not None and not _lacking(scan, pair, halves=halves, centroids=centroids)


def _lacking(scan: "Scan", pair: Pair, *, halves: bool, centroids: bool = False) -> list[str]:
    """Probes that a scan does not hold yet (or not with halves, or centroids), in the pair's order."""
    return [
        name
        for name in pair.probes.names
        if name not in scan.probes
        or (centroids and name not in scan.centroids)
        or (halves and not all(name in by["loss"] for by in _halves(scan)))
    ]


def _halves(scan: "Scan") -> list[Mapping[str, Mapping[str, Any]]]:
    return [scan.halves.get(half, {"loss": {}}) for half in ("attn", "ffn")]
