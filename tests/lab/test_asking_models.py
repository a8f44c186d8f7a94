"""Asking several models: each answers, all can be read at any time, and one that cannot harms no other."""

import json
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from darwin_lab.errors import Cancelled, LabError
from darwin_lab.genome.genome import neutral_genome
from darwin_lab.lab.chat import Reply
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.scoring.chat import Manner


def test_father_mother_and_child_answer_side_by_side_and_the_answers_outlive_the_lab(lab: Lab, pair: Pair) -> None:
    child = lab.recipe(pair, neutral_genome("v6", pair.anatomy.layers)).hash
    job = lab.chat.ask(pair, "1+2=", ["father", "mother", child], Manner(6))
    lab.wait(job)
    replies = lab.chat.replies(job)
    assert [(reply.model, reply.state) for reply in replies] == [
        ("father", "done"),
        ("mother", "done"),
        (child, "done"),
    ]
    assert all(reply.tokens > 0 and reply.note for reply in replies)
    lab.chat._live.clear()
    assert lab.chat.replies(job) == replies


def test_an_answer_that_was_stopped_keeps_what_was_said(lab: Lab, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    job = lab.chat.ask(pair, "1+2=", ["father", "mother"], Manner(200, temperature=2.0))

    def stop(fraction: float, words: str) -> None:
        if "writes" in words:
            raise Cancelled(words)

    with pytest.raises(Cancelled):
        lab.wait(job, stop)
    with suppress(Cancelled):
        lab.wait(job)
    replies = lab.chat.replies(job)
    assert replies[0].state in ("stopped", "done")
    assert replies[1].state in ("stopped", "done"), "nobody waits for a turn that never comes"
    assert all(reply.note == "stopped" for reply in replies if reply.state == "stopped")


def test_an_ask_that_was_stopped_in_the_queue_leaves_nobody_waiting(lab: Lab, pair: Pair) -> None:
    hold = threading.Event()
    lab.chat._bench.jobs.submit("held", "Holds the worker", lambda tick: hold.wait(30), interactive=True)
    job = lab.chat.ask(pair, "1+2=", ["father", "mother"], Manner(4))
    assert [reply.state for reply in lab.chat.replies(job)] == ["waiting", "waiting"]
    lab.cancel(job)
    hold.set()
    with pytest.raises(Cancelled):
        lab.wait(job)
    assert [(reply.state, reply.note) for reply in lab.chat.replies(job)] == [("stopped", "stopped")] * 2


TEMPLATE = (
    "{% for m in messages %}{{ m.content }}{% endfor %}{% if enable_thinking is defined and enable_thinking %}<think>"
    "{% endif %}{# </think> #}"
)


def test_models_with_and_without_a_chat_template_are_asked_each_as_it_has_it(
    lab: Lab, pair: Pair, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(pair.mother.folder, tmp_path / "chatty"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": TEMPLATE}))
    chatty = lab.benchmarks.add_folder(pair, folder).key

    def ask(**how: Any) -> list[Reply]:
        job = lab.chat.ask(pair, "1+2=", ["mother", chatty], Manner(6, **how))
        lab.wait(job)
        return lab.chat.replies(job)

    plain, same = ask(thinking=False)
    assert (plain.chat, same.chat) == (False, True)
    assert (plain.text, plain.tokens) == (same.text, same.tokens), "the template adds nothing but the way it is asked"
    assert plain.text
    plain, thoughtful = ask(thinking=True, temperature=1.0)
    assert (bool(plain.text), plain.thought) == (True, ""), "a model without a template knows no thinking"
    assert (thoughtful.text, bool(thoughtful.thought)) == ("", True)
    refused, _ = ask(chat=True)
    assert refused.state == "failed" and "no chat template" in refused.note
    warm = {ask(temperature=2.0, seed=seed)[0].text for seed in (1, 1, 2, 3, 4)}
    assert 1 < len(warm) < 5


def test_what_one_model_cannot_do_is_its_note(lab: Lab, pair: Pair) -> None:
    job = lab.chat.ask(pair, "1+2=", ["father"], Manner(4, chat=True))
    lab.wait(job)
    (reply,) = lab.chat.replies(job)
    assert (reply.state, "no chat template" in reply.note) == ("failed", True)


@pytest.mark.parametrize(
    ("prompt", "models", "words"),
    [("", ["father"], "write a prompt"), ("x", [], "choose 1 to"), ("x", ["nobody"], "no child 'nobody'")],
)
def test_bad_questions_are_refused_at_once(lab: Lab, pair: Pair, prompt: str, models: list[str], words: str) -> None:
    with pytest.raises(LabError, match=words):
        lab.chat.ask(pair, prompt, models, Manner())


def test_speed_is_measured_once_and_kept(lab: Lab, pair: Pair) -> None:
    assert lab.chat.speed(pair, "father") is None
    lab.wait(lab.chat.request_speed(pair, "father"))
    rows = lab.chat.speed(pair, "father")
    assert rows is not None and [row["batch"] for row in rows] == [1, 4, 16]
    assert lab.chat.speed(pair, "mother") is None
