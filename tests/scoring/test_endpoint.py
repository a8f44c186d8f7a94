"""Answers from a real local server: what is sent, what is made of what comes back, and every way it can go wrong."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from darwin_lab.errors import Cancelled, LabError
from darwin_lab.progress import silent
from darwin_lab.scoring.asking import score_of
from darwin_lab.scoring.endpoint import Endpoint
from darwin_lab.scoring.items import Item
from darwin_lab.scoring.kept import Kept, rows_so_far
from darwin_lab.scoring.letters import drawn_order
from darwin_lab.scoring.protocols import Call, adaptive, greedy, majority
from darwin_lab.scoring.questions import Asking, golds_of
from tests.scoring.models import item
from tests.scoring.openai_server import Answer, refused, said, serving

WRITTEN = [Item(f"g{n}", "t", f"what is {n}", None, str(n)) for n in range(12)]
LETTERED = item(0, "which?", ["red", "green", "blue"], 2, extract="letter")
CHAT = Asking(max_new_tokens=32, chat=True)


def number_in(payload: dict[str, Any]) -> str:
    text = payload["prompt"] if "prompt" in payload else payload["messages"][-1]["content"]
    return text.split("what is ")[-1].split("\n")[0]


def knows(number: int, path: str, payload: dict[str, Any]) -> Answer:
    """A model that knows every answer, and goes on writing after it."""
    return said(path, f" {number_in(payload)}\nQuestion: and")


def endpoint(url: str, **settings: Any) -> Endpoint:
    return Endpoint(url, "child", **{"pause": 0.001, "timeout": 10.0, **settings})


@pytest.mark.parametrize("how", [Asking(max_new_tokens=9), CHAT])
def test_answers_become_the_records_a_model_in_memory_gives(how: Asking) -> None:
    with serving(knows) as served:
        outcome = greedy(golds_of(WRITTEN), endpoint(served.url).asked(WRITTEN, how))
    score = score_of(WRITTEN, outcome)
    assert score.predictions == tuple(str(n) for n in range(12))
    assert score.acc.all()
    path, payload = served.requests[0]
    assert path == ("/v1/chat/completions" if how.chat else "/v1/completions")
    assert payload["model"] == "child"
    assert payload["max_tokens"] == how.max_new_tokens
    assert payload["temperature"] == 0


def test_a_completion_is_asked_with_the_prompt_and_stops_of_a_model_in_memory() -> None:
    with serving(knows) as served:
        endpoint(f"{served.url}/v1/").asked(WRITTEN)([Call(3, 0, 0.0)], silent)
    assert served.requests[0][1]["prompt"] == "Question: what is 3\nAnswer:"
    assert served.requests[0][1]["stop"] == ["\n"]
    assert served.keys == [None]


def test_a_second_turn_and_thinking_reach_the_chat() -> None:
    with serving(lambda number, path, payload: said(path, "<think>A? ANSWER: C</think>ANSWER: B")) as served:
        ask = endpoint(served.url).asked([LETTERED], Asking(chat=True, thinking=True))
        (reply,) = ask([Call(0, 9, 0.7, 1, (2, 0))], silent)
    payload = served.requests[0][1]
    assert [message["role"] for message in payload["messages"]] == ["user", "assistant", "user"]
    assert payload["chat_template_kwargs"] == {"enable_thinking": True}
    assert "stop" not in payload, "a stop would cut the thought"
    assert reply.answer == drawn_order("i0", 3, 0, 1)[1]


def test_every_sample_has_a_seed_of_its_own_that_comes_back() -> None:
    with serving(knows) as served:
        for _ in range(2):
            majority(golds_of(WRITTEN[:2]), endpoint(served.url).asked(WRITTEN[:2], Asking(seed=5)), 3)
    seeds = [sorted(payload["seed"] for _, payload in served.requests[part]) for part in (slice(0, 6), slice(6, 12))]
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0])) == 6


def test_the_three_stages_run_against_a_server() -> None:
    with serving(knows) as served:
        outcome = adaptive(golds_of(WRITTEN[:3]), endpoint(served.url).asked(WRITTEN[:3]))
    assert outcome.right.all()
    assert outcome.calls.tolist() == [9, 9, 9], "without a margin every item has its samples, and agreement ends it"


def test_no_more_requests_are_under_way_than_asked_for() -> None:
    together = threading.Barrier(3)

    def wait_for_two_others(number: int, path: str, payload: dict[str, Any]) -> Answer:
        together.wait(timeout=10)
        return knows(number, path, payload)

    with serving(wait_for_two_others) as served:
        greedy(golds_of(WRITTEN), endpoint(served.url, concurrency=3).asked(WRITTEN))
    assert served.most_at_once == 3


@pytest.mark.parametrize(
    "trouble", [refused(429, "slow down", retry_after="0"), refused(503, "loading"), (502, "", {})]
)
def test_a_server_that_is_busy_is_asked_again(trouble: Answer) -> None:
    def busy_twice(number: int, path: str, payload: dict[str, Any]) -> Answer:
        return trouble if number < 2 else knows(number, path, payload)

    with serving(busy_twice) as served:
        outcome = greedy(golds_of(WRITTEN[:1]), endpoint(served.url).asked(WRITTEN[:1]))
    assert outcome.right.all()
    assert len(served.requests) == 3


def test_a_request_that_times_out_is_sent_again() -> None:
    gone = threading.Event()

    def late_once(number: int, path: str, payload: dict[str, Any]) -> Answer:
        if number == 0:
            gone.wait(timeout=10)
        return knows(number, path, payload)

    with serving(late_once) as served:
        outcome = greedy(golds_of(WRITTEN[:1]), endpoint(served.url, timeout=1.0).asked(WRITTEN[:1]))
        gone.set()
    assert outcome.right.all()
    assert len(served.requests) > 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (refused(401, "bad key"), "refuses a request without a key (HTTP 401: bad key); name the variable"),
        (refused(404, "no such model"), "knows no model 'child' (HTTP 404: no such model)"),
        (refused(400, "maximum context\nlength"), "refuses it (HTTP 400: maximum context length); mend the item"),
        (refused(500, "oh"), "answers HTTP 500: oh, 3 times"),
        ((200, "<html>hello</html>", {}), "something that is no completion ('<html>hello</html>')"),
        ((200, {"choices": []}, {}), "something that is no completion"),
    ],
)
def test_a_refusal_is_one_line_with_what_the_server_said(answer: Answer, message: str) -> None:
    with serving(lambda *asked: answer) as served, pytest.raises(LabError) as raised:
        greedy(golds_of(WRITTEN[:1]), endpoint(served.url, retries=2).asked(WRITTEN[:1]))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(served.requests) == (3 if answer[0] == 500 else 1)


def test_nobody_listening_is_one_line() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(
        LabError, match=rf"127\.0\.0\.1:{port}/v1/completions cannot be reached .*is the server running"
    ):
        greedy(golds_of(WRITTEN), endpoint(f"http://127.0.0.1:{port}").asked(WRITTEN))


def test_the_key_goes_into_the_header_and_into_no_message_or_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(LabError, match="variable LAB_TEST_KEY is not set"):
        Endpoint("http://localhost:1", "child", key_env="LAB_TEST_KEY")
    monkeypatch.setenv("LAB_TEST_KEY", "sk-sec\nret")
    with pytest.raises(LabError, match="variable LAB_TEST_KEY holds no key") as raised:
        Endpoint("http://localhost:1", "child", key_env="LAB_TEST_KEY")
    assert "ret" not in str(raised.value)
    monkeypatch.setenv("LAB_TEST_KEY", "sk-secret\n")

    def echoes(number: int, path: str, payload: dict[str, Any]) -> Answer:
        return refused(403, "sk-secret is not allowed") if number else knows(number, path, payload)

    with serving(echoes) as served, Kept(tmp_path / "kept", {}) as keep, pytest.raises(LabError) as raised:
        server = endpoint(served.url, key_env="LAB_TEST_KEY", concurrency=1)
        greedy(golds_of(WRITTEN), server.asked(WRITTEN, keep=keep))
    assert served.keys[0] == "Bearer sk-secret"
    assert "refuses the key in LAB_TEST_KEY (HTTP 403: *** is not allowed)" in str(raised.value)
    assert "sk-secret" not in (tmp_path / "kept").read_text() + repr(vars(server))


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://host/v1", "http://", "http://host:none", "http://u:p@host/v1"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(LabError, match="address"):
        Endpoint(url, "child")


def test_a_stopped_run_goes_on_with_the_answers_that_came(tmp_path: Path) -> None:
    def run(url: str, tick: Callable[[float, str], None] = silent) -> tuple[Any, ...]:
        with Kept(tmp_path / "kept", {"model": "child"}) as keep:
            return greedy(golds_of(WRITTEN), endpoint(url, concurrency=1).asked(WRITTEN, keep=keep), tick).answers

    with serving(knows) as served:

        def stop(done: float, words: str) -> None:
            if words.startswith("7 answers"):
                raise Cancelled

        with pytest.raises(Cancelled):
            run(served.url, stop)
        came = [row["id"] for row in rows_so_far(tmp_path / "kept")]
        before = len(served.requests)
        assert len(came) == 5
        answers = run(served.url)
    assert answers == tuple(str(n) for n in range(12))
    again = {number_in(payload) for _, payload in served.requests[before:]}
    assert again == {str(n) for n in range(12)} - {name[1:] for name in came}


def test_a_model_that_says_nothing_is_counted_invalid() -> None:
    silent_ones = iter([None, "", " ", "<think>for ever"])
    with serving(lambda number, path, payload: said(path, next(silent_ones))) as served:
        outcome = greedy(golds_of(WRITTEN[:4]), endpoint(served.url, concurrency=1).asked(WRITTEN[:4], CHAT))
    assert outcome.invalid == 4
    assert score_of(WRITTEN[:4], outcome).benchmarks()["t"].invalid == 4
