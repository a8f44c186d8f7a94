"""What the card of scan settings and kept scans shows, as plain functions.

Takes pairs and kept scans, gives words, tables and charts. Reads through the lab, wires nothing, measures nothing.
"""

from __future__ import annotations

import html
import time
from typing import Any

from darwin_lab.errors import LabError
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.memory import MemoryChoice
from darwin_lab.lab.pairs import Pair
from darwin_lab.lab.saved_scans import SavedScan
from darwin_lab.mri.advantage import AdvantageMap
from darwin_lab.mri.record import Scan
from darwin_lab.ui.components.data_table import Column, Row, table_value
from darwin_lab.ui.figures.advantage_map import advantage_map
from darwin_lab.ui.figures.probe_map import MEASURES
from darwin_lab.ui.figures.style import Chart, plural
from darwin_lab.ui.session import say

NO_PAIR = "Open a pair in Parents first."
NONE_KEPT = "Nothing is kept yet. Keep a scan under a name, or load a file that somebody shared."
HALVES = "Measure attention and FFN halves too"
HALVES_NOTE = (
    "Leaves out attention and FFN of every layer by themselves as well: about three times the work, one scan a parent."
)
HALVES_THERE = "Both parents have their halves: choose Attention or FFN above the maps."
LONGEST_LABEL = 28
COLUMNS = (
    Column("name"),
    Column("model"),
    Column("layers", "number"),
    Column("probes", "long"),
    Column("tokens", "number"),
    Column("scanned in"),
    Column("halves", title="Attention and FFN halves measured"),
    Column("weights", "code", title="Fingerprint of the model's content"),
    Column("kept on"),
)


def memory_words(choice: MemoryChoice | None) -> str:
    """How the models are held, with what that takes and what is free."""
    return say(NO_PAIR) if choice is None else say(choice.sentence)


def has_halves(lab: Lab, pair: Pair) -> bool:
    """Whether both parents' scans hold the halves of every probe."""
    scans = [lab.scan(pair, who) for who in ("father", "mother")]
    return all(scan is not None and scan.has_halves for scan in scans) and all(
        lab.scan_is_complete(pair, who) for who in ("father", "mother")
    )


def probe_words(pair: Pair | None, scan: Scan | None = None) -> str:
    """Which probes the pair is measured with, where they are from, and which texts a `scan` did not read to the end."""
    if pair is None:
        return say(NO_PAIR)
    texts = sum(len(lines) for lines in pair.probes.texts.values())
    whose = "your own" if pair.refs["probes"] else "built in"
    named = ", ".join(f"{name} {len(lines)}" for name, lines in pair.probes.texts.items())
    head = f"{plural(len(pair.probes.texts), 'probe')}, {plural(texts, 'text')}, {whose}"
    cut = f" · {scan.cut_words}" if scan is not None and scan.cut_words else ""
    return f"<div class='dl-hint'><b>{html.escape(head)}</b> · {html.escape(named + cut)}</div>"


def kept_table(kept: list[SavedScan], chosen: str) -> dict[str, Any]:
    """One row a kept scan, newest first."""
    rows = [
        Row(
            about.id,
            (
                about.name,
                about.model,
                about.layers,
                ", ".join(about.probes),
                about.tokens,
                about.dtype,
                "yes" if about.halves else "no",
                about.fingerprint[:8],
                time.strftime("%Y-%m-%d %H:%M", time.localtime(about.created)),
            ),
        )
        for about in kept
    ]
    return table_value(COLUMNS, rows, chosen=chosen or None, empty=NONE_KEPT)


def comparison_chart(found: AdvantageMap, one: str, other: str) -> Chart:
    """The map of a comparison: `one` minus `other`."""
    unit = MEASURES[found.measure][1]
    return advantage_map(
        found.values,
        probes=list(found.probes),
        different=found.different,
        se=found.se,
        threshold=found.threshold,
        unit=f"{unit}{' above neutral' if found.neutral else ''}",
        people=(label(one), label(other)),
    )


def comparison_words(found: AdvantageMap, one: str, other: str) -> str:
    """What the comparison found, in a sentence."""
    cells, apart = found.values.size, int(found.different.sum())
    if not found.values.any():
        return say(f"{one} and {other} are the same in every cell.")
    if not apart:
        return say(f"No difference between {one} and {other} is told apart from chance in {cells:,} cells.")
    probe, layer = divmod(int(abs(found.values * found.different).argmax()), found.values.shape[1])
    lead = one if found.values[probe, layer] > 0 else other
    return say(
        f"{apart:,} of {cells:,} cells are told apart from chance. The largest: layer {layer} on {found.probes[probe]} "
        f"matters more in {lead}."
    )


def label(name: str) -> str:
    """A name short and plain enough to stand in a chart, whoever gave it."""
    plain = "".join(letter for letter in name if letter not in "<>&%{}")
    return plain if len(plain) <= LONGEST_LABEL else f"{plain[: LONGEST_LABEL - 1]}…"


def against_choices(kept: list[SavedScan], chosen: str) -> list[tuple[str, str]]:
    """What a kept scan can be compared with."""
    others = [(about.name, about.id) for about in kept if about.id != chosen]
    return [("Father now", "father"), ("Mother now", "mother"), ("Child at hand", "child"), *others]


def compared(lab: Lab, pair: Pair | None, ids: tuple[str, str], names: tuple[str, str], measure: str) -> Any:
    """(words, chart as wire) of a comparison; where it cannot be made, the reason in both."""
    try:
        found = lab.saved.comparison(pair, *ids, measure)
    except LabError as error:
        return say(str(error), bad=True), Chart(empty=str(error)).wire()
    return comparison_words(found, *names), comparison_chart(found, *names).wire()
