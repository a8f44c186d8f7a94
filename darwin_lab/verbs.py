"""What each verb of the shell does, through the same rooms as the page.

Takes parsed arguments and a tick; gives a `Result`: an object for --json and a text for people.
Raises `LabError` for bad input. Target folders are checked before any long work.
"""

import argparse
import json
import time
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from darwin_lab.checkpoint.anatomy import read_anatomy
from darwin_lab.checkpoint.checkpoint import read_json
from darwin_lab.checkpoint.compare import require_compatible
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.child import Child
from darwin_lab.engine.export import check_target, export_child
from darwin_lab.engine.resident import Resident
from darwin_lab.errors import LabError
from darwin_lab.evolution.report import task_table
from darwin_lab.evolution.settings import EvolutionSettings, settings_from_json
from darwin_lab.genome.genome import Genome, genome_from_json
from darwin_lab.genome.presets import preset_genome
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import FAMILY_ITEMS, Pair, lasting_ref
from darwin_lab.lab.views import RunView
from darwin_lab.merging.operators import NEEDS_ANCESTOR
from darwin_lab.merging.prescription import Prescription
from darwin_lab.merging.recipe import Recipe, make_recipe, uniform_recipe
from darwin_lab.mri.health import check_health
from darwin_lab.mri.prescribe import golden_layers, prescribe
from darwin_lab.mri.probes import FAMILY_PROBES, GENERIC_PROBES, ProbeSet, load_probes
from darwin_lab.mri.record import Scan
from darwin_lab.mri.scan import scan_model
from darwin_lab.mri.static import static_profile
from darwin_lab.progress import Tick, part
from darwin_lab.scoring.evaluate import score_items
from darwin_lab.scoring.items import Item, load_items
from darwin_lab.scoring.score import Score

RUN_FILE = "run.json"


@dataclass(frozen=True)
class Result:
    """`data` is what --json prints, `text` what people read."""

    data: dict[str, Any]
    text: str


def scan(arguments: argparse.Namespace, tick: Tick) -> Result:
    """Scan one model and save the scan."""
    check_target(arguments.out, overwrite=False)
    probes = _probes(arguments.probes, arguments.model)
    source = open_checkpoint(arguments.model)
    made = scan_model(Resident.load(source), source, probes, tick)
    made.save(arguments.out)
    return Result({**made.to_json(), "out": str(arguments.out)}, _scan_text(made, arguments.out))


def merge(arguments: argparse.Namespace, tick: Tick) -> Result:
    """Write a child."""
    started = time.monotonic()
    check_target(arguments.out, overwrite=arguments.overwrite)
    father, mother = open_checkpoint(arguments.father), open_checkpoint(arguments.mother)
    ancestor = open_checkpoint(arguments.ancestor) if arguments.ancestor else None
    require_compatible(father, mother, ancestor)
    anatomy = read_anatomy(father)
    if arguments.scans is not None and arguments.ratio is not None:
        raise LabError("--scans does nothing beside --ratio; leave it out, or give a genome that trusts the MRI")
    notes: list[str] = []
    if arguments.ratio is not None:
        density = 1.0 if arguments.density is None else arguments.density
        recipe = uniform_recipe(anatomy, arguments.ratio, arguments.operator or "lerp", density, arguments.seed or 0)
    else:
        genome = _asked_genome(arguments, anatomy.layers, has_ancestor=ancestor is not None)
        if ancestor is None and NEEDS_ANCESTOR[genome.operator]:
            raise LabError(f"{genome.operator} needs a common ancestor; give --ancestor, or use dare, lerp or slerp")
        recipe, notes = _recipe(arguments, genome, part(tick, 0.0, 0.8))
    child = Child(father, mother, recipe, ancestor, name=arguments.out.name)
    export_child(child, arguments.out, overwrite=arguments.overwrite, dtype=arguments.dtype, tick=part(tick, 0.8, 1.0))
    merged = sum(row.action == "merge" for row in recipe.rows.values())
    data = {
        "out": str(arguments.out),
        "recipe": recipe.hash,
        "genome": recipe.genome_hash or None,
        "prescription": recipe.prescription_hash or None,
        "tensors": {"merged": merged, "copied": len(recipe.rows) - merged},
        "bytes": father.total_bytes,
        "seconds": round(time.monotonic() - started, 3),
        "notes": notes,
    }
    lines = [
        *notes,
        f"{arguments.out}: child {recipe.hash}, {merged} tensors merged, {len(recipe.rows) - merged} copied",
    ]
    return Result(data, "\n".join(lines))


