"""Files people have become items: columns are guessed, shown, and what is wrong is named with its line."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from darwin_lab.errors import LabError
from darwin_lab.scoring.fields import guess_fields, parse_fields, read_items
from darwin_lab.scoring.tables import read_table


def jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


def table(path: Path, *rows: list[str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out, delimiter="\t" if path.suffix == ".tsv" else ",").writerows(rows)
    return path


MMLU = (
    ["Question", "A", "B", "C", "D", "Answer", "Subject"],
    ["2 + 2?", "3", "4", "5", "6", "B", "maths"],
    ["Capital of France?", "Rome", "Bern", "Oslo", "Paris", "D", "places"],
)


def test_a_column_for_each_choice_and_an_answer_by_letter_are_found(tmp_path: Path) -> None:
    path = table(tmp_path / "mmlu.csv", *MMLU)
    guess = guess_fields(path)
    assert guess.fields == {
        "question": "Question", "choices": ["A", "B", "C", "D"], "answer": "Answer", "category": "Subject"
    }  # fmt: skip
    assert (guess.answers, guess.n, guess.problems) == ("letter", 2, ())
    first, second = guess.rows
    assert (first.question, first.choices, first.answer, first.category) == ("2 + 2?", ("3", "4", "5", "6"), 1, "maths")
    assert (second.answer, second.id, second.task) == (3, "mmlu-2", "mmlu")
    assert read_items(path) == [first, second]


@pytest.mark.parametrize(
    ("row", "choices", "answer", "way"),
    [
        ({"question": "q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"},
         ("x", "y"), 1, "label"),
        ({"question": "q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "1"},
         ("x", "y"), 0, "label"),
        ({"stem": "q", "options": ["x", "y", "z"], "gold": "z"}, ("x", "y", "z"), 2, "text"),
        ({"prompt": "q", "endings": ["x", "y"], "label": 1}, ("x", "y"), 1, "number from 0"),
        ({"prompt": "q", "options": "['x', 'y']", "answer_index": 0}, ("x", "y"), 0, "number from 0"),
        ({"question": "q", "opa": "x", "opb": "y", "cop": "2", "answer": "2"}, ("x", "y"), 1, "number from 1"),
        ({"question": "q", "choice_1": "x", "choice_2": "y", "label": "(A)"}, ("x", "y"), 0, "letter"),
        ({"question": "q", "choices": [{"text": "x", "label": "A"}, {"text": "y", "label": "B"}], "answer": "B"},
         ("x", "y"), 1, "label"),
        ({"question": "q", "options": {"A": "x", "B": "y"}, "answer": "A"}, ("x", "y"), 0, "label"),
    ],
)  # fmt: skip
def test_every_common_way_to_write_choices_and_answers_is_read(
    tmp_path: Path, row: dict[str, Any], choices: tuple[str, ...], answer: int, way: str
) -> None:
    guess = guess_fields(jsonl(tmp_path / "items.jsonl", row))
    assert guess.problems == ()
    assert (guess.rows[0].choices, guess.rows[0].answer, guess.answers) == (choices, answer, way)


def test_a_right_answer_with_its_wrong_ones_is_a_choice_in_an_order_that_is_not_always_the_same(tmp_path: Path) -> None:
    rows = [
        {"question": f"q{k}", "correct_answer": f"right {k}", "distractor1": "wrong", "distractor2": "false"}
        for k in range(12)
    ]
    items = read_items(jsonl(tmp_path / "sci.jsonl", *rows))
    assert all(item.choices[item.answer] == f"right {k}" for k, item in enumerate(items))
    assert {item.answer for item in items} == {0, 1, 2}
    assert items == read_items(jsonl(tmp_path / "sci.jsonl", *rows))


def test_without_choices_the_answer_is_to_be_written(tmp_path: Path) -> None:
    items = read_items(table(tmp_path / "sums.tsv", ["problem", "solution"], ["1 + 1", "2"], ["2 + 2", "4"]))
    assert [(item.choices, item.answer) for item in items] == [(None, "2"), (None, "4")]


def test_a_passage_stands_before_its_question(tmp_path: Path) -> None:
    row = {"passage": "Anna has a dog.", "question": "Who has it?", "choices": ["Anna", "Ben"], "answer": 0}
    assert read_items(jsonl(tmp_path / "read.jsonl", row))[0].question == "Anna has a dog.\n\nWho has it?"


def test_a_map_that_is_given_wins_over_the_guess(tmp_path: Path) -> None:
    path = table(tmp_path / "odd.csv", ["x1", "x2", "x3", "x4"], ["Sky?", "blue", "red", "1"])
    assert any("question" in problem for problem in guess_fields(path).problems)
    fields = parse_fields(["question=x1", "choices=x2,x3", "answer=x4"])
    assert fields == {"question": "x1", "choices": ["x2", "x3"], "answer": "x4"}
    item = read_items(path, fields)[0]
    assert (item.choices, item.answer) == (("blue", "red"), 1)


def test_the_labs_own_jsonl_keeps_its_meta(tmp_path: Path) -> None:
    own = {"id": "a", "task": "T", "question": "q", "choices": ["x", "y"], "answer": 1, "meta": {"split": "report"}}
    item = read_items(jsonl(tmp_path / "own.jsonl", own))[0]
    assert (item.id, item.meta) == ("a", {"split": "report"})
    assert guess_fields(jsonl(tmp_path / "own.jsonl", own)).rows == (item,)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (([*MMLU[0]], MMLU[1], ["Sea?", "1", "2", "3", "4", "E", "x"]), r"mmlu\.csv:3: answer 'E' .* not among the 4"),
        (([*MMLU[0]], MMLU[1], ["Sea?", "1", "", "3", "4", "A", "x"]), r"mmlu\.csv:3: choice 1 .* empty"),
        (([*MMLU[0]], MMLU[1], ["Sea?", "1", "1", "3", "4", "A", "x"]), r"mmlu\.csv:3: choices 0 and 1 are the same"),
        (([*MMLU[0]], MMLU[1], ["", "1", "2", "3", "4", "A", "x"]), r"mmlu\.csv:3: 'question' must be a text"),
        (([*MMLU[0]], MMLU[1], ["Sea?", "1", "2", "3", "4", "", "x"]), r"mmlu\.csv:3: the answer .* is empty"),
        (([*MMLU[0]], MMLU[1], ["Sea?", "1"]), r"mmlu\.csv:3: 2 cells, but the header names 7"),
        ((["a", "a"], ["1", "2"]), r"column 'a' stands twice"),
        ((["Question", "A", "B"], ["q", "x", "y"]), r"no column looks like the answer; it has Question, A, B"),
        ((["Question", "Answer"],), r"holds no rows"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, rows: tuple[list[str], ...], words: str) -> None:
    with pytest.raises(LabError, match=words):
        read_items(table(tmp_path / "mmlu.csv", *rows))


def test_a_line_is_named_rightly_after_a_text_over_several_lines(tmp_path: Path) -> None:
    path = table(
        tmp_path / "long.csv", MMLU[0], ["One\ntwo\nthree?", "1", "2", "3", "4", "A", "x"], ["Sea?", *"1234", "Z", "x"]
    )
    with pytest.raises(LabError, match=r"long\.csv:5: answer 'Z'"):
        read_items(path)


def test_a_table_written_elsewhere_keeps_its_line_breaks_and_marks(tmp_path: Path) -> None:
    path = tmp_path / "windows.csv"
    path.write_bytes('\ufeffQuestion;A;B;Answer\r\n"one\r\ntwo, three?";1;2;B\r\n'.encode())
    item = read_items(path)[0]
    assert (item.question, item.choices, item.answer) == ("one\r\ntwo, three?", ("1", "2"), 1)


def test_an_id_met_twice_names_both_lines(tmp_path: Path) -> None:
    row = {"id": "same", "question": "q", "options": ["x", "y"], "answer": "x"}
    path = jsonl(tmp_path / "twice.jsonl", row, {**row, "question": "r"})
    with pytest.raises(LabError, match=r"twice\.jsonl:2: id 'same' was already used at .*twice\.jsonl:1"):
        read_items(path)
    assert len(guess_fields(path).problems) == 1 and len(guess_fields(path).rows) == 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"question": "Frage", "answer": "Answer"}, r"no column 'Frage' for the question; it has Question, A, B"),
        ({"frage": "Question"}, r"'frage' is no role"),
        ({"question": "Question", "answer": ["A", "B"]}, "answer takes one column"),
        ({"question": "Question", "choices": "Subject", "answer": "Answer"}, r"mmlu\.csv:2: the choices .* no list"),
        ({"question": "Question", "choices": ["A", "B"], "answer": "Subject"}, r"mmlu\.csv:2: answer 'maths'"),
        ({"question": "Question"}, "no column looks like the answer"),
        ({"question": "A", "choices": ["A", "B"], "answer": "Answer"}, "column 'A' is both the question and a choice"),
        ({"question": "Question", "choices": "Question", "answer": "Answer"}, "both the question and a choice"),
    ],
)
def test_a_wrong_map_is_a_clear_error(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(LabError, match=words):
        read_items(table(tmp_path / "mmlu.csv", *MMLU), fields)


@pytest.mark.parametrize(
    ("answers", "doubt"), [((1, 1, 2), True), ((0, 1, 2), False), ((1, 2, 3), False), (("A", "B", "C"), False)]
)
def test_numbers_that_fit_counting_from_0_and_from_1_are_noted(
    tmp_path: Path, answers: tuple[int | str, ...], doubt: bool
) -> None:
    rows = [{"question": f"q{k}", "options": ["x", "y", "z"], "gold": gold} for k, gold in enumerate(answers)]
    guess = guess_fields(jsonl(tmp_path / "items.jsonl", *rows))
    assert (guess.problems, bool(guess.notes)) == ((), doubt)
    if doubt:
        assert guess.answers == "number from 0" and guess.rows[0].answer == 1
        assert "(column gold) fit counting from 0 and from 1; they were taken as counted from 0" in guess.notes[0]


@pytest.mark.parametrize("entry", ["question", "question=", "=x="])
def test_a_field_that_is_no_pair_is_refused(entry: str) -> None:
    with pytest.raises(LabError, match="role=column"):
        parse_fields([entry])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.txt", b"hello", r"ends in \.txt; give one of"),
        ("x.csv", b"\xff\xfe\x00", "not UTF-8"),
        ("x.csv", b'a,b\n"1,2\n', r"x\.csv:\d"),
        ("x.jsonl", b"{nope}\n", r"x\.jsonl:1: not valid JSON"),
        ("x.jsonl", b"[1, 2]\n", r"entry 1: a int instead of a JSON object"),
        ("x.jsonl", b'3\n', r"x\.jsonl:1: a int instead"),
        ("x.parquet", b"PAR1", "parquet"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(LabError, match=words):
        read_table(path)
    with pytest.raises(LabError, match=r"cannot read .*missing"):
        read_table(tmp_path / "missing.csv")


def test_parquet_rows_keep_their_lists(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"question": "q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B", "id": "one"}]
    path = tmp_path / "arc.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    item = read_items(path)[0]
    assert (item.id, item.choices, item.answer) == ("one", ("x", "y"), 1)


KEYED = (
    ["Prompt", "A", "B", "C", "D", "Key"],
    ["What is 1 + 1?", "1", "2", "3", "4", "B"],
    ["What is 2 + 1?", "1", "2", "3", "4", "C"],
)


@pytest.mark.parametrize(
    ("told", "notes"),
    [
        ("question=Prompt choices=A,B,C,D answer=A",
         ["the right answer is always column A, which is also among the choices; is the key another column (Key)?"]),
        ("question=Prompt answer=Key",
         ["columns A, B, C, D look like choices and are not shown; if they are, map them as choices"]),
        ("question=Prompt choices=A,B,C answer=Key",
         ["column D looks like a choice and is not shown; if it is, map it as one"]),
        ("question=Prompt choices=A,B,C,D answer=Key", []),
    ],
)  # fmt: skip
def test_a_map_that_can_be_read_and_looks_wrong_is_doubted(tmp_path: Path, told: str, notes: list[str]) -> None:
    path = table(tmp_path / "t.csv", *KEYED)
    guess = guess_fields(path, parse_fields(told.split()))
    assert guess.problems == () and list(guess.notes) == notes
    assert guess_fields(path).notes == ()


def test_a_right_answer_beside_its_wrong_ones_is_doubted_only_where_its_name_is_that_of_a_choice(
    tmp_path: Path,
) -> None:
    named = table(tmp_path / "named.csv", ["q", "correct_answer", "x", "size"], ["1 + 1", "2", "3", "B"])
    plain = table(tmp_path / "plain.csv", ["q", "first", "second", "size"], ["1 + 1", "2", "3", "wide"])
    fields = parse_fields(["question=q", "choices=correct_answer,x", "answer=correct_answer"])
    assert guess_fields(named, fields).notes == ()
    (note,) = guess_fields(plain, {"question": "q", "choices": ["first", "second"], "answer": "first"}).notes
    assert note == "the right answer is always column first, which is also among the choices; check that this is so"


def test_a_column_that_lists_choices_and_is_not_mapped_is_named(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "list.jsonl", {"q": "1 + 1", "options": ["1", "2"], "answers": ["two", "2"], "key": "2"})
    (note,) = guess_fields(path, {"question": "q", "answer": "key"}).notes
    assert note.startswith("column options looks like choices and is not shown")
    assert guess_fields(path, {"question": "q", "choices": "options", "answer": "key"}).notes == ()
