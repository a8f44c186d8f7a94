"""The verb `health`: a child's scan beside its parents', in a folder or virtual, and what would mend it."""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from darwin_lab.checkpoint.anatomy import read_anatomy
from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.checkpoint.compare import require_compatible
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.child import Child
from darwin_lab.engine.resident import Resident
from darwin_lab.engine.source import Source
from darwin_lab.engine.streamed import load_model, weigh
from darwin_lab.errors import LabError
from darwin_lab.genome.genome import Genome
from darwin_lab.merging.recipe import make_recipe, uniform_recipe
from darwin_lab.merging.recipe_file import RECIPE_FILE, read_recipe_file
from darwin_lab.mri.health import WHO, check_health
from darwin_lab.mri.health_record import Health
from darwin_lab.mri.loops import Loops
from darwin_lab.mri.mending import Mending, mend, nll_changes
from darwin_lab.mri.prescribe import golden_layers
from darwin_lab.mri.probes import ProbeSet
from darwin_lab.mri.record import Scan
from darwin_lab.mri.scan import MAX_TOKENS, scan_model
from darwin_lab.mri.writing import count_loops
from darwin_lab.progress import Tick, part
from darwin_lab.verbs.common import (
    Result,
    asking_for_shorter_probes,
    genome_of_file,
    lab_advice,
    matching,
    probes_for,
    refuse_before_scanning,
)

_ADVISED = 0.2
"""Share of the work that scanning for a genome's advice takes."""


def run(arguments: argparse.Namespace, tick: Tick) -> Result:
    """Scan child and parents on the same probes, compare, and with --mend find what clears its flags."""
    _check_flags(arguments)
    limit = MAX_TOKENS if arguments.max_tokens is None else arguments.max_tokens
    if limit < 2:
        raise LabError(f"--max-tokens {limit} leaves nothing to predict; give 2 or more")
    probes = probes_for(arguments.probes, arguments.father)
    father, mother = open_checkpoint(arguments.father), open_checkpoint(arguments.mother)
    ancestor = open_checkpoint(arguments.ancestor) if arguments.ancestor else None
    require_compatible(father, mother, ancestor, vocabulary=arguments.vocab)
    pinned = genome = None
    order: Mapping[int, tuple[int, ...]] = matching(father, mother).order if arguments.match_experts else {}
    if arguments.genome is not None:
        genome = genome_of_file(arguments.genome, read_anatomy(father).layers)
        pinned = _children(arguments, genome, (father, mother, ancestor), order, part(tick, 0.0, _ADVISED))
        child: Source = pinned({})
    else:
        child = folder = open_checkpoint(arguments.child)
        require_compatible(father, folder, vocabulary=arguments.vocab)
        order = _order_of(arguments.child)
    model = load_model(father, weigh(father))
    beside = _with_his_tokens(father, mother, ancestor, arguments.vocab)
    scans, loops = [], dict[str, Loops]()
    for index, (who, source) in enumerate(zip(WHO, (child, father, beside), strict=True)):
        share = part(tick, _ADVISED + index / 5, _ADVISED + (index + 1) / 5)
        scans.append(scan_model(model, source, probes, part(share, 0.0, 0.8), max_tokens=limit))
        looping = count_loops(model, source, probes, part(share, 0.8, 1.0))
        loops |= {who: looping} if looping else {}
    found = _checked(scans, loops, order)
    if pinned is None or genome is None or arguments.mend is None:
        return Result(found.to_json(), _text(found))
    mending = _mended(model, pinned, genome, found, scans, loops, order, probes, limit, part(tick, _ADVISED + 0.6, 1.0))
    if mending.genome is not None:
        arguments.mend.write_text(json.dumps(mending.genome, indent=1) + "\n", encoding="utf-8")
    saved = f"mended genome in {arguments.mend}" if mending.genome else "no genome written: no layer was moved"
    lines = [_text(found), "", mending.sentence if mending.layers else "No layer is flagged: nothing to mend.", saved]
    return Result({**found.to_json(), "mending": mending.to_json()}, "\n".join(lines))


def _check_flags(arguments: argparse.Namespace) -> None:
    """Exactly one of CHILD and --genome; what does nothing is an error."""
    if (arguments.child is None) == (arguments.genome is None):
        raise LabError("give either CHILD (a folder) or --genome G.json (a child that has no files yet)")
    if arguments.genome is None and (arguments.mend or arguments.ancestor):
        flag = "--mend" if arguments.mend else "--ancestor"
        raise LabError(f"{flag} needs --genome G.json: a folder is checked as it is; its recipe.json names the genome")
    if arguments.genome is None and arguments.match_experts:
        raise LabError("--match-experts does nothing beside CHILD, whose recipe.json tells its experts; leave it out")
    if arguments.mend and arguments.mend.exists():
        raise LabError(f"{arguments.mend} exists; give --mend a new file")


