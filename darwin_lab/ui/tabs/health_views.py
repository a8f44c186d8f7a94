"""What the Health tab shows of a health check and of a mending: charts, tables and sentences.

Takes results of the MRI; gives values for components. Reads nothing and wires nothing.
"""

from __future__ import annotations

import json
import math
from typing import Any

from darwin_lab.lab.memory import in_words
from darwin_lab.mri.health_record import Advice, Health, NllRow
from darwin_lab.mri.loops import LEVEL
from darwin_lab.mri.mending import NOT_CLEARED, LayerMend, Mending
from darwin_lab.mri.moe_health import Expert, MoeHealth
from darwin_lab.ui.components.data_table import Column, Row, mark, table_value
from darwin_lab.ui.figures.dead_share import dead_share
from darwin_lab.ui.figures.gap_forest import Gaps, nll_gaps
from darwin_lab.ui.figures.health_bars import health_bars
from darwin_lab.ui.figures.style import Chart, nothing
from darwin_lab.ui.session import verdict

ALL = "All skills"
TONE = {"healthy": "ok", "watch": "watch", "unhealthy": "bad"}
DENSE = "A dense model has no routed experts."
MOST_NAMED, MOST_FLAGS = 3, 6
"""Up to this many probes of a flag, and flagged layers in a sentence, are named one by one."""
NO_FLAG = "No layer is flagged: there is nothing to mend."
NO_LOOPS = (
    "Not counted yet. Press “Check health”; models that are streamed, or read fewer than 18 tokens, do not write."
)
METRICS = {
    "dead_share": ("dead experts", "share", None,
                   "Certified dead on these probes, mean over the MoE layers. Half is the published alarm line."),
    "load_entropy": ("load entropy", "number", 3,
                     "How evenly the tokens are spread, 0 one expert, 1 even. Watched when below both parents."),
    "entropy_cap": ("its ceiling", "number", 3,
                    "What the dead experts leave room for (half of 256 dead: .875). A load entropy above it is a "
                    "contradiction: one of the two is wrong."),
    "token_entropy": ("token entropy", "number", 3,
                      "How undecided the router is about one token. It may be high beside dead experts: no alarm."),
    "gini": ("Gini of the load", "number", 3,
             "0 all experts alike, towards 1 one does all. Watched when above both parents."),
    "max_load": ("largest load", "number", 2, "The busiest expert, as a multiple of the even share."),
    "similarity": ("output similarity", "number", 3,
                   "Mean cosine of two experts' outputs on the same tokens: near 1 they do the same work, near 0 is no "
                   "sign of health."),
    "revived": ("experts revived", "number", 0,
                "Dead in a parent, and chosen in the child at least as often as the dead line: measured on the child."),
    "died": ("experts lost", "number", 0, "Alive in both parents and certified dead in the child."),
}  # fmt: skip
ALONE = {"entropy_cap": "no layer above it", "died": "none"}
"""What is well by itself, not beside the parents."""
STATUS = {
    "ok": mark(True, "not clearly worse than a parent"),
    "watch": mark(False, "watch"),
    "bad": mark(False, "alarm"),
    "unknown": mark(None, "not known"),
    "plain": mark(None, "—"),
}


def threshold_words(health: Health) -> str:
    """The thresholds the verdict used, and the precision it was computed in where that is not the default."""
    limits = health.thresholds
    return (
        f"Interference above {limits.interference_factor:g} × the larger parent + {limits.interference_margin:g}; "
        f"function loss, in the top {1 - limits.loss_quantile:.0%} of layers, below {limits.loss_factor:g} × the "
        f"larger parent{_inherited(limits.inherited_factor)}. "
        f"Thresholds are ours.{_scanned(health)}"
    )


def _inherited(factor: float) -> str:
    return f" and below the smaller parent / {factor:g}" if factor else ""


def _scanned(health: Health) -> str:
    computed = in_words(health.dtype)
    return f" All three were scanned{computed}." if computed else ""


def transplant_words(health: Health) -> str:
    """What became of the golden layers, where the mother clearly leads; empty when there is none."""
    told = [
        f"L{one.layer} successful" if one.successful else f"L{one.layer} short of the mother on {', '.join(one.failed)}"
        for one in health.transplants
    ]
    return f"Transplants in golden layers: {'; '.join(told)}. " if told else ""


