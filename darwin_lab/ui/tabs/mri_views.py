"""What the MRI tab shows of the layers of two scans: importance maps, their difference, the signal check.

Takes a pair and its scans; gives `Chart`s and values for components. Reads the store through the lab, wires nothing.
"""

from __future__ import annotations

import html
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from darwin_lab.errors import LabError
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.memory import FLOAT32, in_words
from darwin_lab.lab.pairs import Pair
from darwin_lab.merging.prescription import MODES, Prescription
from darwin_lab.mri.advantage import AdvantageMap, advantage
from darwin_lab.mri.record import HALF_MEASURES, Scan
from darwin_lab.statistics.bootstrap import MaxT, max_t_threshold
from darwin_lab.ui.figures.advantage_map import advantage_map
from darwin_lab.ui.figures.advice_map import advice_map
from darwin_lab.ui.figures.probe_map import HALVES, MEASURES, probe_map
from darwin_lab.ui.figures.style import Chart, nothing
from darwin_lab.ui.session import facts
from darwin_lab.ui.words import ADVICE_WORDS

if TYPE_CHECKING:
    from darwin_lab.mri.contrast import Contrast

UNITS = {name: unit for name, (_, unit) in MEASURES.items()}
PEOPLE = ("father", "mother")
Scans = dict[str, Scan | None]


def both_scans(lab: Lab, pair: Pair) -> Scans:
    """The father's and the mother's scan, as far as they are."""
    return {who: lab.scan(pair, who) for who in PEOPLE}


def half_of(part: str) -> str | None:
    """The half a switch asks for, None for the whole layer."""
    return part if part in HALVES else None


def computed(chart: Chart, measured: Scan | Contrast | None) -> Chart:
    """The chart, whose note says the precision it was computed in where that is not the default."""
    said = in_words(measured.dtype) if measured is not None and chart.note else ""
    return replace(chart, note=f"{chart.note} · scanned{said}") if said else chart


def shown_charts(charts: list[Chart], who: str) -> list[str]:
    """A father | mother | difference row of cards, where those that the switch leaves out hide.

    They hide in the browser: an update of a custom component that is not on the page yet, `gr.skip()` included, makes
    gradio forget the component's own properties, its title among them.
    """
    people = (*PEOPLE, "difference")
    return [
        replace(chart, hidden=who not in ("both", whose)).wire() for chart, whose in zip(charts, people, strict=True)
    ]


def why_no_half(scans: Scans, measure: str, half: str | None) -> str:
    """Why the halves of layers cannot be shown, and the remedy; empty when they can or were not asked for."""
    if half is None:
        return ""
    if measure not in HALF_MEASURES:
        return f"{measure.capitalize()} is measured of whole layers only. Choose loss, skip or KL to see halves."
    if not any(scan is not None and scan.has_halves for scan in scans.values()):
        return (
            "The halves of the layers were not measured yet. Open “Scan settings and saved scans” below and press "
            "“Measure attention and FFN halves too”."
        )
    return ""


def probe_charts(pair: Pair, scans: Scans, measure: str, half: str | None = None) -> list[Chart]:
    """Father's and mother's importance map on one colour range."""
    missing = why_no_half(scans, measure, half)
    if missing:
        return [nothing(missing)] * 2
    ready = {who: scan for who, scan in scans.items() if scan and (half is None or scan.has_halves)}
    found = {who: ready[who].importance(measure, half) if who in ready else {} for who in PEOPLE}
    every = [row for by_probe in found.values() for row in by_probe.values()]
    ends = (float(min(map(np.nanmin, every))), float(max(map(np.nanmax, every)))) if every else None
    kinds = [kind.replace("_", " ") for kind in pair.anatomy.layer_kinds]
    maps = [
        probe_map(
            {probe: row.tolist() for probe, row in found[who].items()},
            probes=list(pair.probes.texts),
            layers=pair.anatomy.layers,
            measure=measure,
            who=who,
            ends=ends,
            interval={p: ready[who].interval(measure, p, half) for p in ready[who].probes} if who in ready else None,
            tokens=ready[who].tokens if who in ready else None,
            texts=ready[who].texts if who in ready else None,
            kinds=kinds,
            half=half,
        )
        for who in PEOPLE
    ]
    return [computed(drawn, scans[who]) for drawn, who in zip(maps, PEOPLE, strict=True)]


