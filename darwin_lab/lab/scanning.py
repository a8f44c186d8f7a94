"""The MRI as lab work: which parts are there, which are missing, and the jobs that make them.

Every part is a folder named by what it depends on (weights, probes, settings), written after each probe, so a page
sees it grow and a restart goes on where it stopped. A part that is deleted is made again and comes out the same.
"""

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darwin_lab.checkpoint.alignment import align
from darwin_lab.errors import LabError
from darwin_lab.lab.pairs import Pair
from darwin_lab.lab.workbench import Workbench
from darwin_lab.merging.prescription import Prescription
from darwin_lab.merging.recipe import Recipe, uniform_recipe
from darwin_lab.progress import Tick, part

if TYPE_CHECKING:
    from darwin_lab.engine.source import Source
    from darwin_lab.mri.contrast import Contrast
    from darwin_lab.mri.health import Health
    from darwin_lab.mri.scan import Scan
    from darwin_lab.mri.static import StaticProfile

MODES = ("contrastive", "card_v6")
_BESIDE = ", mother"
_REPLACED_WITHIN = 0.02
PARTS = ("father", "mother", "static", "contrast")
_WORDS = {
    "father": "Scan of the father",
    "mother": "Scan of the mother",
    "static": "Static profile of both parents",
    "contrast": "Layer swaps between father and mother",
}
_SHARES = {"father": 0.3, "mother": 0.3, "static": 0.05, "contrast": 0.35}

# ---------------------------------------------------------------------------------------------------- what is there


def newest(bench: Workbench, pair: Pair, who: str) -> "Scan | None":
    """The stored scan of "father", "mother", "ancestor" or a known recipe hash, whole or partial."""
    from darwin_lab.mri.scan import Scan

    fingerprint = _fingerprint(bench, pair, who)
    return None if fingerprint is None else _loaded(bench, _scan_folder(bench, pair, fingerprint), "scan", Scan.load)


def complete(bench: Workbench, pair: Pair, who: str) -> bool:
    """Whether that scan holds every probe."""
    scan = newest(bench, pair, who)
    return scan is not None and set(scan.probes) >= set(pair.probes.names)


def contrast(bench: Workbench, pair: Pair) -> "Contrast | None":
    """The stored contrast, whole or partial."""
    from darwin_lab.mri.contrast import Contrast

    found: Contrast | None = _loaded(bench, _contrast_folder(bench, pair), "contrast", Contrast.load)
    return found


def static(bench: Workbench, pair: Pair) -> "StaticProfile | None":
    """The stored static profile."""
    from darwin_lab.mri.static import StaticProfile

    path = _static_file(bench, pair)
    if not path.exists():
        return None
    stamp = path.stat().st_mtime_ns
    if bench.loaded.get(path, (None, None))[0] != stamp:
        bench.loaded[path] = (stamp, StaticProfile.from_json(json.loads(path.read_text(encoding="utf-8"))))
    profile: StaticProfile = bench.loaded[path][1]
    return profile


def prescription(bench: Workbench, pair: Pair, mode: str = MODES[0]) -> Prescription | None:
    """What the whole MRI advises; None while a part is missing. LabError for an unknown mode."""
    from darwin_lab.mri.prescribe import prescribe

    if mode not in MODES:
        raise LabError(f"unknown prescription mode {mode!r}; choose {' or '.join(MODES)}")
    if any(not _is_there(bench, pair, name) for name in PARTS if mode == MODES[0] or name != "contrast"):
        return None
    scans = [newest(bench, pair, who) for who in ("father", "mother")]
    swaps = contrast(bench, pair) if mode == MODES[0] else None
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
    from darwin_lab.mri.health import Thresholds, check_health

    if not all(complete(bench, pair, who) for who in ("father", "mother", recipe_hash)):
        return None
    child, father, mother = (newest(bench, pair, who) for who in (recipe_hash, "father", "mother"))
    if child is None or father is None or mother is None:
        return None
    try:
        limits = Thresholds(**dict(thresholds))  # type: ignore[arg-type]
    except TypeError as error:
        raise LabError(f"unknown health threshold ({error}); see the thresholds in the health tab") from error
    advice = prescription(bench, pair)
    return check_health(child, father, mother, advice.golden if advice else (), limits)


# ---------------------------------------------------------------------------------------------------- what is made


