"""The Parents tab: choose a pair, see whether it can be bred, and what its tensors are.

Takes references typed by a person; gives the selected pair. Only configs and headers are read here.
"""

from __future__ import annotations

import html
import os
import re
from collections import defaultdict
from typing import Any

import gradio as gr

from darwin_lab.checkpoint.anatomy import Anatomy
from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.errors import LabError
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.ui.components.data_table import Column, Row, data_table, mark, table_value
from darwin_lab.ui.session import QUIET, Shared, guarded, lead, pair_of, verdict

FAMILY, OWN = "Embedded family", "Two checkpoints of your own"
HUB_ID = re.compile(r"^[\w.-]{1,96}/[\w.-]{1,96}$")
GENE_OF = {"attn": "attention gene", "ffn": "FFN gene", "embed": "embedding gene", "global": "whole-model gene"}


def build(shared: Shared) -> None:
    """Put the tab's components on the page and wire them."""
    lab = shared.lab
    gr.HTML(lead("Parents", "Two checkpoints of one architecture. Ratio 0 is the father, ratio 1 the mother."))
    with gr.Row(elem_classes=["dl-row"]):
        with gr.Column(scale=4, min_width=320, elem_classes=["dl-card"]):
            gr.HTML("<h3>Choose a pair</h3>")
            source = gr.Radio([FAMILY, OWN], value=FAMILY, show_label=False, container=False, elem_id="pair_source")
            with gr.Column(visible=False, elem_id="pair_own") as own:
                place = "Hub id" if on_a_space() else "Folder or Hub id"
                father = gr.Textbox(label="Father", placeholder=place, elem_id="father_ref")
                mother = gr.Textbox(label="Mother", placeholder=place, elem_id="mother_ref")
                ancestor = gr.Textbox(
                    label="Ancestor (optional)",
                    placeholder=place,
                    info="What both were tuned from. Opens ties, dare_ties and task_arithmetic.",
                    elem_id="ancestor_ref",
                )
                items = gr.File(
                    label="Benchmark items, JSONL (needed to score and evolve)",
                    file_count="multiple",
                    file_types=[".jsonl"],
                    height=96,
                    elem_id="pair_items",
                )
            opened = gr.Button("Open this pair", variant="primary", elem_id="open_pair")
        with gr.Column(scale=8, min_width=420):
            verdict_box = gr.HTML(elem_id="pair_verdict")
            with gr.Column(elem_classes=["dl-card"]):
                people = data_table("pair_people", label="The parents side by side")
    with gr.Row(elem_classes=["dl-row"]):
        with gr.Column(scale=6, min_width=420, elem_classes=["dl-card"]):
            gr.HTML("<h3>Can they be bred?</h3><p class='dl-note'>Read from configs, headers and tokenizer files.</p>")
            checks = data_table("pair_checks", label="Compatibility report")
        with gr.Column(scale=6, min_width=420, elem_classes=["dl-card"]):
            gr.HTML("<h3>Anatomy</h3><p class='dl-note'>Every tensor of the father by role; nothing is left out.</p>")
            anatomy = data_table("pair_anatomy", label="Tensors by role")
    source.input(lambda choice: gr.Column(visible=choice == OWN), source, own, **QUIET)

    @guarded
    def open_it(choice: str, a: str, b: str, base: str, files: list[str] | None) -> Any:
        pair = lab.family_pair() if choice == FAMILY else open_own(lab, a, b, base, files or [])
        if all(check.ok for check in pair.checks):
            lab.request_scan(pair)
            gr.Info("The pair is open; its scan has started.", title="Parents", duration=4)
        return pair.key

    opened.click(open_it, [source, father, mother, ancestor, items], shared.pair, **QUIET)

    def show(pair_key: str) -> list[Any]:
        pair = pair_of(lab, pair_key)
        if pair is None:
            words = "Choose a pair on the left and open it."
            return [verdict("plain", "No pair is open.", words), *[table_value((), (), empty=words)] * 3]
        return [pair_words(pair), people_table(pair), checks_table(pair), anatomy_table(pair.anatomy)]

    shared.pair.change(show, shared.pair, [verdict_box, people, checks, anatomy], **QUIET)


def on_a_space() -> bool:
    """Whether the page runs on a public Space, where local folders are nobody's business."""
    return bool(os.environ.get("SPACE_ID"))