@lru_cache(maxsize=64)
def _advantage(
    lab: Lab, pair_key: str, held: tuple[tuple[str, tuple[str, ...]], ...], measure: str, half: str | None
) -> AdvantageMap | None:
    """The advantage of two scans of these dtypes and probes; None if the store holds others by now."""
    scans = [lab.scan(lab.pair(pair_key), who) for who in PEOPLE]
    if tuple((scan.dtype, scan.probes) for scan in scans if scan) != held:
        return None
    father, mother = (_of_half(scan, half) for scan in scans if scan)
    found = advantage(father, mother, measure)
    return found if half is None else _blanked(found, scans, measure, half)


def _of_half(scan: Scan, half: str | None) -> Scan:
    """The scan as if only that half were a layer; layers without it count nothing."""
    if half is None:
        return scan
    filled = {m: {p: np.nan_to_num(v) for p, v in by_probe.items()} for m, by_probe in scan.halves[half].items()}
    return replace(scan, per_text={**scan.per_text, **filled})


def _blanked(found: AdvantageMap, scans: list[Scan | None], measure: str, half: str) -> AdvantageMap:
    """No difference is shown where a layer of either parent has no such half."""
    absent = np.zeros(found.values.shape[1], dtype=bool)
    for scan in scans:
        if scan is not None:
            absent |= np.isnan(scan.importance(measure, half)[scan.probes[0]])
    values = np.where(absent, np.nan, found.values)
    return replace(found, values=values, different=found.different & ~absent)


@lru_cache(maxsize=64)
def _swap_gain(lab: Lab, pair_key: str, dtype: str, probes: tuple[str, ...]) -> MaxT:
    """The gain of the mother's layers on these probes, judged over all cells at once."""
    swapped = lab.contrast(lab.pair(pair_key))
    if swapped is None or swapped.dtype != dtype:
        raise LabError("the layer swaps are gone from the store; scan the pair again")
    weights = {probe: swapped.lengths[probe] - 1 for probe in probes}
    return max_t_threshold({probe: swapped.gain[probe] for probe in probes}, weights)


def difference(lab: Lab, pair: Pair, scans: Scans, measure: str, view: str, half: str | None = None) -> Chart:
    """The advantage map (difference of importances), or the gain of swapping each layer, father positive."""
    if view == "gain":
        swapped = lab.contrast(pair)
        if swapped is None:
            return nothing("The layer swaps come after both scans; they take about as long.")
        judged = _swap_gain(lab, pair.key, swapped.dtype, swapped.probes)
        unit = "loss saved by the father's layer, nats / token"
        gains = advantage_map(
            -judged.estimate,
            probes=swapped.probes,
            different=judged.different,
            se=judged.se,
            threshold=judged.threshold,
            unit=unit,
        )
        return computed(gains, swapped)
    father, mother = scans["father"], scans["mother"]
    if father is None or mother is None or not set(father.probes) & set(mother.probes):
        return nothing("The difference appears when both parents were read on the same probe.")
    missing = why_no_half(scans, measure, half)
    if missing or (half is not None and not (father.has_halves and mother.has_halves)):
        return nothing(missing or "The difference of halves appears when both parents were scanned with halves.")
    held = tuple((scan.dtype, scan.probes) for scan in (father, mother))
    found = _advantage(lab, pair.key, held, measure, half)
    if found is None:
        return nothing("The scan moved on; the map follows in a moment.")
    apart = advantage_map(
        found.values,
        probes=list(found.probes),
        different=found.different,
        se=found.se,
        threshold=found.threshold,
        unit=f"{UNITS[measure]}{' above neutral' if found.neutral else ''}",
    )
    return computed(apart, father)


