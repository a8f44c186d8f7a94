"""The scan as data: what was measured of one model on some probes, kept per text.

Takes arrays from the measuring (`scan.py`) or from disk; gives importances with intervals, expert diagnostics, JSON.
A scan may be partial (some probes only) and partial scans of one model can be merged. Must not know: torch, models
in memory, how anything was measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from darwin_lab.errors import LabError
from darwin_lab.mri.experts import ExpertReport, expert_report
from darwin_lab.mri.saved import read_folder, same_measurement, write_folder
from darwin_lab.statistics.bootstrap import bootstrap_mean

Floats = NDArray[np.float64]

MEASURES = ("skip", "influence", "loss", "kl")
"""skip: 1 - cos of the final hidden state without the layer. influence: 1 - cos(layer input, output). loss: rise in
NLL (nats a token) without the layer. kl: KL of the next-token distribution without the layer (nats)."""
DECISIVE = "loss"
"""The measure that decisions use; cosine saturates."""


@dataclass(frozen=True, eq=False)
class Scan:
    """One model, read by probe. Arrays are per text; `n` texts of a probe, L layers, M MoE layers, E experts."""

    model: str
    fingerprint: str
    probes_hash: str
    settings: dict[str, Any]
    layers: int
    experts: int
    top_k: int
    moe_layers: tuple[int, ...]
    probes: tuple[str, ...]
    lengths: dict[str, NDArray[np.int32]]
    """probe -> [n] real tokens of each text."""
    per_text: dict[str, dict[str, NDArray[np.float32]]]
    """measure -> probe -> [n, L]."""
    nll: dict[str, NDArray[np.float32]]
    """probe -> [n] mean next-token NLL of the text, nats."""
    counts: dict[str, NDArray[np.int32]]
    """probe -> [n, M, E] times each expert was chosen; empty without experts."""
    router: dict[str, dict[str, NDArray[np.float32]]]
    """probe -> {"token_entropy" [M] nats, "mean_p" [M, E]}; empty without experts."""

    @property
    def tokens(self) -> dict[str, int]:
        """Real tokens read, by probe."""
        return {probe: int(self.lengths[probe].sum()) for probe in self.probes}

    @property
    def texts(self) -> dict[str, int]:
        """Texts read, by probe."""
        return {probe: len(self.lengths[probe]) for probe in self.probes}

    def weights(self, measure: str, probe: str) -> Floats:
        """[n] what a text counts: its tokens, or the tokens it predicts for `loss`, `kl` and `nll`."""
        tokens = self.lengths[probe].astype(np.float64)
        return tokens if measure in ("skip", "influence") else tokens - 1

    def importance(self, measure: str) -> dict[str, Floats]:
        """Probe -> [L] token-weighted mean over texts. Raises `LabError` for an unknown measure."""
        return {probe: summary[0] for probe, summary in self._summaries(measure).items()}

    def interval(self, measure: str, probe: str) -> Floats:
        """[L, 2] bootstrap 95 % interval over texts (NaN with a single text)."""
        _, low, high, _ = self._summary(measure, probe)
        return np.stack([low, high], axis=-1)

    def error(self, measure: str, probe: str) -> Floats:
        """[L] bootstrap standard error over texts (NaN with a single text)."""
        return self._summary(measure, probe)[3]

    def mean_nll(self) -> dict[str, float]:
        """Probe -> NLL in nats a token."""
        return {p: float(np.average(self.nll[p], weights=self.weights("nll", p))) for p in self.probes}

    def expert_report(self) -> ExpertReport | None:
        """Diagnostics over all probes of this scan; None for a model without experts."""
        return self._experts

    @cached_property
    def _experts(self) -> ExpertReport | None:
        if not self.moe_layers:
            return None
        return expert_report(self.counts, self.lengths, self.router, self.moe_layers, self.top_k)

    @cached_property
    def _cache(self) -> dict[tuple[str, str], tuple[Floats, Floats, Floats, Floats]]:
        return {}

    def _summary(self, measure: str, probe: str) -> tuple[Floats, Floats, Floats, Floats]:
        if measure not in self.per_text:
            raise LabError(f"no measure named {measure}; choose one of {', '.join(MEASURES)}")
        if probe not in self.probes:
            raise LabError(f"the scan of {self.model} holds no probe {probe}; it holds {', '.join(self.probes)}")
        if (measure, probe) not in self._cache:
            self._cache[measure, probe] = bootstrap_mean(self.per_text[measure][probe], self.weights(measure, probe))
        return self._cache[measure, probe]

    def _summaries(self, measure: str) -> dict[str, tuple[Floats, Floats, Floats, Floats]]:
        return {probe: self._summary(measure, probe) for probe in self.probes}

    def to_json(self) -> dict[str, Any]:
        """What `scan --json` prints: importances and their intervals by measure and probe, experts, tokens."""
        report = self.expert_report()
        return {
            "version": 1,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "probes_hash": self.probes_hash,
            "settings": self.settings,
            "layers": self.layers,
            "importance": {m: {p: v.tolist() for p, v in self.importance(m).items()} for m in MEASURES},
            "interval": {m: {p: _nullable(self.interval(m, p)) for p in self.probes} for m in MEASURES},
            "nll": self.mean_nll(),
            "experts": None if report is None else report.to_json(),
            "tokens": self.tokens,
            "texts": self.texts,
        }

    def save(self, folder: str | Path) -> Path:
        """Write `scan.json` and `scan.safetensors` into `folder`, atomically. Raises `LabError`."""
        arrays: dict[str, NDArray[Any]] = {}
        for probe in self.probes:
            arrays[f"lengths/{probe}"] = self.lengths[probe]
            arrays[f"nll/{probe}"] = self.nll[probe]
            for measure in MEASURES:
                arrays[f"per_text/{measure}/{probe}"] = self.per_text[measure][probe]
            if self.moe_layers:
                arrays[f"counts/{probe}"] = self.counts[probe]
                for name, values in self.router[probe].items():
                    arrays[f"router/{name}/{probe}"] = values
        shape = {
            "experts_per_layer": self.experts,
            "top_k": self.top_k,
            "moe_layers": list(self.moe_layers),
            "probes": list(self.probes),
        }
        return write_folder(folder, "scan", {**self.to_json(), **shape}, arrays)

    @staticmethod
    def load(folder: str | Path) -> "Scan":
        """Read what `save` wrote. Raises `LabError` for anything else."""
        words, arrays = read_folder(folder, "scan")
        try:
            probes, moe = tuple(words["probes"]), tuple(words["moe_layers"])
            return Scan(
                model=words["model"],
                fingerprint=words["fingerprint"],
                probes_hash=words["probes_hash"],
                settings=words["settings"],
                layers=words["layers"],
                experts=words["experts_per_layer"],
                top_k=words["top_k"],
                moe_layers=moe,
                probes=probes,
                lengths={p: arrays[f"lengths/{p}"] for p in probes},
                per_text={m: {p: arrays[f"per_text/{m}/{p}"] for p in probes} for m in MEASURES},
                nll={p: arrays[f"nll/{p}"] for p in probes},
                counts={p: arrays[f"counts/{p}"] for p in probes} if moe else {},
                router={p: {n: arrays[f"router/{n}/{p}"] for n in ("token_entropy", "mean_p")} for p in probes}
                if moe
                else {},
            )
        except KeyError as error:
            raise LabError(f"{folder} is a scan without {error}; delete it and scan again") from error


def merged(scans: Sequence[Scan]) -> Scan:
    """One scan of the probes of several partial scans of one model, in their order.

    Raises `LabError` for scans of different models, probe sets or settings.
    """
    first = scans[0]
    for scan in scans[1:]:
        same_scan_basis(first, scan)
        same_measurement("scans", [("model", first.fingerprint, scan.fingerprint)])
    return replace(
        first,
        probes=tuple(dict.fromkeys(probe for scan in scans for probe in scan.probes)),
        lengths={p: v for scan in scans for p, v in scan.lengths.items()},
        per_text={m: {p: v for scan in scans for p, v in scan.per_text[m].items()} for m in MEASURES},
        nll={p: v for scan in scans for p, v in scan.nll.items()},
        counts={p: v for scan in scans for p, v in scan.counts.items()},
        router={p: v for scan in scans for p, v in scan.router.items()},
    )


def same_scan_basis(one: Scan, other: Scan) -> None:
    """Raise `LabError` unless two scans can be compared text by text: same probe set, settings and shape."""
    same_measurement(
        "scans",
        [
            ("probe set", one.probes_hash, other.probes_hash),
            ("settings", one.settings, other.settings),
            ("layers", one.layers, other.layers),
            ("experts", one.experts, other.experts),
            ("MoE layers", one.moe_layers, other.moe_layers),
        ],
    )


def shared_probes(*scans: Scan) -> tuple[str, ...]:
    """Probes that every scan holds, in the order of the first. Raises `LabError` when there is none, when the
    scans differ in basis, or when a probe was tokenised differently."""
    first = scans[0]
    for scan in scans[1:]:
        same_scan_basis(first, scan)
    probes = tuple(probe for probe in first.probes if all(probe in scan.probes for scan in scans))
    if not probes:
        raise LabError("these scans share no probe yet; let both scans finish the same probe first")
    for scan in scans[1:]:
        for probe in probes:
            if not np.array_equal(first.lengths[probe], scan.lengths[probe]):
                raise LabError(
                    f"{first.model} and {scan.model} cut probe {probe} into different tokens; "
                    "use parents with one tokenizer"
                )
    return probes


def _nullable(values: Floats) -> list[list[float | None]]:
    """[L, 2] as lists, NaN as null."""
    return [[float(v) if np.isfinite(v) else None for v in row] for row in values]
