"""The health check: a child's scan beside those of both parents.

Takes three scans of the same probes; gives, per layer and probe, what went wrong, what became of the experts, a
verdict in one sentence, and the parent each failing layer should move towards (`mending` measures how far). The
thresholds are ours; they are parameters and stay in the result.
Must not know: recipes, tensors, how a scan was made.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from darwin_lab.errors import LabError
from darwin_lab.mri.advantage import probe_weights
from darwin_lab.mri.health_record import Advice, Health, LayerRow, NllRow, Thresholds, Transplant
from darwin_lab.mri.loops import LoopRow, Loops, loop_rows, loops_more
from darwin_lab.mri.moe_health import moe_health
from darwin_lab.mri.record import MEASURES, Scan, shared_probes
from darwin_lab.statistics.bootstrap import bootstrap_mean

Floats = NDArray[np.float64]
WHO = ("child", "father", "mother")


def check_health(
    child: Scan,
    father: Scan,
    mother: Scan,
    golden: Sequence[int] = (),
    thresholds: Thresholds | None = None,
    expert_order: Mapping[int, tuple[int, ...]] | None = None,
    loops: Mapping[str, Loops] | None = None,
) -> Health:
    """Compare a child's scan with both parents' on the probes all three hold.

    `golden`: layers where the mother leads. `expert_order` as in `moe_health`. `loops` of child, father and
    mother, where they were counted. Raises `LabError` for scans that cannot be compared. Source: methods, section 6.
    """
    limits = thresholds or Thresholds()
    probes = shared_probes(child, father, mother)
    rows = tuple(row for probe in probes for row in _layer_rows(child, father, mother, probe, limits))
    nll = tuple(_nll_row(child, father, mother, probe, limits) for probe in probes)
    flagged = sorted({row.layer for row in rows if row.interference or row.function_loss})
    transplants = tuple(_transplant(child, father, mother, layer, probes, limits) for layer in golden)
    broken_at = _not_finite(child, probes)
    repeated = loop_rows(loops or {})
    verdict, sentence = _verdict(child, rows, nll, transplants, repeated, broken_at, limits)
    share = probe_weights(probes)
    scans = dict(zip(WHO, (child, father, mother), strict=True))
    return Health(
        child=child.model,
        father=father.model,
        mother=mother.model,
        verdict=verdict,
        sentence=sentence,
        rows=rows,
        nll=nll,
        layer_importance={who: _mean_importance(scan, share, limits.measure) for who, scan in scans.items()},
        dead_share={who: _dead_share(scan) for who, scan in scans.items()},
        moe_layers=child.moe_layers,
        transplants=transplants,
        advice=tuple(_advice(layer, rows, nll) for layer in flagged),
        thresholds=limits,
        moe=moe_health(child, father, mother, expert_order),
        loops=repeated,
        dtype=child.dtype,
    )


def flag_lines(father: Scan, mother: Scan, probe: str, limits: Thresholds) -> tuple[Floats, Floats]:
    """([L], [L]): a child's importance above the first is interference, below the second function loss.

    The second is minus infinity where neither parent's layer matters enough to lose, and never above what tells a
    child from the parent to whom the layer matters less (ours: without it a parent has lost what only the other does).
    Source: methods, section 6.
    """
    a, b = (parent.importance(limits.measure)[probe] for parent in (father, mother))
    most, least = np.maximum(a, b), np.minimum(a, b)
    matters = most > np.quantile(most, limits.loss_quantile)
    ceiling: Floats = limits.interference_factor * most + limits.interference_margin
    floor = limits.loss_factor * most
    if limits.inherited_factor:
        floor = np.minimum(floor, least / limits.inherited_factor)
    return ceiling, np.where(matters, floor, -np.inf)


def _layer_rows(child: Scan, father: Scan, mother: Scan, probe: str, limits: Thresholds) -> list[LayerRow]:
    own, a, b = (scan.importance(limits.measure)[probe] for scan in (child, father, mother))
    ceiling, floor = flag_lines(father, mother, probe, limits)
    interference, function_loss = own > ceiling, own < floor
    return [
        LayerRow(
            layer, probe, float(own[layer]), float(a[layer]), float(b[layer]),
            bool(interference[layer]), bool(function_loss[layer]),
        )
        for layer in range(child.layers)
    ]  # fmt: skip


def _nll_row(child: Scan, father: Scan, mother: Scan, probe: str, limits: Thresholds) -> NllRow:
    weights = child.weights("nll", probe)
    beyond = []
    for parent in (father, mother):
        difference = child.nll[probe].astype(np.float64) - parent.nll[probe]
        mean, low, high, _ = bootstrap_mean(difference, weights)
        beyond.append((float(mean), float(low), float(high)))
    own, a, b = (scan.mean_nll()[probe] for scan in (child, father, mother))
    lost = all(low > limits.worse_nll for _, low, _ in beyond)
    return NllRow(probe, child.texts[probe], child.tokens[probe], own, a, b, beyond[0], beyond[1], lost)


def _transplant(
    child: Scan, father: Scan, mother: Scan, layer: int, probes: tuple[str, ...], limits: Thresholds
) -> Transplant:
    """Importance and NLL of the child not below, respectively not above, the mother's interval."""
    if not 0 <= layer < child.layers:
        raise LabError(f"golden layer {layer} is not one of this model's {child.layers} layers; prescribe again")
    father_nll, mother_nll = father.mean_nll(), mother.mean_nll()
    wanted = tuple(probe for probe in probes if mother_nll[probe] < father_nll[probe]) or probes
    failed = []
    for probe in wanted:
        least = float(mother.interval(limits.measure, probe)[layer, 0])
        most = float(bootstrap_mean(mother.nll[probe], mother.weights("nll", probe))[2])
        importance = float(child.importance(limits.measure)[probe][layer])
        if importance < least or child.mean_nll()[probe] > most:
            failed.append(probe)
    return Transplant(layer, not failed, wanted, tuple(failed))


