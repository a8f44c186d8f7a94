"""The Benchmark tab in a real browser: a run fills the table, its items are read, a file is added, a claim checked."""

import json
from pathlib import Path
from typing import Any

from tour import open_tab, series, table, wait_scanned, wait_until

TASKS = ("MATH", "REASONING", "CODE", "KNOWLEDGE", "LANGUAGE")
BLEND = """cells => { const bars = document.querySelector('#bench_bars .js-plotly-plot')?._fullData?.find(
  one => one.name === '0.5 blend');
  return bars && String(Array.from(bars.y, y => (100 * y).toFixed(1) + ' %')) === String(cells); }"""
IDLE = "() => document.querySelector('#bench_stop').disabled"


def part(page: Any, name: str) -> None:
    page.locator(f"#bench_part_{name}-button").click()
    page.locator(f"#bench_part_{name}").wait_for()


def choose(page: Any, menu: str, words: str) -> None:
    """Opens a menu and takes the first choice that holds the words."""
    page.locator(f"#{menu} input").first.click()
    page.locator("[role=option]").filter(has_text=words).first.click()


def fill(page: Any, box: str, words: str) -> None:
    page.locator(f"#{box} input, #{box} textarea").first.fill(words)


def run(page: Any, rows: int) -> list[list[str]]:
    """Presses Run and waits until the table has its rows, all answered."""
    page.locator("#bench_go").click()
    wait_until(
        page,
        "rows => { const states = Array.from(document.querySelectorAll('#bench_table tbody tr td:last-child'), "
        "cell => cell.innerText); return states.length === rows && !states.some(s => /running|queued/.test(s)); }",
        rows,
    )
    return table(page, "bench_table")


def test_models_are_scored_read_item_by_item_and_on_a_file_of_ones_own(page: Any, tmp_path: Path) -> None:
    wait_scanned(page)
    open_tab(page, "benchmark")
    page.locator("#bench_plan tbody tr").first.wait_for(timeout=300_000)
    fill(page, "bench_limit", "30")
    page.locator("#bench_limit input").press("Enter")
    wait_until(page, "() => document.querySelector('#bench_plan_head .dl-note').innerText.includes('450 answers')")
    assert [cells[:2] for cells in table(page, "bench_plan")] == [[task, "30"] for task in TASKS]

    # A run: three models on five skills, the table fills in, the parents are lines in the chart.
    rows = run(page, 15)
    assert [cells[:2] for cells in rows[:3]] == [["Father", "MATH"], ["Mother", "MATH"], ["0.5 blend", "MATH"]]
    assert {cells[4] for cells in rows} == {"30 / 200"}
    wait_until(page, IDLE)
    wait_until(page, BLEND, [cells[2] for cells in rows if cells[0] == "0.5 blend"])
    drawn = series(page, "bench_bars")
    assert (drawn["Father"]["dash"], drawn["Mother"]["dash"], drawn["0.5 blend"]["type"]) == ("dash", "dot", "bar")

    # From a row to its items; the filter leaves what it says.
    page.locator("#bench_table tbody tr").first.click()
    page.locator("#bench_items tbody tr").first.wait_for()
    choose(page, "items_filter", "Mother right, father wrong")
    wait_until(page, "() => !document.querySelector('#bench_items_head .dl-note').innerText.startsWith('30 ')")
    left = table(page, "bench_items")
    assert left
    assert {tuple(cells[2:4]) for cells in left} == {("✕ wrong", "✓ right")}
    assert page.locator("#bench_items_head .dl-note").inner_text() == f"{len(left)} of 30 answered items."
    page.locator("#bench_items tbody tr").last.click()
    wait_until(page, "id => document.querySelector('#bench_item').innerText.includes(id)", left[-1][0])
    assert page.locator("#bench_item tr.gold").count() == 1

    # The three against each other, and what the parents know apart.
    choose(page, "bench_child", "0.5 blend")
    part(page, "vigour")
    page.locator("#bench_vigour tbody tr").nth(len(TASKS) - 1).wait_for()
    assert [cells[:2] for cells in table(page, "bench_vigour")] == [[task, "30"] for task in TASKS]
    part(page, "overlap")
    assert set(series(page, "bench_overlap")) >= {"only the father", "both", "only the mother", "neither"}

    # Report items stay sealed until the box is ticked.
    part(page, "scores")
    page.locator("#bench_split").get_by_text("Report").click()
    page.locator("#bench_seal").wait_for()
    page.locator("#bench_go").click()
    page.get_by_text("tick “Break the seal” first").wait_for()
    wait_until(page, "() => !document.querySelector('#bench_table tbody tr')")
    page.locator("#bench_split").get_by_text("Selection").click()

    # A dropped file: what is wrong is named by its line, columns are mapped by hand, and it runs.
    part(page, "list")
    sums = [{"Q": f"{n}+{n}", "A": str(2 * n), "B": str(n), "key": "A", "split": "selection"} for n in range(10, 18)]
    lines = [json.dumps(row) for row in sums]
    broken, whole = tmp_path / "broken.jsonl", tmp_path / "doubles.jsonl"
    broken.write_text("\n".join([*lines, "{oops"]))
    whole.write_text("\n".join(lines))
    drop = page.locator("#bench_file_drop input[type=file]")
    drop.set_input_files(broken)
    page.locator("#bench_file_state").get_by_text("broken.jsonl:9").wait_for()
    page.locator("#bench_file_drop button[aria-label='Clear']").click()
    drop.set_input_files(whole)
    page.locator("#bench_problems").get_by_text("choose it below").wait_for()
    choose(page, "field_question", "Q")
    page.locator("#bench_file_state").get_by_text("8 rows, ready to be added").wait_for()
    assert page.locator("#bench_preview .gold").first.inner_text() == "20 ✓"
    page.locator("#bench_add").click()
    page.locator("#bench_list tbody").get_by_text("doubles", exact=True).wait_for()
    part(page, "scores")
    assert [cells[4] for cells in run(page, 18) if cells[1] == "doubles"] == ["8", "8", "8"]

    # A published score that no count gives.
    part(page, "claim")
    fill(page, "claim_score", "90.0")
    fill(page, "claim_n", "198")
    page.locator("#claim_n input, #claim_n textarea").first.press("Enter")
    page.get_by_text("90.0 % of 198 is not possible").wait_for()
