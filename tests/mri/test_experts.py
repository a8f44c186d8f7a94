import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darwin_lab.merging.prescription import DEAD
from darwin_lab.mri.experts import (
    LEAST_TEXTS,
    expert_report,
    texts_needed,
    tokens_needed,
    upper_utilisation,
    utilisation,
)

EVEN = {"P": {"token_entropy": np.array([1.0]), "mean_p": np.full((1, 4), 0.25)}}


def report(counts, lengths, top_k=2, router=EVEN):
    counts = np.asarray(counts)
    return expert_report({"P": counts}, {"P": np.asarray(lengths)}, router, tuple(range(counts.shape[1])), top_k)


def test_utilisation_is_the_share_of_choices_and_sums_to_one():
    counts = np.array([[[10, 6, 4, 0]], [[20, 10, 10, 0]]])
    assert utilisation(counts, np.array([10, 20]), 2) == pytest.approx(np.array([[0.5, 16 / 60, 14 / 60, 0]]))
    assert report(counts, [10, 20]).utilisation.sum() == pytest.approx(1)


def test_tokens_needed_are_those_of_the_method_sheet():
    assert tokens_needed(256, 8) == pytest.approx(1920)


def test_an_expert_never_chosen_is_dead_just_above_the_needed_tokens_and_texts_and_uncertified_below():
    for texts, length, short in ((60, 2.1, ""), (60, 1.9, "tokens"), (58, 40, "texts"), (40, 2, "tokens and texts")):
        found = report(np.tile([[length, length, 0, 0]], (texts, 1, 1)), [length] * texts)
        assert found.certified is (not short)
        if found.certified:
            assert found.dead.tolist() == [[False, False, True, True]]
            assert found.dead_share == pytest.approx([0.5])
            assert found.note == "dead on these probes: 126 tokens in 60 texts read, 120 in 59 needed"
        else:
            assert not found.dead.any()
            assert np.isnan(found.dead_share).all()
            assert found.note.startswith(f"not enough {short}: {texts * length:,.0f} tokens in {texts} texts read")
            assert "%" not in found.note
            assert found.to_json()["dead_share"] is None


def test_one_long_text_certifies_nothing():
    found = report([[[2000, 2000, 0, 0]]], [2000])
    assert not found.certified
    assert "not enough texts: 2,000 tokens in 1 texts read, more than 120 in at least 59 needed" in found.note


def test_experts_that_keep_to_some_texts_need_more_texts():
    gathered = np.zeros((60, 1, 4))
    gathered[::2, 0, 0], gathered[1::2, 0, 1] = 100, 100
    assert texts_needed(np.tile([[[50, 50, 0, 0]]], (60, 1, 1))) == LEAST_TEXTS
    assert texts_needed(gathered) == 119
    assert report(gathered, [100] * 60, top_k=1).note.startswith("not enough texts")
    many = report(np.tile(gathered, (2, 1, 1)), [100] * 120, top_k=1)
    assert many.dead.tolist() == [[False, False, True, True]]


@pytest.mark.parametrize(("texts", "length"), [(20, 98), (40, 60), (100, 40)])
def test_an_expert_that_fires_in_one_text_of_twenty_is_hardly_ever_called_dead(texts, length):
    rng, experts, top_k, wrong = np.random.default_rng(0), 256, 8, 0
    for _ in range(100):
        counts = rng.multinomial(top_k * length, np.full(experts, 1 / experts), size=(texts, 1))
        counts[:, 0, 0] = rng.binomial(length, 0.25 * (rng.random(texts) < 0.05))
        found = report(counts, [length] * texts, top_k, {"P": {**EVEN["P"], "mean_p": np.full((1, experts), 0.004)}})
        wrong += bool(found.dead[0, 0])
    assert wrong <= 5


def test_a_rare_expert_is_not_called_dead_when_its_bound_reaches_the_line():
    tokens, experts, top_k = 2000, 4, 2
    line = DEAD / experts * top_k * tokens
    for chosen, dead in ((line * 1.2, False), (line * 0.9, False), (line * 0.5, True)):
        per_text = np.tile([[0.0, 20, 20, chosen / 100]], (100, 1, 1))
        assert bool(report(per_text, [20] * 100).dead[0, 3]) is dead


def test_uses_that_come_from_one_text_widen_the_bound():
    spread = np.tile([[[10.0]]], (20, 1, 1))
    bunched = np.zeros((20, 1, 1))
    bunched[0] = 200
    lengths = np.full(20, 500)
    assert upper_utilisation(bunched, lengths, 1)[0, 0] > 1.5 * upper_utilisation(spread, lengths, 1)[0, 0]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=2, max_size=12), st.integers(1, 4))
