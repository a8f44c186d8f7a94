"""The verb `inherit`: what a child has from whom, and, if asked, how well it reads a dozen languages."""

import argparse

from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.inheritance import what_was_inherited
from darwin_lab.engine.inherited import Inheritance
from darwin_lab.mri.languages import LANGUAGE_PROBES, Interval, Languages, compare_languages, read_languages
from darwin_lab.mri.probes import load_probes
from darwin_lab.progress import Tick, part
from darwin_lab.verbs.common import Result


def run(arguments: argparse.Namespace, tick: Tick) -> Result:
    """Lay a child's folder beside both parents."""
    child, father, mother = (open_checkpoint(ref) for ref in (arguments.child, arguments.father, arguments.mother))
    ancestor = open_checkpoint(arguments.ancestor) if arguments.ancestor else None
    weights = part(tick, 0.0, 0.4 if arguments.languages else 1.0)
    found = what_was_inherited(child, father, mother, ancestor, weights)
    data, lines = found.to_json(), [_text(found)]
    if arguments.languages:
        languages = _languages(child, father, mother, part(tick, 0.4, 1.0))
        data["languages"] = languages.to_json()
        lines += ["", _language_text(languages)]
    return Result(data, "\n".join(lines))


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
