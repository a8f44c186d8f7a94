"""The Model MRI: read a probe's texts, skip every layer once, and keep what that does to each text.

Takes a resident model, the source whose weights it shall carry, and texts; gives a `Scan`, probe by probe. All skips
of a batch come from one sweep, influence from one plain pass, experts from the router's own choices.
Must not know: parents, merging, what a probe is for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from darwin_lab.engine.resident import Resident
from darwin_lab.engine.source import Source
from darwin_lab.engine.sweep import Routing, observe, skip_sweep
from darwin_lab.errors import LabError
from darwin_lab.mri.measures import (
    batches_by_length,
    cosine_distance,
    encode_texts,
    first_broken_layer,
    next_token_losses,
)
from darwin_lab.mri.probes import ProbeSet
from darwin_lab.mri.record import MEASURES, Scan, merged
from darwin_lab.progress import Tick, part, silent

__all__ = ["MEASURES", "Scan", "merged", "scan_model", "scan_probe", "scan_settings"]

BRANCH_TOKENS = 16_384
"""Padded tokens in flight in a sweep, over all its branches."""


def scan_settings(max_tokens: int = 512) -> dict[str, Any]:
    """The settings that decide a scan's numbers, beside the weights and the probes: part of its key."""
    return {"version": 1, "max_tokens": max_tokens}


