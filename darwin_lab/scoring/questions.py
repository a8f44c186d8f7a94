"""A call as a model sees it, and its answer in what comes back: the same for a model in memory and an endpoint.

Takes items and calls, gives the turns of a conversation, where writing may end, and the answer in a text. An item says
how it is read by `meta.extract`; one with choices and extraction "letter" is shown its choices under letters, in the
order that belongs to the call, unless its question shows them already. Knows nothing about tokenizers or models.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from darwin_lab.errors import LabError
from darwin_lab.scoring.extract import extract, normal
from darwin_lab.scoring.items import Item
from darwin_lab.scoring.letters import Order, drawn_order, has_letters, lettered
from darwin_lab.scoring.prompt import context_of
from darwin_lab.scoring.protocols import Answer, Call

NEXT_QUESTION = "\nQuestion:"
CUES = {"letter": "ANSWER:", "number": "The answer is", "boxed": "\\boxed{"}
"""What asks for the answer where a thought was closed, by extraction."""
_LAST_CUE = re.compile(r"\n(\w+:)\s*\Z")
"""A line of its own that asks for the answer, such as "Answer:"."""


@dataclass(frozen=True)
class Asking:
    """How a model is asked: tokens it may write, the seed of its draws and of the orders of choices, and whether
    the prompt goes through its chat template, with thinking on or off where the template knows it. After
    `thinking_budget` tokens of thought the thought is closed and the answer asked for; `max_new_tokens` then counts
    the tokens after it, otherwise the thought is among them."""

    max_new_tokens: int = 64
    seed: int = 0
    chat: bool = False
    thinking: bool | None = None
    thinking_budget: int | None = None

    def __post_init__(self) -> None:
        if self.thinking_budget is None:
            return
        if self.thinking_budget < 1:
            raise LabError(f"a thinking budget of {self.thinking_budget} tokens; give 1 or more, or --thinking off")
        if not self.chat or self.thinking is False:
            raise LabError("a thinking budget needs a chat with thinking on; give --chat, and no --thinking off")


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


def order_of(item: Item, call: Call, seed: int) -> Order | None:
    """The order in which the call shows the item's choices, always the same where the question holds their letters;
    None where it shows none. LabError without choices."""
    if extraction_of(item) != "letter":
        return None
    if item.choices is None:
        raise LabError(f"item {item.id!r} is read by letter, but has no choices; give it choices")
    if has_letters(item):
        return tuple(range(len(item.choices)))
    return drawn_order(item.id, len(item.choices), seed, call.showing)


def turns_of(item: Item, call: Call, order: Order | None) -> tuple[str, ...]:
    """The turns of a conversation, beginning and ending with ours."""
    first = context_of(item)
    if order is not None:
        letters = ascii_uppercase[: len(order)]
        ending = f'End with a line "ANSWER: LETTER", the letter one of {letters}.'
        if has_letters(item):
            asked, cue = _without_cue(first)
        else:
            asked, cue = f"{item.meta.get('prefix', '')}Question: {lettered(item, order)}", "Answer:"
        first = f"{asked}\n{ending}\n{cue}"
    if not call.disputed:
        return (first,)
    named = [answer if order is None else ascii_uppercase[order.index(int(answer))] for answer in call.disputed]
    others = " and ".join(map(str, named[1:])) or "something else"
    return (first, str(named[0]), f"Other tries at this very question answered {others}. Look at it again.\n\n{first}")


def _without_cue(context: str) -> tuple[str, str]:
    """A context without the line that asks for its answer, and that line."""
    found = _LAST_CUE.search(context)
    return (context[: found.start()], found[1]) if found else (context, "Answer:")


def plain_text(turns: Sequence[str]) -> str:
    """The turns as one text to be continued."""
    return f"{turns[0]} {turns[1]}\n\n{turns[2]}" if turns[1:] else turns[0]


def messages_of(turns: Sequence[str]) -> list[dict[str, str]]:
    """The turns as chat messages."""
    return [{"role": ("user", "assistant")[place % 2], "content": turn} for place, turn in enumerate(turns)]


def stops_of(item: Item) -> tuple[str, ...]:
    """Where the answer ends at the latest."""
    return ("\n",) if extraction_of(item) == "line" else (NEXT_QUESTION,)


def answer_in(item: Item, order: Order | None, text: str) -> Answer | None:
    """The answer in what was written, None where there is none."""
    found = extract(text, extraction_of(item))
    if found is None or order is None:
        return found
    place = ascii_uppercase.index(found)
    return order[place] if place < len(order) else None
