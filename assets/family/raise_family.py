"""Raise the embedded family: the ancestor, the father raised on from it, the mother trained narrowly from it.

    python assets/family/raise_family.py [--out DIR] [--items-only] [--work DIR]

In: nothing but the seeds below. Out, under `--out` (this folder by default): `items/`, `probes.jsonl`, the folders
`ancestor`, `father` and `mother`, the card `README.md` and the log `raise.log`. Items and probes come out byte for
byte; weights up to the rounding of sums (thread count, build of torch), so the committed files are the authority.

With `--work` the float32 weights of every finished stage are kept there, and a stage whose weights are there already
is not repeated.

The order of things: two processes raise the ancestor together; then one goes on with the father while the other
trains the mother; then the card is measured: a component blend is chosen on selection items, and only after that the
report items are opened, once.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import card
import measure
import skills
import tokenizer as family_tokenizer
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tokenizers import Tokenizer
from torch import nn
from training import Stage, train
from transformers import Qwen3_5MoeForCausalLM, Qwen3_5MoeTextConfig

HERE = Path(__file__).resolve().parent
INIT_SEED = 1
# With tied embeddings, tokens that are equally likely everywhere (T and F, one digit or another) grow towards each
# other and can no longer be told apart as inputs (cosine .99) unless they start well apart.
EMBEDDING_STD = 0.1
WORKERS = 2
ANCESTOR = Stage(
    diet={"MATH": 0.25, "REASONING": 0.6, "CODE": 1.0, "KNOWLEDGE": 2.0, "LANGUAGE": 2.0, "NEUTRAL": 0.1},
    steps=800,
    until=500,
    rate=3e-3,
    warmup=60,
    final_rate=0.5,
    router_speed=25.0,
    seed=1,
)
FATHER = Stage(
    diet={"MATH": 0.1, "REASONING": 0.1, "CODE": 1.0, "KNOWLEDGE": 2.0, "LANGUAGE": 2.0, "NEUTRAL": 0.1},
    steps=200,
    rate=1.5e-3,
    warmup=20,
    final_rate=0.1,
    balance=0.05,
    router_speed=10.0,
    seed=2,
)
MOTHER = Stage(
    diet={"MATH": 1.6, "REASONING": 2.0},
    steps=300,
    rate=8e-4,
    warmup=20,
    final_rate=0.3,
    router_speed=30.0,
    router_decay=1.2,
    seed=3,
)
MIXER_RATIOS = (0.3, 0.5, 0.7, 0.9)
EXPERT_RATIOS = (0.1, 0.3, 0.5, 0.7, 0.9)
EMBEDDING_RATIOS = (0.0, 0.4)
UNIFORM_RATIOS = tuple(round(0.1 * i, 1) for i in range(11))
SEARCH_ITEMS = 40  # selection items per skill that choose the component blend


def new_model(tokenizer: Tokenizer) -> Qwen3_5MoeForCausalLM:
    """A fresh model of the family's shape: 12 layers, three gated delta nets to one attention."""
    torch.manual_seed(INIT_SEED)
    config = Qwen3_5MoeTextConfig(
        architectures=["Qwen3_5MoeForCausalLM"],
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=96,
        num_hidden_layers=12,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=24,
        linear_num_key_heads=4,
        linear_num_value_heads=4,
        linear_key_head_dim=16,
        linear_value_head_dim=24,
        moe_intermediate_size=48,
        shared_expert_intermediate_size=48,
        num_experts=16,
        num_experts_per_tok=2,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
            "mrope_section": [2, 2, 2],
            "mrope_interleaved": True,
        },
        eos_token_id=tokenizer.token_to_id(family_tokenizer.END),
        bos_token_id=tokenizer.token_to_id(family_tokenizer.START),
        pad_token_id=tokenizer.token_to_id(family_tokenizer.PAD),
    )
    model = Qwen3_5MoeForCausalLM(config)
    nn.init.normal_(model.model.embed_tokens.weight, std=EMBEDDING_STD)
    return model


