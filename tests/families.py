"""Tiny random checkpoints of every family the lab reads, as transformers saves them and as the Hub holds them.

`write_family_pair(kind, root, layout)` gives the folders of father, mother and ancestor. The three hold the same
numbers in every layout, so that a child of one layout can be checked against a child of another.
"""

import json
import re
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from darwin_lab.engine.resident import quieten
from tests.conftest import write_tokenizer

Tensors = dict[str, torch.Tensor]
ROWS, HIDDEN, INNER, EXPERTS = 64, 32, 16, 4
_TEXT = {
    "vocab_size": ROWS, "hidden_size": HIDDEN, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 1,
}  # fmt: skip
_DENSE = {**_TEXT, "head_dim": 8}
_LINEAR = {
    **_DENSE, "num_hidden_layers": 4, "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "head_dim": 16,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 0],
                        "mrope_interleaved": True, "partial_rotary_factor": 0.25},
}  # fmt: skip
_MIXTURE = {
    "moe_intermediate_size": INNER, "shared_expert_intermediate_size": INNER, "num_experts": EXPERTS,
    "num_experts_per_tok": 2,
}  # fmt: skip
_VISION_QWEN = {
    "depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2,
    "temporal_patch_size": 2, "num_position_embeddings": 16, "out_hidden_size": HIDDEN,
}  # fmt: skip
_IDS_QWEN = {"image_token_id": 50, "video_token_id": 51, "vision_start_token_id": 52, "vision_end_token_id": 53}
_SLIDING = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
_GEMMA4 = {
    **_DENSE, "num_hidden_layers": 4, "global_head_dim": 16, "sliding_window": 8, "vocab_size_per_layer_input": ROWS,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}  # fmt: skip
