"""The care of a child as lab work: mending what the health check flags, and checking models that lie in a folder.

A desk of the lab: `request_...` queues, a noun reads. What was found is kept by the child's fingerprint and the
probes. Knows no widget; what health and mending are is the MRI's business.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.checkpoint.compare import require_compatible
from darwin_lab.checkpoint.opening import is_hub_id, open_checkpoint
from darwin_lab.errors import LabError
from darwin_lab.genome.genome import Genome
from darwin_lab.lab import recipes, scanning
from darwin_lab.lab.memory import FLOAT32
from darwin_lab.lab.pairs import Pair, lasting_ref
from darwin_lab.lab.store import kept_json
from darwin_lab.lab.workbench import Workbench
from darwin_lab.progress import Tick, part

if TYPE_CHECKING:
    from darwin_lab.engine.child import Child
    from darwin_lab.mri.health_record import Health
    from darwin_lab.mri.mending import Mending, NllChange

_CHECK, _MEND = 0.3, 0.7


@dataclass(frozen=True)
class Checked:
    """A model from a folder or the Hub that was checked as a child of a pair; `ref` opens it, `name` is for people."""

    ref: str
    name: str
    fingerprint: str


class Care:
    """Methods follow the rules of `Lab`: any thread, at once, LabError on bad input."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    # ------------------------------------------------------------------------------------------------ mending

    def request_mending(self, pair: Pair, child: Genome | str, **thresholds: float) -> str:
        """Queue the mending of a child (a genome or a recipe hash): it is checked, every flagged layer is moved just so
        far that its flag clears, and the new child is checked again. Jumps the queue.

        `thresholds` as in `check_health`. The job fails with LabError where no layer is flagged.
        """
        recipe = recipes.resolve(self._bench, pair, child)
        genome = recipes.genome_of(self._bench, pair, recipe.hash)
        if genome is None:
            raise LabError("father, mother and the plain blend have no genome to mend; load the preset Plain blend")

        dtype = self._bench.dtype(pair)

        def work(tick: Tick) -> dict[str, Any]:
            return self._mend(pair, genome, recipe.hash, thresholds, dtype, tick)

        key = f"mend:{pair.key}:{recipe.hash}:{dtype}"
        return self._bench.jobs.submit("mend", f"Mending of child {recipe.hash}", work, key=key, interactive=True)

    def mending(self, pair: Pair, recipe_hash: str) -> "Mending | None":
        """The newest mending of a child with both checks beside each other, or None."""
        from darwin_lab.mri.mending import Mending, mends_from_json, nll_changes

        dtype = self._bench.dtype(pair)
        row = self._bench.store.recipe_row(pair.key, recipe_hash)
        kept = _whole(kept_json(self._file(pair, row["fingerprint"], dtype))) if row else None
        if row is None or kept is None:
            return None
        before = scanning.health_of(self._bench, pair, row["fingerprint"], kept["thresholds"], dtype)
        mended = self._bench.store.recipe_row(pair.key, kept["mended"]) if kept["mended"] else None
        after: Health | None = None
        changes: tuple[NllChange, ...] = ()
        if mended is not None:
            after = scanning.health_of(self._bench, pair, mended["fingerprint"], kept["thresholds"], dtype)
            scans = [scanning.whole(self._bench, pair, one["fingerprint"], dtype) for one in (row, mended)]
            if scans[0] is not None and scans[1] is not None:
                changes = nll_changes(scans[0], scans[1])
        if before is None or (kept["mended"] and after is None):
            return None
        layers = mends_from_json(kept["layers"])
        return Mending(recipe_hash, kept["mended"], kept["genome"], layers, before, after, changes)

    def _mend(
        self, pair: Pair, genome: Genome, recipe_hash: str, thresholds: Mapping[str, float], dtype: str, tick: Tick
    ) -> dict[str, Any]:
        from darwin_lab.mri.mending import mend, mends_to_json

        bench = self._bench
        advice = recipes.advice(bench, pair, genome.prescription) if genome.reads_advice else None

        def pinned(shares: Mapping[int, float]) -> "Child":
            moved = replace(genome, pinned={**genome.pinned, **shares})
            return bench.child(pair, pair.recipe(moved, advice))

        child = pinned({})
        scanning.beside_parents(bench, pair, child, part(tick, 0.0, _CHECK), f"child {recipe_hash}", dtype)
        health = scanning.health_of(bench, pair, child.fingerprint, thresholds, dtype)
        parents = [scanning.whole(bench, pair, print_, dtype) for print_ in scanning.parents_prints(bench, pair)]
        if health is None or parents[0] is None or parents[1] is None:
            raise LabError("the scans of this child and its parents are gone; check its health again")
        if not health.advice:
            raise LabError("no layer of this child is flagged; there is nothing to mend")
        ratios = {layer: share for layer, share in enumerate(child.recipe.layer_ratios()) if share is not None}
        layers = mend(
            bench.resident(pair, child, dtype=dtype), pinned, ratios, health.advice, pair.probes,
            (parents[0], parents[1]), health.thresholds, part(tick, _CHECK, _MEND),
        )  # fmt: skip
        pins = {one.layer: one.after for one in layers if one.after is not None}
        new = recipes.recipe(bench, pair, replace(genome, pinned={**genome.pinned, **pins})) if pins else None
        if new is not None:
            scanning.beside_parents(
                bench, pair, bench.child(pair, new), part(tick, _MEND, 1.0), f"mended child {new.hash}", dtype
            )
        found = {
            "mended": new.hash if new else None,
            "genome": replace(genome, pinned={**genome.pinned, **pins}).to_json() if new else None,
            "thresholds": dict(thresholds),
            "layers": mends_to_json(layers),
        }
        self._bench.store.keep_text(self._file(pair, child.fingerprint, dtype), json.dumps(found))
        return {"recipe_hash": recipe_hash, "mended": found["mended"]}

    # ------------------------------------------------------------------------------------------------ other models

    def request_check(self, pair: Pair, ref: str | Path) -> str:
        """Queue the health check of a model in a folder (or on the Hub) as a child of this pair. Jumps the queue.

        LabError at once for a folder that cannot be opened or is not built like the father; a Hub id is fetched by the
        job, which fails with the same words.
        """
        kept_ref = lasting_ref(ref)
        if not is_hub_id(ref):
            self._opened(pair, ref)

        dtype = self._bench.dtype(pair)

        def work(tick: Tick) -> dict[str, Any]:
            model = self._opened(pair, ref)
            fingerprint = model.read_through(part(tick, 0.0, 0.1))
            scanning.beside_parents(self._bench, pair, model, part(tick, 0.1, 1.0), model.name, dtype)
            note = {"name": model.name, "fingerprint": fingerprint}
            self._bench.store.put_note("checked", pair.key, kept_ref, note)
            return {"ref": kept_ref, **note}

        key = f"health:{pair.key}:{kept_ref}:{dtype}"
        return self._bench.jobs.submit("health", f"Health of {Path(ref).name}", work, key=key, interactive=True)

    def check(self, pair: Pair, ref: str | Path, **thresholds: float) -> "Health | None":
        """The newest check of that model; None until it was made. Thresholds as in `check_health`."""
        found = self._bench.store.notes("checked", pair.key).get(lasting_ref(ref))
        return None if found is None else scanning.health_of(self._bench, pair, found["fingerprint"], thresholds)

    def checked(self, pair: Pair) -> list[Checked]:
        """The models that were checked as children of this pair, newest first."""
        rows = self._bench.store.notes("checked", pair.key)
        return [Checked(ref, row["name"], row["fingerprint"]) for ref, row in reversed(rows.items())]

    def _opened(self, pair: Pair, ref: str | Path) -> Checkpoint:
        model = open_checkpoint(ref)
        require_compatible(pair.father, model, vocabulary=pair.vocabulary)
        return model

    # ------------------------------------------------------------------------------------------------ where it lies

    def _file(self, pair: Pair, fingerprint: str, dtype: str) -> Path:
        computed = [] if dtype == FLOAT32 else [dtype]
        return self._bench.store.folder("mendings", fingerprint, pair.probes.hash, *computed).with_suffix(".json")


def _whole(kept: dict[str, Any] | None) -> dict[str, Any] | None:
    """What was kept of a mending, where it holds all that one has."""
    return kept if kept is not None and {"mended", "genome", "thresholds", "layers"} <= set(kept) else None
