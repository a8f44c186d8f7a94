"""Scans of models that do not fit in memory, as lab work: one sweep over all probes, kept as it goes.

Takes a pair, a source and the probes still to read; hands over partial scans as probes get done. What a stopped or
killed scan had measured lies in the store's `sweeps` folder, and the same scan goes on there.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darwin_lab.lab.memory import in_torch
from darwin_lab.lab.pairs import Pair
from darwin_lab.lab.scan_places import sweep_folder
from darwin_lab.lab.workbench import Workbench
from darwin_lab.progress import Tick

if TYPE_CHECKING:
    from darwin_lab.engine.resident import Resident
    from darwin_lab.engine.source import Source
    from darwin_lab.mri.scan import Scan

FORGOTTEN_AFTER = 14 * 86400.0
"""Seconds after which a stopped scan that nobody took up makes room."""
KEEP_EVERY: float | None = None
"""Seconds between two keepings of a scan under way, at least; None as the keeper has it."""


def streamed_scan(
    bench: Workbench,
    pair: Pair,
    source: "Source",
    todo: Sequence[str],
    place: str,
    tick: Tick,
    on_probe: "Callable[[Scan], None]",
    *,
    dtype: str,
    halves: bool,
) -> None:
    """Scan `source` on the probes `todo` in `dtype`, a layer at a time, and take up what an equal scan left.

    Interactive jobs are let in between layers. Raises as `scan_model` does.
    """
    from dataclasses import replace

    from darwin_lab.mri.keeper import Keeper
    from darwin_lab.mri.scan import room_for, scan_model, scan_settings

    folder = sweep_folder(bench, pair, source.fingerprint, dtype)
    resident = bench.resident(pair, source, place, dtype=dtype)
    settings = scan_settings(dtype=in_torch(dtype))
    basis: dict[str, Any] = {
        "fingerprint": source.fingerprint, "probes": pair.probes.hash, "settings": settings, "halves": halves,
    }  # fmt: skip
    texts = {name: pair.probes.texts[name] for name in todo}
    names, room = _taken_up(folder, basis, todo, resident) or (list(todo), room_for(resident, texts, halves=halves))
    key = {**basis, "todo": names, "room": room}
    resident.state_bytes = room
    _forget_old(folder)
    keeper = Keeper(folder, key, KEEP_EVERY)
    try:
        scan_model(
            resident,
            source,
            pair.probes.only(*names),
            bench.letting_in(tick),
            lambda scan: on_probe(replace(scan, probes_hash=pair.probes.hash)),
            keeper=keeper,
            halves=halves,
        )
    finally:
        bench.release_all(ending=place)
    keeper.remove()


def _taken_up(
    folder: Path, basis: dict[str, Any], todo: Sequence[str], resident: "Resident"
) -> tuple[list[str], int] | None:
    """The probes and the room of an equal scan that can be gone on with; None when there is none.

    A sweep goes on with the room it had for states, because that decides which texts are read together.
    """
    from darwin_lab.mri.keeper import kept_key

    key = kept_key(folder) or {}
    names, room = key.pop("todo", []), key.pop("room", 0)
    fits = key == basis and set(todo) <= set(names) and room <= resident.state_bytes
    return (names, room) if fits else None


def _forget_old(folder: Path) -> None:
    """Remove what scans left that were stopped long ago."""
    if folder.parent.is_dir():
        for other in folder.parent.iterdir():
            if other != folder and time.time() - other.stat().st_mtime > FORGOTTEN_AFTER:
                shutil.rmtree(other, ignore_errors=True)
