"""A resident model asked for written answers: the prompt of each call, the answer in what it wrote.

Takes items and a resident model, gives an `Ask` for the protocols, and a score of greedy answers. An item says how it
is read by `meta.extract`; one with choices and extraction "letter" is shown its choices under letters, in the order
that belongs to the call. Knows nothing about candidates or storage.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import nan
from string import ascii_uppercase
from typing import Any

import numpy as np

from darwin_lab.engine.resident import Resident
from darwin_lab.errors import LabError
from darwin_lab.progress import Tick, silent
from darwin_lab.scoring.extract import extract, normal
from darwin_lab.scoring.generation import Prompt, write
from darwin_lab.scoring.items import Item
from darwin_lab.scoring.letters import Order, drawn_order, lettered
from darwin_lab.scoring.prompt import context_of, encode, require_spelled
from darwin_lab.scoring.protocols import Answer, Ask, Call, Outcome, Reply, greedy
from darwin_lab.scoring.score import Score

NEXT_QUESTION = "\nQuestion:"


@dataclass(frozen=True)
class Asking:
    """How a model is asked: tokens it may write, the seed of its draws and of the orders of choices, and whether
    the prompt goes through its chat template, with thinking on or off where the template knows it."""

    max_new_tokens: int = 64
    seed: int = 0
    chat: bool = False
    thinking: bool | None = None


def extraction_of(item: Item) -> str:
    """How the item's answer is read from what a model writes."""
    return str(item.meta.get("extract", "line"))


def golds_of(items: Sequence[Item]) -> list[Answer]:
    """The right answers in the form a reply has: a choice's index by letter, otherwise a normalised text."""
    return [
        int(item.answer)
        if extraction_of(item) == "letter"
        else normal(item.choices[int(item.answer)] if item.choices else str(item.answer), extraction_of(item))
        for item in items
    ]


def asked_of(resident: Resident, items: Sequence[Item], how: Asking = Asking()) -> Ask:
    """The model as a protocol asks it; replies depend on (how.seed, item id, call) alone.

    Raises LabError for an item the tokenizer cannot spell, a prompt that fills the context, and a chat that the
    tokenizer has no template for.
    """
    if how.chat and not resident.tokenizer.chat_template:
        raise LabError("this model's tokenizer has no chat template; ask it without one")

    def ask(calls: Sequence[Call], tick: Tick) -> list[Reply]:
        orders = [_order(items[call.item], call, how.seed) for call in calls]
        texts = [_text(items[call.item], call, order) for call, order in zip(calls, orders, strict=True)]
        encoded = _encode(resident.tokenizer, texts, how)
        prompts = []
        for call, (first, *_), ids in zip(calls, texts, encoded, strict=True):
            item = items[call.item]
            require_spelled(resident.tokenizer, item, first, ids)
            prompts.append(
                Prompt(
                    ids=tuple(ids),
                    name=item.id,
                    stops=("\n",) if extraction_of(item) == "line" else (NEXT_QUESTION,),
                    most=how.max_new_tokens,
                    temperature=call.temperature,
                    key=(how.seed, item.id, call.sample) if call.temperature > 0 else (),
                )
            )
        written = write(resident, prompts, tick)
        return [
            Reply(_answer(items[call.item], order, found.text), found.text, found.margin)
            for call, order, found in zip(calls, orders, written, strict=True)
        ]

    return ask


def score_generation(
    resident: Resident, items: Sequence[Item], max_new_tokens: int = 64, tick: Tick = silent, how: Asking | None = None
) -> Score:
    """Score items by their greedy answer, read as `meta.extract` says (default: its first line is the answer).

    An item with choices is asked for the text of its right choice, or for its letter. Decoding ends at an
    end-of-text token, at a new line (other extractions: where another question begins), after `max_new_tokens`, or
    where the model's context ends. p_gold is NaN, loglik empty, and the prediction "" where the model never answered.
    Raises LabError for an item whose prompt already fills the model's context.
    """
    if not items:
        return score_of(items, None)
    settings = replace(how or Asking(), max_new_tokens=max_new_tokens)
    return score_of(items, greedy(golds_of(items), asked_of(resident, items, settings), tick))


def score_of(items: Sequence[Item], outcome: Outcome | None) -> Score:
    """A protocol's outcome as a score, item by item; an item read by letter has NaN for the log-likelihood of each
    option, so that its chance is known."""
    answers = outcome.answers if outcome else ()
    right = np.array(outcome.right if outcome else [], dtype=bool)
    return Score(
        ids=tuple(item.id for item in items),
        tasks=tuple(item.task for item in items),
        acc=right,
        acc_norm=right.copy(),
        p_gold=np.full(len(items), np.nan),
        loglik=tuple((nan,) * len(item.choices or ()) if extraction_of(item) == "letter" else () for item in items),
        predictions=tuple("" if answer is None else answer for answer in answers),
        clusters=tuple(item.cluster for item in items),
    )


def _order(item: Item, call: Call, seed: int) -> Order | None:
    if extraction_of(item) != "letter":
        return None
    if item.choices is None:
        raise LabError(f"item {item.id!r} is read by letter, but has no choices; give it choices")
    return drawn_order(item.id, len(item.choices), seed, call.showing)


def _text(item: Item, call: Call, order: Order | None) -> tuple[str, ...]:
    """The turns of a conversation, beginning and ending with ours."""
    first = context_of(item)
    if order is not None:
        letters = ascii_uppercase[: len(order)]
        ending = f'End with a line "ANSWER: LETTER", the letter one of {letters}.'
        first = f"{item.meta.get('prefix', '')}Question: {lettered(item, order)}\n{ending}\nAnswer:"
    if not call.disputed:
        return (first,)
    named = [answer if order is None else ascii_uppercase[order.index(int(answer))] for answer in call.disputed]
    others = " and ".join(map(str, named[1:])) or "something else"
    return (first, str(named[0]), f"Other tries at this very question answered {others}. Look at it again.\n\n{first}")


def _encode(tokenizer: Any, texts: Sequence[tuple[str, ...]], how: Asking) -> list[list[int]]:
    if not how.chat:
        return encode(tokenizer, [f"{turns[0]} {turns[1]}\n\n{turns[2]}" if turns[1:] else turns[0] for turns in texts])
    extra = {} if how.thinking is None else {"enable_thinking": how.thinking}
    rows = []
    for turns in texts:
        talk = [{"role": ("user", "assistant")[place % 2], "content": turn} for place, turn in enumerate(turns)]
        shown = tokenizer.apply_chat_template(talk, add_generation_prompt=True, tokenize=False, **extra)
        rows.append(tokenizer(shown, add_special_tokens=False)["input_ids"])
    return rows


def _answer(item: Item, order: Order | None, text: str) -> Answer | None:
    found = extract(text, extraction_of(item))
    if found is None or order is None:
        return found
    place = ascii_uppercase.index(found)
    return order[place] if place < len(order) else None