def _verdict(
    child: Scan,
    rows: Sequence[LayerRow],
    nll: Sequence[NllRow],
    transplants: Sequence[Transplant],
    loops: Sequence[LoopRow],
    broken_at: str | None,
    limits: Thresholds,
) -> tuple[str, str]:
    who = "The child" if child.model == "child" else child.model
    if broken_at is not None:
        return "unhealthy", f"{who} is unhealthy: its scan holds values that are not finite ({broken_at})."
    interfering = [row for row in rows if row.interference]
    losing = [row for row in rows if row.function_loss]
    share = len({row.layer for row in (*interfering, *losing)}) / child.layers
    lost = [row for row in nll if row.lost]
    broken = [row for row in lost if min(row.child_minus_father[0], row.child_minus_mother[0]) > limits.broken_nll]
    missed = [transplant.layer for transplant in transplants if not transplant.successful]
    if broken or share > limits.unhealthy_layers:
        verdict = "unhealthy"
    elif share > limits.watch_layers or lost or missed or loops_more(loops):
        verdict = "watch"
    else:
        verdict = "healthy"
    reasons = []
    if interfering:
        worst = max(interfering, key=lambda row: row.child - limits.interference_factor * max(row.father, row.mother))
        reasons.append(f"interference in {_found(interfering, worst)}")
    if losing:
        reasons.append(f"function lost in {_found(losing, min(losing, key=_kept_share))}")
    if lost:
        reasons.append(f"worse than both parents on {', '.join(row.probe for row in lost)}")
    if missed:
        reasons.append(f"transplant incomplete in golden {_layers(missed)}")
    if loops_more(loops):
        reasons.append(f"more texts that end in a loop than in both parents ({loops[0].looping} of {loops[0].texts})")
    words = "needs watching" if verdict == "watch" else f"is {verdict}"
    because = "; ".join(reasons) or "no layer interferes, none lost its function, no probe is worse than both parents"
    return verdict, f"{who} {words}: {because}."


def _advice(layer: int, rows: Sequence[LayerRow], nll: Sequence[NllRow]) -> Advice:
    """Towards the parent with the lower NLL, token-weighted over the probes under which the layer is flagged."""
    failing = [row for row in rows if row.layer == layer and (row.interference or row.function_loss)]
    probes = tuple(row.probe for row in failing)
    concerned = [row for row in nll if row.probe in probes]
    predicted = np.asarray([row.tokens - row.texts for row in concerned], dtype=np.float64)
    father = float(np.average([row.father for row in concerned], weights=predicted))
    mother = float(np.average([row.mother for row in concerned], weights=predicted))
    what = [word for word, flags in (
        ("interference", [row.interference for row in failing]),
        ("function loss", [row.function_loss for row in failing]),
    ) if any(flags)]  # fmt: skip
    towards = "mother" if mother < father else "father"
    better, other = (mother, father) if towards == "mother" else (father, mother)
    where = f"{' and '.join(what)} on {', '.join(probes)}"
    reason = f"{where}; there the {towards} reads at {better:.3f}, the other parent at {other:.3f}"
    return Advice(layer, towards, abs(father - mother), probes, reason)


def _mean_importance(scan: Scan, share: dict[str, float], measure: str) -> tuple[float, ...]:
    importance = scan.importance(measure)
    mean = sum((weight * importance[probe] for probe, weight in share.items()), np.zeros(scan.layers))
    return tuple(float(value) for value in mean)


def _dead_share(scan: Scan) -> tuple[float, ...] | None:
    report = scan.expert_report()
    if report is None or not report.certified:
        return None
    return tuple(float(value) for value in report.dead_share)


def _not_finite(scan: Scan, probes: tuple[str, ...]) -> str | None:
    for probe in probes:
        if not np.isfinite(scan.nll[probe]).all():
            return f"NLL of {probe}"
        for measure in MEASURES:
            bad = np.flatnonzero(~np.isfinite(scan.per_text[measure][probe]).all(axis=0))
            if len(bad):
                return f"{measure} of {probe}, L{bad[0]}"
    return None


def _found(rows: Sequence[LayerRow], worst: LayerRow) -> str:
    """The layers of some findings, with the layer and the probe of the worst."""
    layers = sorted({row.layer for row in rows})
    named = f"on {worst.probe}" if len(rows) == 1 else f"worst on {worst.probe}"
    return f"{_layers(layers)} ({named if len(layers) == 1 else f'worst in L{worst.layer} on {worst.probe}'})"


def _kept_share(row: LayerRow) -> float:
    """Of what the layer is worth to the parent it is worth most to, the share it is worth to the child."""
    return row.child / max(row.father, row.mother)


def _layers(layers: Sequence[int]) -> str:
    return ", ".join(f"L{layer}" for layer in layers)
