"""How a model's layers follow each other: the repeating unit, its words, and what a layer keeps for every token read.

Takes an anatomy and the config of the language model; gives a `Layout`. Reads no weights. Which tensor names mean
which kind of layer is known here and in `anatomy` only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

from darwin_lab.checkpoint.anatomy import Anatomy, Part

_MIXERS = {
    "full_attention": "attention", "attention": "attention", "sliding_attention": "sliding attention",
    "chunked_attention": "chunked attention", "mamba": "Mamba", "conv": "short convolution",
}  # fmt: skip
_WINDOWED = ("sliding_attention", "chunked_attention")
_FUSED_QKV = ("qkv_proj", "query_key_value", "Wqkv", "qkv")
_PATTERNS = {"gemma2": 2, "gemma3": 6}
"""Every n-th layer attends in full where a config of that family names a window and no layer types."""


@dataclass(frozen=True)
class LayerKind:
    """What a layer mixes tokens with (`mixer`) and what it feeds them through (`feed`)."""

    mixer: str
    feed: str


@dataclass(frozen=True)
class Run:
    """`count` layers of one kind in a row."""

    count: int
    kind: LayerKind


@dataclass(frozen=True)
class Stretch:
    """A unit of runs that is repeated `times`."""

    times: int
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Layout:
    """The layers in order, folded. `kept` is, per layer, (numbers cached per token read, window in tokens or None)."""

    stretches: tuple[Stretch, ...]
    kept: tuple[tuple[int, int | None], ...]
    experts: int
    top_k: int
    shared_expert: bool
    shared_kv_layers: int

    def cached_numbers(self, context: int) -> int:
        """Numbers of the key-value cache of one text of `context` tokens; a window bounds what its layer keeps."""
        return sum(width * min(context, window or context) for width, window in self.kept)


def read_layout(anatomy: Anatomy, config: dict[str, Any]) -> Layout:
    """The layout of a decoder; `config` is the part of config.json that describes the language model."""
    layers = [anatomy.layer_parts(layer) for layer in range(anatomy.layers)]
    types = _layer_types(anatomy, config)
    mixed = len({kind for kind in types if kind.endswith("attention") and kind != "linear_attention"}) > 1
    kinds = [LayerKind(_mixer(kind, parts, mixed), _feed(parts)) for kind, parts in zip(types, layers, strict=True)]
    window = config.get("sliding_window") or config.get("attention_chunk_size")
    borrowing = config.get("num_kv_shared_layers")
    shared = min(borrowing, anatomy.layers) if isinstance(borrowing, int) else 0
    kept = tuple(
        (
            0 if layer >= anatomy.layers - shared else _kept_per_token(parts),
            window if kind in _WINDOWED and isinstance(window, int) else None,
        )
        for layer, (kind, parts) in enumerate(zip(types, layers, strict=True))
    )
    return Layout(
        stretches=fold(kinds),
        kept=kept,
        experts=anatomy.experts,
        top_k=anatomy.top_k,
        shared_expert=any(part.role == "shared_expert" for part in anatomy.parts.values() if part.tower == "text"),
        shared_kv_layers=shared,
    )


def layout_words(layout: Layout) -> str:
    """The layout in words, e.g. "10 x (3 x GatedDeltaNet -> MoE + 1 x attention -> MoE); MoE: 256 experts, top-8"."""
    words = " + ".join(_stretch_words(stretch) for stretch in layout.stretches)
    if layout.experts:
        top = f", top-{layout.top_k}" if layout.top_k else ""
        words += f"; MoE: {layout.experts} experts{top}{', and a shared expert' if layout.shared_expert else ''}"
    if layout.shared_kv_layers:
        words += f"; the last {layout.shared_kv_layers} layers reuse keys and values of earlier ones"
    return words


def fold(kinds: Sequence[LayerKind]) -> tuple[Stretch, ...]:
    """The shortest way to say a sequence as stretches: runs of one kind, with at most one repeated unit in each part.

    Among equally short ways the one that covers more layers wins, then the one with the shorter unit.
    """
    runs = tuple(Run(len(list(group)), kind) for kind, group in groupby(kinds))
    best = (len(runs), 0, 0, 0, 0)
    terms = [0, *(0 if before == after else 1 for before, after in pairwise(kinds))]
    for index in range(1, len(terms)):
        terms[index] += terms[index - 1]

    def said(start: int, end: int) -> int:
        return 1 + terms[end - 1] - terms[start] if end > start else 0

    size = len(kinds)
    for period in range(1, size // 2 + 1):
        alike = 0
        for start in range(size - period - 1, -1, -1):
            alike = alike + 1 if kinds[start] == kinds[start + period] else 0
            times = alike // period + 1
            if times < 2 or said(start, start + period) < 2:
                continue
            end = start + times * period
            cost = said(0, start) + said(start, start + period) + said(end, size)
            best = min(best, (cost, start - end, period, start, times))
    _, covered, period, start, times = best
    if not covered:
        return tuple(Stretch(1, (run,)) for run in runs)
    unit = tuple(Run(len(list(group)), kind) for kind, group in groupby(kinds[start : start + period]))
    return (*fold(kinds[:start]), Stretch(times, unit), *fold(kinds[start - covered :]))


def _stretch_words(stretch: Stretch) -> str:
    if stretch.times == 1 and len(stretch.runs) == 1:
        run = stretch.runs[0]
        return f"{run.count} x ({run.kind.mixer} -> {run.kind.feed})"
    inner = " + ".join(f"{run.count} x {run.kind.mixer} -> {run.kind.feed}" for run in stretch.runs)
    return f"{stretch.times} x ({inner})"


def _layer_types(anatomy: Anatomy, config: dict[str, Any]) -> tuple[str, ...]:
    """The kind of every layer; a config may name a window and leave the layers it holds for unsaid."""
    types, window = anatomy.layer_kinds, config.get("sliding_window")
    said = config.get("layer_types")
    if (isinstance(said, list) and len(said) == anatomy.layers) or not isinstance(window, int):
        return types
    if config.get("use_sliding_window") is False:
        return types
    first = config.get("max_window_layers", 0) if config.get("use_sliding_window") else 0
    family = str(config.get("model_type", ""))
    pattern = config.get("sliding_window_pattern") or next(
        (every for name, every in _PATTERNS.items() if family.startswith(name)), 0
    )
    return tuple(
        "sliding_attention"
        if kind == "full_attention" and layer >= first and not (pattern and (layer + 1) % pattern == 0)
        else kind
        for layer, kind in enumerate(types)
    )


def _mixer(kind: str, parts: Sequence[Part], mixed: bool) -> str:
    """The word for what a layer mixes tokens with; attention is "full" only beside another sort of attention."""
    if kind in ("full_attention", "attention") and mixed:
        return "full attention"
    if kind != "linear_attention":
        return _MIXERS.get(kind, kind.replace("_", " "))
    subs = {part.sub for part in parts if part.role == "linear_attention"}
    if "A_log" in subs and subs & {"in_proj_b", "in_proj_ba", "b_proj"}:
        return "GatedDeltaNet"
    return "Mamba" if "A_log" in subs else "linear attention"


def _feed(parts: Sequence[Part]) -> str:
    roles = {part.role for part in parts}
    if "expert" in roles:
        return "FFN and MoE" if "ffn" in roles else "MoE"
    return "FFN" if "ffn" in roles else "no FFN"


def _kept_per_token(parts: Sequence[Part]) -> int:
    """Keys and values a layer caches per token: rows of its projections; a latent cache keeps the compressed rows."""
    rows = {
        part.sub: part.shape for part in parts if part.role == "attention" and len(part.shape) == 2 and part.mergeable
    }
    if "kv_a_proj_with_mqa" in rows:
        return rows["kv_a_proj_with_mqa"][0]
    fused = next((rows[sub] for sub in _FUSED_QKV if sub in rows), None)
    if fused is not None:
        return max(0, fused[0] - rows["o_proj"][1]) if "o_proj" in rows else 0
    if "k_proj" not in rows:
        return 0
    keys = rows["k_proj"][0]
    return keys + (rows["v_proj"][0] if "v_proj" in rows else keys)
