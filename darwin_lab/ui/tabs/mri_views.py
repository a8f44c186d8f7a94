"""What the MRI tab shows of two scans: charts, tables and facts.

Takes a pair and its scans; gives `Chart`s and values for components. Reads the store through the lab, wires nothing.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from darwin_lab.errors import LabError
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.mri.advantage import AdvantageMap, advantage
from darwin_lab.mri.record import Scan
from darwin_lab.statistics.bootstrap import MaxT, max_t_threshold
from darwin_lab.ui.components.data_table import Column, Row, table_value
from darwin_lab.ui.figures.advantage_map import advantage_map
from darwin_lab.ui.figures.dead_share import dead_share
from darwin_lab.ui.figures.expert_map import expert_map
from darwin_lab.ui.figures.layer_panel import layer_experts, layer_probes
from darwin_lab.ui.figures.probe_map import MEASURES, probe_map
from darwin_lab.ui.figures.style import Chart, nothing
from darwin_lab.ui.session import facts, say

UNITS = {name: unit for name, (_, unit) in MEASURES.items()}
Scans = dict[str, Scan | None]


def probe_charts(pair: Pair, scans: Scans, measure: str) -> list[Chart]:
    """Father's and mother's importance map on one colour range."""
    found = {who: scan.importance(measure) if scan else {} for who, scan in scans.items()}
    every = [row for by_probe in found.values() for row in by_probe.values()]
    ends = (float(min(row.min() for row in every)), float(max(row.max() for row in every))) if every else None
    return [
        probe_map(
            {probe: row.tolist() for probe, row in found[who].items()},
            probes=list(pair.probes.texts),
            layers=pair.anatomy.layers,
            measure=measure,
            who=who,
            ends=ends,
            interval={probe: scan.interval(measure, probe) for probe in scan.probes} if scan else None,
            tokens=scan.tokens if scan else None,
            kinds=[kind.replace("_", " ") for kind in pair.anatomy.layer_kinds],
        )
        for who, scan in scans.items()
    ]


@lru_cache(maxsize=64)
def _advantage(lab: Lab, pair_key: str, probes: tuple[tuple[str, ...], ...], measure: str) -> AdvantageMap | None:
    """The advantage of two scans that hold these probes; None if the store holds others by now."""
    scans = [lab.scan(lab.pair(pair_key), who) for who in ("father", "mother")]
    if tuple(scan.probes for scan in scans if scan) != probes:
        return None
    return advantage(scans[0], scans[1], measure)  # type: ignore[arg-type]


@lru_cache(maxsize=64)
def _swap_gain(lab: Lab, pair_key: str, probes: tuple[str, ...]) -> MaxT:
    """The gain of the mother's layers on these probes, judged over all cells at once."""
    swapped = lab.contrast(lab.pair(pair_key))
    if swapped is None:
        raise LabError("the layer swaps are gone from the store; scan the pair again")
    weights = {probe: swapped.lengths[probe] - 1 for probe in probes}
    return max_t_threshold({probe: swapped.gain[probe] for probe in probes}, weights)


def difference(lab: Lab, pair: Pair, scans: Scans, measure: str, view: str) -> Chart:
    """The advantage map (difference of importances), or the gain of swapping each layer, father positive."""
    if view == "gain":
        swapped = lab.contrast(pair)
        if swapped is None:
            return nothing("The layer swaps come after both scans; they take about as long.")
        judged = _swap_gain(lab, pair.key, swapped.probes)
        unit = "loss saved by the father's layer, nats / token"
        return advantage_map(-judged.estimate, probes=swapped.probes, different=judged.different, unit=unit)
    father, mother = scans["father"], scans["mother"]
    if father is None or mother is None or not set(father.probes) & set(mother.probes):
        return nothing("The difference appears when both parents were read on the same probe.")
    found = _advantage(lab, pair.key, (father.probes, mother.probes), measure)
    if found is None:
        return nothing("The scan moved on; the map follows in a moment.")
    return advantage_map(
        found.values,
        probes=list(found.probes),
        different=found.different,
        unit=f"{UNITS[measure]}{' above neutral' if found.neutral else ''}",
    )


