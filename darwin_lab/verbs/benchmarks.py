"""The verb `benchmarks`: the catalogue, or one of its entries."""

import argparse
from typing import Any

from darwin_lab.lab.home import lab_home
from darwin_lab.progress import Tick
from darwin_lab.scoring import hub
from darwin_lab.scoring.catalogue import CATALOGUE, Entry, entry
from darwin_lab.verbs.common import Result


def run(arguments: argparse.Namespace, tick: Tick) -> Result:
    """What the Hub's benchmarks are, from which data set, and whether they are on this machine. Downloads nothing."""
    chosen = [entry(arguments.name)] if arguments.name else list(CATALOGUE.values())
    rows = [_row(one) for one in chosen]
    return Result({"benchmarks": rows}, _one(rows[0]) if arguments.name else _list(rows))


def _row(one: Entry) -> dict[str, Any]:
    pin = hub.pinned(one, lab_home() / "hub")
    return {
        "name": one.name, "title": one.title, "repo": one.repo, "url": one.url, "licence": one.licence,
        "revision": pin.revision if pin else one.revision, "here": pin is not None, "gated": one.gated,
        "kind": one.kind, "chance": one.chance, "splits": one.split_sizes, "prompt": one.prompt, "note": one.note,
    }  # fmt: skip


def _list(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'name':<24} {'selection':>9} {'validation':>10} {'report':>7} {'chance':>6}  kind        licence"]
    for row in rows:
        sizes = row["splits"]
        marks = ", ".join(word for word, on in (("gated", row["gated"]), ("on this machine", row["here"])) if on)
        lines.append(
            f"{row['name']:<24} {sizes['selection']:>9} {sizes['validation']:>10} {sizes['report']:>7} "
            f"{row['chance']:>6.2f}  {row['kind']:<11} {row['licence']}{f' ({marks})' if marks else ''}"
        )
    return "\n".join([*lines, "score MODEL --benchmark NAME downloads what it needs; benchmarks NAME tells more"])


def _one(row: dict[str, Any]) -> str:
    sizes = ", ".join(f"{count} {split}" for split, count in row["splits"].items())
    revision = row["revision"] or "the newest at the first download, kept then"
    return "\n".join([
        f"{row['title']} ({row['name']}): {row['url']}",
        f"revision: {revision}{'; on this machine' if row['here'] else ''}",
        f"licence: {row['licence']}{'; gated' if row['gated'] else ''}",
        f"items: {sizes}; chance {row['chance']:.2f}",
        f"prompt: {row['prompt']}",
        f"note: {row['note']}",
    ])  # fmt: skip
