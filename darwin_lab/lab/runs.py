"""Evolutions as lab work: started, stopped, resumed, and recorded in the store while they happen.

Everything an evolution decides is in `evolution/`; here it gets models to score with, a place to write to, and a
start from the prescription.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from darwin_lab.errors import Cancelled, LabError
from darwin_lab.evolution.evolve import evolve
from darwin_lab.evolution.problem import Problem, Start
from darwin_lab.evolution.settings import EvolutionSettings, settings_from_json
from darwin_lab.genome.genome import Genome, genome_from_json, neutral_genome
from darwin_lab.genome.layouts import Layout, layout_for
from darwin_lab.lab import recipes, scanning, scoring
from darwin_lab.lab.journal import StoreJournal
from darwin_lab.lab.pairs import Pair
from darwin_lab.lab.views import RunView
from darwin_lab.lab.workbench import Workbench
from darwin_lab.merging.operators import NEEDS_ANCESTOR
from darwin_lab.merging.prescription import V5_TRANSPLANT, Prescription
from darwin_lab.merging.recipe import Recipe, check_options, inert_genes
from darwin_lab.progress import Tick, part
from darwin_lab.scoring.score import Score

_SCAN_SHARE = 0.25


def start(bench: Workbench, pair: Pair, settings: EvolutionSettings) -> str:
    """Check, record and queue a run; see `Lab.start_evolution`."""
    pair.require_mergeable()
    if any(item.choices is None for item in pair.items("selection")):
        raise LabError("evolution needs items with choices; leave generated items out of the selection split")
    layout = layout_for(settings.layout, pair.anatomy.layers, settings.blocks)
    base = neutral_genome(layout.name, pair.anatomy.layers, blocks=settings.blocks, **settings.choices())
    genome_from_json(base.to_json(), pair.anatomy.layers)
    check_options(base.operator, base.options)
    unknown = [name for name in (*settings.frozen, *(settings.start_genes or {})) if name not in layout.names]
    if unknown:
        layout.gene(unknown[0])
    inert = inert_genes(base, pair.anatomy, has_prescription=True, has_ancestor=pair.ancestor is not None)
    free = [name for name in layout.names if name not in inert and name not in settings.frozen]
    if len(free) < 2:
        raise LabError(
            f"{settings.operator} leaves {len(free)} genes of layout {layout.name} to search, two are needed; choose "
            "another operator, another layout, or lock fewer genes"
        )
    operators = ("dare_ties",) if settings.operator == "mix" else (settings.operator,)
    if pair.ancestor is None and any(NEEDS_ANCESTOR.get(name, False) for name in operators):
        raise LabError(
            f"{settings.operator} needs a common ancestor; open the pair with one, or use dare, lerp or slerp"
        )
    if "placebo" in settings.controls and not _uses_advice(layout, settings):
        raise LabError("the placebo control permutes the prescription; choose start 'mri' or leave it out")
    settings = replace(settings, dtype=bench.dtype(pair))
    title = f"{pair.father.name} x {pair.mother.name}, {settings.layout}, seed {settings.seed}"
    run_id = bench.store.create_run(pair.key, settings.to_json(), title)
    bench.store.update_run(run_id, threads=bench.threads(pair))
    _queue(bench, pair, run_id, settings, title)
    return run_id


def stop(bench: Workbench, run_id: str) -> None:
    """Stop a run; see `Lab.stop`."""
    row = bench.store.run_row(run_id)
    if row["state"] in ("queued", "running"):
        bench.jobs.cancel(row["job_id"])
        if row["state"] == "queued" and bench.jobs.status(row["job_id"]).state == "cancelled":
            bench.store.update_run(run_id, state="stopped")


def resume(bench: Workbench, run_id: str) -> str:
    """Continue a run; see `Lab.resume`."""
    row = bench.store.run_row(run_id)
    if row["state"] in ("queued", "running"):
        raise LabError("that run is under way already; stop it before resuming it")
    if row["state"] == "finished":
        raise LabError("that run is finished; start a new one with a larger budget or from its best genome")
    pair = bench.pair(row["pair_key"])
    bench.store.update_run(run_id, state="queued", error=None, owner=bench.store.owner.id)
    return _queue(bench, pair, run_id, settings_from_json(row["settings"]), row["title"])


def view(bench: Workbench, run_id: str) -> RunView:
    """Everything recorded of a run."""
    row = bench.store.run_row(run_id)
    candidates = bench.store.candidates(run_id)
    complete = [entry["full_fitness"] for entry in candidates if entry["full"]]
    row |= {"evaluated": len(candidates), "best": max(complete, default=None)}
    return replace(_light(bench, row), candidates=candidates, generations=bench.store.generations(run_id))


def views(bench: Workbench, pair_key: str | None) -> list[RunView]:
    """All runs without their candidates."""
    return [_light(bench, row) for row in bench.store.run_rows(pair_key)]


def advised_genome(
    bench: Workbench, pair: Pair, layout_name: str, advice: Prescription | None, options: dict[str, Any]
) -> Genome:
    """The genome a prescription translates to; see `Lab.advised_genome`."""
    if advice is not None and advice.mode == "card_v5" and layout_name == "v6":
        options = {"transplant": V5_TRANSPLANT, **options}
    genome = neutral_genome(layout_name, pair.anatomy.layers, **options)
    if advice is None:
        return genome
    genes, _ = _advised(bench, pair, genome.layout_of(pair.anatomy.layers), advice, bench.dtype(pair))
    return replace(genome.with_genes(**genes), prescription=advice.hash)


# ---------------------------------------------------------------------------------------------------- the work


def _queue(bench: Workbench, pair: Pair, run_id: str, settings: EvolutionSettings, title: str) -> str:
    def work(tick: Tick) -> dict[str, Any]:
        try:
            bench.store.update_run(run_id, state="running")
            result = _run(bench, pair, run_id, settings, tick)
        except Cancelled:
            bench.store.update_run(run_id, state="stopped")
            raise
        except LabError as error:
            bench.store.update_run(run_id, state="failed", error=str(error))
            raise
        except BaseException:
            bench.store.update_run(run_id, state="failed", error="internal error; the log has the details")
            raise
        bench.store.update_run(run_id, state="finished", result=result)
        return {"run_id": run_id, "pick": result["pick"]["recipe_hash"]}

    job_id = bench.jobs.submit("evolution", f"Evolution: {title}", work, key=f"run:{run_id}")
    bench.store.update_run(run_id, job_id=job_id)
    return job_id


def _run(bench: Workbench, pair: Pair, run_id: str, settings: EvolutionSettings, tick: Tick) -> dict[str, Any]:
    bench.child(pair, recipes.recipe_of(bench, pair, "blend")).require_sound()  # a control of every run
    journal = StoreJournal(bench.store, run_id, pair.key)
    row = bench.store.run_row(run_id)
    layout = layout_for(settings.layout, pair.anatomy.layers, settings.blocks)
    advice = None
    if row["prescription"]:
        advice = recipes.find(bench, pair, row["prescription"])
    elif _uses_advice(layout, settings):
        journal.phase("scan")
        scanned, by_paper = part(tick, 0.0, _SCAN_SHARE), settings.prescription == "paper"
        scanning.ensure(bench, pair, scanned, settings.dtype, centroids=by_paper)
        tick = part(tick, _SCAN_SHARE, 1.0)
        advice = scanning.prescription(bench, pair, settings.prescription, settings.dtype)
        if advice is not None:
            recipes.keep(bench, advice)
            bench.store.update_run(run_id, prescription=advice.hash)
    with bench.using(row["threads"]):
        problem = _problem(bench, pair, settings, layout, advice, row["start"])
        bench.store.update_run(run_id, start=problem.start.to_json())
        return evolve(problem, settings, journal, tick).to_json()


def _problem(
    bench: Workbench,
    pair: Pair,
    settings: EvolutionSettings,
    layout: Layout,
    advice: Prescription | None,
    begun: Mapping[str, Any] | None,
) -> Problem:
    base = neutral_genome(
        layout.name, pair.anatomy.layers, blocks=settings.blocks, **settings.choices(),
        prescription=advice.hash if advice else None,
    )  # fmt: skip

    def genome_of(genes: Mapping[str, float]) -> Genome:
        return base.with_genes(**genes)

    def recipe_of(genome: Genome) -> Recipe:
        return recipes.recipe(bench, pair, genome, advice)

    def score(made: Sequence[Recipe], split: str, ids: Sequence[str] | None, tick: Tick) -> list[Score]:
        return scoring.score_recipes(bench, pair, made, split, ids, tick)

    return Problem(
        score=score,
        genome_of=genome_of,
        recipe_of=recipe_of,
        layout=layout,
        start=Start(**begun) if begun else _start(bench, pair, settings, layout, advice),
        items=pair.ids,
        controls={who: recipes.recipe_of(bench, pair, who) for who in scoring.BESIDE},
        at_once=bench.lanes(pair),
        lerp=pair.uniform,
        placebo=_placebo(bench, pair, settings, layout, advice) if "placebo" in settings.controls else None,
    )


def _placebo(
    bench: Workbench,
    pair: Pair,
    settings: EvolutionSettings,
    layout: Layout,
    advice: Prescription | None,
) -> Problem | None:
    from darwin_lab.mri.prescribe import shuffled

    if advice is None:
        return None
    placebo = shuffled(advice, pair.anatomy, settings.seed)
    return _problem(bench, pair, replace(settings, controls=()), layout, placebo, None)


def _uses_advice(layout: Layout, settings: EvolutionSettings) -> bool:
    """Whether a run reads the prescription: it starts from it, or from a genome that trusts it."""
    if settings.start == "mri" or settings.experts != "blend":
        return True
    trust = (settings.start_genes or {}).get("mri_trust", layout.neutral().get("mri_trust", 0.0))
    return settings.start == "genome" and trust > 0


def _start(
    bench: Workbench, pair: Pair, settings: EvolutionSettings, layout: Layout, advice: Prescription | None
) -> Start:
    genes = layout.neutral()
    stds: dict[str, float] = {}
    if settings.start == "mri" and advice is not None:
        genes, stds = _advised(bench, pair, layout, advice, settings.dtype)
    elif settings.start == "random":
        rng = np.random.default_rng([settings.seed, 2])
        genes = {gene.name: round(float(rng.uniform(gene.low, gene.high)), 6) for gene in layout.genes}
    elif settings.start == "genome":
        genes = {**genes, **(settings.start_genes or {})}
    base = neutral_genome(layout.name, pair.anatomy.layers, blocks=settings.blocks, **settings.choices())
    inert = inert_genes(base, pair.anatomy, has_prescription=advice is not None, has_ancestor=pair.ancestor is not None)
    neutral = layout.neutral()
    genes |= {name: neutral[name] for name in inert}
    frozen = {name: f"does nothing with operator {settings.operator}" for name in layout.names if name in inert}
    if "mri_trust" in frozen:
        frozen["mri_trust"] = "there is no prescription to trust"
    return Start(genes, stds, {**frozen, **dict.fromkeys(settings.frozen, "frozen by the settings")})


def _advised(
    bench: Workbench, pair: Pair, layout: Layout, advice: Prescription, dtype: str
) -> tuple[dict[str, float], dict[str, float]]:
    from darwin_lab.mri.prescribe import prescription_genes

    mother = scanning.newest(bench, pair, "mother", dtype)
    if mother is None:
        raise LabError("the scan of the mother is missing; scan the parents again")
    return prescription_genes(advice, layout, pair.anatomy, mother)


def _light(bench: Workbench, row: dict[str, Any]) -> RunView:
    job = bench.jobs.status(row["job_id"]) if row["job_id"] else None
    finished = row["state"] == "finished"
    return RunView(
        id=row["id"],
        pair_key=row["pair_key"],
        state=row["state"],
        phase=row["phase"],
        settings=settings_from_json(row["settings"]),
        controls=row["controls"] or {},
        result=row["result"],
        start=row["start"],
        fraction=1.0 if finished else job.fraction if job else 0.0,
        eta_seconds=job.eta_seconds if job and row["state"] == "running" else None,
        message=job.message if job and job.open else "",
        error=row["error"],
        job_id=row["job_id"],
        title=row["title"],
        threads=row["threads"],
        evaluated=row["evaluated"],
        best=row["best"],
        created=row["created"],
        updated=row["updated"],
    )
