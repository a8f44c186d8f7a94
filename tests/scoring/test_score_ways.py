"""`score` from the shell in its other ways: streamed, taken up after a stop, from an endpoint, with lm-eval's tasks."""

import json
from pathlib import Path
from typing import Any

import pytest

from darwin_lab.cli import build_parser, main
from darwin_lab.errors import Cancelled
from darwin_lab.scoring import harness
from darwin_lab.verbs import score as verb
from tests.families import write_family_pair
from tests.scoring.openai_server import Answer, refused, said, serving
from tests.scoring.test_endpoint_thinking import thinker
from tests.scoring.test_score_verb import run, score


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Two items to be written and two with choices."""
    path = tmp_path / "items.jsonl"
    path.write_text(
        "".join(
            json.dumps({"id": f"q{n}", "task": "T", "question": f"what is {n}", "answer": answer, **more}) + "\n"
            for n, (answer, more) in enumerate(
                [("0", {}), ("1", {}), (0, {"choices": ["2", "3"]}), (1, {"choices": ["2", "3"]})]
            )
        )
    )
    return path


def test_a_streamed_score_is_the_one_held_in_memory_and_says_what_it_read(capsys, tmp_path: Path) -> None:
    whole = score(capsys, "--samples", tmp_path / "whole", "--stream", "never")
    streamed = score(capsys, "--samples", tmp_path / "streamed", "--stream", "always")
    assert streamed["streamed"]["bytes_read"] > 1_000_000
    assert "streamed" not in whole
    for mine, yours in zip(rows(tmp_path / "streamed"), rows(tmp_path / "whole"), strict=True):
        assert mine["loglik"] == pytest.approx(yours["loglik"], abs=1e-4)
        assert mine["prediction"] == yours["prediction"]
    out = run(capsys, "score", "family:father", "--limit", 2, "--stream", "always")[1]
    assert "streamed, one layer in memory" in out.splitlines()[1]


def test_written_answers_refuse_a_streamed_model_in_one_line(capsys) -> None:
    code, out, err = run(capsys, "score", "family:father", "--limit", 2, "--stream", "always", "--protocol", "greedy")
    assert (code, out) == (2, "")
    assert "hold it in memory with --stream never, or serve it and give --endpoint" in err


@pytest.mark.parametrize(
    "how", [("--limit", "12"), ("--limit", "3", "--protocol", "majority", "--k", "2", "--max-new-tokens", "3")]
)
def test_a_stopped_score_is_taken_up_by_the_same_command(how: tuple[str, ...], tmp_path: Path) -> None:
    def arguments(samples: Path) -> Any:
        return build_parser().parse_args(["score", "family:mother", *how, "--samples", str(samples)])

    verb.run(arguments(tmp_path / "whole"), lambda done, words: None)
    seen: list[str] = []

    def stop(done: float, words: str) -> None:
        seen.append(words)
        if sum("batch" in word for word in seen) == 3:
            raise Cancelled

    stopped = tmp_path / "stopped"
    with pytest.raises(Cancelled):
        verb.run(arguments(stopped), stop)
    (kept,) = tmp_path.glob(".stopped.partial-*")
    assert len(kept.read_bytes().split(b"\n")) > 2
    assert not stopped.exists()
    seen.clear()
    verb.run(arguments(stopped), lambda done, words: seen.append(words))
    assert stopped.read_text() == (tmp_path / "whole").read_text()
    assert not list(tmp_path.glob(".*partial*")), "nothing of it stays"


def test_a_served_model_is_scored_with_the_same_records(capsys, tmp_path: Path, questions: Path) -> None:
    def knows(number: int, path: str, payload: dict[str, Any]) -> Answer:
        said_last = payload["messages"][-1]["content"]
        return said(path, {"0": "0", "1": "never", "2": "2", "3": ""}[said_last.split("what is ")[1][0]])

    with serving(knows) as served:
        code, out, err = run(
            capsys, "score", "--endpoint", served.url, "--endpoint-model", "org/child", "--items", questions, "--chat",
            "--extract", "line", "--samples", tmp_path / "rows", "--json",
        )  # fmt: skip
    assert (code, err) == (0, "")
    data = json.loads(out)
    assert (data["model"], data["endpoint"]) == ("org/child", f"{served.url}/v1")
    assert [row["prediction"] for row in rows(tmp_path / "rows")] == ["0", "never", "2", ""]
    assert data["benchmarks"]["T"]["acc"] == 0.5
    assert data["benchmarks"]["T"]["invalid"] == 1
    assert data["protocol"]["name"] == "greedy"
    assert {payload["model"] for _, payload in served.requests} == {"org/child"}
    assert not list(tmp_path.glob(".rows.partial-*"))


def test_a_model_that_never_answers_is_shown_as_invalid(capsys, questions: Path) -> None:
    with serving(lambda number, path, payload: said(path, "")) as served:
        out = run(capsys, "score", "child", "--endpoint", served.url, "--items", questions)[1]
    assert "4 of 4 never answered" in out
    row = next(line for line in out.splitlines() if line.startswith("T "))
    assert row.split()[-1] == "4"


def test_a_server_that_refuses_ends_in_one_line(capsys, questions: Path) -> None:
    with serving(lambda number, path, payload: refused(404, "no such model")) as served:
        code, out, err = run(capsys, "score", "child", "--endpoint", served.url, "--items", questions)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert "knows no model 'child'" in err
    assert err.count("\n") == 1


def test_lm_eval_that_is_not_installed_is_one_line_with_the_remedy(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness.importlib.util, "find_spec", lambda name: None)
    code, out, err = run(capsys, "score", "family:father", "--lm-eval", "arc_easy")
    assert (code, out) == (2, "")
    assert err == f"error: {harness.MISSING}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no MODEL; give a folder"),
        (("child", "--endpoint", "http://localhost:1", "--stream", "always"), "an endpoint only writes answers"),
        (("child", "--endpoint", "http://localhost:1", "--letters"), "an endpoint only writes answers"),
        (("family:father", "--key-env", "KEY"), "belong to --endpoint URL"),
        (("family:father", "--endpoint-model", "x"), "belong to --endpoint URL"),
        (("family:father", "--chat"), "give --protocol"),
        (("family:father", "--thinking-budget", "9"), "give --protocol"),
        (("family:father", "--protocol", "greedy", "--thinking-budget", "9"), "needs a chat with thinking on"),
        (("family:father", "--lm-eval", "arc_easy", "--letters"), "leave out --items"),
    ],
)
def test_what_makes_no_sense_together_is_said(capsys, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = run(capsys, "score", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("stream", ["never", "always"])
@pytest.mark.parametrize(
    ("question", "message"),
    [("many " * 40, "item 'x' takes 2"), ("물은 무엇인가", "the model's tokenizer has no token for '물은무엇인가'")],
)
def test_a_prompt_too_long_or_in_another_language_names_its_item(
    capsys, tmp_path: Path, stream: str, question: str, message: str
) -> None:
    model = write_family_pair("llama", tmp_path)[0]
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps({"id": "x", "task": "T", "question": question, "choices": ["a", "b"], "answer": 0}))
    assert main(["score", str(model), "--items", str(path), "--stream", stream]) == 2
    assert message in capsys.readouterr().err


def choosing(number: int, path: str, payload: dict[str, Any]) -> Answer:
    """A model that knows that the answer to "what is N" is N - 2 or N - 1, and finds its letter in the prompt."""
    asked = payload["prompt"]
    wanted = "2" if "what is 2" in asked else "3"
    return said(path, next(f"ANSWER: {line[0]}" for line in asked.split("\n") if line[1:] == f". {wanted}"))


def of_choices(path: Path, *more: dict[str, Any]) -> Path:
    """Two items whose right choices are 2 and 3, and what else is given."""
    made = [
        {"id": f"c{n}", "task": "T", "question": f"what is {n}", "choices": ["2", "3"], "answer": n - 2} for n in (2, 3)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*made, *more]))
    return path


def test_choices_that_are_to_be_written_are_shown_and_read_by_letter(capsys, tmp_path: Path) -> None:
    items = of_choices(tmp_path / "items.jsonl")
    with serving(choosing) as served:
        asked = ("score", "child", "--endpoint", served.url, "--items", items, "--json")
        bench = json.loads(run(capsys, *asked)[1])["benchmarks"]["T"]
        prompts = [payload["prompt"] for _, payload in served.requests]
        assert (bench["acc"], bench["invalid"], bench["chance"]) == (1.0, 0, 0.5)
        assert all("A. " in prompt and "ANSWER: LETTER" in prompt for prompt in prompts)
        run(capsys, *asked, "--extract", "line")
        assert served.requests[-1][1]["prompt"] in ("Question: what is 2\nAnswer:", "Question: what is 3\nAnswer:")


def test_an_items_own_extraction_stays_and_a_written_item_is_read_by_line(capsys, tmp_path: Path) -> None:
    own = {"id": "own", "task": "O", "question": "what is 2", "choices": ["2", "3"], "answer": 0}
    items = of_choices(
        tmp_path / "items.jsonl", {**own, "meta": {"extract": "number"}},
        {"id": "plain", "task": "P", "question": "what is it", "answer": "two"},
    )  # fmt: skip

    def answers(number: int, path: str, payload: dict[str, Any]) -> Answer:
        if "LETTER" in payload["prompt"]:
            return choosing(number, path, payload)
        return said(path, "two" if "what is it" in payload["prompt"] else "it is 2.0")

    with serving(answers) as served:
        out = run(capsys, "score", "child", "--endpoint", served.url, "--items", items, "--json")[1]
    assert [bench["acc"] for bench in json.loads(out)["benchmarks"].values()] == [1.0, 1.0, 1.0]


def test_adaptive_over_an_endpoint_says_what_its_gate_does_without_margins(capsys, tmp_path: Path) -> None:
    items = of_choices(tmp_path / "items.jsonl")
    sentence = "the endpoint gave no probabilities, so the confidence gate sent all 2 items to stage 2"
    with serving(choosing) as served:
        asked = ("score", "child", "--endpoint", served.url, "--items", items, "--protocol")
        out = run(capsys, *asked, "adaptive")[1]
        assert "stage 2 samples: 2 items" in out
        assert out.count(sentence) == 1
        for other in (("adaptive", "--gate", "oracle"), ("greedy",)):
            assert "no probabilities" not in run(capsys, *asked, *other)[1]


def test_a_thinking_budget_over_an_endpoint_is_kept_and_what_it_did_is_said(capsys, tmp_path: Path) -> None:
    path = of_choices(tmp_path / "items.jsonl")
    how = ("--endpoint-model", "child", "--chat", "--thinking", "on", "--thinking-budget", "4", "--max-new-tokens", "9")
    for server, kept_by, closed, lost, sentence in (
        (
            thinker("one two three four five"),
            "a second request",
            2,
            0,
            "thinking budget 4: 2 of 2 thoughts were closed",
        ),
        (
            thinker("one " * 20, continues=False),
            "max_tokens",
            0,
            2,
            "4 + 9 tokens bound thought and answer together: 2 of",
        ),
    ):
        with serving(server) as served:
            asked = ("score", "--endpoint", served.url, "--items", path, *how)
            data = json.loads(run(capsys, *asked, "--json")[1])
            assert sentence in run(capsys, *asked)[1]
        assert data["thinking"] == {"budget": 4, "kept_by": kept_by, "answers": 2, "closed": closed, "lost": lost}
        assert [bench["invalid"] for bench in data["benchmarks"].values()] == [lost]


HELD = {"id": "held", "task": "H", "question": "which?\n(A) red\n(B) blue", "choices": ["(A)", "(B)"], "answer": 1}
ONE_ORDER = "1 of 3 items have their letters in the question, so their options are shown in one order only"


def test_items_whose_order_cannot_be_changed_are_named_where_orders_are_asked_for(capsys, tmp_path: Path) -> None:
    items = of_choices(tmp_path / "items.jsonl", HELD)
    assert ONE_ORDER in run(capsys, "score", "family:father", "--items", items, "--letters")[1]
    assert "one order only" not in run(capsys, "score", "family:father", "--items", items)[1]
    with serving(lambda number, path, payload: said(path, "ANSWER: B")) as served:
        asked = ("score", "child", "--endpoint", served.url, "--items", items, "--protocol")
        for how in (("majority", "--k", 2), ("adaptive",)):
            assert ONE_ORDER in run(capsys, *asked, *how)[1]
        for how in (("greedy",), ("majority", "--k", 2, "--extract", "line")):
            code, out, _ = run(capsys, *asked, *how)
            assert code == 0
            assert "one order only" not in out


def test_letters_of_an_item_that_holds_them_are_scored_as_they_stand(capsys, tmp_path: Path) -> None:
    items = of_choices(tmp_path / "items.jsonl", HELD)
    found = {}
    for how in ((), ("--letters",)):
        run(capsys, "score", "family:father", "--items", items, *how, "--samples", tmp_path / "rows")
        found[how] = rows(tmp_path / "rows")[2]
    plain, letters = found.values()
    assert letters["prediction"] == plain["prediction"]
    first, second = ([value - row["loglik"][0] for value in row["loglik"]] for row in (plain, letters))
    assert first == pytest.approx(second, abs=1e-4)


@pytest.mark.parametrize(("how", "cut", "prompts"), [((), ["long"], 3), (("--letters",), ["long#0", "long#1"], 6)])
def test_prompts_that_were_cut_are_counted_and_named(
    capsys, tmp_path: Path, how: tuple[str, ...], cut: list[str], prompts: int
) -> None:
    model = "family:father"
    long = {"id": "long", "task": "L", "question": "many " * 1100, "choices": ["two", "three"], "answer": 0}
    asked = ("score", model, "--items", of_choices(tmp_path / "items.jsonl", long), *how, "--cut-long")
    data = json.loads(run(capsys, *asked, "--json")[1])
    assert data["cut"] == {"prompts": prompts, "ids": cut}
    out = run(capsys, *asked)[1]
    assert f"{len(cut)} of {prompts} prompts were cut to the context; first {cut[0]}" in out
    short = ("score", model, "--items", of_choices(tmp_path / "items.jsonl"))
    assert "0 of 2 prompts were cut to the context\n" in run(capsys, *short, "--cut-long")[1]
    assert "cut to the context" not in run(capsys, *short)[1]
