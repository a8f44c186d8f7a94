"""The causal contrast of two parents: what each layer of one is worth inside the other.

Takes both parents resident and the probes; gives, per text and layer, the gain in NLL of the mother's layer over the
father's, averaged over both directions. Above zero: the mother's layer is better. Must not know: ratios, genomes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from darwin_lab.engine.resident import Resident
from darwin_lab.engine.sweep import swap_sweep
from darwin_lab.errors import LabError
from darwin_lab.mri.measures import batches_by_length, encode_texts, next_token_losses
from darwin_lab.mri.probes import ProbeSet
from darwin_lab.mri.saved import read_folder, same_measurement, write_folder
from darwin_lab.mri.scan import batch_tokens, scan_settings
from darwin_lab.progress import Tick, part, silent
from darwin_lab.statistics.bootstrap import bootstrap_mean

Floats = NDArray[np.float64]
CONTRAST_TEXTS = 24
"""Texts of a probe that are read with swapped layers."""


def contrast_settings(max_tokens: int = 512, max_texts: int = CONTRAST_TEXTS) -> dict[str, Any]:
    """The settings that decide a contrast's numbers: part of its key."""
    return {**scan_settings(max_tokens), "max_texts": max_texts}


@dataclass(frozen=True, eq=False)
class Contrast:
    """Gains of the mother's layers on some probes; a contrast may be partial, like a scan."""

    father: str
    mother: str
    fingerprints: tuple[str, str]
    probes_hash: str
    settings: dict[str, Any]
    layers: int
    probes: tuple[str, ...]
    lengths: dict[str, NDArray[np.int32]]
    """probe -> [n] real tokens of each text."""
    gain: dict[str, NDArray[np.float32]]
    """probe -> [n, L] nats a token, > 0 where the mother's layer is better."""

    @property
    def tokens(self) -> dict[str, int]:
        """Real tokens read, by probe."""
        return {probe: int(self.lengths[probe].sum()) for probe in self.probes}

    @property
    def mean(self) -> dict[str, Floats]:
        """Probe -> [L] gain, weighted by the tokens each text predicts."""
        return {probe: self._summary(probe)[0] for probe in self.probes}

    @property
    def se(self) -> dict[str, Floats]:
        """Probe -> [L] paired bootstrap standard error over texts (NaN with a single text)."""
        return {probe: self._summary(probe)[3] for probe in self.probes}

    def _summary(self, probe: str) -> tuple[Floats, Floats, Floats, Floats]:
        return bootstrap_mean(self.gain[probe], self.lengths[probe].astype(np.float64) - 1)

    def save(self, folder: str | Path) -> Path:
        """Write `contrast.json` and `contrast.safetensors` into `folder`, atomically. Raises `LabError`."""
        words = {
            "version": 1,
            "father": self.father,
            "mother": self.mother,
            "fingerprints": list(self.fingerprints),
            "probes_hash": self.probes_hash,
            "settings": self.settings,
            "layers": self.layers,
            "probes": list(self.probes),
            "tokens": self.tokens,
        }
        arrays: dict[str, NDArray[Any]] = {f"gain/{probe}": self.gain[probe] for probe in self.probes}
        arrays |= {f"lengths/{probe}": self.lengths[probe] for probe in self.probes}
        return write_folder(folder, "contrast", words, arrays)

    @staticmethod
    def load(folder: str | Path) -> "Contrast":
        """Read what `save` wrote. Raises `LabError` for anything else."""
        words, arrays = read_folder(folder, "contrast")
        try:
            father, mother = words["fingerprints"]
            return Contrast(
                father=words["father"],
                mother=words["mother"],
                fingerprints=(father, mother),
                probes_hash=words["probes_hash"],
                settings=words["settings"],
                layers=words["layers"],
                probes=tuple(words["probes"]),
                lengths={probe: arrays[f"lengths/{probe}"] for probe in words["probes"]},
                gain={probe: arrays[f"gain/{probe}"] for probe in words["probes"]},
            )
        except (KeyError, ValueError) as error:
            raise LabError(f"{folder} is a contrast without {error}; delete it and measure again") from error


