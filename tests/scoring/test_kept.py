"""Interrupted and resumed is uninterrupted, item for item: whatever stops the work, wherever the file ends."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.streamed import Streamed
from darwin_lab.errors import Cancelled, LabError
from darwin_lab.progress import Tick, silent
from darwin_lab.scoring.asking import asked_of, score_generation
from darwin_lab.scoring.batches import plan_batches
from darwin_lab.scoring.choice import ChoicePlan
from darwin_lab.scoring.debias import score_letters
from darwin_lab.scoring.evaluate import score_items
from darwin_lab.scoring.items import Item
from darwin_lab.scoring.kept import Entry, Kept, rows_so_far
from darwin_lab.scoring.protocols import majority
from darwin_lab.scoring.questions import Asking, golds_of
from tests.families import write_family_pair
from tests.scoring.models import ITEMS, item, resident

KEY = {"fingerprint": "f", "items": "i", "settings": {"seed": 0}}
CHOICES = [
    item(n, f"{n} is a longer question about the sum of {n}", ["five", f"far too {n}", "x y z", "z"][: 2 + n % 3])
    for n in range(9)
]
WRITTEN = [Item(f"g{n}", "w", f"{'many ' * (n % 3)}what is {n}", None, "x") for n in range(9)]
Work = Callable[[Kept | None, Tick], list[dict]]


def stop_at(moment: int) -> Tick:
    """A tick that stops the work when it comes for the `moment`-th time."""
    seen = 0

    def tick(done: float, words: str) -> None:
        nonlocal seen
        seen += 1
        if seen == moment:
            raise Cancelled

    return tick


def by_choice(streamed: bool, tmp_path: Path) -> Work:
    model = Streamed.open(open_checkpoint(write_family_pair("qwen3_5_moe", tmp_path)[0])) if streamed else resident()
    model.state_bytes = 1 if streamed else 0
    plan = ChoicePlan(CHOICES, model.tokenizer, batch_tokens=60, batch_rows=3)
    return lambda keep, tick: plan.score(model, tick=tick, keep=keep).to_rows()


def by_writing(tmp_path: Path) -> Work:
    model = resident("moe", seed=3)
    return lambda keep, tick: score_generation(model, WRITTEN, 6, tick, keep=keep).to_rows()


def by_votes(tmp_path: Path) -> Work:
    model = resident("llama", seed=3)

    def work(keep: Kept | None, tick: Tick) -> list[dict]:
        ask = asked_of(model, WRITTEN, Asking(max_new_tokens=4), keep)
        return [{"answers": majority(golds_of(WRITTEN), ask, 3, tick=tick).answers}]

    return work


def by_letters(tmp_path: Path) -> Work:
    model = resident()
    return lambda keep, tick: score_letters(model, CHOICES, tick=tick, keep=keep).to_rows()


def mixed(tmp_path: Path) -> Work:
    model = resident("moe", seed=3)
    items = [entry for pair in zip(CHOICES, WRITTEN, strict=True) for entry in pair]
    return lambda keep, tick: score_items(model, items, 4, tick, keep=keep).to_rows()


WORKS = {
    "choice": lambda path: by_choice(False, path), "streamed": lambda path: by_choice(True, path),
    "writing": by_writing, "votes": by_votes, "letters": by_letters, "mixed": mixed,
}  # fmt: skip


@pytest.mark.parametrize("kind", WORKS)
def test_work_stopped_again_and_again_ends_as_work_that_never_was(kind: str, tmp_path: Path) -> None:
    work = WORKS[kind](tmp_path)
    whole = work(None, silent)
    path = tmp_path / "kept.jsonl"
    stops = random.Random(kind)
    stopped = 0
    for _ in range(60):
        try:
            with Kept(path, KEY) as keep:
                resumed = work(keep, stop_at(stops.randint(2, 14 if kind == "streamed" else 6)))
            break
        except Cancelled:
            stopped += 1
            raw = path.read_bytes()
            if raw.count(b"\n") > 2 and stops.random() < 0.5:  # a kill in the middle of a line
                path.write_bytes(raw[: -stops.randint(1, 30)])
    else:
        pytest.fail("never came to an end")
    assert stopped
    assert resumed == whole


def test_a_batch_that_was_kept_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = resident()
    plan = ChoicePlan(CHOICES, model.tokenizer, batch_tokens=60)
    with Kept(tmp_path / "kept", KEY) as keep:
        whole = plan.score(model, keep=keep)
    monkeypatch.setattr(model.backbone, "forward", None)
    with Kept(tmp_path / "kept", KEY) as keep:
        assert plan.score(model, keep=keep).to_rows() == whole.to_rows()
        assert sorted(keep.rows, key=lambda row: row["id"]) == whole.to_rows()


def test_rows_so_far_are_final_rows_and_are_read_while_the_work_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    model = resident()
    plan = ChoicePlan(CHOICES, model.tokenizer, batch_tokens=60)
    final = {row["id"]: row for row in plan.score(model).to_rows()}
    counts: list[int] = []

    def look(done: float, words: str) -> None:
        rows = rows_so_far(path)
        counts.append(len(rows))
        for row in rows:
            assert row == final[row["id"]]

    assert rows_so_far(path) == []
    with Kept(path, KEY) as keep:
        plan.score(model, tick=look, keep=keep)
    assert counts == sorted(counts)
    assert 0 < counts[-2] <= counts[-1] == len(CHOICES)


def test_a_part_of_the_items_completes_those_items_alone(tmp_path: Path) -> None:
    model = resident()
    with Kept(tmp_path / "kept", KEY) as keep:
        ChoicePlan(ITEMS, model.tokenizer).score(model, ["i2", "i0"], keep=keep)
        assert {row["id"] for row in keep.rows} == {"i0", "i2"}


def test_greedy_answers_are_rows_so_far_and_samples_are_not(tmp_path: Path) -> None:
    model = resident("llama", seed=3)
    with Kept(tmp_path / "greedy", KEY) as keep:
        score = score_generation(model, WRITTEN, 4, keep=keep)
    rows = {row["id"]: row for row in rows_so_far(tmp_path / "greedy")}
    assert [rows[entry.id] for entry in WRITTEN] == score.to_rows()
    with Kept(tmp_path / "votes", KEY) as keep:
        majority(golds_of(WRITTEN), asked_of(model, WRITTEN, Asking(4), keep), 2)
    assert rows_so_far(tmp_path / "votes") == []


def test_another_runs_file_and_a_strangers_file_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    with Kept(path, KEY) as keep:
        keep.put([Entry("a", 1)])
    before = path.read_bytes()
    with pytest.raises(LabError, match="holds answers of another model, other items or settings"):
        Kept(path, {**KEY, "fingerprint": "g"})
    assert path.read_bytes() == before
    path.write_text('{"id": "mine"}\n')
    with pytest.raises(LabError, match="is not a file of kept answers"):
        Kept(path, KEY)
    assert path.read_text() == '{"id": "mine"}\n'
    with pytest.raises(LabError, match="choose another place"):
        Kept(tmp_path / "no folder" / "kept", KEY)


@pytest.mark.parametrize("left", [0, 5, 60])
def test_a_file_cut_off_in_its_first_line_begins_anew(left: int, tmp_path: Path) -> None:
    path = tmp_path / "kept"
    with Kept(path, KEY) as keep:
        keep.put([Entry("a", 1)])
    path.write_bytes(path.read_bytes()[:left])
    with Kept(path, KEY) as keep:
        assert keep.get("a") is None
        keep.put([Entry("b", [1, "물"])])
    with Kept(path, KEY) as keep:
        assert keep.get("b") == [1, "물"]


def test_what_follows_a_damaged_line_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    with Kept(path, KEY) as keep:
        for name in "abc":
            keep.put([Entry(name, name, ({"id": name},))])
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:2], b'{"name": "b", \xff', *lines[3:]]))
    with Kept(path, KEY) as keep:
        assert [keep.get(name) for name in "abc"] == ["a", None, None]
        keep.put([Entry("c", "c")])
        keep.put([Entry("c", "never")])
    assert [json.loads(line).get("name") for line in path.read_text().splitlines()] == [None, "a", "c"]
    with Kept(path, KEY) as keep:
        keep.remove()
    assert not path.exists()


def test_batches_of_other_tokens_have_other_names() -> None:
    from darwin_lab.scoring.batches import branch
    from darwin_lab.scoring.tally import _name

    contexts = [[branch((1, 2), [(0, (5,)), (1, (6,))])], [branch((1, 3), [(0, (5,)), (1, (6,))])],
                [branch((1, 2), [(0, (5,)), (1, (7,))])], [branch((1, 2), [(1, (5,)), (0, (6,))])]]  # fmt: skip
    assert len({_name(plan_batches(some, 100)[0]) for some in contexts}) == 4
