"""Llama checkpoints of any size with random bf16 weights, written piece by piece: what the export scripts measure on.

Takes a shape and a seed, writes a folder. The weights are one random block laid end to end from a place of its own for
every model, so writing is as fast as the disk and no two models agree. No tokenizer is needed to merge.
"""

import json
import struct
from dataclasses import dataclass
from pathlib import Path

import torch

_BLOCK = 1 << 25


@dataclass(frozen=True)
class Shape:
    """Numbers of a Llama config."""

    layers: int
    hidden: int
    ffn: int
    vocabulary: int = 32000
    heads: int = 32
    kv_heads: int = 8

    @property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape, embeddings tied."""
        kv = self.hidden // self.heads * self.kv_heads
        found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocabulary, self.hidden)}
        for layer in range(self.layers):
            inside = {
                "input_layernorm": (self.hidden,),
                "mlp.down_proj": (self.hidden, self.ffn),
                "mlp.gate_proj": (self.ffn, self.hidden),
                "mlp.up_proj": (self.ffn, self.hidden),
                "post_attention_layernorm": (self.hidden,),
                "self_attn.k_proj": (kv, self.hidden),
                "self_attn.o_proj": (self.hidden, self.hidden),
                "self_attn.q_proj": (self.hidden, self.hidden),
                "self_attn.v_proj": (kv, self.hidden),
            }
            found |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in inside.items()}
        return found | {"model.norm.weight": (self.hidden,)}

    @property
    def parameters(self) -> int:
        return sum(torch.Size(shape).numel() for shape in self.tensors.values())


def write_llama(folder: Path, shape: Shape, seed: int) -> Path:
    """One model in one safetensors file; returns the folder."""
    folder.mkdir(parents=True)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16",
        "num_hidden_layers": shape.layers, "hidden_size": shape.hidden, "intermediate_size": shape.ffn,
        "vocab_size": shape.vocabulary, "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads,
        "tie_word_embeddings": True, "max_position_embeddings": 2048,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, dims in shape.tensors.items():
        start, end = end, end + 2 * torch.Size(dims).numel()
        table[name] = {"dtype": "BF16", "shape": list(dims), "data_offsets": [start, end]}
    header = json.dumps(table).encode()
    block = torch.randn(min(_BLOCK, end), generator=torch.Generator().manual_seed(seed)).mul_(0.02).bfloat16()
    raw = memoryview(block.view(torch.uint8).numpy())  # type: ignore[arg-type]
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        while end > 0:
            end -= file.write(raw[:end])
    return folder
