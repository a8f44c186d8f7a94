"""The facade on tiny real models: scans that grow, scores that stay, children that are known by their hash."""

import shutil
import threading
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from darwin_lab.errors import Cancelled, LabError
from darwin_lab.genome.genome import neutral_genome
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.lab.scan_places import scan_folder
from darwin_lab.merging.prescription import MODES
from darwin_lab.mri.record import Scan
from tests.lab.conftest import at_every_step


def scan_all(lab: Lab, pair: Pair) -> None:
    for job_id in lab.request_scan(pair):
        lab.wait(job_id)


def plain(pair: Pair, **genes: float):
    return neutral_genome("v6", pair.anatomy.layers).with_genes(mri_trust=0.0, **genes)


def test_nothing_is_there_before_it_was_asked_for(lab: Lab, pair: Pair) -> None:
    assert lab.scan(pair, "father") is None and not lab.scan_is_complete(pair, "father")
    assert lab.contrast(pair) is None and lab.static(pair) is None and lab.prescription(pair) is None
    assert lab.score(pair, "father") is None and lab.health(pair, "a" * 12) is None
    assert lab.report(pair, "a" * 12) is None and lab.export(pair, "a" * 12) is None
    assert lab.runs() == [] and lab.active_jobs() == [] and lab.report_looks(pair) == 0
    assert lab.advised_genome(pair) == neutral_genome("v6", pair.anatomy.layers)


def test_a_scan_is_seen_probe_by_probe_while_it_is_made(lab: Lab, pair: Pair) -> None:
    seen: list[tuple[str, ...]] = []

    def look() -> None:
        scan = lab.scan(pair, "father")
        seen.append(scan.probes if scan else ())

    at_every_step(lab, look)
    lab.wait(lab.request_scan(pair)[0])
    assert seen[:2] == [(), ("MATH",)]
    assert lab.scan_is_complete(pair, "father")


def test_whole_scans_give_a_prescription_and_nothing_is_made_twice(lab: Lab, pair: Pair) -> None:
    scan_all(lab, pair)
    assert lab.request_scan(pair) == []
    for mode in MODES:
        assert set(lab.prescription(pair, mode).ratio) == {part.name for part in pair.anatomy.mergeable}
    assert lab.prescription(pair) is lab.prescription(pair)
    assert lab.advised_genome(pair).prescription == lab.prescription(pair).hash
    with pytest.raises(LabError, match="mode"):
        lab.prescription(pair, "guess")


def test_a_scan_made_before_mean_activations_were_kept_is_whole_and_is_made_again_when_asked_for(
    new_lab: Any, lab: Lab, pair: Pair
) -> None:
    scan_all(lab, pair)
    whole = lab.scan(pair, "father")
    for who in ("father", "mother"):
        folder = scan_folder(lab.bench, pair, getattr(pair, who).fingerprint, "float32")
        replace(Scan.load(folder), centroids={}).save(folder)
    lab.close()
    later = new_lab()
    assert later.scan_is_complete(pair, "father") and later.prescription(pair) is not None
    with pytest.raises(LabError, match="holds no mean activations of MATH; scan it again"):
        later.prescription(pair, "paper")
    assert later.advice(pair, later.prescription(pair).hash) == later.prescription(pair)
    assert len(later.request_scan(pair)) == 2
    scan_all(later, pair)
    assert later.prescription(pair, "paper") is not None
    np.testing.assert_array_equal(later.scan(pair, "father").nll["MATH"], whole.nll["MATH"])


def test_a_probe_of_one_text_leaves_a_prescription_without_signal_and_no_error(
    lab: Lab, tiny_llama_pair: tuple[Path, Path, Path], measures: dict[str, Any]
) -> None:
    known = lab.open_pair(*tiny_llama_pair[:2], items=measures["items"])
    pair = lab.with_probes(known, "MATH: 1+1=2, 2+2=4\nMATH: 3+3=6, 4+4=8\nNEUTRAL: the cat sat on a mat")
    scan_all(lab, pair)
    for mode in MODES:
        assert lab.prescription(pair, mode).golden == ()
    assert lab.wait(lab.request_health(pair, "blend"))
    assert lab.health(pair, lab.recipe_of(pair, "blend").hash).verdict


