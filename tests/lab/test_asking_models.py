"""Asking several models: each answers, all can be read at any time, and one that cannot harms no other."""

import pytest

from darwin_lab.errors import Cancelled, LabError
from darwin_lab.genome.genome import neutral_genome
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
    lab.close()
    states = [reply.state for reply in lab.chat.replies(job)]
    assert states[0] in ("stopped", "done")
    assert states[1] in ("waiting", "stopped", "done")


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
