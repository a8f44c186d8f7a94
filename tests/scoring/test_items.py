import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darwin_lab.errors import LabError
from darwin_lab.scoring.items import Item, items_hash, load_items, split_items

GOOD = {"id": "a", "task": "t", "question": "q", "choices": ["x", "y"], "answer": 1}


def write(folder: Path, *rows: Any, name: str = "items.jsonl") -> Path:
    file = folder / name
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return file


def test_items_come_back_in_file_order_with_their_fields(tmp_path: Path) -> None:
    generated = {"id": 7, "task": "u", "question": "물?", "answer": "물", "meta": {"split": "report"}}
    items = load_items([write(tmp_path, GOOD, "", generated)])
    assert items == [
        Item("a", "t", "q", ("x", "y"), 1),
        Item("7", "u", "물?", None, "물", {"split": "report"}),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{broken", "not valid JSON"),
        ("[1]", "instead of a JSON object"),
        ({"question": None}, "'question' is missing"),
        ({"answer": None}, "'answer' is missing"),
        ({"task": "  "}, "'task' must be a text"),
        ({"id": 1.5}, "'id' must be a text"),
        ({"answer": 2}, "answer 2 is out of range; 2 choices count 0 to 1"),
        ({"answer": -1}, "answer -1 is out of range"),
        ({"answer": "y"}, "must be the index"),
        ({"answer": "z"}, "answer 'z' is not among the 2 choices"),
        ({"meta": {"extract": "guess"}}, "meta.extract is 'guess'; use one of line, letter, number, boxed"),
        ({"choices": None, "answer": "x", "meta": {"extract": "letter"}}, "but the item has no choices"),
        ({"meta": {"prefix": 3}}, "meta.prefix"),
        ({"answer": True}, "must be the index"),
        ({"choices": None, "answer": 3}, "must be a text"),
        ({"choices": []}, "at least two texts"),
        ({"choices": ["x"]}, "at least two texts"),
        ({"choices": "xy"}, "at least two texts"),
        ({"choices": ["x", " "]}, "choice 1 is not a text or is empty"),
        ({"choices": ["x", 4]}, "choice 1 is not a text or is empty"),
        ({"choices": ["x", "y", "x"]}, "choices 0 and 2 are the same"),
        ({"meta": [1]}, "'meta' must be a JSON object"),
        ({"meta": {"split": "test"}}, "meta.split is 'test'; use one of selection, validation, report"),
        ({"meta": {"style": "cloze"}}, "meta.style"),
        ({"meta": {"primary": "f1"}}, "meta.primary"),
        ({"meta": {"delimiter": 3}}, "meta.delimiter"),
    ],
)
def test_a_bad_line_is_named_with_its_file_and_number_in_one_line(tmp_path: Path, change: Any, message: str) -> None:
    bad = change if isinstance(change, str) else {**GOOD, "id": "b", **change}
    file = write(tmp_path, GOOD, "", bad)
    with pytest.raises(LabError) as caught:
        load_items(file)
    assert str(caught.value).startswith(f"{file}:3: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_repeated_id_names_both_places(tmp_path: Path) -> None:
    first, second = write(tmp_path, GOOD), write(tmp_path, {**GOOD, "id": "b"}, GOOD, name="more.jsonl")
    with pytest.raises(LabError) as caught:
        load_items([first, second])
    assert str(caught.value).startswith(f"{second}:2: id 'a' was already used at {first}:1")


def test_a_file_given_twice_is_named_once(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD)
    with pytest.raises(LabError, match="is given twice; give it once"):
        load_items([file, str(file)])


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"missing\.jsonl"):
        load_items(tmp_path / "missing.jsonl")
    with pytest.raises(LabError, match="cannot read"):
        load_items(tmp_path)
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes(b'{"id": "caf\xe9"}')
    with pytest.raises(LabError, match="not UTF-8"):
        load_items(latin)
    with pytest.raises(LabError, match="no items in"):
        load_items(write(tmp_path, "", " "))


def many(n: int, task: str = "t", **meta: Any) -> list[Item]:
    return [Item(f"{task}{i}", task, "q", ("x", "y"), 0, dict(meta)) for i in range(n)]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=4), st.integers(0, 5))
def test_every_task_is_dealt_forty_twenty_forty_and_every_item_once(sizes: list[int], seed: int) -> None:
    items = [item for task, n in enumerate(sizes) for item in many(n, f"task{task}-")]
    splits = split_items(items, seed)
    assert sorted(item.id for part in splits.values() for item in part) == sorted(item.id for item in items)
    for task, n in enumerate(sizes):
        counts = [sum(item.task == f"task{task}-" for item in splits[name]) for name in splits]
        assert counts == pytest.approx([0.4 * n, 0.2 * n, 0.4 * n], abs=1)


def test_the_split_depends_on_the_seed_and_not_on_the_order() -> None:
    items = many(100)
    chosen = {item.id for item in split_items(items, 1)["selection"]}
    assert {item.id for item in split_items(items[::-1], 1)["selection"]} == chosen
    assert {item.id for item in split_items(items, 2)["selection"]} != chosen


def test_what_the_rows_say_about_their_split_wins() -> None:
    items = many(10, "told", split="report") + many(10, "free")
    splits = split_items(items, 0)
    assert [item.id for item in splits["report"] if item.task == "told"] == [item.id for item in items[:10]]
    assert len(splits["selection"]) == 4


def test_a_cluster_is_never_torn_apart() -> None:
    items = [
        Item(f"{passage}-{n}", "t", "q", ("x", "y"), 0, {"cluster": passage})
        for passage in "abcdefgh"
        for n in range(5)
    ]
    splits = split_items(items, 3)
    homes = {name: {item.cluster for item in part} for name, part in splits.items()}
    assert sum(map(len, homes.values())) == 8


def test_the_hash_names_the_content_and_not_the_order() -> None:
    items = many(5)
    changed = [*items[:4], Item("t4", "t", "q", ("x", "z"), 0)]
    assert items_hash(items) == items_hash(items[::-1])
    assert items_hash(items) != items_hash(changed)
    assert len(items_hash(items)) == 16
