"""Thinking and certainty over an endpoint: budgets on servers of every kind, thoughts kept apart, margins."""

import json
from collections.abc import Callable
from math import log
from pathlib import Path
from typing import Any

import pytest

from darwin_lab.errors import LabError
from darwin_lab.progress import silent
from darwin_lab.scoring.asking import score_of
from darwin_lab.scoring.endpoint import Endpoint
from darwin_lab.scoring.items import Item
from darwin_lab.scoring.kept import Kept
from darwin_lab.scoring.letters import drawn_order
from darwin_lab.scoring.protocols import Call, Outcome, Reply, adaptive, greedy
from darwin_lab.scoring.questions import Asking, golds_of
from darwin_lab.scoring.thinking import SPENT
from tests.scoring.models import item
from tests.scoring.openai_server import Answer, Served, refused, said, serving

LETTERED = item(0, "which?", ["red", "green", "blue"], 2, extract="letter")
SECOND = drawn_order("i0", 3, 0, 0)[1]
BUDGET = Asking(max_new_tokens=9, chat=True, thinking=True, thinking_budget=4)
LONG = "one two three four five six"


def thinker(
    thought: str, answer: str = "ANSWER: B", *, tags: bool = False, continues: bool = True, misfiles: bool = False
) -> Callable[[int, str, dict[str, Any]], Answer]:
    """A server whose tokens are words: it thinks, then answers, `max_tokens` at most. With `tags` the thought stands in
    the text; one that `misfiles` takes whatever follows a given message for a thought."""

    def reply(number: int, path: str, payload: dict[str, Any]) -> Answer:
        last = payload["messages"][-1]
        going = continues and payload.get("continue_final_message", False)
        read = sum(len(message["content"].split()) + 2 for message in payload["messages"]) - going
        thoughts = [] if going else thought.split()
        begun = last["content"].rsplit("</think>", 1)[-1].split() if going else []
        words = answer.split()[len(begun) :]
        most = payload["max_tokens"]
        told, rest = " ".join(thoughts[:most]), " ".join(words[: max(0, most - len(thoughts))])
        cut = len(thoughts) + len(words) > most
        if tags and thoughts:
            return said(
                path, f"<think>{told}" + (f"</think> {rest}" if most > len(thoughts) else ""), read=read, cut=cut
            )
        if going:
            rest = f" {rest}"
        if going and misfiles:
            told, rest = rest, ""
        return said(path, rest or None, read=read, cut=cut, reasoning_content=told or None)

    return reply


def asked(server: Callable[..., Answer], how: Asking = BUDGET) -> tuple[Reply, Endpoint, Served]:
    with serving(server) as served:
        model = Endpoint(served.url, "child", pause=0.001, timeout=10.0)
        (reply,) = model.asked([LETTERED], how)([Call(0, 0, 0.0)], silent)
    return reply, model, served


@pytest.mark.parametrize("how", [{}, {"tags": True}, {"misfiles": True}])
def test_a_spent_thought_is_closed_by_us_and_the_answer_asked_for_in_a_second_request(how: dict[str, bool]) -> None:
    reply, model, served = asked(thinker(LONG, **how))
    assert (reply.answer, reply.thought) == (SECOND, "one two three four")
    assert reply.text == ("ANSWER:B" if "misfiles" in how else "ANSWER: B")
    assert (next(iter(model.said.values())).closed, model.continues) == (True, True)
    first, second = (payload for _, payload in served.requests[2:])
    assert (first["max_tokens"], second["max_tokens"]) == (4, 9)
    assert second["chat_template_kwargs"] == {"enable_thinking": True}
    assert (second["continue_final_message"], second["add_generation_prompt"]) == (True, False)
    assert second["messages"][:-1] == first["messages"]
    assert second["messages"][-1] == {
        "role": "assistant", "content": f"<think>\none two three four{SPENT}</think>\n\nANSWER:",
    }  # fmt: skip


def test_a_thought_within_its_budget_takes_one_request_and_no_trial_shows_an_item() -> None:
    reply, model, served = asked(thinker("short"))
    assert (reply.answer, reply.thought, reply.text) == (SECOND, "short", "ANSWER: B")
    assert len(served.requests) == 3, "two of them try whether the server goes on with a message"
    assert "which?" not in json.dumps([payload for _, payload in served.requests[:2]])
    assert not next(iter(model.said.values())).closed


def test_a_model_that_thinks_again_after_its_thought_was_closed_never_answered() -> None:
    def thinks_again(number: int, path: str, payload: dict[str, Any]) -> Answer:
        going = payload.get("continue_final_message", False)
        return said(path, "<think>perhaps\nANSWER: B", read=9 - going, cut=True)

    reply, model, _ = asked(thinks_again)
    assert model.continues
    assert (reply.answer, reply.text) == (None, "ANSWER:")


def test_an_answer_that_the_budget_cuts_is_gone_on_with() -> None:
    reply, model, served = asked(thinker("one two three"))
    assert (reply.answer, reply.text, reply.thought) == (SECOND, "ANSWER: B", "one two three")
    assert served.requests[-1][1]["messages"][-1]["content"] == "<think>\none two three\n</think>\n\nANSWER:"
    assert not next(iter(model.said.values())).closed


