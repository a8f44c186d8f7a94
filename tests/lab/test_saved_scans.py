"""Kept scans: they outlive what they were made of, travel as one file, and can be compared."""

import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from darwin_lab.errors import LabError
from darwin_lab.lab import saved_scans, shared_files
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.mri.advantage import advantage
from tests.lab.kept_scans import left_behind
from tests.mri.made_scans import made_scan

Trio = tuple[Path, Path, Path]

pytestmark = pytest.mark.usefixtures("nothing_kept")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Any:
    lab = Lab(tmp_path_factory.mktemp("home"), cpus=1)
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def pair(lab: Lab, tiny_moe_pair: Trio, measures: dict[str, Any]) -> Pair:
    pair = lab.open_pair(*tiny_moe_pair, **measures)
    for job in lab.request_scan(pair):
        lab.wait(job)
    return pair


def same(one: Any, other: Any) -> None:
    assert one.to_json() == other.to_json()
    for measure in one.per_text:
        for probe in one.probes:
            np.testing.assert_array_equal(one.per_text[measure][probe], other.per_text[measure][probe])
    for probe in one.counts:
        np.testing.assert_array_equal(one.counts[probe], other.counts[probe])


def test_a_kept_scan_is_what_was_scanned_and_says_what_it_is(lab: Lab, pair: Pair) -> None:
    about = lab.saved.keep(pair, "mother", "  before   the fix ")
    scan = lab.scan(pair, "mother")
    assert about.name == "before the fix"
    assert (about.model, about.fingerprint) == (scan.model, pair.mother.fingerprint)
    assert (about.probes, about.layers, about.halves) == (("MATH", "NEUTRAL"), 4, False)
    assert about.tokens == sum(scan.tokens.values())
    assert lab.saved.list() == [about] == [lab.saved.get(about.id)]
    same(lab.saved.scan(about.id), scan)


def test_a_kept_scan_stays_when_the_pair_is_scanned_anew_and_is_there_for_a_later_lab(
    new_lab: Any, tiny_llama_pair: Trio, measures: dict[str, Any]
) -> None:
    lab = new_lab()
    pair = lab.open_pair(*tiny_llama_pair, **measures)
    lab.wait(lab.request_scan(pair)[0])
    about, scan = lab.saved.keep(pair, "father", "first"), lab.scan(pair, "father")
    for job in lab.active_jobs():
        lab.cancel(job.id)
    for job in lab.request_scan(pair, again=True):
        lab.cancel(job)
    same(lab.saved.scan(about.id), scan)
    assert new_lab().saved.list() == [about]


def test_the_newest_comes_first_and_names_can_be_changed_but_not_shared(lab: Lab, pair: Pair) -> None:
    first, second = (lab.saved.keep(pair, who, who) for who in ("father", "mother"))
    assert [about.name for about in lab.saved.list()] == ["mother", "father"]
    renamed = lab.saved.rename(first.id, "dad")
    assert renamed == replace(first, name="dad")
    assert lab.saved.get(first.id) == renamed
    assert lab.saved.rename(first.id, "dad") == renamed
    with pytest.raises(LabError, match="a scan is kept as mother already"):
        lab.saved.rename(first.id, "mother")
    lab.saved.forget(second.id)
    assert [about.id for about in lab.saved.list()] == [first.id]
    assert left_behind(lab) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [("", "needs a name"), (" \n ", "needs a name"), ("x" * 81, "cannot be shown"), ("a\0b", "shown")],
)
def test_a_name_that_cannot_be_shown_is_refused(lab: Lab, pair: Pair, name: str, words: str) -> None:
    with pytest.raises(LabError, match=words):
        lab.saved.keep(pair, "father", name)
    assert lab.saved.list() == []


def test_what_is_not_scanned_whole_cannot_be_kept(lab: Lab, pair: Pair) -> None:
    with pytest.raises(LabError, match="the scan of child aaaaaaaaaaaa is not finished"):
        lab.saved.keep(pair, "a" * 12, "child")
    other = lab.with_probes(pair, "TEA: at four")
    with pytest.raises(LabError, match="the scan of the father is not finished"):
        lab.saved.keep(other, "father", "tea")


def test_what_a_killed_process_left_half_kept_is_not_listed(lab: Lab, pair: Pair) -> None:
    about = lab.saved.keep(pair, "father", "whole")
    home = lab.store.home / "saved"
    shutil.copytree(home / about.id, home / ".0123456789ab.partial")
    assert lab.saved.list() == [about]
    shutil.rmtree(home / ".0123456789ab.partial")


