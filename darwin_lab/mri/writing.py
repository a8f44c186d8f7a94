"""Short greedy texts that a model writes on the probes, to see whether it falls into a loop.

Takes a resident model, the source whose weights it shall carry, and probes; gives `Loops`. Must not know: what is made
of them, where they are kept.
"""

from collections.abc import Sequence

import torch

from darwin_lab.engine.resident import Resident
from darwin_lab.engine.source import Source
from darwin_lab.mri.loops import LEAST_TOKENS, PROMPT_TOKENS, TEXTS_OF_EACH, WRITTEN_TOKENS, Loops, ends_in_loop
from darwin_lab.mri.measures import encode_texts
from darwin_lab.mri.probes import ProbeSet
from darwin_lab.progress import Tick, silent


def count_loops(model: Resident, source: Source, probes: ProbeSet, tick: Tick = silent) -> Loops | None:
    """Let `source` go on greedily from the first texts of every probe.

    None where nothing can be counted: for a streamed model, whose every token would read all of it, and for one that
    reads too few tokens for a loop to show after the first two.
    """
    prompt = min(PROMPT_TOKENS, model.context_length - LEAST_TOKENS)
    if model.streamed or prompt < 2:
        return None
    with model.lock:
        model.become(source)
        prompts = [
            ids
            for probe, texts in probes.texts.items()
            for ids in encode_texts(model.tokenizer, texts[:TEXTS_OF_EACH], probe, prompt, model.context_length)
        ]
        return Loops(tuple(map(ends_in_loop, _written(model, prompts, source.name, tick))))


@torch.inference_mode()
def _written(model: Resident, prompts: Sequence[Sequence[int]], name: str, tick: Tick) -> list[list[int]]:
    """The tokens after each prompt, up to the end of the text; prompts of one length are written together."""
    ends = model.end_ids
    written: list[list[int]] = [[] for _ in prompts]
    lengths = sorted({len(prompt) for prompt in prompts})
    for place, length in enumerate(lengths):
        chosen = [number for number, prompt in enumerate(prompts) if len(prompt) == length]
        ids = torch.tensor([prompts[number] for number in chosen], device=model.device)
        cache, going = None, set(chosen)
        steps = min(WRITTEN_TOKENS, model.context_length - length)
        for step in range(steps):
            tick((place + step / steps) / len(lengths), f"{name} writes {len(prompts)} texts")
            out = model.backbone(input_ids=ids, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            ids = model.logits(out.last_hidden_state[:, -1]).argmax(dim=-1, keepdim=True)
            for number, token in zip(chosen, ids[:, 0].tolist(), strict=True):
                going -= {number} if token in ends else set()
                if number in going:
                    written[number].append(token)
            if not going:
                break
    return written
