"""The verb `merge`: a child written to a folder, from a ratio, blocks, a genome, a recipe or a mergekit file."""

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from darwin_lab.checkpoint.alignment import align
from darwin_lab.checkpoint.anatomy import Anatomy, read_anatomy
from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.checkpoint.compare import require_compatible
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.card import CardNotes
from darwin_lab.engine.child import Child
from darwin_lab.engine.export import check_devices, check_target, export_child
from darwin_lab.engine.inheritance import what_was_inherited
from darwin_lab.engine.shards import parse_size
from darwin_lab.errors import LabError
from darwin_lab.genome.block_text import genome_of_blocks
from darwin_lab.genome.genome import Genome, genome_from_json
from darwin_lab.genome.presets import preset_genome, stretch_words
from darwin_lab.merging.mergekit import read_mergekit
from darwin_lab.merging.operators import NEEDS_ANCESTOR, USES_ANCESTOR, USES_DENSITY_B, USES_DRAWS
from darwin_lab.merging.prescription import MODES, V5_TRANSPLANT, V5_TRUST, Prescription
from darwin_lab.merging.recipe import Recipe, make_recipe, uniform_recipe
from darwin_lab.merging.recipe_file import read_recipe_file
from darwin_lab.progress import Tick, part
from darwin_lab.verbs.common import (
    Result,
    asking_for_shorter_probes,
    genome_of_file,
    lab_advice,
    matching,
    refuse_before_scanning,
)

_SCANNING_SHARE, _LOOKING_SHARE = 0.8, 0.05
_DECIDED = frozenset({"operator", "option", "density", "scans", "probes", "advice", "router", "experts"})
"""Flags that a recipe or mergekit file leaves no room for."""


@dataclass(frozen=True)
class _Planned:
    """What is to be written: opened parents, the recipe, and what goes with it. `scanned`: share of the work done."""

    father: Checkpoint
    mother: Checkpoint
    ancestor: Checkpoint | None
    recipe: Recipe
    dtype: str | None = None
    genome: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    scanned: float = 0.0


def run(arguments: argparse.Namespace, tick: Tick) -> Result:
    """Write a child."""
    started = time.monotonic()
    check_target(arguments.out, overwrite=arguments.overwrite)
    devices = tuple(device.strip() for device in arguments.devices.split(","))
    check_devices(devices)
    shard_size = parse_size(arguments.shard_size) if arguments.shard_size else None
    if arguments.recipe is not None:
        planned = _from_recipe(arguments)
    elif arguments.mergekit is not None:
        planned = _from_mergekit(arguments)
    else:
        planned = _from_genes(arguments, tick)
    recipe = planned.recipe
    child = Child(planned.father, planned.mother, recipe, planned.ancestor, name=arguments.out.name)
    looked = planned.scanned + _LOOKING_SHARE * (1.0 - planned.scanned)
    inherited = what_was_inherited(
        child, planned.father, planned.mother, planned.ancestor, part(tick, planned.scanned, looked)
    )
    export_child(
        child, arguments.out, overwrite=arguments.overwrite, dtype=arguments.dtype or planned.dtype,
        shard_size=shard_size, devices=devices, genome=planned.genome, tick=part(tick, looked, 1.0),
        notes=CardNotes(inherited=inherited.to_markdown()),
    )  # fmt: skip
    merged = sum(row.action == "merge" for row in recipe.rows.values())
    notes = [*planned.notes, *recipe.warnings]
    data = {
        "out": str(arguments.out),
        "recipe": recipe.hash,
        "genome": recipe.genome_hash or None,
        "prescription": recipe.prescription_hash or None,
        "tensors": {"merged": merged, "copied": len(recipe.rows) - merged},
        "bytes": sum(file.stat().st_size for file in arguments.out.glob("*.safetensors")),
        "seconds": round(time.monotonic() - started, 3),
        "notes": notes,
    }
    lines = [
        *notes,
        f"{arguments.out}: child {recipe.hash}, {merged} tensors merged, {len(recipe.rows) - merged} copied",
    ]
    return Result(data, "\n".join(lines))


# ---------------------------------------------------------------------------------------- a recipe or mergekit file