def test_the_bound_lies_above_what_was_measured_and_below_one(chosen, top_k):
    counts = np.array(chosen, dtype=float)[:, None, None]
    lengths = np.full(len(chosen), 50)
    bound = upper_utilisation(counts, lengths, top_k)[0, 0]
    assert counts.sum() / (top_k * lengths.sum()) < bound <= 1 / top_k


def test_the_bound_covers_the_true_rate_of_independent_tokens():
    rng = np.random.default_rng(0)
    rate, texts, length = 0.004, 30, 70
    covered = [
        upper_utilisation(rng.binomial(length, rate, (texts, 1, 1)), np.full(texts, length), 1)[0, 0] >= rate
        for _ in range(400)
    ]
    assert np.mean(covered) >= 0.93


def test_even_load_has_entropy_one_no_gini_and_max_load_one():
    found = report(np.full((4, 1, 4), 50), [100] * 4)
    assert found.load_entropy == pytest.approx([1])
    assert found.gini == pytest.approx([0])
    assert found.max_load == pytest.approx([1])
    assert found.variation == pytest.approx([0])


def test_half_the_experts_without_load_cap_the_load_entropy():
    found = report(np.tile([[100, 100, 0, 0]], (4, 1, 1)), [100] * 4)
    assert found.load_entropy == pytest.approx([np.log(2) / np.log(4)])
    assert found.gini == pytest.approx([0.5])


def test_specialisation_is_zero_for_a_router_that_ignores_the_token_and_full_for_one_sure_of_each():
    ignoring = {"P": {"token_entropy": np.array([np.log(4)]), "mean_p": np.full((1, 4), 0.25)}}
    sure = {"P": {"token_entropy": np.array([0.0]), "mean_p": np.full((1, 4), 0.25)}}
    counts, lengths = np.full((4, 1, 4), 50), [100] * 4
    assert report(counts, lengths, router=ignoring).specialisation == pytest.approx([0])
    assert report(counts, lengths, router=sure).specialisation == pytest.approx([np.log(4)])
    assert report(counts, lengths, router=ignoring).token_entropy == pytest.approx([1])


def test_presence_is_the_share_of_texts_in_which_an_expert_fires():
    counts = np.zeros((4, 1, 4), dtype=int)
    counts[:, 0, 0], counts[0, 0, 1] = 10, 10
    assert report(counts, [10] * 4, top_k=1).presence.tolist() == [[1.0, 0.25, 0.0, 0.0]]


def test_probes_weigh_by_their_tokens():
    counts = {"A": np.array([[[30, 0]]]), "B": np.array([[[0, 10]]])}
    router = {
        "A": {"token_entropy": np.array([0.4]), "mean_p": np.array([[1.0, 0.0]])},
        "B": {"token_entropy": np.array([0.0]), "mean_p": np.array([[0.0, 1.0]])},
    }
    found = expert_report(counts, {"A": np.array([30]), "B": np.array([10])}, router, (3,), 1)
    assert found.utilisation == pytest.approx(np.array([[0.75, 0.25]]))
    assert found.by_probe[:, 0].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert found.token_entropy == pytest.approx([0.3 / np.log(2)])


def test_saliency_and_similarity_pool_over_the_probes_that_have_them():
    counts = {"A": np.array([[[3, 0]]]), "B": np.array([[[1, 2]]]), "OLD": np.array([[[5, 5]]])}
    router = {probe: {"token_entropy": np.array([0.0]), "mean_p": np.array([[0.5, 0.5]])} for probe in counts}
    router["A"] |= {"saliency": np.array([[2.0, 0.0]]), "output_similarity": np.array([0.1]), "similarity_tokens": [6]}
    router["B"] |= {"saliency": np.array([[6.0, 4.0]]), "output_similarity": np.array([0.4]), "similarity_tokens": [3]}
    lengths = {probe: np.array([3]) for probe in counts}
    found = expert_report(counts, lengths, router, (0,), 1)
    assert found.saliency.tolist() == [[(3 * 2 + 1 * 6) / 4, 4.0]]
    assert found.saliency_by_probe[:2].tolist() == [[[2.0, 0.0]], [[6.0, 4.0]]]
    assert np.isnan(found.saliency_by_probe[2]).all()
    assert found.output_similarity == pytest.approx([(6 * 0.1 + 3 * 0.4) / 9])
    assert found.similarity_tokens == 9
    assert found.to_json()["saliency"] == found.saliency.tolist()
