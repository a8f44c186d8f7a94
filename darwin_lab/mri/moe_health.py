"""The experts of a child beside its parents': the MoE half of the health check.

Takes the expert reports in three scans of the same probes; gives one row a metric with its status, and the experts
that were dead in a parent and work in the child, each with the tokens that say so. Thresholds are ours. Must not know:
tensors, recipes, layers' importance.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from darwin_lab.merging.prescription import DEAD
from darwin_lab.mri.experts import ExpertReport
from darwin_lab.mri.record import Scan

Floats = NDArray[np.float64]
OK, WATCH, BAD, UNKNOWN, PLAIN = "ok", "watch", "bad", "unknown", "plain"
MOSTLY_DEAD = 0.5
"""Above this share of dead experts a child is marked bad."""
SLACK, MARGIN = 1.1, 0.02
"""A child's metric is watched when it is beyond both parents' by a tenth and this much."""


@dataclass(frozen=True)
class Expert:
    """One expert of the child. `tokens` of the probes chose it in the child, `load` is that as a multiple of the even
    share; `dead_in` names the parent it is dead in: father, mother or both; child for one that died there."""

    layer: int
    expert: int
    dead_in: str
    tokens: int
    load: float


@dataclass(frozen=True)
class Metric:
    """One row of the table: mean over the MoE layers in child, father and mother; None where it is not known."""

    name: str
    child: float | None
    father: float | None
    mother: float | None
    status: str
    note: str = ""


@dataclass(frozen=True)
class MoeHealth:
    """The table, the experts revived in the child, and those alive in both parents that are dead in it."""

    metrics: tuple[Metric, ...]
    revived: tuple[Expert, ...]
    died: tuple[Expert, ...]
    tokens: int
    note: str
    """What the token count allows to say."""


def moe_health(
    child: Scan, father: Scan, mother: Scan, expert_order: Mapping[int, tuple[int, ...]] | None = None
) -> MoeHealth | None:
    """The MoE half of a health check; None for a model without experts. Source: methods, sections 4 and 6.

    `expert_order`: decoder layer -> for each of the child's experts which of the mother's it comes from, where that is
    not the one with its number; the father's keep theirs.
    """
    reports = [scan.expert_report() for scan in (child, father, mother)]
    own, a, b = reports
    if own is None or a is None or b is None:
        return None
    times = sum((np.asarray(child.counts[probe]).sum(0) for probe in child.probes), np.zeros(own.utilisation.shape))
    alive = own.utilisation >= DEAD / child.experts
    dead_a, dead_b = a.dead, b.dead.copy()
    for row, layer in enumerate(b.layers):
        if expert_order and layer in expert_order:
            dead_b[row] = b.dead[row, list(expert_order[layer])]
    revived = [
        _expert(own, times, row, expert, "both" if dead_a[row, expert] and dead_b[row, expert] else
                "father" if dead_a[row, expert] else "mother")
        for row, expert in np.argwhere((dead_a | dead_b) & alive)
    ]  # fmt: skip
    known = a.certified and b.certified
    lost = own.dead & ~dead_a & ~dead_b if known else np.zeros_like(own.dead)
    died = [_expert(own, times, row, expert, "child") for row, expert in np.argwhere(lost)]
    return MoeHealth(
        metrics=(
            _dead_row(own, a, b),
            _row("load_entropy", reports, lambda report: report.load_entropy, low=True),
            _cap_row(own, a, b),
            _row("token_entropy", reports, lambda report: report.token_entropy),
            _row("gini", reports, lambda report: report.gini, high=True),
            _row("max_load", reports, lambda report: report.max_load, high=True),
            _row("similarity", reports, lambda report: report.output_similarity, high=True),
            Metric("revived", len(revived), None, None, PLAIN if known else UNKNOWN),
            Metric("died", len(died), None, None, (WATCH if died else OK) if known and own.certified else UNKNOWN),
        ),
        revived=tuple(revived),
        died=tuple(died),
        tokens=own.tokens,
        note=own.note,
    )


def entropy_cap(utilisation: Floats, dead: NDArray[np.bool_]) -> Floats:
    """[M] the largest load entropy in [0, 1] that layers with these dead experts can have: the load of each side
    spread evenly over it (without any load on 128 dead of 256: ln 128 / ln 256 = .875). Source: methods, section 4."""
    experts = utilisation.shape[-1]
    count = dead.sum(-1)
    load = (utilisation * dead).sum(-1)
    sides = ((load, count), (1 - load, experts - count))
    cap = sum(-share * np.log(np.where(share > 0, share, 1.0) / np.maximum(n, 1)) for share, n in sides)
    most: Floats = np.minimum(np.asarray(cap) / np.log(experts), 1.0)
    return most


def moe_from_json(data: Mapping[str, Any] | None) -> MoeHealth | None:
    """The inverse of `dataclasses.asdict`, also after a file."""
    if data is None:
        return None
    return MoeHealth(
        tuple(Metric(**row) for row in data["metrics"]),
        tuple(Expert(**row) for row in data["revived"]),
        tuple(Expert(**row) for row in data["died"]),
        data["tokens"],
        data["note"],
    )


def _expert(report: ExpertReport, times: NDArray[Any], row: int, expert: int, dead_in: str) -> Expert:
    even = report.utilisation[row, expert] * report.utilisation.shape[-1]
    return Expert(report.layers[row], int(expert), dead_in, int(times[row, expert]), float(even))


def _dead_row(own: ExpertReport, a: ExpertReport, b: ExpertReport) -> Metric:
    child, father, mother = (float(r.dead_share.mean()) if r.certified else None for r in (own, a, b))
    parents = [value for value in (father, mother) if value is not None]
    if child is None:
        return Metric("dead_share", None, father, mother, UNKNOWN, own.note)
    more = bool(parents) and child > max(parents) + 1 / own.utilisation.size
    return Metric("dead_share", child, father, mother, BAD if child > MOSTLY_DEAD else WATCH if more else OK, own.note)


def _cap_row(*reports: ExpertReport) -> Metric:
    """A load entropy above what the dead experts leave room for is a contradiction: one of the two is wrong."""
    caps = [entropy_cap(report.utilisation, report.dead) if report.certified else None for report in reports]
    means = [None if cap is None else float(cap.mean()) for cap in caps]
    if caps[0] is None:
        return Metric("entropy_cap", None, means[1], means[2], UNKNOWN)
    over = np.flatnonzero(reports[0].load_entropy > caps[0] + 1e-6)
    if len(over):
        layers = ", ".join(f"L{reports[0].layers[row]}" for row in over)
        return Metric("entropy_cap", means[0], means[1], means[2], BAD, f"load entropy above it in {layers}")
    return Metric("entropy_cap", means[0], means[1], means[2], OK, "no layer above it")


def _row(
    name: str,
    reports: list[ExpertReport | None],
    read: Callable[[ExpertReport], Floats | None],
    *,
    low: bool = False,
    high: bool = False,
) -> Metric:
    """Mean over layers of the three; watched where the child is beyond both parents on the side that is worse."""
    found = [None if report is None else read(report) for report in reports]
    child, father, mother = (None if values is None else float(values.mean()) for values in found)
    if child is None or father is None or mother is None:
        return Metric(name, child, father, mother, UNKNOWN)
    beyond = (low and child < min(father, mother) / SLACK - MARGIN) or (
        high and child > max(father, mother) * SLACK + MARGIN
    )
    return Metric(name, child, father, mother, WATCH if beyond else OK if low or high else PLAIN)