def open_own(lab: Lab, father: str, mother: str, ancestor: str, items: list[str]) -> Pair:
    """Open two references. Raises LabError for an empty one, and on a Space for one that is not a Hub id."""
    for who, ref in (("father", father), ("mother", mother)):
        if not ref or not ref.strip():
            raise LabError(f"no {who} given; type a folder or a Hub id such as owner/name")
    refs = [ref.strip() for ref in (father, mother, ancestor or "")]
    if on_a_space() and any(ref and not HUB_ID.match(ref) and not ref.startswith("family:") for ref in refs):
        raise LabError("on a Space only Hub ids can be opened; type owner/name")
    return lab.open_pair(refs[0], refs[1], refs[2] or None, items=items)


def pair_words(pair: Pair) -> str:
    """The verdict over a pair and who descends from whom."""
    failing = [check for check in pair.checks if not check.ok]
    tree = (
        "The ancestor is the base of both."
        if pair.ancestor
        else ("No ancestor given: ties, dare_ties and task_arithmetic stay closed.")
    )
    if failing:
        head = f"These parents cannot be bred: they differ in {', '.join(check.what for check in failing)}."
        return verdict("bad", head, failing[0].remedy)
    moved = len(pair.anatomy.mergeable)
    head = f"{pair.father.name} × {pair.mother.name} can be bred."
    return verdict("ok", head, f"{moved} tensors are merged, {len(pair.anatomy.parts) - moved} copied. {tree}")


def people_table(pair: Pair) -> dict[str, Any]:
    """Father, mother and ancestor side by side."""
    rows = [
        Row(who, (who.capitalize(), *_person(checkpoint)), who)
        for who, checkpoint in (("father", pair.father), ("mother", pair.mother), ("ancestor", pair.ancestor))
        if checkpoint is not None
    ]
    columns = (
        Column(""),
        Column("name"),
        Column("architecture"),
        Column("layers", "number"),
        Column("hidden", "number"),
        Column("experts"),
        Column("parameters"),
        Column("on disk"),
        Column("fingerprint", "code"),
    )
    return table_value(columns, rows)


def _person(checkpoint: Checkpoint) -> tuple[Any, ...]:
    config = checkpoint.text_config
    experts = config.get("num_experts") or config.get("num_local_experts")
    active = config.get("num_experts_per_tok")
    numbers = sum(_size(info.shape) for info in checkpoint.tensors.values())
    return (
        checkpoint.name,
        (checkpoint.config.get("architectures") or ["unknown"])[0],
        config.get("num_hidden_layers"),
        config.get("hidden_size"),
        f"{experts}, top-{active}" if experts else "dense",
        _count(numbers),
        _bytes(checkpoint.total_bytes),
        checkpoint.fingerprint,
    )


def checks_table(pair: Pair) -> dict[str, Any]:
    """The compatibility report, failing checks first."""
    rows = [
        Row(check.what, (check.what, check.father, check.mother, mark(check.ok, "same" if check.ok else check.remedy)))
        for check in sorted(pair.checks, key=lambda c: c.ok)
    ]
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
                role.replace("_", " "),
                len(sizes),
                _count(sum(sizes)),
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


def header_words(pair: Pair | None) -> str:
    """The pair in the page's header."""
    if pair is None:
        return "<div class='dl-pair'>No pair open</div>"
    base = ""
    if pair.ancestor is not None:
        base = f"<span class='dl-person ancestor'>{_named(pair.ancestor, 'ancestor')}</span>"
    return (
        "<div class='dl-pair'>"
        f"<span class='dl-person father'>{_named(pair.father, 'father')}</span>"
        "<span class='dl-times'>×</span>"
        f"<span class='dl-person mother'>{_named(pair.mother, 'mother')}</span>" + base + "</div>"
    )


def _named(checkpoint: Checkpoint, role: str) -> str:
    name = html.escape(checkpoint.name)
    return name if name.endswith(role) else f"{name} <small>{role}</small>"


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for axis in shape:
        size *= axis
    return size


def _count(number: int) -> str:
    for unit, scale in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{number / scale:.2f} {unit}"
    return str(number)


def _bytes(number: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= scale:
            return f"{number / scale:.1f} {unit}"
    return f"{number} B"