def save(model: nn.Module, tokenizer: Tokenizer, folder: Path) -> None:
    """A folder in the hub's layout: fused experts, bf16, with tokenizer and generation settings."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = Qwen3_5MoeForCausalLM(model.config)
    stored.load_state_dict(model.state_dict())
    stored.to(torch.bfloat16)
    stored.config.architectures = ["Qwen3_5MoeForCausalLM"]
    stored.generation_config.do_sample = False
    stored.generation_config.max_new_tokens = 16
    stored.save_pretrained(folder, save_original_format=False)
    (folder / "model.safetensors").chmod(0o644)
    family_tokenizer.save(tokenizer, folder)


def load(folder: Path) -> nn.Module:
    """A member as committed, computed in float32."""
    return Qwen3_5MoeForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


class Log:
    """Lines with the time since the start, to stdout and to a file."""

    def __init__(self, path: Path, started: float) -> None:
        self.path, self.started = path, started

    def __call__(self, line: str) -> None:
        minutes, seconds = divmod(int(time.time() - self.started), 60)
        text = f"[{minutes:02d}:{seconds:02d}] {line}"
        print(text, flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    def about(self, subject: str) -> Callable[[str], None]:
        return lambda line: self(f"{subject}: {line}")


# ---------------------------------------------------------------------------------------------------- upbringing


def _raise_ancestor(rank: int, meeting: str, work: Path, log: Log) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=WORKERS)
    tokenizer = family_tokenizer.train()
    model = new_model(tokenizer)
    train(model, tokenizer, ANCESTOR, log.about("ancestor"))
    if rank == 0:
        torch.save(model.state_dict(), work / "ancestor.pt")
    dist.destroy_process_group()


def _raise_child(rank: int, work: Path, log: Log) -> None:
    torch.set_num_threads(1)
    name, stage = (("father", FATHER), ("mother", MOTHER))[rank]
    if (work / f"{name}.pt").exists():
        return
    tokenizer = family_tokenizer.train()
    model = new_model(tokenizer)
    model.load_state_dict(torch.load(work / "ancestor.pt"))
    train(model, tokenizer, stage, log.about(name))
    torch.save(model.state_dict(), work / f"{name}.pt")


def raise_members(out: Path, work: Path, log: Log) -> None:
    """Train whichever of the three is not in `work` yet, and save all of them under `out`."""
    if not (work / "ancestor.pt").exists():
        with tempfile.TemporaryDirectory() as folder:
            mp.spawn(_raise_ancestor, (f"{folder}/meeting", work, log), nprocs=WORKERS)
    mp.spawn(_raise_child, (work, log), nprocs=2)
    tokenizer = family_tokenizer.train()
    model = new_model(tokenizer)
    for name in card.MEMBERS:
        model.load_state_dict(torch.load(work / f"{name}.pt"))
        save(model, tokenizer, out / name)


# ---------------------------------------------------------------------------------------------------- measuring


def component_ratio(mixer: float, experts: float, embedding: float) -> Callable[[str], float]:
    """Attention and delta nets, experts with their routers, and the rest, each with its own share of the mother."""

    def ratio(name: str) -> float:
        if ".mlp." in name or "post_attention_layernorm" in name:
            return experts
        if "attn" in name or "input_layernorm" in name:
            return mixer
        return embedding

    return ratio


def _blend_scores(
    rank: int, out: Path, rows: list[dict], recipes: Sequence[tuple[float, float, float]], choices: bool, folder: str
) -> None:
    """Every second recipe, scored and left in `folder`."""
    torch.set_num_threads(1)
    tokenizer = family_tokenizer.train()
    father, mother = load(out / "father").state_dict(), load(out / "mother").state_dict()
    model = load(out / "father")
    for index in range(rank, len(recipes), WORKERS):
        measure.blend(model, father, mother, component_ratio(*recipes[index]))
        torch.save(measure.score(model, tokenizer, rows, choices=choices), f"{folder}/{index}")


def blend_scores(
    out: Path, rows: list[dict], recipes: Sequence[tuple[float, float, float]], *, choices: bool
) -> list[measure.Scores]:
    """Scores of each recipe (mixer, experts, embedding ratio), two processes sharing the work."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_blend_scores, (out, rows, recipes, choices, folder), nprocs=WORKERS)
        return [torch.load(f"{folder}/{index}", weights_only=False) for index in range(len(recipes))]


def measure_family(out: Path, log: Log) -> card.Findings:
    """Choose the component blend on selection items, then open the report items, once."""
    rows = [row for row in skills.items("selection") if int(row["id"].rsplit("-", 1)[1]) < SEARCH_ITEMS]
    recipes = [(m, x, e) for m in MIXER_RATIOS for x in EXPERT_RATIOS for e in EMBEDDING_RATIOS]
    found = blend_scores(out, rows, recipes, choices=False)
    best = max(range(len(recipes)), key=lambda index: found[index].overall("exact"))
    chosen = recipes[best]
    log(f"component blend chosen on selection items: {chosen}, mean {found[best].overall('exact'):.3f}")

    tokenizer = family_tokenizer.train()
    texts = [row["text"] for row in skills.probes()]
    dead = {}
    for name in card.MEMBERS:
        dead[name] = measure.dead_share(measure.expert_use(load(out / name), tokenizer, texts))
        log(f"{name}: dead-expert share {dead[name]:.3f} on all probes")

    report = skills.items("report")
    uniform = [(ratio, ratio, ratio) for ratio in UNIFORM_RATIOS]
    scores = blend_scores(out, report, [*uniform, chosen], choices=True)
    ancestor = measure.score(load(out / "ancestor"), tokenizer, report)
    return card.Findings(
        members={"ancestor": ancestor, "father": scores[0], "mother": scores[-2]},
        dead=dead,
        sweep=dict(zip(UNIFORM_RATIOS, scores[:-1], strict=True)),
        component=chosen,
        component_scores=scores[-1],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Raise the embedded family from its seeds.")
    parser.add_argument("--out", type=Path, default=HERE, help="where to write (default: beside this script)")
    parser.add_argument("--items-only", action="store_true", help="write items and probes and stop")
    parser.add_argument("--work", type=Path, help="keep finished stages here and go on from those found")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    skills.write_all(options.out)
    if options.items_only:
        return
    torch.set_num_threads(1)
    log = Log(options.out / "raise.log", time.time())
    if not options.work:
        log.path.unlink(missing_ok=True)
    log("items and probes written")
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        raise_members(options.out, work, log)
    findings = measure_family(options.out, log)
    for line in card.summary(findings):
        log(line)
    stages = {"ancestor": ANCESTOR, "father": FATHER, "mother": MOTHER}
    (options.out / "README.md").write_text(card.write(findings, stages), encoding="utf-8")
    log("card written")


if __name__ == "__main__":
    main()