@pytest.mark.parametrize("scan_id", ["../../etc", "", "0" * 12, "A" * 12])
def test_an_id_that_is_none_reaches_no_file(lab: Lab, pair: Pair, scan_id: str) -> None:
    for ask in (lab.saved.get, lab.saved.scan, lab.saved.share, lab.saved.forget):
        with pytest.raises(LabError, match="kept scan"):
            ask(scan_id)
    with pytest.raises(LabError, match="kept scan"):
        lab.saved.rename(scan_id, "x")


def test_a_shared_file_arrives_whole_under_its_name(lab: Lab, pair: Pair, new_lab: Any) -> None:
    about = lab.saved.keep(pair, "father", "Dad's / best: scan")
    path = lab.saved.share(about.id)
    assert path.name == "Dad-s-best-scan.scan.zip"
    with zipfile.ZipFile(path) as archive:
        assert set(archive.namelist()) == {"scan.json", "scan.safetensors", "about.json"}
    other = new_lab()
    taken = other.saved.take(path)
    assert (taken.name, taken.model, taken.tokens) == (about.name, about.model, about.tokens)
    assert taken.id != about.id
    same(other.saved.scan(taken.id), lab.scan(pair, "father"))
    assert other.saved.take(path).name == f"{about.name} (2)"
    assert left_behind(other) == []


def test_a_shared_file_follows_the_name_and_goes_with_the_scan(lab: Lab, pair: Pair) -> None:
    about = lab.saved.keep(pair, "father", "old")
    before = lab.saved.share(about.id)
    lab.saved.rename(about.id, "new")
    after = lab.saved.share(about.id)
    assert after.name == "new.scan.zip"
    assert not before.exists()
    lab.saved.forget(about.id)
    assert not after.exists()


def test_a_scan_too_large_to_share_says_so_and_leaves_no_file(
    lab: Lab, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = lab.saved.keep(pair, "father", "large")
    monkeypatch.setattr(shared_files, "MOST_SHARED_BYTES", 1000)
    with pytest.raises(LabError, match=r"would take 0 MB; files up to 0 MB are shared, so copy the folder .*saved"):
        lab.saved.share(about.id)
    assert list((lab.store.home / "shared" / about.id).glob("*")) == []


def test_a_folder_of_the_shell_is_taken_too(lab: Lab, pair: Pair, tmp_path: Path) -> None:
    lab.scan(pair, "father").save(tmp_path / "out")
    taken = lab.saved.take(tmp_path / "out", "from the shell")
    assert taken.name == "from the shell"
    same(lab.saved.scan(taken.id), lab.scan(pair, "father"))


def test_there_is_an_end_to_what_is_kept(lab: Lab, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_scans, "MOST_KEPT", 1)
    lab.saved.keep(pair, "father", "one")
    with pytest.raises(LabError, match="1 scans are kept already; delete one first"):
        lab.saved.keep(pair, "mother", "two")


def test_two_scans_are_compared_like_father_and_mother(lab: Lab, pair: Pair) -> None:
    kept = {who: lab.saved.keep(pair, who, f"old {who}").id for who in ("father", "mother")}
    wanted = advantage(lab.scan(pair, "father"), lab.scan(pair, "mother"), "loss")
    for a, b in (("father", "mother"), (kept["father"], kept["mother"]), (kept["father"], "mother")):
        found = lab.saved.comparison(pair, a, b)
        np.testing.assert_array_equal(found.values, wanted.values)
        np.testing.assert_array_equal(found.different, wanted.different)
        assert found.probes == wanted.probes
    assert lab.saved.comparison(None, kept["father"], kept["mother"], "skip").measure == "skip"


def test_a_scan_compared_with_itself_differs_nowhere(lab: Lab, pair: Pair) -> None:
    kept = lab.saved.keep(pair, "father", "father then").id
    found = lab.saved.comparison(pair, "father", kept)
    assert not found.values.any()
    assert not found.different.any()


def test_scans_that_cannot_be_compared_are_told_apart_in_words(lab: Lab, pair: Pair, tmp_path: Path) -> None:
    def taken(name: str, **changes: Any) -> str:
        scan = replace(lab.scan(pair, "father"), **changes)
        scan.save(tmp_path / name)
        return lab.saved.take(tmp_path / name, name).id

    made_scan(name="dense", moe=False, tokens=20).save(tmp_path / "dense")
    cases = {
        taken("other probes", probes_hash="f" * 16): "read different probe texts, so nothing pairs; scan both with the",
        taken("other settings", settings={"version": 1, "max_tokens": 64}): "were measured with different settings",
        lab.saved.take(
            tmp_path / "dense", "dense"
        ).id: "the father has 8 experts, “dense” has 0: cells would not mean the same",
        "b" * 12: "there is no scan of child bbbbbbbbbbbb to compare with",
    }
    for scan_id, words in cases.items():
        with pytest.raises(LabError, match=words) as raised:
            lab.saved.comparison(pair, "father", scan_id)
        assert "\n" not in str(raised.value)
