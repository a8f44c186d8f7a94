"""Full-size checkpoints without weights, in the hub's layout: real configs, real headers, files that are one big hole.

The configs are the public ones; names and shapes come from the models transformers builds of them on the meta device.
A hole (`truncate`) takes no disk space, so a 72 GB checkpoint costs a few hundred kB.
"""

import json
import struct
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

Shapes = dict[str, tuple[str, tuple[int, ...]]]
"""Tensor name -> (safetensors dtype, shape), in file order."""
_BYTES = {"BF16": 2, "F32": 4}
_QWEN_VISION = {
    "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "patch_size": 16,
    "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 2304, "out_hidden_size": 2048,
}  # fmt: skip
_GEMMA_VISION = {
    "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
    "num_key_value_heads": 16, "head_dim": 72, "standardize": True, "position_embedding_size": 10240,
}  # fmt: skip
_MTP_PARTS = ("fc", "norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden")


def qwen35_35b() -> Any:
    """Qwen3.5-35B-A3B."""
    from transformers import Qwen3_5MoeConfig

    text = {
        "vocab_size": 248320, "hidden_size": 2048, "num_hidden_layers": 40, "num_attention_heads": 16,
        "num_key_value_heads": 2, "head_dim": 256, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
        "linear_key_head_dim": 128, "linear_value_head_dim": 128, "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 512, "num_experts": 256, "num_experts_per_tok": 8,
    }  # fmt: skip
    return Qwen3_5MoeConfig(text_config=text, vision_config=_QWEN_VISION, tie_word_embeddings=False)


def gemma4_31b() -> Any:
    """Gemma4-31B."""
    from transformers import Gemma4Config

    text = {
        "vocab_size": 262144, "hidden_size": 5376, "intermediate_size": 21504, "num_hidden_layers": 60,
        "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 256, "global_head_dim": 512,
        "num_global_key_value_heads": 4, "attention_k_eq_v": True, "hidden_size_per_layer_input": 0,
        "sliding_window": 1024, "final_logit_softcapping": 30.0, "num_kv_shared_layers": 0,
    }  # fmt: skip
    return Gemma4Config(text_config=text, vision_config=_GEMMA_VISION, audio_config=None, tie_word_embeddings=True)


def shapes_of(config: Any) -> Shapes:
    """What the hub's files of such a model hold: bf16, no head where it is tied, experts fused."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    multi = any(getattr(config, key, None) is not None for key in ("vision_config", "audio_config"))
    auto = AutoModelForImageTextToText if multi else AutoModelForCausalLM
    with torch.device("meta"):
        state = auto.from_config(config, dtype=torch.bfloat16).state_dict()
    tied = config.tie_word_embeddings
    return {
        name: ("BF16", tuple(tensor.shape)) for name, tensor in state.items() if not (tied and name == "lm_head.weight")
    }


def qwen35_shapes() -> Shapes:
    """Qwen3.5-35B-A3B as on the hub: fused trunk, a multi-token-prediction head per expert, some of it in F32."""
    shapes = shapes_of(qwen35_35b())
    for name, (_, shape) in shapes.items():
        if name.endswith((".A_log", ".linear_attn.norm.weight")):
            shapes[name] = ("F32", shape)
    layer = "model.language_model.layers.3."  # a layer of full attention, as the head's one layer is
    for part in _MTP_PARTS:
        shapes[f"mtp.{part}.weight"] = ("BF16", (2048, 4096) if part == "fc" else (2048,))
    for name, (dtype, shape) in list(shapes.items()):
        if name.startswith(layer) and ".experts." not in name:
            shapes[name.replace(layer, "mtp.layers.0.")] = (dtype, shape)
    for expert in range(256):
        for word, shape in (("gate", (512, 2048)), ("up", (512, 2048)), ("down", (2048, 512))):
            shapes[f"mtp.layers.0.mlp.experts.{expert}.{word}_proj.weight"] = ("BF16", shape)
    return shapes


def write_holes(folder: Path, config: Any, shapes: Shapes, shards: int = 1) -> Path:
    """A checkpoint folder with config, headers, index and no weights: every file is as long as it should be."""
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    data = json.loads((folder / "config.json").read_text())
    data.setdefault("architectures", [_architecture(config)])
    (folder / "config.json").write_text(json.dumps(data))
    names = list(shapes)
    step = -(-len(names) // shards)
    weight_map = {}
    for shard in range(shards):
        mine = names[shard * step : (shard + 1) * step]
        file = f"model.safetensors-{shard + 1:05}-of-{shards:05}.safetensors" if shards > 1 else "model.safetensors"
        write_hole(folder / file, {name: shapes[name] for name in mine})
        weight_map.update(dict.fromkeys(mine, file))
    if shards > 1:
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def write_hole(path: Path, shapes: Shapes) -> None:
    """One safetensors file: its header, then a hole."""
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in shapes.items():
        start, size = end, _BYTES[dtype]
        for axis in shape:
            size *= axis
        end = start + size
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    raw = json.dumps(table).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)


def _architecture(config: Any) -> str:
    names = {"qwen3_5_moe": "Qwen3_5MoeForConditionalGeneration", "gemma4": "Gemma4ForConditionalGeneration"}
    return names[config.model_type]


FULL_SIZE: dict[str, tuple[Callable[[], Any], Callable[[], Shapes], int]] = {
    "Qwen3.5-35B-A3B": (qwen35_35b, qwen35_shapes, 14),
    "Gemma4-31B": (gemma4_31b, lambda: shapes_of(gemma4_31b()), 2),
}
"""Name -> (config, shapes, shards on the hub)."""


def write_full_size(folder: Path, name: str) -> Path:
    """One of `FULL_SIZE` as a folder."""
    config, shapes, shards = _full_size(name)
    return write_holes(folder, config, shapes, shards)


@lru_cache(maxsize=2)
def _full_size(name: str) -> tuple[Any, Shapes, int]:
    config, shapes, shards = FULL_SIZE[name]
    return config(), shapes(), shards
