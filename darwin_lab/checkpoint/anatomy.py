"""What each tensor of a checkpoint is: role, component, layer, expert, merged or copied.

Takes a checkpoint (names, shapes, config), gives an `Anatomy`. Pure string rules; the one place
that knows how model families name their tensors. Reads no weights.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.checkpoint.header import TensorInfo
from darwin_lab.errors import LabError

FUSED = -1
COMPONENTS = ("attn", "ffn", "embed", "global")


def _word(*names: str) -> re.Pattern[str]:
    """Matches any of `names` as a whole dotted part of a tensor name."""
    return re.compile(r"(?:^|\.)(?:" + "|".join(names) + r")(?=\.|$)")


_LAYER = re.compile(r"(?:^|\.)(?:layers|blocks|h|block|layer)\.(\d+)(?=\.|$)")
_EXPERT = re.compile(r"(?:^|\.)experts\.(\d+)(?=\.|$)")
_FUSED = re.compile(
    r"(?:^|\.)experts\.(?:gate_up_proj|down_proj|up_proj|gate_proj|w1|w2|w3|w13)(?:_bias|\.weight|\.bias)?$"
)
_ROUTER = re.compile(
    r"(?:^|\.)(?:router(?:\.\w+)*|(?:mlp|block_sparse_moe|moe|feed_forward|ffn|mixer)\.gate)"
    r"(?:\.(?:weight|bias|e_score_correction_bias|expert_bias|\w*scale))?$"
)
_NORM = re.compile(r"(?:^|\.)(?:[a-z0-9_]*(?:norm|layernorm)(?:_\d+)?|ln_?\w*|norm\d?|norm_f)\.(?:weight|bias)$")
_EMBEDDING = re.compile(
    r"(?:^|\.)(?:embed_tokens|embed_in|wte|wpe|tok_embeddings|word_embeddings|embeddings?)\.weight$"
)
_HEAD = re.compile(r"(?:^|\.)(?:lm_head|output|embed_out)\.(?:weight|bias)$")
_SCALAR = _word("layer_scalar", "residual_scale", "per_dim_scale")
_PER_LAYER_EMBEDDING = _word(
    "embed_tokens_per_layer", "per_layer_input_gate", "per_layer_projection", "per_layer_model_projection",
    "per_layer_projection_norm", "post_per_layer_input_norm",
)  # fmt: skip
_FFN_WORD = _word("mlp", "feed_forward", "ffn", "block_sparse_moe", "moe")

# First match wins; towers come first because a vision block has its own `attn`, `mlp` and `norm`, and before a
# tower what projects from it, which Qwen keeps inside.
_TOWERS = (
    ("mtp", _word("mtp", "nextn", "mtp_layers", "mtp_block")),
    (
        "projector",
        _word("embed_vision", "embed_audio", "multi_modal_projector", "mm_projector", r"visual\.\w*merger\w*"),
    ),
    ("vision", _word("visual", "vision_tower", "vision_model", "vision_encoder", "vision_embedder", "vit")),
    ("audio", _word("audio_tower", "audio_model", "audio_encoder")),
)
_ROLES = (
    ("per_layer_embedding", _PER_LAYER_EMBEDDING),
    ("expert", _EXPERT),
    ("expert", _FUSED),
    ("shared_expert", _word("shared_experts?", "shared_mlp", "shared_expert_gate")),
    ("router", _ROUTER),
    ("linear_attention", _word("linear_attn", "mamba", "mixer", "ssm", "delta_net", "linear_attention", "short_conv")),
    ("norm", _NORM),
    ("attention", _word("self_attn", "attn", "attention", "self_attention")),
    ("ffn", _FFN_WORD),
    ("lm_head", _HEAD),
    ("embedding", _EMBEDDING),
    ("scalar", _SCALAR),
)
_COMPONENT = {
    "attention": "attn", "linear_attention": "attn", "ffn": "ffn", "expert": "ffn", "shared_expert": "ffn",
    "router": "ffn", "embedding": "embed", "lm_head": "embed", "per_layer_embedding": "embed", "scalar": "global",
}  # fmt: skip
_NEVER_MERGED = re.compile(r"(?:^|\.)(?:input_min|input_max|output_min|output_max|inv_freq|position_ids|embed_scale)$")
_QUANTISED = re.compile(
    r"(?:weight_scale_inv|weight_scale|input_scale|qweight|qzeros|\.scales|weight_packed|_blocks|_scales)$"
    r"|\.(?:SCB|absmax|quant_map)$"
)
_WEIGHT = re.compile(r"\.weight$|" + _FUSED.pattern)
_EXTRA_LAYER = re.compile(r"\.eh_proj\.")
_KEYS_AND_VALUES = _word("k_proj", "v_proj", "k_norm", "v_norm")
_SHARED_KEYS = "keys and values of a layer that uses another's: never read, the father's"
_COPIED_TOWERS = {
    "mtp": "multi-token-prediction head: the father's", "vision": "vision tower: the father's",
    "audio": "audio tower: the father's", "projector": "projector: the father's",
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One tensor. `component` is the gene group that owns it ("" = copied); `expert` is FUSED (-1) for all experts."""

    name: str
    role: str
    component: str
    layer: int | None
    expert: int | None
    tower: str
    sub: str
    mergeable: bool
    reason: str
    shape: tuple[int, ...]
    numel: int


