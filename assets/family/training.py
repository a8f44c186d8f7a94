"""How one stage of the family's upbringing runs: documents -> packed rows -> AdamW steps.

In: a model, a tokenizer, a `Stage` (what to read, how long, how fast). Out: the same model, trained in place.
Several processes may share a stage: each packs its own rows and gradients are averaged over gloo.
Knows nothing of benchmarks: items never reach this module.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import packed
import skills
import torch
import torch.distributed as dist
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

ROW_LENGTH = 48
QUESTION_SHARE = 0.15  # share of question tokens that are predicted too; answers always are
SEVERAL_SHARE = 0.15  # share of documents that hold several facts, as the probe texts do


@dataclass(frozen=True)
class Stage:
    """One stretch of training.

    `diet` weighs the skills per document; `balance` is the coefficient of the load-balancing loss (Switch
    Transformer, arXiv 2101.03961, per layer); `router_speed` multiplies the routers' learning rate and
    `router_decay` is their weight decay (nothing else has any). `until` stops early, the rate following the schedule of
    all `steps`: that is what makes a checkpoint of a longer training.
    """

    diet: dict[str, float]
    steps: int
    rate: float
    rows: int = 20
    warmup: int = 50
    final_rate: float = 1.0
    balance: float = 0.0
    router_speed: float = 1.0
    router_decay: float = 0.0
    until: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Batch:
    """Packed rows: `ids` and `documents` are [rows, length], targets are flat positions and the ids expected there."""

    ids: Tensor
    documents: Tensor
    positions: Tensor
    targets: Tensor


class Reader:
    """An endless stream of packed batches, a pure function of its stage's diet and its seed."""

    def __init__(self, tokenizer: Tokenizer, diet: dict[str, float], rows: int, seed: int) -> None:
        self.rng = random.Random(seed)
        self.tokenizer = tokenizer
        self.tasks, self.weights = list(diet), list(diet.values())
        self.rows = rows
        self.waiting: list[tuple[list[int], list[int]]] = []
        self.known: dict[str, list[int]] = {}
        self.end = tokenizer.token_to_id("<|endoftext|>")
        self.pad = tokenizer.token_to_id("<|pad|>")

    def _encode(self, text: str) -> list[int]:
        if text not in self.known:
            if len(self.known) > 200_000:
                self.known.clear()
            self.known[text] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return self.known[text]

    def _document(self) -> tuple[list[int], list[int]]:
        """Token ids of one document and, for each, whether it is to be predicted."""
        task = self.rng.choices(self.tasks, self.weights)[0]
        if task == "NEUTRAL":
            ids = self._encode(skills.neutral_text(self.rng, self.rng.randint(1, 4)))[: ROW_LENGTH - 1]
            return [*ids, self.end], [1] * (len(ids) + 1)
        several = self.rng.random() < SEVERAL_SHARE
        count = self.rng.randint(2, skills.PROBE_PAIRS[task]) if several else 1
        ids: list[int] = []
        wanted: list[int] = []
        for index in range(count):
            fact = skills.training_fact(task, self.rng)
            question = self._encode(("\n" if index else "") + skills.context(fact.question))
            answer = self._encode(" " + fact.answer)
            if len(ids) + len(question) + len(answer) + 1 > ROW_LENGTH:
                break
            ids += question + answer
            wanted += [int(self.rng.random() < QUESTION_SHARE) for _ in question] + [1] * len(answer)
        return [*ids, self.end], [*wanted, 1]

    def batch(self) -> Batch:
        """First fit into `rows` rows; documents that found no room wait for the next batch."""
        ids = [[] for _ in range(self.rows)]
        wanted = [[] for _ in range(self.rows)]
        numbers = [[] for _ in range(self.rows)]
        left_over = []
        while len(left_over) < 8:
            document = self.waiting.pop() if self.waiting else self._document()
            length = len(document[0])
            row = next((r for r in range(self.rows) if len(ids[r]) + length <= ROW_LENGTH), None)
            if row is None:
                left_over.append(document)
                continue
            number = numbers[row][-1] + 1 if numbers[row] else 0
            ids[row] += document[0]
            wanted[row] += document[1]
            numbers[row] += [number] * length
        self.waiting = left_over
        positions, targets = [], []
        for row in range(self.rows):
            for place in range(1, len(ids[row])):
                if wanted[row][place] and numbers[row][place] == numbers[row][place - 1]:
                    positions.append(row * ROW_LENGTH + place - 1)
                    targets.append(ids[row][place])
            missing = ROW_LENGTH - len(ids[row])
            ids[row] += [self.pad] * missing
            numbers[row] += [-1] * missing
        return Batch(*(torch.tensor(part) for part in (ids, numbers, positions, targets)))


