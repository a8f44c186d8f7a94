"""The rest of the Benchmark tab in a real browser: a folder beside the parents, a run that is stopped and resumed,
exports as they are saved, and published rows that come and go."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from tour import open_tab, table, wait_idle, wait_scanned, wait_until

TASKS = ("MATH", "REASONING", "CODE", "KNOWLEDGE", "LANGUAGE")
STATES = (
    "Array.from(document.querySelectorAll('#bench_table tbody tr'), row => Array.from(row.cells, c => c.innerText))"
)
BEGUN = f"() => {STATES}.some(cells => cells[0] === 'Mother' && /^[1-9]/.test(cells[4]))"
NONE_OPEN = f"() => !{STATES}.some(cells => /running|queued/.test(cells.at(-1)))"
WHOLE = f"() => {STATES}.filter(cells => cells[4] === '200' && /done/.test(cells.at(-1))).length === 10"


def fill(page: Any, box: str, words: str) -> None:
    page.locator(f"#{box} input, #{box} textarea").first.fill(words)


def rows_of(page: Any, who: str) -> list[list[str]]:
    return [cells[1:-1] for cells in table(page, "bench_table") if cells[0] == who]


def saved(page: Any, form: str) -> tuple[str, str]:
    """Name and words of what a press of an export button saves."""
    with page.expect_download() as got:
        page.locator(f"#bench_export_{form}").click()
    return got.value.suggested_filename, Path(got.value.path()).read_text()


@pytest.fixture
def sister(tmp_path: Path) -> Path:
    """A copy of the mother under another name."""
    return Path(shutil.copytree(ROOT / "assets/family/mother", tmp_path / "sister"))


def test_a_folder_is_scored_beside_the_parents_and_a_stopped_run_ends_as_one_that_was_not(
    page: Any, sister: Path
) -> None:
    wait_scanned(page)
    open_tab(page, "benchmark")
    page.locator("#bench_plan tbody tr").first.wait_for()
    page.locator("#bench_folder_fold button").first.click()
    fill(page, "bench_folder", str(sister.parent / "nothing"))
    page.locator("#bench_folder_add").click()
    page.get_by_text("no folder").first.wait_for()
    fill(page, "bench_folder", str(sister))
    page.locator("#bench_folder_add").click()
    page.locator("#bench_models").get_by_text("Folder: sister").wait_for()
    assert page.locator("#bench_folder textarea, #bench_folder input").first.input_value() == ""

    for who in ("Father", "Plain 0.5 blend"):
        page.locator("#bench_models .token").filter(has_text=who).locator(".token-remove").click()

    wait_until(page, "() => document.querySelector('#bench_plan_head .dl-note').innerText.includes('2,000 answers')")

    # The mother is stopped on her way, and the sister before her turn.
    page.locator("#bench_go").click()
    wait_until(page, BEGUN)
    page.locator("#bench_stop").click()
    wait_idle(page)
    page.locator("#bench_stop[disabled]").wait_for()
    wait_until(page, NONE_OPEN)
    answered = sum(int(cells[3].split(" ")[0]) for cells in rows_of(page, "Mother"))
    assert 0 < answered < 1000
    assert not rows_of(page, "Folder: sister")

    # The same run again goes on, and ends with the very numbers of the copy, which nobody stopped.
    page.locator("#bench_go").click()
    wait_until(page, WHOLE)
    wait_idle(page)
    mother = rows_of(page, "Mother")
    assert len(mother) == 5
    assert rows_of(page, "Folder: sister") == mother

    # What is saved holds the table and no question.
    name, words = saved(page, "csv")
    rows = list(csv.DictReader(words.splitlines()))
    assert name == "darwin-lab-scores-selection.csv"
    assert {row["benchmark"] for row in rows} == set(TASKS)
    assert [row["done"] for row in rows if row["label"] == "Folder: sister"] == ["200"] * 5
    name, words = saved(page, "json")
    told = json.loads(words)
    assert (name, told["split"]) == ("darwin-lab-scores-selection.json", "selection")
    accuracies = [f"{100 * row['acc']:.1f} %" for row in told["rows"] if row["model"] == "mother"]
    assert accuracies == [cells[1] for cells in mother]
    name, words = saved(page, "markdown")
    assert name == "darwin-lab-scores-selection.md"
    assert words.startswith("| benchmark | model | n | accuracy |")
    assert sum("| Folder: sister | 200 |" in line for line in words.splitlines()) == 5
    assert "Selection numbers flatter" in words

    # A split that nobody answered has nothing to save, and says so.
    page.locator("#bench_split").get_by_text("Validation").click()
    page.locator("#bench_export_csv").click()
    page.get_by_text("no model has answered validation items yet").wait_for()


def test_published_rows_are_added_checked_and_taken_away(page: Any) -> None:
    wait_scanned(page)
    open_tab(page, "benchmark")
    page.locator("#bench_part_vigour-button").click()
    page.locator("#ref_add").wait_for()

    def add(name: str, score: str, n: str) -> None:
        for box, words in (("ref_name", name), ("ref_score", score), ("ref_n", n), ("ref_source", "its card")):
            fill(page, box, words)
        page.locator("#ref_add").click()

    wait_until(page, "() => document.querySelector('#ref_benchmark input')?.value")
    add("Somebody", "90.0", "198.5")
    page.get_by_text("is no number of items").wait_for()
    add("Somebody", "90.0", "198")
    page.locator("#bench_references").get_by_text("unpaired · not possible").wait_for()
    page.locator("#bench_references tbody tr").first.click()
    page.locator("#ref_forget:not([disabled])").wait_for()
    add("Somebody else", "88.9", "198")
    page.locator("#bench_references").get_by_text("Somebody else").wait_for()
    assert [cells[1:4] for cells in table(page, "bench_references")] == [
        ["Somebody", "90.0 %", "198"],
        ["Somebody else", "88.9 %", "198"],
    ]
    assert page.locator("#ref_forget").is_disabled(), "a row that was added leaves none picked"
    page.locator("#bench_references tbody tr").first.click()
    page.locator("#ref_forget:not([disabled])").click()
    wait_until(page, "() => document.querySelectorAll('#bench_references tbody tr').length === 1")
    assert table(page, "bench_references")[0][1] == "Somebody else"
    page.locator("#bench_references tbody tr").first.click()
    page.locator("#ref_forget:not([disabled])").click()
    page.locator("#bench_references").get_by_text("No published row yet").wait_for()
    page.locator("#ref_forget[disabled]").wait_for()