def refuses(server: Callable[..., Answer]) -> Callable[[int, str, dict[str, Any]], Answer]:
    """A server that knows no flag to go on."""

    def reply(number: int, path: str, payload: dict[str, Any]) -> Answer:
        if "continue_final_message" in payload:
            return refused(400, "unrecognized argument")
        return server(number, path, payload)

    return reply


@pytest.mark.parametrize("server", [thinker(LONG * 3, continues=False), refuses(thinker(LONG * 3))])
def test_where_no_server_goes_on_a_thought_that_takes_everything_is_no_answer(server: Callable[..., Answer]) -> None:
    reply, model, served = asked(server)
    (told,) = model.said.values()
    assert (reply.answer, reply.text, told.lost, told.closed) == (None, "", True, False)
    assert reply.thought.startswith("one two three")
    assert (len(served.requests), served.requests[-1][1]["max_tokens"]) == (3, 13)
    reply, model, _ = asked(thinker(LONG, continues=False))
    assert reply.answer == SECOND, "thought and answer have thirteen tokens together"
    assert not next(iter(model.said.values())).lost


def test_a_server_that_marks_no_thoughts_can_keep_no_budget() -> None:
    def babbles(number: int, path: str, payload: dict[str, Any]) -> Answer:
        return said(path, "well let me see", cut=True)

    with pytest.raises(LabError, match=r"item 'i0': .* marks no thought .*start the server with its reasoning parser"):
        asked(babbles)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_a_thought_the_server_hands_over_apart_is_no_answer(field: str) -> None:
    reply, _, served = asked(
        lambda number, path, payload: said(path, "ANSWER: B", **{field: "ANSWER: C"}), Asking(chat=True, thinking=False)
    )
    assert (reply.answer, reply.text, reply.thought) == (SECOND, "ANSWER: B", "ANSWER: C")
    assert served.requests[0][1]["chat_template_kwargs"] == {"enable_thinking": False}


def test_what_is_kept_has_the_thought_apart_and_is_not_asked_again(tmp_path: Path) -> None:
    def run(url: str) -> Outcome:
        with Kept(tmp_path / "kept", {}) as keep:
            ask = Endpoint(url, "child", pause=0.001).asked([LETTERED], BUDGET, keep)
            return greedy(golds_of([LETTERED]), ask)

    with serving(thinker(LONG)) as served:
        first = run(served.url)
        before = len(served.requests)
        assert run(served.url).answers == first.answers
    assert len(served.requests) == before + 2, "only the trial"
    entry = json.loads((tmp_path / "kept").read_text().splitlines()[1])
    assert (entry["value"]["thought"], entry["value"]["closed"]) == ("one two three four", True)
    assert "one two" not in entry["value"]["text"]
    assert entry["rows"][0]["prediction"] == score_of([LETTERED], first).predictions[0]


WRITTEN = [Item(f"g{n}", "t", f"what is {n}", None, str(n)) for n in range(4)]


def certain(number: int, path: str, payload: dict[str, Any]) -> Answer:
    """Knows the even numbers for sure and wavers over the odd ones; gives probabilities where it is asked for them."""
    text = payload["prompt"] if "prompt" in payload else payload["messages"][-1]["content"]
    n = text.split("what is ")[-1].split("\n")[0]
    if "logprobs" not in payload:
        return said(path, f" {n}")
    best, second = (0.97, 0.02) if int(n) % 2 == 0 else (0.55, 0.44)
    if path.endswith("chat/completions"):
        top = [{"token": f" {n}", "logprob": log(best)}, {"token": " x", "logprob": log(second)}]
        end = [{"token": "<end>", "logprob": log(0.5)}, {"token": "\n", "logprob": log(0.49)}]
        entries = [{"token": one[0]["token"], "logprob": 0, "top_logprobs": one} for one in (top, end)]
        return said(path, f" {n}", logprobs={"content": entries})
    tops = [{f" {n}": log(best), " x": log(second)}, {"\n": log(0.5), ".": log(0.49)}]
    return said(path, f" {n}", logprobs={"tokens": [f" {n}", "\n"], "top_logprobs": tops})


@pytest.mark.parametrize("chat", [False, True])
def test_with_probabilities_the_confidence_gate_lets_sure_answers_go(chat: bool) -> None:
    with serving(certain) as served:
        model = Endpoint(served.url, "child")
        outcome = adaptive(golds_of(WRITTEN), model.asked(WRITTEN, Asking(chat=chat), margins=True))
    assert outcome.calls.tolist() == [1, 9, 1, 9]
    assert sorted(round(one.margin, 2) for one in model.said.values() if one.margin) == [0.11, 0.11, 0.95, 0.95]
    assert sum("logprobs" in payload for _, payload in served.requests) == 4, "samples need no margin"


def test_a_server_that_gives_no_probabilities_is_asked_without() -> None:
    def refuses_them(number: int, path: str, payload: dict[str, Any]) -> Answer:
        return refused(400, "logprobs are off") if "logprobs" in payload else certain(number, path, payload)

    with serving(refuses_them) as served:
        model = Endpoint(served.url, "child", concurrency=1)
        outcome = adaptive(golds_of(WRITTEN), model.asked(WRITTEN, margins=True))
    assert outcome.right.all() and outcome.calls.tolist() == [9] * 4
    assert sum("logprobs" in payload for _, payload in served.requests) == 1
    assert all(one.margin is None for one in model.said.values())