def test_deleting_every_scan_changes_nothing_but_that_they_are_made_again(lab: Lab, pair: Pair) -> None:
    scan_all(lab, pair)
    before = lab.scan(pair, "mother"), lab.contrast(pair), lab.prescription(pair)
    for name in ("scans", "contrasts", "profiles"):
        shutil.rmtree(lab.store.home / name)
    assert lab.scan(pair, "mother") is None and lab.prescription(pair) is None
    scan_all(lab, pair)
    after = lab.scan(pair, "mother"), lab.contrast(pair), lab.prescription(pair)
    np.testing.assert_array_equal(before[0].per_text["loss"]["MATH"], after[0].per_text["loss"]["MATH"])
    np.testing.assert_array_equal(before[1].gain["MATH"], after[1].gain["MATH"])
    assert before[2] == after[2]


def test_a_scan_that_was_interrupted_goes_on_with_the_probes_that_are_missing(
    new_lab: Any, pair: Pair, lab: Lab
) -> None:
    def stop_after_one() -> None:
        if lab.scan(pair, "father") is not None:
            lab.cancel(lab.active_jobs()[0].id)

    at_every_step(lab, stop_after_one)
    with pytest.raises(Cancelled):
        lab.wait(lab.request_scan(pair)[0])
    half = lab.scan(pair, "father")
    assert half.probes == ("MATH",) and not lab.scan_is_complete(pair, "father")
    lab.close()
    again = new_lab()
    scan_all(again, pair)
    whole = again.scan(pair, "father")
    np.testing.assert_array_equal(whole.nll["MATH"], half.nll["MATH"])
    assert set(whole.probes) == {"MATH", "NEUTRAL"}


def test_a_score_is_kept_item_by_item_and_read_by_any_later_lab(new_lab: Any, lab: Lab, pair: Pair) -> None:
    result = lab.wait(lab.request_score(pair, "father"))
    score = lab.score(pair, "father")
    assert result["n"] == score.n == 20
    assert lab.score(pair, "mother") is None and lab.score(pair, "father", "validation") is None
    kept = new_lab().score(pair, "father")
    assert kept.ids == score.ids
    np.testing.assert_array_equal(kept.p_gold, score.p_gold)


def test_report_items_cannot_be_scored_but_through_a_counted_report(lab: Lab, pair: Pair) -> None:
    with pytest.raises(LabError, match="report"):
        lab.request_score(pair, "father", "report")
    genome = plain(pair, global_ratio=0.3)
    lab.wait(lab.request_report(pair, genome))
    report = lab.report(pair, lab.recipe(pair, genome).hash)
    assert report["n"] == 20 and report["looks"] == lab.report_looks(pair) == 1
    assert set(report["models"]) == {"child", "father", "mother", "blend"}
    assert report["genome_hash"] == genome.hash


def test_a_child_is_known_by_its_hash_in_a_later_lab_also_without_the_scans(new_lab: Any, lab: Lab, pair: Pair) -> None:
    scan_all(lab, pair)
    genome = lab.advised_genome(pair)
    recipe = lab.recipe(pair, genome)
    assert recipe.prescription_hash == lab.prescription(pair).hash
    for name in ("scans", "contrasts", "profiles"):
        shutil.rmtree(lab.store.home / name)
    later = new_lab()
    assert later.recipe_of(later.pair(pair.key), recipe.hash).hash == recipe.hash
    assert later.genome_of(pair, recipe.hash).genes == genome.genes


def test_a_genome_that_trusts_a_prescription_nobody_has_is_refused(lab: Lab, pair: Pair) -> None:
    genome = neutral_genome("v6", pair.anatomy.layers, prescription="0" * 12)
    with pytest.raises(LabError, match="prescription 000000000000"):
        lab.recipe(pair, genome)


def test_father_mother_and_blend_are_recipes_like_any_other(lab: Lab, pair: Pair) -> None:
    ratios = {
        who: {row.ratio for row in lab.recipe_of(pair, who).rows.values()} for who in ("father", "mother", "blend")
    }
    assert ratios == {"father": {0.0}, "mother": {1.0}, "blend": {0.5}}
    assert lab.genome_of(pair, lab.recipe_of(pair, "blend").hash) is None
    with pytest.raises(LabError, match="no child"):
        lab.recipe_of(pair, "../etc")


