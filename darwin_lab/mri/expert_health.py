"""What the expert diagnostics of a model come to: one line a metric, with a status and what it means.

Takes an `ExpertReport`; gives verdicts over all MoE layers. The limits are ours, not published ones, and each is said
beside its number. Must not know: models, charts, the other parent.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from darwin_lab.merging.prescription import DEAD
from darwin_lab.mri.experts import PRESENCE, ExpertReport
from darwin_lab.mri.moe_health import entropy_cap

MANY_DEAD, SOME_DEAD = 0.25, 0.02
"""Shares of dead experts above which a model is unwell, or worth a look."""
EVEN_LOAD = 0.9
"""A load entropy below this is uneven use."""
UNDECIDED = 0.98
"""A token entropy above this: the router hardly chooses."""
UNEVEN = 0.6
"""A Gini coefficient above this: few experts do most of the work."""
OVERLOAD = 8.0
"""Times the even share that the busiest expert may get."""
ALIKE = 0.5
"""A mean pairwise cosine above this: the experts answer much alike."""


@dataclass(frozen=True)
class ExpertVerdict:
    """One metric over the MoE layers: its mean, the layer that is worst, and what that says.

    `ok` is None where there is no good and bad, or nothing can be said; `text` is the value as written.
    """

    metric: str
    text: str
    ok: bool | None
    status: str
    meaning: str


def expert_verdicts(report: ExpertReport) -> tuple[ExpertVerdict, ...]:
    """The MoE health table of one model: dead, presence, entropies, specialisation, inequality, overload, similarity.

    Source: methods, section 4; the limits are ours.
    """
    return (
        _dead(report),
        _presence(report),
        _load(report),
        _token(report),
        _line(
            report,
            "specialisation",
            report.specialisation,
            "lowest",
            None,
            "{:.3f} nats",
            "what knowing the token tells about the expert; 0: the router ignores the token. No limit is known.",
        ),
        _line(
            report,
            "Gini of the load",
            report.gini,
            "highest",
            UNEVEN,
            "{:.3f}",
            "0: all experts work alike, towards 1: one does everything.",
        ),
        _line(
            report,
            "variation of the load",
            report.variation,
            "highest",
            None,
            "{:.3f}",
            "standard deviation of the load over its mean; the same story as Gini, more sensitive to one busy expert.",
        ),
        _line(
            report,
            "busiest expert",
            report.max_load,
            "highest",
            OVERLOAD,
            "{:.2f} × even",
            "the load of the busiest expert as a multiple of the even share: what slows a deployment down.",
        ),
        _similarity(report),
    )


def _dead(report: ExpertReport) -> ExpertVerdict:
    meaning = (
        f"the upper 95 % bound of its use lies below {DEAD:g} of an even share: its weights are all but idle on these "
        "probes; other texts may wake it."
    )
    if not report.certified:
        return ExpertVerdict("dead experts", "–", None, "not enough tokens or texts", report.note)
    share, worst = report.dead_share, int(np.argmax(report.dead_share))
    if not share.any():
        return ExpertVerdict("dead experts", "0.0 %", True, "none", meaning)
    mean = float(share.mean())
    text = f"{100 * mean:.1f} %"
    place = f"L{report.layers[worst]} {100 * share[worst]:.0f} %"
    ok = mean <= SOME_DEAD
    status = "few" if ok else "some" if mean <= MANY_DEAD else "many"
    return ExpertVerdict("dead experts", text, ok, f"{status} · worst {place}", meaning)


def _presence(report: ExpertReport) -> ExpertVerdict:
    rare = float((report.presence < PRESENCE).mean())
    meaning = f"experts chosen in under {100 * PRESENCE:g} % of the texts: the published card's rule, without a bound."
    return ExpertVerdict("dead by presence", f"{100 * rare:.1f} %", None, "for comparison", meaning)


def _load(report: ExpertReport) -> ExpertVerdict:
    entropy = report.load_entropy
    meaning = (
        "evenness of use over all tokens: 1 is even, less beside dead experts; a mean above what those leave room for "
        "would contradict the dead share."
    )
    line = _line(report, "load entropy", entropy, "lowest", EVEN_LOAD, "{:.3f}", meaning)
    if not report.certified:
        return line
    most = entropy_cap(report.utilisation, report.dead).mean()
    return replace(line, status=f"{line.status} · at most {most:.3f} with its dead experts")


def _token(report: ExpertReport) -> ExpertVerdict:
    entropy = report.token_entropy
    meaning = "how undecided the router is about one token: 1 is a coin toss, 0 is sure. High is no sign of life."
    if (entropy > UNDECIDED).any():
        worst = int(np.argmax(entropy))
        return ExpertVerdict(
            "token entropy", f"{entropy.mean():.3f}", False, f"hardly chooses · L{report.layers[worst]}", meaning
        )
    return _line(report, "token entropy", entropy, "lowest", None, "{:.3f}", meaning)


def _similarity(report: ExpertReport) -> ExpertVerdict:
    meaning = "mean cosine of two experts' outputs on the same tokens; near 0 is no sign of health, near 1 is waste."
    values = report.output_similarity
    if values is None:
        return ExpertVerdict("output similarity", "–", None, "not measured", "scan again to measure it: " + meaning)
    return _line(report, "output similarity", values, "highest", ALIKE, "{:.3f}", meaning)


def _line(
    report: ExpertReport,
    metric: str,
    values: NDArray[np.float64],
    worst: str,
    limit: float | None,
    form: str,
    meaning: str,
) -> ExpertVerdict:
    """Mean over layers; the status names the `worst` ("lowest" or "highest") layer, and how many are beyond `limit`."""
    lowest = worst == "lowest"
    at = int(values.argmin() if lowest else values.argmax())
    status, ok = f"{worst} L{report.layers[at]} {form.format(float(values[at]))}", None
    if limit is not None:
        beyond = int(((values < limit) if lowest else (values > limit)).sum())
        ok = not beyond
        if beyond:
            status = f"{beyond} of {len(values)} layers {'below' if lowest else 'above'} {limit:g} · {status}"
    return ExpertVerdict(metric, form.format(float(values.mean())), ok, status, meaning)
