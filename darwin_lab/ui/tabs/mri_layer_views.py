"""What the MRI tab shows of one layer, and of the tensors of all: charts, tables, facts.

Takes a pair, its scans and a layer; gives `Chart`s and values for components. Reads the store through the lab, wires
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from darwin_lab.checkpoint.anatomy import Part
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.mri.experts import ExpertReport
from darwin_lab.mri.static import StaticProfile
from darwin_lab.ui.components.data_table import Column, Row, table_value
from darwin_lab.ui.figures.layer_panel import layer_experts, layer_probes
from darwin_lab.ui.figures.probe_map import HALVES
from darwin_lab.ui.figures.style import Chart, nothing
from darwin_lab.ui.session import facts, say
from darwin_lab.ui.tabs.mri_views import UNITS, Scans, why_no_half

LONGEST_TEXT = 400
MOST_TENSORS = 3000
"""Of a model with more tensors the experts of one layer share a row."""
NUMBERED = re.compile(r"(\.experts\.)\d+(?=\.)")
MEASURED = ("delta_norm", "cosine", "sign_flips", "stable_rank", "entropy_a", "entropy_b", "std_a", "std_b")
STATIC_COLUMNS = (
    Column("difference", "number", 4, "Norm of mother minus father over the father's norm"),
    Column("cosine", "number", 4, "Cosine between father's and mother's tensor"),
    Column("sign flips", "share", 2, "Share of entries whose sign differs"),
    Column("stable rank", "number", 1, "Of mother minus father: squared Frobenius over squared spectral norm"),
    Column("entropy, father", "number", 3, "Nats, histogram of 256 bins over mean ± 4 standard deviations"),
    Column("entropy, mother", "number", 3, "Nats, histogram of 256 bins over mean ± 4 standard deviations"),
    Column("std, father", "number", 5, "Standard deviation of the entries"),
    Column("std, mother", "number", 5, "Standard deviation of the entries"),
)
NO_PROFILE = "The static profile comes with the MRI; it reads every tensor of both parents once."


def layer_facts(lab: Lab, pair: Pair, layer: int) -> str:
    """What the prescription advises for the layer."""
    advice = lab.prescription(pair)
    if advice is None:
        return say("The MRI's advice for this layer appears when both scans and the layer swaps are done.")
    rows = [("MRI advises", f"{advice.layer_ratio[layer]:.3f}", "mother's share")]
    if layer in advice.golden:
        rows.append(("golden layer", "yes", "the mother clearly leads"))
    kept = advice.reordered(pair.expert_order).preserve.get(layer, ())
    if kept:
        rows.append(("preserve", str(len(kept)), "experts dead in the mother"))
    return facts(rows)


def probes_of_layer(scans: Scans, measure: str, layer: int, half: str | None = None) -> Chart:
    """Importance of one layer on every probe, with intervals, in both parents."""
    missing = why_no_half(scans, measure, half)
    if missing:
        return nothing(missing)
    values: dict[str, dict[str, tuple[float, float, float]]] = {}
    texts: dict[str, int] = {}
    for who, scan in scans.items():
        if scan is None or (half is not None and not scan.has_halves):
            continue
        mean = scan.importance(measure, half)
        texts |= scan.texts
        values[who] = {}
        for probe in scan.probes:
            low, high = (float(bound) for bound in scan.interval(measure, probe, half)[layer])
            values[who][probe] = (float(mean[probe][layer]), low, high)
    unit = f"{UNITS[measure]}, {HALVES[half]} left out" if half else UNITS[measure]
    return layer_probes(values, layer=layer, unit=unit, texts=texts)


def text_table(pair: Pair, scans: Scans, measure: str, layer: int, probe: str, half: str | None = None) -> Any:
    """The texts of one probe with the layer's importance on each in both parents, largest effect first."""
    missing = why_no_half(scans, measure, half)
    kept = {who: scan for who, scan in scans.items() if scan and probe in scan.probes}
    if missing or probe not in pair.probes.texts or not kept:
        return table_value((), (), empty=missing or "Not read on this probe yet.")
    per_text = {
        who: np.asarray((scan.halves[half] if half else scan.per_text)[measure][probe][:, layer], dtype=np.float64)
        for who, scan in kept.items()
        if half is None or scan.has_halves
    }
    lengths = next(iter(kept.values())).lengths[probe]
    effect = np.max([np.abs(np.nan_to_num(values)) for values in per_text.values()], axis=0)
    rows = []
    for number in np.argsort(-effect, kind="stable"):
        words = pair.probes.texts[probe][number]
        words = words if len(words) <= LONGEST_TEXT else words[:LONGEST_TEXT] + " …"
        values = [float(per_text[who][number]) if who in per_text else None for who in ("father", "mother")]
        apart = None if None in values else values[0] - values[1]  # type: ignore[operator]
        rows.append(Row(str(number), (words, int(lengths[number]), *values, apart)))
    columns = (
        Column("text", "quote"),
        Column("tokens", "number"),
        Column("father", "number", 4, UNITS[measure]),
        Column("mother", "number", 4, UNITS[measure]),
        Column("difference", "signed", 4, f"Father minus mother, {UNITS[measure]}"),
    )
    return table_value(columns, rows)


