"""Evolutions over the store: seen while they run, stopped, killed, resumed, and the same in every process."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from darwin_lab.errors import Cancelled, LabError
from darwin_lab.evolution.settings import EvolutionSettings
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from tests.lab.conftest import at_every_step

SETTINGS = EvolutionSettings(budget=8, popsize=4, seed=5, start="neutral")

IN_ANOTHER_PROCESS = """
import json, sys, time
from darwin_lab.evolution.settings import settings_from_json
from darwin_lab.lab.lab import Lab
asked = json.loads(sys.argv[1])
lab = Lab(asked["home"], cpus=1)
pair = lab.open_pair(*asked["parents"], items=asked["items"], probes=asked["probes"])
print(lab.start_evolution(pair, settings_from_json(asked["settings"])), flush=True)
time.sleep(60)
"""


def finish(lab: Lab, run_id: str) -> Any:
    lab.wait(lab.run(run_id).job_id)
    return lab.run(run_id)


def trajectory(view: Any) -> tuple:
    """What must be the same whenever and wherever a run is made."""
    rows = [
        (row["index"], row["generation"], row["genes"], row["recipe_hash"], row["fitness"], row["full_fitness"])
        for row in view.candidates
    ]
    return rows, view.result and {k: v for k, v in view.result.items() if k != "report"}


def test_a_run_records_everything_and_ends_with_a_reported_pick(lab: Lab, pair: Pair) -> None:
    view = finish(lab, lab.start_evolution(pair, SETTINGS))
    assert (view.state, view.phase, view.fraction, view.evaluated) == ("finished", "done", 1.0, 8)
    assert view.settings == SETTINGS and view.threads == 1
    assert set(view.controls) == {"father", "mother", "blend"}
    assert [row["generation"] for row in view.generations] == [0, 1]
    pick = view.result["pick"]
    assert lab.report(pair, pick["recipe_hash"])["sentence"] == view.result["report"]["sentence"]
    assert lab.report_looks(pair) == 1
    assert lab.recipe_of(pair, pick["recipe_hash"]).hash == pick["recipe_hash"]
    assert lab.genome_of(pair, pick["recipe_hash"]).to_json() == pick["genome"]
    assert lab.score(pair, pick["recipe_hash"]).mean_p_gold == pytest.approx(pick["selection"], abs=1e-6)
    light = lab.runs(pair.key)[0]
    assert light.id == view.id and light.candidates == [] and light.best == view.best


def test_genes_that_do_nothing_are_frozen_with_the_reason(lab: Lab, pair: Pair) -> None:
    view = finish(lab, lab.start_evolution(pair, replace(SETTINGS, frozen=("embed_ratio",))))
    assert view.start["frozen"].keys() == {"density_a", "density_b", "mri_trust", "merge_method_weight", "embed_ratio"}
    for name in view.start["frozen"]:
        assert len({row["genes"][name] for row in view.candidates}) == 1
    assert len({row["genes"]["attn_ratio"] for row in view.candidates}) == SETTINGS.budget


def test_a_start_from_the_mri_scans_first_and_trusts_the_prescription(lab: Lab, pair: Pair) -> None:
    view = finish(lab, lab.start_evolution(pair, replace(SETTINGS, start="mri")))
    advice = lab.prescription(pair)
    assert advice is not None
    assert view.result["pick"]["genome"]["prescription"] == advice.hash
    assert "mri_trust" not in view.start["frozen"]
    assert view.start["genes"] == lab.advised_genome(pair).genes | {"density_b": 1.0}


def test_a_run_goes_by_the_advice_and_the_dtype_of_scans_that_it_was_started_with(lab: Lab, pair: Pair) -> None:
    lab.set_dtype(pair, "bfloat16")
    run = lab.start_evolution(pair, replace(SETTINGS, start="mri", prescription="card_v5"))
    lab.set_dtype(pair, "float32")
    view = finish(lab, run)
    assert view.settings.dtype == "bfloat16"
    lab.set_dtype(pair, "bfloat16")
    advice = lab.prescription(pair, "card_v5")
    assert view.result["pick"]["genome"]["prescription"] == advice.hash
    assert view.result["pick"]["genome"]["transplant"] == 0.05
    assert view.start["genes"]["mri_trust"] == 0.7


def test_the_same_seed_gives_the_same_run_in_another_home(
    new_lab: Any, tiny_llama_pair: tuple, measures: dict[str, Any], tmp_path: Path
) -> None:
    views = []
    for place in ("one", "two"):
        lab = new_lab(tmp_path / place)
        pair = lab.open_pair(*tiny_llama_pair, **measures)
        views.append(finish(lab, lab.start_evolution(pair, SETTINGS)))
    assert trajectory(views[0]) == trajectory(views[1])
    assert views[0].result["report"] == views[1].result["report"]


def test_a_run_does_not_depend_on_the_number_of_cpus(
    new_lab: Any, tiny_moe_pair: tuple, measures: dict[str, Any], tmp_path: Path
) -> None:
    made = []
    for cpus in (1, 2):
        lab = new_lab(tmp_path / str(cpus), cpus=cpus)
        pair = lab.open_pair(*tiny_moe_pair, **measures)
        assert (lab.bench.lanes(pair), lab.bench.threads(pair)) == (cpus, 1)
        made.append(finish(lab, lab.start_evolution(pair, replace(SETTINGS, start="mri", budget=4))))
        lab.close()
    assert trajectory(made[0]) == trajectory(made[1])
    assert made[0].start == made[1].start


def test_a_stopped_run_resumes_on_the_very_same_trajectory(
    new_lab: Any, tiny_llama_pair: tuple, measures: dict[str, Any], tmp_path: Path
) -> None:
    whole_lab = new_lab(tmp_path / "whole")
    pair = whole_lab.open_pair(*tiny_llama_pair, **measures)
    settings = replace(SETTINGS, items_per_task=4)
    whole = finish(whole_lab, whole_lab.start_evolution(pair, settings))

    lab = new_lab(tmp_path / "stopped")
    pair = lab.open_pair(*tiny_llama_pair, **measures)

    def stop_in_the_middle() -> None:
        run = lab.runs()[0]
        if run.evaluated == 6:
            lab.stop(run.id)

    at_every_step(lab, stop_in_the_middle)
    run_id = lab.start_evolution(pair, settings)
    with pytest.raises(Cancelled):
        finish(lab, run_id)
    assert lab.run(run_id).state == "stopped" and lab.run(run_id).evaluated == 6
    lab.close()

    later = new_lab(tmp_path / "stopped")
    later.wait(later.resume(run_id))
    assert trajectory(later.run(run_id)) == trajectory(whole)


def test_a_killed_process_leaves_a_run_that_resumes_on_the_very_same_trajectory(
    new_lab: Any, tiny_llama_pair: tuple, measures: dict[str, Any], tmp_path: Path
) -> None:
    asked = {
        "home": str(tmp_path / "killed"),
        "parents": [str(folder) for folder in tiny_llama_pair],
        "items": [str(path) for path in measures["items"]],
        "probes": str(measures["probes"]),
        "settings": replace(SETTINGS, report=False).to_json(),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", IN_ANOTHER_PROCESS, json.dumps(asked)], stdout=subprocess.PIPE, text=True
    )
    run_id = process.stdout.readline().strip()
    watcher = new_lab(tmp_path / "killed")
    deadline = time.monotonic() + 60
    while watcher.run(run_id).evaluated < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    seen = watcher.run(run_id)
    assert seen.evaluated >= 2 and seen.open
    with pytest.raises(LabError, match="another process"):
        watcher.stop(run_id)
    with pytest.raises(LabError, match="under way"):
        watcher.resume(run_id)
    process.kill()
    process.wait()
    watcher.close()

    later = new_lab(tmp_path / "killed")
    assert later.run(run_id).state == "interrupted"
    assert later.job(seen.job_id).state == "interrupted"
    later.wait(later.resume(run_id))

    other = new_lab(tmp_path / "whole")
    pair = other.open_pair(*tiny_llama_pair, **measures)
    whole = finish(other, other.start_evolution(pair, replace(SETTINGS, report=False)))
    assert trajectory(later.run(run_id)) == trajectory(whole)


def test_an_interactive_score_between_candidates_changes_nothing(
    new_lab: Any, tiny_llama_pair: tuple, measures: dict[str, Any], tmp_path: Path
) -> None:
    quiet, busy = new_lab(tmp_path / "quiet"), new_lab(tmp_path / "busy")
    pair = quiet.open_pair(*tiny_llama_pair, **measures)
    alone = finish(quiet, quiet.start_evolution(pair, SETTINGS))

    pair = busy.open_pair(*tiny_llama_pair, **measures)
    asked: list[str] = []

    def interrupt() -> None:
        if len(asked) < 3:
            asked.append(busy.request_score(pair, ("father", "mother", "blend")[len(asked)], "validation"))

    at_every_step(busy, interrupt)
    run_id = busy.start_evolution(pair, SETTINGS)
    view = finish(busy, run_id)
    assert trajectory(view) == trajectory(alone)
    done = [busy.job(job_id) for job_id in asked]
    assert all(job.state == "done" and job.finished < busy.job(view.job_id).finished for job in done)


def test_a_run_that_waits_can_be_stopped_before_it_begins(lab: Lab, pair: Pair) -> None:
    first = lab.start_evolution(pair, SETTINGS)
    second = lab.start_evolution(pair, replace(SETTINGS, seed=6))
    lab.stop(second)
    finish(lab, first)
    assert lab.run(second).state == "stopped" and lab.run(second).evaluated == 0
    lab.stop(first)
    assert lab.run(first).state == "finished"
    with pytest.raises(LabError, match="finished"):
        lab.resume(first)


def test_settings_that_do_not_fit_the_pair_are_refused_before_anything_is_queued(
    lab: Lab, tiny_llama_pair: tuple, measures: dict[str, Any]
) -> None:
    pair = lab.open_pair(*tiny_llama_pair[:2], **measures)
    for changes, word in [
        ({"operator": "dare_ties"}, "ancestor"),
        ({"frozen": ("tail_length",)}, "tail_length"),
        ({"layout": "v9"}, "v9"),
        ({"blocks": 99}, "99"),
        ({"operator": "arcee_fusion"}, "leaves 0 genes"),
        ({"options": {"lambda": 1.5}}, "has no option 'lambda'"),
        ({"layout": "v7", "operator": "slerp"}, "linear only"),
        ({"start": "neutral", "controls": ("placebo",)}, "placebo"),
    ]:
        with pytest.raises(LabError, match=word):
            lab.start_evolution(pair, replace(SETTINGS, **changes))
    assert lab.runs() == [] and lab.active_jobs() == []
