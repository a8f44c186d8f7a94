"""What a model writes after a prompt: greedy or sampled, many prompts at once.

Takes prompts as token ids, gives texts. Prompts of one length decode together, so no padding stands before any token;
a row leaves its batch as soon as it is complete. Knows nothing about items, right answers or protocols.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from darwin_lab.engine.resident import Resident
from darwin_lab.errors import LabError
from darwin_lab.progress import Tick, silent
from darwin_lab.scoring.draws import uniform

BATCH_ROWS = 128


@dataclass(frozen=True)
class Prompt:
    """What is written after `ids`: greedily with temperature 0, else by draws that belong to `key`.

    Writing ends at an end-of-text token, where one of `stops` appears, after `most` tokens, or where the model's
    context ends. `name` is what an error calls it.
    """

    ids: tuple[int, ...]
    name: str
    stops: tuple[str, ...] = ("\n",)
    most: int = 64
    temperature: float = 0.0
    key: tuple[object, ...] = ()


@dataclass(frozen=True)
class Written:
    """The text up to the first stop, the number of tokens, and the smallest p(best) - p(second) over the tokens of
    its last line: how sure the model was of what it said last."""

    text: str
    tokens: int
    margin: float


def write(resident: Resident, prompts: Sequence[Prompt], tick: Tick = silent) -> list[Written]:
    """What the model writes after each prompt; equal prompts with equal draws are written once.

    A text depends on its prompt alone, beyond float rounding. Raises LabError for a prompt that already fills the
    model's context.
    """
    for prompt in prompts:
        if not 0 < len(prompt.ids) < resident.context_length:
            raise LabError(
                f"item {prompt.name!r} has a prompt of {len(prompt.ids)} tokens, but the model reads "
                f"{resident.context_length}; leave the item out or use a model with a longer context"
            )
    found: dict[Prompt, Written] = {}
    batches = _batches(list(dict.fromkeys(prompts)))
    with resident.lock, torch.inference_mode():
        for number, batch in enumerate(batches):
            tick(number / len(batches), f"answering batch {number + 1} of {len(batches)}")
            found.update(zip(batch, _write(resident, batch), strict=True))
    tick(1.0, "answered")
    return [found[prompt] for prompt in prompts]


def _batches(prompts: Sequence[Prompt]) -> list[list[Prompt]]:
    """Prompts of equal length, longest first, at most `BATCH_ROWS` together."""
    batches: list[list[Prompt]] = []
    for prompt in sorted(prompts, key=lambda prompt: (-len(prompt.ids), prompt.ids)):
        if not batches or len(batches[-1][0].ids) != len(prompt.ids) or len(batches[-1]) == BATCH_ROWS:
            batches.append([])
        batches[-1].append(prompt)
    return batches


class _Row:
    """One prompt's text so far."""

    def __init__(self, prompt: Prompt) -> None:
        self.prompt = prompt
        self.tokens: list[int] = []
        self.text = ""
        self._ends: list[int] = []
        self._margins: list[float] = []

    def add(self, token: int, margin: float, tokenizer: Any) -> bool:
        """Take one more token; whether the row goes on."""
        self.tokens.append(token)
        self.text = tokenizer.decode(self.tokens, skip_special_tokens=True)
        self._ends.append(len(self.text))
        self._margins.append(margin)
        return len(self.tokens) < self.prompt.most and not any(stop in self.text for stop in self.prompt.stops)

    def done(self) -> Written:
        cut = min((place for stop in self.prompt.stops if (place := self.text.find(stop)) >= 0), default=None)
        text = self.text[:cut]
        last_line = text.rstrip().rfind("\n") + 1
        last = [margin for end, margin in zip(self._ends, self._margins, strict=True) if end > last_line]
        return Written(text, len(self.tokens), min(last, default=0.0))


def _write(resident: Resident, prompts: Sequence[Prompt]) -> list[Written]:
    """The texts of prompts of one length."""
    ends = _end_ids(resident)
    rows = [_Row(prompt) for prompt in prompts]
    going = list(rows)
    ids = torch.tensor([prompt.ids for prompt in prompts], device=resident.device)
    cache = None
    most = max(prompt.most for prompt in prompts)
    for step in range(min(most, resident.context_length - len(prompts[0].ids))):
        out = resident.backbone(input_ids=ids, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        chosen, margins = _choose(resident.logits(out.last_hidden_state[:, -1]), [row.prompt for row in going], step)
        kept = [
            place
            for place, row in enumerate(going)
            if chosen[place] not in ends and row.add(chosen[place], margins[place], resident.tokenizer)
        ]
        if not kept:
            break
        if len(kept) < len(going):
            going = [going[place] for place in kept]
            cache.reorder_cache(torch.tensor(kept, device=resident.device))
        ids = torch.tensor([[chosen[place]] for place in kept], device=resident.device)
    return [row.done() for row in rows]


def _choose(logits: torch.Tensor, prompts: Sequence[Prompt], step: int) -> tuple[list[int], list[float]]:
    """Each row's next token and p(best) - p(second) at temperature 1.

    Sampled rows take the inverse of the cumulative distribution at one number drawn for (key, step).
    """
    values = logits.double().cpu()
    best = values.softmax(dim=-1).topk(2, dim=-1).values
    chosen = logits.argmax(dim=-1).tolist()
    sampled = [row for row, prompt in enumerate(prompts) if prompt.temperature > 0]
    if sampled:
        heat = torch.tensor([[prompts[row].temperature] for row in sampled], dtype=torch.float64)
        cumulative = (values[sampled] / heat).softmax(dim=-1).cumsum(dim=-1)
        numbers = torch.tensor([[uniform("token", *prompts[row].key, step)] for row in sampled], dtype=torch.float64)
        drawn = torch.searchsorted(cumulative, numbers * cumulative[:, -1:], right=True)[:, 0]
        for row, token in zip(sampled, drawn.clamp(max=values.shape[1] - 1).tolist(), strict=True):
            chosen[row] = token
    return chosen, (best[:, 0] - best[:, 1]).tolist()


def _end_ids(resident: Resident) -> set[int]:
    ends: set[int] = set()
    generation_config = getattr(resident.model, "generation_config", None)
    for value in (getattr(generation_config, "eos_token_id", None), resident.tokenizer.eos_token_id):
        ends.update(value if isinstance(value, list) else [] if value is None else [value])
    return ends
