"""Published rows of the Benchmark tab in a real browser: they come, are checked, and go."""

from typing import Any

from tour import open_tab, table, wait_scanned, wait_until


def fill(page: Any, box: str, words: str) -> None:
    page.locator(f"#{box} input, #{box} textarea").first.fill(words)


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