def _children(
    arguments: argparse.Namespace,
    genome: Genome,
    parents: tuple[Checkpoint, Checkpoint, Checkpoint | None],
    order: Mapping[int, tuple[int, ...]],
    tick: Tick,
) -> Callable[[Mapping[int, float]], Child]:
    """The genome's child with some layers pinned. A genome that trusts the MRI gets the advice of the lab's scans."""
    (father, mother, ancestor), vocabulary, advice = parents, arguments.vocab, None
    if genome.reads_advice:
        plain = make_recipe(replace(genome, experts="blend"), read_anatomy(father), None, vocabulary=vocabulary,
                            expert_order=order)  # fmt: skip
        refuse_before_scanning(father, mother, ancestor, plain)
        try:
            advice, _ = lab_advice(
                arguments.father, arguments.mother, arguments.ancestor, vocabulary, genome.prescription, tick,
                matched=arguments.match_experts, probes=arguments.probes,
            )  # fmt: skip
        except LabError as error:
            raise asking_for_shorter_probes(error) from None

    anatomy = read_anatomy(father)

    def pinned(shares: Mapping[int, float]) -> Child:
        moved = replace(genome, pinned={**genome.pinned, **shares})
        recipe = make_recipe(moved, anatomy, advice, vocabulary=vocabulary, expert_order=order)
        return Child(father, mother, recipe, ancestor)

    return pinned


def _with_his_tokens(father: Checkpoint, mother: Checkpoint, ancestor: Checkpoint | None, vocabulary: str) -> Source:
    """The mother as she is read beside the child: under the father's tokens where they are matched by token."""
    if vocabulary == "same":
        return mother
    all_hers = uniform_recipe(read_anatomy(father), 1.0, vocabulary=vocabulary)
    return Child(father, mother, all_hers, ancestor, name=mother.name)


def _order_of(folder: str) -> Mapping[int, tuple[int, ...]]:
    """Where the mother's experts went in a folder's child, as its recipe.json tells."""
    if not (Path(folder) / RECIPE_FILE).is_file():
        return {}
    return read_recipe_file(Path(folder)).recipe.expert_order


def _checked(scans: list[Scan], loops: Mapping[str, Loops], order: Mapping[int, tuple[int, ...]]) -> Health:
    child, father, mother = scans
    golden = golden_layers(father, mother)
    return check_health(child, father, mother, golden=golden, expert_order=order, loops=loops)


def _mended(
    model: Resident,
    pinned: Callable[[Mapping[int, float]], Child],
    genome: Genome,
    found: Health,
    scans: list[Scan],
    loops: Mapping[str, Loops],
    order: Mapping[int, tuple[int, ...]],
    probes: ProbeSet,
    limit: int,
    tick: Tick,
) -> Mending:
    """Every flagged layer moved until its flag clears, and the new child checked again."""
    before, father, mother = scans
    recipe = pinned({}).recipe
    ratios = {layer: share for layer, share in enumerate(recipe.layer_ratios()) if share is not None}
    layers = mend(
        model, pinned, ratios, found.advice, probes, (father, mother), found.thresholds, part(tick, 0.0, 0.7),
        max_tokens=limit,
    )  # fmt: skip
    pins = {one.layer: one.after for one in layers if one.after is not None}
    if not pins:
        return Mending(recipe.hash, None, None, layers, found, None, ())
    new = pinned(pins)
    scan = scan_model(model, new, probes, part(tick, 0.7, 0.95), max_tokens=limit)
    again = count_loops(model, new, probes, part(tick, 0.95, 1.0))
    moved = replace(genome, pinned={**genome.pinned, **pins}).to_json()
    after = _checked([scan, father, mother], {**loops, "child": again} if again else loops, order)
    return Mending(recipe.hash, new.recipe.hash, moved, layers, found, after, nll_changes(before, scan))


def _text(found: Health) -> str:
    rows = [f"{'probe':<12} {'child':>8} {'father':>8} {'mother':>8}   NLL, nats a token"]
    rows += [f"{row.probe:<12} {row.child:8.3f} {row.father:8.3f} {row.mother:8.3f}" for row in found.nll]
    if found.loops:
        rows += ["", f"{'texts that end in a loop':<25} share  95 % interval"]
        rows += [
            f"{row.who:<12} {row.looping:>5} of {row.texts:<4} {row.looping / row.texts:6.1%}  "
            f"[{row.low:.1%}, {row.high:.1%}]"
            for row in found.loops
        ]
    if not found.loops:
        rows += ["", "loops not counted: the models are streamed, or read fewer than 18 tokens"]
    return "\n".join([f"{found.verdict}: {found.sentence}", "", *rows])
