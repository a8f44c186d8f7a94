"""The scan as data: what was measured of one model on some probes, kept per text.

Takes arrays from the measuring (`scan.py`) or from disk; gives importances with intervals, expert diagnostics, JSON.
A scan may be partial (some probes only) and partial scans of one model can be merged. Must not know: torch, models
in memory, how anything was measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from darwin_lab.errors import LabError
from darwin_lab.mri.experts import ExpertReport, expert_report
from darwin_lab.mri.saved import Arrays, dtype_of, read_folder, same_measurement, write_folder
from darwin_lab.statistics.bootstrap import bootstrap_mean

Floats = NDArray[np.float64]

MEASURES = ("skip", "influence", "loss", "kl")
"""skip: 1 - cos of the final hidden state without the layer. influence: 1 - cos(layer input, output). loss: rise in
NLL (nats a token) without the layer. kl: KL of the next-token distribution without the layer (nats)."""
DECISIVE = "loss"
"""The measure that decisions use; cosine saturates."""
HALVES = ("attn", "ffn")
"""The two halves of a layer whose additions to the stream can be left out one at a time."""
HALF_MEASURES = ("skip", "loss", "kl")
"""What is measured of a half; influence needs a layer's own input and output."""


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
    """probe -> {"token_entropy" [M] nats, "mean_p" [M, E], "saliency" [M, E], "output_similarity" [M],
    "similarity_tokens" [1]}; empty without experts, and without the last three in older scans."""
    halves: dict[str, dict[str, dict[str, NDArray[np.float32]]]] = field(default_factory=dict)
    """half -> measure -> probe -> [n, L], NaN where a layer has no such half; empty unless it was asked for."""
    halves_note: str = ""
    """Which layers have no such half, in words."""
    centroids: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """probe -> [L, H] each layer's output, mean over the probe's tokens; empty in older scans."""

    @property
    def has_halves(self) -> bool:
        """Whether attention and FFN halves were measured on every probe."""
        return all(
            probe in self.halves.get(half, {}).get(measure, {})
            for half in HALVES
            for measure in HALF_MEASURES
            for probe in self.probes
        )

    @property
    def dtype(self) -> str:
        """The numbers it was computed in."""
        return dtype_of(self.settings)

    @property
    def has_centroids(self) -> bool:
        """Whether mean activations were kept of every probe; older scans have none."""
        return all(probe in self.centroids for probe in self.probes)

    @property
    def tokens(self) -> dict[str, int]:
        """Real tokens read, by probe."""
        return {probe: int(self.lengths[probe].sum()) for probe in self.probes}

    @property
    def texts(self) -> dict[str, int]:
        """Texts read, by probe."""
        return {probe: len(self.lengths[probe]) for probe in self.probes}

    @property
    def cut_words(self) -> str:
        """Which probes hold texts that reach the most tokens a text is read to; empty when none does."""
        most = self.settings.get("max_tokens", np.inf)
        reached = {probe: int((self.lengths[probe] >= most).sum()) for probe in self.probes}
        named = ", ".join(f"{probe} {count}" for probe, count in reached.items() if count)
        return f"texts that reach {most} tokens, beyond which nothing is read: {named}" if named else ""

    def weights(self, measure: str, probe: str) -> Floats:
        """[n] what a text counts: its tokens, or the tokens it predicts for `loss`, `kl` and `nll`."""
        tokens = self.lengths[probe].astype(np.float64)
        return tokens if measure in ("skip", "influence") else tokens - 1

    def importance(self, measure: str, half: str | None = None) -> dict[str, Floats]:
        """Probe -> [L] token-weighted mean over texts; with `half` ("attn", "ffn") of what that half alone adds.

        NaN where a layer has no such half. Raises `LabError` for an unknown measure, and for halves not measured.
        """
        return {probe: self._summary(measure, probe, half)[0] for probe in self.probes}

    def interval(self, measure: str, probe: str, half: str | None = None) -> Floats:
        """[L, 2] bootstrap 95 % interval over texts (NaN with a single text)."""
        _, low, high, _ = self._summary(measure, probe, half)
        return np.stack([low, high], axis=-1)

    def error(self, measure: str, probe: str, half: str | None = None) -> Floats:
        """[L] bootstrap standard error over texts (NaN with a single text)."""
        return self._summary(measure, probe, half)[3]

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
    def _cache(self) -> dict[tuple[str, str, str | None], tuple[Floats, Floats, Floats, Floats]]:
        return {}

    def _summary(self, measure: str, probe: str, half: str | None) -> tuple[Floats, Floats, Floats, Floats]:
        if (measure, probe, half) not in self._cache:
            values = self._values(measure, probe, half)
            self._cache[measure, probe, half] = bootstrap_mean(values, self.weights(measure, probe))
        return self._cache[measure, probe, half]

    def _values(self, measure: str, probe: str, half: str | None) -> NDArray[np.float32]:
        """[n, L] per text."""
        known = MEASURES if half is None else HALF_MEASURES
        if measure not in known:
            raise LabError(f"no measure named {measure}; choose one of {', '.join(known)}")
        if probe not in self.probes:
            raise LabError(f"the scan of {self.model} holds no probe {probe}; it holds {', '.join(self.probes)}")
        if half is None:
            return self.per_text[measure][probe]
        if half not in HALVES:
            raise LabError(f"no half named {half}; choose {' or '.join(HALVES)}")
        if probe not in self.halves.get(half, {}).get(measure, {}):
            raise LabError(f"the scan of {self.model} holds no halves of probe {probe}; scan it again with halves")
        return self.halves[half][measure][probe]

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
            "halves": self._halves_json() if self.has_halves else None,
            "experts": None if report is None else report.to_json(),
            "tokens": self.tokens,
            "texts": self.texts,
        }

    def _halves_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"note": self.halves_note}
        for half in HALVES:
            importance = {m: self.importance(m, half) for m in HALF_MEASURES}
            found[half] = {
                "importance": {m: {p: _nullable(v) for p, v in by_probe.items()} for m, by_probe in importance.items()},
                "interval": {m: {p: _nullable(self.interval(m, p, half)) for p in self.probes} for m in HALF_MEASURES},
            }
        return found

    def save(self, folder: str | Path) -> Path:
        """Write `scan.json` and `scan.safetensors` into `folder`, atomically. Raises `LabError`."""
        arrays: dict[str, NDArray[Any]] = {}
        for probe in self.probes:
            arrays[f"lengths/{probe}"] = self.lengths[probe]
            arrays[f"nll/{probe}"] = self.nll[probe]
            if probe in self.centroids:
                arrays[f"centroid/{probe}"] = self.centroids[probe]
            for measure in MEASURES:
                arrays[f"per_text/{measure}/{probe}"] = self.per_text[measure][probe]
            if self.moe_layers:
                arrays[f"counts/{probe}"] = self.counts[probe]
                for name, values in self.router[probe].items():
                    arrays[f"router/{name}/{probe}"] = values
            for half, measures in self.halves.items():
                arrays |= {f"halves/{half}/{m}/{probe}": v[probe] for m, v in measures.items() if probe in v}
        shape = {
            "experts_per_layer": self.experts,
            "top_k": self.top_k,
            "moe_layers": list(self.moe_layers),
            "probes": list(self.probes),
            "halves_note": self.halves_note,
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
                router={p: _router_of(arrays, p) for p in probes} if moe else {},
                halves=_halves_of(arrays, probes),
                halves_note=words.get("halves_note", ""),
                centroids={p: arrays[f"centroid/{p}"] for p in probes if f"centroid/{p}" in arrays},
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
        halves=_merged_halves(scans),
        halves_note=next((scan.halves_note for scan in scans if scan.halves_note), ""),
        centroids={p: v for scan in scans for p, v in scan.centroids.items()},
    )