_GEMMA4_PLAIN = {"hidden_size_per_layer_input": 0, "attention_k_eq_v": True, "num_global_key_value_heads": 1}
_VISION_GEMMA = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 8, "position_embedding_size": 16,
}  # fmt: skip
_AUDIO_GEMMA = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "output_proj_dims": 16,
    "subsampling_conv_channels": [8, 4],
}  # fmt: skip
_IDS_GEMMA = {
    "image_token_id": 50, "video_token_id": 51, "boi_token_id": 52, "eoi_token_id": 53, "boa_token_id": 54,
    "eoa_token_index": 55, "audio_token_id": 56,
}  # fmt: skip
_DEEP = {
    **_TEXT, "num_hidden_layers": 3, "moe_intermediate_size": INNER, "n_routed_experts": EXPERTS,
    "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "n_shared_experts": 1,
    "num_nextn_predict_layers": 1,
}  # fmt: skip
_LATENT = {
    "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}  # fmt: skip
_NO_IMAGE = {"vision_config": {**_VISION_GEMMA, "standardize": True}, "audio_config": None, **_IDS_GEMMA}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", _TEXT),
    "smollm2": ("LlamaConfig", {**_TEXT, "tie_word_embeddings": True}),
    "smollm3": ("SmolLM3Config", _TEXT),
    "mistral": ("MistralConfig", _DENSE),
    "phi3": ("Phi3Config", _TEXT),
    "qwen2": ("Qwen2Config", _TEXT),
    "qwen3": ("Qwen3Config", _DENSE),
    "qwen3_moe": ("Qwen3MoeConfig", {**_DENSE, **_MIXTURE}),
    "mixtral": ("MixtralConfig", {**_TEXT, "num_local_experts": EXPERTS, "num_experts_per_tok": 2}),
    "qwen3_5_text": ("Qwen3_5TextConfig", _LINEAR),
    "qwen3_5": ("Qwen3_5Config", {"text_config": _LINEAR, "vision_config": _VISION_QWEN, **_IDS_QWEN}),
    "qwen3_5_moe_text": ("Qwen3_5MoeTextConfig", {**_LINEAR, **_MIXTURE}),
    "qwen3_5_moe": (
        "Qwen3_5MoeConfig", {"text_config": {**_LINEAR, **_MIXTURE}, "vision_config": _VISION_QWEN, **_IDS_QWEN},
    ),
    "gemma3_text": ("Gemma3TextConfig", {**_DENSE, **_SLIDING}),
    "gemma3": (
        "Gemma3Config",
        {
            "text_config": {**_DENSE, **_SLIDING}, "mm_tokens_per_image": 4, "image_token_index": 50,
            "boi_token_index": 51, "eoi_token_index": 52,
            "vision_config": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
                              "num_attention_heads": 2, "image_size": 16, "patch_size": 4},
        },
    ),
    "gemma4": ("Gemma4Config", {"text_config": {**_GEMMA4, **_GEMMA4_PLAIN}, **_NO_IMAGE}),
    "gemma4_moe": (
        "Gemma4Config",
        {
            "text_config": {**_GEMMA4, **_GEMMA4_PLAIN, "enable_moe_block": True, "num_experts": EXPERTS,
                            "top_k_experts": 2, "moe_intermediate_size": INNER},
            **_NO_IMAGE,
        },
    ),
    "gemma4_e": (
        "Gemma4Config",
        {
            "text_config": {**_GEMMA4, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 2},
            "vision_config": {**_VISION_GEMMA, "use_clipped_linears": True}, "audio_config": _AUDIO_GEMMA, **_IDS_GEMMA,
        },
    ),
    "glm4_moe": ("Glm4MoeConfig", {**_DEEP, "head_dim": 8, "use_qk_norm": True}),
    "deepseek_v3": ("DeepseekV3Config", {**_DEEP, **_LATENT}),
    "gpt_oss": (
        "GptOssConfig", {**_DENSE, **_SLIDING, "num_local_experts": EXPERTS, "num_experts_per_tok": 2},
    ),
}  # fmt: skip
KINDS = tuple(CONFIGS)
TIED = frozenset({"smollm2", "smollm3", "gemma3_text", "gemma3", "gemma4", "gemma4_moe", "gemma4_e"})
WITH_MTP = frozenset({"qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text", "glm4_moe", "deepseek_v3"})
WITH_VISION = frozenset({"qwen3_5", "qwen3_5_moe", "gemma3", "gemma4", "gemma4_moe", "gemma4_e"})
MIXTURES = frozenset(
    {"qwen3_moe", "mixtral", "qwen3_5_moe_text", "qwen3_5_moe", "gemma4_moe", "glm4_moe", "deepseek_v3", "gpt_oss"}
)
EITHER_WAY = ("qwen3_moe", "mixtral", "qwen3_5_moe_text", "qwen3_5_moe", "glm4_moe", "deepseek_v3")
"""Families met both with fused and with single experts."""
LAYOUTS = {kind: ("saved", "hub", *(("fused", "single") if kind in EITHER_WAY else ())) for kind in KINDS}
MEMBERS = ("father", "mother", "ancestor")


def write_family_pair(kind: str, root: Path, layout: str = "hub") -> tuple[Path, Path, Path]:
    """Folders of (father, mother, ancestor) under `root`: bf16, seeds fixed by kind and member.

    layout  "saved": what `save_pretrained` of a new model writes. "hub": what is published - MTP heads, F32 scalars,
            redundant shared keys and values, experts and prefixes as there, two shards. "fused" / "single": as "hub",
            with every expert stacked / in a tensor of its own, trunk and MTP alike, all bf16.
    """
    folders = tuple(root / f"{kind}-{layout}" / member for member in MEMBERS)
    for folder, member in zip(folders, MEMBERS, strict=True):
        folder.mkdir(parents=True)
        tensors = _numbers(kind, member)
        for name, text in _saved(kind)[1].items():
            (folder / name).write_text(text)
        write_tokenizer(folder)
        if layout == "saved":
            save_file(_without_extras(tensors), folder / "model.safetensors", {"format": "pt"})
        else:
            _write_shards(folder, _REWRITES[layout](kind, tensors))
    return folders  # type: ignore[return-value]