def request(bench: Workbench, pair: Pair, *, again: bool = False) -> list[str]:
    """Queue the missing parts; see `Lab.request_scan`."""
    if again:
        for folder in _folders(bench, pair):
            shutil.rmtree(folder, ignore_errors=True)
        _static_file(bench, pair).unlink(missing_ok=True)
    wanted = PARTS if pair.compatible else PARTS[:2]
    jobs = []
    for name in wanted:
        if not _is_there(bench, pair, name):
            work = _job(bench, pair, name)
            jobs.append(bench.jobs.submit("scan", _WORDS[name], work, key=f"scan:{pair.key}:{name}"))
    return jobs


def request_child(bench: Workbench, pair: Pair, recipe: Recipe) -> str:
    """Queue the scan of a child and of whatever its health is read beside; see `Lab.request_health`."""

    def work(tick: Tick) -> dict[str, str]:
        _scan(bench, pair, bench.child(pair, recipe), part(tick, 0.0, 0.4), f"child {recipe.hash}")
        for place, who in enumerate(("father", "mother")):
            make(bench, pair, who, part(tick, 0.4 + 0.3 * place, 0.7 + 0.3 * place))
        return {"recipe_hash": recipe.hash}

    key = f"health:{pair.key}:{recipe.hash}"
    return bench.jobs.submit("health", f"Health of child {recipe.hash}", work, key=key, interactive=True)


def ensure(bench: Workbench, pair: Pair, tick: Tick) -> None:
    """Make every missing part now; for work that already runs on the worker."""
    start = 0.0
    for name in PARTS:
        make(bench, pair, name, part(tick, start, start + _SHARES[name]))
        start += _SHARES[name]


def make(bench: Workbench, pair: Pair, name: str, tick: Tick) -> None:
    """Make one part of the MRI unless it is there."""
    if _is_there(bench, pair, name):
        return
    if name == "static":
        _profile(bench, pair, tick)
    elif name == "contrast":
        _contrast(bench, pair, tick)
    else:
        _scan(bench, pair, _parent(pair, name), tick, name)


def _job(bench: Workbench, pair: Pair, name: str) -> Callable[[Tick], None]:
    return lambda tick: make(bench, pair, name, tick)


def _scan(bench: Workbench, pair: Pair, source: "Source", tick: Tick, words: str) -> None:
    from darwin_lab.mri.scan import Scan, merged, scan_probe

    folder = _scan_folder(bench, pair, source.fingerprint)

    def measure(name: str, place: str, share: Tick) -> Scan:
        resident = bench.resident(pair, source, place)
        texts = pair.probes.texts[name]
        return scan_probe(resident, source, name, texts, probes_hash=pair.probes.hash, tick=share)

    _by_probe(bench, pair, _loaded(bench, folder, "scan", Scan.load), merged, folder, measure, tick, words)


def _contrast(bench: Workbench, pair: Pair, tick: Tick) -> None:
    from darwin_lab.mri.contrast import Contrast, merged_contrast
    from darwin_lab.mri.contrast import contrast as swap

    pair.require_mergeable()
    folder = _contrast_folder(bench, pair)
    names = (pair.father.name, pair.mother.name)

    def measure(name: str, place: str, share: Tick) -> Contrast:
        father = bench.resident(pair, pair.father, place)
        mother = bench.resident(pair, _parent(pair, "mother"), place + _BESIDE)
        piece = swap(father, mother, pair.probes.only(name), share, names=names)
        return replace(piece, probes_hash=pair.probes.hash)

    known = _loaded(bench, folder, "contrast", Contrast.load)
    try:
        _by_probe(bench, pair, known, merged_contrast, folder, measure, tick, "layer swaps", _BESIDE)
    finally:
        bench.release_all(ending=_BESIDE)


def _by_probe(
    bench: Workbench,
    pair: Pair,
    known: Any,
    merge: Callable[[list[Any]], Any],
    folder: Path,
    measure: Callable[[str, str, Tick], Any],
    tick: Tick,
    words: str,
    *beside: str,
) -> None:
    """Measure the probes that are missing, as many at once as there are lanes, keeping each as soon as it is done."""
    todo = [name for name in pair.probes.names if known is None or name not in known.probes]
    keeping = threading.Lock()
    fresh: dict[str, Any] = {}

    def work(name: str, place: str, share: Tick) -> None:
        share(0.0, f"{words}: {name}")
        piece = measure(name, place, share)
        with keeping:
            fresh[name] = piece
            merge([*([known] if known is not None else []), *(fresh[n] for n in todo if n in fresh)]).save(folder)

    lanes = bench.lanes(pair)
    for start in range(0, len(todo), lanes):
        bench.jobs.yield_point()
        wave = todo[start : start + lanes]
        bench.prepare(pair, pair.father, len(wave), *beside)
        share = part(tick, start / len(todo), (start + len(wave)) / len(todo))
        bench.side_by_side([partial(work, name) for name in wave], share)


