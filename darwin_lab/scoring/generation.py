"""What a model writes after a prompt: greedy or sampled, many prompts at once.

Takes prompts as token ids, gives texts. Prompts of one length decode together, so no padding stands before any token;
a row leaves its batch as soon as it is complete. A thought is told from the answer, and closed when its budget is
spent. Knows nothing about items, right answers or protocols.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

import torch

from darwin_lab.engine.resident import Resident
from darwin_lab.errors import LabError
from darwin_lab.progress import Tick, silent
from darwin_lab.scoring.draws import uniform
from darwin_lab.scoring.kept import Entry, Kept
from darwin_lab.scoring.thinking import Thought

BATCH_ROWS = 128
_TAG_TOKENS = 24
"""A tag of a thought is looked for in this many of the last tokens."""


@dataclass(frozen=True)
class Prompt:
    """What is written after `ids`: greedily with temperature 0, else by draws that belong to `key`.

    Writing ends at an end-of-text token, where one of `stops` appears, after `most` tokens, or where the model's
    context ends. `name` is what an error calls it. With a `thought` the stops are looked for in the answer alone, and
    where the thought has a budget `most` counts the tokens after it.
    """

    ids: tuple[int, ...]
    name: str
    stops: tuple[str, ...] = ("\n",)
    most: int = 64
    temperature: float = 0.0
    key: tuple[object, ...] = ()
    thought: Thought | None = None

    @property
    def limit(self) -> int:
        """The most tokens that can be written."""
        spent = 0 if self.thought is None or self.thought.budget is None else self.thought.budget
        return self.most + spent + (len(self.thought.ending) if self.thought else 0)


@dataclass(frozen=True)
class Written:
    """The text up to the first stop, the number of tokens, and the smallest p(best) - p(second) over the tokens of
    its last line: how sure the model was of what it said last. `thought` is what it thought before the text."""

    text: str
    tokens: int
    margin: float
    thought: str = ""


Rows = Callable[[Prompt, Written], Iterable[dict[str, Any]]]
"""The score rows that a written text completes."""
Watch = Callable[[Sequence[Written]], None]
"""Gets the texts of a batch so far, after every token."""


def write(
    resident: Resident,
    prompts: Sequence[Prompt],
    tick: Tick = silent,
    *,
    keep: Kept | None = None,
    rows: Rows = lambda prompt, written: (),
    watch: Watch | None = None,
) -> list[Written]:
    """What the model writes after each prompt; equal prompts with equal draws are written once.

    A text depends on its prompt alone, beyond float rounding. With `keep` a batch is kept as it is done, with the
    `rows` its texts complete, and a batch kept before is not written again. Raises LabError for a prompt that already
    fills the model's context, one that leaves no room for its thought, and a streamed model.
    """
    if resident.streamed:
        raise LabError(
            "this model is streamed one layer at a time, and every word it writes would read all of it; score it by "
            "choice, hold it in memory with --stream never, or serve it and give --endpoint"
        )
    for prompt in prompts:
        _check_length(prompt, resident.context_length)
    found: dict[Prompt, Written] = {}
    batches = _batches(list(dict.fromkeys(prompts)))
    with resident.lock, torch.inference_mode():
        for number, batch in enumerate(batches):
            tick(number / len(batches), f"answering batch {number + 1} of {len(batches)}")
            names = [_name(prompt) for prompt in batch] if keep else []
            known: list[Any] = [keep.get(name) for name in names] if keep else [None]
            written = [Written(**value) for value in known] if all(known) else _write(resident, batch, watch)
            found.update(zip(batch, written, strict=True))
            if keep:
                made = zip(names, batch, written, strict=True)
                keep.put(Entry(name, asdict(text), tuple(rows(prompt, text))) for name, prompt, text in made)
    tick(1.0, "answered")
    return [found[prompt] for prompt in prompts]


def _check_length(prompt: Prompt, context: int) -> None:
    if not 0 < len(prompt.ids) < context:
        raise LabError(
            f"item {prompt.name!r} has a prompt of {len(prompt.ids)} tokens, but the model reads {context}; leave the "
            "item out or use a model with a longer context"
        )
    if prompt.thought and prompt.thought.budget is not None and len(prompt.ids) + prompt.limit > context:
        raise LabError(
            f"item {prompt.name!r}: its prompt of {len(prompt.ids)} tokens, {prompt.thought.budget} of thought and "
            f"{prompt.most} of answer do not fit the model's context of {context}; give a smaller --thinking-budget"
        )


def _name(prompt: Prompt) -> str:
    """A digest of all that a text depends on."""
    return hashlib.blake2b(repr(astuple(prompt)).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _batches(prompts: Sequence[Prompt]) -> list[list[Prompt]]:
    """Prompts of equal length, longest first, at most `BATCH_ROWS` together."""
    batches: list[list[Prompt]] = []
    for prompt in sorted(prompts, key=lambda prompt: (-len(prompt.ids), prompt.ids)):
        if not batches or len(batches[-1][0].ids) != len(prompt.ids) or len(batches[-1]) == BATCH_ROWS:
            batches.append([])
        batches[-1].append(prompt)
    return batches


class _Row:
    """One prompt's text so far: `tokens`, of which the answer begins at `_begin` and is not yet while `_inside`."""

    def __init__(self, prompt: Prompt) -> None:
        self.prompt = prompt
        self.tokens: list[int] = []
        self.text = ""
        self.pending: list[int] = []
        self._inside = prompt.thought is not None and prompt.thought.opened
        self._begin = self._count_from = 0
        self._ends: list[int] = []
        self._margins: list[float] = []

    def add(self, token: int, margin: float, tokenizer: Any) -> bool:
        """Take one more token; whether the row goes on. What has to come next, whatever the model says, is pending."""
        self.tokens.append(token)
        if self._inside:
            return self._think(tokenizer)
        said = self.tokens[self._begin :]
        thought = self.prompt.thought
        if thought and len(said) <= _TAG_TOKENS and tokenizer.decode(said).strip() == thought.opening:
            self._inside, self._begin = True, len(self.tokens)
            return True
        self.text = tokenizer.decode(said, skip_special_tokens=True)
        if thought:
            self.text = self.text.lstrip()
        self._ends.append(len(self.text))
        self._margins.append(margin)
        if self.pending:
            self._count_from = len(self.tokens) + len(self.pending)
            return True
        return len(self.tokens) - self._count_from < self.prompt.most and not any(
            stop in self.text for stop in self.prompt.stops
        )

    def _think(self, tokenizer: Any) -> bool:
        """One more token of thought; whether the row goes on."""
        thought = self.prompt.thought
        assert thought is not None
        since = max(self._begin, len(self.tokens) - _TAG_TOKENS)
        if thought.closing in tokenizer.decode(self.tokens[since:]):
            self._inside, self._begin = False, len(self.tokens)
            self._count_from = len(self.tokens) + len(self.pending) if thought.budget is not None else 0
            return thought.budget is not None or len(self.tokens) < self.prompt.most
        if thought.budget is None:
            return len(self.tokens) < self.prompt.most
        if not self.pending and len(self.tokens) - self._begin >= thought.budget:
            self.pending = list(thought.ending)
        return True

    def done(self, tokenizer: Any) -> Written:
        cut = min((place for stop in self.prompt.stops if (place := self.text.find(stop)) >= 0), default=None)
        text = "" if self._inside else self.text[:cut]
        last_line = text.rstrip().rfind("\n") + 1
        last = [margin for end, margin in zip(self._ends, self._margins, strict=True) if end > last_line]
        thoughts = self.tokens if self._inside else self.tokens[: self._begin]
        thought = tokenizer.decode(thoughts, skip_special_tokens=True) if self.prompt.thought else ""
        return Written(text, len(self.tokens), min(last, default=0.0), thought)