@lru_cache(maxsize=len(KINDS))
def _saved(kind: str) -> tuple[Tensors, dict[str, str]]:
    """What transformers saves of a new random model: tensors and JSON files."""
    import transformers

    quieten()
    class_name, options = CONFIGS[kind]
    config = getattr(transformers, class_name)(**json.loads(json.dumps(options)))
    wrapped = getattr(config, "vision_config", None) is not None
    auto = transformers.AutoModelForImageTextToText if wrapped else transformers.AutoModelForCausalLM
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as place:
        auto.from_config(config, dtype=torch.bfloat16).save_pretrained(place)
        files = {path.name: path.read_text() for path in Path(place).glob("*.json")}
        return load_file(Path(place) / "model.safetensors"), files


def _numbers(kind: str, member: str) -> Tensors:
    """The member's tensors under the saved names, with the published extras (`extra:` in front)."""
    base = {**_saved(kind)[0], **{f"extra:{name}": tensor for name, tensor in _extras(kind).items()}}
    strength = {"ancestor": 0.0, "father": 0.02, "mother": 0.03}[member]
    generator = torch.Generator().manual_seed(1 + MEMBERS.index(member))
    moved = {}
    for name in sorted(base):
        tensor = base[name]
        noise = torch.randn(tensor.shape, generator=generator) * strength
        moved[name] = (tensor.float() + noise).to(tensor.dtype) if bool(torch.isfinite(tensor).all()) else tensor
    return moved


def _without_extras(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("extra:")}


# --------------------------------------------------------------------------- what publishers add to what is saved


def _extras(kind: str) -> Tensors:
    generator = torch.Generator().manual_seed(9)

    def random(*shape: int) -> torch.Tensor:
        return (torch.randn(shape, generator=generator) * 0.1).to(torch.bfloat16)

    saved = _saved(kind)[0]
    if kind == "gemma4_e":
        own = [name for name in saved if re.search(r"\.layers\.[01]\.self_attn\.(?:[kv]_proj|k_norm)\.", name)]
        return {
            name.replace(f".layers.{layer}.", f".layers.{layer + 2}."): random(*saved[name].shape)
            for layer in (0, 1)
            for name in own
            if "language_model" in name and f".layers.{layer}." in name
        }
    if kind in ("glm4_moe", "deepseek_v3"):
        layer = {name: t for name, t in saved.items() if name.startswith("model.layers.2.")}
        table = {name.replace(".layers.2.", ".layers.3."): random(*tensor.shape) for name, tensor in layer.items()}
        added = {
            "eh_proj": (HIDDEN, 2 * HIDDEN), "enorm": (HIDDEN,), "hnorm": (HIDDEN,), "embed_tokens": (ROWS, HIDDEN),
            "shared_head.norm": (HIDDEN,), "shared_head.head": (ROWS, HIDDEN),
        }  # fmt: skip
        return table | {f"model.layers.3.{name}.weight": random(*shape) for name, shape in added.items()}
    if kind in WITH_MTP:
        layer = {name.split(".layers.3.")[1]: tensor for name, tensor in saved.items() if ".layers.3." in name}
        table = {f"mtp.layers.0.{name}": random(*tensor.shape) for name, tensor in layer.items()}
        added = {
            "fc": (HIDDEN, 2 * HIDDEN), "norm": (HIDDEN,), "pre_fc_norm_embedding": (HIDDEN,),
            "pre_fc_norm_hidden": (HIDDEN,),
        }  # fmt: skip
        return table | {f"mtp.{name}.weight": random(*shape) for name, shape in added.items()}
    return {}


def _published(tensors: Tensors) -> Tensors:
    return {name.removeprefix("extra:"): tensor for name, tensor in tensors.items()}


