"""What an OpenAI-compatible server's answer says: the text, the thought before it, whether it was cut, how sure it was.

Takes a response, gives a `Heard`. A thought is what the server hands over apart (`reasoning_content`, in newer servers
`reasoning`), else what its tags mark in the text. Knows nothing about items, protocols or requests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import exp
from typing import Any

import httpx

from darwin_lab.errors import LabError
from darwin_lab.scoring.endpoint_http import one_line
from darwin_lab.scoring.thinking import TAGS


@dataclass(frozen=True)
class Heard:
    """One answer: `text` without the `thought` before it. `marked`: the thought was told from the text, by the server
    or by tags; `thinking`: it was not closed. `cut`: the tokens asked for were spent. `margin` is the smallest
    p(best) - p(second) over the tokens of the text's last line, None without probabilities. `read` counts the
    prompt's tokens, None where the server does not say."""

    text: str
    thought: str = ""
    marked: bool = False
    thinking: bool = False
    cut: bool = False
    margin: float | None = None
    read: int | None = None
    tags: tuple[str, str] | None = None


def heard(answer: httpx.Response, url: str) -> Heard:
    """What a completion or chat completion says; only in a chat is a thought looked for. LabError for anything else."""
    try:
        body = answer.json()
        choice = body["choices"][0]
        message = choice.get("message")
        apart = "" if message is None else message.get("reasoning_content") or message.get("reasoning")
        content = choice["text"] if message is None else message.get("content") if apart else message["content"]
        usage, given = body.get("usage"), choice.get("logprobs")
        cut = choice.get("finish_reason") == "length"
    except (ValueError, LookupError, TypeError, AttributeError):
        raise LabError(
            f"{url} answers something that is no completion ({one_line(answer.text)!r}); is the server there "
            "OpenAI-compatible?"
        ) from None
    text = content if isinstance(content, str) else ""
    read = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    thought = apart if isinstance(apart, str) else ""
    tags: tuple[str, str] | None = None
    marked, thinking = bool(thought), bool(thought) and cut and not text.strip()
    if message is not None and not thought:
        thought, text, tags, thinking = _by_tags(text)
        marked = tags is not None
    return Heard(text, thought.strip(), marked, thinking, cut, _margin(given, text or thought), read, tags)


def _by_tags(text: str) -> tuple[str, str, tuple[str, str] | None, bool]:
    """Thought, text, the tags that mark the thought, and whether it is not closed."""
    for tags in TAGS:
        opening, closing = tags
        before, closed, after = text.partition(closing)
        if closed:
            return before.strip().removeprefix(opening), after.lstrip(), tags, False
        if text.lstrip().startswith(opening):
            return text.lstrip().removeprefix(opening), "", tags, True
    return "", text, None, False


def _margin(given: Any, text: str) -> float | None:
    """How sure the model was of the last line of its text, by the probabilities a server gives; None without any."""
    last = text.strip().rsplit("\n", 1)[-1]
    try:
        tokens, likeliest = _probabilities(given)
        ends = list(accumulate(map(len, tokens)))
        begin = "".join(tokens).rfind(last) if last else -1
        if begin < 0:
            return None
        of_line = [
            place for place, end in enumerate(ends) if begin < end and end - len(tokens[place]) < begin + len(last)
        ]
        return min(likeliest[place][0] - likeliest[place][1] for place in of_line)
    except (LookupError, TypeError, ValueError, AttributeError):
        return None


def _probabilities(given: Any) -> tuple[Sequence[str], list[list[float]]]:
    """The tokens as text, and the probabilities of the likeliest at each, in a chat's form or a completion's."""
    if "content" in given:
        tokens = [str(entry["token"]) for entry in given["content"]]
        top = [[exp(other["logprob"]) for other in entry["top_logprobs"]] for entry in given["content"]]
    else:
        tokens = [str(token) for token in given["tokens"]]
        top = [[exp(value) for value in others.values()] for others in given["top_logprobs"]]
    return tokens, [sorted(values, reverse=True) for values in top]
