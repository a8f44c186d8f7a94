"""The desk of trials: what is queued, what is kept, what counts as a look, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from darwin_lab.errors import Cancelled, LabError
from darwin_lab.genome.genome import neutral_genome
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.merging.prescription import MODES
from tests.lab.conftest import PROBES, at_every_step


def test_a_trial_scans_scores_and_is_one_look(lab: Lab, pair: Pair) -> None:
    assert lab.trials.trial(pair) is None
    result = lab.wait(lab.trials.request_trial(pair, draws=2))
    trial = lab.trials.trial(pair)
    assert trial is not None
    assert result == {"sentence": trial.sentence}
    assert (trial.draws, trial.n, trial.selected) == (2, 20, 20)
    assert set(trial.texts) == set(PROBES)
    assert set(trial.arms) == {"prescription", "placebo", "blend", "lerp", "father", "mother", *MODES[1:]}
    assert {row.rival for row in trial.against} == {"blend", "lerp", "placebo", *MODES[1:]}
    assert lab.report_looks(pair) == 1


def test_the_same_trial_again_is_read_from_the_store_and_is_no_further_look(lab: Lab, pair: Pair) -> None:
    lab.wait(lab.trials.request_trial(pair, draws=2))
    first = lab.trials.trial(pair)
    lab.wait(lab.trials.request_trial(pair, draws=2))
    assert lab.trials.trial(pair) == first
    assert lab.report_looks(pair) == 1
    lab.wait(lab.trials.request_trial(pair, draws=2, seed=1))
    assert lab.report_looks(pair) == 2


def test_a_trial_that_was_stopped_goes_on_and_comes_out_the_same(
    lab: Lab, pair: Pair, new_lab: Callable[..., Lab], tmp_path: Path
) -> None:
    lab.wait(lab.trials.request_trial(pair, draws=2))
    other = new_lab(tmp_path / "stopped")
    twin = other.open_pair(pair.father.folder, pair.mother.folder, pair.refs["ancestor"], **_measures(pair))
    steps = 0

    def stop_at_the_twelfth() -> None:
        nonlocal steps
        steps += 1
        if steps == 12:
            other.cancel(job)

    at_every_step(other, stop_at_the_twelfth)
    job = other.trials.request_trial(twin, draws=2)
    with pytest.raises(Cancelled):
        other.wait(job)
    assert other.trials.trial(twin) is None
    assert other.report_looks(twin) == 0
    other.wait(other.trials.request_trial(twin, draws=2))
    assert other.trials.trial(twin) == lab.trials.trial(pair)


def test_a_pair_without_items_and_a_single_draw_are_refused_at_once(
    lab: Lab, tiny_llama_pair: tuple[Path, Path, Path], measures: dict[str, Any]
) -> None:
    bare = lab.open_pair(*tiny_llama_pair, probes=measures["probes"])
    with pytest.raises(LabError, match="no items yet"):
        lab.trials.request_trial(bare)
    with pytest.raises(LabError, match="two or more"):
        lab.trials.request_trial(bare, draws=1)
    assert lab.active_jobs() == []


def test_the_gradients_of_a_genome_are_kept_and_the_way_between_parents_once_a_pair(lab: Lab, pair: Pair) -> None:
    genome = neutral_genome("v6", pair.anatomy.layers).with_genes(attn_ratio=0.6)
    assert lab.trials.gradients(pair, genome) is None
    assert lab.trials.path(pair) is None
    made = lab.wait(lab.trials.request_gradients(pair, genome))["recipe_hash"]
    view, path = lab.trials.gradients(pair, made), lab.trials.path(pair)
    assert view is not None and path is not None
    assert view == lab.trials.gradients(pair, genome)
    assert (view.genome_hash, set(view.texts)) == (genome.hash, set(PROBES))
    assert [row.probe for row in path] == list(PROBES)
    other = genome.with_genes(attn_ratio=0.4)
    assert lab.trials.gradients(pair, other) is None
    lab.wait(lab.trials.request_gradients(pair, other))
    assert lab.trials.path(pair) == path


def test_gradients_are_refused_for_a_blend_and_for_a_model_that_is_streamed(lab: Lab, pair: Pair) -> None:
    with pytest.raises(LabError, match="no genome made blend"):
        lab.trials.request_gradients(pair, "blend")
    lab.bench.set_memory(pair, "always")
    with pytest.raises(LabError, match="whole model in memory") as raised:
        lab.trials.request_gradients(pair, neutral_genome("v6", pair.anatomy.layers))
    assert "\n" not in str(raised.value)
    assert lab.active_jobs() == []


def _measures(pair: Pair) -> dict[str, Any]:
    return {"items": pair.refs["items"], "probes": pair.refs["probes"]}
