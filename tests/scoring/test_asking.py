from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from darwin_lab.errors import LabError
from darwin_lab.progress import silent
from darwin_lab.scoring.asking import asked_of, score_generation
from darwin_lab.scoring.generation import Prompt, write
from darwin_lab.scoring.items import Item
from darwin_lab.scoring.letters import drawn_order
from darwin_lab.scoring.protocols import Call, adaptive, majority
from darwin_lab.scoring.questions import Asking, answer_in, golds_of, order_of, turns_of
from tests.scoring.models import item, resident
from tests.scoring.test_generation import Scripted

WRITTEN = [
    Item(f"g{n}", "t", question, None, "x") for n, question in enumerate(["two and two", "a longer one", "q", "r"])
]
LETTERED = item(0, "which?", ["red", "green", "blue"], 2, extract="letter")


def sampled(calls: Sequence[Call], seed: int = 0, kind: str = "llama") -> dict[Call, str]:
    ask = asked_of(resident(kind, seed=3), WRITTEN, Asking(max_new_tokens=8, seed=seed))
    return {call: reply.text for call, reply in zip(calls, ask(calls, silent), strict=True)}


@pytest.mark.parametrize("kind", ["llama", "moe"])
def test_a_sampled_answer_depends_on_its_call_and_not_on_its_company(kind: str) -> None:
    calls = [Call(place, sample, 1.5) for place in range(4) for sample in range(3)]
    together = sampled(calls, kind=kind)
    assert sampled(calls[::-1], kind=kind) == together
    assert sampled(calls[4:5], kind=kind)[calls[4]] == together[calls[4]]
    assert len(set(together.values())) > 8


def test_another_seed_gives_other_samples_and_the_same_greedy_answer() -> None:
    calls = [Call(0, 0, 0.0), *(Call(0, sample, 1.5) for sample in range(3))]
    one, other = sampled(calls, seed=0), sampled(calls, seed=1)
    assert one[calls[0]] == other[calls[0]]
    assert one != other


def test_samples_follow_the_models_own_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    model = resident()
    logits = torch.full((320,), -50.0)
    logits[[40, 41, 42]] = torch.tensor([0.7, 0.2, 0.1]).log() * 0.5
    monkeypatch.setattr(model, "logits", lambda hidden: logits.repeat(len(hidden), 1))
    prompts = [Prompt((5, 6), "p", most=1, temperature=0.5, key=(n,)) for n in range(3000)]
    texts = [found.text for found in write(model, prompts)]
    shares = [texts.count(model.tokenizer.decode([token])) / 3000 for token in (40, 41, 42)]
    assert shares == pytest.approx([0.7, 0.2, 0.1], abs=0.03)


def test_the_letter_written_is_the_choice_that_stood_under_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = resident()
    ask = asked_of(model, [LETTERED])
    ids = [*model.tokenizer.encode("ANSWER: B"), model.tokenizer.eos_token_id]
    for showing in range(3):
        monkeypatch.setattr(model, "logits", Scripted(ids))
        (reply,) = ask([Call(0, 0, 0.0, showing)], silent)
        assert reply.answer == drawn_order("i0", 3, 0, showing)[1]
        assert reply.margin == pytest.approx(0, abs=0.01), "320 tokens of almost one logit leave no margin"
    assert golds_of([LETTERED]) == [2]


def test_a_model_that_never_names_a_letter_is_counted_invalid(monkeypatch: pytest.MonkeyPatch) -> None:
    model = resident()
    monkeypatch.setattr(model, "logits", Scripted(model.tokenizer.encode(" well, z z z z")))
    entries = [replace(LETTERED, id=f"n{n}") for n in range(3)]
    score = score_generation(model, entries, max_new_tokens=10)
    assert score.benchmarks()["t"].invalid == 3
    assert score.benchmarks()["t"].n == 3
    assert score.predictions == ("", "", "")
    assert not score.acc.any()
    assert score.invalid == [True] * 3
    assert score.benchmarks()["t"].chance == pytest.approx(1 / 3)


