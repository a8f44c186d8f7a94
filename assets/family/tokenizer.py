"""The family's tokenizer: byte-level BPE of 2,048 tokens, trained on generated facts only.

In: facts of `skills`. Out: a tokenizer folder that `AutoTokenizer` loads. Any text can be encoded; digits stand
alone; each cue of the frame is one added token, so the tokens of a prompt are always a prefix of the tokens of
prompt + " " + answer. No token is added at the start of a text.

Normalizer and pre-tokenizer are those of Qwen3.5: for this model type transformers 5 puts them in place whatever
tokenizer.json says, so any other choice would tokenize differently in `AutoTokenizer` and in the file.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import skills
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers.models.qwen3_5.tokenization_qwen3_5 import PRETOKENIZE_REGEX

VOCABULARY = 2048
END, START, PAD = "<|endoftext|>", "<|startoftext|>", "<|pad|>"
CUES = ("Question:", "\nQuestion:", "\nAnswer:")
SEED = 5


def _corpus() -> Iterator[str]:
    """Every fact without its cues; Korean pairs eight times over, so that most words end up in one or two tokens."""
    rng = random.Random(SEED)
    facts = [skills.training_fact(task, rng) for task in skills.GENERATORS for _ in range(800)]
    facts += skills.knowledge_facts()
    facts += skills.language_facts() * 8
    for fact in facts:
        yield f" {fact.question}"
        yield f" {fact.answer}"
    for _ in range(300):
        yield skills.neutral_text(rng)


def train() -> Tokenizer:
    """Deterministic: the same documents in the same order give the same merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(CUES),
        special_tokens=[END, START, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.add_tokens([AddedToken(cue, normalized=False) for cue in CUES])
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "bos_token": START,
        "pad_token": PAD,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
        "padding_side": "right",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