def _write(resident: Resident, prompts: Sequence[Prompt], watch: Watch | None) -> list[Written]:
    """The texts of prompts of one length."""
    ends = resident.end_ids
    rows = [_Row(prompt) for prompt in prompts]
    going = list(rows)
    ids = torch.tensor([prompt.ids for prompt in prompts], device=resident.device)
    cache = None
    most = max(prompt.limit for prompt in prompts)
    for step in range(min(most, resident.context_length - len(prompts[0].ids))):
        out = resident.backbone(input_ids=ids, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        chosen, margins = _choose(resident.logits(out.last_hidden_state[:, -1]), [row.prompt for row in going], step)
        forced = [place for place, row in enumerate(going) if row.pending]
        for place in forced:
            chosen[place], margins[place] = going[place].pending.pop(0), 1.0
        kept = [
            place
            for place, row in enumerate(going)
            if (place in forced or chosen[place] not in ends)
            and row.add(chosen[place], margins[place], resident.tokenizer)
        ]
        if watch:
            watch([row.done(resident.tokenizer) for row in rows])
        if not kept:
            break
        if len(kept) < len(going):
            going = [going[place] for place in kept]
            cache.reorder_cache(torch.tensor(kept, device=resident.device))
        ids = torch.tensor([[chosen[place]] for place in kept], device=resident.device)
    return [row.done(resident.tokenizer) for row in rows]


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