def score(arguments: argparse.Namespace, tick: Tick) -> Result:
    """Score one model on items: by log-likelihood where they have options, by generation where not."""
    if not arguments.items and not arguments.model.startswith("family:"):
        raise LabError("no items; give --items FILE with one JSON object a line (the README has the format)")
    items = load_items(arguments.items or [FAMILY_ITEMS / "selection.jsonl"])
    if arguments.limit is not None:
        if arguments.limit < 1:
            raise LabError(f"--limit is {arguments.limit}; give 1 or more")
        items = _first_of_each_task(items, arguments.limit)
    if arguments.samples is not None and (
        arguments.samples.is_dir() or not arguments.samples.absolute().parent.is_dir()
    ):
        raise LabError(f"{arguments.samples} cannot be a file there; give a file name in a folder that exists")
    resident = Resident.load(open_checkpoint(arguments.model))
    result = score_items(resident, items, tick=tick)
    if arguments.samples is not None:
        rows = (json.dumps(row, ensure_ascii=False) + "\n" for row in result.to_rows())
        try:
            arguments.samples.write_text("".join(rows), encoding="utf-8")
        except OSError as error:
            arguments.samples.unlink(missing_ok=True)
            raise LabError(f"cannot write {arguments.samples}: {error.strerror}; choose another --samples") from None
    return Result({"model": arguments.model, "benchmarks": task_table(result)}, _score_text(result))


def evolve(arguments: argparse.Namespace, tick: Tick) -> Result:
    """Evolve a child, export the final pick to OUT/child, and leave the run's record in OUT/run.json."""
    lab = Lab()
    try:
        run_id, pair = _resumed(lab, arguments) if arguments.resume else _started(lab, arguments)
        job_id = lab.run(run_id).job_id
        try:
            lab.wait(str(job_id), part(tick, 0.0, 0.95))
        except BaseException:
            lab.jobs.close()
            raise
        finally:
            _write_run(arguments.out, lab.run(run_id), pair)
        run = lab.run(run_id)
        assert run.result is not None
        child = arguments.out / "child"
        pick = run.result["pick"]["recipe_hash"]
        lab.wait(lab.request_export(pair, pick, child, overwrite=True, archive=False), part(tick, 0.95, 1.0))
        data = {"run": run_id, "out": str(arguments.out), "child": str(child), "evaluated": run.evaluated, **run.result}
        return Result(data, _evolve_text(run, child))
    finally:
        lab.close()


def health(arguments: argparse.Namespace, tick: Tick) -> Result:
    """Scan child and parents on the same probes and compare."""
    probes = _probes(arguments.probes, arguments.father)
    sources = [open_checkpoint(ref) for ref in (arguments.child, arguments.father, arguments.mother)]
    require_compatible(sources[1], sources[0])
    require_compatible(sources[1], sources[2])
    resident = Resident.load(sources[0])
    scans = [
        scan_model(resident, source, probes, part(tick, index / 3, (index + 1) / 3))
        for index, source in enumerate(sources)
    ]
    child, father, mother = scans
    found = check_health(child, father, mother, golden=golden_layers(father, mother))
    rows = [f"{'probe':<12} {'child':>8} {'father':>8} {'mother':>8}   NLL, nats a token"]
    rows += [f"{row.probe:<12} {row.child:8.3f} {row.father:8.3f} {row.mother:8.3f}" for row in found.nll]
    return Result(found.to_json(), "\n".join([f"{found.verdict}: {found.sentence}", "", *rows]))


# ---------------------------------------------------------------------------------------------------- merge


