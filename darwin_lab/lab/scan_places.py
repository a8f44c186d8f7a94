"""Where each part of an MRI lies in the store: a folder named by what it depends on.

Takes pairs, gives folders and what can be read from them. A job names the dtype it was asked for; without one it is the
dtype now chosen for the parents. Measures nothing and writes nothing.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darwin_lab.errors import LabError
from darwin_lab.lab.memory import in_torch
from darwin_lab.lab.pairs import Pair
from darwin_lab.lab.workbench import Workbench
from darwin_lab.merging.recipe import uniform_recipe

if TYPE_CHECKING:
    from darwin_lab.engine.source import Source

_REPLACED_WITHIN = 0.02


def parent(pair: Pair, who: str) -> "Source":
    """The parent as it is read: with the father's tokens where the pair is matched by token."""
    if who == "mother" and pair.vocabulary != "same" and pair.compatible:
        return _with_his_tokens(pair)
    found = {"father": pair.father, "mother": pair.mother, "ancestor": pair.ancestor}[who]
    if found is None:
        raise LabError("this pair has no ancestor to scan")
    return found


@lru_cache(maxsize=8)
def _with_his_tokens(pair: Pair) -> "Source":
    """The mother under the father's tokenizer: the child that is all hers but for tokens she does not have.

    Her experts keep their own numbers, as in every scan of hers.
    """
    from darwin_lab.engine.child import Child

    all_hers = uniform_recipe(pair.anatomy, 1.0, vocabulary=pair.vocabulary)
    return Child(pair.father, pair.mother, all_hers, pair.ancestor, name=pair.mother.name)


def fingerprint_of(bench: Workbench, pair: Pair, who: str) -> str | None:
    """The fingerprint of "father", "mother", "ancestor" or of the child with a known recipe hash."""
    if who in ("father", "mother"):
        return parent(pair, who).fingerprint
    if who == "ancestor":
        return pair.ancestor.fingerprint if pair.ancestor else None
    row = bench.store.recipe_row(pair.key, who)
    return row["fingerprint"] if row else None


def _basis(pair: Pair, settings: Mapping[str, Any]) -> tuple[str, str]:
    """What a measurement depends on beside the weights: the probes and the settings."""
    return pair.probes.hash, hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def scan_folder(bench: Workbench, pair: Pair, fingerprint: str, dtype: str | None = None) -> Path:
    """The folder of the scan of the model with this fingerprint, whole or partial."""
    from darwin_lab.mri.scan import scan_settings

    settings = scan_settings(dtype=in_torch(dtype or bench.dtype(pair)))
    return bench.store.folder("scans", fingerprint, *_basis(pair, settings))


def sweep_folder(bench: Workbench, pair: Pair, fingerprint: str, dtype: str | None = None) -> Path:
    """Where a streamed scan under way keeps itself."""
    from darwin_lab.mri.scan import scan_settings

    settings = scan_settings(dtype=in_torch(dtype or bench.dtype(pair)))
    return bench.store.folder("sweeps", fingerprint, *_basis(pair, settings))


def contrast_folder(bench: Workbench, pair: Pair, dtype: str | None = None) -> Path:
    """The folder of the contrast of the parents."""
    from darwin_lab.mri.contrast import contrast_settings

    parents = pair.father.fingerprint, parent(pair, "mother").fingerprint
    settings = contrast_settings(dtype=in_torch(dtype or bench.dtype(pair)))
    return bench.store.folder("contrasts", *parents, *_basis(pair, settings))


def loops_file(bench: Workbench, pair: Pair, fingerprint: str, dtype: str | None = None) -> Path:
    """The file of how often the model with this fingerprint falls into a loop."""
    from darwin_lab.mri.loops import loop_settings

    settings = loop_settings(dtype or bench.dtype(pair))
    return bench.store.folder("loops", fingerprint, *_basis(pair, settings)).with_suffix(".json")


def static_file(bench: Workbench, pair: Pair) -> Path:
    """The file of the static profile of the parents; probes do not matter to it, which experts are compared does."""
    matched = ["matched"] if pair.expert_order else []
    parents = pair.father.fingerprint, pair.mother.fingerprint
    return bench.store.folder("profiles", *parents, *matched).with_suffix(".json")


def folders(bench: Workbench, pair: Pair, dtype: str) -> list[Path]:
    """Every folder of the pair's MRI in this dtype, and of scans of it under way."""
    prints = [parent(pair, who).fingerprint for who in ("father", "mother")]
    of_parents = [place(bench, pair, print_, dtype) for place in (scan_folder, sweep_folder) for print_ in prints]
    return [*of_parents, contrast_folder(bench, pair, dtype)]


def loaded(bench: Workbench, folder: Path, name: str, load: Callable[[Path], Any]) -> Any:
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