def merged_contrast(pieces: Sequence[Contrast]) -> Contrast:
    """One contrast of the probes of several partial ones. Raises `LabError` when they do not belong together."""
    first = pieces[0]
    for piece in pieces[1:]:
        same_measurement(
            "contrasts",
            [
                ("parents", first.fingerprints, piece.fingerprints),
                ("probe set", first.probes_hash, piece.probes_hash),
                ("settings", first.settings, piece.settings),
            ],
        )
    return replace(
        first,
        probes=tuple(dict.fromkeys(probe for piece in pieces for probe in piece.probes)),
        lengths={probe: values for piece in pieces for probe, values in piece.lengths.items()},
        gain={probe: values for piece in pieces for probe, values in piece.gain.items()},
    )


def contrast(
    resident_a: Resident,
    resident_b: Resident,
    probes: ProbeSet,
    tick: Tick = silent,
    on_probe: Callable[[Contrast], None] | None = None,
    *,
    names: tuple[str, str] = ("father", "mother"),
    max_tokens: int = 512,
    max_texts: int = CONTRAST_TEXTS,
) -> Contrast:
    """Swap every layer in both directions, on texts of every probe; father is `resident_a`, mother `resident_b`.

    Both residents must already carry the parents. Of every probe the first `max_texts` texts are read (a swap in both
    directions costs two scans). `on_probe` gets the partial contrast after each probe. Raises
    `LabError` for parents with different layers or tokens, unusable texts, and losses that are not finite.
    Source: methods, section 2, "Contrastive".
    """
    if resident_a.layers != resident_b.layers:
        raise LabError(f"father has {resident_a.layers} layers, mother {resident_b.layers}; swaps need equal depth")
    read = {probe: texts[:max_texts] for probe, texts in probes.texts.items()}
    total = sum(len(texts) for texts in read.values())
    done = 0
    pieces: list[Contrast] = []
    for probe, texts in read.items():
        share = part(tick, done / total, (done + len(texts)) / total)
        with resident_a.lock, resident_b.lock:
            lengths, gain = _probe_gain(resident_a, resident_b, probe, texts, max_tokens, share)
        done += len(texts)
        pieces.append(
            Contrast(
                father=names[0],
                mother=names[1],
                fingerprints=(resident_a.fingerprint, resident_b.fingerprint),
                probes_hash=probes.hash,
                settings=contrast_settings(max_tokens, max_texts),
                layers=resident_a.layers,
                probes=(probe,),
                lengths={probe: lengths},
                gain={probe: gain},
            )
        )
        if on_probe is not None:
            on_probe(merged_contrast(pieces))
    if not pieces:
        raise LabError("no probe to contrast the parents on; give a probes file with at least one line")
    return merged_contrast(pieces)


def _probe_gain(
    resident_a: Resident, resident_b: Resident, probe: str, texts: Sequence[str], max_tokens: int, tick: Tick
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """([n] tokens, [n, L] gain of the mother's layer over the father's)."""
    encoded = encode_texts(resident_a.tokenizer, texts, probe, max_tokens, resident_a.context_length)
    if encoded != encode_texts(resident_b.tokenizer, texts, probe, max_tokens):
        raise LabError(f"father and mother cut probe {probe} into different tokens; use parents with one tokenizer")
    lengths = np.asarray([len(ids) for ids in encoded], dtype=np.int32)
    plan = batches_by_length(lengths.tolist(), batch_tokens())
    gain = np.zeros((len(texts), resident_a.layers), dtype=np.float32)
    for number, chosen in enumerate(plan):
        tick(number / len(plan), f"swapping layers: {probe}, {number}/{len(plan)} batches")
        ids, mask = resident_a.encode_batch([encoded[index] for index in chosen])
        into_a = _swapped_nll(resident_a, resident_b, ids, mask)
        into_b = _swapped_nll(resident_b, resident_a, ids, mask)
        both = 0.5 * (into_a[0] - into_a[1:]) + 0.5 * (into_b[1:] - into_b[0])
        if not bool(torch.isfinite(both).all()):
            layer = int(torch.nonzero(~torch.isfinite(both))[0, 0])
            raise LabError(f"probe {probe}: losses are not finite when layer {layer} is swapped; scan both parents")
        gain[chosen] = both.T.float().numpy()
    tick(1.0, f"swapped layers: {probe}")
    return lengths, gain


@torch.inference_mode()
def _swapped_nll(host: Resident, donor: Resident, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[L+1, B] NLL of the host, plain and with each layer from the donor."""
    states = swap_sweep(host, donor, ids, mask)
    return next_token_losses(host.logits, states, ids, mask, divergence=False)[0]
