"""The causal contrast of two parents: what each layer of one is worth inside the other.

Takes both parents, resident or streamed, and the probes; gives, per text and layer, the gain in NLL of the mother's
layer over the father's, averaged over both directions. Above zero: the mother's layer is better. Must not know: ratios,
genomes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from darwin_lab.engine.resident import Resident
from darwin_lab.engine.sweep import Front, exchange, finish, start_sweep
from darwin_lab.errors import LabError
from darwin_lab.mri.measures import Batch, encode_texts, group_batches, in_halves, next_token_losses
from darwin_lab.mri.probes import ProbeSet
from darwin_lab.mri.saved import dtype_of, read_folder, same_measurement, write_folder
from darwin_lab.mri.scan import batch_tokens, scan_settings
from darwin_lab.progress import Tick, part, silent
from darwin_lab.statistics.bootstrap import bootstrap_mean

Floats = NDArray[np.float64]
CONTRAST_TEXTS = 24
"""Texts of a probe that are read with swapped layers."""


def contrast_settings(
    max_tokens: int = 512, max_texts: int = CONTRAST_TEXTS, dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    """The settings that decide a contrast's numbers: part of its key."""
    return {**scan_settings(max_tokens, dtype), "max_texts": max_texts}


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
    def dtype(self) -> str:
        """The numbers it was computed in."""
        return dtype_of(self.settings)

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

    Both must already carry the parents; streamed, each holds one layer and reads its weights once for both directions.
    Of every probe the first `max_texts` texts are read (a swap in both directions costs two scans). `on_probe` gets
    the partial contrast after each probe. Raises `LabError` for parents with different layers, dtypes or tokens,
    unusable texts, and losses that are not finite.
    Source: methods, section 2, "Contrastive".
    """
    if resident_a.layers != resident_b.layers:
        raise LabError(f"father has {resident_a.layers} layers, mother {resident_b.layers}; swaps need equal depth")
    if resident_a.dtype != resident_b.dtype:
        raise LabError(f"father is held in {resident_a.dtype}, mother in {resident_b.dtype}; load both in one dtype")
    if not probes.texts:
        raise LabError("no probe to contrast the parents on; give a probes file with at least one line")
    models = resident_a, resident_b
    encoded = {name: _encoded(models, name, texts[:max_texts], max_tokens) for name, texts in probes.texts.items()}
    gains = {name: np.zeros((len(rows), resident_a.layers), np.float32) for name, rows in encoded.items()}
    room = _room(models)
    bytes_per_token = resident_a.state_bytes_per_token() + resident_b.state_bytes_per_token()
    groups = [
        group
        for some in ([encoded] if room else [{name: rows} for name, rows in encoded.items()])
        for group in group_batches(some, batch_tokens(), bytes_per_token, room)
    ]
    pieces: dict[str, Contrast] = {}
    for number, group in enumerate(groups):
        share = part(tick, number / len(groups), (number + 1) / len(groups))
        with resident_a.lock, resident_b.lock:
            in_halves(group, partial(_read_swaps, models, encoded, gains, share))
        later = {name for group in groups[number + 1 :] for name, _ in group}
        for name, rows in encoded.items():
            if name in later or name in pieces:
                continue
            pieces[name] = Contrast(
                father=names[0],
                mother=names[1],
                fingerprints=(resident_a.fingerprint, resident_b.fingerprint),
                probes_hash=probes.hash,
                settings=contrast_settings(max_tokens, max_texts, resident_a.dtype),
                layers=resident_a.layers,
                probes=(name,),
                lengths={name: np.asarray(list(map(len, rows)), dtype=np.int32)},
                gain={name: gains[name]},
            )
            if on_probe is not None:
                on_probe(merged_contrast(list(pieces.values())))
    tick(1.0, "swapped layers")
    return merged_contrast([pieces[name] for name in encoded])


def _encoded(models: tuple[Resident, Resident], probe: str, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Token ids of each text. Raises `LabError` unless both parents cut them alike."""
    encoded = encode_texts(models[0].tokenizer, texts, probe, max_tokens, models[0].context_length)
    if encoded != encode_texts(models[1].tokenizer, texts, probe, max_tokens, models[1].context_length):
        raise LabError(f"father and mother cut probe {probe} into different tokens; use parents with one tokenizer")
    return encoded


def _room(models: tuple[Resident, Resident]) -> int:
    """Bytes that the states of both sweeps may take together; 0 (one batch at a time) when both models are held."""
    rooms = [
        model.state_bytes if model.spill is not None else max(1, model.state_bytes - other.held)
        for model, other in (models, models[::-1])
        if model.streamed
    ]
    return min(rooms, default=0)


@torch.inference_mode()
def _read_swaps(
    models: tuple[Resident, Resident],
    encoded: Mapping[str, list[list[int]]],
    gains: Mapping[str, NDArray[np.float32]],
    tick: Tick,
    group: Sequence[Batch],
) -> None:
    """Both sweeps over some batches; [n, L] gain of the mother's layer over the father's, put into `gains`."""
    batches = [models[0].encode_batch([encoded[probe][index] for index in chosen]) for probe, chosen in group]
    words = f"swapping layers: {', '.join(dict.fromkeys(probe for probe, _ in group))}"
    fronts = start_sweep(models[0], batches, models[0].spill), start_sweep(models[1], batches, models[1].spill)
    layers = models[0].layers
    while fronts[0].layer < layers:
        tick(fronts[0].done, f"{words}, layer {fronts[0].layer} of {layers}")
        exchange(models, fronts)
    tick(fronts[0].done, f"{words}, next tokens")
    into_a, into_b = (_losses(model, front, batches) for model, front in zip(models, fronts, strict=True))
    for (probe, chosen), a, b in zip(group, into_a, into_b, strict=True):
        both = 0.5 * (a[0] - a[1:]) + 0.5 * (b[1:] - b[0])
        if not bool(torch.isfinite(both).all()):
            layer = int(torch.nonzero(~torch.isfinite(both))[0, 0])
            raise LabError(f"probe {probe}: losses are not finite when layer {layer} is swapped; scan both parents")
        gains[probe][chosen] = both.T.float().numpy()


def _losses(model: Resident, front: Front, batches: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> list[torch.Tensor]:
    """Of each batch [L + 1, B] NLL, plain and with each layer from the other parent."""
    with model.head():
        return [
            next_token_losses(model.logits, finish(front, number), ids, mask, divergence=False)[0]
            for number, (ids, mask) in enumerate(batches)
        ]
