"""Llamas built by hand, whose truth is known: one layer holds a skill, one does nothing, and pairs of them whose blend
interferes at one layer."""

import json

import torch

from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.mri.probes import ProbeSet
from tests.conftest import write_tokenizer

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
HIDDEN = 64


def cycling(step, count, length=24, start=0):
    """Texts in which every letter is followed by the one `step` places on."""
    return tuple(
        "".join(ALPHABET[(start + row + step * place) % 26] for place in range(length)) for row in range(count)
    )


PROBES = ProbeSet({"NEXT": cycling(1, 8), "NEUTRAL": tuple(text.replace("a", " ") for text in cycling(7, 8))})
SKILL, HARMLESS = 2, 1
"""The one layer that says which letter is next, and one that does nothing."""


def write_built(folder, *, skill_at=SKILL, layers=4, noise=0.0002, disturbed=None):
    """A Llama built by hand: tokens are unit vectors, and layer `skill_at` alone turns a letter into the next one.

    `HARMLESS` writes nothing; other layers write a little noise. `disturbed` writes a strong wrong direction.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=HIDDEN, hidden_size=HIDDEN, intermediate_size=HIDDEN, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=False,
        pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    folder.mkdir(parents=True)
    write_tokenizer(folder)
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    follows = torch.zeros(HIDDEN, HIDDEN)
    for place, letter in enumerate(ALPHABET):
        follows[vocabulary[ALPHABET[(place + 1) % 26]], vocabulary[letter]] = 1
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(HIDDEN))
        model.lm_head.weight.copy_(2 * torch.eye(HIDDEN))
        for index, layer in enumerate(model.model.layers):
            mlp, attention = layer.mlp, layer.self_attn
            attention.o_proj.weight.zero_()
            mlp.gate_proj.weight.copy_(torch.eye(HIDDEN))
            mlp.up_proj.weight.copy_(torch.eye(HIDDEN))
            mlp.down_proj.weight.copy_(noise * torch.randn(HIDDEN, HIDDEN))
            if index == HARMLESS:
                mlp.down_proj.weight.zero_()
            if index == skill_at:
                mlp.down_proj.weight.add_(0.1 * follows)
            if index == disturbed:
                mlp.down_proj.weight.copy_(0.3 * torch.roll(torch.eye(HIDDEN), 31, 0))
    model.save_pretrained(folder, save_original_format=False)
    return open_checkpoint(folder)


PLANTED = 3
"""The layer whose halves are harmless in each parent and shout when they are blended."""


def write_parent(folder, who):
    """A built Llama whose layer `PLANTED` says nothing: the father's output matrix is zero, the mother's gate never
    opens. Half of each opens the gate to a strong wrong direction."""
    write_built(folder, noise=0.0002 if who == "father" else 0.00024)
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    mlp = model.model.layers[PLANTED].mlp
    with torch.no_grad():
        if who == "father":
            mlp.down_proj.weight.zero_()
        else:
            mlp.gate_proj.weight.zero_()
            mlp.down_proj.weight.copy_(1.5 * torch.roll(torch.eye(HIDDEN), 31, 0))
    model.save_pretrained(folder, save_original_format=False)
    return open_checkpoint(folder)
