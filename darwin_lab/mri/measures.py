"""Numbers out of one batch of hidden states: token batches, cosine distances, next-token losses, what experts put out.

Takes token ids and the final normed hidden states of several branches of the same texts (branch 0 is the plain pass);
gives one number per branch and text, and per expert. Logits are formed for a block of positions at a time, so a large
vocabulary costs one block and never [branches, texts, tokens, vocabulary].
Must not know: how the branches were made (skip, swap), probes' meanings, files.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from darwin_lab.engine.routing import Routing
from darwin_lab.engine.sweep import out_of_memory
from darwin_lab.errors import LabError

LOGIT_BLOCK = 1 << 21
"""Elements of one block of logits: 8 MB in float32."""
FEWEST_ROWS = 64
"""Rows of a block, however large the vocabulary: fewer would read the output matrix too often."""
Batch = tuple[str, list[int]]
"""A probe and the indices of those of its texts that are read together."""


def encode_texts(
    tokenizer: Any, texts: Sequence[str], probe: str, max_tokens: int, context: int | None = None
) -> list[list[int]]:
    """Token ids per text, each cut to `max_tokens`.

    Raises `LabError` for a probe without texts, for a text of fewer than two tokens (nothing to predict), and for one
    that is still longer than the model's `context`.
    """
    if not texts:
        raise LabError(f"probe {probe} has no text; give at least one text of two tokens or more")
    encoded = []
    for index, text in enumerate(texts):
        ids = list(tokenizer(text)["input_ids"])[:max_tokens]
        if len(ids) < 2:
            raise LabError(
                f"probe {probe}, text {index + 1} ({text[:30]!r}) is {len(ids)} token long; "
                "a next token needs at least two: lengthen or remove it, or give other probes"
            )
        if context is not None and len(ids) > context:
            raise LabError(
                f"probe {probe}, text {index + 1} ({text[:30]!r}) is {len(ids)} tokens long, "
                f"the model reads at most {context}; shorten it, or cut all texts with --max-tokens {context}"
            )
        encoded.append(ids)
    return encoded


def batches_by_length(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Indices of texts in batches of like length, each at most `batch_tokens` padded tokens (at least one text).

    Sorted by length, ties by position: the same lengths give the same plan.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if batches and (len(batches[-1]) + 1) * lengths[index] <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def group_batches(
    encoded: Mapping[str, list[list[int]]], batch_tokens: int, bytes_per_token: int, room: int
) -> list[list[Batch]]:
    """What is swept together: one batch, or as many as `room` bytes of states take (0: one)."""
    groups: list[list[Batch]] = []
    left = 0
    for probe, rows in encoded.items():
        lengths = [len(ids) for ids in rows]
        for chosen in batches_by_length(lengths, batch_tokens):
            size = len(chosen) * max(lengths[index] for index in chosen) * bytes_per_token
            if not groups or size > left:
                groups.append([])
                left = room
            groups[-1].append((probe, chosen))
            left -= size
    return groups


def in_halves(group: Sequence[Batch], read: Callable[[Sequence[Batch]], None]) -> None:
    """Calls `read` on a group of batches; when memory runs out, on each half of it, down to a single text.

    `read` must give the same when it is called again. Raises what it raised for a single text.
    """
    try:
        read(group)
        return
    except (LabError, MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        parts = _halved(group)
        if not parts:
            if isinstance(error, LabError):
                raise
            raise LabError(
                f"memory runs out with a single text of probe {group[0][0]}; "
                "give shorter texts, or close other programs"
            ) from error
    for part in parts:
        in_halves(part, read)


def _halved(group: Sequence[Batch]) -> list[Sequence[Batch]]:
    """Two groups of half the batches, or of half the texts of the only one; none of a single text."""
    if len(group) > 1:
        return [group[: len(group) // 2], group[len(group) // 2 :]]
    probe, chosen = group[0]
    half = len(chosen) // 2
    return [[(probe, chosen[:half])], [(probe, chosen[half:])]] if half else []


def cosine_distance(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """1 - cos over the last axis of [B, T, H], mean over real tokens of `mask` [B, T] -> float64 [B], never below 0.

    Source: `skip` and `influence` of the method sheet (ShortGPT, arXiv 2403.03853, for the latter).
    """
    cosine = torch.nn.functional.cosine_similarity(a.float(), b.float(), dim=-1).double()
    weight = mask.double()
    return (((1 - cosine) * weight).sum(-1) / weight.sum(-1)).clamp_min(0)


def routed_output(routing: Routing, mask: Tensor) -> Tensor:
    """[B, E]: gate x ||expert output||, summed over the real tokens of each text that were routed to the expert.

    Divided by how often it was chosen this is its saliency. Source: REAP, arXiv 2510.13999.
    """
    real = mask.bool()
    chosen, gates = routing.chosen[real], routing.weights[real]
    tokens, top_k = chosen.shape
    outputs = routing.outputs(routing.inputs[real].repeat_interleave(top_k, 0), chosen.reshape(-1))
    felt = gates.double() * outputs.float().norm(dim=-1).reshape(tokens, top_k)
    texts, experts = len(mask), routing.probabilities.shape[-1]
    owner = torch.nonzero(real)[:, :1] * experts + chosen
    summed = torch.zeros(texts * experts, dtype=torch.float64, device=mask.device)
    return summed.scatter_add_(0, owner.reshape(-1), felt.reshape(-1)).reshape(texts, experts)


def output_similarity(routing: Routing, rows: Sequence[int], positions: Sequence[int]) -> Tensor:
    """[S]: mean cosine between the outputs of any two experts, every expert run on the token at (row, position).

    NaN with a single expert. Source: methods, section 4.
    """
    inputs = routing.inputs[list(rows), list(positions)]
    experts = routing.probabilities.shape[-1]
    which = torch.arange(experts, device=inputs.device).repeat_interleave(len(inputs))
    outputs = routing.outputs(inputs.repeat(experts, 1), which).float()
    units = torch.nn.functional.normalize(outputs, dim=-1).reshape(experts, len(inputs), -1)
    pairs = units.sum(0, dtype=torch.float64).square().sum(-1) - units.square().sum((0, -1), dtype=torch.float64)
    return pairs / (experts * (experts - 1)) if experts > 1 else torch.full_like(pairs, float("nan"))


def next_token_losses(
    logits_of: Callable[[Tensor], Tensor], states: Tensor, input_ids: Tensor, mask: Tensor, *, divergence: bool
) -> tuple[Tensor, Tensor]:
    """Mean next-token NLL per branch and text, and KL(plain || branch) of the next-token distribution, in nats.

    `states` [R, B, T, H] final normed hidden, branch 0 plain; `input_ids`, `mask` [B, T], right-padded. Gives
    float64 [R, B] each; means run over the tokens that predict a real token. KL is zero unless `divergence`. A branch
    that equals the plain one differs from it by exactly zero.
    """
    texts, positions = torch.nonzero((mask[:, 1:] * mask[:, :-1]).bool(), as_tuple=True)
    targets = input_ids[texts, positions + 1]
    branches, vocabulary = states.shape[0], logits_of(states[0, :1, 0]).shape[-1]
    rows = max(FEWEST_ROWS, LOGIT_BLOCK // vocabulary)
    nll = torch.empty(branches, len(texts), dtype=torch.float64)
    kl = torch.zeros_like(nll)
    for start in range(0, len(texts), rows):
        block = slice(start, start + rows)
        hidden = states[:, texts[block], positions[block]]
        target = targets[block, None]
        for branch in range(branches):
            logits = logits_of(hidden[branch]).float()
            normaliser = torch.logsumexp(logits, -1)
            nll[branch, block] = (normaliser - logits.gather(-1, target)[:, 0]).double().cpu()
            if not divergence:
                continue
            if branch == 0:
                probability = (logits - normaliser[:, None]).exp()
                negentropy = torch.linalg.vecdot(probability, logits) - normaliser
            cross = torch.linalg.vecdot(probability, logits) - normaliser
            kl[branch, block] = (negentropy - cross).clamp_min(0).double().cpu()
    share = torch.zeros(len(input_ids), len(texts), dtype=torch.float64)
    share[texts.cpu(), torch.arange(len(texts))] = 1
    share /= share.sum(-1, keepdim=True)
    return (share @ nll.T).T, (share @ kl.T).T
