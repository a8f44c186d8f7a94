"""A training forward for `Qwen3_5MoeForCausalLM` that packs several short documents into a row without leaks.

In: a model of the library, token ids `[rows, length]` and a document number per token. Out: the last hidden states
and the router logits of every layer. Same mathematics and same parameters as the library's forward on each document
alone (tests/family asserts it); only the work differs:

- the gated delta rule is solved in one chunk of the row's length, not padded to multiples of 64, and the decay
  between tokens of different documents is exactly zero;
- the convolution reads no token of another document; attention gets a block-diagonal causal mask. Rotary positions
  are relative, so a document may start anywhere in its row.

Knows nothing of skills, losses or files.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


@dataclass(frozen=True)
class Packing:
    """What the layers need to know about a batch of packed rows."""

    attention_mask: Tensor  # [rows, 1, length, length], True where query may see key
    log_mask: Tensor  # the same, 0 or -inf
    conv_masks: Tensor  # [taps - 1, rows, 1, length]: is the token `taps - 1 - i` back in the same document?
    rotary: tuple[Tensor, Tensor]


def pack(model: nn.Module, documents: Tensor) -> Packing:
    """`documents` [rows, length]: any numbers that differ between neighbouring documents of a row."""
    length = documents.shape[1]
    same = documents.unsqueeze(2) == documents.unsqueeze(1)
    visible = (same & torch.ones(length, length, dtype=torch.bool).tril()).unsqueeze(1)
    log_mask = torch.zeros(visible.shape).masked_fill(~visible, float("-inf"))
    taps = model.config.linear_conv_kernel_dim
    backs = []
    for back in range(taps - 1, 0, -1):
        before = F.pad(documents, (back, 0), value=-1)[:, :length]
        backs.append((before == documents).float().unsqueeze(1))
    positions = torch.arange(length).view(1, 1, -1).expand(3, 1, -1)
    rotary = model.model.rotary_emb(torch.zeros(1), positions)
    return Packing(visible, log_mask, torch.stack(backs), rotary)


def _short_conv(hidden: Tensor, weight: Tensor, masks: Tensor) -> Tensor:
    """Causal depthwise convolution, [rows, channels, length], that stops at document starts."""
    length, taps = hidden.shape[-1], weight.shape[-1]
    padded = F.pad(hidden, (taps - 1, 0))
    out = hidden * weight[:, taps - 1, None]
    for tap in range(taps - 1):
        out = out + padded[:, :, tap : tap + length] * weight[:, tap, None] * masks[tap]
    return F.silu(out)


def _unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def _gated_delta_net(layer: nn.Module, hidden: Tensor, conv_masks: Tensor, log_mask: Tensor) -> Tensor:
    rows, length, _ = hidden.shape
    qkv = _short_conv(layer.in_proj_qkv(hidden).transpose(1, 2), layer.conv1d.weight.squeeze(1), conv_masks)
    query, key, value = qkv.transpose(1, 2).split([layer.key_dim, layer.key_dim, layer.value_dim], dim=-1)
    query = _unit(query.reshape(rows, length, -1, layer.head_k_dim).transpose(1, 2)) * layer.head_k_dim**-0.5
    key = _unit(key.reshape(rows, length, -1, layer.head_k_dim).transpose(1, 2))
    value = value.reshape(rows, length, -1, layer.head_v_dim).transpose(1, 2)
    beta = layer.in_proj_b(hidden).sigmoid().transpose(1, 2).unsqueeze(-1)
    decay = -layer.A_log.exp() * F.softplus(layer.in_proj_a(hidden) + layer.dt_bias)
    total = decay.transpose(1, 2).cumsum(-1)
    pairwise = (total.unsqueeze(-1) - total.unsqueeze(-2) + log_mask).exp()
    key_t = key.transpose(-1, -2)
    system = ((beta * key) @ key_t) * pairwise
    new_values = torch.linalg.solve_triangular(system, beta * value, upper=False, unitriangular=True)
    out = (((query @ key_t) * pairwise) @ new_values).transpose(1, 2)
    gate = layer.in_proj_z(hidden).reshape(-1, layer.head_v_dim)
    out = layer.norm(out.reshape(-1, layer.head_v_dim), gate)
    return layer.out_proj(out.reshape(rows, length, -1))


def _mixture(block: nn.Module, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """The sparse block with its router logits, [tokens, experts]."""
    flat = hidden.reshape(-1, hidden.shape[-1])
    logits, weights, selected = block.gate(flat)
    shared = torch.sigmoid(block.shared_expert_gate(flat)) * block.shared_expert(flat)
    return (block.experts(flat, selected, weights) + shared).reshape(hidden.shape), logits


def _layer(
    layer: nn.Module,
    hidden: Tensor,
    attention_mask: Tensor,
    log_mask: Tensor,
    conv_masks: Tensor,
    rotary: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    normed = layer.input_layernorm(hidden)
    if layer.block_type == "linear_attention":
        mixed = _gated_delta_net(layer.linear_attn, normed, conv_masks, log_mask)
    else:
        mixed, _ = layer.self_attn(normed, position_embeddings=rotary, attention_mask=attention_mask)
    hidden = hidden + mixed
    mixed, logits = _mixture(layer.mlp, layer.post_attention_layernorm(hidden))
    return hidden + mixed, logits


def forward(model: nn.Module, ids: Tensor, packing: Packing) -> tuple[Tensor, list[Tensor]]:
    """Last hidden states [rows, length, hidden] and, per layer, router logits [rows * length, experts]."""
    hidden, router_logits = model.model.embed_tokens(ids), []
    for layer in model.model.layers:
        hidden, logits = _layer(
            layer, hidden, packing.attention_mask, packing.log_mask, packing.conv_masks, packing.rotary
        )
        router_logits.append(logits)
    return model.model.norm(hidden), router_logits
