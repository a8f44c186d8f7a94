"""Scans of streamed models: the same numbers, in passes, spilled or taken up after a stop."""

import numpy as np
import pytest

from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.resident import Resident
from darwin_lab.engine.streamed import Streamed
from darwin_lab.errors import Cancelled
from darwin_lab.mri import scan as scanning
from darwin_lab.mri.keeper import Keeper
from darwin_lab.mri.probes import ProbeSet
from darwin_lab.mri.scan import scan_model, scan_settings
from tests.families import write_family_pair

PROBES = ProbeSet(
    {
        "MATH": ("1+1=2, 2+2=4", "question: 3+4? answer: 7.", "10+5=15"),
        "NEUTRAL": ("the cat sat on the mat", "it rained all day and we stayed in", "tea"),
    }
)


@pytest.fixture(scope="module", params=["gemma4_e", "qwen3_5_moe"])
def source(request, tmp_path_factory):
    """Shared keys and values in one family, linear attention and experts in the other."""
    return open_checkpoint(write_family_pair(request.param, tmp_path_factory.mktemp(request.param))[0])


@pytest.fixture(scope="module")
def whole(source):
    """The resident scan."""
    return scan_model(Resident.load(source), source, PROBES)


def same(one, other):
    assert one.probes == other.probes
    for probe in one.probes:
        assert np.array_equal(one.nll[probe], other.nll[probe])
        assert one.centroids[probe] == pytest.approx(other.centroids[probe], abs=1e-6)
        for measure in one.per_text:
            assert np.array_equal(one.per_text[measure][probe], other.per_text[measure][probe])
        if one.moe_layers:
            assert np.array_equal(one.counts[probe], other.counts[probe])
            assert np.array_equal(one.router[probe]["mean_p"], other.router[probe]["mean_p"])


def keeper_for(source, folder, every=0.0):
    key = {"fingerprint": source.fingerprint, "probes": PROBES.hash, "settings": scan_settings()}
    return Keeper(folder, key, every)


@pytest.mark.parametrize("overflow", ["passes", "spill"])
def test_a_streamed_scan_equals_the_resident_scan_and_reads_each_weight_once(source, whole, overflow):
    model = Streamed.open(source, overflow=overflow)
    same(scan_model(model, source, PROBES), whole)
    wanted = [name for name in source.names if model.place(name) is not None]
    assert model.bytes_read == sum(source.tensors[name].nbytes for name in wanted)


def test_states_beyond_memory_go_in_passes_that_read_the_weights_again(source, whole, monkeypatch):
    monkeypatch.setattr(scanning, "batch_tokens", lambda: 40)
    model, arrived = Streamed.open(source), []
    model.state_bytes = 1
    found = scan_model(model, source, PROBES, on_probe=arrived.append)
    for probe in PROBES.names:
        assert found.per_text["loss"][probe] == pytest.approx(whole.per_text["loss"][probe], abs=2e-5)
    wanted = [name for name in source.names if model.place(name) is not None]
    passes, rest = divmod(model.bytes_read, sum(source.tensors[name].nbytes for name in wanted))
    assert passes > 2
    assert rest == 0
    assert [scan.probes for scan in arrived] == [("MATH",), ("MATH", "NEUTRAL")]


def test_a_stopped_streamed_scan_goes_on_at_its_layer(source, whole, tmp_path):
    def stop(fraction, words):
        if "layer 3" in words:
            raise Cancelled

    with pytest.raises(Cancelled):
        scan_model(Streamed.open(source), source, PROBES, stop, keeper=keeper_for(source, tmp_path / "kept"))
    model, words = Streamed.open(source), []
    keeper = keeper_for(source, tmp_path / "kept")
    same(scan_model(model, source, PROBES, lambda fraction, word: words.append(word), keeper=keeper), whole)
    assert not any("layer 0 of" in word for word in words)
    early = [name for name in source.names if ".layers.0." in name and model.place(name) is not None]
    wanted = [name for name in source.names if model.place(name) is not None]
    assert early
    assert model.bytes_read <= sum(source.tensors[name].nbytes for name in wanted if name not in early)
    keeper.remove()
    assert not (tmp_path / "kept").exists()


def test_a_stopped_resident_scan_goes_on_at_its_probe(source, whole, tmp_path):
    resident = Resident.load(source)

    def stop(fraction, words):
        if "NEUTRAL" in words:
            raise Cancelled

    with pytest.raises(Cancelled):
        scan_model(resident, source, PROBES, stop, keeper=keeper_for(source, tmp_path / "kept"))
    words = []
    keeper = keeper_for(source, tmp_path / "kept")
    same(scan_model(resident, source, PROBES, lambda fraction, word: words.append(word), keeper=keeper), whole)
    assert not any("MATH" in word for word in words)


def test_what_another_scan_left_is_not_taken_up(source, whole, tmp_path):
    def stop(fraction, words):
        if "layer 2" in words:
            raise Cancelled

    with pytest.raises(Cancelled):
        scan_model(Streamed.open(source), source, PROBES, stop, keeper=keeper_for(source, tmp_path / "kept"))
    other = Keeper(tmp_path / "kept", {"fingerprint": "another"}, 0.0)
    words = []
    model = Streamed.open(source)
    same(scan_model(model, source, PROBES, lambda fraction, word: words.append(word), keeper=other), whole)
    assert any("layer 0" in word for word in words)


def test_the_last_word_of_a_streamed_scan_is_done_and_its_progress_only_grows(source):
    fractions = []
    scan_model(Streamed.open(source), source, PROBES, lambda fraction, words: fractions.append(fraction))
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert len(fractions) >= 4