def test_health_is_read_beside_both_parents(lab: Lab, pair: Pair) -> None:
    genome = plain(pair, global_ratio=0.4)
    recipe = lab.recipe(pair, genome)
    assert lab.health(pair, recipe.hash) is None
    lab.wait(lab.request_health(pair, genome))
    health = lab.health(pair, recipe.hash)
    assert health.verdict in ("healthy", "watch", "unhealthy")
    assert lab.scan_is_complete(pair, recipe.hash) and lab.scan_is_complete(pair, "mother")
    strict = lab.health(pair, recipe.hash, interference_factor=0.0, interference_margin=-1.0)
    assert all(row.interference for row in strict.rows)
    with pytest.raises(LabError, match="threshold"):
        lab.health(pair, recipe.hash, nonsense=1.0)


def test_an_exported_child_gives_the_logits_of_the_virtual_one(lab: Lab, pair: Pair, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    genome = plain(pair, global_ratio=0.3, attn_ratio=0.7)
    recipe = lab.recipe(pair, genome)
    lab.wait(lab.request_export(pair, genome))
    export = lab.export(pair, recipe.hash)
    with zipfile.ZipFile(export.archive) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "unpacked")
    (folder,) = (tmp_path / "unpacked").iterdir()
    model, report = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    resident = lab.bench.resident(pair, lab.bench.child(pair, recipe))
    ids = torch.arange(5, 25)[None]
    with torch.inference_mode():
        assert torch.equal(model.eval()(ids).logits, resident.model(ids).logits)


def test_an_export_to_a_folder_that_exists_is_refused_at_once(lab: Lab, pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("x")
    with pytest.raises(LabError, match="mine"):
        lab.request_export(pair, "blend", tmp_path / "mine")
    assert lab.active_jobs() == []
    lab.wait(lab.request_export(pair, "blend", tmp_path / "new"))
    assert lab.export(pair, lab.recipe_of(pair, "blend").hash).archive is None
    shutil.rmtree(tmp_path / "new")
    assert lab.export(pair, lab.recipe_of(pair, "blend").hash) is None


def test_an_id_from_an_address_bar_is_checked(lab: Lab) -> None:
    assert lab.check_id("0123456789ab") == "0123456789ab"
    for hostile in ("../../x", "<script>", "", "0123456789AB"):
        with pytest.raises(LabError):
            lab.check_id(hostile)


def test_one_model_is_held_and_a_second_only_while_parents_are_contrasted(lab: Lab, pair: Pair) -> None:
    held: set[tuple[str, ...]] = set()
    at_every_step(lab, lambda: held.add(tuple(lab.bench._held)))
    scan_all(lab, pair)
    assert held == {(), ("lane 0",), ("lane 0", "lane 0, mother")}
    assert tuple(lab.bench._held) == ("lane 0",)


def test_works_side_by_side_give_their_results_in_order_and_their_mean_progress(lab: Lab) -> None:
    seen: list[float] = []
    met = threading.Barrier(2, timeout=20)

    def work(number: int) -> Any:
        def run(place: str, tick: Any) -> tuple[int, str]:
            met.wait()
            tick(1.0, "done")
            return number, place

        return run

    assert lab.bench.side_by_side([work(0), work(1)], lambda done, _: seen.append(done)) == [
        (0, "lane 0"), (1, "lane 1"),
    ]  # fmt: skip
    assert sorted(seen) == [0.5, 1.0]


def test_what_one_lane_raises_stops_the_others_and_is_raised(lab: Lab) -> None:
    stopped = []

    def fail(place: str, tick: Any) -> None:
        raise LabError("bad item")

    def endless(place: str, tick: Any) -> None:
        try:
            while True:
                tick(0.1, "on and on")
        except Cancelled:
            stopped.append(place)
            raise

    with pytest.raises(LabError, match="bad item"):
        lab.bench.side_by_side([endless, fail], lambda done, words: None)
    assert stopped == ["lane 0"]
