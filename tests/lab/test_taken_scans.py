"""Scans from strangers: refused in one line where they are not sound, taken where they are; nothing stays."""

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from darwin_lab.errors import LabError
from darwin_lab.lab import saved_scans, shared_files
from darwin_lab.lab.lab import Lab
from darwin_lab.mri.record import HALF_MEASURES, HALVES
from tests.lab.kept_scans import left_behind
from tests.mri.made_scans import EXPERTS, LAYERS, TEXTS, made_scan

pytestmark = pytest.mark.usefixtures("nothing_kept")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Any:
    lab = Lab(tmp_path_factory.mktemp("home"), cpus=1)
    yield lab
    lab.close()


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The two files of a good scan, with all that is measured of experts."""
    scan = made_scan()
    later = {
        "saliency": np.ones((LAYERS, EXPERTS), np.float32),
        "output_similarity": np.full(LAYERS, 0.1, np.float32),
        "similarity_tokens": np.full(1, 8, np.float32),
    }
    scan = replace(scan, router={probe: found | later for probe, found in scan.router.items()})
    folder = scan.save(tmp_path_factory.mktemp("good") / "scan")
    return {name: (folder / name).read_bytes() for name in ("scan.json", "scan.safetensors")}


def test_the_file_that_is_damaged_here_is_sound_itself(lab: Lab, parts: dict[str, bytes], tmp_path: Path) -> None:
    taken = lab.saved.take(zipped(tmp_path / "good.zip", parts))
    assert (taken.name, taken.layers, taken.tokens) == ("father", LAYERS, 3 * TEXTS * 100)


Damage = Callable[[dict[str, bytes]], dict[str, bytes]]


def with_json(**changes: Any) -> Damage:
    def damage(parts: dict[str, bytes]) -> dict[str, bytes]:
        return {**parts, "scan.json": json.dumps({**json.loads(parts["scan.json"]), **changes}).encode()}

    return damage


def with_arrays(change: Callable[[dict[str, Any]], Any], tmp: list[Path]) -> Damage:
    def damage(parts: dict[str, bytes]) -> dict[str, bytes]:
        path = tmp[0] / "arrays.safetensors"
        path.write_bytes(parts["scan.safetensors"])
        arrays = load_file(path)
        change(arrays)
        save_file(arrays, path)
        return {**parts, "scan.safetensors": path.read_bytes()}

    return damage


def times(values: Any, factor: int) -> None:
    values *= factor


TMP: list[Path] = [Path()]
NAN = float("nan")
HOSTILE: dict[str, tuple[Damage, str]] = {
    "a path upwards": (lambda parts: {**parts, "../../evil.txt": b"x"}, "which is no part of a shared file"),
    "an absolute path": (lambda parts: {**parts, "/etc/evil": b"x"}, "which is no part"),
    "a backslash path": (lambda parts: {**parts, "..\\evil": b"x"}, "which is no part"),
    "a folder": (lambda parts: {**parts, "scan/": b""}, "which is no part"),
    "a stranger": (lambda parts: {**parts, "model.pkl": b"x"}, "which is no part"),
    "no arrays": (lambda parts: {"scan.json": parts["scan.json"]}, "has no scan.safetensors"),
    "no words": (lambda parts: {"scan.safetensors": parts["scan.safetensors"]}, "has no scan.json"),
    "words that are none": (lambda parts: {**parts, "scan.json": b"\xff\xfe{"}, "is no sound scan"),
    "words nested deeply": (lambda parts: {**parts, "scan.json": b"[" * 100_000}, "is no sound scan"),
    "arrays that are none": (lambda parts: {**parts, "scan.safetensors": b"\x80\x04."}, "is no sound scan"),
    "a list for words": (lambda parts: {**parts, "scan.json": b"[1, 2]"}, "is no sound scan"),
    "layers that are words": (with_json(layers="four"), "number of layers is none"),
    "endless layers": (with_json(layers=10**12), "number of layers is none"),
    "other layers": (with_json(layers=5), "has another shape"),
    "probes that are none": (with_json(probes=5), "is no sound scan"),
    "no probes": (with_json(probes=[]), "holds no probes"),
    "a probe without arrays": (with_json(probes=["MATH", "SECRET"]), "is no sound scan"),
    "a name that is none": (with_json(model=["x"]), "its names are no words"),
    "more experts": (with_json(experts_per_layer=9), "counts of MATH"),
    "experts beyond the layers": (with_json(moe_layers=[0, 1, 2, 99]), "its experts are none"),
    "settings that are none": (with_json(settings=3), "its settings are none"),
    "a missing array": (with_arrays(lambda a: a.pop("nll/MATH"), TMP), "is no sound scan"),
    "an array of words": (
        with_arrays(lambda a: a.update({"nll/MATH": np.zeros(a["nll/MATH"].shape, bool)}), TMP), "has another shape"),
    "an infinite number": (
        with_arrays(lambda a: a["per_text/loss/MATH"].fill(np.inf), TMP), "loss of MATH not finite"),
    "a number that is none": (with_arrays(lambda a: a["per_text/kl/MATH"].fill(NAN), TMP), "kl of MATH not finite"),
    "counts below zero": (with_arrays(lambda a: a["counts/MATH"].fill(-1), TMP), "counts of MATH below zero"),
    "texts of no tokens": (with_arrays(lambda a: a["lengths/MATH"].fill(0), TMP), "fewer than two tokens"),
    "no experts a token": (with_json(top_k=0), "experts a token do not fit"),
    "endless experts a token": (with_json(top_k=10**30), "experts a token do not fit"),
    "experts in no layer": (with_json(moe_layers=[]), "experts a token do not fit"),
    "a layer of experts twice": (with_json(moe_layers=[0, 1, 1, 2]), "layers with experts are in no order"),
    "layers of experts backwards": (with_json(moe_layers=[3, 2, 1, 0]), "layers with experts are in no order"),
    "layers of experts that are yes and no": (with_json(moe_layers=[False, True, 2, 3]), "its experts are none"),
    "a probe twice": (with_json(probes=["MATH", "MATH"]), "holds a probe twice"),
    "half a letter": (with_json(model="\ud800"), "its names are no words"),
    "half a letter in the settings": (with_json(settings={"dtype": "\udfff"}), "its settings are none"),
    "settings nested deeply": (with_json(settings={"a": [[[[]]]]}), "its settings are none"),
    "counts too large": (with_arrays(lambda a: times(a["counts/MATH"], 1000), TMP), "do not add up to its tokens"),
    "counts of nothing": (with_arrays(lambda a: times(a["counts/MATH"], 0), TMP), "do not add up to its tokens"),
    "endless texts": (with_arrays(lambda a: a.update({"lengths/MATH": np.full(TEXTS, 2**62)}), TMP), "10,000,000 to"),
    "too many texts": (
        with_arrays(lambda a: a.update({"lengths/MATH": np.full(10_001, 2, np.int8)}), TMP), "more than 10,000 texts"),
    "an endless loss": (
        with_arrays(lambda a: a.update({"nll/MATH": np.full(a["nll/MATH"].shape, 1e308)}), TMP), "beyond 1e"),
    "a probability below zero": (
        with_arrays(lambda a: times(a["router/mean_p/MATH"], -1), TMP), "mean_p of MATH is no probability"),
    "an entropy that is none": (
        with_arrays(lambda a: a["router/token_entropy/MATH"].fill(NAN), TMP), "token_entropy of MATH not finite"),
    "a cosine above one": (
        with_arrays(lambda a: a["router/output_similarity/MATH"].fill(2), TMP), "of MATH is no cosine"),
    "a similarity of no tokens": (
        with_arrays(lambda a: a["router/similarity_tokens/MATH"].fill(0), TMP), "of MATH is no number of tokens"),
    "a similarity of unknown tokens": (
        with_arrays(lambda a: a["router/similarity_tokens/MATH"].fill(NAN), TMP), "similarity_tokens of MATH not"),
    "a similarity without tokens": (
        with_arrays(lambda a: a.pop("router/similarity_tokens/MATH"), TMP), "of MATH is no number of tokens"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line_and_nothing_stays(
    lab: Lab, parts: dict[str, bytes], tmp_path: Path, what: str
) -> None:
    TMP[0] = tmp_path
    damage, words = HOSTILE[what]
    path = zipped(tmp_path / "shared.zip", damage(parts))
    before = sorted(lab.store.home.rglob("*"))
    with pytest.raises(LabError, match=words) as raised:
        lab.saved.take(path)
    assert "shared.zip" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert str(lab.store.home) not in str(raised.value)
    assert sorted(lab.store.home.rglob("*")) == before
    assert not (tmp_path / "evil.txt").exists()


def test_whatever_a_strangers_file_does_to_the_reading_is_one_line(
    lab: Lab, parts: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(_: Any) -> None:
        raise ZeroDivisionError("deep inside")

    monkeypatch.setattr(saved_scans, "_require_experts", breaks)
    with pytest.raises(LabError, match=r"shared\.zip is no sound scan \(ZeroDivisionError in scan\.json\); share it"):
        lab.saved.take(zipped(tmp_path / "shared.zip", parts))
    assert left_behind(lab) == []


@pytest.mark.parametrize("kind", ["dense", "older", "halves", "one expert"])
def test_an_honest_scan_of_another_kind_is_taken(lab: Lab, tmp_path: Path, kind: str) -> None:
    scan = made_scan(moe=kind != "dense")
    if kind == "halves":
        gaps = {probe: np.full((TEXTS, LAYERS), NAN, dtype=np.float32) for probe in scan.probes}
        halves = {half: dict.fromkeys(HALF_MEASURES, gaps) for half in HALVES}
        scan = replace(scan, halves=halves, halves_note="no attention half is told apart in layer 0, 1, 2, 3")
    if kind == "one expert":  # it has no other to be like
        entropy, whole = np.zeros(LAYERS, np.float32), np.ones((LAYERS, 1), np.float32)
        told = {"token_entropy": entropy, "mean_p": whole, "output_similarity": entropy * NAN}
        told["similarity_tokens"] = np.full(1, 8, np.float32)
        counts = {probe: np.full((TEXTS, LAYERS, 1), 100, np.int32) for probe in scan.probes}
        scan = replace(scan, experts=1, top_k=1, counts=counts, router=dict.fromkeys(scan.probes, told))
    taken = lab.saved.take(scan.save(tmp_path / "out"))
    assert (taken.layers, taken.halves) == (LAYERS, kind == "halves")
    assert json.dumps(lab.saved.scan(taken.id).to_json()) == json.dumps(scan.to_json())


def test_words_without_end_are_refused_before_they_are_read(
    lab: Lab, parts: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_files, "_copy", None)
    path = zipped(tmp_path / "spaces.zip", {**parts, "scan.json": b" " * 16_000_001})
    with pytest.raises(LabError, match=r"scan\.json in spaces\.zip is larger than 16 MB; nothing of it was kept"):
        lab.saved.take(path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "scan.json").write_bytes(b" " * 16_000_001)
    with pytest.raises(LabError, match=r"scan\.json in out is larger than 16 MB"):
        lab.saved.take(tmp_path / "out")
    assert left_behind(lab) == []


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_packing_that_unpacks_without_a_bound_is_refused(
    lab: Lab, parts: dict[str, bytes], tmp_path: Path, method: int
) -> None:
    with zipfile.ZipFile(tmp_path / "odd.zip", "w", method) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    with pytest.raises(LabError, match=r"odd\.zip is packed in an unknown way; share it again"):
        lab.saved.take(tmp_path / "odd.zip")


def test_a_zip_that_swells_is_refused_before_it_is_unpacked(
    lab: Lab, parts: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zipped(tmp_path / "bomb.zip", {**parts, "scan.safetensors": bytes(7_000_000)})
    monkeypatch.setattr(shared_files, "MOST_UNPACKED_BYTES", 6_000_000)
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(shared_files, "_copy", None)
    with pytest.raises(LabError, match=r"bomb\.zip unpacks to more than 6 MB"):
        lab.saved.take(path)


def test_what_is_no_zip_or_too_large_or_damaged_is_said(
    lab: Lab, parts: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "words.zip").write_text("hello")
    with pytest.raises(LabError, match=r"words\.zip is no zip file that can be read"):
        lab.saved.take(tmp_path / "words.zip")
    with pytest.raises(LabError, match="there is no file"):
        lab.saved.take(tmp_path / "nowhere.zip")
    with pytest.raises(LabError, match=r"has no scan\.json; give a folder that `scan --out` wrote"):
        lab.saved.take(tmp_path)
    damaged = zipped(tmp_path / "damaged.zip", parts)
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 0xFF
    damaged.write_bytes(data)
    with pytest.raises(LabError, match=r"damaged\.zip is no"):
        lab.saved.take(damaged)
    monkeypatch.setattr(shared_files, "MOST_SHARED_BYTES", 100)
    with pytest.raises(LabError, match="is larger than"):
        lab.saved.take(damaged)
    assert left_behind(lab) == []
