import numpy as np
import pytest
import torch

from darwin_lab.errors import LabError
from darwin_lab.scoring.asking import score_generation
from darwin_lab.scoring.evaluate import score_items
from darwin_lab.scoring.items import Item
from darwin_lab.scoring.score import Score
from tests.scoring.models import ITEMS, resident

QUESTIONS = ["two and two", "two and ten", "what is one", "a longer question about a sum", "q"]


def ask(*answers: str) -> list[Item]:
    return [
        Item(f"g{row}", "gen", question, None, answer)
        for row, (question, answer) in enumerate(zip(QUESTIONS, answers or ["x"] * 5, strict=False))
    ]


def written_alone(model: object, item: Item, most: int) -> str:
    """The plain greedy loop: the whole text again for every token."""
    ids = model.tokenizer.encode(f"Question: {item.question}\nAnswer:")
    start = len(ids)
    for _ in range(most):
        token = int(model.model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
        if token == model.tokenizer.eos_token_id:
            break
        ids.append(token)
        if "\n" in model.tokenizer.decode(ids[start:]):
            break
    return model.tokenizer.decode(ids[start:], skip_special_tokens=True).split("\n")[0].strip()


@pytest.mark.parametrize("kind", ["llama", "moe"])
def test_batched_answers_are_what_each_prompt_gets_alone(kind: str) -> None:
    model = resident(kind, seed=3)
    score = score_generation(model, ask(), max_new_tokens=12)
    assert list(score.predictions) == [written_alone(model, item, 12) for item in ask()]
    assert len(set(score.predictions)) > 1


def test_an_answer_is_right_when_its_stripped_line_is_exactly_the_gold() -> None:
    model = resident("llama", seed=3)
    said = score_generation(model, ask(), max_new_tokens=6).predictions
    score = score_generation(model, ask(f" {said[0]}\n", said[1] + "!", said[2]), max_new_tokens=6)
    assert score.acc.tolist() == [True, False, True]
    assert score.acc_norm.tolist() == score.acc.tolist()
    assert np.isnan(score.p_gold).all()
    assert score.loglik == ((), (), ())


class Scripted:
    """Stands in for the model: writes the scripted ids one after the other, whatever it is asked."""

    def __init__(self, script: list[int], vocabulary: int = 320) -> None:
        self.script, self.vocabulary, self.step = script, vocabulary, 0

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(hidden), self.vocabulary)
        logits[:, self.script[min(self.step, len(self.script) - 1)]] = 1.0
        self.step += 1
        return logits


@pytest.mark.parametrize("ending", ["newline", "eos", "length"])
def test_writing_ends_at_a_new_line_an_end_token_or_the_limit(ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = resident()
    five, line = model.tokenizer.encode("z z"), model.tokenizer.encode("\n")
    stop = {"newline": line, "eos": [model.tokenizer.eos_token_id], "length": []}[ending]
    script = Scripted([*five, *stop, *model.tokenizer.encode(" never read")])
    monkeypatch.setattr(model, "logits", script)
    score = score_generation(model, ask("z z")[:1], max_new_tokens=len(five) + (1 if stop else 0))
    assert score.predictions == ("z z",)
    assert score.acc.tolist() == [True]
    assert script.step <= len(five) + 1


def test_an_item_with_choices_is_asked_for_the_text_of_the_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model = resident()
    ids = model.tokenizer.encode(" many")
    monkeypatch.setattr(model, "logits", Scripted([*ids, model.tokenizer.eos_token_id]))
    score = score_generation(model, [ITEMS[1]])
    assert score.acc.tolist() == [True]
    assert score.predictions == ("many",)


def test_a_prompt_that_fills_the_context_is_named() -> None:
    with pytest.raises(LabError, match="'long' has a prompt of"):
        score_generation(resident(), [Item("long", "t", "many " * 600, None, "x")])


def test_mixed_items_are_each_scored_their_way_in_their_order() -> None:
    model = resident()
    mixed = [ask()[0], ITEMS[0], ask()[1], ITEMS[2]]
    score: Score = score_items(model, mixed, max_new_tokens=4)
    assert score.ids == ("g0", "i0", "g1", "i2")
    assert np.isnan(score.p_gold).tolist() == [True, False, True, False]
