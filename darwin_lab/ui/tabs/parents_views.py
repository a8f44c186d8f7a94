"""What the Parents tab shows, as plain functions: a pair, or a look at one, in; tables and sentences out.

Takes pairs, looks and plans; gives the values of tables and HTML. Knows no component and starts no work.
"""

from __future__ import annotations

import html
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Protocol

from darwin_lab.checkpoint.anatomy import Anatomy
from darwin_lab.checkpoint.compare import Check
from darwin_lab.checkpoint.layout import layout_words
from darwin_lab.engine import plan_words as words
from darwin_lab.engine.plan import COPIED, DROPPED, MERGED, STUCK, ModelPlan, Plan
from darwin_lab.lab.memory import MemoryChoice
from darwin_lab.lab.pairs import Pair
from darwin_lab.lab.planning import Look
from darwin_lab.sizes import bytes_words
from darwin_lab.ui.components.data_table import Column, Row, mark, table_value
from darwin_lab.ui.session import facts, say, verdict

GENE_OF = {"attn": "attention gene", "ffn": "FFN gene", "embed": "embedding gene", "global": "whole-model gene"}
_FATE_WORDS = {MERGED: "merged", COPIED: "copied", STUCK: "cannot be merged", DROPPED: "dropped"}


class Checked(Protocol):
    """A pair or a plan."""

    @property
    def checks(self) -> tuple[Check, ...]: ...


def pair_words(pair: Pair) -> str:
    """The verdict over an open pair and who descends from whom."""
    tensors = _moved(pair.anatomy, pair.ancestor is not None)
    return _verdict_words(pair, pair.father.name, pair.mother.name, f"{tensors} {pair.experts_words}".strip())


def look_words(look: Look) -> str:
    """The verdict over a pair that was looked at and not opened."""
    still = f"Looked at, not opened: {bytes_words(look.total_bytes)} of weights were left unread."
    tensors = _moved(look.anatomy, look.ancestor is not None)
    return _verdict_words(look.plan, look.father.name, look.mother.name, f"{still} {tensors}")


def reading_words(look: Look) -> str:
    """The verdict while a large pair is being opened."""
    head = f"Opening {look.father.name} × {look.mother.name}."
    size = bytes_words(look.total_bytes)
    return verdict(
        "plain", head, f"{size} are read once, to know the parents by content. The status bar shows how far."
    )


def people_table(plan: Plan, fingerprints: Mapping[str, str]) -> dict[str, Any]:
    """Father, mother and ancestor side by side; fingerprints, by role, only where the weights were read."""
    people = (("father", plan.father), ("mother", plan.mother), ("ancestor", plan.ancestor))
    rows = [
        Row(who, (who.capitalize(), *_person(model), fingerprints.get(who)), who)
        for who, model in people
        if model is not None
    ]
    columns = (
        Column(""),
        Column("name"),
        Column("architecture"),
        Column("layers", "number"),
        Column("experts"),
        Column("parameters"),
        Column("on disk"),
        Column("fingerprint", "code", title="Of all weights; known once they have been read"),
    )
    return table_value(columns, rows)


def checks_table(checked: Checked) -> dict[str, Any]:
    """The compatibility report, failing checks first."""
    rows = []
    for check in sorted(checked.checks, key=lambda c: c.ok):
        hers = _tight("the same") if check.mother == check.father else check.mother
        said = mark(check.ok, check.remedy or check.note or "fits")
        rows.append(Row(check.what, (check.what, _times(check.father), _times(hers), said)))
    return table_value((Column("check"), Column("father"), Column("mother"), Column("verdict", "mark")), rows)


