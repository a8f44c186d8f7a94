"""What was inherited, as lab work: measured once a child, kept by its fingerprint, and languages when asked for.

An exported child is measured in its folder, any other virtually. Languages are read once a model: the readings of
parents serve all their children. Knows the store and the queue; compares nothing itself.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.checkpoint.vocabulary import vocabulary
from darwin_lab.errors import LabError
from darwin_lab.lab.pairs import Pair
from darwin_lab.lab.store import kept_json
from darwin_lab.lab.workbench import Workbench
from darwin_lab.merging.recipe import Recipe
from darwin_lab.mri.probes import load_probes
from darwin_lab.progress import Tick, part

if TYPE_CHECKING:
    from darwin_lab.engine.inherited import Inheritance
    from darwin_lab.engine.source import Source
    from darwin_lab.mri.languages import Languages, Reading

_CHECKING_SHARE = 0.1


def request(bench: Workbench, pair: Pair, recipe: Recipe, folder: Path | None) -> str:
    """Queue the measurement of what a child inherited, in its exported folder where there is one."""
    pair.require_mergeable()

    def work(tick: Tick) -> dict[str, Any]:
        found = measure(bench, pair, recipe, Checkpoint(folder) if folder else None, tick)
        return {"recipe_hash": recipe.hash, "exported": found.exported}

    key = f"inherit:{pair.key}:{recipe.hash}"
    return bench.jobs.submit("inherit", f"What child {recipe.hash} inherited", work, key=key, interactive=True)


def measure(bench: Workbench, pair: Pair, recipe: Recipe, folder: Checkpoint | None, tick: Tick) -> "Inheritance":
    """Measure a child, in its exported folder where one is given, and keep the result. Only for the worker."""
    from darwin_lab.engine.inheritance import what_was_inherited

    if folder is None:
        bench.child(pair, recipe).require_sound(part(tick, 0.0, _CHECKING_SHARE))
        tick = part(tick, _CHECKING_SHARE, 1.0)
    child = folder or bench.child(pair, recipe)
    found = what_was_inherited(child, pair.father, pair.mother, pair.ancestor, tick)
    bench.store.keep_text(_file(bench, pair, recipe), json.dumps(found.to_json()))
    return found


def stored(bench: Workbench, pair: Pair, recipe: Recipe) -> "Inheritance | None":
    """What was measured of a child, or None."""
    from darwin_lab.engine.inherited import Inheritance

    data = kept_json(_file(bench, pair, recipe))
    return None if data is None else Inheritance.from_json(data)


def request_languages(bench: Workbench, pair: Pair, recipe: Recipe) -> str:
    """Queue the reading of the languages; see `Lab.request_languages`."""
    from darwin_lab.mri.languages import LANGUAGE_PROBES, read_languages

    pair.require_mergeable()
    if vocabulary(pair.father) != vocabulary(pair.mother):
        raise LabError("father and mother cut texts into different tokens; languages need parents of one tokenizer")
    if bench.memory(pair).streamed:
        raise LabError(
            "languages are read by a model held whole, and these are streamed; free memory, or choose “Never stream” "
            "in the scan settings of the MRI tab"
        )
    probes = load_probes(LANGUAGE_PROBES)

    def work(tick: Tick) -> dict[str, Any]:
        sources: list[Source] = [bench.child(pair, recipe), pair.father, pair.mother]
        bench.prepare(pair, pair.father, 1)
        for place, source in enumerate(sources):
            share, path = part(tick, place / 3, (place + 1) / 3), _reading_file(bench, source.fingerprint, probes.hash)
            if kept_json(path) is None:
                reading = read_languages(bench.resident(pair, source), source, probes, share)
                bench.store.keep_text(path, json.dumps(reading.to_json()))
        return {"recipe_hash": recipe.hash}

    key = f"languages:{pair.key}:{recipe.hash}"
    return bench.jobs.submit("languages", f"Languages of child {recipe.hash}", work, key=key, interactive=True)


def languages(bench: Workbench, pair: Pair, recipe: Recipe) -> "Languages | None":
    """The child's languages beside its parents'; None until all three have been read."""
    from darwin_lab.mri.languages import LANGUAGE_PROBES, compare_languages

    probes = load_probes(LANGUAGE_PROBES)
    prints = bench.child(pair, recipe).fingerprint, pair.father.fingerprint, pair.mother.fingerprint
    readings = [_reading(bench, fingerprint, probes.hash) for fingerprint in prints]
    child, father, mother = readings
    if child is None or father is None or mother is None:
        return None
    return compare_languages(child, father, mother)


def _reading(bench: Workbench, fingerprint: str, probes_hash: str) -> "Reading | None":
    from darwin_lab.mri.languages import Reading

    data = kept_json(_reading_file(bench, fingerprint, probes_hash))
    return None if data is None else Reading.from_json(data)


def _file(bench: Workbench, pair: Pair, recipe: Recipe) -> Path:
    return bench.store.folder("inherited", bench.child(pair, recipe).fingerprint).with_suffix(".json")


def _reading_file(bench: Workbench, fingerprint: str, probes_hash: str) -> Path:
    return bench.store.folder("languages", fingerprint, probes_hash).with_suffix(".json")
