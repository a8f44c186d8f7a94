"""The verb `plan`: what a merge would do and cost, and what the child takes to run, before anything long starts."""

import argparse
from collections.abc import Iterable, Sequence

from darwin_lab.checkpoint.looking import look_at
from darwin_lab.engine import plan_words as words
from darwin_lab.engine.calibration import calibrate
from darwin_lab.engine.hardware import GIB
from darwin_lab.engine.places import check_place
from darwin_lab.engine.plan import COPIED, DROPPED, MERGED, STUCK, ModelPlan, Plan, plan_pair, timed
from darwin_lab.errors import LabError
from darwin_lab.progress import Tick
from darwin_lab.sizes import bytes_words
from darwin_lab.verbs.common import Result


def run(arguments: argparse.Namespace, tick: Tick) -> Result:
    """Plan a pair, or look at one model. Parents that cannot be merged are planned too: the checks say why."""
    refs = {"father": arguments.father, "mother": arguments.mother, "ancestor": arguments.ancestor}
    for flag in ("ancestor", "operator", "vocab", "out"):
        if arguments.mother is None and getattr(arguments, flag) is not None:
            raise LabError(f"--{flag} needs two parents; name the mother too")
    if arguments.out is not None:
        check_place(arguments.out)
    operator = arguments.operator or "lerp"
    opened = {}
    for place, (who, ref) in enumerate(refs.items()):
        if ref is not None:
            tick(place / 4, f"reading the headers of the {who}")
            opened[who] = look_at(ref)
    plan = plan_pair(
        opened["father"],
        opened.get("mother"),
        opened.get("ancestor"),
        vocabulary=arguments.vocab or "same",
        operator=operator,
        out=arguments.out,
    )
    if plan.mother is not None and plan.compatible:
        tick(0.75, f"timing {operator} on this machine")
        plan = timed(plan, calibrate(operator))
    tick(1.0, "planned")
    return Result(plan.to_json(), plan_text(plan))


def plan_text(plan: Plan) -> str:
    """The whole plan as people read it."""
    parts = [_model_text("father" if plan.mother else "model", plan.father)]
    if plan.mother is not None:
        parts += [_mother_text(plan.father, plan.mother), _checks_text(plan), _fates_text(plan), _cost_text(plan)]
    parts.append(_vram_text(plan.father, "The child" if plan.mother else "The model"))
    return "\n\n".join(parts)


def _model_text(who: str, model: ModelPlan) -> str:
    lines = [f"{who.capitalize()}: {model.name} ({model.architecture})", f"  {words.layers_words(model)}"]
    lines += [f"  {words.size_words(model)}", f"  {words.active_words(model)}", ""]
    rows = [
        (
            words.role_words(row.role),
            f"{row.tensors:,}",
            words.count_words(row.parameters),
            words.count_words(row.active) if row.active else "-",
            bytes_words(row.bytes),
        )
        for row in model.roles
    ]
    return "\n".join([*lines, _table(("role", "tensors", "parameters", "active", "size"), rows, left=1)])


def _mother_text(father: ModelPlan, mother: ModelPlan) -> str:
    same = (father.layout, father.active, father.text) == (mother.layout, mother.active, mother.text)
    lines = [f"Mother: {mother.name} ({mother.architecture})", f"  {words.size_words(mother)}"]
    if not same:
        lines += [f"  {words.layers_words(mother)}", f"  {words.active_words(mother)}"]
    return "\n".join(lines)


def _checks_text(plan: Plan) -> str:
    head = "They can be merged." if plan.compatible else "They cannot be merged as asked:"
    rows = [
        (
            check.what,
            "ok" if check.ok else "differs",
            check.father if check.father == check.mother else f"{check.father} against {check.mother}",
        )
        for check in plan.checks
    ]
    remedies = [f"  {check.what}: {check.remedy}" for check in plan.checks if not check.ok]
    return "\n".join([head, *remedies, "", _table(("check", "", "father and mother"), rows, left=3)])


def _fates_text(plan: Plan) -> str:
    lines = ["What happens to each tensor:", *(f"  {sentence}" for sentence in words.fate_words(plan))]
    rows: dict[tuple[str, str, str], list[int]] = {}
    for group in plan.groups:
        counts = rows.setdefault((group.fate, words.role_words(group.role), group.reason), [0, 0])
        counts[0] += group.tensors
        counts[1] += group.bytes
    order = (MERGED, COPIED, STUCK, DROPPED)
    ranked = sorted(rows.items(), key=lambda row: (order.index(row[0][0]), -row[1][1]))
    table = [(fate, role, f"{n:,}", bytes_words(size), reason) for (fate, role, reason), (n, size) in ranked]
    return "\n".join([*lines, "", _table(("fate", "role", "tensors", "size", "reason"), table, left=2, last_left=True)])


def _cost_text(plan: Plan) -> str:
    cost = plan.cost
    if cost is None:
        return ""
    estimate = words.time_estimate_words(cost) or "no estimate for parents that cannot be merged"
    return "\n".join(
        [
            f"Writing the child with {plan.operator}:",
            f"  memory  {words.memory_words(cost, plan.operator)}",
            f"  disk    {words.disk_words(cost)}",
            f"  time    {estimate}",
        ]
    )


def _vram_text(model: ModelPlan, who: str) -> str:
    serving = model.serving
    formats = [
        (
            form.name,
            f"{form.bits:.1f}",
            f"{form.bytes / GIB:,.1f}",
            f"{serving.needed(form) / GIB:,.1f}",
            card.name if (card := serving.smallest(form)) else "none below",
        )
        for form in serving.formats
    ]
    head = ("format", "bits a weight", "weights, GiB", "needed, GiB", "smallest card that holds it")
    cards = [
        (fit.card.name, *("yes" if form.name in fit.holds else "no" for form in serving.formats), fit.card.example)
        for fit in serving.telling_fits
    ]
    names = ("card", *(form.name for form in serving.formats), "such as")
    return "\n".join(
        [
            f"{who} in graphics memory:",
            _table(head, formats, left=1, last_left=True),
            "",
            _table(names, cards, left=len(names)),
            f"  {words.card_words(serving)}",
            "",
            f"  {words.allowance_words(model)}",
        ]
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, left: int, last_left: bool = False) -> str:
    """Columns as wide as their widest cell; the first `left` (and perhaps the last) are left-aligned."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    flush = [column < left or (last_left and column == len(head) - 1) for column in range(len(head))]
    return "\n".join(
        "  "
        + "  ".join(
            cell.ljust(width) if is_left else cell.rjust(width)
            for cell, width, is_left in zip(line, widths, flush, strict=True)
        ).rstrip()
        for line in lines
    )
