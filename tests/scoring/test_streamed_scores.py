"""Choices scored with one layer in memory: the resident's numbers, each weight read once a pass."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from darwin_lab.checkpoint.anatomy import read_anatomy
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.child import Child
from darwin_lab.engine.replay import Replay
from darwin_lab.engine.resident import Resident
from darwin_lab.engine.streamed import Streamed
from darwin_lab.errors import Cancelled, LabError
from darwin_lab.lab.pairs import FAMILY_ITEMS
from darwin_lab.merging.recipe import uniform_recipe
from darwin_lab.scoring.asking import score_generation
from darwin_lab.scoring.choice import ChoicePlan, score_choices
from darwin_lab.scoring.items import Item, load_items
from darwin_lab.scoring.score import Score
from tests.families import write_family_pair
from tests.scoring.models import item

ASKED = [
    item(0, "two and two", ["four", "five", "fifteen"]),
    item(1, "what is one", ["a", "b", "c", "d"], 3, primary="acc_norm"),
    item(2, "a longer question of some more letters", ["five", "five or six", "fif", "no"], 2),
    item(3, "the answer is", [" so", " not so"], 1, style="continuation"),
    item(4, "q", ["yes", "no"]),
]
KINDS = ["llama", "qwen3_moe", "qwen3_5_moe", "qwen3_5", "gemma3", "gemma4_e", "deepseek_v3", "gpt_oss"]


def same(one: Score, other: Score) -> None:
    """The numbers of one score are the other's to float rounding, and so is every choice."""
    for mine, yours in zip(one.loglik, other.loglik, strict=True):
        assert np.abs(np.array(mine) - np.array(yours)).max() <= 1e-5
    assert np.abs(one.p_gold - other.p_gold).max() <= 1e-5
    assert one.predictions == other.predictions
    assert one.acc_norm.tolist() == other.acc_norm.tolist()


def weight_bytes(model: Streamed, source: object) -> int:
    return sum(source.tensors[name].nbytes for name in source.names if model.place(name) is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_streamed_scores_are_the_residents_and_each_weight_is_read_once(kind: str, tmp_path: Path) -> None:
    source = open_checkpoint(write_family_pair(kind, tmp_path)[0])
    model = Streamed.open(source)
    score = score_choices(model, ASKED)
    same(score, score_choices(Resident.load(source), ASKED))
    assert model.bytes_read == weight_bytes(model, source)
    assert len(set(score.predictions)) > 1


def test_the_embedded_family_streams_as_it_is_held_and_so_does_a_virtual_child() -> None:
    father, mother = (open_checkpoint(f"family:{who}") for who in ("father", "mother"))
    items = load_items(FAMILY_ITEMS / "selection.jsonl")[::12]
    child = Child(father, mother, uniform_recipe(read_anatomy(father), 0.4))
    resident, model = Resident.load(father), Streamed.open(father)
    plan = ChoicePlan(items, resident.tokenizer)
    for source in (father, child):
        resident.become(source)
        model.become(source)
        same(plan.score(model), plan.score(resident))


def test_rows_that_do_not_fit_go_in_passes_and_change_no_number(tmp_path: Path) -> None:
    source = open_checkpoint(write_family_pair("qwen3_5_moe", tmp_path)[0])
    model = Streamed.open(source)
    whole = ChoicePlan(ASKED, model.tokenizer, batch_rows=2).score(model)
    once = model.bytes_read
    model.state_bytes = 1
    words: list[str] = []
    few = ChoicePlan(ASKED, model.tokenizer, batch_rows=2).score(model, tick=lambda done, what: words.append(what))
    assert few.loglik == whole.loglik
    passes = words.count("layer 1 of 4")
    assert passes > 2
    assert model.bytes_read - once == passes * once


def test_memory_for_states_bounds_what_goes_through_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Streamed.open(open_checkpoint(write_family_pair("llama", tmp_path)[0]))
    held: list[int] = []
    finish = Replay.finish
    monkeypatch.setattr(Replay, "finish", lambda self, hidden: held.append(hidden.nbytes) or finish(self, hidden))
    model.state_bytes = 200_000
    passes: list[list[int]] = []

    def tick(done: float, words: str) -> None:
        if words.startswith("layer 1 ") and held:
            passes.append(held.copy())
            held.clear()

    many = [replace(entry, id=f"{entry.id}-{copy}", question=f"{copy} {entry.question}") for copy in range(9)
            for entry in ASKED]  # fmt: skip
    ChoicePlan(many, model.tokenizer, batch_rows=1).score(model, tick=tick)
    assert len(passes) > 2
    assert min(map(len, passes)) > 1
    assert max(map(sum, passes)) <= 200_000


def test_bfloat16_is_computed_in_bfloat16(tmp_path: Path) -> None:
    source = open_checkpoint(write_family_pair("llama", tmp_path)[0])
    streamed = score_choices(Streamed.open(source, dtype=torch.bfloat16), ASKED)
    resident = score_choices(Resident.load(source, dtype=torch.bfloat16), ASKED)
    for mine, yours in zip(streamed.loglik, resident.loglik, strict=True):
        assert mine == pytest.approx(yours, rel=0.05, abs=0.2)


def test_a_tick_between_layers_can_stop_it_and_the_model_stays_usable(tmp_path: Path) -> None:
    source = open_checkpoint(write_family_pair("llama", tmp_path)[0])
    model = Streamed.open(source)

    def stop(done: float, words: str) -> None:
        if words == "layer 2 of 2":
            raise Cancelled

    with pytest.raises(Cancelled):
        ChoicePlan(ASKED, model.tokenizer).score(model, tick=stop)
    same(score_choices(model, ASKED), score_choices(Resident.load(source), ASKED))


def test_a_streamed_model_writes_no_answers(tmp_path: Path) -> None:
    model = Streamed.open(open_checkpoint(write_family_pair("llama", tmp_path)[0]))
    with pytest.raises(LabError, match="streamed one layer at a time"):
        score_generation(model, [Item("g", "t", "q", None, "x")])


def test_a_prompt_longer_than_the_context_is_named_or_cut_as_on_a_resident(tmp_path: Path) -> None:
    source = open_checkpoint(write_family_pair("qwen3", tmp_path)[0])
    long = [item(9, "many " * 60, ["a", "b c"]), ASKED[0]]
    with pytest.raises(LabError, match=r"'i9' takes \d+ tokens, but the model reads 128"):
        score_choices(Streamed.open(source), long)
    same(score_choices(Streamed.open(source), long, cut=True), score_choices(Resident.load(source), long, cut=True))