def _asked_genome(arguments: argparse.Namespace, layers: int, *, has_ancestor: bool) -> Genome:
    """The genome of --genome or --preset; a flag that contradicts it is an error, not a silent choice."""
    if arguments.preset is not None:
        genome = preset_genome(arguments.preset, layers, has_ancestor=has_ancestor)
        genome = replace(genome, seed=genome.seed if arguments.seed is None else arguments.seed)
    else:
        if not arguments.genome.is_file():
            raise LabError(f"no genome file {arguments.genome}; save one from the Genome tab or write it by hand")
        try:
            genome = genome_from_json(read_json(arguments.genome), layers)
        except LabError as error:
            where = "" if str(arguments.genome) in str(error) else f"{arguments.genome}: "
            raise LabError(f"{where}{error}") from None
    for flag, asked, has in (
        ("operator", arguments.operator, genome.operator),
        ("seed", arguments.seed, genome.seed),
        ("density", arguments.density, genome.genes.get("density_b")),
    ):
        if asked is not None and asked != has:
            raise LabError(f"--{flag} {asked} contradicts the genome, which says {has}; change one of them")
    return genome


def _recipe(arguments: argparse.Namespace, genome: Genome, tick: Tick) -> tuple[Recipe, list[str]]:
    """The recipe of a genome; where it trusts the MRI, with the scans given or made."""
    trust = genome.genes.get("mri_trust", 0.0)
    if trust == 0.0:
        return make_recipe(genome, read_anatomy(open_checkpoint(arguments.father))), []
    if arguments.scans is not None:
        advice = _given_advice(arguments)
        note = f"mri_trust {trust:g}: card V6 advice from the scans given"
        return make_recipe(genome, read_anatomy(open_checkpoint(arguments.father)), advice), [note, advice.note]
    lab = Lab()
    try:
        pair = lab.open_pair(arguments.father, arguments.mother, arguments.ancestor)
        jobs = lab.request_scan(pair) if genome.prescription is None else []
        for index, job_id in enumerate(jobs):
            lab.wait(job_id, part(tick, index / len(jobs), (index + 1) / len(jobs)))
        advice_note = f"mri_trust {trust:g}: advice from {'new' if jobs else 'stored'} scans of both parents"
        return lab.recipe(pair, genome), [advice_note]
    finally:
        lab.close()


def _given_advice(arguments: argparse.Namespace) -> Prescription:
    """Card V6 advice from two saved scans; the contrastive one needs the parents side by side."""
    father, mother = open_checkpoint(arguments.father), open_checkpoint(arguments.mother)
    scan_a, scan_b = (Scan.load(folder) for folder in arguments.scans)
    for who, parent, made in (("father", father, scan_a), ("mother", mother, scan_b)):
        if made.fingerprint != parent.fingerprint:
            raise LabError(f"the {who}'s scan is of {made.model}, not of {parent.name} as it is now; scan it again")
    anatomy = read_anatomy(father)
    return prescribe(scan_a, scan_b, anatomy, mode="card_v6", static=static_profile(father, mother, anatomy))


# ---------------------------------------------------------------------------------------------------- evolve


def _started(lab: Lab, arguments: argparse.Namespace) -> tuple[str, Pair]:
    if arguments.out.is_dir() and any(arguments.out.iterdir()):
        raise LabError(f"{arguments.out} exists and is not empty; give another --out, or --resume to go on with it")
    check_target(arguments.out, overwrite=False)
    family = arguments.father.startswith("family:") and arguments.mother.startswith("family:")
    if not arguments.items and not family:
        raise LabError(
            "no items to select on; give --items FILE with one JSON object a line (the README has the format)"
        )
    pair = lab.open_pair(
        arguments.father,
        arguments.mother,
        arguments.ancestor or ("family:ancestor" if family else None),
        items=arguments.items,
        probes=arguments.probes,
    )
    asked = {name: getattr(arguments, name) for name in ("layout", "operator", "budget", "seed")}
    settings: EvolutionSettings = settings_from_json(
        {name: value for name, value in asked.items() if value is not None}
    )
    run_id = lab.start_evolution(pair, settings)
    arguments.out.mkdir(parents=True, exist_ok=True)
    _write_run(arguments.out, lab.run(run_id), pair)
    return run_id, pair