@dataclass(frozen=True)
class Anatomy:
    """All parts by name, in file order, and what the config says of the decoder."""

    parts: dict[str, Part]
    layers: int
    layer_kinds: tuple[str, ...]
    hidden_size: int
    experts: int
    top_k: int
    moe_layers: tuple[int, ...]

    @property
    def mergeable(self) -> tuple[Part, ...]:
        return tuple(part for part in self.parts.values() if part.mergeable)

    def layer_parts(self, layer: int) -> tuple[Part, ...]:
        return tuple(part for part in self.parts.values() if part.layer == layer and part.tower == "text")


def read_anatomy(checkpoint: Checkpoint) -> Anatomy:
    """Classifies every tensor.

    Raises `LabError` for quantised checkpoints, and for ones whose files hold other layers or experts than their config
    says. Decoder layers beyond the config's are accepted when they are a multi-token-prediction head.
    """
    config = checkpoint.text_config
    _refuse_quantised(checkpoint)
    layers = _first(config, "num_hidden_layers")
    parts = {info.name: _part(info, checkpoint.tensors) for info in checkpoint.tensors.values()}
    heads = {part.layer for part in parts.values() if part.tower == "text" and _EXTRA_LAYER.search(part.name)}
    own_keys = layers - _first(config, "num_kv_shared_layers")
    for part in parts.values():
        if part.tower != "text" or part.layer is None or part.layer < own_keys:
            continue
        if part.layer >= layers and part.layer in heads:
            parts[part.name] = _copied(part, _COPIED_TOWERS["mtp"], role="mtp", tower="mtp", layer=part.layer - layers)
        elif part.layer < layers and part.mergeable and _KEYS_AND_VALUES.search(part.name):
            parts[part.name] = _copied(part, _SHARED_KEYS)
    in_files = {part.layer for part in parts.values() if part.tower == "text" and part.layer is not None}
    if not layers or not in_files:
        what = "config.json names no num_hidden_layers" if not layers else "no tensor is named as one of a layer"
        raise LabError(f"{checkpoint.name}: {what} that the lab knows; this family cannot be read (README: Parents)")
    if not _counts_to(in_files, layers):
        raise LabError(
            f"{checkpoint.name}: config.json says {layers} layers, the files hold {len(in_files)}; get it whole"
        )
    kinds = config.get("layer_types")
    if not isinstance(kinds, list) or len(kinds) != layers:
        linear = {part.layer for part in parts.values() if part.role == "linear_attention"}
        kinds = ["linear_attention" if layer in linear else "full_attention" for layer in range(layers)]
    moe_layers = sorted({part.layer for part in parts.values() if part.role == "expert" and part.layer is not None})
    experts = _first(config, "num_experts", "num_local_experts", "n_routed_experts") if moe_layers else 0
    _require_all_experts(checkpoint.name, parts.values(), experts)
    return Anatomy(
        parts=parts,
        layers=layers,
        layer_kinds=tuple(kinds),
        hidden_size=_first(config, "hidden_size"),
        experts=experts,
        top_k=_first(config, "num_experts_per_tok", "top_k_experts", "experts_per_token") if moe_layers else 0,
        moe_layers=tuple(moe_layers),
    )


def classify(name: str) -> tuple[str, str]:
    """(tower, role) of a tensor name; tower is "text" outside mtp, vision and audio; role "other" when no rule fits."""
    for tower, pattern in _TOWERS:
        if pattern.search(name):
            return ("vision" if tower == "projector" else tower), tower
    return "text", next((role for role, pattern in _ROLES if pattern.search(name)), "other")


def layer_of(name: str) -> int | None:
    """The decoder (or tower) layer that a tensor's name counts; None outside the layers."""
    match = _LAYER.search(name)
    return int(match.group(1)) if match else None


def has_expert_rows(part: Part, experts: int) -> bool:
    """Whether axis 0 of a router tensor counts experts (its weight, biases and per-expert scales do)."""
    return part.role == "router" and part.shape[:1] == (experts,) and not part.name.endswith("router.scale")


