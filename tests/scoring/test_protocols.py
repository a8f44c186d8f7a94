from collections.abc import Sequence

import numpy as np
import pytest

from darwin_lab.errors import LabError
from darwin_lab.progress import Tick
from darwin_lab.scoring.protocols import (
    ORACLE_LABEL,
    Adaptive,
    Call,
    Reply,
    adaptive,
    at_the_same_budget,
    greedy,
    guessers_share,
    lead,
    majority,
    why_upper_bound,
    winner,
)
from darwin_lab.scoring.simulated import simulated
from darwin_lab.statistics.proportion import wilson

N = 1200
GOLDS = [item % 4 for item in range(N)]
GUESSER = simulated(GOLDS, [0.25] * N, seed=3)


class Scripted:
    """Answers from a table (item, sample) -> answer or reply, and remembers what it was asked."""

    def __init__(self, table: dict[tuple[int, int], object], otherwise: object = 0) -> None:
        self.table, self.otherwise = table, otherwise
        self.calls: list[Call] = []

    def __call__(self, calls: Sequence[Call], tick: Tick) -> list[Reply]:
        self.calls += calls
        found = [self.table.get((call.item, call.sample), self.otherwise) for call in calls]
        return [entry if isinstance(entry, Reply) else Reply(entry) for entry in found]


def test_the_oracle_gate_lifts_a_guesser_to_what_three_tries_give_and_says_that_it_is_an_upper_bound() -> None:
    outcome = adaptive(GOLDS, GUESSER, Adaptive(gate="oracle"))
    assert guessers_share(4) == pytest.approx(0.578, abs=5e-4)
    assert outcome.interval[0] <= guessers_share(4) <= outcome.interval[1]
    shares = [stage.right / N for stage in outcome.stages]
    assert shares == pytest.approx([1 / 4, 7 / 16, 37 / 64], abs=0.04)
    assert outcome.label == ORACLE_LABEL
    assert "gold labels" in why_upper_bound(4)
    assert "57.8%" in why_upper_bound(4)


def test_the_confidence_gate_leaves_a_guesser_at_chance_and_so_does_plain_majority() -> None:
    outcome = adaptive(GOLDS, GUESSER)
    assert outcome.interval[0] <= 0.25 <= outcome.interval[1]
    assert outcome.label == ""
    plain = at_the_same_budget(GOLDS, GUESSER, outcome)
    assert plain.interval[0] <= 0.25 <= plain.interval[1]


def test_the_confidence_gate_never_looks_at_the_right_answers() -> None:
    outcome = adaptive(GOLDS, GUESSER)
    other = adaptive([(gold + 1) % 4 for gold in GOLDS], GUESSER)
    assert outcome.answers == other.answers
    assert outcome.calls.tolist() == other.calls.tolist()


def test_plain_majority_at_the_same_budget_takes_exactly_as_many_calls() -> None:
    outcome = adaptive(GOLDS, GUESSER, Adaptive(gate="oracle"))
    assert at_the_same_budget(GOLDS, GUESSER, outcome).calls.sum() == outcome.calls.sum()
    assert outcome.calls.sum() == sum(stage.calls for stage in outcome.stages)


def test_voting_and_asking_again_help_a_model_that_knows_something() -> None:
    ability = np.random.default_rng(0).beta(1.2, 0.8, N).tolist()
    ask = simulated(GOLDS, ability, seed=1)
    one, eight, stages = greedy(GOLDS, ask), majority(GOLDS, ask, 8), adaptive(GOLDS, ask)
    assert one.acc == pytest.approx(0.6, abs=0.05)
    assert one.acc + 0.08 < eight.acc < stages.acc
    assert one.calls_per_item == 1
    assert 8 < stages.calls_per_item < 21


def test_the_first_stage_keeps_what_the_model_is_sure_of() -> None:
    ask = Scripted({(0, 0): Reply(2, margin=0.95), (1, 0): Reply(2, margin=0.5)}, otherwise=1)
    outcome = adaptive([2, 2], ask)
    assert outcome.answers == (2, 1)
    assert outcome.calls.tolist() == [1, 9]


def test_only_close_ties_reach_the_third_stage_and_meet_their_disagreement_there() -> None:
    split = {(1, sample): sample % 2 for sample in range(8)}
    ask = Scripted({**split, (0, 0): 3}, otherwise=3)
    outcome = adaptive([3, 3], ask, Adaptive(samples=8, more=6, turns=2))
    assert outcome.calls.tolist() == [9, 15]
    late = [call for call in ask.calls if call.sample >= 8]
    assert [call.item for call in late] == [1] * 6
    assert [call.disputed for call in late] == [()] * 4 + [(0, 1)] * 2
    assert len({call.showing for call in late}) == 6, "every later call shows the choices in another order"
    assert outcome.answers == (3, 3), "six later votes outnumber four and four"


def test_with_the_oracle_gate_only_what_is_wrong_is_asked_again() -> None:
    ask = Scripted({(0, 0): 1, (1, 0): 0}, otherwise=1)
    outcome = adaptive([1, 1], ask, Adaptive(gate="oracle"))
    assert outcome.calls.tolist() == [1, 9]
    assert outcome.right.tolist() == [True, True]


def test_an_item_that_is_never_answered_is_invalid_wrong_and_among_the_n() -> None:
    quiet = simulated(GOLDS[:40], [1.0] * 40, silent_share=1.0)
    for outcome in (greedy(GOLDS[:40], quiet), majority(GOLDS[:40], quiet, 3), adaptive(GOLDS[:40], quiet)):
        assert (outcome.invalid, outcome.acc, outcome.n) == (40, 0.0, 40)
    half = simulated(GOLDS, [1.0] * N, silent_share=0.5)
    assert majority(GOLDS, half, 8).acc > 0.98, "votes without an answer do not vote"
    assert greedy(GOLDS, half).invalid == pytest.approx(N / 2, abs=80)


def test_the_winner_is_the_most_frequent_answer_and_the_first_heard_among_equals() -> None:
    assert winner([2, 1, 1, None, None, None]) == 1
    assert winner([2, 1, 1, 2]) == 2
    assert winner([None]) is None
    assert lead([2, 1, 1, 2]) == 0
    assert lead(["a"] * 7 + ["b"]) == 0.75
    assert lead([]) == 0


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(LabError, match="gate 'hope'"):
        adaptive(GOLDS, GUESSER, Adaptive(gate="hope"))
    with pytest.raises(LabError, match="ask for 1 or more"):
        majority(GOLDS, GUESSER, 0)
    with pytest.raises(LabError, match="no items"):
        greedy([], GUESSER)


def test_the_intervals_of_the_protocols_hold_the_truth_in_about_95_of_100_of_2000_runs() -> None:
    runs, n = 2000, 25
    golds = [0] * (runs * n)
    ability = np.random.default_rng(1).beta(1.2, 0.8, runs * n).tolist()
    ask = simulated(golds, ability, seed=2)
    for outcome in (greedy(golds, ask), majority(golds, ask, 3)):
        counts = outcome.right.reshape(runs, n).sum(axis=1)
        covered = np.mean([low <= outcome.acc <= high for low, high in (wilson(int(k), n) for k in counts)])
        assert 0.93 <= covered <= 0.97
