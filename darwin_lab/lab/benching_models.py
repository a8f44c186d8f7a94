"""The models a pair's benchmarks may be run on: parents, blend, children, candidates of runs, exports, any folder.

Takes a model's key, gives what its rows are stored under and how to bring it into memory. Opens headers only, until
the worker asks for the model itself.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.errors import LabError
from darwin_lab.lab import recipes, runs
from darwin_lab.lab.benching_views import ModelChoice
from darwin_lab.lab.pairs import Pair, lasting_ref
from darwin_lab.lab.workbench import Workbench
from darwin_lab.progress import Tick

if TYPE_CHECKING:
    from darwin_lab.engine.resident import Resident

PARENTS = ("father", "mother")
BESIDE = (*PARENTS, "blend")
EXPORT, FOLDER, FAMILY = "export:", "folder:", "family:"
BEST_OF_A_RUN, RUNS_LISTED = 3, 8


@dataclass(frozen=True)
class Target:
    """A model: `key` as asked for; `stored_as` names its rows (a recipe hash, or "f-" and a fingerprint), None for a
    folder that was never read; `load` brings it into memory and `learn` reads what it is stored as (both for the
    worker only)."""

    key: str
    label: str
    stored_as: str | None
    load: Callable[[], "Resident"]
    learn: Callable[[Tick], str]


def choices(bench: Workbench, pair: Pair, at_hand: str | None = None) -> list[ModelChoice]:
    """What can be chosen for this pair: see `Benchmarks.models`."""
    found = [ModelChoice("father", f"Father: {pair.father.name}", "parent")]
    found.append(ModelChoice("mother", f"Mother: {pair.mother.name}", "parent"))
    if pair.compatible:
        found.append(ModelChoice("blend", "Plain 0.5 blend", "blend"))
        if at_hand is not None and at_hand not in BESIDE:
            found.append(ModelChoice(at_hand, f"Child at hand: {at_hand}", "child"))
        found += _candidates(bench, pair)
    for row in bench.store.exports_of_pair(pair.key):
        if Path(row["folder"]).is_dir():
            found.append(ModelChoice(f"{EXPORT}{row['id']}", f"Export: {Path(row['folder']).name}", "export"))
    for name, path in bench.store.notes("folder", pair.key).items():
        found.append(ModelChoice(f"{FOLDER}{name}", f"Folder: {Path(path).name}", "folder"))
    return list({choice.key: choice for choice in reversed(found)}.values())[::-1]


def add_folder(bench: Workbench, pair: Pair, path: str | Path) -> ModelChoice:
    """Remember a checkpoint beside this pair. LabError when it is no folder here, or none with a checkpoint."""
    if not Path(path).expanduser().is_dir() and not str(path).startswith(FAMILY):
        raise LabError(f"no folder {path} on this machine; give the folder of a model, or download it first")
    checkpoint = open_checkpoint(path)
    ref = lasting_ref(path)
    name = hashlib.sha256(ref.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    bench.store.put_note("folder", pair.key, name, ref)
    return ModelChoice(f"{FOLDER}{name}", f"Folder: {checkpoint.name}", "folder")


def target(bench: Workbench, pair: Pair, key: str) -> Target:
    """The model with this key. LabError for one that is not known, or whose folder is gone."""
    if key.startswith((EXPORT, FOLDER)):
        return _of_checkpoint(bench, pair, key, _opened(bench, _path(bench, pair, key)))
    if key in PARENTS and not pair.compatible:
        return _of_checkpoint(bench, pair, key, pair.father if key == "father" else pair.mother)
    recipe = recipes.recipe_of(bench, pair, key)
    label = {"father": "father", "mother": "mother", "blend": "0.5 blend"}.get(key, f"child {key}")
    return Target(
        key, label, recipe.hash, lambda: bench.resident(pair, bench.child(pair, recipe)), lambda tick: recipe.hash
    )


def _candidates(bench: Workbench, pair: Pair) -> list[ModelChoice]:
    """The pick and the other finalists of the newest runs, the best so far of one under way."""
    found = []
    for view in runs.views(bench, pair.key)[:RUNS_LISTED]:
        top: Sequence[dict[str, Any]] = (view.result or {}).get("top", [])
        if not top:
            ranked = [row for row in bench.store.candidates(view.id) if row["full"]]
            top = sorted(ranked, key=lambda row: -row["full_fitness"])[:BEST_OF_A_RUN]
        for row in top:
            what = "pick" if row.get("pick") else f"candidate {row['index']}"
            found.append(ModelChoice(row["recipe_hash"], f"{what} of run {view.id}: {row['recipe_hash']}", "candidate"))
    return found


def _path(bench: Workbench, pair: Pair, key: str) -> str:
    if key.startswith(EXPORT):
        rows = {row["id"]: row["folder"] for row in bench.store.exports_of_pair(pair.key)}
    else:
        rows = bench.store.notes("folder", pair.key)
    path = rows.get(key.partition(":")[2])
    if path is None:
        raise LabError(f"no model {key!r} of these parents is known; add its folder, or choose one of the list")
    return str(path)


def _opened(bench: Workbench, path: str) -> Checkpoint:
    """The checkpoint in a folder, opened again only when its files have changed."""
    stamp = _stamp(path)
    known: tuple[str, Checkpoint] | None = bench.loaded.get(("folder", path))
    if known is None or known[0] != stamp:
        bench.loaded["folder", path] = known = stamp, open_checkpoint(path)
    return known[1]


def _of_checkpoint(bench: Workbench, pair: Pair, key: str, checkpoint: Checkpoint) -> Target:
    place, stamp = str(checkpoint.folder.resolve()), _stamp(checkpoint.folder)
    read = bench.store.notes("fingerprint", place).get(stamp)

    def load() -> "Resident":
        from darwin_lab.engine.streamed import load_model, weigh

        return load_model(checkpoint, weigh(checkpoint, bench.memory(pair).way, bench.device), bench.device)

    def learn(tick: Tick) -> str:
        fingerprint = checkpoint.read_through(tick)
        bench.store.put_note("fingerprint", place, stamp, fingerprint)
        return f"f-{fingerprint}"

    return Target(key, checkpoint.name, f"f-{read}" if read else None, load, learn)


def _stamp(folder: str | Path) -> str:
    """Changes when a file of the folder does; empty when it is not there."""
    path = Path(folder)
    files = sorted(path.iterdir()) if path.is_dir() else []
    told = [(file.name, stat.st_size, stat.st_mtime_ns) for file in files for stat in [file.stat()]]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16] if told else ""