def expert_charts(scans: Scans, order: str) -> list[Chart]:
    """Father's and mother's expert load."""
    drawn = []
    for who, scan in scans.items():
        report = scan.expert_report() if scan else None
        if scan is not None and report is None:
            drawn.append(nothing(f"The {who} has no routed experts: this is a dense model."))
            continue
        drawn.append(
            expert_map(
                report.utilisation if report else None,
                report.dead if report else None,
                moe_layers=report.layers if report else (),
                who=who,
                tokens=report.tokens if report else 0,
                top_k=scan.top_k if scan else 0,
                certified=report.certified if report else False,
                in_order_of_load=order == "load",
            )
        )
    return drawn


def dead_chart(scans: Scans) -> Chart:
    """Share of dead experts per layer of both parents, with the certificate."""
    reports = {who: scan.expert_report() for who, scan in scans.items() if scan is not None}
    known = {who: report for who, report in reports.items() if report is not None}
    if reports and not known:
        return nothing("Dense models have no routed experts.")
    shares = {who: report.dead_share.tolist() for who, report in known.items()}
    missing = {who: f"{who}: {report.note}" for who, report in known.items() if not report.certified}
    layers = next((report.layers for report in known.values()), ())
    return dead_share(shares, moe_layers=layers, uncertified=missing)


def progress_words(lab: Lab, pair: Pair, scans: Scans) -> str:
    """How far the scan is: probes read of each parent and of the swaps."""
    total = len(pair.probes.texts)
    swapped = lab.contrast(pair)
    rows = [(who, f"{len(scan.probes) if scan else 0} / {total}", "probes") for who, scan in scans.items()]
    rows.append(("layer swaps", f"{len(swapped.probes) if swapped else 0} / {total}", "probes"))
    return facts(rows)


def layer_facts(lab: Lab, pair: Pair, layer: int) -> str:
    """What the prescription advises for the layer."""
    advice = lab.prescription(pair)
    if advice is None:
        return say("The MRI's advice for this layer appears when both scans and the layer swaps are done.")
    rows = [("MRI advises", f"{advice.layer_ratio[layer]:.3f}", "mother's share")]
    if layer in advice.golden:
        rows.append(("golden layer", "yes", "the mother clearly leads"))
    kept = advice.preserve.get(layer, ())
    if kept:
        rows.append(("preserve", str(len(kept)), "experts dead in the mother"))
    return facts(rows)


def probes_of_layer(scans: Scans, measure: str, layer: int) -> Chart:
    """Importance of one layer on every probe, with intervals, in both parents."""
    values: dict[str, dict[str, tuple[float, float, float]]] = {}
    for who, scan in scans.items():
        if scan is None:
            continue
        mean = scan.importance(measure)
        values[who] = {}
        for probe in scan.probes:
            low, high = (float(bound) for bound in scan.interval(measure, probe)[layer])
            values[who][probe] = (float(mean[probe][layer]), low, high)
    return layer_probes(values, layer=layer, unit=UNITS[measure])


def experts_of_layer(scans: Scans, layer: int) -> Chart:
    """Expert load of one layer in both parents."""
    loads: dict[str, list[float]] = {}
    dead: dict[str, list[bool]] = {}
    for who, scan in scans.items():
        report = scan.expert_report() if scan else None
        if report is None or layer not in report.layers:
            continue
        row = report.layers.index(layer)
        loads[who] = report.utilisation[row].tolist()
        if report.certified:
            dead[who] = report.dead[row].tolist()
    return layer_experts(loads, dead, layer=layer)


def tensor_table(lab: Lab, pair: Pair, layer: int) -> dict[str, Any]:
    """The layer's tensors with what tells the parents apart, where the static profile is there."""
    profile = lab.static(pair)
    by_name = profile.by_name if profile else {}
    rows = []
    for part in pair.anatomy.layer_parts(layer):
        static = by_name.get(part.name)
        rows.append(
            Row(
                part.name,
                (
                    part.name.split(f".{layer}.", 1)[-1],
                    "×".join(str(axis) for axis in part.shape),
                    static.delta_norm if static else None,
                    static.cosine if static else None,
                    static.sign_flips if static else None,
                ),
            )
        )
    columns = (
        Column("tensor", "code"),
        Column("shape", "code"),
        Column("difference", "number", 3, "Norm of mother minus father over the father's norm"),
        Column("cosine", "number", 4, "Cosine between father's and mother's tensor"),
        Column("sign flips", "share", 1, "Share of entries whose sign differs"),
    )
    return table_value(columns, rows)