def flags_of(health: Health, probe: str) -> dict[int, str]:
    """Layer -> why it is flagged under a probe; under any, with the probes that flag it."""
    flags: dict[int, dict[str, list[str]]] = {}
    for row in health.rows:
        if probe not in (ALL, row.probe):
            continue
        for name, hit in (("function loss", row.function_loss), ("interference", row.interference)):
            if hit:
                flags.setdefault(row.layer, {}).setdefault(name, []).append(row.probe)
    return {
        layer: " and ".join(f"{name}{_on(found) if probe == ALL else ''}" for name, found in sorted(why.items()))
        for layer, why in sorted(flags.items())
    }


def _on(probes: list[str]) -> str:
    return f" (on {', '.join(probes)})" if len(probes) <= MOST_NAMED else f" (on {len(probes)} probes)"


def flag_words(health: Health) -> str:
    """The flagged layers with the probes that flag them; empty when there is none, or too many for a sentence."""
    flags = flags_of(health, ALL)
    told = "; ".join(f"L{layer} {why}" for layer, why in flags.items())
    return f"Flagged: {told}. " if 0 < len(flags) <= MOST_FLAGS else ""


def bar_chart(health: Health, probe: str) -> Chart:
    """Importance per layer of child, father and mother for one probe or over all skills."""
    if probe == ALL:
        lines = {who: health.layer_importance[who] for who in ("child", "father", "mother")}
    else:
        rows = sorted((row for row in health.rows if row.probe == probe), key=lambda row: row.layer)
        lines = {who: tuple(getattr(row, who) for row in rows) for who in ("child", "father", "mother")}
    return health_bars(lines["child"], lines["father"], lines["mother"], probe=probe, flags=flags_of(health, probe))


def dead_chart(health: Health) -> Chart:
    """Dead experts per layer of child and parents."""
    shares = {who: values for who, values in health.dead_share.items() if values is not None}
    if not health.moe_layers:
        return nothing(DENSE)
    if not shares:
        return nothing("Too few tokens or texts to call an expert dead in any of the three.")
    missing = {who: f"{who}: not enough tokens or texts" for who, values in health.dead_share.items() if values is None}
    return dead_share(shares, moe_layers=health.moe_layers, uncertified=missing)


def gap_chart(health: Health) -> Chart:
    """The child's NLL minus each parent's, probe by probe."""
    return nll_gaps([Gaps(row.probe, row.texts, row.child_minus_father, row.child_minus_mother) for row in health.nll])


def loss_table(health: Health, vocabulary: int | None = None) -> dict[str, Any]:
    """NLL per probe of the three, and the child minus each parent with its interval; with the number of tokens of the
    vocabulary, the probes that the child reads worse than a draw among them would."""
    rows = []
    for row in health.nll:
        said = loss_words(row, health.thresholds.worse_nll)
        guessed = vocabulary is not None and row.child > math.log(vocabulary)
        if vocabulary is not None and guessed:
            said += f"; worse than guessing a token at random ({math.log(vocabulary):.2f})"
            if min(row.father, row.mother) > math.log(vocabulary):
                said += ", as both parents are"
        known = all(math.isfinite(gap[1]) for gap in (row.child_minus_father, row.child_minus_mother))
        rows.append(
            Row(
                row.probe,
                (
                    row.probe, row.child, row.father, row.mother,
                    gap_words(row.child_minus_father), gap_words(row.child_minus_mother),
                    mark(False if row.lost or guessed else True if known else None, said),
                ),
            )
        )  # fmt: skip
    columns = (
        Column("probe"),
        Column("child", "number", 3),
        Column("father", "number", 3),
        Column("mother", "number", 3),
        Column("child − father", "number"),
        Column("child − mother", "number"),
        Column("verdict", "mark"),
    )
    return table_value(columns, rows)


def loss_words(row: NllRow, slack: float) -> str:
    """Where the child's NLL lies beside the parents', intervals included; `slack` as in the health's thresholds."""
    gaps = {"father": row.child_minus_father, "mother": row.child_minus_mother}
    if not all(math.isfinite(low) for _, low, _ in gaps.values()):
        return "one text: no interval"
    worse = [who for who, (_, low, _) in gaps.items() if low > slack]
    better = [who for who, (_, _, high) in gaps.items() if high < 0]
    if len(worse) == 2:
        return "worse than both"
    if len(better) == 2:
        return "better than both"
    if worse and better:
        return "between the parents"
    if worse:
        return f"worse than the {worse[0]}, not shown worse than the {'mother' if worse == ['father'] else 'father'}"
    return f"better than the {better[0]}" if better else "not shown worse than either"


