import numpy as np
import pytest
import torch

from darwin_lab.scoring.debias import score_letters
from darwin_lab.scoring.letters import as_letters, drawn_order
from tests.scoring.models import item, one_at_a_time, resident

ASKED = [item(n, f"which of {n}?", ["red", "green", "blue"], n % 3) for n in range(4)]


def test_a_choice_scores_the_mean_over_its_letters_of_what_each_showing_gives_alone() -> None:
    model = resident()
    score = score_letters(model, ASKED, seed=5)
    for row, entry in enumerate(ASKED):
        total = np.zeros(3)
        for number in range(3):
            order = drawn_order(entry.id, 3, 5, number)
            alone = torch.tensor(one_at_a_time(model, as_letters(entry, order)))
            total[list(order)] += torch.log_softmax(alone, dim=0).numpy() / 3
        assert score.loglik[row] == pytest.approx(total, abs=1e-4)
        assert score.predictions[row] == np.argmax(total)
    assert score.ids == tuple(entry.id for entry in ASKED)
    assert score.acc.tolist() == score.acc_norm.tolist()


def test_a_model_that_always_says_a_gains_nothing_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = resident()
    logits = torch.zeros(320)
    logits[model.tokenizer.encode(" A")[-1]] = 9.0
    monkeypatch.setattr(model, "logits", lambda hidden: logits.repeat(len(hidden), 1))
    for row in score_letters(model, ASKED).loglik:
        assert row == pytest.approx([row[0]] * 3, abs=1e-5)
