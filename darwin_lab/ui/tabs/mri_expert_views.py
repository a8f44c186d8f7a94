"""What the MRI tab shows of the experts of two scans: maps, dead shares, router charts, the MoE health table.

Takes a pair's scans; gives `Chart`s and values for components. Reads nothing, wires nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from darwin_lab.lab.memory import in_words
from darwin_lab.merging.matching import SAME
from darwin_lab.mri.expert_health import expert_verdicts
from darwin_lab.mri.experts import ExpertReport
from darwin_lab.mri.record import Scan
from darwin_lab.mri.static import StaticProfile
from darwin_lab.ui.components.data_table import Column, Row, mark, table_value
from darwin_lab.ui.figures.dead_share import dead_share
from darwin_lab.ui.figures.expert_map import ExpertUse, expert_difference, expert_map
from darwin_lab.ui.figures.router_lines import NO_SIMILARITY, output_similarity, router_entropy
from darwin_lab.ui.figures.style import Chart, nothing
from darwin_lab.ui.tabs.mri_views import PEOPLE, Scans, computed

EVERY_PROBE = "all"
DENSE = "This model has no experts: it is dense, so there is no router to look at."
WAITING = "Expert use is counted with the first probe of the scan."


def reports_of(scans: Scans) -> dict[str, ExpertReport]:
    """The expert reports there are."""
    found = {who: scan.expert_report() for who, scan in scans.items() if scan is not None}
    return {who: report for who, report in found.items() if report is not None}


def dense_words(scans: Scans) -> str:
    """Says that a parent has no experts; empty when both have, or nothing is known yet."""
    without = [who for who, scan in scans.items() if scan is not None and not scan.moe_layers]
    if not without:
        return ""
    known = sum(scan is not None for scan in scans.values())
    return DENSE if len(without) == known else f"The {without[0]} has no experts: it is a dense model."


def _any(scans: Scans) -> Scan | None:
    """One of the scans there are: all of a pair are in one dtype."""
    return next(filter(None, scans.values()), None)


def use_of(scan: Scan, probe: str = EVERY_PROBE) -> ExpertUse | None:
    """Load and saliency over all probes or of one, with what is dead over all; None for a dense model."""
    report = scan.expert_report()
    if report is None:
        return None
    one = report.probes.index(probe) if probe in report.probes else None
    load = report.utilisation if one is None else report.by_probe[one]
    saliency = report.saliency if one is None else report.saliency_by_probe[one]
    return ExpertUse(
        load=load,
        dead=report.dead,
        moe_layers=report.layers,
        tokens=report.tokens if one is None else scan.tokens[probe],
        top_k=scan.top_k,
        certified=report.certified,
        saliency=None if np.isnan(saliency).any() else saliency,
        probe=None if one is None else probe,
    )


def expert_charts(scans: Scans, order: str, measure: str = "load", probe: str = EVERY_PROBE) -> list[Chart]:
    """Father's and mother's experts on one colour range, then the difference."""
    uses = {who: use_of(scan, probe) if (scan := scans[who]) is not None else None for who in PEOPLE}
    salient = [use.saliency[use.saliency > 0] for use in uses.values() if use and use.saliency is not None]
    known = np.log10(np.concatenate(salient)) if salient else np.zeros(0)
    ends = (float(known.min()), float(known.max())) if known.size else None
    drawn = []
    for who in PEOPLE:
        scan = scans[who]
        if scan is not None and not scan.moe_layers:
            drawn.append(nothing(f"The {who} has no experts: it is a dense model."))
            continue
        use = uses[who]
        if use is not None and probe not in (EVERY_PROBE, use.probe):
            drawn.append(nothing(f"The {who} was not read on {probe} yet."))
            continue
        map_ = expert_map(use, who=who, measure=measure, ends=ends, in_order_of_load=order == "load")
        drawn.append(computed(map_, scan))
    apart = expert_difference(uses["father"], uses["mother"], measure=measure)
    drawn.append(computed(apart, scans["father"]))
    return drawn


def dead_chart(scans: Scans) -> Chart:
    """Share of dead experts per layer of both parents, with the certificate."""
    known = reports_of(scans)
    if not known:
        return nothing(dense_words(scans) or WAITING)
    shares = {who: report.dead_share.tolist() for who, report in known.items()}
    missing = {who: f"{who}: {report.note}" for who, report in known.items() if not report.certified}
    told = {who: f"{who}: {report.note}" for who, report in known.items() if report.certified}
    layers = next(iter(known.values())).layers
    return computed(dead_share(shares, moe_layers=layers, uncertified=missing, certified=told), _any(scans))


def entropy_chart(scans: Scans) -> Chart:
    """Load and token entropy per MoE layer of both parents."""
    known = reports_of(scans)
    if not known:
        return nothing(dense_words(scans) or WAITING)
    first = next(iter(known.values()))
    values = {
        who: {"load": report.load_entropy.tolist(), "token": report.token_entropy.tolist()}
        for who, report in known.items()
        if report.layers == first.layers
    }
    return computed(router_entropy(values, moe_layers=first.layers, tokens=first.tokens), _any(scans))


def similarity_chart(scans: Scans) -> Chart:
    """How alike the experts of a layer answer, in both parents."""
    known = reports_of(scans)
    if not known:
        return nothing(dense_words(scans) or WAITING)
    measured = {who: report for who, report in known.items() if report.output_similarity is not None}
    if not measured:
        return nothing(NO_SIMILARITY)
    first = next(iter(measured.values()))
    alike = {who: report for who, report in measured.items() if report.layers == first.layers}
    values = {who: report.output_similarity.tolist() for who, report in alike.items()}  # type: ignore[union-attr]
    tokens = {who: report.similarity_tokens for who, report in alike.items()}
    return computed(output_similarity(values, moe_layers=first.layers, tokens=tokens), _any(scans))


def health_note(scans: Scans, profile: StaticProfile | None = None) -> str:
    """Over how many MoE layers and tokens the health table speaks, and whether the parents' experts correspond."""
    known = reports_of(scans)
    said = [f"{who}: {len(r.layers)} MoE layers, {r.tokens:,} tokens" for who, r in known.items()]
    if not said:
        return ""
    scan = _any(scans)
    if scan is not None and in_words(scan.dtype):
        said.append(f"scanned{in_words(scan.dtype)}")
    if profile is not None and profile.same_experts:
        layer = min(profile.same_experts, key=lambda one: profile.same_experts[one])
        share = profile.same_experts[layer]
        verdict = f"{100 * SAME:.0f} % are needed to blend them by number: match them in Parents"
        if profile.experts_correspond:
            verdict = "they can be blended"
        said.append(f"experts most like their counterpart: {100 * share:.1f} % in the worst layer, L{layer}; {verdict}")
    return " · ".join([*said, "limits are ours"])


def health_table(scans: Scans) -> dict[str, Any]:
    """The MoE health table: a line a metric, value and status of both parents, what it means."""
    verdicts = {who: {line.metric: line for line in expert_verdicts(r)} for who, r in reports_of(scans).items()}
    if not verdicts:
        return table_value((), (), empty=dense_words(scans) or WAITING)
    columns = [Column("metric")]
    for who in verdicts:
        columns += [Column(who), Column(f"{who}'s status", "mark")]
    columns.append(Column("what it means", "long"))
    rows = []
    for metric in next(iter(verdicts.values())):
        lines = [by_metric[metric] for by_metric in verdicts.values()]
        cells = [cell for line in lines for cell in (line.text, mark(line.ok, line.status))]
        rows.append(Row(metric, (metric, *cells, lines[0].meaning)))
    return table_value(columns, rows)
