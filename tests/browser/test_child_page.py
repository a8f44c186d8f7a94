"""The Child tab in a real browser: the recipe narrows, what was inherited appears, and a dry run sends nothing."""

from pathlib import Path
from typing import Any

from tour import open_tab, table, wait_idle, wait_scanned, wait_until


def test_the_recipe_is_filtered_by_what_a_tensor_is(page: Any) -> None:
    open_tab(page, "child")
    page.wait_for_selector("#child_recipe tbody tr", timeout=300_000)
    every = len(table(page, "child_recipe"))
    page.locator("#child_recipe select[data-facet=role]").select_option("router")
    routers = table(page, "child_recipe")
    assert 1 < len(routers) < every
    assert {cells[2] for cells in routers} == {"router"}
    page.locator("#child_recipe select[data-facet=layer]").select_option("L2")
    assert [cells[1] for cells in table(page, "child_recipe")] == ["L2"]
    page.locator("#child_recipe input[type=search]").fill("no such tensor")
    page.locator("#child_recipe").get_by_text("No row fits").wait_for()


def test_a_child_is_measured_exported_and_its_push_rehearsed(page: Any, home: Path) -> None:
    wait_scanned(page)
    open_tab(page, "child")
    page.wait_for_selector("#child_recipe tbody tr", timeout=300_000)
    page.locator("#inherit_go").click()
    wait_until(page, "() => document.querySelectorAll('#inherit_table tbody tr').length > 5")
    shown = {cells[0]: cells[1] for cells in table(page, "inherit_table")}
    assert shown["routers"] == "merged"
    assert shown["tokenizer"] == "✓ father's, byte for byte"
    page.locator("#child_export").click()
    page.wait_for_selector("#child_download", timeout=300_000)
    assert "recipe.json" in page.locator("#child_again").inner_text()
    page.locator("#push_repo input, #push_repo textarea").first.fill("somebody/a-child")
    page.locator("#push_dry").click()
    page.locator("#push_plan tr").first.wait_for()
    wait_idle(page)
    folder = Path(page.locator("#child_folder").inner_text())
    assert folder.is_relative_to(home)
    listed = {row.split("\t")[0] for row in page.locator("#push_plan").inner_text().splitlines()}
    assert listed == {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
