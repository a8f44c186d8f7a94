"""The expert health of one model: each line says what is there, and only what the tokens can certify."""

from dataclasses import replace

import numpy as np
from made_scans import EXPERTS, LAYERS, made_scan, with_dead

from darwin_lab.mri.expert_health import expert_verdicts


def lines(scan):
    return {line.metric: line for line in expert_verdicts(scan.expert_report())}


def test_an_even_model_passes_every_limit():
    found = lines(made_scan(tokens=1000))
    assert all(line.ok is not False for line in found.values())
    assert (found["dead experts"].text, found["dead experts"].status) == ("0.0 %", "none")
    assert found["load entropy"].text == "1.000"
    assert found["busiest expert"].text == "1.00 × even"


def test_a_dead_expert_is_counted_and_its_layer_named():
    found = lines(with_dead(made_scan(tokens=1000), 2, 5))
    assert found["dead experts"].text == f"{100 / (LAYERS * EXPERTS):.1f} %"
    assert "L2" in found["dead experts"].status
    assert found["dead experts"].ok is False
    assert found["dead by presence"].text == found["dead experts"].text


def test_too_few_tokens_give_no_percentage():
    line = lines(made_scan(tokens=4))["dead experts"]
    assert (line.text, line.ok) == ("–", None)
    assert "needed" in line.meaning


def test_the_load_entropy_is_told_beside_the_most_the_dead_experts_leave_room_for():
    dead = made_scan(tokens=1000)
    for expert in range(0, EXPERTS, 2):
        dead = with_dead(dead, 1, expert)
    line = lines(dead)["load entropy"]
    most = (3 + np.log(EXPERTS / 2) / np.log(EXPERTS)) / LAYERS
    assert line.status.endswith(f"at most {most:.3f} with its dead experts")
    assert line.ok is False
    assert line.status.startswith(f"1 of {LAYERS} layers below 0.9 · lowest L1")
    assert line.meaning == lines(made_scan(tokens=1000))["load entropy"].meaning


def test_a_router_that_does_not_choose_is_named():
    scan = made_scan()
    undecided = {
        probe: {**known, "token_entropy": known["token_entropy"].copy()} for probe, known in scan.router.items()
    }
    for known in undecided.values():
        known["token_entropy"][3] = np.log(EXPERTS)
    line = lines(replace(scan, router=undecided))["token entropy"]
    assert line.ok is False
    assert line.status == "hardly chooses · L3"


def test_experts_that_answer_alike_are_beyond_the_limit():
    scan = made_scan()
    alike = {
        probe: {**known, "output_similarity": np.linspace(0.1, 0.9, LAYERS), "similarity_tokens": np.asarray([8])}
        for probe, known in scan.router.items()
    }
    line = lines(replace(scan, router=alike))["output similarity"]
    assert line.ok is False
    assert line.status.endswith("highest L3 0.900")
