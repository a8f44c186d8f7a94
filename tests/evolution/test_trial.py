"""Whether the prescription helps: fair draws, the arms that are scored, and a sentence that claims what was shown."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from darwin_lab.checkpoint.anatomy import Anatomy, read_anatomy
from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.errors import LabError
from darwin_lab.evolution.trial import RIVALS, Advised, Trial, advised_recipe, redrawn, run_trial
from darwin_lab.merging.prescription import Prescription
from darwin_lab.merging.recipe import Recipe, uniform_recipe
from darwin_lab.mri.contrast import Contrast
from darwin_lab.mri.genes import shuffled
from darwin_lab.progress import Tick
from darwin_lab.scoring.items import Item
from darwin_lab.scoring.score import Score

ITEMS = [Item(f"{task}-{n}", task, "?", ("a", "b"), 0) for task in ("MATH", "CODE") for n in range(150)]
TEXTS = {"MATH": 24}


@pytest.fixture(scope="module")
def anatomy(tiny_llama_pair: tuple[Path, Path, Path]) -> Anatomy:
    return read_anatomy(Checkpoint(tiny_llama_pair[0]))


def advice(anatomy: Anatomy, layers: Sequence[float], signal: bool = True) -> Prescription:
    ratio = {part.name: 0.5 if part.layer is None else layers[part.layer] for part in anatomy.mergeable}
    return Prescription("contrastive", ratio, tuple(layers), {}, ((0, anatomy.layers - 1),), signal=signal)


def drawn(anatomy: Anatomy, best: Sequence[float], count: int = 4, signal: bool = True) -> list[Advised]:
    told = advice(anatomy, best, signal)
    return [Advised(told, shuffled(told, anatomy, number)) for number in range(count)]


def scorer(worth: Callable[[Recipe], float], asked: list[str]) -> Callable[..., list[Score]]:
    """Answers each item right when a number of its own lies below what the recipe is worth."""

    def score(made: Sequence[Recipe], split: str, ids: Sequence[str] | None, tick: Tick) -> list[Score]:
        asked.append(split)
        tick(1.0, "scored")
        hard = np.random.default_rng(0).random(len(ITEMS))
        return [_score(hard < worth(recipe)) for recipe in made]

    return score


def _score(right: np.ndarray) -> Score:
    return Score(
        tuple(item.id for item in ITEMS), tuple(item.task for item in ITEMS), right, right,
        np.where(right, 0.7, 0.3), tuple((0.0, -1.0) for _ in ITEMS), tuple(0 if r else 1 for r in right),
        tuple(item.cluster for item in ITEMS),
    )  # fmt: skip


def distance_to(best: Sequence[float]) -> Callable[[Recipe], float]:
    def worth(recipe: Recipe) -> float:
        return 0.9 - float(np.abs(np.asarray(recipe.layer_ratios(), dtype=float) - best).mean())

    return worth


def trial_of(anatomy: Anatomy, advised: list[Advised], worth: Callable[[Recipe], float]) -> tuple[Trial, list[str]]:
    asked: list[str] = []
    lerp = lambda ratio: uniform_recipe(anatomy, ratio)  # noqa: E731
    return run_trial(advised, anatomy, TEXTS, scorer(worth, asked), lerp), asked


BEST = (0.95, 0.05, 0.9, 0.1)


def test_where_the_right_layers_matter_the_prescription_beats_every_rival(anatomy: Anatomy) -> None:
    trial, asked = trial_of(anatomy, drawn(anatomy, BEST), distance_to(BEST))
    assert [row.verdict for row in trial.against] == ["better"] * 3
    assert trial.sentence.startswith("The prescription helps on this pair: better than the .5 blend (+0.4")
    assert asked == ["selection", "report"]
    assert (trial.n, trial.clusters, trial.tasks) == (300, 300, {"MATH": 150, "CODE": 150})


def test_published_formulas_are_tested_beside_it_and_decide_nothing_about_its_help(anatomy: Anatomy) -> None:
    ideal, half = advice(anatomy, BEST), advice(anatomy, (0.5,) * 4)
    lerp = lambda ratio: uniform_recipe(anatomy, ratio)  # noqa: E731
    trial = run_trial(
        drawn(anatomy, (0.8, 0.2, 0.8, 0.2)), anatomy, TEXTS, scorer(distance_to(BEST), []), lerp,
        published={"card_v6": ideal, "paper": half},
    )  # fmt: skip
    found = {row.rival: row.verdict for row in trial.against}
    assert found == {**dict.fromkeys(RIVALS, "better"), "card_v6": "worse", "paper": "better"}
    assert trial.sentence.startswith("The prescription helps on this pair: ")
    assert "p after Holm over all 5 tests. Beside the published formulas: worse than card V6 (-" in trial.sentence
    assert "; better than the paper's (+" in trial.sentence
    assert trial.arms["paper"].acc == pytest.approx(trial.arms["blend"].acc)
    assert Trial.from_json(json.loads(json.dumps(trial.to_json()))) == trial


def test_where_only_the_mean_share_matters_it_is_no_better_than_its_placebo(anatomy: Anatomy) -> None:
    def worth(recipe: Recipe) -> float:
        return 0.5 + 0.4 * (float(np.mean(np.asarray(recipe.layer_ratios(), dtype=float))) > 0.91)

    trial, _ = trial_of(anatomy, drawn(anatomy, (0.93, 0.94, 0.95, 0.96)), worth)
    assert {row.rival: row.verdict for row in trial.against} == {
        "blend": "better", "lerp": "better", "placebo": "no difference shown",
    }  # fmt: skip
    assert "helps this pair in part" in trial.sentence
    assert "Permuting its layers did as well" in trial.sentence


def test_where_it_harms_the_sentence_says_so(anatomy: Anatomy) -> None:
    trial, _ = trial_of(anatomy, drawn(anatomy, BEST), distance_to((0.05, 0.95, 0.1, 0.9)))
    assert trial.sentence.startswith("The prescription does not help on this pair: worse than the .5 blend")


def test_where_nothing_matters_no_help_is_shown(anatomy: Anatomy) -> None:
    trial, _ = trial_of(anatomy, drawn(anatomy, BEST), lambda recipe: 0.6)
    assert trial.sentence.startswith("No help shown from the prescription on this pair: no difference shown to the")
    assert [row.difference for row in trial.against] == [0.0, 0.0, 0.0]


def test_advice_without_a_signal_is_not_tested(anatomy: Anatomy) -> None:
    trial, _ = trial_of(anatomy, drawn(anatomy, (0.5,) * 4, signal=False), distance_to(BEST))
    assert trial.informative == 0
    assert trial.sentence.startswith("The prescription carries no signal for this pair")


def test_the_best_lerp_is_chosen_on_selection_items_alone(anatomy: Anatomy) -> None:
    trial, _ = trial_of(anatomy, drawn(anatomy, BEST), distance_to((0.7,) * 4))
    assert trial.lerp == 0.7
    assert max(trial.sweep, key=lambda ratio: trial.sweep[ratio]) == "0.7"
    assert trial.arms["lerp"].acc == max(arm.acc for arm in trial.arms.values())


def test_an_items_answers_over_the_draws_are_one_unit_of_the_test(anatomy: Anatomy) -> None:
    few, _ = trial_of(anatomy, drawn(anatomy, BEST, count=2), distance_to(BEST))
    many, _ = trial_of(anatomy, drawn(anatomy, BEST, count=8), distance_to(BEST))
    for a, b in zip(few.against[:2], many.against[:2], strict=True):
        assert (a.low, a.high, a.p) == (b.low, b.high, b.p)
    assert (len(few.against[0].by_draw), len(many.against[0].by_draw)) == (2, 8)


def test_a_child_of_the_prescription_has_every_tensor_at_its_ratio(anatomy: Anatomy) -> None:
    told = advice(anatomy, BEST)
    recipe = advised_recipe(told, anatomy)
    for part in anatomy.mergeable:
        assert recipe.rows[part.name].ratio == pytest.approx(told.ratio[part.name])
    assert recipe.operators == {"lerp"}
    assert advised_recipe(told, anatomy, expert_order={1: (1, 0)}).expert_order == {1: (1, 0)}


def test_a_probe_draw_takes_as_many_texts_of_each_probe_each_with_its_own_length() -> None:
    rng = np.random.default_rng(0)
    gain = {probe: rng.normal(size=(24, 4)).astype(np.float32) for probe in ("MATH", "CODE")}
    lengths = {probe: np.arange(10, 34, dtype=np.int32) for probe in gain}
    whole = Contrast("a", "b", ("1", "2"), "p", {}, 4, ("MATH", "CODE"), lengths, gain)
    draw = redrawn(whole, np.random.default_rng(1))
    again = redrawn(whole, np.random.default_rng(1))
    for probe in gain:
        rows = draw.lengths[probe] - 10
        assert len(rows) == 24
        assert len(set(rows.tolist())) < 24
        assert np.array_equal(draw.gain[probe], gain[probe][rows])
        assert np.array_equal(draw.gain[probe], again.gain[probe])
    assert not np.array_equal(draw.lengths["MATH"], draw.lengths["CODE"])


def test_a_trial_survives_a_file_and_a_broken_one_is_refused(anatomy: Anatomy) -> None:
    trial, _ = trial_of(anatomy, drawn(anatomy, BEST), distance_to(BEST))
    assert Trial.from_json(json.loads(json.dumps(trial.to_json()))) == trial
    with pytest.raises(LabError, match="run it again"):
        Trial.from_json({"draws": 3})


def test_generated_answers_are_compared_by_accuracy(anatomy: Anatomy) -> None:
    asked: list[str] = []
    plain = scorer(distance_to(BEST), asked)

    def score(*args: object) -> list[Score]:
        return [replace(one, p_gold=np.full(one.n, np.nan)) for one in plain(*args)]

    trial = run_trial(drawn(anatomy, BEST), anatomy, TEXTS, score, lambda ratio: uniform_recipe(anatomy, ratio))
    assert trial.arms["prescription"].p_gold is None
    assert trial.against[0].verdict == "better"
