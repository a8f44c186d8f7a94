"""How often the models of a pair fall into a loop, as lab work: counted beside a scan for the health check, and kept.

Takes a pair and a source; gives what was counted. Lies in the store's `loops` folder by what it depends on. A streamed
model is left out: every token it writes would read all of it.
"""

import json
from typing import TYPE_CHECKING

from darwin_lab.errors import LabError
from darwin_lab.lab.pairs import Pair
from darwin_lab.lab.scan_places import loops_file
from darwin_lab.lab.store import kept_json
from darwin_lab.lab.workbench import Workbench
from darwin_lab.progress import Tick

if TYPE_CHECKING:
    from darwin_lab.engine.source import Source
    from darwin_lab.mri.loops import Loops

_WHO = ("child", "father", "mother")


def counted(bench: Workbench, pair: Pair, *fingerprints: str | None, dtype: str) -> "dict[str, Loops] | None":
    """What was counted of child, father and mother in `dtype`, named so; None unless all three were."""
    found = [None if one is None else _kept(bench, pair, one, dtype) for one in fingerprints]
    rows = {who: one for who, one in zip(_WHO, found, strict=True) if one is not None}
    return rows if len(rows) == len(_WHO) and len({len(one.looping) for one in rows.values()}) == 1 else None


def count(bench: Workbench, pair: Pair, source: "Source", tick: Tick, dtype: str) -> None:
    """Count the loops of `source` in `dtype`, unless that was done, or the models of this pair are streamed."""
    from darwin_lab.mri.writing import count_loops

    if bench.memory(pair, dtype=dtype).streamed or _kept(bench, pair, source.fingerprint, dtype) is not None:
        return
    found = count_loops(bench.resident(pair, source, dtype=dtype), source, pair.probes, tick)
    if found is not None:
        bench.store.keep_text(loops_file(bench, pair, source.fingerprint, dtype), json.dumps(found.to_json()))


def _kept(bench: Workbench, pair: Pair, fingerprint: str, dtype: str) -> "Loops | None":
    from darwin_lab.mri.loops import Loops

    try:
        return Loops.from_json(kept_json(loops_file(bench, pair, fingerprint, dtype)) or {})
    except LabError:
        return None
