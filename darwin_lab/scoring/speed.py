"""How fast a model reads and writes here: tokens a second by batch size.

Takes a resident model, gives the median and the range of repeats. The tokens are arbitrary: what they are changes no
time. Reading is one pass over prompts; writing is one token at a time for every row, with the cache that fills.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from darwin_lab.engine.resident import Resident
from darwin_lab.errors import LabError
from darwin_lab.progress import Tick, silent

BATCHES = (1, 4, 16)
PROMPT_TOKENS, WRITTEN_TOKENS, REPEATS = 128, 32, 3
_VARIED = 97
Rate = tuple[float, float, float]
"""Median, slowest and fastest of the repeats, tokens a second."""


@dataclass(frozen=True)
class SpeedRow:
    """One batch size: tokens a second of all its rows together. None where it did not fit in memory."""

    batch: int
    reading: Rate | None
    writing: Rate | None


def speed_test(
    resident: Resident,
    batches: Sequence[int] = BATCHES,
    *,
    prompt_tokens: int = PROMPT_TOKENS,
    written_tokens: int = WRITTEN_TOKENS,
    repeats: int = REPEATS,
    tick: Tick = silent,
) -> list[SpeedRow]:
    """One row a batch size, smallest first. Prompts are cut to what the context leaves.

    Raises `LabError` for a streamed model, whose every token would read all weights.
    """
    if resident.streamed:
        raise LabError("this model is streamed one layer at a time; its speed is that of the disk, so it is not timed")
    length = max(1, min(prompt_tokens, resident.context_length - written_tokens))
    rows = []
    with resident.lock, torch.inference_mode():
        _measure(resident, 1, length, 2)
        for place, batch in enumerate(sorted(batches)):
            pairs = []
            for turn in range(repeats):
                tick((place + turn / repeats) / len(batches), f"timing {batch} at once, {turn + 1} of {repeats}")
                try:
                    pairs.append(_measure(resident, batch, length, written_tokens))
                except (torch.OutOfMemoryError, MemoryError):
                    break
            full = len(pairs) == repeats
            reading, writing = (_rate([pair[which] for pair in pairs]) if full else None for which in (0, 1))
            rows.append(SpeedRow(batch, reading, writing))
    tick(1.0, "timed")
    return rows


def _measure(resident: Resident, batch: int, length: int, written: int) -> tuple[float, float]:
    """Tokens a second read and written by a batch, once."""
    vocabulary = resident.model.get_input_embeddings().weight.shape[0]
    ids = (torch.arange(batch * length, device=resident.device) % min(_VARIED, vocabulary)).reshape(batch, length)
    cache: Any = None

    def read() -> None:
        nonlocal cache
        out = resident.backbone(input_ids=ids, use_cache=True)
        cache = out.past_key_values
        resident.logits(out.last_hidden_state[:, -1])

    def write() -> None:
        for _ in range(written):
            out = resident.backbone(input_ids=ids[:, :1], past_key_values=cache, use_cache=True)
            resident.logits(out.last_hidden_state[:, -1])

    return batch * length / _seconds(read, resident), batch * written / _seconds(write, resident)


def _seconds(work: Callable[[], None], resident: Resident) -> float:
    started = time.perf_counter()
    work()
    if resident.device.type == "cuda":
        torch.cuda.synchronize(resident.device)
    return max(time.perf_counter() - started, 1e-9)


def _rate(rates: Sequence[float]) -> Rate:
    return median(rates), min(rates), max(rates)