def _resumed(lab: Lab, arguments: argparse.Namespace) -> tuple[str, Pair]:
    path = arguments.out / RUN_FILE
    if not path.is_file():
        raise LabError(f"{arguments.out} holds no run to resume; leave --resume out to start one")
    run_id = lab.check_id(str(read_json(path).get("run", "")))
    run = lab.run(run_id)
    refs, settings = lab.pair(run.pair_key).refs, run.settings.to_json()
    for flag, asked, has in (
        ("FATHER", lasting_ref(arguments.father), refs["father"]),
        ("MOTHER", lasting_ref(arguments.mother), refs["mother"]),
        *((f"--{name}", getattr(arguments, name), settings[name]) for name in ("layout", "operator", "budget", "seed")),
    ):
        if asked is not None and asked != has:
            raise LabError(f"{flag} {asked} contradicts the run in {arguments.out}, which has {has}; leave it out")
    if run.state != "finished":
        lab.resume(run_id)
    return run_id, lab.pair(run.pair_key)


def _write_run(out: Path, run: RunView, pair: Pair) -> None:
    data = {
        "version": 1,
        "run": run.id,
        "state": run.state,
        "pair": pair.refs,
        "settings": run.settings.to_json(),
        "controls": run.controls,
        "generations": run.generations,
        "candidates": run.candidates,
        "result": run.result,
    }
    partial = out / f".{RUN_FILE}.partial"
    partial.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    partial.replace(out / RUN_FILE)


# ---------------------------------------------------------------------------------------------------- words


def _probes(path: Path | None, model: str) -> ProbeSet:
    return load_probes(path or (FAMILY_PROBES if model.startswith("family:") else GENERIC_PROBES))


def _first_of_each_task(items: list[Item], limit: int) -> list[Item]:
    by_task = groupby(sorted(items, key=lambda item: item.task), key=lambda item: item.task)
    chosen = {item.id for _, group in by_task for item in list(group)[:limit]}
    return [item for item in items if item.id in chosen]


def _score_text(result: Score) -> str:
    lines = [
        f"{'benchmark':<18} {'n':>5} {'acc':>7} {'95 % interval':>16} {'acc_norm':>9} {'p(gold)':>8} {'chance':>7}"
    ]
    for task, bench in result.benchmarks().items():
        interval = f"{bench.interval[0]:.3f} - {bench.interval[1]:.3f}"
        gold = "-" if bench.p_gold is None else f"{bench.p_gold:.4f}"
        numbers = f"{bench.acc:>7.3f} {interval:>16} {bench.acc_norm:>9.3f} {gold:>8} {bench.chance:>7.2f}"
        lines.append(f"{task:<18} {bench.n:>5} {numbers}")
    return "\n".join([*lines, f"{'mean':<18} {result.n:>5} {result.mean_acc:>7.3f}"])


def _scan_text(made: Scan, out: Path) -> str:
    loss = made.importance("loss")
    lines = [f"{made.model}: {made.layers} layers, {sum(made.tokens.values()):,} probe tokens, saved in {out}", ""]
    lines.append("rise in NLL when the layer is skipped")
    lines.append("layer " + " ".join(f"{probe[:9]:>9}" for probe in made.probes))
    lines += [
        f"{layer:>5} " + " ".join(f"{loss[probe][layer]:9.3f}" for probe in made.probes) for layer in range(made.layers)
    ]
    report = made.expert_report()
    if report is not None:
        lines += ["", report.note]
    return "\n".join(lines)


def _evolve_text(run: RunView, child: Path) -> str:
    assert run.result is not None
    pick = run.result["pick"]
    lines = [
        f"run {run.id}: {run.evaluated} candidates, stopped by {run.result['stopped']}; child {pick['recipe_hash']}"
    ]
    report = run.result.get("report")
    if report:
        lines.append(f"{'report items':<14} {'mean acc':>9}")
        lines += [f"{who:<14} {model['mean_acc']:>9.4f}" for who, model in report["models"].items()]
        lines.append(report["sentence"])
    return "\n".join([*lines, f"exported to {child}"])
