"""Kept scans: named copies that stay when parents, probes or settings change, can be shared as a file and compared.

A desk of the lab. Takes scans of a pair, or a file somebody shared; gives them back by id. A shared file is trusted in
nothing: it is unpacked by known names within known sizes, and every array is checked before it is kept.
"""

import json
import re
import shutil
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darwin_lab.errors import LabError
from darwin_lab.lab import scanning
from darwin_lab.lab.memory import FLOAT32
from darwin_lab.lab.pairs import Pair
from darwin_lab.lab.shared_files import pack, unpack
from darwin_lab.lab.workbench import Workbench

if TYPE_CHECKING:
    from darwin_lab.mri.advantage import AdvantageMap
    from darwin_lab.mri.scan import Scan

MOST_KEPT = 200
LONGEST_NAME = 80
MOST_LAYERS = 1000
MOST_TEXTS = 10_000
"""Of a probe in a scan from elsewhere; every resample of its intervals holds a number for each."""
MOST_TOKENS = 10_000_000
"""Of one text in a scan from elsewhere."""
MOST_NUMBER = 1e9
"""No loss, divergence or norm of a working model is larger."""
ROUNDING = 1e-3
_ABOUT = "about.json"
_PEOPLE = ("father", "mother")


@dataclass(frozen=True)
class SavedScan:
    """What is known of a kept scan without opening it; `created` in seconds since 1970, `tokens` of all probes."""

    id: str
    name: str
    created: float
    model: str
    fingerprint: str
    probes: tuple[str, ...]
    tokens: int
    layers: int
    halves: bool
    dtype: str = FLOAT32