def batch_tokens_for(layers: int, branch_tokens: int = BRANCH_TOKENS) -> int:
    """Padded tokens of one batch such that the sweep's L + 1 branches stay within `branch_tokens`."""
    return max(64, branch_tokens // (layers + 1))


def scan_model(
    resident: Resident,
    source: Source,
    probes: ProbeSet,
    tick: Tick = silent,
    on_probe: Callable[[Scan], None] | None = None,
    *,
    max_tokens: int = 512,
) -> Scan:
    """Scan `source` on every probe, in their order; `on_probe` gets the partial scan after each.

    The resident is made to carry `source` and is locked one probe at a time. Raises `LabError` for a probe without
    usable text and for activations that are not finite (names the layer); `Cancelled` passes through.
    """
    total = sum(len(texts) for texts in probes.texts.values())
    done = 0
    pieces: list[Scan] = []
    for name, texts in probes.texts.items():
        share = part(tick, done / total, (done + len(texts)) / total)
        pieces.append(
            scan_probe(resident, source, name, texts, probes_hash=probes.hash, tick=share, max_tokens=max_tokens)
        )
        done += len(texts)
        if on_probe is not None:
            on_probe(merged(pieces))
    if not pieces:
        raise LabError("no probe to scan; give a probes file with at least one line")
    return merged(pieces)


def scan_probe(
    resident: Resident,
    source: Source,
    probe: str,
    texts: Sequence[str],
    *,
    probes_hash: str,
    tick: Tick = silent,
    max_tokens: int = 512,
) -> Scan:
    """A partial scan of one probe: every measure per text, in the order of `texts`.

    Raises as `scan_model` does.
    """
    with resident.lock:
        resident.become(source)
        encoded = encode_texts(resident.tokenizer, texts, probe, max_tokens)
        lengths = np.asarray([len(ids) for ids in encoded], dtype=np.int32)
        plan = batches_by_length(lengths.tolist(), batch_tokens_for(resident.layers))
        gathered = _Gathered(len(texts), resident.layers)
        for number, chosen in enumerate(plan):
            tick(number / len(plan), f"scanning {source.name}: {probe}, {number}/{len(plan)} batches")
            ids, mask = resident.encode_batch([encoded[index] for index in chosen])
            gathered.add(chosen, *_read_batch(resident, ids, mask, f"{source.name}, probe {probe}"))
        tick(1.0, f"scanned {source.name}: {probe}")
    return gathered.scan(source, probe, lengths, probes_hash, scan_settings(max_tokens))


@dataclass(frozen=True)
class _Use:
    """Experts of one MoE layer over one batch: times chosen [B, E], summed token entropy, summed probabilities [E]."""

    layer: int
    top_k: int
    counts: Tensor
    entropy: float
    mass: Tensor


@torch.inference_mode()
def _read_batch(
    resident: Resident, ids: Tensor, mask: Tensor, where: str
) -> tuple[dict[str, Tensor], Tensor, list[_Use]]:
    """Measures [L, B], NLL [B], and the use of experts per MoE layer."""
    seen = observe(resident, ids, mask)
    broken = first_broken_layer(seen.inputs, seen.outputs, seen.final, mask)
    if broken is not None:
        raise LabError(
            f"{where}: activations stop being finite in {broken}; look for damaged weights there or scan in float32"
        )
    influence = [cosine_distance(*streams, mask) for streams in zip(seen.inputs, seen.outputs, strict=True)]
    swept = skip_sweep(resident, ids, mask)
    for layer in range(resident.layers):
        if not bool(torch.isfinite(swept[1 + layer][mask.bool()]).all()):
            raise LabError(f"{where}: activations are not finite when layer {layer} is skipped; scan in float32")
    skip = [cosine_distance(swept[0], swept[1 + layer], mask) for layer in range(resident.layers)]
    nll, kl = next_token_losses(resident.logits, swept, ids, mask, divergence=True)
    measures = {"skip": torch.stack(skip), "influence": torch.stack(influence), "loss": nll[1:] - nll[0], "kl": kl[1:]}
    return measures, nll[0], [_expert_use(routing, mask) for routing in seen.routing]


def _expert_use(routing: Routing, mask: Tensor) -> _Use:
    """What one MoE layer did with the real tokens of a batch."""
    real = mask.bool()
    chosen = torch.zeros(routing.probabilities.shape, dtype=torch.int32, device=mask.device)
    chosen.scatter_(-1, routing.chosen, 1)
    p = routing.probabilities[real].double()
    return _Use(
        layer=routing.layer,
        top_k=routing.chosen.shape[-1],
        counts=(chosen * real[..., None]).sum(1, dtype=torch.int32),
        entropy=float(-(p * p.clamp_min(1e-30).log()).sum()),
        mass=p.sum(0),
    )


class _Gathered:
    """What the batches of one probe gave, put back into the order of the texts."""

    def __init__(self, texts: int, layers: int) -> None:
        self.measures = {measure: np.zeros((texts, layers), dtype=np.float32) for measure in MEASURES}
        self.nll = np.zeros(texts, dtype=np.float32)
        self.counts: dict[int, NDArray[np.int32]] = {}
        self.entropy: dict[int, float] = {}
        self.mass: dict[int, NDArray[np.float64]] = {}
        self.top_k = 0

    def add(self, chosen: list[int], measures: dict[str, Tensor], nll: Tensor, experts: list[_Use]) -> None:
        for measure, values in measures.items():
            self.measures[measure][chosen] = values.T.float().cpu().numpy()
        self.nll[chosen] = nll.float().cpu().numpy()
        for use in experts:
            if use.layer not in self.counts:
                width = use.counts.shape[-1]
                self.counts[use.layer] = np.zeros((len(self.nll), width), dtype=np.int32)
                self.entropy[use.layer], self.mass[use.layer] = 0.0, np.zeros(width)
            self.top_k = use.top_k
            self.counts[use.layer][chosen] = use.counts.cpu().numpy()
            self.entropy[use.layer] += use.entropy
            self.mass[use.layer] += use.mass.cpu().numpy()

    def scan(
        self, source: Source, probe: str, lengths: NDArray[np.int32], probes_hash: str, settings: dict[str, Any]
    ) -> Scan:
        moe = tuple(sorted(self.counts))
        tokens = float(lengths.sum())
        counts, router = {}, {}
        if moe:
            counts[probe] = np.stack([self.counts[layer] for layer in moe], axis=1)
            router[probe] = {
                "token_entropy": np.asarray([self.entropy[layer] / tokens for layer in moe], dtype=np.float32),
                "mean_p": np.stack([self.mass[layer] / tokens for layer in moe]).astype(np.float32),
            }
        return Scan(
            model=source.name,
            fingerprint=source.fingerprint,
            probes_hash=probes_hash,
            settings=settings,
            layers=self.measures["skip"].shape[1],
            experts=counts[probe].shape[-1] if moe else 0,
            top_k=self.top_k,
            moe_layers=moe,
            probes=(probe,),
            lengths={probe: lengths},
            per_text={measure: {probe: values} for measure, values in self.measures.items()},
            nll={probe: self.nll},
            counts=counts,
            router=router,
        )
