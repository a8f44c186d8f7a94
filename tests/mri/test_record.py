import json
from dataclasses import replace

import numpy as np
import pytest
from made_scans import LAYERS, PROBES, TEXTS, made_scan

from darwin_lab.errors import LabError
from darwin_lab.mri.record import MEASURES, Scan, merged, shared_probes


def partial(scan, *probes):
    return replace(
        scan,
        probes=probes,
        lengths={p: scan.lengths[p] for p in probes},
        per_text={m: {p: scan.per_text[m][p] for p in probes} for m in MEASURES},
        nll={p: scan.nll[p] for p in probes},
        counts={p: scan.counts[p] for p in probes},
        router={p: scan.router[p] for p in probes},
    )


def same(one, other):
    assert one.to_json() == other.to_json()
    for measure in MEASURES:
        for probe in one.probes:
            assert np.array_equal(one.per_text[measure][probe], other.per_text[measure][probe])


def test_importance_is_weighted_by_the_tokens_of_each_text():
    scan = made_scan()
    lengths = np.array([11, 31] + [21] * (TEXTS - 2), dtype=np.int32)
    scan = replace(scan, lengths={**scan.lengths, "MATH": lengths})
    values = scan.per_text["skip"]["MATH"]
    assert scan.importance("skip")["MATH"] == pytest.approx(np.average(values, axis=0, weights=lengths))
    losses = scan.per_text["loss"]["MATH"]
    assert scan.importance("loss")["MATH"] == pytest.approx(np.average(losses, axis=0, weights=lengths - 1))
    assert scan.tokens["MATH"] == 21 * TEXTS


def test_the_interval_holds_the_mean_and_an_unknown_measure_or_probe_is_refused():
    scan = made_scan()
    interval = scan.interval("loss", "MATH")
    mean = scan.importance("loss")["MATH"]
    assert interval.shape == (LAYERS, 2)
    assert ((interval[:, 0] <= mean) & (mean <= interval[:, 1])).all()
    with pytest.raises(LabError, match="no measure named"):
        scan.importance("volume")
    with pytest.raises(LabError, match="holds no probe"):
        scan.interval("skip", "MUSIC")


@pytest.mark.parametrize("moe", [True, False])
def test_a_saved_scan_loads_equal(tmp_path, moe):
    scan = made_scan(moe=moe)
    scan.save(tmp_path / "scan")
    same(Scan.load(tmp_path / "scan"), scan)


def test_saving_again_replaces_and_leaves_nothing_else(tmp_path):
    made_scan(1).save(tmp_path / "scan")
    made_scan(2).save(tmp_path / "scan")
    assert Scan.load(tmp_path / "scan").fingerprint == "father-2"
    assert [path.name for path in tmp_path.iterdir()] == ["scan"]


def test_an_error_while_saving_leaves_the_old_scan_and_no_pieces(tmp_path, monkeypatch):
    made_scan(1).save(tmp_path / "scan")

    def no_space(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("darwin_lab.mri.saved.save_file", no_space)
    with pytest.raises(LabError, match="No space left"):
        made_scan(2).save(tmp_path / "scan")
    assert Scan.load(tmp_path / "scan").fingerprint == "father-1"
    assert [path.name for path in tmp_path.iterdir()] == ["scan"]


def test_a_folder_that_is_no_scan_is_refused_in_one_line(tmp_path):
    with pytest.raises(LabError) as raised:
        Scan.load(tmp_path)
    assert "\n" not in str(raised.value)


def test_partial_scans_merge_into_the_whole():
    scan = made_scan()
    same(merged([partial(scan, "MATH"), partial(scan, "CODE", "NEUTRAL")]), scan)


def test_scans_of_different_models_or_probe_sets_do_not_merge():
    scan = made_scan()
    with pytest.raises(LabError, match="differ in model"):
        merged([partial(scan, "MATH"), partial(made_scan(name="mother"), "CODE")])
    with pytest.raises(LabError, match="differ in probe set"):
        merged([partial(scan, "MATH"), replace(partial(scan, "CODE"), probes_hash="other")])


def test_two_partial_scans_share_the_probes_both_have_finished():
    scan = made_scan()
    assert shared_probes(scan, partial(made_scan(name="mother"), "CODE", "MATH")) == ("MATH", "CODE")
    with pytest.raises(LabError, match="share no probe"):
        shared_probes(partial(scan, "MATH"), partial(scan, "CODE"))


def test_texts_cut_into_different_tokens_are_not_compared():
    other = made_scan(name="mother", tokens=90)
    with pytest.raises(LabError, match="different tokens"):
        shared_probes(made_scan(), other)


def test_json_has_the_promised_shape_and_is_plain():
    data = json.loads(json.dumps(made_scan().to_json(), allow_nan=False))
    assert data["layers"] == LAYERS
    assert set(data["importance"]) == set(MEASURES)
    assert set(data["importance"]["skip"]) == set(PROBES)
    assert len(data["importance"]["skip"]["MATH"]) == LAYERS
    assert data["tokens"]["MATH"] == 100 * TEXTS
    assert data["experts"]["certified"]