def _from_recipe(arguments: argparse.Namespace) -> _Planned:
    """The recipe of an export, with the very parents it was made of; nothing else may be said beside it."""
    _refuse_beside(arguments, "recipe", _DECIDED | {"seed", "vocab", "match_experts"})
    file = read_recipe_file(arguments.recipe)
    opened: dict[str, Checkpoint | None] = {}
    for role in ("father", "mother", "ancestor"):
        given = getattr(arguments, role)
        if given is not None and role not in file.parents:
            raise LabError(f"the recipe was made without an {role}; leave it out")
        opened[role] = _opened(given, file.parents[role].ref, role) if role in file.parents else None
    father, mother, ancestor = opened["father"], opened["mother"], opened["ancestor"]
    assert father is not None
    assert mother is not None
    file.check_parents(opened)
    require_compatible(father, mother, ancestor, vocabulary=file.recipe.vocabulary)
    file.check_roles(read_anatomy(father))
    if arguments.dtype is not None and arguments.dtype != file.dtype:
        has = file.dtype or "the father's"
        raise LabError(f"--dtype {arguments.dtype} contradicts the recipe, which has {has}; leave it out")
    notes = [f"made with {name} {then}, here it is {now}" for name, (then, now) in file.other_versions().items()]
    return _Planned(father, mother, ancestor, file.recipe, file.dtype, file.genome, tuple(notes))


def _from_mergekit(arguments: argparse.Namespace) -> _Planned:
    """A mergekit configuration; FATHER, MOTHER and --ancestor stand in for the models it names."""
    _refuse_beside(arguments, "mergekit", _DECIDED)
    file = read_mergekit(arguments.mergekit)
    if arguments.ancestor is not None and file.ancestor is None:
        raise LabError(f"{arguments.mergekit} merges without an ancestor; leave --ancestor out")
    father = _opened(arguments.father, file.father, "father")
    mother = _opened(arguments.mother, file.mother, "mother")
    ancestor = _opened(arguments.ancestor, file.ancestor, "ancestor") if file.ancestor is not None else None
    vocabulary = arguments.vocab or "same"
    require_compatible(father, mother, ancestor, vocabulary=vocabulary)
    anatomy = read_anatomy(father)
    identity = matching(father, mother) if arguments.match_experts else None
    order = identity.order if identity else None
    recipe = file.recipe(anatomy, seed=arguments.seed or 0, vocabulary=vocabulary, expert_order=order)
    notes = (*file.notes(anatomy), *([identity.words()] if identity else []))
    return _Planned(father, mother, ancestor, recipe, file.child_dtype(father), notes=notes)


def _refuse_beside(arguments: argparse.Namespace, file: str, flags: frozenset[str]) -> None:
    """A flag that the file already decides is an error, not a silent choice."""
    for flag in sorted(flags):
        if getattr(arguments, flag) not in (None, [], False):
            raise LabError(f"--{flag.replace('_', '-')} does nothing beside --{file}, which says it all; leave it out")
    if (arguments.father is None) != (arguments.mother is None):
        raise LabError("only one of FATHER and MOTHER is given; give both, or none to take those the file names")


def _opened(given: str | None, ref: str, role: str) -> Checkpoint:
    """The parent given, or the one the file names."""
    if given is not None:
        return open_checkpoint(given)
    try:
        return open_checkpoint(ref)
    except LabError as error:
        where = "--ancestor M" if role == "ancestor" else "FATHER MOTHER"
        raise LabError(f"the {role} that the file names cannot be opened: {error}; or give {where}") from None


# ------------------------------------------------------------------------------------------------ a ratio or genome