def anatomy_table(anatomy: Anatomy) -> dict[str, Any]:
    """Tensors grouped by role: how many, how large, and who decides over them."""
    groups: dict[tuple[str, str, bool, str], list[int]] = defaultdict(list)
    for part in anatomy.parts.values():
        groups[part.role, part.component, part.mergeable, part.reason].append(part.numel)
    total = sum(sum(sizes) for sizes in groups.values()) or 1
    rows = [
        Row(
            f"{role}:{component}:{reason}",
            (
                words.role_words(role),
                len(sizes),
                _tight(words.count_words(sum(sizes))),
                sum(sizes) / total,
                f"merged · {GENE_OF.get(component, component)}" if merged else f"copied · {reason}",
            ),
        )
        for (role, component, merged, reason), sizes in sorted(groups.items(), key=lambda g: -sum(g[1]))
    ]
    columns = (
        Column("role"),
        Column("tensors", "number"),
        Column("parameters", "number"),
        Column("share", "share"),
        Column("what happens to it"),
    )
    return table_value(columns, rows)


def layers_html(plan: Plan) -> str:
    """How the layers follow each other, and the sizes that matter; the mother's too where they differ."""
    parts = [_model_html(plan.father)]
    if plan.mother is not None and plan.mother.layout != plan.father.layout:
        parts.append(f"<h4>The mother differs</h4>{_model_html(plan.mother)}")
    return "<h3>Layers</h3>" + "".join(parts)


def tensors_table(plan: Plan) -> dict[str, Any]:
    """Every tensor of both parents and what becomes of it; tensors that differ by number only share a row."""
    rows = [
        Row(
            f"{group.whose}:{group.fate}:{group.pattern}:{group.shape}:{group.dtype}:{group.reason}",
            (
                mark(None if group.fate != STUCK else False, _FATE_WORDS[group.fate]),
                group.pattern,
                _tight(words.role_words(group.role)),
                _span(group.layers),
                group.tensors,
                _tight(" × ".join(map(str, group.shape)) or "one number"),
                group.dtype.lower(),
                group.bytes / (1 << 20),
                group.reason or "both parents",
            ),
            "mother" if group.whose == "mother" else "",
        )
        for group in plan.groups
    ]
    columns = (
        Column("fate", "mark"),
        Column("tensors", "code", title="* stands for the numbers of layers and experts"),
        Column("role"),
        Column("layers"),
        Column("how many", "number"),
        Column("shape"),
        Column("dtype"),
        Column("MiB", "number", digits=2),
        Column("why"),
    )
    return table_value(columns, rows)


def fates_html(plan: Plan) -> str:
    """One line for each thing that happens to tensors."""
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in words.fate_words(plan))
    return f"<h3>What happens to each tensor</h3><ul class='dl-lines'>{lines}</ul>"


def cards_table(model: ModelPlan) -> dict[str, Any]:
    """Which cards hold the model in which format."""
    forms = model.serving.formats
    rows = [
        Row(
            fit.card.name,
            (
                _tight(_times(fit.card.name)),
                *(mark(True, "fits") if form.name in fit.holds else mark(None, "–") for form in forms),
                ", ".join(_tight(name) for name in fit.card.example.split(", ")),
            ),
        )
        for fit in model.serving.telling_fits
    ]
    heads = tuple(
        Column(f"{form.name} · {bytes_words(form.bytes)}", "mark", title=words.format_words(model.serving, form))
        for form in forms
    )
    return table_value((Column("card"), *heads, Column("such as")), rows)


def cards_html(model: ModelPlan) -> str:
    """The smallest card for each format."""
    rows = []
    for form in model.serving.formats:
        card = model.serving.smallest(form)
        remark = f"needs {_times(card.name)}" if card else "more than any card listed"
        rows.append((form.name, bytes_words(form.bytes), remark))
    return f"<h3>Graphics memory to run it</h3>{facts(rows)}"


def allowance_html(model: ModelPlan) -> str:
    """What was added to the weights before a card was said to hold them."""
    told = (words.card_words(model.serving), words.allowance_words(model))
    return "".join(f"<p class='dl-note'>{html.escape(_sentence(line))}</p>" for line in told if line)


