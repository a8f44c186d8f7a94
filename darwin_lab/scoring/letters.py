"""Choices shown under letters, in an order that is drawn, and what the order does to the answer.

Takes items, gives items whose choices are letters, and undoes the order on the way back. Knows nothing about models.
"""

from collections.abc import Sequence
from dataclasses import replace
from string import ascii_uppercase

import numpy as np
from numpy.typing import NDArray

from darwin_lab.errors import LabError
from darwin_lab.scoring.draws import uniform
from darwin_lab.scoring.items import Item

Order = tuple[int, ...]
"""Which choice stands under each letter."""


def drawn_order(item_id: str, choices: int, seed: int, number: int) -> Order:
    """The order of an item's choices in its `number`-th showing: keyed by (seed, item, number), no global draws.

    Rounds of `choices` showings are the rotations of one drawn order, so that within a round every choice stands
    once under every letter.
    """
    first = sorted(range(choices), key=lambda choice: uniform("order", seed, item_id, number // choices, choice))
    turn = number % choices
    return tuple(first[turn:] + first[:turn])


def has_letters(item: Item) -> bool:
    """Whether the choices are nothing but letters in order (A, (A) or A.): the options stand in the question itself,
    and no other order of them can be shown."""
    choices = item.choices or ()
    return 0 < len(choices) <= len(ascii_uppercase) and all(
        choice.strip() in (letter, f"({letter})", f"{letter}.")
        for letter, choice in zip(ascii_uppercase, choices, strict=False)
    )


def numbered(choices: Sequence[str]) -> str:
    """The choices under numbers, a line each, and the cue: how MuSR's questions end."""
    listed = "".join(f"{place} - {choice}\n" for place, choice in enumerate(choices, start=1))
    return f"{listed}\nAnswer:"


def lettered(item: Item, order: Order) -> str:
    """The question and its choices under letters, a line each; they take the place of a numbered list the question
    ends with. Raises LabError for more choices than letters."""
    if item.choices is None or len(item.choices) > len(ascii_uppercase):
        raise LabError(
            f"item {item.id!r} has no choices that could stand under letters; leave it out, or have its text written "
            "with --extract line"
        )
    question, end = item.question, numbered(item.choices)
    if question.endswith(end):
        question = question.removesuffix(end).rstrip()
    lines = [f"{letter}. {item.choices[choice]}" for letter, choice in zip(ascii_uppercase, order, strict=False)]
    return "\n".join([question, *lines])


def as_letters(item: Item, order: Order) -> Item:
    """The item asked by letter (MMLU's way): choices in `order` above "Answer:", scored on the letters alone."""
    return replace(
        item,
        question=f"{lettered(item, order)}\nAnswer:",
        choices=tuple(ascii_uppercase[: len(order)]),
        answer=order.index(int(item.answer)),
        meta={**item.meta, "style": "continuation"},
    )


def rotations(item: Item, seed: int) -> list[tuple[Order, Item]]:
    """The item once with every choice under every letter; ids end in #0, #1, ... One whose question holds its letters
    has one showing, as it is."""
    choices = len(item.choices or ())
    if has_letters(item):
        return [(tuple(range(choices)), replace(item, id=f"{item.id}#0"))]
    orders = [drawn_order(item.id, choices, seed, number) for number in range(choices)]
    return [(order, replace(as_letters(item, order), id=f"{item.id}#{number}")) for number, order in enumerate(orders)]


def debiased(orders: Sequence[Order], logliks: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Mean log-probability of each choice over its showings (PriDe's full permutation average, arXiv 2309.03882).

    Each showing is normalised over its letters first; a bias towards a letter, however strong, is the same for every
    choice and cancels over a whole round of rotations.
    """
    total = np.zeros(len(orders[0]))
    for order, loglik in zip(orders, logliks, strict=True):
        values = np.asarray(loglik, dtype=np.float64)
        total[list(order)] += values - np.logaddexp.reduce(values)
    return total / len(orders)
