"""The verb `merge`: a child written to a folder."""

import argparse
import time
from dataclasses import replace

from darwin_lab.checkpoint.anatomy import read_anatomy
from darwin_lab.checkpoint.checkpoint import read_json
from darwin_lab.checkpoint.compare import require_compatible
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.child import Child
from darwin_lab.engine.export import check_target, export_child
from darwin_lab.errors import LabError
from darwin_lab.genome.genome import Genome, genome_from_json
from darwin_lab.genome.presets import preset_genome
from darwin_lab.lab.lab import Lab
from darwin_lab.merging.operators import NEEDS_ANCESTOR
from darwin_lab.merging.prescription import Prescription
from darwin_lab.merging.recipe import Recipe, make_recipe, uniform_recipe
from darwin_lab.mri.prescribe import prescribe
from darwin_lab.mri.record import Scan
from darwin_lab.mri.static import static_profile
from darwin_lab.progress import Tick, part
from darwin_lab.verbs.common import Result


def run(arguments: argparse.Namespace, tick: Tick) -> Result:
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
