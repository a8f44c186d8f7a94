"""A resident model asked for written answers, and a score of greedy answers.

Takes items and a resident model, gives an `Ask` for the protocols. Knows nothing about candidates or storage.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from math import nan
from typing import Any

import numpy as np

from darwin_lab.engine.resident import Resident
from darwin_lab.errors import LabError
from darwin_lab.progress import Tick, silent
from darwin_lab.scoring.generation import Prompt, Written, write
from darwin_lab.scoring.items import Item
from darwin_lab.scoring.kept import Kept
from darwin_lab.scoring.letters import Order
from darwin_lab.scoring.prompt import encode, require_spelled
from darwin_lab.scoring.protocols import Answer, Ask, Call, Outcome, Reply, greedy
from darwin_lab.scoring.questions import (
    CUES,
    Asking,
    answer_in,
    extraction_of,
    golds_of,
    messages_of,
    order_of,
    plain_text,
    stops_of,
    turns_of,
)
from darwin_lab.scoring.score import Score
from darwin_lab.scoring.thinking import Thought, tags_of, thought_after

PLAINLY = Asking()


def asked_of(resident: Resident, items: Sequence[Item], how: Asking = PLAINLY, keep: Kept | None = None) -> Ask:
    """The model as a protocol asks it; replies depend on (how.seed, item id, call) alone.

    What is written goes to `keep` as it is made, with the rows of greedy answers, and is not written again. A thought,
    by the tags of the chat template, is no part of a reply's text. Raises LabError for an item the tokenizer cannot
    spell, a prompt that fills the context, a streamed model, a chat that the tokenizer has no template for, and a
    thinking budget where the template names no tags.
    """
    tokenizer = resident.tokenizer
    if how.chat and not tokenizer.chat_template:
        raise LabError("this model's tokenizer has no chat template; ask it without one")
    if how.thinking_budget is not None and tags_of(tokenizer) is None:
        raise LabError("this model's chat template marks no thoughts (no </think>); leave out --thinking-budget")

    def ask(calls: Sequence[Call], tick: Tick) -> list[Reply]:
        orders = [order_of(items[call.item], call, how.seed) for call in calls]
        turns = [turns_of(items[call.item], call, order) for call, order in zip(calls, orders, strict=True)]
        prompts: list[Prompt] = []
        asked: dict[Prompt, list[tuple[Call, Order | None]]] = {}
        for call, order, (first, *_), (ids, thought) in zip(
            calls, orders, turns, _encode(tokenizer, items, calls, turns, how), strict=True
        ):
            item = items[call.item]
            require_spelled(tokenizer, item, first, ids)
            prompt = Prompt(
                ids=tuple(ids),
                name=item.id,
                stops=stops_of(item),
                most=how.max_new_tokens,
                temperature=call.temperature,
                key=(how.seed, item.id, call.sample) if call.temperature > 0 else (),
                thought=thought,
            )
            prompts.append(prompt)
            asked.setdefault(prompt, []).append((call, order))

        def rows(prompt: Prompt, found: Written) -> Iterable[dict[str, Any]]:
            for call, order in asked[prompt]:
                item = items[call.item]
                yield from greedy_rows(item, call, answer_in(item, order, found.text))

        written = write(resident, prompts, tick, keep=keep, rows=rows)
        return [
            Reply(answer_in(items[call.item], order, found.text), found.text, found.margin, found.thought)
            for call, order, found in zip(calls, orders, written, strict=True)
        ]

    return ask


def score_generation(
    resident: Resident,
    items: Sequence[Item],
    max_new_tokens: int = 64,
    tick: Tick = silent,
    how: Asking | None = None,
    keep: Kept | None = None,
) -> Score:
    """Score items by their greedy answer, read as `meta.extract` says (default: its first line is the answer).

    An item with choices is asked for the text of its right choice, or for its letter. Decoding ends at an
    end-of-text token, at a new line (other extractions: where another question begins), after `max_new_tokens`, or
    where the model's context ends. p_gold is NaN, loglik empty, and the prediction "" where the model never answered.
    Raises LabError for an item whose prompt already fills the model's context.
    """
    if not items:
        return score_of(items, None)
    settings = replace(how or PLAINLY, max_new_tokens=max_new_tokens)
    return score_of(items, greedy(golds_of(items), asked_of(resident, items, settings, keep), tick))


def score_of(items: Sequence[Item], outcome: Outcome | None) -> Score:
    """A protocol's outcome as a score, item by item; an item read by letter has NaN for the log-likelihood of each
    option, so that its chance is known."""
    return _score(items, outcome.answers if outcome else ())


def greedy_rows(item: Item, call: Call, answer: Answer | None) -> list[dict[str, Any]]:
    """The item's score row, where the call is its plain greedy one."""
    if call.temperature > 0 or call.sample or call.disputed:
        return []
    return _score([item], [answer]).to_rows()


def _score(items: Sequence[Item], answers: Sequence[Answer | None]) -> Score:
    right = np.array([answer == gold for answer, gold in zip(answers, golds_of(items), strict=True)], dtype=bool)
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


def _encode(
    tokenizer: Any, items: Sequence[Item], calls: Sequence[Call], turns: Sequence[tuple[str, ...]], how: Asking
) -> Iterator[tuple[list[int], Thought | None]]:
    """Each call's token ids, and how its thought is told from its answer."""
    if not how.chat:
        for ids in encode(tokenizer, [plain_text(some) for some in turns]):
            yield ids, None
        return
    extra = {} if how.thinking is None else {"enable_thinking": how.thinking}
    for call, some in zip(calls, turns, strict=True):
        shown = tokenizer.apply_chat_template(messages_of(some), add_generation_prompt=True, tokenize=False, **extra)
        cue = CUES.get(extraction_of(items[call.item]), "")
        ids = tokenizer(shown, add_special_tokens=False)["input_ids"]
        yield ids, thought_after(tokenizer, shown, how.thinking_budget, cue)
