"""One prompt answered: what is told on the way is what comes out, and why it ended."""

import pytest

from darwin_lab.errors import Cancelled, LabError
from darwin_lab.scoring.chat import Manner, Said, converse
from darwin_lab.scoring.generation import Prompt, write
from darwin_lab.scoring.prompt import encode
from darwin_lab.scoring.speed import speed_test
from tests.scoring.models import resident

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}{% if enable_thinking is defined and enable_thinking %}<think>{% endif %}{% endif %}"
    "{# </think> #}"
)


def test_the_answer_is_told_token_by_token_and_is_what_generation_writes() -> None:
    model, told = resident("llama", seed=3), []
    said = converse(model, "two and two", Manner(max_new_tokens=9), told.append)
    (plain,) = write(model, [Prompt(tuple(encode(model.tokenizer, ["two and two"])[0]), "p", stops=(), most=9)])
    assert (said.text, said.tokens) == (plain.text, plain.tokens)
    assert [one.tokens for one in told][: plain.tokens] == list(range(1, plain.tokens + 1))
    assert all(said.text.startswith(one.text[:1]) for one in told) and told[-1].text == said.text
    assert said.ended == ("length" if plain.tokens == 9 else "end")
    assert 0 < said.first <= said.seconds and not said.chat


def test_draws_belong_to_the_seed() -> None:
    model = resident("llama", seed=3)

    def warm(seed: int) -> str:
        return converse(model, "two", Manner(12, temperature=1.5, seed=seed), lambda said: None).text

    assert warm(1) == warm(1)
    assert len({warm(seed) for seed in range(6)}) > 1


def test_what_watches_can_stop_the_writing() -> None:
    def stop(said: Said) -> None:
        if said.tokens == 2:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        converse(resident("llama", seed=3), "two", Manner(50, temperature=1.0), stop)


def test_a_chat_template_is_used_where_there_is_one_and_a_thought_is_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = resident("llama", seed=3)
    with pytest.raises(LabError, match="no chat template"):
        converse(model, "two", Manner(chat=True), lambda said: None)
    monkeypatch.setattr(model.tokenizer, "chat_template", TEMPLATE)
    plain = converse(model, "two", Manner(6, chat=False), lambda said: None)
    thinking = converse(model, "two", Manner(6, thinking=True), lambda said: None)
    assert thinking.chat and not plain.chat
    assert thinking.prompt_tokens > plain.prompt_tokens
    assert thinking.thought and not thinking.text


@pytest.mark.parametrize(
    ("manner", "words"),
    [
        ({"max_new_tokens": 0}, "ask for 1 to"),
        ({"temperature": 2.5}, "outside 0 to 2"),
        ({"temperature": -1}, "outside"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(manner: dict[str, float], words: str) -> None:
    with pytest.raises(LabError, match=words):
        Manner(**manner)  # type: ignore[arg-type]


def test_an_empty_prompt_and_one_beyond_the_context_are_refused() -> None:
    model = resident("llama", seed=3)
    with pytest.raises(LabError, match="nothing to answer"):
        converse(model, " \n", Manner(), lambda said: None)
    with pytest.raises(LabError, match="the model reads"):
        converse(model, "two " * model.context_length, Manner(), lambda said: None)


def test_speed_is_told_by_batch_size_with_its_range_and_says_what_did_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = resident("llama", seed=3)
    one, four = speed_test(model, (4, 1), prompt_tokens=8, written_tokens=3, repeats=2)
    assert (one.batch, four.batch) == (1, 4)
    for rate in (one.reading, one.writing, four.reading, four.writing):
        assert rate is not None and 0 < rate[1] <= rate[0] <= rate[2]

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("darwin_lab.scoring.speed._measure", lambda *asked: full() if asked[1] == 4 else (10.0, 5.0))
    assert [row.reading for row in speed_test(model, (1, 4), repeats=1)] == [(10.0, 10.0, 10.0), None]


def test_a_streamed_model_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = resident("llama", seed=3)
    monkeypatch.setattr(model, "streamed", True, raising=False)
    with pytest.raises(LabError, match="streamed"):
        speed_test(model)