def _from_genes(arguments: argparse.Namespace, tick: Tick) -> _Planned:
    if arguments.father is None or arguments.mother is None:
        raise LabError("give FATHER and MOTHER; only --recipe and --mergekit name them themselves")
    father, mother = open_checkpoint(arguments.father), open_checkpoint(arguments.mother)
    ancestor = open_checkpoint(arguments.ancestor) if arguments.ancestor is not None else None
    vocabulary = arguments.vocab or "same"
    require_compatible(father, mother, ancestor, vocabulary=vocabulary)
    anatomy = read_anatomy(father)
    if arguments.experts in ("preserve", "usage") and not anatomy.experts:
        raise LabError(f"{father.name} has no experts, so --experts {arguments.experts} does nothing; leave it out")
    genome = None
    if arguments.ratio is not None or arguments.blocks is not None:
        _refuse_idle(arguments, father.name, anatomy)
    if arguments.blocks is not None:
        genome = _genome_of_blocks(arguments, anatomy.layers)
    elif arguments.ratio is None:
        genome = _asked_genome(arguments, anatomy.layers, has_ancestor=ancestor is not None)
        if ancestor is None and NEEDS_ANCESTOR[genome.operator]:
            raise LabError(f"{genome.operator} needs a common ancestor; give --ancestor, or use dare, lerp or slerp")
    asks = genome.reads_advice if genome else arguments.experts in ("preserve", "usage")
    for flag in ("scans", "probes"):
        if getattr(arguments, flag) is not None and not asks:
            raise LabError(
                f"--{flag} does nothing beside this; leave it out, or give --experts or a genome that trusts the MRI"
            )
    if arguments.probes is not None and arguments.scans is not None:
        raise LabError("--probes does nothing beside --scans, which were made with theirs; leave it out")
    if arguments.advice is not None and not (genome and genome.genes.get("mri_trust")):
        raise LabError("--advice does nothing beside this; leave it out, or give a genome that trusts the MRI")
    if arguments.advice is not None and genome and genome.prescription:
        raise LabError(
            f"--advice {arguments.advice} contradicts the genome, which names prescription {genome.prescription}; "
            "leave one out"
        )
    scanned = _SCANNING_SHARE if asks and arguments.scans is None else 0.0
    words = stretch_words(arguments.preset, anatomy.layers) if arguments.preset else ""
    notes = [words] if words else []
    identity = matching(father, mother) if arguments.match_experts else None
    order = identity.order if identity else None
    if scanned:
        plain = replace(genome, experts="blend") if genome else None
        made = (
            make_recipe(plain, anatomy, None, vocabulary=vocabulary, expert_order=order)
            if plain
            else uniform_recipe(anatomy, arguments.ratio, vocabulary=vocabulary, expert_order=order)
        )
        refuse_before_scanning(father, mother, ancestor, made)
    scanning = part(tick, 0.0, scanned)
    advice = _advice(arguments, genome, father, mother, order, notes, scanning) if asks else None
    if identity is not None:
        notes.append(identity.words())
    if arguments.blocks is not None:
        notes.append("what lies in no layer (embedding, output head, final norm) is blended half and half")
    if genome is not None:
        recipe = make_recipe(genome, anatomy, advice, vocabulary=vocabulary, expert_order=order)
        return _Planned(father, mother, ancestor, recipe, None, genome.to_json(), tuple(notes), scanned)
    recipe = uniform_recipe(
        anatomy, arguments.ratio, arguments.operator or "lerp",
        1.0 if arguments.density is None else arguments.density, arguments.seed or 0,
        experts=arguments.experts or "blend", router=arguments.router or "blend", options=options_of(arguments),
        prescription=advice, vocabulary=vocabulary, expert_order=order,
    )  # fmt: skip
    return _Planned(father, mother, ancestor, recipe, notes=tuple(notes), scanned=scanned)


def _refuse_idle(arguments: argparse.Namespace, father: str, anatomy: Anatomy) -> None:
    """A flag beside --ratio or --blocks that would change no byte is an error, not a silent choice."""
    operator = arguments.operator or "lerp"
    dense = arguments.density is None or arguments.density == 1.0
    names = [text.partition("=")[0].strip() for text in arguments.option]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise LabError(f"--option {twice} is given twice; give it once")
    if not dense and operator not in USES_DENSITY_B:
        raise LabError(f"--density does nothing beside {operator}, which drops nothing; leave it out")
    if arguments.seed and (dense or operator not in USES_DRAWS):
        why = "which draws nothing" if operator not in USES_DRAWS else "which draws only with a --density below 1"
        raise LabError(f"--seed does nothing beside {operator}, {why}; leave it out")
    if arguments.ancestor is not None and operator not in USES_ANCESTOR:
        raise LabError(f"--ancestor does nothing beside {operator}, which reads none; leave it out")
    if arguments.blocks is not None and "router" in arguments.blocks and not anatomy.experts:
        raise LabError(f"{father} has no experts, so a router in --blocks does nothing; leave it out")
    if arguments.router in ("A", "B") and not anatomy.experts:
        raise LabError(f"{father} has no experts, so --router {arguments.router} does nothing; leave it out")


def options_of(arguments: argparse.Namespace) -> dict[str, float]:
    """The numbers of --option NAME=VALUE."""
    options = {}
    for text in arguments.option:
        name, equals, value = text.partition("=")
        try:
            options[name.strip()] = float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise LabError(f"--option {text} is no NAME=VALUE with a number; write it like lambda=1.2")
    return options


def _genome_of_blocks(arguments: argparse.Namespace, layers: int) -> Genome:
    """The v5 genome of --blocks with the flags beside it."""
    if arguments.router is not None:
        raise LabError(
            f"--router {arguments.router} does nothing beside --blocks, which names it by block; leave it out"
        )
    genome = genome_of_blocks(
        arguments.blocks, layers, operator=arguments.operator or "lerp", seed=arguments.seed or 0,
        experts=arguments.experts or "blend", options=options_of(arguments),
    )  # fmt: skip
    if arguments.density is None:
        return genome
    kept = genome.with_genes(density_a=arguments.density, density_b=arguments.density)
    return genome_from_json(kept.to_json(), layers)