def balancing_loss(router_logits: list[Tensor], real: Tensor, top_k: int) -> Tensor:
    """Switch load balancing averaged over layers: 1 where all experts get the same share. `real` [tokens] bool."""
    losses = []
    for logits in router_logits:
        probabilities = logits[real].softmax(-1)
        experts = probabilities.shape[-1]
        chosen = probabilities.topk(top_k, -1).indices
        load = torch.bincount(chosen.reshape(-1), minlength=experts) / chosen.numel()
        losses.append(experts * (load * probabilities.mean(0)).sum())
    return torch.stack(losses).mean()


def _groups(model: nn.Module, stage: Stage) -> list[dict]:
    routers = [p for name, p in model.named_parameters() if name.endswith("mlp.gate.weight")]
    routers_ids = {id(p) for p in routers}
    others = [p for p in model.parameters() if id(p) not in routers_ids]
    return [
        {"params": others, "speed": 1.0, "weight_decay": 0.0},
        {"params": routers, "speed": stage.router_speed, "weight_decay": stage.router_decay},
    ]


def _rate(stage: Stage, step: int) -> float:
    """Linear warm-up, then a cosine from 1 to `final_rate` of the stage's rate."""
    if step < stage.warmup:
        return stage.rate * (step + 1) / stage.warmup
    done = (step - stage.warmup) / max(1, stage.steps - stage.warmup)
    return stage.rate * (stage.final_rate + (1 - stage.final_rate) * 0.5 * (1 + math.cos(math.pi * done)))


def _average_gradients(parameters: list[nn.Parameter]) -> None:
    flat = torch.cat([p.grad.reshape(-1) for p in parameters])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    start = 0
    for p in parameters:
        p.grad.copy_(flat[start : start + p.numel()].view_as(p))
        start += p.numel()


def train(
    model: nn.Module,
    tokenizer: Tokenizer,
    stage: Stage,
    log: Callable[[str], None],
    on_step: Callable[[int], None] | None = None,
) -> None:
    """Run one stage on this process' share of rows; `on_step` is called after every step with its number."""
    rank, shared = (dist.get_rank(), True) if dist.is_initialized() else (0, False)
    reader = Reader(tokenizer, stage.diet, stage.rows, stage.seed * 1000 + rank)
    optimizer = torch.optim.AdamW(_groups(model, stage), lr=stage.rate, betas=(0.9, 0.98), fused=True)
    parameters = list(model.parameters())
    started, losses = time.monotonic(), []
    model.train()
    last = stage.until or stage.steps
    for step in range(last):
        for group in optimizer.param_groups:
            group["lr"] = _rate(stage, step) * group["speed"]
        batch = reader.batch()
        hidden, router_logits = packed.forward(model, batch.ids, packed.pack(model, batch.documents))
        logits = model.lm_head(hidden.reshape(-1, hidden.shape[-1])[batch.positions])
        loss = F.cross_entropy(logits, batch.targets)
        losses.append(loss.item())
        if stage.balance:
            real = batch.documents.reshape(-1) >= 0
            loss = loss + stage.balance * balancing_loss(router_logits, real, model.config.num_experts_per_tok)
        loss.backward()
        if shared:
            _average_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if rank == 0 and (step + 1) % 50 == 0:
            seconds = time.monotonic() - started
            log(f"step {step + 1}/{last}  loss {sum(losses[-50:]) / 50:.3f}  {seconds:.0f} s")
        if on_step:
            on_step(step + 1)
    model.eval()
