"""Tiny residents for the tests of this room, and the slow way of scoring that the fast one is compared with."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, Gemma3TextConfig, PreTrainedTokenizerFast

from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.resident import Resident
from darwin_lab.scoring.items import Item
from tests.conftest import tiny_config
from tests.families import write_family_pair

TEXT = "Question: what is the sum of two and three?\nAnswer: five, of course; fifteen is far too many."


class Weights:
    """The least a resident asks of where its weights came from."""

    fingerprint = "random"
    name = "random"
    folder = Path()
    names = ()


def tokenizer(begin: bool = False) -> Any:
    """Byte-level BPE of 320 tokens whose merges cross word ends; `begin` puts <s> before every text."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.decoder = decoders.ByteLevel()
    special, alphabet = ["<pad>", "</s>", "<s>"], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator([TEXT] * 4, trainer)
    if begin:
        bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", eos_token="</s>", bos_token="<s>")


def resident(kind: str = "llama", begin: bool = False, seed: int = 0) -> Resident:
    """A random model of the family `kind` with the tokenizer above; weights large enough to have opinions."""
    torch.manual_seed(seed)
    config: Any = (
        Gemma3TextConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1,
            head_dim=16, sliding_window=6, max_position_embeddings=512, pad_token_id=0, eos_token_id=1,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"], final_logit_softcapping=5.0,
        )
        if kind == "sliding"
        else tiny_config(kind)
    )  # fmt: skip
    config.vocab_size = 320
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    return Resident(model, tokenizer(begin), Weights(), torch.device("cpu"))


def family_resident(kind: str, folder: Path) -> Resident:
    """A random model of one of the families in `tests.families`, with opinions, reading 1,024 characters."""
    model = Resident.load(open_checkpoint(str(write_family_pair(kind, folder)[0])))
    model.model.config.get_text_config().max_position_embeddings = 1024
    with torch.no_grad():
        for parameter in model.model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    return model


def item(number: int, question: str, choices: list[str], answer: int = 0, task: str = "t", **meta: Any) -> Item:
    return Item(f"i{number}", task, question, tuple(choices), answer, meta)


ITEMS = [
    item(0, "two and two", ["four", "five", "fifteen"], 0),
    item(1, "two and two", ["four", "many", "far too many"], 1, task="u"),
    item(2, "what is one", ["a", "b", "c", "d"], 3),
    item(3, "a longer question about the sum of numbers", ["five", "five, of course", "fif"], 2, primary="acc_norm"),
    item(4, "The answer is", ["five", "too many"], 1, task="u", style="continuation"),
    item(5, "The answer is of cour", ["se, or is it", "ten, or so"], 0, task="u", style="continuation", delimiter=""),
    item(6, "trailing space \n ", ["x y", "z"], 1, style="continuation"),
    item(7, "물은 무엇", ["물", "불이다"], 0),
]


def one_at_a_time(resident: Resident, item: Item) -> list[float]:
    """lm-evaluation-harness's rule written out: each choice alone, one full pass, one log-softmax."""
    asked = f"Question: {item.question}\nAnswer:" if item.meta.get("style") != "continuation" else item.question
    context = item.meta.get("prefix", "") + asked
    logliks = []
    for choice in item.choices or ():
        continuation = item.meta.get("delimiter", " ") + choice
        spaces = len(context) - len(context.rstrip())
        if spaces:
            continuation, head = context[-spaces:] + continuation, context[:-spaces]
        else:
            head = context
        context_ids = resident.tokenizer.encode(head)
        follow = resident.tokenizer.encode(head + continuation)[len(context_ids) :]
        inputs = torch.tensor([(context_ids + follow)[:-1]])
        logits = resident.model(inputs, use_cache=False).logits[0, len(context_ids) - 1 :]
        steps = torch.log_softmax(logits, dim=-1)[range(len(follow)), follow]
        logliks.append(float(steps.sum()))
    return logliks


def softmax(values: np.ndarray) -> np.ndarray:
    weights = np.exp(values - values.max())
    return weights / weights.sum()
