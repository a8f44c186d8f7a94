"""What several models answered to the same items: joined item by item, filtered, and written out for reading.

Takes items and scores, gives rows and HTML in which every text of an item is put in as text. Computes no statistic
beyond the share of probability among an item's options.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, isfinite
from typing import Any

from darwin_lab.scoring.items import Item
from darwin_lab.scoring.score import Score
from darwin_lab.ui.components.data_table import Column, Row, mark, table_value
from darwin_lab.ui.tabs.benchmark_place import role_of

MOST = 200
"""Rows of items drawn at once; a search or a filter reaches the others."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Answer:
    """One model's answer to one item: right or not, the option's index or the text, nats an option (may be empty)."""

    right: bool
    prediction: int | str
    loglik: tuple[float, ...]

    @property
    def missing(self) -> bool:
        """Whether the model never answered."""
        return self.prediction in ("", -1)

    @property
    def shares(self) -> list[float | None]:
        """Softmax of the options' log-likelihoods; None for an option without a number."""
        known = [value for value in self.loglik if isfinite(value)]
        if not known:
            return [None] * len(self.loglik)
        top = max(known)
        total = sum(exp(value - top) for value in known)
        return [exp(value - top) / total if isfinite(value) else None for value in self.loglik]


@dataclass(frozen=True)
class Asked:
    """One item with the answers by model."""

    item: Item
    answers: Mapping[str, Answer]


def join(items: Sequence[Item], scores: Mapping[str, Score]) -> list[Asked]:
    """Items in their order with every answer there is; items nobody answered are left out."""
    tables: dict[str, dict[str, Answer]] = {}
    for model, score in scores.items():
        rows = zip(score.ids, score.acc.tolist(), score.predictions, score.loglik, strict=True)
        tables[model] = {name: Answer(right, prediction, loglik) for name, right, prediction, loglik in rows}
    joined = [Asked(item, {m: rows[item.id] for m, rows in tables.items() if item.id in rows}) for item in items]
    return [one for one in joined if one.answers]


FILTERS: dict[str, tuple[str, Callable[[Callable[[str], bool]], bool]]] = {
    "gained": ("Child right, both parents wrong", lambda got: got("child") and not got("father") and not got("mother")),
    "lost": ("Child wrong, both parents right", lambda got: not got("child") and got("father") and got("mother")),
    "dropped": ("Child wrong, a parent right", lambda got: not got("child") and (got("father") or got("mother"))),
    "father": ("Only the father right", lambda got: got("father") and not got("mother") and not got("child")),
    "mother": ("Only the mother right", lambda got: got("mother") and not got("father") and not got("child")),
    "nobody": ("All three wrong", lambda got: not got("child") and not got("father") and not got("mother")),
    "all": ("All three right", lambda got: got("child") and got("father") and got("mother")),
    "father_not_mother": ("Father right, mother wrong", lambda got: got("father") and not got("mother")),
    "mother_not_father": ("Mother right, father wrong", lambda got: got("mother") and not got("father")),
}
NEEDS = {"father_not_mother": ("father", "mother"), "mother_not_father": ("father", "mother")}
EVERY, SILENT = "every", "silent"


def fits(one: Asked, which: str, child: str | None) -> bool:
    """Whether an item belongs to a filter; items that one of the models it speaks of has not answered never do."""
    if which == EVERY:
        return True
    if which == SILENT:
        return any(answer.missing for answer in one.answers.values())
    keys = {"father": "father", "mother": "mother", "child": child or ""}
    named = NEEDS.get(which, ("child", "father", "mother"))
    if any(keys[who] not in one.answers for who in named):
        return False
    return FILTERS[which][1](lambda who: one.answers[keys[who]].right)


def filter_choices(joined: Sequence[Asked], child: str | None) -> list[tuple[str, str]]:
    """The menu of filters, each with how many items it leaves."""
    named = [(EVERY, "All items"), *((key, words) for key, (words, _) in FILTERS.items()), (SILENT, "Never answered")]
    return [(f"{words} ({sum(fits(one, key, child) for one in joined):,})", key) for key, words in named]


def found(joined: Sequence[Asked], which: str, child: str | None, category: str, text: str) -> list[Asked]:
    """Items that fit the filter and the category and hold the text in id, question or options."""
    wanted = text.strip().casefold()
    return [
        one
        for one in joined
        if fits(one, which, child)
        and (not category or one.item.category == category)
        and (not wanted or wanted in _words(one.item).casefold())
    ]