class SavedScans:
    """The desk; methods may be called from any thread and raise LabError in one line."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._home = bench.store.home / "saved"

    def keep(self, pair: Pair, who: str, name: str) -> SavedScan:
        """Keep the whole scan of "father", "mother" or a child (its recipe hash) under a name of its own."""
        scan = scanning.newest(self._bench, pair, who)
        if scan is None or not scanning.complete(self._bench, pair, who):
            whose = f"the {who}" if who in _PEOPLE else f"child {who}"
            raise LabError(f"the scan of {whose} is not finished; scan it, then keep it")
        return self._keep(scan, self._new_name(name))

    def list(self) -> list[SavedScan]:
        """What is kept, newest first."""
        found = [about for folder in self._home.glob("[!.]*") if (about := _about(folder)) is not None]
        return sorted(found, key=lambda about: (about.created, about.id), reverse=True)

    def get(self, scan_id: str) -> SavedScan:
        """One kept scan. LabError when it is not there."""
        about = _about(self._folder(scan_id))
        if about is None:
            raise LabError("there is no kept scan with that id; choose one from the list")
        return about

    def scan(self, scan_id: str) -> "Scan":
        """The kept scan itself."""
        from darwin_lab.mri.scan import Scan

        self.get(scan_id)
        return Scan.load(self._folder(scan_id))

    def rename(self, scan_id: str, name: str) -> SavedScan:
        """Give it another name."""
        about = self.get(scan_id)
        if name.strip() == about.name:
            return about
        renamed = SavedScan(**{**asdict(about), "name": self._new_name(name)})
        _write_about(self._folder(scan_id), renamed)
        return renamed

    def forget(self, scan_id: str) -> None:
        """Delete it, and the file it was shared as."""
        self.get(scan_id)
        shutil.rmtree(self._folder(scan_id), ignore_errors=True)
        shutil.rmtree(self._shared(scan_id), ignore_errors=True)

    def share(self, scan_id: str) -> Path:
        """One .zip file that `take` reads, here or elsewhere. LabError when it would be larger than 50 MB."""
        about, folder = self.get(scan_id), self._folder(scan_id)
        stem = re.sub(r"[^\w.-]+", "-", about.name).strip("-.") or "scan"
        target = self._shared(scan_id) / f"{stem}.scan.zip"
        if not target.exists():
            shutil.rmtree(self._shared(scan_id), ignore_errors=True)
            pack(folder, ("scan.json", "scan.safetensors"), target, {"name": about.name})
        return target

    def take(self, path: str | Path, name: str | None = None) -> SavedScan:
        """Keep what somebody shared, a .zip of `share`, or a folder that the shell's `scan --out` wrote.

        The name is the one it was shared under, or `name`. LabError for anything else, and nothing stays behind.
        """
        from darwin_lab.mri.scan import Scan

        path = Path(path)
        partial = self._home / f".{self._bench.store.new_id()}.partial"
        try:
            partial.mkdir(parents=True)
            told = unpack(path, partial, ("scan.json", "scan.safetensors"))
            try:
                scan = Scan.load(partial)
                _require_sound(scan)
            except LabError as error:
                reason = str(error).replace(f"{partial} ", "").split("; delete it")[0]
                raise LabError(f"{path.name} is no sound scan ({_clipped(reason)}); share it again") from None
            except Exception as error:
                raise LabError(
                    f"{path.name} is no sound scan ({type(error).__name__} in scan.json); share it again"
                ) from error
            wanted = name or (told.get("name") if isinstance(told.get("name"), str) else None) or scan.model
            return self._keep(scan, self._free_name(wanted))
        except OSError as error:
            raise LabError(f"cannot keep {path.name} ({error.strerror or error}); free some space") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def comparison(self, pair: Pair | None, a: str, b: str, measure: str = "loss") -> "AdvantageMap":
        """Where two scans differ, a minus b: "father" and "mother" of the pair, a recipe hash, or ids of kept scans.

        Paired over texts with the bound over all cells (max-T), so both must have read the same probe texts. LabError
        in words where they cannot be compared.
        """
        from darwin_lab.mri.advantage import advantage

        one, other = self._named(pair, a), self._named(pair, b)
        _require_comparable(one, other)
        return advantage(one[1], other[1], measure)

    # ------------------------------------------------------------------------------------------------ inside

    def _keep(self, scan: "Scan", name: str) -> SavedScan:
        if len(self.list()) >= MOST_KEPT:
            raise LabError(f"{MOST_KEPT} scans are kept already; delete one first")
        about = SavedScan(
            self._bench.store.new_id(), name, time.time(), scan.model, scan.fingerprint, scan.probes,
            sum(scan.tokens.values()), scan.layers, scan.has_halves, scan.dtype,
        )  # fmt: skip
        partial = self._home / f".{about.id}.partial"
        try:
            scan.save(partial)
            _write_about(partial, about)
            partial.rename(self._folder(about.id))
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return about

    def _named(self, pair: Pair | None, who: str) -> "tuple[str, Scan]":
        """(what it is called, the scan)."""
        if any(about.id == who for about in self.list()):
            return f"“{self.get(who).name}”", self.scan(who)
        scan = scanning.newest(self._bench, pair, who) if pair is not None else None
        called = f"the {who}" if who in _PEOPLE else f"child {who}"
        if scan is None:
            raise LabError(f"there is no scan of {called} to compare with; scan it, or choose a kept scan")
        return called, scan

    def _folder(self, scan_id: str) -> Path:
        if not self._bench.store.is_id(scan_id):
            raise LabError("that is not the id of a kept scan; choose one from the list")
        return self._home / scan_id

    def _shared(self, scan_id: str) -> Path:
        return self._bench.store.home / "shared" / scan_id

    def _new_name(self, name: str) -> str:
        """The name, fit to be shown and not taken yet."""
        name = " ".join(str(name).split())
        if not name:
            raise LabError("a kept scan needs a name; type one")
        if len(name) > LONGEST_NAME or not name.isprintable():
            raise LabError(f"that name cannot be shown; use up to {LONGEST_NAME} printed characters")
        if any(about.name == name for about in self.list()):
            raise LabError(f"a scan is kept as {name} already; choose another name")
        return name

    def _free_name(self, name: str) -> str:
        """The name as far as it can be shown, with a number where it is taken."""
        stem = "".join(letter for letter in " ".join(name.split()) if letter.isprintable())[: LONGEST_NAME - 6]
        taken = {about.name for about in self.list()}
        numbered = [stem or "scan", *(f"{stem or 'scan'} ({number})" for number in range(2, MOST_KEPT + 2))]
        return next(one for one in numbered if one not in taken)


def _about(folder: Path) -> SavedScan | None:
    """What lies beside a kept scan; None for whatever is none."""
    try:
        row = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        return SavedScan(**{**row, "probes": tuple(row["probes"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _write_about(folder: Path, about: SavedScan) -> None:
    partial = folder / f".{_ABOUT}.partial"
    partial.write_text(json.dumps(asdict(about), ensure_ascii=False), encoding="utf-8")
    partial.replace(folder / _ABOUT)


def _require_comparable(one: "tuple[str, Scan]", other: "tuple[str, Scan]") -> None:
    """LabError naming the first thing that keeps two scans from being compared text by text."""
    (a, first), (b, second) = one, other
    for what, mine, theirs in (
        ("layers", first.layers, second.layers),
        ("experts", first.experts, second.experts),
        ("layers with experts", len(first.moe_layers), len(second.moe_layers)),
    ):
        if mine != theirs:
            raise LabError(f"{a} has {mine} {what}, {b} has {theirs}: cells would not mean the same; choose another")
    if first.probes_hash != second.probes_hash:
        raise LabError(f"{a} and {b} read different probe texts, so nothing pairs; scan both with the same probes")
    if first.dtype != second.dtype:
        raise LabError(f"{a} was scanned in {first.dtype}, {b} in {second.dtype}; scan both in the same precision")
    if first.settings != second.settings:
        raise LabError(f"{a} and {b} were measured with different settings; scan both again")


def _require_sound(scan: "Scan") -> None:
    """LabError unless every array of a scan from elsewhere has the shape and the numbers it must have."""
    from darwin_lab.mri.scan import MEASURES

    _require(type(scan.layers) is int and 0 < scan.layers <= MOST_LAYERS, "its number of layers is none")
    _require(0 < len(scan.probes) <= 1000, "it holds no probes")
    words = all(_is_words(word) for word in (scan.model, scan.fingerprint, scan.probes_hash, *scan.probes))
    _require(words and _is_words(scan.halves_note, 10_000), "its names are no words")
    _require(len(set(scan.probes)) == len(scan.probes), "it holds a probe twice")
    settings = isinstance(scan.settings, dict) and len(scan.settings) <= 100
    _require(settings and all(map(_is_setting, (*scan.settings, *scan.settings.values()))), "its settings are none")
    _require_experts(scan)
    for probe in scan.probes:
        lengths = scan.lengths[probe]
        _require(lengths.ndim == 1 and len(lengths) > 0 and lengths.dtype.kind in "iu", f"{probe} has no texts")
        _require(len(lengths) <= MOST_TEXTS, f"{probe} has more than {MOST_TEXTS:,} texts")
        _require(int(lengths.min()) >= 2, f"a text of {probe} has fewer than two tokens")
        _require(int(lengths.max()) <= MOST_TOKENS, f"a text of {probe} has more than {MOST_TOKENS:,} tokens")
        texts = len(lengths)
        _require_numbers(scan.nll[probe], (texts,), f"the losses of {probe}")
        for measure in MEASURES:
            _require_numbers(scan.per_text[measure][probe], (texts, scan.layers), f"{measure} of {probe}")
        for half, measures in scan.halves.items():
            for measure, by_probe in measures.items():
                if probe in by_probe:
                    _require_numbers(by_probe[probe], (texts, scan.layers), f"{half} {measure} of {probe}", gaps=True)
        if scan.moe_layers:
            _require_routing(scan, probe)
    scan.to_json()  # what keeping it will compute


def _require_experts(scan: "Scan") -> None:
    layers = scan.moe_layers
    shapes = all(type(size) is int and size >= 0 for size in (scan.experts, scan.top_k, *layers))
    _require(shapes and all(layer < scan.layers for layer in layers), "its experts are none")
    _require(all(one < other for one, other in pairwise(layers)), "its layers with experts are in no order")
    fitting = 1 <= scan.top_k <= scan.experts if layers else scan.experts == scan.top_k == 0
    _require(fitting, "its experts a token do not fit its experts")


def _require_routing(scan: "Scan", probe: str) -> None:
    """Counts that every token of every layer adds up to, and router numbers that can be."""
    import numpy as np

    lengths, counts, router = scan.lengths[probe].astype(np.int64), scan.counts[probe], scan.router[probe]
    moe, experts = len(scan.moe_layers), scan.experts
    _require(counts.dtype.kind in "iu" and counts.shape == (len(lengths), moe, experts), f"counts of {probe}")
    _require(int(counts.min()) >= 0, f"counts of {probe} below zero")
    told = bool((counts <= lengths[:, None, None]).all())
    told = told and bool((counts.sum(-1, dtype=np.int64) == scan.top_k * lengths[:, None]).all())
    _require(told, f"counts of {probe} do not add up to its tokens")
    shapes = {"token_entropy": (moe,), "output_similarity": (moe,), "similarity_tokens": (1,)}
    for name, values in router.items():
        single = name == "output_similarity" and experts == 1  # nothing to compare
        _require_numbers(values, shapes.get(name, (moe, experts)), f"{name} of {probe}", gaps=single)
    share = router["mean_p"]
    _require(bool(((share >= 0) & (share <= 1 + ROUNDING)).all()), f"mean_p of {probe} is no probability")
    if "output_similarity" in router:
        alike, sampled = router["output_similarity"], router.get("similarity_tokens")
        _require(not bool((abs(alike) > 1 + ROUNDING).any()), f"output_similarity of {probe} is no cosine")
        measured = sampled is not None and 1 <= float(sampled[0]) <= int(lengths.sum())
        _require(measured, f"similarity_tokens of {probe} is no number of tokens")


def _is_words(word: Any, most: int = 500) -> bool:
    """Whether it is text that a file can hold: no half of a surrogate pair."""
    return isinstance(word, str) and len(word) <= most and not re.search("[\ud800-\udfff]", word)


def _is_setting(value: Any) -> bool:
    return value is None or _is_words(value) or (isinstance(value, int | float) and abs(value) <= MOST_NUMBER)


def _require_numbers(values: Any, shape: tuple[int, ...], what: str, *, gaps: bool = False) -> None:
    import numpy as np

    _require(values.dtype.kind in "fiu" and values.shape == shape, f"{what} has another shape")
    finite = np.isfinite(values) | np.isnan(values) if gaps else np.isfinite(values)
    _require(bool(finite.all()), f"{what} not finite")
    far = (values > MOST_NUMBER) | (values < -MOST_NUMBER)
    _require(not bool(far.any()), f"{what} beyond {MOST_NUMBER:g}")


def _require(held: bool, words: str) -> None:
    if not held:
        raise LabError(words)


def _clipped(words: str) -> str:
    first = (words.strip().splitlines() or [""])[0]
    return first if len(first) <= 120 else f"{first[:119]}…"
