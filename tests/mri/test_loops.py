"""Loops: told from texts that only repeat a little, found where they are planted, and tested against both parents."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.resident import Resident
from darwin_lab.engine.streamed import Streamed
from darwin_lab.mri.health import check_health
from darwin_lab.mri.health_record import Health
from darwin_lab.mri.loops import WRITTEN_TOKENS, Loops, ends_in_loop, loop_rows, loops_more
from darwin_lab.mri.probes import ProbeSet
from darwin_lab.mri.writing import count_loops
from tests.mri.made_scans import made_scan
from tests.mri.planted import cycling, write_built

FATHER, MOTHER, CHILD = made_scan(1), made_scan(2, name="mother"), made_scan(3, name="child")
NEXT = ProbeSet({"NEXT": cycling(1, 6)})
NEVER = Loops((False,) * 20)


def some(count: int) -> Loops:
    return Loops((True,) * count + (False,) * (20 - count))


@pytest.mark.parametrize(
    ("tokens", "loops"),
    [
        ([7] * 16, True),
        ([7] * 15, False),
        ([*range(30), *[1, 2, 3, 4, 5, 6] * 3], True),
        ([*[1, 2, 3, 4, 5, 6] * 3, 9], False),
        ([*range(100, 110), *[*range(20)] * 2], False),
        ([*range(4), *[*range(20)] * 3], True),
        ([], False),
        (list(range(64)), False),
    ],
)
def test_a_loop_is_three_copies_at_the_end_and_sixteen_tokens_at_least(tokens, loops):
    assert ends_in_loop(tokens) == loops


def test_a_model_that_goes_on_is_told_from_one_that_repeats_itself(tmp_path):
    write_built(tmp_path / "alphabet")
    write_built(tmp_path / "stuck", skill_at=None, noise=0.0)
    counting, stuck = (open_checkpoint(tmp_path / name) for name in ("alphabet", "stuck"))
    model = Resident.load(counting)
    assert not any(count_loops(model, counting, NEXT).looping)
    found = count_loops(model, stuck, NEXT)
    assert found.looping == (True,) * 4
    assert Loops.from_json(found.to_json()) == found


def test_what_is_written_is_what_greedy_generation_without_a_cache_writes(tiny_moe_pair):
    source = open_checkpoint(tiny_moe_pair[0])
    model = Resident.load(source)
    texts = ("the cat sat", "1+1=2, 2+2=4", "tea")
    expected = []
    for text in texts:
        ids, written = list(model.tokenizer(text)["input_ids"])[:12], []
        for _ in range(min(WRITTEN_TOKENS, model.context_length - len(ids))):
            with torch.inference_mode():
                hidden = model.hidden(*model.encode_batch([ids + written]))
                token = int(model.logits(hidden[:, -1]).argmax())
            if token == model.tokenizer.eos_token_id:
                break
            written.append(token)
        expected.append(ends_in_loop(written))
    assert count_loops(model, source, ProbeSet({"MATH": texts})).looping == tuple(expected)


def test_a_text_ends_at_the_tokens_that_only_the_generation_settings_name(tiny_llama_pair, tmp_path):
    folder = Path(shutil.copytree(tiny_llama_pair[0], tmp_path / "model"))
    before = Resident.load(open_checkpoint(folder)).end_ids
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 5]}))
    assert Resident.load(open_checkpoint(folder)).end_ids == before | {3, 5}
    assert Streamed.open(open_checkpoint(folder)).end_ids >= {3, 5}


def test_a_streamed_model_is_not_made_to_write(tiny_llama_pair):
    source = open_checkpoint(tiny_llama_pair[0])
    assert count_loops(Streamed.open(source), source, NEXT) is None


@pytest.mark.parametrize(("context", "looping"), [(18, (True,) * 4), (17, None)])
def test_a_model_of_short_texts_is_left_the_room_in_which_a_loop_would_show(tmp_path, context, looping):
    write_built(tmp_path / "stuck", skill_at=None, noise=0.0)
    config = json.loads((tmp_path / "stuck" / "config.json").read_text())
    (tmp_path / "stuck" / "config.json").write_text(json.dumps({**config, "max_position_embeddings": context}))
    source = open_checkpoint(tmp_path / "stuck")
    found = count_loops(Resident.load(source), source, NEXT)
    assert (found and found.looping) == looping


def test_only_a_child_shown_to_loop_more_than_both_parents_is_watched():
    assert check_health(FATHER, FATHER, FATHER).verdict == "healthy"
    for parents, watched in (((NEVER, NEVER), True), ((NEVER, some(9)), False), ((some(9), NEVER), False)):
        loops = {"child": some(9), "father": parents[0], "mother": parents[1]}
        found = check_health(FATHER, FATHER, FATHER, loops=loops)
        assert (found.verdict == "watch") == watched
        assert ("end in a loop than in both parents (9 of 20)" in found.sentence) == watched
    few = loop_rows({"child": some(3), "father": NEVER, "mother": NEVER})
    assert not loops_more(few), "three of twenty can be chance"
    assert (few[0].looping, few[0].texts) == (3, 20)
    assert 0 < few[0].low < 3 / 20 < few[0].high < 1


def test_loops_stay_in_the_report_and_their_absence_too():
    found = check_health(CHILD, FATHER, MOTHER, loops={"child": some(2), "father": NEVER, "mother": some(1)})
    assert Health.from_json(found.to_json()).loops == found.loops
    assert [row.who for row in found.loops] == ["child", "father", "mother"]
    without = check_health(CHILD, FATHER, MOTHER)
    assert Health.from_json(without.to_json()).loops == without.loops == ()