def test_the_second_turn_shows_the_model_its_own_disagreement(monkeypatch: pytest.MonkeyPatch) -> None:
    model = resident()
    seen: list[str] = []
    forward = model.backbone.forward

    def watched(*args: object, **kwargs: object) -> object:
        seen.extend(model.tokenizer.decode(row) for row in kwargs["input_ids"])
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.backbone, "forward", watched)
    asked_of(model, [LETTERED], Asking(max_new_tokens=1))([Call(0, 9, 0.0, 0, (2, 0))], silent)
    order = drawn_order("i0", 3, 0, 0)
    first, second = ("ABC"[order.index(choice)] for choice in (2, 0))
    assert seen[0].count("which?") == 2
    assert f"Answer: {first}\n\nOther tries at this very question answered {second}." in seen[0]


def test_a_protocol_runs_on_a_model_and_repeats_itself() -> None:
    model = resident("llama", seed=3)
    golds, ask = golds_of(WRITTEN), asked_of(model, WRITTEN, Asking(max_new_tokens=4))
    assert majority(golds, ask, 3).answers == majority(golds, ask, 3).answers
    outcome = adaptive(golds, ask)
    assert outcome.calls.min() >= 1
    assert outcome.answers == adaptive(golds, ask).answers


def test_a_chat_goes_through_the_models_template_with_thinking_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    model = resident()
    with pytest.raises(LabError, match="no chat template"):
        asked_of(model, WRITTEN, Asking(chat=True))
    model.tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[a]{% if not enable_thinking %}no{% endif %}"
    )
    seen: list[str] = []
    forward = model.backbone.forward

    def watched(*args: object, **kwargs: object) -> object:
        seen.extend(model.tokenizer.decode(row) for row in kwargs["input_ids"])
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.backbone, "forward", watched)
    asked_of(model, WRITTEN, Asking(1, chat=True, thinking=False))([Call(2, 0, 0.0)], silent)
    assert seen[0] == "[user]Question: q\nAnswer:[a]no"


def test_a_letter_beyond_the_choices_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    model = resident()
    monkeypatch.setattr(model, "logits", Scripted([*model.tokenizer.encode("ANSWER: D"), model.tokenizer.eos_token_id]))
    assert asked_of(model, [LETTERED])([Call(0, 0, 0.0)], silent)[0].answer is None


@pytest.mark.parametrize(
    ("question", "meta", "begins", "cue"),
    [
        ("Which?\n(A) x\n(B) y", {}, "Question: Which?\n(A) x\n(B) y", "Answer:"),
        ("Which?\n(A) x\n(B) y", {"style": "continuation"}, "Which?\n(A) x\n(B) y", "Answer:"),
        ("Which?\n(A) x\n(B) y\n정답: ", {"style": "continuation"}, "Which?\n(A) x\n(B) y", "정답:"),
        ("Choose one:", {"style": "continuation", "prefix": "shot\n\n"}, "shot\n\nChoose one:", "Answer:"),
    ],
)
def test_a_question_that_holds_its_letters_is_only_asked_for_one(
    question: str, meta: dict[str, str], begins: str, cue: str
) -> None:
    held = item(0, question, ["(A)", "(B)"], 1, extract="letter", **meta)
    calls = [Call(0, 0, 0.0), Call(0, 3, 0.7, 3)]
    assert [order_of(held, call, seed) for call in calls for seed in (0, 1)] == [(0, 1)] * 4
    (asked,) = turns_of(held, calls[0], (0, 1))
    assert asked == f'{begins}\nEnd with a line "ANSWER: LETTER", the letter one of AB.\n{cue}'
    assert [answer_in(held, (0, 1), "ANSWER: (B)")] == golds_of([held])
    disputed = turns_of(held, Call(0, 9, 0.7, 0, (1, 0)), (0, 1))
    assert disputed[1] == "B"
    assert disputed[2].startswith("Other tries at this very question answered A.")
