"""One prompt answered by a model in memory, told token by token, so that models can be read side by side.

Takes a resident model and a prompt, gives what it writes, how long that took and why it ended. Knows nothing of items,
parents or storage.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from darwin_lab.engine.resident import Resident
from darwin_lab.errors import LabError
from darwin_lab.scoring.generation import Prompt, Written, write
from darwin_lab.scoring.prompt import encode
from darwin_lab.scoring.thinking import thought_after

MOST_TOKENS = 2048
"""The longest answer that can be asked for."""


@dataclass(frozen=True)
class Manner:
    """How a model is asked: tokens it may write, temperature (0: greedy) with the seed of its draws, whether the
    prompt goes through its chat template (None: where it has one), and thinking on or off where the template knows it.

    Raises `LabError` for numbers that make no sense.
    """

    max_new_tokens: int = 200
    temperature: float = 0.0
    seed: int = 0
    chat: bool | None = None
    thinking: bool | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.max_new_tokens <= MOST_TOKENS:
            raise LabError(f"{self.max_new_tokens} tokens cannot be written; ask for 1 to {MOST_TOKENS}")
        if not 0.0 <= self.temperature <= 2.0:
            raise LabError(f"temperature {self.temperature} is outside 0 to 2; 0 takes the likeliest token")


@dataclass(frozen=True)
class Said:
    """What a model has said so far. `first` is seconds until its first token (the prompt was read by then), `seconds`
    those until the last; `ended` is "" while it writes, then "end" (it stopped by itself) or "length"."""

    text: str
    thought: str
    tokens: int
    prompt_tokens: int
    first: float
    seconds: float
    chat: bool
    ended: str = ""

    @property
    def speed(self) -> float | None:
        """Tokens a second after the first; None before a second token."""
        return (self.tokens - 1) / (self.seconds - self.first) if self.seconds > self.first else None


def converse(resident: Resident, prompt: str, manner: Manner, watch: Callable[[Said], None]) -> Said:
    """The model's answer; `watch` gets what is said after every token, and whatever it raises ends the writing.

    Raises `LabError` for an empty prompt, one that fills the context, a chat template that is asked for and not there,
    and a streamed model.
    """
    if not prompt.strip():
        raise LabError("there is nothing to answer; write a prompt first")
    tokenizer = resident.tokenizer
    if manner.chat and not tokenizer.chat_template:
        raise LabError("this model's tokenizer has no chat template; ask without one, as plain text to be continued")
    chat = bool(tokenizer.chat_template) if manner.chat is None else manner.chat
    if chat:
        extra = {} if manner.thinking is None else {"enable_thinking": manner.thinking}
        messages = [{"role": "user", "content": prompt}]
        shown = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **extra)
        ids = tokenizer(shown, add_special_tokens=False)["input_ids"]
        thought = thought_after(tokenizer, shown, None, "")
    else:
        (ids,), thought = encode(tokenizer, [prompt]), None
    asked = Prompt(
        ids=tuple(ids),
        name="your prompt",
        stops=(),
        most=manner.max_new_tokens,
        temperature=manner.temperature,
        key=(manner.seed, prompt) if manner.temperature > 0 else (),
        thought=thought,
    )
    started, times = time.perf_counter(), []

    def said(written: Written) -> Said:
        times.append(time.perf_counter() - started)
        return Said(written.text, written.thought, written.tokens, len(ids), times[0], times[-1], chat)

    (whole,) = write(resident, [asked], watch=lambda rows: watch(said(rows[0])))
    full = whole.tokens >= manner.max_new_tokens or len(ids) + whole.tokens >= resident.context_length
    return replace(said(whole), seconds=max(times[:-1], default=times[0]), ended="length" if full else "end")
