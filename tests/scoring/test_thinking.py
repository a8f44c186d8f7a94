"""Thinking with a budget: the thought is closed when it is spent, the answer asked for, and only the answer read."""

from typing import Any

import pytest
import torch

from darwin_lab.errors import LabError
from darwin_lab.progress import silent
from darwin_lab.scoring.asking import asked_of, score_generation
from darwin_lab.scoring.extract import extract
from darwin_lab.scoring.generation import Prompt, write
from darwin_lab.scoring.items import Item
from darwin_lab.scoring.letters import drawn_order
from darwin_lab.scoring.protocols import Call
from darwin_lab.scoring.questions import Asking
from darwin_lab.scoring.thinking import SPENT, Thought, tags_of, thought_after
from tests.scoring.models import item, resident
from tests.scoring.test_generation import Scripted

OPENED = "{% for m in messages %}{{ m.content }}{% endfor %}[a]<think>\n{# </think> #}"
LETTERED = item(0, "which?", ["red", "green", "blue"], 2, extract="letter")
PLAIN = Item("g", "t", "q", None, "z")


def thinker(monkeypatch: pytest.MonkeyPatch, says: str, template: str = OPENED) -> Any:
    """A model that writes `says`, whatever it is asked, and then ends."""
    model = resident()
    model.tokenizer.chat_template = template
    ids = model.tokenizer.encode(says, add_special_tokens=False)
    monkeypatch.setattr(model, "logits", Scripted([*ids, model.tokenizer.eos_token_id]))
    return model


def reply(model: Any, entry: Item, **how: Any) -> Any:
    return asked_of(model, [entry], Asking(**{"max_new_tokens": 40, "chat": True, **how}))([Call(0, 0, 0.0)], silent)[0]


def test_a_thought_that_ends_in_time_is_no_part_of_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    says = "ANSWER: A\nor not</think>\n\nANSWER: B"
    found = reply(thinker(monkeypatch, says), LETTERED, thinking=True, thinking_budget=100)
    assert found.text == "ANSWER: B"
    assert found.answer == drawn_order("i0", 3, 0, 0)[1]


def test_a_spent_budget_closes_the_thought_and_asks_for_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    model = resident()
    model.tokenizer.chat_template = OPENED
    endless, letter = (model.tokenizer.encode(text, add_special_tokens=False) for text in (" well", "C"))
    seen: list[list[int]] = []
    forward = model.backbone.forward

    def watched(*args: object, **kwargs: object) -> object:
        seen.append(kwargs["input_ids"][0].tolist())
        return forward(*args, **kwargs)

    def logits(hidden: torch.Tensor) -> torch.Tensor:
        written = model.tokenizer.decode([token for row in seen[1:] for token in row])
        values = torch.zeros(len(hidden), 320)
        asked, answered = written.endswith("ANSWER:"), written.endswith("ANSWER:C")
        values[:, letter[0] if asked else model.tokenizer.eos_token_id if answered else endless[0]] = 1.0
        return values

    monkeypatch.setattr(model.backbone, "forward", watched)
    monkeypatch.setattr(model, "logits", logits)
    found = reply(model, LETTERED, thinking_budget=7, max_new_tokens=3)
    written = model.tokenizer.decode([token for row in seen[1:] for token in row])
    assert found.text == "ANSWER:C"
    assert found.answer == drawn_order("i0", 3, 0, 0)[2]
    assert f"{SPENT}</think>\n\nANSWER:" in written
    assert seen[1 : 1 + 7] == [endless[:1]] * 7, "seven tokens of thought, then the closing"


def test_an_answer_after_a_spent_budget_has_all_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    model = thinker(monkeypatch, "z " * 200)
    thought = thought_after(model.tokenizer, "<think>\n", 5, "")
    assert thought is not None
    (found,) = write(model, [Prompt((5, 6, 7), "p", most=4, thought=thought)])
    assert found.tokens == 5 + len(thought.ending) + 4
    assert found.thought.endswith("</think>")
    assert found.text.strip("z ") == ""


def test_stops_count_in_the_answer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = thinker(monkeypatch, "one\ntwo\n</think>\n\nz\nnever read")
    assert reply(model, PLAIN).answer == "z"


def test_a_model_that_opens_its_thought_itself_is_read_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}[a]{# <think> </think> #}"
    assert reply(thinker(monkeypatch, "<think>\nx\ny</think>z", template), PLAIN).answer == "z"
    assert reply(thinker(monkeypatch, "z\nx", template), PLAIN).answer == "z"


@pytest.mark.parametrize("says", ["ANSWER: B and B and B", "ANSWER: B</think>", "ANSWER: B</think>  \n"])
def test_a_thought_without_an_answer_is_counted_invalid(monkeypatch: pytest.MonkeyPatch, says: str) -> None:
    model = thinker(monkeypatch, says)
    score = score_generation(model, [LETTERED], 30, how=Asking(chat=True))
    assert score.benchmarks()["t"].invalid == 1
    assert score.predictions == ("",)


def test_a_budget_that_does_not_fit_the_context_names_the_item(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LabError, match=r"'g': its prompt of \d+ tokens, 480 of thought .* smaller --thinking-budget"):
        reply(thinker(monkeypatch, "z"), PLAIN, thinking_budget=480)


def test_a_budget_makes_sense_in_a_thinking_chat_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LabError, match="needs a chat with thinking on"):
        Asking(thinking_budget=9)
    with pytest.raises(LabError, match="needs a chat with thinking on"):
        Asking(chat=True, thinking=False, thinking_budget=9)
    with pytest.raises(LabError, match="give 1 or more"):
        Asking(chat=True, thinking_budget=0)
    with pytest.raises(LabError, match="marks no thoughts"):
        reply(thinker(monkeypatch, "z", "{{ messages[0].content }}"), PLAIN, thinking_budget=9)


def test_a_prompt_is_inside_a_thought_when_it_opened_one_and_did_not_close_it() -> None:
    tokenizer = resident().tokenizer
    tokenizer.chat_template = "[/THINK]"
    assert tags_of(tokenizer) == ("[THINK]", "[/THINK]")
    assert thought_after(tokenizer, "a[THINK]", None, "") == Thought("[THINK]", "[/THINK]", True)
    assert thought_after(tokenizer, "a[THINK]\n\n[/THINK]\n", None, "") == Thought("[THINK]", "[/THINK]", False)
    tokenizer.chat_template = "none"
    assert thought_after(tokenizer, "a", None, "") is None


def test_a_thought_that_the_prompt_opened_is_no_answer_of_an_endpoint_either() -> None:
    assert extract("ANSWER: A\nno</think>\nANSWER: C", "letter") == "C"
    assert extract("12</think>", "number") is None
    assert extract("<think>12</think> 13", "number") == "13"