def _merged_halves(scans: Sequence[Scan]) -> dict[str, dict[str, dict[str, NDArray[np.float32]]]]:
    if not any(scan.halves for scan in scans):
        return {}
    return {
        half: {
            measure: {p: v for scan in scans for p, v in scan.halves.get(half, {}).get(measure, {}).items()}
            for measure in HALF_MEASURES
        }
        for half in HALVES
    }


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


def _router_of(arrays: Arrays, probe: str) -> dict[str, NDArray[np.float32]]:
    """What was kept of the routers on one probe; older scans lack what was not measured then."""
    found = {name: arrays[f"router/{name}/{probe}"] for name in ("token_entropy", "mean_p")}
    later = ("saliency", "output_similarity", "similarity_tokens")
    return found | {name: arrays[f"router/{name}/{probe}"] for name in later if f"router/{name}/{probe}" in arrays}


def _halves_of(arrays: Arrays, probes: Sequence[str]) -> dict[str, dict[str, dict[str, NDArray[np.float32]]]]:
    found = {
        half: {
            measure: {p: arrays[name] for p in probes if (name := f"halves/{half}/{measure}/{p}") in arrays}
            for measure in HALF_MEASURES
        }
        for half in HALVES
    }
    return found if any(name.startswith("halves/") for name in arrays) else {}


def _nullable(values: Floats) -> list[Any]:
    """As lists, NaN as null."""
    if values.ndim > 1:
        return [_nullable(row) for row in values]
    return [float(value) if np.isfinite(value) else None for value in values]
