"""What each tensor of a checkpoint is: role, component, layer, expert, merged or copied.

Takes a checkpoint (names, shapes, config), gives an `Anatomy`. Pure string rules; the one place
that knows how model families name their tensors. Reads no weights.
"""

import re
from collections import Counter
from dataclasses import dataclass

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

# First match wins; towers come first because a vision block has its own `attn`, `mlp` and `norm`.
_TOWERS = (
    ("mtp", _word("mtp", "nextn", "mtp_layers", "mtp_block")),
    ("vision", _word("visual", "vision_tower", "vision_model", "vision_encoder", "vision_embedder", "vit")),
    ("audio", _word("audio_tower", "audio_model", "audio_encoder")),
    ("projector", _word("embed_vision", "embed_audio", "multi_modal_projector", "mm_projector")),
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
)
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
    """Classifies every tensor. Raises `LabError` for quantised checkpoints and for ones without decoder layers."""
    config = checkpoint.text_config
    quantised = next((name for name in checkpoint.tensors if _QUANTISED.search(name)), None)
    if quantised or checkpoint.config.get("quantization_config") or config.get("quantization_config"):
        where = f" (tensor {quantised})" if quantised else ""
        raise LabError(f"{checkpoint.name} is quantised{where}; merging needs the bf16, f16 or f32 checkpoint")
    parts = {info.name: _part(info, checkpoint.tensors) for info in checkpoint.tensors.values()}
    in_files = {part.layer for part in parts.values() if part.tower == "text" and part.layer is not None}
    layers = _first(config, "num_hidden_layers")
    if not layers or in_files != set(range(layers)):
        raise LabError(
            f"{checkpoint.name}: config.json says {layers} layers, the files hold {len(in_files)}; get it whole"
        )
    kinds = config.get("layer_types")
    if not isinstance(kinds, list) or len(kinds) != layers:
        linear = {part.layer for part in parts.values() if part.role == "linear_attention"}
        kinds = ["linear_attention" if layer in linear else "full_attention" for layer in range(layers)]
    moe_layers = sorted({part.layer for part in parts.values() if part.role == "expert" and part.layer is not None})
    return Anatomy(
        parts=parts,
        layers=layers,
        layer_kinds=tuple(kinds),
        hidden_size=_first(config, "hidden_size"),
        experts=_first(config, "num_experts", "num_local_experts", "n_routed_experts") if moe_layers else 0,
        top_k=_first(config, "num_experts_per_tok", "top_k_experts", "experts_per_token") if moe_layers else 0,
        moe_layers=tuple(moe_layers),
    )


def classify(name: str) -> tuple[str, str]:
    """(tower, role) of a tensor name; tower is "text" outside mtp, vision and audio; role "other" when no rule fits."""
    for tower, pattern in _TOWERS:
        if pattern.search(name):
            return ("vision" if tower == "projector" else tower), tower
    return "text", next((role for role, pattern in _ROLES if pattern.search(name)), "other")


def describe_layers(anatomy: Anatomy) -> str:
    """The layer layout in words, e.g. "9 x linear_attention + 3 x full_attention, MoE in 12"."""
    kinds = " + ".join(f"{count} x {kind}" for kind, count in Counter(anatomy.layer_kinds).items())
    moe = f", MoE in {len(anatomy.moe_layers)}" if anatomy.moe_layers else ", dense FFN"
    return kinds + moe


def _part(info: TensorInfo, names: dict[str, TensorInfo]) -> Part:
    tower, role = classify(info.name)
    match = _LAYER.search(info.name)
    layer = int(match.group(1)) if match and role != "projector" else None
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
