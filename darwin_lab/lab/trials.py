"""Trials of the lab's own advice as lab work: whether the prescription helps, and what the gradients predict.

A desk of the lab: `request_...` queues, a noun reads. Answers and measurements stay in the store, so a trial or a
gradient view that was cancelled or killed goes on where it stopped. Knows no widget.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from darwin_lab.errors import LabError
from darwin_lab.lab import recipes, scanning, scoring
from darwin_lab.lab.memory import FLOAT32
from darwin_lab.lab.pairs import Pair
from darwin_lab.lab.workbench import Workbench
from darwin_lab.merging.prescription import MODES, Prescription
from darwin_lab.merging.recipe import Recipe
from darwin_lab.progress import Tick, part
from darwin_lab.scoring.score import Score
from darwin_lab.sizes import bytes_words

if TYPE_CHECKING:
    from darwin_lab.engine.child import Child
    from darwin_lab.evolution.trial import Trial
    from darwin_lab.genome.genome import Genome
    from darwin_lab.mri.gradient import Gradients, PathRow

_SCAN_SHARE = 0.25
_VIEW_SHARE = 0.15
_HELD_TIMES = 3


class Trials:
    """Methods follow the rules of `Lab`: any thread, at once, LabError on bad input."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    def request_trial(self, pair: Pair, draws: int = 10, seed: int = 0) -> str:
        """Queue the trial of the contrastive prescription over `draws` probe draws; see `evolution.trial`.

        Makes whatever is missing of the MRI first. Scores on report items, which counts one look, unless the trial
        comes out as it did before. LabError for a pair without items or that cannot be merged.
        """
        if draws < 2:
            raise LabError(f"{draws} probe draws show no spread; ask for two or more")
        pair.require_mergeable()
        for split in ("selection", "report"):
            pair.items(split)

        dtype = self._bench.dtype(pair)

        def work(tick: Tick) -> dict[str, Any]:
            self._between(pair, 0.5).require_sound()
            scanning.ensure(self._bench, pair, part(tick, 0.0, _SCAN_SHARE), dtype)
            trial = self._run(pair, draws, seed, dtype, part(tick, _SCAN_SHARE, 1.0))
            name = f"trial-{draws}-{seed}" + ("" if dtype == FLOAT32 else f"-{dtype}")
            if self._kept(pair, name) != trial:
                self._bench.store.put_report(pair.key, name, trial.to_json())
            self._bench.store.put_note("trial", pair.key, "newest", name)
            return {"sentence": trial.sentence}

        key = f"trial:{pair.key}:{draws}:{seed}:{dtype}"
        return self._bench.jobs.submit("trial", "Trial of the prescription", work, key=key)

    def trial(self, pair: Pair) -> "Trial | None":
        """The newest finished trial of this pair, or None."""
        name = self._bench.store.notes("trial", pair.key).get("newest")
        return self._kept(pair, name) if name else None

    def request_gradients(self, pair: Pair, child: "Genome | str") -> str:
        """Queue the gradient view of a genome, or of the genome of a recipe hash; see `mri.gradient`. Jumps the queue.

        The first of a pair also takes the integral from father to mother. LabError for father, mother and blend,
        which no genome made, and for a model that does not fit into memory three times.
        """
        genome, recipe = self._genome(pair, child)
        self._require_room(pair)

        def work(tick: Tick) -> dict[str, Any]:
            from darwin_lab.mri.gradient import gene_effects, path_integral

            store, where = self._bench.store, _view_scope(pair, recipe, genome)
            path_there = "path" in store.notes("gradients", pair.key)
            self._bench.prepare(pair, pair.father, 1)
            if "view" not in store.notes("gradients", where):
                made = self._bench.child(pair, recipe)
                resident = self._bench.resident(pair, made)
                advice = recipes.advice(self._bench, pair, genome.prescription) if genome.reads_advice else None
                share = part(tick, 0.0, 1.0 if path_there else _VIEW_SHARE)
                view = gene_effects(resident, made, pair.probes, genome, pair.anatomy, advice, share)
                store.put_note("gradients", where, "view", view.to_json())
            if not path_there:
                resident = self._bench.resident(pair, pair.father)
                rows = path_integral(
                    resident, lambda ratio: self._between(pair, ratio), pair.probes, part(tick, _VIEW_SHARE, 1.0)
                )
                store.put_note("gradients", pair.key, "path", [asdict(row) for row in rows])
            return {"recipe_hash": recipe.hash}

        key = f"gradients:{_view_scope(pair, recipe, genome)}"
        return self._bench.jobs.submit(
            "gradients", f"Gradients of child {recipe.hash}", work, key=key, interactive=True
        )

    def gradients(self, pair: Pair, child: "Genome | str") -> "Gradients | None":
        """The gradient view of a genome, or of the genome of a recipe hash; None until it was made."""
        from darwin_lab.mri.gradient import Gradients

        genome, recipe = self._genome(pair, child)
        found = self._bench.store.notes("gradients", _view_scope(pair, recipe, genome)).get("view")
        return None if found is None else Gradients.from_json(found)

    def path(self, pair: Pair) -> "tuple[PathRow, ...] | None":
        """The integral from father to mother of every probe; None until it was taken."""
        from darwin_lab.mri.gradient import PathRow

        rows = self._bench.store.notes("gradients", pair.key).get("path")
        return None if rows is None else tuple(PathRow(**row) for row in rows)

    def _genome(self, pair: Pair, child: "Genome | str") -> "tuple[Genome, Recipe]":
        genome = recipes.genome_of(self._bench, pair, child) if isinstance(child, str) else child
        if genome is None:
            raise LabError(f"no genome made {child}, so there are no genes to predict for; choose a genome")
        return genome, recipes.resolve(self._bench, pair, child)

    def _require_room(self, pair: Pair) -> None:
        held = self._bench.memory(pair)
        needed = _HELD_TIMES * held.needed
        if held.streamed or (held.way == "auto" and needed > held.free):
            raise LabError(
                "the gradient view needs the whole model in memory three times (weights, gradients, mother minus "
                f"father), about {bytes_words(needed)}, and {bytes_words(held.free)} are free; use smaller parents, or "
                "choose never to stream this pair"
            )

    def _between(self, pair: Pair, ratio: float) -> "Child":
        return self._bench.child(pair, pair.uniform(ratio))

    def _kept(self, pair: Pair, name: str) -> "Trial | None":
        from darwin_lab.evolution.trial import Trial

        found = self._bench.store.report(pair.key, name)
        return None if found is None else Trial.from_json(found)

    def _run(self, pair: Pair, draws: int, seed: int, dtype: str, tick: Tick) -> "Trial":
        from darwin_lab.evolution.trial import probe_draws, run_trial

        father, mother = (scanning.newest(self._bench, pair, who, dtype) for who in ("father", "mother"))
        swaps = scanning.contrast(self._bench, pair, dtype)
        if father is None or mother is None or swaps is None:
            raise LabError("the scans of this pair are gone; scan it again")
        tick(0.0, "drawing probe texts")
        advised = probe_draws(father, mother, swaps, pair.anatomy, scanning.static(self._bench, pair), draws, seed)

        def score(made: Sequence[Recipe], split: str, ids: Sequence[str] | None, share: Tick) -> list[Score]:
            return scoring.score_recipes(self._bench, pair, made, split, ids, share)

        trial = run_trial(
            advised,
            pair.anatomy,
            {probe: len(lengths) for probe, lengths in swaps.lengths.items()},
            score,
            pair.uniform,
            seed=seed,
            vocabulary=pair.vocabulary,
            expert_order=pair.expert_order,
            published=self._published(pair, dtype),
            tick=tick,
        )
        return replace(trial, dtype=dtype)

    def _published(self, pair: Pair, dtype: str) -> dict[str, Prescription]:
        """What the published formulas advise, as far as these scans hold what they need."""
        found = {}
        for mode in MODES[1:]:
            with suppress(LabError):
                found[mode] = scanning.prescription(self._bench, pair, mode, dtype)
        return {mode: advice for mode, advice in found.items() if advice is not None}


def _view_scope(pair: Pair, recipe: Recipe, genome: "Genome") -> str:
    return f"{pair.key}:{recipe.hash}:{genome.hash}"