def loop_table(health: Health) -> dict[str, Any]:
    """Who, how many of the texts it wrote end in a loop, with the interval, and the test of the child against them."""
    columns = (
        Column("who"), Column("in a loop", "number", 0), Column("texts", "number", 0), Column("share", "number"),
        Column("95 %", "number", None, "Wilson interval"), Column("child against it", "mark", None, "McNemar, exact"),
    )  # fmt: skip
    own = next((row.looping for row in health.loops if row.who == "child"), 0)
    rows = []
    for row in health.loops:
        told = mark(None, "—") if row.p is None else mark(
            not (own > row.looping and row.p < LEVEL), f"{own - row.looping:+d} texts, p {row.p:.2g}"
        )  # fmt: skip
        interval = f"[{row.low:.1%}, {row.high:.1%}]"
        rows.append(Row(row.who, (row.who, row.looping, row.texts, f"{row.looping / row.texts:.1%}", interval, told)))
    return table_value(columns, rows, empty=NO_LOOPS)


def advice_table(health: Health, mending: Mending | None = None) -> dict[str, Any]:
    """One row a flagged layer: towards whom, and why; what was tried in vain under the same thresholds is said."""
    stuck = (
        {(one.layer, one.towards) for one in mending.layers if one.outcome == NOT_CLEARED}
        if mending is not None and mending.before.thresholds == health.thresholds
        else set()
    )

    def move(item: Advice) -> dict[str, str]:
        tried = (item.layer, item.towards) in stuck
        return mark(
            False if tried else None, f"towards the {item.towards}{', already tried: does not clear' if tried else ''}"
        )

    rows = [Row(str(item.layer), (f"L{item.layer}", move(item), item.gap, item.reason)) for item in health.advice]
    columns = (
        Column("layer"),
        Column("move", "mark"),
        Column("parents' gap", "number", 3, "How much lower that parent reads there than the other, nats a token"),
        Column("why", "long"),
    )
    return table_value(columns, rows, empty=NO_FLAG)


def moe_table(moe: MoeHealth | None) -> dict[str, Any]:
    """Metric | child | father | mother | status | what it means."""
    columns = (
        Column("metric"), Column("child", "number"), Column("father", "number"), Column("mother", "number"),
        Column("status", "mark"), Column("what it means", "long"),
    )  # fmt: skip
    if moe is None:
        return table_value(columns, (), empty=DENSE)
    rows = []
    for metric in moe.metrics:
        label, kind, digits, meaning = METRICS[metric.name]
        values = tuple(_value(one, kind, digits) for one in (metric.child, metric.father, metric.mother))
        status = STATUS[metric.status]
        if metric.status == "bad" and metric.note:
            status = {**status, "words": f"{status['words']}: {metric.note}"}
        elif metric.status == "ok" and metric.name in ALONE:
            status = mark(True, metric.note or ALONE[metric.name])
        rows.append(Row(metric.name, (label, *values, status, meaning), "bad" if metric.status == "bad" else ""))
    return table_value(columns, rows)


def expert_table(moe: MoeHealth | None) -> dict[str, Any]:
    """The experts that were revived or died, each with the tokens that say so."""
    columns = (
        Column("layer"), Column("expert", "number", 0), Column("what happened", "mark"),
        Column("tokens", "number", 0, "Probe tokens that chose it in the child"),
        Column("load", "number", 2, "Multiple of the even share 1/E in the child"),
    )  # fmt: skip
    if moe is None:
        return table_value(columns, (), empty=DENSE)

    def row(one: Expert) -> Row:
        words = "died: alive in both parents" if one.dead_in == "child" else f"revived: dead in {_parent(one.dead_in)}"
        told = mark(one.dead_in != "child", words)
        return Row(f"{one.layer}:{one.expert}", (f"L{one.layer}", one.expert, told, one.tokens, one.load))

    return table_value(
        columns, map(row, (*moe.revived, *moe.died)), empty=f"No expert was revived and none died ({moe.note})."
    )


