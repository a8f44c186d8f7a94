"""From a genome to its recipe, and back from a recipe's hash; the advice a genome trusts is found by its hash.

Arithmetic and small files only. Knows no model in memory.
"""

import json
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from darwin_lab.errors import LabError
from darwin_lab.genome.genome import Genome, genome_from_json
from darwin_lab.lab import scanning
from darwin_lab.lab.pairs import Pair
from darwin_lab.lab.workbench import Workbench
from darwin_lab.merging.prescription import MODES, Prescription
from darwin_lab.merging.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

RATIOS: "Mapping[str, float]" = {"father": 0.0, "mother": 1.0, "blend": 0.5}


def recipe(bench: Workbench, pair: Pair, genome: Genome, known: Prescription | None = None) -> Recipe:
    """The recipe of a genome, made known to the store. `known` saves looking the prescription up.

    LabError when the genome names a prescription that is not here.
    """
    pair.require_mergeable()
    told = (known or advice(bench, pair, genome.prescription)) if genome.reads_advice else None
    made = pair.recipe(genome, told)
    if (pair.key, made.hash) not in bench.recipes:
        if told is not None:
            keep(bench, told)
        fingerprint = bench.child(pair, made).fingerprint
        bench.store.remember_recipe(
            pair.key, made.hash, genome=genome.to_json(), genome_hash=genome.hash, fingerprint=fingerprint,
            prescription=told.hash if told else None,
        )  # fmt: skip
    bench.keep_recipe(pair, made)
    return made


def recipe_of(bench: Workbench, pair: Pair, who: str) -> Recipe:
    """The recipe of "father", "mother", "blend" or of a known recipe hash. LabError for anything else."""
    if who in RATIOS:
        pair.require_mergeable()
        made = pair.uniform(RATIOS[who])
        if (pair.key, made.hash) not in bench.recipes:
            fingerprint = bench.child(pair, made).fingerprint
            bench.store.remember_recipe(pair.key, made.hash, ratio=RATIOS[who], fingerprint=fingerprint)
            bench.keep_recipe(pair, made)
        return made
    if (pair.key, who) in bench.recipes:
        return bench.recipes[pair.key, who]
    row = bench.store.recipe_row(pair.key, who)
    if row is None:
        raise LabError(f"no child {who!r} of these parents is known; choose father, mother, blend or a child made here")
    if row["genome"] is None:
        return pair.uniform(row["ratio"])
    genome = genome_from_json(row["genome"], pair.anatomy.layers)
    made = recipe(bench, pair, genome, find(bench, pair, row["prescription"]) if row["prescription"] else None)
    if made.hash != who:
        raise LabError(f"the child {who} was made by another version of the recipe rules; make it anew from its genome")
    return made


def genome_of(bench: Workbench, pair: Pair, recipe_hash: str) -> Genome | None:
    """The genome of a known recipe, naming the prescription it trusted; None for father, mother and blend."""
    row = bench.store.recipe_row(pair.key, recipe_hash)
    if row is None or row["genome"] is None:
        return None
    genome = genome_from_json(row["genome"], pair.anatomy.layers)
    return replace(genome, prescription=row["prescription"] or genome.prescription)


def resolve(bench: Workbench, pair: Pair, child: Genome | str) -> Recipe:
    """The recipe of a genome, or of what `recipe_of` knows."""
    return recipe_of(bench, pair, child) if isinstance(child, str) else recipe(bench, pair, child)


def keep(bench: Workbench, advice: Prescription) -> None:
    """Keep a prescription under its hash, so that children made with it outlive the scans."""
    path = bench.store.folder("prescriptions", advice.hash).with_suffix(".json")
    if not path.exists():
        bench.store.keep_text(path, json.dumps(advice.to_json()))


def find(bench: Workbench, pair: Pair, wanted: str) -> Prescription:
    """The prescription with this hash. LabError when neither kept nor what the present scans advise."""
    path = bench.store.folder("prescriptions", wanted).with_suffix(".json")
    if path.exists():
        return Prescription.from_json(json.loads(path.read_text(encoding="utf-8")))
    for mode in MODES:
        with suppress(LabError):  # scans may lack what one formula needs
            advice = scanning.prescription(bench, pair, mode)
            if advice is not None and advice.hash == wanted:
                return advice
    raise LabError(
        f"the genome trusts prescription {wanted}, which is not here; scan its parents, or leave 'prescription' out"
    )


def advice(bench: Workbench, pair: Pair, wanted: str | None) -> Prescription | None:
    """The prescription with the hash `wanted`, else what the present scans advise; None without scans."""
    return scanning.prescription(bench, pair) if wanted is None else find(bench, pair, wanted)