def _hub(kind: str, tensors: Tensors) -> Tensors:
    tensors = _published(tensors)
    if kind in ("qwen3_5_moe", "qwen3_5_moe_text"):
        trunk = fuse({name: tensor for name, tensor in tensors.items() if not name.startswith("mtp.")})
        mtp = {name: tensor for name, tensor in tensors.items() if name.startswith("mtp.")}
        return _in_float32(r"\.A_log$|linear_attn\.norm\.weight$", {**trunk, **mtp})
    if kind in ("glm4_moe", "deepseek_v3"):
        return _in_float32(r"e_score_correction_bias$", tensors)
    if kind == "gemma3":
        return {name.replace("vision_tower.", "vision_tower.vision_model."): t for name, t in tensors.items()}
    return tensors


def _in_float32(pattern: str, tensors: Tensors) -> Tensors:
    return {name: t.float() if re.search(pattern, name) else t for name, t in tensors.items()}


# ----------------------------------------------------------------------------------------------- experts either way

_HALVES = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}
_ONE = re.compile(r"^(.*)\.(mlp|block_sparse_moe)\.experts\.(\d+)\.(\w+)\.weight$")


def fuse(tensors: Tensors) -> Tensors:
    """Every expert stacked: `mlp.experts.gate_up_proj` [E, 2I, H] with the gate above, `down_proj` [E, H, I]."""
    single: dict[tuple[str, str], dict[int, torch.Tensor]] = {}
    fused: Tensors = {}
    for name, tensor in tensors.items():
        if match := _ONE.match(name):
            half = {new: old for old, new in _HALVES.items()}.get(match[4], match[4])
            single.setdefault((match[1], half), {})[int(match[3])] = tensor
        else:
            fused[name.replace(".block_sparse_moe.", ".mlp.")] = tensor
    stacks = {key: torch.stack([experts[number] for number in sorted(experts)]) for key, experts in single.items()}
    for (layer, half), stack in stacks.items():
        if half == "down_proj":
            fused[f"{layer}.mlp.experts.down_proj"] = stack
        elif half == "gate_proj":
            fused[f"{layer}.mlp.experts.gate_up_proj"] = torch.cat([stack, stacks[layer, "up_proj"]], dim=1)
    return fused


_REWRITES: dict[str, Callable[[str, Tensors], Tensors]] = {
    "hub": _hub,
    "fused": lambda kind, tensors: fuse(_published(tensors)),
    "single": lambda kind, tensors: _published(tensors),
}


def _write_shards(folder: Path, tensors: Tensors) -> None:
    """Two shards, split where half the tensors are, under names that only the index tells."""
    names = sorted(tensors)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    table: dict[str, str] = {}
    for number, members in enumerate(halves, 1):
        file = f"model.safetensors-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name].contiguous() for name in members}, folder / file, {"format": "pt"})
        table |= dict.fromkeys(members, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": table}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


# --------------------------------------------------------------------------------------------- what a child is held to


def header_of(folder: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> (dtype, shape) of every tensor in a folder's safetensors files."""
    found = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                stored = file.get_slice(name)
                found[name] = (stored.get_dtype(), tuple(stored.get_shape()))
    return found


def tensors_of(folder: Path) -> Tensors:
    """Every tensor in a folder's safetensors files."""
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def reloaded(folder: Path) -> tuple[set[str], set[str]]:
    """(names transformers misses, names it has no place for) when the folder is loaded as its config says.

    An MTP head kept as one more decoder layer is known to transformers by the published model's layer number alone, so
    in a model with fewer layers it would count as unexpected; it is left out here and must be checked by itself.
    """
    import transformers

    quieten()
    config = json.loads((folder / "config.json").read_text())
    loader = getattr(transformers, config["architectures"][0])
    _, report = loader.from_pretrained(folder, dtype=torch.bfloat16, output_loading_info=True)
    unexpected = set(report["unexpected_keys"])
    if config["model_type"] in ("glm4_moe", "deepseek_v3"):
        unexpected = {
            name for name in unexpected if not name.startswith(f"model.layers.{config['num_hidden_layers']}.")
        }
    return set(report["missing_keys"]) | set(report["mismatched_keys"]), unexpected
