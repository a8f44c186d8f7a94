"""How models are held: whole or streamed, with the same numbers in the same folders, and scans that go on."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from darwin_lab.engine import streamed
from darwin_lab.errors import Cancelled, LabError
from darwin_lab.genome.genome import neutral_genome
from darwin_lab.lab import streaming
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.mri.scan import Scan


@pytest.fixture
def moe(lab: Lab, tiny_moe_pair: tuple[Path, Path, Path], measures: dict[str, Any]) -> Pair:
    return lab.open_pair(*tiny_moe_pair, **measures)


def scan_all(lab: Lab, pair: Pair, **how: Any) -> None:
    for job in lab.request_scan(pair, **how):
        lab.wait(job)


def arrays(scan: Scan) -> dict[str, Any]:
    found = {f"{measure}/{probe}": scan.per_text[measure][probe] for measure in scan.per_text for probe in scan.probes}
    found |= {f"nll/{probe}": scan.nll[probe] for probe in scan.probes}
    found |= {f"counts/{probe}": scan.counts[probe] for probe in scan.counts}
    return found


def parts_on_disk(lab: Lab) -> list[str]:
    kinds = ("scans", "contrasts", "sweeps")
    return sorted(f"{kind}/{path.name}" for kind in kinds for path in (lab.store.home / kind).glob("*"))


def at_words(lab: Lab, words: str, act: Callable[[], None]) -> None:
    """Once, before the tick of a running job that says `words` is passed on, `act`."""
    original, done = lab.jobs._tick_of, []

    def tick_of(job: Any) -> Any:
        tick = original(job)

        def watched(fraction: float, said: str) -> None:
            if words in said and not done:
                done.append(said)
                act()
            tick(fraction, said)

        return watched

    lab.jobs._tick_of = tick_of  # type: ignore[method-assign]


def test_small_parents_are_held_whole_however_little_memory_is_free(
    lab: Lab, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed, "free_bytes", lambda device="cpu": 1)
    choice = lab.memory(pair)
    assert not choice.streamed
    assert lab.set_memory(pair, "always").streamed


def test_by_itself_a_large_model_is_streamed_exactly_when_it_does_not_fit(
    lab: Lab, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darwin_lab.lab.workbench.SMALL_BYTES", 0)
    needed = lab.memory(pair).needed
    assert needed > streamed.SPARE_BYTES
    for free, expected in ((int(needed / streamed.SHARE_OF_FREE) + 2, False), (needed, True)):
        monkeypatch.setattr(streamed, "free_bytes", lambda device="cpu", free=free: free)
        assert lab.memory(pair).streamed is expected
        assert lab.memory(pair).free == free
        assert lab.set_memory(pair, "always").streamed
        assert not lab.set_memory(pair, "never").streamed
        lab.set_memory(pair, "auto")


def test_two_models_at_once_need_about_twice_the_room(lab: Lab, pair: Pair) -> None:
    one, two = (lab.bench.memory(pair, models).needed - streamed.SPARE_BYTES for models in (1, 2))
    assert two == 2 * one


def test_a_model_that_is_held_already_does_not_count_as_taken(
    lab: Lab, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed, "free_bytes", lambda device="cpu": 10**9)
    before = lab.memory(pair).free
    resident = lab.bench.resident(pair, pair.father)
    assert lab.memory(pair).free - before == sum(tensor.nbytes for tensor in resident.model.parameters()) > 0
    lab.bench.release_all()
    assert lab.memory(pair).free == before


def test_the_choice_is_said_with_its_figures_and_kept_for_these_parents(
    lab: Lab, pair: Pair, new_lab: Any, measures: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed, "free_bytes", lambda device="cpu": 12 << 30)
    weights = (lab.memory(pair).needed - streamed.SPARE_BYTES) / (1 << 10)
    assert 0 < weights < 1000
    figures = f"a model takes {weights:.1f} KiB of weights and a reserve of 700.0 MiB, 12.0 GiB are free"
    assert lab.memory(pair).sentence == f"Held in memory: {figures}."
    said = lab.set_memory(pair, "always").sentence
    assert said == (f"Streamed, one layer in memory at a time, as you chose: held whole, {figures}.")
    other = lab.with_probes(pair, "MATH: 1 + 1 = 2")
    assert lab.memory(other).way == "always"
    assert new_lab().memory(new_lab().pair(pair.key)).way == "always"
    with pytest.raises(LabError, match="unknown way to hold a model 'sometimes'; choose auto, always, never"):
        lab.set_memory(pair, "sometimes")


def test_streamed_parts_have_the_numbers_and_the_folders_of_resident_ones(new_lab: Any, moe: Pair, lab: Lab) -> None:
    scan_all(lab, moe)
    other = new_lab(lab.store.home.parent / "streamed")
    pair = other.open_pair(moe.father.folder, moe.mother.folder, moe.ancestor.folder, items=moe.refs["items"],
                           probes=moe.refs["probes"])  # fmt: skip
    other.set_memory(pair, "always")
    kinds: list[tuple[str, bool]] = []
    hold = other.bench._hold

    def held(*args: Any) -> Any:
        kinds.append((args[2], hold(*args).streamed))
        return hold(*args)

    other.bench._hold = held  # type: ignore[method-assign]
    scan_all(other, pair)
    assert kinds and all(is_streamed for _, is_streamed in kinds)
    assert parts_on_disk(other) == parts_on_disk(lab)
    for who in ("father", "mother"):
        one, two = arrays(lab.scan(moe, who)), arrays(other.scan(pair, who))
        assert one.keys() == two.keys()
        for name, values in one.items():
            np.testing.assert_array_equal(values, two[name], err_msg=name)
    for probe in pair.probes.names:
        np.testing.assert_array_equal(lab.contrast(moe).gain[probe], other.contrast(pair).gain[probe])
    assert lab.prescription(moe) == other.prescription(pair)
    assert other.bench._held == {}


def test_the_health_of_a_child_is_read_streamed_too(lab: Lab, moe: Pair) -> None:
    genome = neutral_genome("v6", moe.anatomy.layers).with_genes(mri_trust=0.0, global_ratio=0.4)
    recipe = lab.recipe(moe, genome)
    lab.wait(lab.request_health(moe, genome))
    whole = arrays(lab.scan(moe, recipe.hash))
    shutil.rmtree(lab.store.home / "scans")
    lab.set_memory(moe, "always")
    lab.wait(lab.request_health(moe, genome))
    for name, values in arrays(lab.scan(moe, recipe.hash)).items():
        np.testing.assert_array_equal(whole[name], values, err_msg=name)
    assert lab.health(moe, recipe.hash) is not None
    assert lab.wait(lab.request_health(moe, genome)) == {"recipe_hash": recipe.hash}, "nothing is left to scan"


def test_languages_of_streamed_models_are_refused_at_once(lab: Lab, pair: Pair) -> None:
    lab.set_memory(pair, "always")
    with pytest.raises(LabError, match="languages are read by a model held whole, and these are streamed; free memory"):
        lab.request_languages(pair, "blend")


def test_a_cancelled_streamed_scan_goes_on_at_its_layer_in_another_process(
    lab: Lab, moe: Pair, new_lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "KEEP_EVERY", 0.0)
    lab.set_memory(moe, "always")
    at_words(lab, "layer 3 of", lambda: lab.cancel(lab.active_jobs()[0].id))
    with pytest.raises(Cancelled):
        lab.wait(lab.request_scan(moe)[0])
    assert lab.scan(moe, "father") is None
    assert any(name.startswith("sweeps/") for name in parts_on_disk(lab))
    lab.close()
    again = new_lab()
    pair = again.pair(moe.key)
    free = streamed.free_bytes()
    monkeypatch.setattr(streamed, "free_bytes", lambda device="cpu": free // 2)
    said: list[str] = []
    again.wait(again.request_scan(pair)[0], lambda fraction, words: said.append(words))
    layers = [int(words.split("layer ")[1].split()[0]) for words in said if " of 4" in words]
    assert not {0, 1} & set(layers)
    assert again.scan_is_complete(pair, "father")
    assert not any(name.startswith("sweeps/") for name in parts_on_disk(again))


def test_a_scan_taken_up_has_the_numbers_of_one_that_was_never_stopped(
    lab: Lab, moe: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "KEEP_EVERY", 0.0)
    lab.set_memory(moe, "always")
    lab.wait(lab.request_scan(moe)[0])
    whole = arrays(lab.scan(moe, "father"))
    for job in lab.active_jobs():
        lab.cancel(job.id)
    shutil.rmtree(lab.store.home / "scans")
    at_words(lab, "layer 2 of", lambda: lab.cancel(lab.active_jobs()[0].id))
    with pytest.raises(Cancelled):
        lab.wait(lab.request_scan(moe)[0])
    lab.wait(lab.request_scan(moe)[0])
    for name, values in arrays(lab.scan(moe, "father")).items():
        np.testing.assert_array_equal(whole[name], values, err_msg=name)


def test_probes_that_a_resident_scan_left_out_are_streamed_and_the_others_stay(lab: Lab, moe: Pair) -> None:
    from tests.lab.conftest import at_every_step

    def stop_after_one() -> None:
        if lab.scan(moe, "father") is not None:
            lab.cancel(lab.active_jobs()[0].id)

    at_every_step(lab, stop_after_one)
    with pytest.raises(Cancelled):
        lab.wait(lab.request_scan(moe)[0])
    half = lab.scan(moe, "father")
    assert half.probes == ("MATH",)
    lab.set_memory(moe, "always")
    lab.jobs.yield_point = lambda: None  # type: ignore[method-assign]
    lab.wait(lab.request_scan(moe)[0])
    whole = lab.scan(moe, "father")
    assert whole.probes == ("MATH", "NEUTRAL")
    assert whole.probes_hash == moe.probes.hash
    np.testing.assert_array_equal(whole.nll["MATH"], half.nll["MATH"])


def test_an_interactive_job_runs_between_the_layers_of_a_streamed_scan_and_changes_nothing(lab: Lab, moe: Pair) -> None:
    scan_all(lab, moe)
    wanted = arrays(lab.scan(moe, "father"))
    shutil.rmtree(lab.store.home / "scans")
    lab.set_memory(moe, "always")
    asked: list[str] = []
    genome = neutral_genome("v6", moe.anatomy.layers).with_genes(mri_trust=0.0, global_ratio=0.4)
    at_words(lab, "layer 2 of", lambda: asked.append(lab.request_health(moe, genome)))
    host = lab.request_scan(moe)[0]
    ended: list[str] = []
    lab.wait(host)
    ended += lab.ended_jobs()
    assert ended.index(asked[0]) < ended.index(host)
    assert lab.job(asked[0]).state == "done"
    for name, values in arrays(lab.scan(moe, "father")).items():
        np.testing.assert_array_equal(wanted[name], values, err_msg=name)


def test_a_scan_that_cannot_be_kept_under_way_is_made_all_the_same(
    lab: Lab, moe: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    from darwin_lab.mri import keeper

    asked: list[Any] = []

    def full(*args: Any) -> Path:
        asked.append(args)
        raise LabError("no space left")

    monkeypatch.setattr(streaming, "KEEP_EVERY", 0.0)
    monkeypatch.setattr(keeper, "write_folder", full)
    lab.set_memory(moe, "always")
    lab.wait(lab.request_scan(moe)[0])
    assert lab.scan_is_complete(moe, "father")
    assert len(asked) == 1, "it is not tried again and again"


def test_what_was_stopped_long_ago_makes_room(lab: Lab, moe: Pair) -> None:
    import os
    import time

    old, young = (lab.store.home / "sweeps" / name for name in ("old", "young"))
    for folder in (old, young):
        folder.mkdir(parents=True)
    long_ago = time.time() - streaming.FORGOTTEN_AFTER - 60
    os.utime(old, (long_ago, long_ago))
    lab.set_memory(moe, "always")
    lab.wait(lab.request_scan(moe)[0])
    assert not old.exists()
    assert young.exists()


@pytest.mark.parametrize("way", ["never", "always"])
def test_halves_are_measured_when_asked_for_and_leave_the_other_numbers_alone(lab: Lab, moe: Pair, way: str) -> None:
    lab.set_memory(moe, way)
    scan_all(lab, moe)
    plain = arrays(lab.scan(moe, "mother"))
    assert not lab.scan(moe, "mother").has_halves
    jobs = lab.request_scan(moe, halves=True)
    assert len(jobs) == 2
    for job in jobs:
        lab.wait(job)
    scan = lab.scan(moe, "mother")
    assert scan.has_halves
    for name, values in arrays(scan).items():
        np.testing.assert_array_equal(plain[name], values, err_msg=name)
    assert set(scan.importance("loss", half="attn")) == set(moe.probes.names)
    assert lab.request_scan(moe, halves=True) == []
    assert lab.request_scan(moe) == []


def test_pasted_probes_make_another_pair_that_a_later_lab_opens_again(lab: Lab, pair: Pair, new_lab: Any) -> None:
    other = lab.with_probes(pair, "TEA: at four\nTEA: at five\nMATH: 1+1=2\nMATH: 2+2=4\n")
    assert other.key != pair.key
    assert other.probes.texts == {"TEA": ("at four", "at five"), "MATH": ("1+1=2", "2+2=4")}
    assert other.father is pair.father and other.items_by_split is pair.items_by_split
    again = new_lab().pair(other.key)
    assert again.probes == other.probes
    assert lab.with_probes(other, Path(other.refs["probes"])) is other
    scan_all(lab, other)
    assert lab.scan(other, "father").probes == ("TEA", "MATH")
    assert lab.scan(pair, "father") is None


def test_the_probes_a_pair_has_by_itself_come_back(lab: Lab, tiny_llama_pair: tuple[Path, Path, Path]) -> None:
    pair = lab.open_pair(*tiny_llama_pair)
    other = lab.with_probes(pair, "MATH: 1+1=2")
    assert lab.with_probes(other, None) is pair


def test_a_bad_paste_changes_nothing(lab: Lab, pair: Pair) -> None:
    with pytest.raises(LabError, match="line 2 of the pasted probes has no label"):
        lab.with_probes(pair, "MATH: 1+1=2\nno label")
    assert not (lab.store.home / "probes").exists()


def test_a_text_no_parent_can_be_scanned_on_is_refused_where_it_is_given(lab: Lab, pair: Pair) -> None:
    with pytest.raises(LabError, match=r"probe MATH, text 2 .* is 1 token long"):
        lab.with_probes(pair, "MATH: 1 + 1 = 2\nMATH: 1")
    assert not (lab.store.home / "probes").exists()