def cost_html(plan: Plan) -> str:
    """Memory, disk and time of writing the child."""
    cost = plan.cost
    if cost is None:
        return ""
    short = cost.free < cost.disk
    rows = [
        ("memory", bytes_words(cost.memory), "of buffers, for a model of any size"),
        ("disk", bytes_words(cost.disk), f"of {bytes_words(cost.free)} free"),
    ]
    if cost.seconds is not None:
        rows.append(("time", words.time_words(cost.seconds), f"estimate, {plan.operator}"))
    notes = [words.time_estimate_words(cost)] if cost.seconds is not None else []
    if not plan.compatible:
        notes.append("There is no time to estimate while the parents cannot be bred.")
    elif cost.seconds is None:
        notes.append("Look first, or open the pair anew, to have the time estimated on this machine (one second).")
    if short:
        notes.insert(0, f"The child does not fit: {words.disk_words(cost)}. Free some space or export elsewhere.")
    lines = "".join(f"<p class='dl-note'>{html.escape(_sentence(note))}</p>" for note in notes)
    return f"<h3>Writing the child</h3>{facts(rows)}{lines}"


def scan_html(memory: MemoryChoice) -> str:
    """How a scan of a large pair would hold its models, and that nobody started it."""
    return say(f"{memory.sentence} The scan has not been started by itself.")


def _verdict_words(checked: Checked, father: str, mother: str, tensors: str) -> str:
    failing = [check for check in checked.checks if not check.ok]
    if failing:
        head = f"These parents cannot be bred: they differ in {', '.join(check.what for check in failing)}."
        return verdict("bad", head, _sentence(failing[0].remedy))
    return verdict("ok", f"{father} × {mother} can be bred.", tensors)


def _moved(anatomy: Anatomy, has_ancestor: bool) -> str:
    moved = len(anatomy.mergeable)
    tree = (
        "The ancestor is the base of both."
        if has_ancestor
        else "No ancestor given: operators that need one, such as ties and dare_ties, stay closed."
    )
    return f"{moved:,} tensors are merged, {len(anatomy.parts) - moved:,} copied. {tree}"


def _person(model: ModelPlan) -> tuple[Any, ...]:
    layout = model.layout
    return (
        model.name,
        model.architecture,
        model.layers,
        _tight(f"{layout.experts}, top-{layout.top_k}") if layout.experts else "dense",
        _tight(words.count_words(model.parameters)),
        _tight(bytes_words(model.bytes)),
    )


def _model_html(model: ModelPlan) -> str:
    said, *rest = layout_words(model.layout).split("; ")
    told = _times(said).replace("->", "→")
    more = f"<p class='dl-note'>{html.escape(_sentence('; '.join(rest)))}</p>" if rest else ""
    rows = [
        ("layers", str(model.layers), f"of width {model.hidden_size:,}"),
        ("parameters", words.count_words(model.parameters), f"in {model.tensors:,} tensors"),
        ("active a token", words.count_words(model.active), f"of {words.count_words(model.text)}"),
        ("weights on disk", bytes_words(model.bytes), ", ".join(dtype.lower() for dtype in model.dtypes)),
    ]
    counted = html.escape(_sentence(words.active_words(model)))
    return f"<p class='dl-layout'>{html.escape(told)}</p>{more}{facts(rows)}<p class='dl-note'>{counted}</p>"


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."


def _span(layers: tuple[int, int] | None) -> str | None:
    if layers is None:
        return None
    return f"L{layers[0]}" if layers[0] == layers[1] else f"L{layers[0]}\u2060–\u2060L{layers[1]}"


def _times(text: str) -> str:
    """`2 x 24 GiB` with the sign for times."""
    return re.sub(r"(\d) x ", r"\1 × ", text)


def _tight(text: str) -> str:
    """Text that stays on one line of a table."""
    return text.replace(" ", "\u00a0")
