"""The Benchmark tab's items, files and claims, and the tab over a real lab with tiny parents."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from benchmark_rows import ARC, MODELS, OUTCOMES, SPLITS, item, joined, scored

from darwin_lab.errors import LabError
from darwin_lab.lab.benching_views import BenchRow, CategoryRow
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.scoring.fields import guess_fields
from darwin_lab.scoring.items import Item
from darwin_lab.scoring.score import from_rows
from darwin_lab.statistics.claim import check_claim, is_possible
from darwin_lab.ui.page import build
from darwin_lab.ui.tabs import benchmark, benchmark_add, benchmark_answers, benchmark_leaks, benchmark_scores
from darwin_lab.ui.tabs import benchmark_items as items_tab
from darwin_lab.ui.tabs import benchmark_views as views
from darwin_lab.ui.tabs.benchmark_claim import claim_words
from darwin_lab.ui.tabs.benchmark_place import benchmark_names, kept, p_words, points, whole

# ------------------------------------------------------------------------------------------------ items


@pytest.mark.parametrize(
    ("which", "left"),
    [
        ("gained", {"gained"}), ("lost", {"lost"}), ("dropped", {"lost", "his", "hers"}), ("father", {"his"}),
        ("mother", {"hers"}), ("nobody", {"none"}), ("all", {"all"}), ("father_not_mother", {"his"}),
        ("mother_not_father", {"hers"}), ("every", set(OUTCOMES)), ("silent", set()),
    ],
)  # fmt: skip
def test_each_filter_leaves_the_items_it_names(which, left):
    rows = joined()
    assert {one.item.id for one in benchmark_answers.found(rows, which, "abc", "", "")} == left
    label = next(words for words, key in benchmark_answers.filter_choices(rows, "abc") if key == which)
    assert label.endswith(f"({len(left)})")


def test_an_item_the_child_has_not_answered_is_neither_gained_nor_lost():
    rows = benchmark_answers.join([item("a")], {"father": scored({"a": False}), "mother": scored({"a": False})})
    assert not any(benchmark_answers.fits(rows[0], which, "abc") for which in ("gained", "nobody", "father"))
    assert not benchmark_answers.fits(rows[0], "gained", None)


def test_search_looks_into_questions_and_options_whatever_the_case():
    rows = joined()
    assert [one.item.id for one in benchmark_answers.found(rows, "every", None, "", "WHICH IS HERS")] == ["hers"]
    assert len(benchmark_answers.found(rows, "every", None, "", "that")) == len(OUTCOMES)
    assert not benchmark_answers.found(rows, "every", None, "", "nowhere")


def test_an_item_is_read_with_every_models_answer_and_probability_and_as_text_only():
    hostile = replace(item("a"), question="<img src=x onerror=alert(1)>", choices=("<b>this</b>", "that"))
    rows = benchmark_answers.join([hostile], {"father": scored({"a": True}), "mother": scored({"a": False})})
    page = benchmark_answers.item_page(rows[0], MODELS)
    assert "<img" not in page
    assert "<b>this" not in page
    assert page.count("75.0 %") == 2
    assert page.count("its answer") == 2
    gold, other = page.split("<tr class='gold'>")[1].split("</tr>")[:2]
    assert "right option" in gold
    assert gold.count("its answer") == other.count("its answer") == 1


def test_a_written_answer_that_could_not_be_read_says_so():
    row = {
        "id": "w",
        "task": "arc",
        "acc": False,
        "acc_norm": False,
        "p_gold": None,
        "loglik": [],
        "prediction": "",
        "cluster": "w",
    }
    written = Item("w", "arc", "6 x 7?", None, "42")
    rows = benchmark_answers.join([written], {"father": from_rows([row])})
    assert "no answer could be read" in benchmark_answers.item_page(rows[0], MODELS)
    assert benchmark_answers.fits(rows[0], "silent", None)


def test_categories_get_a_column_a_model_and_one_category_gets_no_table():
    two = [CategoryRow("even", 4, 0.5, (0.15, 0.85)), CategoryRow("odd", 6, 0.0, (0.0, 0.39))]
    table = items_tab.category_table({"father": two, "mother": two[:1]}, MODELS)
    assert [column["label"] for column in table["columns"]] == ["category", "items", "Father", "95 %", "Mother", "95 %"]
    assert table["rows"][1]["cells"] == ["odd", 6, 0.0, "0.0 to 39.0", None, ""]
    assert items_tab.category_table({"father": two[:1]}, MODELS)["rows"] == []


def test_gated_items_are_hidden_until_somebody_asks_for_them():
    gated = replace(ARC, gated=True)
    desk = SimpleNamespace(
        catalogue=lambda pair: [gated], shown=lambda info: not info.gated, models=lambda pair, hand=None: [],
        table=lambda pair, split: [BenchRow("father", "arc", 1, 1)], score=lambda *args: scored({"secret": True}),
        categories=lambda *args: [], items=lambda *args: [item("secret")],
    )  # fmt: skip
    wish = items_tab.Wish("selection", None, "arc")
    shut = items_tab.reading(SimpleNamespace(benchmarks=desk), None, None, wish)
    assert "secret" not in json.dumps([shut[0], shut[3], shut[4]])
    assert shut[4].count("must not be published") == 1
    assert shut[5].visible
    open_ = items_tab.reading(SimpleNamespace(benchmarks=desk), None, None, replace(wish, open_=True))
    assert "Which is secret?" in open_[4]


# ------------------------------------------------------------------------------------------------ files and claims


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_a_file_is_shown_as_it_will_be_asked_before_it_is_added(tmp_path):
    rows = [{"q": f"{i} + {i}?", "A": str(2 * i), "B": str(2 * i + 1), "right": "A"} for i in range(1, 6)]
    file = write(tmp_path / "sums.jsonl", rows)
    fields = benchmark_add.fields_from(["q", ["A", "B"], "right", "", "", "", "", ""])
    assert fields == {"question": "q", "choices": ["A", "B"], "answer": "right"}
    guess = guess_fields(file, fields)
    page = benchmark_add.preview_of(guess)
    assert page.count("<div class='dl-sketch'>") == 3
    assert "<li class='gold'>2 <b>✓</b></li>" in page
    said = benchmark_add.state_words(guess)
    assert "5 rows, ready to be added" in said and "data-tone='ok'" in said


def test_a_map_that_looks_wrong_is_doubted_before_it_is_added(tmp_path):
    rows = [{"q": f"{i} + {i}?", "A": str(2 * i), "B": str(2 * i + 1), "right": "A"} for i in range(1, 6)]
    file = write(tmp_path / "sums.jsonl", rows)
    said = benchmark_add.state_words(guess_fields(file, {"question": "q", "choices": ["A", "B"], "answer": "A"}))
    assert "5 rows, ready to be added" in said and "data-tone='watch'" in said
    assert "Check the first three. The right answer is always column A" in said
    assert "is the key another column (right)?</p>" in said
    hidden = benchmark_add.state_words(guess_fields(file, {"question": "q", "answer": "right"}))
    assert "data-tone='watch'" in hidden and "Columns A, B look like choices and are not shown" in hidden


def test_what_is_wrong_with_a_file_is_said_by_its_name_and_line_only(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    (tmp_path / "0f").mkdir()
    rows = [{"question": "x?", "choices": ["a", "b"], "answer": answer, "id": str(answer)} for answer in (0, 7)]
    file = write(tmp_path / "0f" / "wrong.jsonl", rows)
    said = benchmark_add.state_words(guess_fields(file))
    assert "wrong.jsonl:2" in said
    assert str(tmp_path) not in said
    nameless = write(tmp_path / "nameless.jsonl", [{"foo": 1, "bar": 2}])
    assert "no column looks like the question; choose it below" in benchmark_add.state_words(guess_fields(nameless))


@pytest.mark.parametrize(
    ("score", "n", "said"),
    [
        ("90.0", 198, "is not possible"),
        ("82.89", 200, "is not possible"),
        ("88.89", 198, "176 right answers round to it"),
    ],
)
def test_a_published_score_no_count_gives_is_called_impossible(score, n, said):
    assert said in claim_words(check_claim(score, n))


def test_the_runs_whose_mean_a_score_could_be_are_the_fewest_not_any_more():
    assert not is_possible("50.0", 3) and is_possible("50.0", 3 * 2) and not is_possible("50.0", 3 * 3)
    said = claim_words(check_claim("50.0", 3))
    assert "the mean of 2 runs on the same items, the fewest that give it" in said and "or more" not in said


def test_small_words_are_honest_about_small_numbers():
    assert [points(value) for value in (0.1234, -0.05, 0.0001, -0.0001)] == ["+12.3", "−5.0", "0.0", "0.0"]
    assert [p_words(value) for value in (0.0004, 0.0321, 1.0)] == ["< .001", ".032", "1.000"]
    assert whole(" 14,042 ", "number") == 14042
    for bad in ("", "0", "1.5", "-3", "many", "٣"):
        with pytest.raises(LabError, match="whole number"):
            whole(bad, "number")


def test_titles_two_benchmarks_share_are_told_apart():
    twin = replace(ARC, name="mine", source="file")
    assert benchmark_names([ARC, twin]) == {"arc": "ARC · arc", "mine": "ARC · mine"}
    assert kept(["gone"], {"a": "A"}, ["a"]) == ["a"]


def test_leaks_are_counted_in_words_and_only_for_the_pair_that_was_checked():
    leak = {
        "kind": "exact",
        "first": "a",
        "first_set": "selection",
        "second": "b",
        "second_set": "report",
        "similarity": 1.0,
    }
    said, table = benchmark_leaks.leak_views({"pair": "p", "leaks": [leak]}, "p")
    assert said == "1 pair: 1 the same text."
    assert table["rows"][0]["cells"][1] == "selection × report"
    assert benchmark_leaks.leak_views({"pair": "p", "leaks": [leak]}, "other")[0] == benchmark_leaks.START
    assert benchmark_leaks.leak_views({"pair": "p", "leaks": []}, "p")[0].startswith("No leak")


# ------------------------------------------------------------------------------------------------ the real desk


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("home"), cpus=1)
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def pair(lab: Lab, tiny_llama_pair: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Pair:
    rng, folder = random.Random(0), tmp_path_factory.mktemp("measures")
    rows = [
        {"id": f"{split}-{n}", "task": "ADD", "question": "".join(rng.choice("abc123 ") for _ in range(20)),
         "choices": ["a", "b", "c"], "answer": n % 3, "meta": {"split": split, "category": ("odd", "even")[n % 2]}}
        for split in SPLITS for n in range(8)
    ]  # fmt: skip
    return lab.open_pair(*tiny_llama_pair, items=[write(folder / "items.jsonl", rows)])


@pytest.fixture(scope="module")
def answered(lab: Lab, pair: Pair) -> Pair:
    for job in benchmark_scores.request(lab, pair, "selection", ["father", "mother", "blend"], ["ADD"], 0, False):
        lab.wait(job)
    return pair


def test_a_run_fills_the_table_the_items_and_the_categories(lab, answered):
    table = views.score_table(lab.benchmarks.table(answered, "selection"), MODELS, {"ADD": "ADD"})
    assert [row["cells"][0] for row in table["rows"]] == ["Father", "Mother", "0.5 blend"]
    assert {row["cells"][-1]["words"] for row in table["rows"]} == {"✓ done"}
    note, _, _, listed, page, box, categories, card = items_tab.reading(
        lab, answered, None, items_tab.Wish("selection", "blend", "ADD", category="odd", picked="selection-2")
    )
    assert note == "4 of 8 answered items."
    assert {row["cells"][2] for row in listed["rows"]} == {"odd"}
    assert listed["chosen"] == "selection-2"
    assert page.count("its answer") == 3
    assert not box.visible
    assert card.visible
    assert [row["cells"][0] for row in categories["rows"]] == ["odd", "even"]


def test_report_items_nobody_was_scored_on_stay_sealed_in_the_browser_of_items(lab, answered):
    views_ = items_tab.reading(lab, answered, None, items_tab.Wish("report", "blend", "ADD"))
    assert views_[3]["rows"] == []
    assert lab.benchmarks.looks(answered, "ADD") == 0


def test_the_stamp_of_the_page_changes_when_a_run_ends(lab, answered):
    before = benchmark.stamp(lab, answered, None)
    assert benchmark.stamp(lab, answered, None) == before
    lab.wait(lab.benchmarks.request(answered, ["father"], ["ADD"], split="validation")[0])
    assert benchmark.stamp(lab, answered, None) != before
    assert benchmark.stamp(lab, None, None) == ""


@pytest.mark.parametrize(("form", "start"), [("csv", "model"), ("json", "{"), ("markdown", "|")])
def test_what_is_exported_names_models_and_numbers_but_no_question(lab, answered, form, start):
    place = SimpleNamespace(shared=SimpleNamespace(lab=lab))
    sent = json.loads(benchmark_scores.exporter(place, form)(answered.key, "selection"))
    assert sent["name"].startswith("darwin-lab-scores-selection.")
    assert start in sent["words"]
    assert lab.benchmarks.items(answered, "ADD")[0].question not in sent["words"]


def test_the_page_holds_every_part_of_the_tab(lab, pair):
    parts = build(lab, pair).get_config_file()["components"]
    ids = {part["props"].get("elem_id") for part in parts}
    assert {f"bench_part_{name}" for name in ("scores", "vigour", "overlap", "items", "list", "claim")} <= ids
    assert {
        "bench_go", "bench_stop", "bench_table", "bench_bars", "bench_vigour", "bench_references", "bench_overlap",
        "bench_items", "bench_item", "bench_file_drop", "bench_add", "bench_leaks", "claim_go", "bench_seal",
    } <= ids  # fmt: skip
