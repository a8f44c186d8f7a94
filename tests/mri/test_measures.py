import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from darwin_lab.errors import LabError
from darwin_lab.mri import measures
from darwin_lab.mri.measures import (
    batches_by_length,
    cosine_distance,
    encode_texts,
    next_token_losses,
)

IDS = torch.tensor([[3, 1, 4, 1], [5, 2, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])


def words(text):
    return {"input_ids": [len(word) for word in text.split()]}


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 200))
def test_batches_hold_every_text_once_and_stay_within_the_budget(lengths, budget):
    plan = batches_by_length(lengths, budget)
    assert sorted(index for batch in plan for index in batch) == list(range(len(lengths)))
    for batch in plan:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= budget


def test_texts_are_cut_and_a_text_without_next_token_is_refused_by_number():
    assert encode_texts(words, ["a bb ccc dddd"], "MATH", 3) == [[1, 2, 3]]
    with pytest.raises(LabError, match=r"probe MATH, text 2 .* is 1 token long"):
        encode_texts(words, ["a bb", "word"], "MATH", 512)
    with pytest.raises(LabError, match="probe MATH has no text"):
        encode_texts(words, [], "MATH", 512)


def test_cosine_distance_ignores_padding_and_is_zero_for_equal_states():
    torch.manual_seed(0)
    a, b = torch.randn(2, 4, 8), torch.randn(2, 4, 8)
    spoilt = b.clone()
    spoilt[1, 2:] = 100.0
    assert torch.equal(cosine_distance(a, b, MASK), cosine_distance(a, spoilt, MASK))
    assert cosine_distance(a, a, MASK).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert cosine_distance(a, -a, MASK).tolist() == pytest.approx([2, 2])


def reference(states, head):
    """The definition, one text at a time."""
    nll, kl = [], []
    for state in states:
        plain, logits = (torch.log_softmax(s @ head, -1) for s in (states[0], state))
        rows = []
        for text, length in enumerate(MASK.sum(-1).tolist()):
            steps = range(length - 1)
            loss = sum(-logits[text, t, IDS[text, t + 1]] for t in steps) / (length - 1)
            gap = sum((plain[text, t].exp() * (plain[text, t] - logits[text, t])).sum() for t in steps) / (length - 1)
            rows.append((float(loss), float(gap)))
        nll.append([row[0] for row in rows])
        kl.append([row[1] for row in rows])
    return nll, kl


@pytest.mark.parametrize("block", [1, 1 << 21])
def test_losses_and_divergences_are_those_of_their_definitions_whatever_the_block(monkeypatch, block):
    monkeypatch.setattr(measures, "LOGIT_BLOCK", block)
    monkeypatch.setattr(measures, "FEWEST_ROWS", 1)
    torch.manual_seed(0)
    states, head = torch.randn(3, 2, 4, 8), torch.randn(8, 6)
    nll, kl = next_token_losses(lambda hidden: hidden @ head, states, IDS, MASK, divergence=True)
    expected = reference(states, head)
    assert nll.tolist() == [pytest.approx(row, abs=1e-5) for row in expected[0]]
    assert kl.tolist() == [pytest.approx(row, abs=1e-5) for row in expected[1]]
    assert kl[0].tolist() == [0, 0]
    only = next_token_losses(lambda hidden: hidden @ head, states, IDS, MASK, divergence=False)
    assert torch.equal(only[0], nll)
    assert not only[1].any()


def test_logits_are_never_formed_for_all_positions_of_a_large_vocabulary():
    seen = []
    head = torch.randn(4, 40_000)

    def logits_of(hidden):
        seen.append(hidden.shape[:-1].numel())
        return hidden @ head

    ids = torch.randint(0, 40_000, (2, 200))
    next_token_losses(logits_of, torch.randn(3, 2, 200, 4), ids, torch.ones_like(ids), divergence=True)
    assert max(seen) * 40_000 <= max(measures.LOGIT_BLOCK, measures.FEWEST_ROWS * 40_000)
