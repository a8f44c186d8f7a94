"""Where a model's thought ends and its answer begins, by the tags its chat template names.

Takes a tokenizer and a rendered prompt, gives how the thought is told from the answer and how it is closed when its
budget is spent. Knows nothing about items or models.
"""

from dataclasses import dataclass
from typing import Any

TAGS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|channel>thought", "<channel|>"),
)
"""How chat templates mark a thought; the first pair whose closing tag the template names is the model's."""
SPENT = "\n\nThe budget for thinking is spent, so the answer follows now.\n"
"""What is written into a thought whose budget is spent, before it is closed (ours)."""


@dataclass(frozen=True)
class Thought:
    """How the thought is told from the answer after one prompt.

    `opened`: the prompt already ends inside a thought. After `budget` tokens of thought (None: no limit) the tokens
    `ending` are written: a sentence, the closing tag, and what asks for the answer.
    """

    opening: str
    closing: str
    opened: bool
    budget: int | None = None
    ending: tuple[int, ...] = ()


def tags_of(tokenizer: Any) -> tuple[str, str] | None:
    """The opening and closing tag of a thought in the tokenizer's chat template, or None."""
    template = str(tokenizer.chat_template or "")
    return next((pair for pair in TAGS if pair[1] in template), None)


def thought_after(tokenizer: Any, prompt: str, budget: int | None, cue: str) -> Thought | None:
    """The thought of an answer to `prompt`, a text rendered by the chat template; None where the template has none.

    `cue` asks for the answer once the thought was closed for it.
    """
    tags = tags_of(tokenizer)
    if tags is None:
        return None
    opened = prompt.rfind(tags[0]) > prompt.rfind(tags[1])
    if budget is None:
        return Thought(*tags, opened)
    ending = tokenizer(f"{SPENT}{tags[1]}\n\n{cue}", add_special_tokens=False)["input_ids"]
    return Thought(*tags, opened, budget, tuple(ending))
