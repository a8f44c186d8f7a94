"""The dtype a scan is computed in: chosen for the parents, a measurement of its own, never mixed with another."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.cli import main
from darwin_lab.engine import streamed
from darwin_lab.engine.resident import Resident
from darwin_lab.errors import LabError
from darwin_lab.genome.genome import Genome, neutral_genome
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.mri.contrast import contrast
from darwin_lab.mri.probes import FAMILY_PROBES, load_probes
from darwin_lab.mri.record import Scan
from darwin_lab.mri.scan import scan_model
from tests.lab.test_memory import arrays, parts_on_disk, scan_all

Trio = tuple[Path, Path, Path]
OLD_BASES = ["a21261b8", "c060c55a", "f413a7ff"]
"""What folders of scans, swaps and loops in float32 were named by before there was a choice."""


@pytest.fixture
def moe(lab: Lab, tiny_moe_pair: Trio, measures: dict[str, Any]) -> Pair:
    return lab.open_pair(*tiny_moe_pair, **measures)


def a_child(pair: Pair) -> Genome:
    return neutral_genome("v6", pair.anatomy.layers).with_genes(mri_trust=0.0, global_ratio=0.4)


def watched_dtypes(lab: Lab) -> Callable[[], set[tuple[str, str]]]:
    """The (place, dtype) of every model that is held from now on."""
    seen: set[tuple[str, str]] = set()
    hold = lab.bench._hold

    def held(*args: Any) -> Resident:
        resident = hold(*args)
        seen.add((args[2], str(resident.dtype)))
        return resident

    lab.bench._hold = held  # type: ignore[method-assign]
    return lambda: seen


def test_float32_until_another_is_chosen_which_is_kept_for_these_parents(lab: Lab, pair: Pair, new_lab: Any) -> None:
    assert lab.dtype(pair) == lab.memory(pair).dtype == "float32"
    assert lab.set_dtype(pair, "bfloat16").dtype == "bfloat16"
    other = lab.with_probes(pair, "MATH: 1 + 1 = 2")
    assert lab.dtype(other) == "bfloat16"
    assert new_lab().dtype(new_lab().pair(pair.key)) == "bfloat16"
    lab.set_memory(pair, "always")
    assert lab.dtype(pair) == "bfloat16", "the way to hold a model leaves the dtype alone"
    with pytest.raises(LabError, match="unknown dtype 'float16' to scan in; choose float32 or bfloat16"):
        lab.set_dtype(pair, "float16")
    assert lab.memory(pair).dtype == "bfloat16"


def test_the_decision_counts_the_bytes_of_the_chosen_dtype(
    lab: Lab, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darwin_lab.lab.workbench.SMALL_BYTES", 0)
    wide, narrow = lab.memory(pair), lab.set_dtype(pair, "bfloat16")
    elements = sum(info.numel for info in pair.father.tensors.values())
    assert wide.needed - narrow.needed == 2 * elements > 0
    assert "of weights in bfloat16 and a reserve of" in narrow.sentence
    assert "float32" not in wide.sentence
    free = int((wide.needed + narrow.needed) / 2 / streamed.SHARE_OF_FREE)
    monkeypatch.setattr(streamed, "free_bytes", lambda device="cpu": free)
    assert not lab.memory(pair).streamed
    assert lab.set_dtype(pair, "float32").streamed


@pytest.mark.parametrize("way", ["never", "always"])
def test_a_scan_in_bfloat16_is_the_shells(
    lab: Lab, moe: Pair, tiny_moe_pair: Trio, measures: dict[str, Any], tmp_path: Path, way: str
) -> None:
    out = tmp_path / "shell"
    words = (tiny_moe_pair[0], "--probes", measures["probes"], "--out", out, "--dtype", "bfloat16", "--stream", way)
    assert main(["scan", *map(str, words)]) == 0
    lab.set_memory(moe, way)
    lab.set_dtype(moe, "bfloat16")
    lab.wait(lab.request_scan(moe)[0])
    shells, labs = Scan.load(out), lab.scan(moe, "father")
    assert labs is not None
    assert labs.settings == shells.settings
    assert labs.settings["dtype"] == labs.dtype == "bfloat16"
    assert arrays(labs).keys() == arrays(shells).keys()
    for name, values in arrays(shells).items():
        np.testing.assert_array_equal(arrays(labs)[name], values, err_msg=name)


def test_each_dtype_has_its_own_folders_and_float32_is_found_again(lab: Lab, moe: Pair) -> None:
    scan_all(lab, moe)
    before, folders = arrays(lab.scan(moe, "father")), parts_on_disk(lab)
    wide = lab.prescription(moe)
    lab.set_dtype(moe, "bfloat16")
    assert lab.scan(moe, "father") is None
    assert lab.contrast(moe) is None
    assert lab.prescription(moe) is None
    titles = [lab.job(job).title for job in lab.request_scan(moe)]
    assert titles == [
        "Scan of the father in bfloat16", "Scan of the mother in bfloat16",
        "Layer swaps between father and mother in bfloat16",
    ], "the static profile reads no activations"  # fmt: skip
    scan_all(lab, moe)
    swaps, narrow = lab.contrast(moe), lab.prescription(moe)
    assert swaps is not None and swaps.dtype == "bfloat16"
    assert wide is not None and narrow is not None and narrow.hash != wide.hash
    assert len(parts_on_disk(lab)) == 2 * len(folders) == 6
    assert set(folders) < set(parts_on_disk(lab))
    after = arrays(lab.scan(moe, "father"))
    assert any(not np.array_equal(before[name], after[name]) for name in before)
    lab.set_dtype(moe, "float32")
    assert lab.request_scan(moe) == []
    for name, values in arrays(lab.scan(moe, "father")).items():
        np.testing.assert_array_equal(before[name], values, err_msg=name)
    assert lab.prescription(moe) == wide


def test_the_default_has_the_folders_it_always_had(lab: Lab, moe: Pair) -> None:
    from darwin_lab.lab.scan_places import contrast_folder, loops_file, scan_folder

    print_ = moe.father.fingerprint
    found = (scan_folder(lab.bench, moe, print_), contrast_folder(lab.bench, moe), loops_file(lab.bench, moe, print_))
    assert [path.stem[-8:] for path in found] == OLD_BASES


def test_a_job_measures_in_the_dtype_it_was_asked_for(lab: Lab, moe: Pair) -> None:
    from tests.lab.test_memory import at_words

    at_words(lab, "MATH", lambda: lab.set_dtype(moe, "bfloat16") and None)
    first = lab.request_scan(moe)
    lab.wait(first[0])
    assert lab.dtype(moe) == "bfloat16"
    assert lab.scan(moe, "father") is None
    later = lab.request_scan(moe)
    assert not set(later) & set(first[:2]), "the scans under way are of another dtype"
    for job in (*first, *later):
        lab.wait(job)
    for dtype in ("bfloat16", "float32"):
        lab.set_dtype(moe, dtype)
        for who in ("father", "mother"):
            scan = lab.scan(moe, who)
            assert scan is not None and (scan.dtype, scan.probes) == (dtype, moe.probes.names)
        assert lab.prescription(moe) is not None


def test_scores_stay_in_float32_and_a_model_of_another_dtype_is_not_taken_for_one(lab: Lab, moe: Pair) -> None:
    lab.wait(lab.request_score(moe, "blend"))
    wanted = lab.score(moe, "blend")
    lab.store._write("DELETE FROM scores", [])
    lab.bench.loaded.clear()
    lab.set_dtype(moe, "bfloat16")
    seen = watched_dtypes(lab)
    scan_all(lab, moe)
    assert {dtype for _, dtype in seen()} == {"torch.bfloat16"}
    lab.wait(lab.request_score(moe, "blend"))
    assert ("lane 0", "torch.float32") in seen()
    found = lab.score(moe, "blend")
    assert wanted is not None and found is not None
    assert found.to_rows() == wanted.to_rows()


def test_a_child_and_its_parents_are_checked_in_one_dtype(lab: Lab, moe: Pair) -> None:
    recipe = lab.recipe(moe, a_child(moe))
    lab.wait(lab.request_health(moe, a_child(moe)))
    wide = lab.health(moe, recipe.hash)
    lab.set_dtype(moe, "bfloat16")
    assert lab.health(moe, recipe.hash) is None
    seen = watched_dtypes(lab)
    job = lab.request_health(moe, a_child(moe))
    assert lab.job(job).title == f"Health of child {recipe.hash} in bfloat16"
    lab.wait(job)
    assert {dtype for _, dtype in seen()} == {"torch.bfloat16"}
    narrow = lab.health(moe, recipe.hash)
    assert wide is not None and narrow is not None
    assert (wide.dtype, narrow.dtype) == ("float32", "bfloat16")
    assert narrow.to_json()["dtype"] == "bfloat16"
    assert len(narrow.loops) == len(wide.loops) == 3
    assert len(list((lab.store.home / "loops").glob("*.json"))) == 6
    assert {row.child for row in narrow.rows} != {row.child for row in wide.rows}
    scans = [lab.scan(moe, who) for who in ("father", recipe.hash)]
    assert [scan.dtype for scan in scans if scan] == ["bfloat16"] * 2


def test_a_mending_belongs_to_the_dtype_it_was_measured_in(lab: Lab, moe: Pair) -> None:
    touchy = {"interference_factor": 0.2, "interference_margin": -1.0}
    recipe = lab.recipe(moe, a_child(moe))
    lab.set_dtype(moe, "bfloat16")
    seen = watched_dtypes(lab)
    lab.wait(lab.care.request_mending(moe, a_child(moe), **touchy))
    assert {dtype for _, dtype in seen()} == {"torch.bfloat16"}
    found = lab.care.mending(moe, recipe.hash)
    assert found is not None and found.layers and found.before.dtype == "bfloat16"
    lab.set_dtype(moe, "float32")
    lab.wait(lab.request_health(moe, a_child(moe)))
    assert lab.care.mending(moe, recipe.hash) is None


def test_kept_scans_of_two_dtypes_are_not_compared(lab: Lab, moe: Pair, nothing_kept: None) -> None:
    scan_all(lab, moe)
    wide = lab.saved.keep(moe, "father", "wide")
    lab.set_dtype(moe, "bfloat16")
    scan_all(lab, moe)
    narrow = lab.saved.keep(moe, "father", "narrow")
    assert (wide.dtype, narrow.dtype) == ("float32", "bfloat16")
    words = "“wide” was scanned in float32, “narrow” in bfloat16; scan both in the same precision"
    with pytest.raises(LabError, match=words):
        lab.saved.comparison(moe, wide.id, narrow.id)
    with pytest.raises(LabError, match="the father was scanned in bfloat16, “wide” in float32"):
        lab.saved.comparison(moe, "father", wide.id)
    assert not lab.saved.comparison(moe, "father", narrow.id).values.any()


def test_layers_are_not_swapped_between_models_of_two_dtypes(tiny_llama_pair: Trio, measures: dict[str, Any]) -> None:
    import torch

    father, mother = (open_checkpoint(path) for path in tiny_llama_pair[:2])
    models = Resident.load(father), Resident.load(mother, dtype=torch.bfloat16)
    with pytest.raises(LabError, match=r"father is held in torch.float32, mother in torch.bfloat16; load both in one"):
        contrast(*models, load_probes(measures["probes"]))


def test_bfloat16_moves_the_loss_of_a_layer_by_little_of_what_it_matters() -> None:
    """Of the embedded family, whole (every probe, both parents), bfloat16 moved no cell of `loss` by more than 0.048
    nats a token (the cells reach 3.1), no swap gain by more than 0.023 (they reach 0.96), no ratio of the contrastive
    prescription by more than 0.020 (they run from 0.00 to 0.94, and none of 209 changed sides of one half), and none of
    the card's by more than 0.0004. Here four texts a probe of the father, which average less rounding out."""
    import torch

    source, probes = open_checkpoint("family:father"), load_probes(FAMILY_PROBES)
    few = type(probes)({name: texts[:4] for name, texts in probes.texts.items()})
    wide, narrow = (
        scan_model(Resident.load(source, dtype=dtype), source, few).importance("loss")
        for dtype in (torch.float32, torch.bfloat16)
    )
    moved = max(float(np.abs(wide[probe] - narrow[probe]).max()) for probe in wide)
    assert 0 < moved < 0.15
    assert max(float(np.abs(values).max()) for values in wide.values()) > 2
