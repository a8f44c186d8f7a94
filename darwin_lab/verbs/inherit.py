"""The verb `inherit`: what a child has from whom, and, if asked, how well it reads a dozen languages."""

import argparse

from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.checkpoint.compare import compare, require_compatible
from darwin_lab.checkpoint.opening import download, is_hub_id, open_checkpoint
from darwin_lab.engine.inheritance import what_was_inherited
from darwin_lab.engine.inherited import Inheritance
from darwin_lab.errors import LabError
from darwin_lab.merging.recipe_file import RECIPE_FILE, read_recipe_file
from darwin_lab.mri.languages import LANGUAGE_PROBES, Interval, Languages, compare_languages, read_languages
from darwin_lab.mri.probes import load_probes
from darwin_lab.progress import Tick, part
from darwin_lab.verbs.common import Result


def run(arguments: argparse.Namespace, tick: Tick) -> Result:
    """Lay a child's folder beside both parents."""
    child, father, mother = (open_checkpoint(ref) for ref in (arguments.child, arguments.father, arguments.mother))
    ancestor = open_checkpoint(arguments.ancestor) if arguments.ancestor is not None else None
    _require_kin(child, father, mother, ancestor)
    ancestor, note = _ancestor_of(child, father, mother, ancestor)
    notes = [note] if note else []
    weights = part(tick, 0.0, 0.4 if arguments.languages else 1.0)
    found = what_was_inherited(child, father, mother, ancestor, weights)
    data, lines = {**found.to_json(), "notes": notes}, [*notes, _text(found)]
    if arguments.languages:
        languages = _languages(child, father, mother, part(tick, 0.4, 1.0))
        data["languages"] = languages.to_json()
        lines += ["", _language_text(languages)]
    return Result(data, "\n".join(lines))


def _require_kin(child: Checkpoint, father: Checkpoint, mother: Checkpoint, ancestor: Checkpoint | None) -> None:
    """Parents that could be merged, in one way of matching tokens or the other, and a child of their architecture."""
    try:
        require_compatible(father, mother, ancestor)
    except LabError:
        require_compatible(father, mother, ancestor, vocabulary="by-token")
    for check in compare(father, child):
        if not check.ok and check.what in ("architecture", "layers", "hidden size"):
            raise LabError(
                f"{child.name} differs from {father.name} in {check.what}: {check.mother} against {check.father}; "
                "give the parents it was made of"
            )


def _ancestor_of(
    child: Checkpoint, father: Checkpoint, mother: Checkpoint, given: Checkpoint | None
) -> tuple[Checkpoint | None, str]:
    """The ancestor given, or the one that the child's own recipe for these parents names; and what to say of it."""
    if not (child.folder / RECIPE_FILE).is_file():
        return given, ""
    try:
        file = read_recipe_file(child.folder)
    except LabError:
        return given, ""
    named, parents = file.parents.get("ancestor"), {"father": father, "mother": mother}
    if any(file.parents[role].fingerprint != one.fingerprint for role, one in parents.items()):
        told = ", ".join(f"{role} {file.parents[role].name}" for role in parents)
        return given, f"recipe.json names other parents ({told}), so nothing of it is used here"
    if named is None:
        return given, ""
    if given is not None:
        other = f"recipe.json names another ancestor, {named.name}; what follows is told by {given.name}"
        return given, "" if given.fingerprint == named.fingerprint else other
    try:
        ancestor = _at_hand(named.ref)
        file.check_parents({**parents, "ancestor": ancestor})
    except LabError:
        return None, (
            f"the recipe of {child.name} has the ancestor {named.name}, which is not at {named.ref} as it was; "
            'give --ancestor M to tell "merged" from "changed"'
        )
    return ancestor, f"the ancestor is the one that recipe.json names: {named.ref}"


def _at_hand(ref: str) -> Checkpoint:
    """As `open_checkpoint`, but nothing is downloaded because a file says so."""
    if is_hub_id(ref):
        return Checkpoint(download(ref, offline=True), name=ref)
    return open_checkpoint(ref)


def _languages(child: Checkpoint, father: Checkpoint, mother: Checkpoint, tick: Tick) -> Languages:
    from darwin_lab.engine.resident import Resident

    probes = load_probes(LANGUAGE_PROBES)
    resident = Resident.load(child)
    readings = [
        read_languages(resident, source, probes, part(tick, place / 3, (place + 1) / 3))
        for place, source in enumerate((child, father, mother))
    ]
    return compare_languages(*readings)


def _text(found: Inheritance) -> str:
    width = max(len(row.what) for row in found.rows)
    lines = [f"{found.child} beside {found.father} and {found.mother}", ""]
    for row in found.rows:
        words = "; ".join(filter(None, (row.compared, row.note)))
        lines.append(f"{row.what:<{width}}  {row.verdict:<24}  {words}".rstrip())
    return "\n".join(lines)


def _language_text(languages: Languages) -> str:
    lines = [f"{'language':<12} {'child':>22} {'father':>8} {'mother':>8}   NLL, nats a token, 95 % over texts"]
    for row in languages.rows:
        if row.child is None or row.father is None or row.mother is None:
            lines.append(f"{row.name:<12} {row.verdict} ({row.unknown:.0%} unknown tokens)")
            continue
        lines.append(
            f"{row.name:<12} {_spread(row.child):>22} {row.father[0]:8.3f} {row.mother[0]:8.3f}   {row.verdict}"
        )
    return "\n".join([*lines, "", languages.sentence])


def _spread(interval: Interval) -> str:
    mean, low, high = interval
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"