def _reports(scans: Scans, layer: int) -> dict[str, tuple[ExpertReport, int]]:
    """Who -> report and the layer's row in it, for parents whose layer has experts."""
    found = {}
    for who, scan in scans.items():
        report = scan.expert_report() if scan else None
        if report is not None and layer in report.layers:
            found[who] = (report, report.layers.index(layer))
    return found


def experts_of_layer(scans: Scans, layer: int) -> Chart:
    """Expert load of one layer in both parents."""
    found = _reports(scans, layer)
    return layer_experts(
        {who: report.utilisation[row].tolist() for who, (report, row) in found.items()},
        {who: report.dead[row].tolist() for who, (report, row) in found.items() if report.certified},
        layer=layer,
        saliency={who: report.saliency[row].tolist() for who, (report, row) in found.items()},
    )


def expert_table(scans: Scans, layer: int) -> dict[str, Any]:
    """Every expert of one layer: load and saliency in both parents, and who it is dead or cold in."""
    found = _reports(scans, layer)
    columns = [Column("expert", "number")]
    for who in found:
        columns += [
            Column(f"{who}'s load", "share", 2, "Share of the routed tokens"),
            Column(f"{who}'s saliency", "number", 4, "Mean gate × output norm over the tokens the expert got"),
        ]
    columns.append(
        Column("state", "text", title="Dead: 95 % upper bound below a twentieth of the even share; cold: a fifth")
    )
    rows = []
    for expert in range(max((report.utilisation.shape[1] for report, _ in found.values()), default=0)):
        cells: list[Any] = [expert]
        states: dict[str, list[str]] = {}
        for who, (report, row) in found.items():
            cells += [float(report.utilisation[row, expert]), float(report.saliency[row, expert])]
            if report.dead[row, expert] or (report.cold[row, expert] and report.certified):
                states.setdefault("dead" if report.dead[row, expert] else "cold", []).append(who)
        said = "; ".join(f"{state} in {'both' if len(people) > 1 else people[0]}" for state, people in states.items())
        rows.append(Row(str(expert), (*cells, said)))
    return table_value(columns, rows, empty=f"L{layer} has no routed experts.")


def tensor_table(lab: Lab, pair: Pair, layer: int) -> dict[str, Any]:
    """The layer's tensors with what tells the parents apart, where the static profile is there."""
    profile = lab.static(pair)
    rows = [
        Row(part.name, (part.name.split(f".{layer}.", 1)[-1], _shape(part), *_measured(profile, [part.name])))
        for part in pair.anatomy.layer_parts(layer)
    ]
    return table_value((Column("tensor", "code"), Column("shape", "code"), *STATIC_COLUMNS), rows)


def model_tensors(lab: Lab, pair: Pair) -> dict[str, Any]:
    """Every tensor of the model; where there are thousands, the numbered experts of a layer share a row of means."""
    profile = lab.static(pair)
    groups: dict[str, list[Part]] = {}
    fold = len(pair.anatomy.parts) > MOST_TENSORS
    for part in pair.anatomy.parts.values():
        groups.setdefault(NUMBERED.sub(r"\g<1>*", part.name) if fold else part.name, []).append(part)
    rows = []
    for name, parts in groups.items():
        first = parts[0]
        layer = "–" if first.layer is None else f"L{first.layer}"
        shape = _shape(first) if len(parts) == 1 else f"{len(parts)} of {_shape(first)}"
        role = first.role.replace("_", " ")
        rows.append(Row(name, (name, layer, role, shape, *_measured(profile, [part.name for part in parts]))))
    columns = (Column("tensor", "code"), Column("layer"), Column("role"), Column("shape", "code"), *STATIC_COLUMNS)
    return table_value(columns, rows, empty=NO_PROFILE)


def layer_tensors_note(pair: Pair, layer: int) -> str:
    """How many tensors the layer has, and what the numbers compare."""
    return f"L{layer} · {len(pair.anatomy.layer_parts(layer))} tensors · mother against father"


def tensors_note(lab: Lab, pair: Pair) -> str:
    """How many tensors there are and how many were compared."""
    profile = lab.static(pair)
    if profile is None:
        return NO_PROFILE
    still = sum(row.delta_norm == 0 for row in profile.rows)
    same = f" · {still:,} alike to the last bit" if still else ""
    copied = len(pair.anatomy.parts) - len(profile.rows)
    rest = f" · {copied:,} copied from the father, not compared" if copied else ""
    return f"{len(profile.rows):,} tensors compared{same}{rest}"


def _shape(part: Part) -> str:
    return "×".join(str(axis) for axis in part.shape)


def _measured(profile: StaticProfile | None, names: Iterable[str]) -> tuple[float | None, ...]:
    """What was measured of a tensor, or the mean over the experts that share a row; blanks where nothing was."""
    rows = [profile.by_name[name] for name in names if name in profile.by_name] if profile else []
    if not rows:
        return (None,) * len(MEASURED)
    return tuple(float(np.mean([getattr(row, field) for row in rows])) for field in MEASURED)
