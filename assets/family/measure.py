"""What the family's card states: accuracies with intervals, dead experts, blends, paired permutation test.

In: models of the family, its tokenizer, item rows and probe rows. Out: plain numbers. This is the family's own small
ruler, used while it is raised; the laboratory measures with its own instruments and must agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import packed
import skills
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

END_TOKEN = "<|endoftext|>"
BATCH = 200
DEAD_SHARE = 0.05


@dataclass(frozen=True)
class Scores:
    """Per item, in the order of the rows: was the generated answer right, was the best option right, p(gold)."""

    tasks: list[str]
    exact: list[int]
    choice: list[int]
    p_gold: list[float]

    def mean(self, values: str, task: str) -> float:
        picked = [v for v, t in zip(getattr(self, values), self.tasks, strict=True) if t == task]
        return sum(picked) / len(picked)

    def overall(self, values: str) -> float:
        """Unweighted mean over the skills."""
        return sum(self.mean(values, task) for task in skills.SKILLS) / len(skills.SKILLS)


def _hidden(model: nn.Module, rows: list[list[int]]) -> tuple[Tensor, list[Tensor]]:
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    return packed.forward(model, ids, packed.pack(model, torch.zeros_like(ids)))


def _generate(model: nn.Module, tokenizer: Tokenizer, prompts: list[list[int]], limit: int = 12) -> list[str]:
    """Greedy continuation of each prompt up to the end token or a newline, stripped."""
    rows, growing = [list(prompt) for prompt in prompts], list(range(len(prompts)))
    stops = {i for token, i in tokenizer.get_vocab().items() if token.startswith(("Ċ", "\n"))}
    stops.add(tokenizer.token_to_id(END_TOKEN))
    for _ in range(limit):
        if not growing:
            break
        hidden, _ = _hidden(model, [rows[i] for i in growing])
        last = hidden[range(len(growing)), [len(rows[i]) - 1 for i in growing]]
        still = []
        for i, token in zip(growing, model.lm_head(last).argmax(-1).tolist(), strict=True):
            if token not in stops:
                rows[i].append(token)
                still.append(i)
        growing = still
    return [tokenizer.decode(row[len(p) :]).strip() for row, p in zip(rows, prompts, strict=True)]


def _choice_scores(model: nn.Module, tokenizer: Tokenizer, rows: list[dict]) -> list[list[float]]:
    """Total log-likelihood of every option of every row."""
    pairs = []
    for row in rows:
        prompt = skills.context(row["question"])
        start = len(tokenizer.encode(prompt).ids)
        pairs += [(tokenizer.encode(f"{prompt} {choice}").ids, start) for choice in row["choices"]]
    inputs = sorted({tuple(ids[:-1]) for ids, _ in pairs}, key=len)
    place = {ids: i for i, ids in enumerate(inputs)}
    wanted: dict[tuple[int, ...], set[int]] = {}
    for ids, start in pairs:
        wanted.setdefault(tuple(ids[:-1]), set()).add(start)
    log_probs = {}
    for first in range(0, len(inputs), BATCH):
        chunk = inputs[first : first + BATCH]
        hidden, _ = _hidden(model, [list(ids) for ids in chunk])
        for i, ids in enumerate(chunk):
            for start in wanted[ids]:
                tail = model.lm_head(hidden[i, start - 1 : len(ids)]).log_softmax(-1)
                log_probs[place[ids], start] = tail
    totals = []
    for ids, start in pairs:
        tail = log_probs[place[tuple(ids[:-1])], start]
        totals.append(sum(tail[k, token].item() for k, token in enumerate(ids[start:])))
    options = skills.CHOICES
    return [totals[i : i + options] for i in range(0, len(totals), options)]


@torch.no_grad()
def score(model: nn.Module, tokenizer: Tokenizer, rows: list[dict], *, choices: bool = True) -> Scores:
    """Both readings of every item: generated answer and multiple choice (skipped when `choices` is off)."""
    exact = []
    for task in skills.SKILLS:
        own = [row for row in rows if row["task"] == task]
        for first in range(0, len(own), BATCH):
            chunk = own[first : first + BATCH]
            prompts = [tokenizer.encode(skills.context(row["question"])).ids for row in chunk]
            answers = _generate(model, tokenizer, prompts)
            exact += [int(a == row["choices"][row["answer"]]) for a, row in zip(answers, chunk, strict=True)]
    ordered = [row for task in skills.SKILLS for row in rows if row["task"] == task]
    best, p_gold = [0] * len(ordered), [0.0] * len(ordered)
    if choices:
        for i, (row, totals) in enumerate(zip(ordered, _choice_scores(model, tokenizer, ordered), strict=True)):
            best[i] = int(max(range(len(totals)), key=totals.__getitem__) == row["answer"])
            p_gold[i] = torch.tensor(totals).softmax(0)[row["answer"]].item()
    return Scores([row["task"] for row in ordered], exact, best, p_gold)


@torch.no_grad()
def expert_use(model: nn.Module, tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    """Share of the assignments each expert of each layer gets on these texts, [layers, experts]."""
    config = model.config
    counts = torch.zeros(config.num_hidden_layers, config.num_experts)
    for text in texts:
        _, router_logits = _hidden(model, [tokenizer.encode(text).ids])
        for layer, logits in enumerate(router_logits):
            chosen = logits.topk(config.num_experts_per_tok, -1).indices.reshape(-1)
            counts[layer] += torch.bincount(chosen, minlength=config.num_experts)
    return counts / counts.sum(-1, keepdim=True)


def dead_share(use: Tensor) -> float:
    """Share of experts with less than 5 % of the uniform share."""
    return (use < DEAD_SHARE / use.shape[-1]).float().mean().item()


def wilson(successes: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927)."""
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return centre - half, centre + half


def permutation_p(first: list[int], second: list[int], tasks: list[str], draws: int = 20_000, seed: int = 0) -> float:
    """One-sided paired permutation test of mean(first) > mean(second), the skills weighing the same.

    Signs are flipped item by item; with as many items in every skill the stratified mean is the plain one.
    """
    weights = {task: 1 / tasks.count(task) for task in tasks}
    gaps = torch.tensor([(a - b) * weights[t] for a, b, t in zip(first, second, tasks, strict=True)])
    gaps = gaps[gaps != 0]
    if not len(gaps):
        return 1.0
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (draws, len(gaps)), generator=generator) * 2 - 1
    return ((signs * gaps).sum(-1) >= gaps.sum() - 1e-9).float().mean().item()


def blend(model: nn.Module, father: dict, mother: dict, ratio: Callable[[str], float]) -> None:
    """Write (1 - r) father + r mother into the model, tensor by tensor, as the child on disk would be (bf16)."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            mixed = torch.lerp(father[name].float(), mother[name].float(), ratio(name))
            tensor.copy_(mixed.to(torch.bfloat16).float())