def _asked_genome(arguments: argparse.Namespace, layers: int, *, has_ancestor: bool) -> Genome:
    """The genome of --genome or --preset; a flag that contradicts it is an error, not a silent choice."""
    if arguments.preset is not None:
        genome = preset_genome(arguments.preset, layers, has_ancestor=has_ancestor)
        genome = replace(genome, seed=genome.seed if arguments.seed is None else arguments.seed)
    else:
        genome = genome_of_file(arguments.genome, layers)
    for flag, asked, has in (
        ("operator", arguments.operator, genome.operator),
        ("seed", arguments.seed, genome.seed),
        ("density", arguments.density, genome.genes.get("density_b")),
        ("router", arguments.router, genome.router),
        ("experts", arguments.experts, genome.experts),
        *(("option", f"{name}={value:g}", f"{name}={genome.options.get(name, float('nan')):g}")
          for name, value in options_of(arguments).items()),
    ):  # fmt: skip
        if asked is not None and asked != has:
            raise LabError(f"--{flag} {asked} contradicts the genome, which says {has}; change one of them")
    return genome


def _advice(
    arguments: argparse.Namespace,
    genome: Genome | None,
    father: Checkpoint,
    mother: Checkpoint,
    order: Mapping[int, tuple[int, ...]] | None,
    notes: list[str],
    tick: Tick,
) -> Prescription | None:
    """The prescription that the genome or --experts goes by: from the scans given, or of scans made now."""
    trust = f"mri_trust {genome.genes['mri_trust']:g}: " if genome and genome.genes.get("mri_trust") else ""
    if arguments.scans is not None:
        mode = arguments.advice or "card_v6"
        advice = _given_advice(arguments, father, mother, order, mode)
        if genome and genome.prescription not in (None, advice.hash):
            raise LabError(
                f"the scans given advise {advice.hash} by {mode}, the genome names prescription "
                f"{genome.prescription}; leave --scans out, or 'prescription' in the genome"
            )
        notes += [f"{trust}{mode} advice from the scans given", advice.note]
        return advice
    wanted = genome.prescription if genome else None
    mode = arguments.advice or MODES[0]
    try:
        found, fresh = lab_advice(
            arguments.father, arguments.mother, arguments.ancestor, arguments.vocab or "same", wanted, tick,
            matched=arguments.match_experts, probes=arguments.probes, mode=mode,
        )  # fmt: skip
    except LabError as error:
        raise asking_for_shorter_probes(error) from None
    if found is not None:
        notes += [f"{trust}{found.mode} advice from {'new' if fresh else 'stored'} scans of both parents", found.note]
        if genome and found.mode == "card_v5" and genome.transplant != V5_TRANSPLANT:
            trusts = f"{genome.genes.get('mri_trust', 0.0):g} and transplants below {genome.transplant:g}"
            notes.append(
                f"the V5 card trusts {V5_TRUST:g} and transplants below {V5_TRANSPLANT:g}, this genome {trusts}"
            )
    return found


def _given_advice(
    arguments: argparse.Namespace,
    father: Checkpoint,
    mother: Checkpoint,
    order: Mapping[int, tuple[int, ...]] | None,
    mode: str,
) -> Prescription:
    """Advice by a published formula from two saved scans; the contrastive one needs the parents side by side."""
    from darwin_lab.mri.prescribe import prescribe
    from darwin_lab.mri.record import Scan
    from darwin_lab.mri.static import static_profile

    if mode == MODES[0]:
        raise LabError(
            f"{mode} advice swaps layers between the parents, which --scans do not hold; leave --scans out, "
            f"or choose --advice {', '.join(MODES[1:])}"
        )
    scan_a, scan_b = (Scan.load(folder) for folder in arguments.scans)
    for who, parent, made in (("father", father, scan_a), ("mother", mother, scan_b)):
        if made.fingerprint != parent.fingerprint:
            raise LabError(f"the {who}'s scan is of {made.model}, not of {parent.name} as it is now; scan it again")
    anatomy = read_anatomy(father)
    aligned = align(father, mother, vocabulary=arguments.vocab or "same", expert_order=order)
    return prescribe(scan_a, scan_b, anatomy, mode=mode, static=static_profile(father, aligned, anatomy))