def _profile(bench: Workbench, pair: Pair, tick: Tick) -> None:
    from darwin_lab.mri.static import static_profile

    pair.require_mergeable()
    path = _static_file(bench, pair)
    mother = align(pair.father, pair.mother, vocabulary=pair.vocabulary)
    profile = static_profile(pair.father, mother, pair.anatomy, tick)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{bench.store.owner.id}.partial")
    partial.write_text(json.dumps(profile.to_json()), encoding="utf-8")
    partial.replace(path)


# ---------------------------------------------------------------------------------------------------- where it lies


def _is_there(bench: Workbench, pair: Pair, name: str) -> bool:
    if name == "static":
        return _static_file(bench, pair).exists()
    if name == "contrast":
        found = contrast(bench, pair)
        return found is not None and set(found.probes) >= set(pair.probes.names)
    return complete(bench, pair, name)


def _parent(pair: Pair, who: str) -> "Source":
    """The parent as it is read: with the father's tokens where the pair is matched by token."""
    if who == "mother" and pair.vocabulary != "same" and pair.compatible:
        return _with_his_tokens(pair)
    parent = {"father": pair.father, "mother": pair.mother, "ancestor": pair.ancestor}[who]
    if parent is None:
        raise LabError("this pair has no ancestor to scan")
    return parent


@lru_cache(maxsize=8)
def _with_his_tokens(pair: Pair) -> "Source":
    """The mother under the father's tokenizer: the child that is all hers but for tokens she does not have."""
    from darwin_lab.engine.child import Child

    all_hers = uniform_recipe(pair.anatomy, 1.0, vocabulary=pair.vocabulary)
    return Child(pair.father, pair.mother, all_hers, pair.ancestor, name=pair.mother.name)


def _fingerprint(bench: Workbench, pair: Pair, who: str) -> str | None:
    if who in ("father", "mother"):
        return _parent(pair, who).fingerprint
    if who == "ancestor":
        return pair.ancestor.fingerprint if pair.ancestor else None
    row = bench.store.recipe_row(pair.key, who)
    return row["fingerprint"] if row else None


def _basis(pair: Pair, settings: Mapping[str, Any]) -> tuple[str, str]:
    """What a measurement depends on beside the weights: the probes and the settings."""
    return pair.probes.hash, hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def _scan_folder(bench: Workbench, pair: Pair, fingerprint: str) -> Path:
    from darwin_lab.mri.scan import scan_settings

    return bench.store.folder("scans", fingerprint, *_basis(pair, scan_settings()))


def _contrast_folder(bench: Workbench, pair: Pair) -> Path:
    from darwin_lab.mri.contrast import contrast_settings

    parents = pair.father.fingerprint, _parent(pair, "mother").fingerprint
    return bench.store.folder("contrasts", *parents, *_basis(pair, contrast_settings()))


def _static_file(bench: Workbench, pair: Pair) -> Path:
    return bench.store.folder("profiles", pair.father.fingerprint, pair.mother.fingerprint).with_suffix(".json")


def _folders(bench: Workbench, pair: Pair) -> list[Path]:
    parents = [_scan_folder(bench, pair, _parent(pair, who).fingerprint) for who in ("father", "mother")]
    return [*parents, _contrast_folder(bench, pair)]


def _loaded(bench: Workbench, folder: Path, name: str, load: Callable[[Path], Any]) -> Any:
    """What lies in the folder, read again only when it changed; None when there is nothing readable.

    A folder that is just being replaced is looked at once more: what was there a moment ago does not vanish.
    """
    known, value = bench.loaded.get(folder, (None, None))
    for wait in (0.0, _REPLACED_WITHIN):
        time.sleep(wait)
        try:
            stamp = (folder / f"{name}.json").stat().st_mtime_ns
            if stamp != known:
                value = load(folder)
                bench.loaded[folder] = (stamp, value)
            return value
        except (OSError, LabError):
            if known is None:
                return None
    bench.loaded.pop(folder, None)
    return None