def signal_words(lab: Lab, pair: Pair) -> str:
    """The signal check: what the swaps and the card's formula can tell about this pair, or that they cannot."""
    if pair.father.fingerprint == pair.mother.fingerprint:
        same = "Father and mother are the same weights: every advantage is zero, every ratio stays at one half."
        return _checked([(None, "No difference", same)])
    swaps, card = lab.prescription(pair), lab.prescription(pair, "card_v6")
    said: list[tuple[bool | None, str, str]] = []
    if swaps is None:
        said.append((None, "Layer swaps", "judged when both scans and the swaps are done"))
    else:
        reach = f"mri_ratio spread {_spread(*swaps.spread)}; " if swaps.signal else ""
        said.append((swaps.signal, "Layer swaps", reach + swaps.note.split(";")[0]))
    if card is not None:
        tail = ": carries no information for this pair"
        if card.signal:
            means = _spread(min(card.layer_ratio), max(card.layer_ratio))
            tail = f" over tensors, {means} over layers; no noise is held against it"
        said.append(
            (None if card.signal else False, "Card V6 formula", f"mri_ratio spread {_spread(*card.spread)}{tail}")
        )
    return _checked(said)


def advice_chart(lab: Lab, pair: Pair) -> Chart:
    """What each way to advise says of every layer, and why one says nothing."""
    told: dict[str, Prescription] = {}
    missing: dict[str, str] = {}
    for mode, name in ADVICE_WORDS.items():
        try:
            found = lab.prescription(pair, mode)
        except LabError as error:
            missing[name] = str(error)
            continue
        if found is None:
            missing[name] = "waits for the scan"
        else:
            told[name] = found
    if not told and len(set(missing.values())) == 1:
        return nothing("The advice appears when both parents are scanned; that of the layer swaps needs those too.")
    swaps = told.get(ADVICE_WORDS[MODES[0]])
    drawn = advice_map(
        {name: advice.layer_ratio for name, advice in told.items()},
        spans={
            name: _spread(*advice.spread) + ("" if advice.signal else ", no signal") for name, advice in told.items()
        },
        layers=pair.anatomy.layers,
        missing=missing,
        golden=swaps.golden if swaps else (),
    )
    return computed(drawn, lab.scan(pair, "father"))


def signal_awaited(words: str = "looking up the scan…") -> str:
    """The row of the signal check while there is none: it keeps the room, so that the maps do not move."""
    return _checked([(None, "Signal check", words)])


def _spread(low: float, high: float) -> str:
    """`.500-.502`, with a fourth digit where three cannot tell the ends apart."""
    digits = 3 if round(low, 3) != round(high, 3) else 4
    return "-".join(f"{value:.{digits}f}".removeprefix("0") for value in (low, high))


def _checked(said: list[tuple[bool | None, str, str]]) -> str:
    sign = {True: "✓", False: "○", None: "·"}
    lines = "".join(
        f"<li><span aria-hidden='true'>{sign[ok]}</span> <b>{html.escape(head)}</b> {html.escape(words)}</li>"
        for ok, head, words in said
    )
    return f"<ul class='dl-signal' aria-label='Signal check'>{lines}</ul>"


def progress_words(lab: Lab, pair: Pair, scans: Scans) -> str:
    """How far the scan is: probes read of each parent and of the swaps, and in what precision unless in the default."""
    total = len(pair.probes.texts)
    swapped = lab.contrast(pair)
    rows = [(who, f"{len(scan.probes) if scan else 0} / {total}", "probes") for who, scan in scans.items()]
    rows.append(("layer swaps", f"{len(swapped.probes) if swapped else 0} / {total}", "probes"))
    if lab.dtype(pair) != FLOAT32:
        rows.append(("scanned in", lab.dtype(pair), ""))
    return facts(rows)