# ---------------------------------------------------------------------------------------------------- mending


def mended_verdicts(mending: Mending) -> str:
    """The verdict before and after, side by side."""
    before = verdict(TONE[mending.before.verdict], f"Before: {mending.before.verdict}", mending.before.sentence)
    if mending.after is None:
        after = verdict("plain", "After: nothing was moved", "No ratio towards the advised parent clears a flag.")
    else:
        after = verdict(TONE[mending.after.verdict], f"After: {mending.after.verdict}", mending.after.sentence)
    return f"<div class='dl-two'>{before}{after}</div>"


def mended_layers(mending: Mending) -> dict[str, Any]:
    """One row a flagged layer: where it went, its flags and its importance before and after."""
    rows = []
    for one in mending.layers:
        flags = [
            flags_of(health, ALL).get(one.layer, "—") if health else "" for health in (mending.before, mending.after)
        ]
        importance = [
            health.layer_importance["child"][one.layer] if health else None
            for health in (mending.before, mending.after)
        ]
        rows.append(
            Row(
                str(one.layer),
                (
                    f"L{one.layer}", one.towards, one.before, one.after, flags[0], flags[1] or "as before",
                    *importance, mark(_outcome_tone(one), one.outcome),
                ),
            )
        )  # fmt: skip
    columns = (
        Column("layer"),
        Column("towards"),
        Column("share before", "number", 3, "The mother's share, mean over the layer's tensors"),
        Column("share after", "number", 3, "Every tensor of the layer takes it; blank: left as it was"),
        Column("flag before"),
        Column("flag after"),
        Column("matters before", "number", 4, "Mean over the skills, whole scan"),
        Column("matters after", "number", 4, "Mean over the skills, whole scan of the mended child"),
        Column("outcome", "mark"),
    )
    return table_value(columns, rows)


def mended_losses(mending: Mending) -> dict[str, Any]:
    """NLL per probe before and after, the difference with its paired interval, and both parents."""
    parents = {row.probe: row for row in mending.before.nll}
    rows = [
        Row(
            row.probe,
            (
                row.probe, row.texts, row.before, row.after, gap_words(row.difference),
                parents[row.probe].father, parents[row.probe].mother,
            ),
        )
        for row in mending.nll
    ]  # fmt: skip
    columns = (
        Column("probe"),
        Column("texts", "number", 0),
        Column("before", "number", 3),
        Column("after", "number", 3),
        Column("after − before", "number", None, "Paired over texts, 95 %; below zero the mended child reads better"),
        Column("father", "number", 3),
        Column("mother", "number", 3),
    )
    return table_value(columns, rows, empty="No layer was moved.")


def tried_table(mending: Mending) -> dict[str, Any]:
    """Every ratio that was measured on the way."""
    rows = []
    for mend in mending.layers:
        for one in (mend.was, *mend.tried):
            chosen = mend.after == one.ratio
            rows.append(
                Row(
                    f"{mend.layer}:{one.ratio}",
                    (
                        f"L{mend.layer}", one.ratio, ", ".join(one.flagged) or "—", ", ".join(one.lost) or "—",
                        mark(None, "chosen" if chosen else "as it was" if one is mend.was else ""),
                    ),
                    "child" if chosen else "",
                )
            )  # fmt: skip
    columns = (
        Column("layer"),
        Column("mother's share", "number", 4),
        Column("flagged on", "long"),
        Column("worse than both on", "long"),
        Column("", "mark"),
    )
    return table_value(columns, rows)


def report_text(health: Health, mending: Mending | None) -> str:
    """What the download holds: the whole check, and the mending where there is one."""
    return json.dumps({**health.to_json(), "mending": None if mending is None else mending.to_json()}, indent=1)


def gap_words(values: tuple[float, float, float]) -> str:
    """A difference with its interval."""
    mean, low, high = values
    return f"{mean:+.3f} [{low:+.3f},\u00a0{high:+.3f}]"


def _value(value: float | None, kind: str, digits: int | None) -> str:
    if value is None:
        return "—"
    return f"{value:.1%}" if kind == "share" else f"{value:.{digits}f}"


def _parent(who: str) -> str:
    return "both parents" if who == "both" else f"the {who}"


def _outcome_tone(one: LayerMend) -> bool:
    return one.outcome != NOT_CLEARED