def _words(item: Item) -> str:
    return "\n".join((item.id, item.question, *(item.choices or ()), str(item.answer)))


def answer_table(
    rows: Sequence[Asked], models: Mapping[str, str], *, categories: bool, chosen: str | None, empty: str
) -> dict[str, Any]:
    """One row an item: id, question cut to a line, and how each model did."""
    shown = [
        Row(
            one.item.id,
            (
                one.item.id,
                _cut(one.item.question, 96),
                *([one.item.category] if categories else []),
                *(_outcome(one.answers.get(model)) for model in models),
            ),
        )
        for one in rows[:MOST]
    ]
    columns = (
        Column("item", "code"),
        Column("question", "long"),
        *([Column("category")] if categories else []),
        *(Column(label, "mark") for label in models.values()),
    )
    return table_value(columns, shown, chosen=chosen, empty=empty)


def _outcome(answer: Answer | None) -> dict[str, str] | None:
    if answer is None:
        return None
    return mark(True, "right") if answer.right else mark(None, "✕ no answer" if answer.missing else "✕ wrong")


def _cut(words: str, most: int) -> str:
    line = " ".join(words.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def item_page(one: Asked, models: Mapping[str, str]) -> str:
    """One item as HTML: the question, the options with the right one marked, each model's answer and probabilities."""
    item = one.item
    told = [item.task, *([item.category] if item.category and item.category != item.task else []), item.id]
    head = (
        f"<p class='dl-note'>{html.escape(' · '.join(told))}</p><p class='dl-question'>{html.escape(item.question)}</p>"
    )
    answered = {model: answer for model, answer in one.answers.items() if model in models}
    body = _options(item, answered, models) if item.choices else _written(item, answered, models)
    return f"<article class='dl-item'>{head}{body}</article>"


def _options(item: Item, answered: Mapping[str, Answer], models: Mapping[str, str]) -> str:
    heads = "".join(
        f"<th scope='col'><span class='dl-person {role_of(model)}'>{html.escape(models[model])}</span></th>"
        for model in answered
    )
    lines = []
    for index, choice in enumerate(item.choices or ()):
        gold = index == item.answer
        cells = "".join(_share(answer, index, role_of(model)) for model, answer in answered.items())
        sign = "<span class='dl-gold' title='The right option'>✓<span class='dl-unseen'> right option</span></span>"
        lines.append(
            f"<tr class='{'gold' if gold else ''}'><th scope='row'>{LETTERS[index % 26]}{sign if gold else ''}</th>"
            f"<td>{html.escape(choice)}</td>{cells}</tr>"
        )
    head = f"<thead><tr><th></th><th scope='col'>option</th>{heads}</tr></thead>"
    return _scrolled(f"{head}<tbody>{''.join(lines)}</tbody>")


def _share(answer: Answer, index: int, role: str) -> str:
    shares = answer.shares
    share = shares[index] if index < len(shares) else None
    picked = answer.prediction == index
    words = "–" if share is None else f"{100 * share:.1f} %"
    bar = "" if share is None else f"<i class='{role}' style='width:{100 * share:.1f}%'></i>"
    note = "<b title='This model’s answer'>◀<span class='dl-unseen'> its answer</span></b>" if picked else ""
    return f"<td class='num'><span class='dl-prob'>{bar}</span>{words}{note}</td>"


def _written(item: Item, answered: Mapping[str, Answer], models: Mapping[str, str]) -> str:
    rows = [f"<tr class='gold'><th scope='row'>right answer</th><td>{html.escape(str(item.answer))}</td><td></td></tr>"]
    for model, answer in answered.items():
        said = html.escape(str(answer.prediction)) if not answer.missing else "<i>no answer could be read</i>"
        sign = "✓ right" if answer.right else "✕ wrong"
        person = f"<span class='dl-person {role_of(model)}'>{html.escape(models[model])}</span>"
        rows.append(f"<tr><th scope='row'>{person}</th><td>{said}</td><td>{sign}</td></tr>")
    return _scrolled(f"<tbody>{''.join(rows)}</tbody>")


def _scrolled(table: str) -> str:
    return f"<div class='dl-scroll' tabindex='0'><table class='dl-options'>{table}</table></div>"