def has_token_rows(part: Part) -> bool:
    """Whether axis 0 counts tokens: embedding, head and the per-layer embedding table.

    The config's vocab_size has no say: a table may have more rows than that (padding, which is nobody's token).
    """
    tables = part.role in ("embedding", "lm_head") or part.sub == "embed_tokens_per_layer"
    return tables and part.sub != "wpe" and bool(part.shape) and part.shape[0] > 0


def _refuse_quantised(checkpoint: Checkpoint) -> None:
    """Raises `LabError` when the config, a tensor's name or the dtype of a weight says so."""
    told = any(config.get("quantization_config") for config in (checkpoint.config, checkpoint.text_config))
    found = next((info for info in checkpoint.tensors.values() if _is_quantised(info)), None)
    if told or found is not None:
        where = "its config.json says" if found is None else f"tensor {found.name}, {found.dtype}"
        raise LabError(
            f"{checkpoint.name} is quantised ({where}); merging needs its bf16, f16 or f32 original "
            "(FP8 and MXFP4: load it in transformers with dequantize=True and save that)"
        )


def _is_quantised(info: TensorInfo) -> bool:
    plain = info.is_float or info.dtype == "BOOL" or classify(info.name)[0] not in ("text", "mtp")
    return bool(_QUANTISED.search(info.name)) or (not plain and bool(_WEIGHT.search(info.name)))


def _require_all_experts(name: str, parts: Iterable[Part], experts: int) -> None:
    """Raises `LabError` when a layer has experts that the config does not count, or lacks one that it does."""
    single: dict[int, set[int]] = defaultdict(set)
    for part in parts:
        if part.role != "expert" or part.layer is None or not experts:
            continue
        if part.expert == FUSED and part.shape[:1] != (experts,):
            raise LabError(f"{name}: config.json says {experts} experts, {part.name} is {list(part.shape)}; mend one")
        if part.expert is not None and part.expert != FUSED:
            single[part.layer].add(part.expert)
    for layer, found in single.items():
        if not _counts_to(found, experts):
            raise LabError(
                f"{name}: config.json says {experts} experts, layer {layer} holds {len(found)}; get it whole"
            )


def _counts_to(numbers: Collection[int], count: int) -> bool:
    """Whether distinct `numbers` from 0 on are 0..count-1; makes nothing of the size `count` that a config claims."""
    return len(numbers) == count and max(numbers, default=-1) == count - 1


def _copied(part: Part, reason: str, **changes: object) -> Part:
    return replace(part, mergeable=False, component="", reason=reason, **changes)  # type: ignore[arg-type]


def _part(info: TensorInfo, names: dict[str, TensorInfo]) -> Part:
    tower, role = classify(info.name)
    layer = layer_of(info.name) if role != "projector" else None
    expert_match = _EXPERT.search(info.name)
    expert = int(expert_match.group(1)) if expert_match else FUSED if _FUSED.search(info.name) else None
    sub = [word for word in info.name.split(".") if word not in ("weight", "bias", "linear") and not word.isdigit()][-1]
    reason = _copy_reason(info, tower, role)
    component = "" if reason else _component(info.name, role, sub, layer, names)
    return Part(info.name, role, component, layer, expert, tower, sub, not reason, reason, info.shape, info.numel)


def _copy_reason(info: TensorInfo, tower: str, role: str) -> str:
    if role in _COPIED_TOWERS:
        return _COPIED_TOWERS[role]
    if tower != "text":
        return f"{tower} tower: the father's"
    if not info.is_float:
        return f"{info.dtype} tensor: not a weight"
    if _NEVER_MERGED.search(info.name):
        return "buffer or clip bound: never averaged"
    return "role not recognised: the father's" if role == "other" else ""


def _component(name: str, role: str, sub: str, layer: int | None, names: dict[str, TensorInfo]) -> str:
    """A norm belongs to what it feeds; in sandwich-norm layers `post_attention_layernorm` still is attention's."""
    if role != "norm":
        return _COMPONENT[role]
    if layer is None:
        return "global"
    if _FFN_WORD.search(name) or "feedforward" in sub or sub in ("ffn_norm", "ln_2"):
        return "ffn"
    if sub == "post_attention_layernorm":
        sandwich = name.replace("post_attention_layernorm", "pre_feedforward_layernorm") in names
        return "attn" if sandwich else "ffn"
    return "attn"


def _first(config: dict[str, object], *keys: str) -> int:
    found = next((config[key] for key in keys if isinstance(config.get(key), int)), 0)
    return int(found) if isinstance(found, int) else 0
