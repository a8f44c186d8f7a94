"""The MRI tab in a real browser: switches, a click and the arrow keys, the layer panel, exports of a packed map."""

import json
from typing import Any

from tour import open_part, query, series, settled_box, table, wait_until


def test_the_mri_is_switched_clicked_walked_by_keyboard_and_exported(page: Any) -> None:
    layers = len(series(page, "probe_map_father")["father"]["x"])
    the_switches_change_the_map(page)
    a_click_opens_the_layer_and_the_texts_of_its_probe(page, layers)
    arrow_keys_and_buttons_walk_on(page)
    the_experts_are_sorted_and_exported(page)
    the_tensors_are_narrowed_down(page)


def the_switches_change_the_map(page: Any) -> None:
    page.locator("#mri_measure").get_by_text("KL", exact=True).click()
    wait_until(page, "() => document.querySelector('#probe_map_father .dl-note').innerText.includes('distribution')")
    page.locator("#mri_half").get_by_text("FFN", exact=True).click()
    page.locator("#probe_map_father").get_by_text("Measure attention and FFN halves too").wait_for()
    page.locator("#mri_half").get_by_text("Whole layer", exact=True).click()
    page.locator("#mri_model").get_by_text("Father", exact=True).click()
    page.locator("#probe_map_mother").wait_for(state="hidden")
    page.locator("#mri_model").get_by_text("All", exact=True).click()
    page.locator("#probe_map_mother").wait_for(state="visible")
    series(page, "probe_map_father")


def a_click_opens_the_layer_and_the_texts_of_its_probe(page: Any, layers: int) -> None:
    probes = series(page, "probe_map_father")["father"]["y"]
    box = settled_box(page, "#probe_map_father .nsewdrag")
    place = box["x"] + box["width"] * 4.5 / layers, box["y"] + box["height"] * 0.5 / len(probes)
    page.mouse.move(*place)
    page.mouse.click(*place)
    the_panel_shows(page, 4)
    wait_until(page, "() => document.querySelector('#layer_texts .dl-data').dataset.rows > 20")
    assert page.locator("#layer_probe input").input_value() == probes[0]
    effects = [max(abs(float(cell)) for cell in cells[2:4] if cell != "–") for cells in table(page, "layer_texts")]
    assert effects == sorted(effects, reverse=True)
    assert len(table(page, "layer_tensors")) > 5


def arrow_keys_and_buttons_walk_on(page: Any) -> None:
    page.locator("#probe_map_father .dl-plot").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    the_panel_shows(page, 6)
    page.keyboard.press("ArrowDown")
    second = series(page, "probe_map_father")["father"]["y"][1]
    wait_until(page, "name => document.querySelector('#layer_probe input').value === name", second)
    page.locator("#layer_back").click()
    the_panel_shows(page, 5)


def the_experts_are_sorted_and_exported(page: Any) -> None:
    open_part(page, "experts")
    series(page, "expert_map_father")
    assert page.locator("#expert_map_father h3").inner_text() == "Father: experts"
    page.locator("#mri_order").get_by_text("Load", exact=True).click()
    page.locator("#expert_map_father .ytitle").get_by_text("rank by load").wait_for()
    told = json.loads(exported(page, "expert_map_father", "numbers"))
    shares = [row[told["columns"].index("share of tokens")] for row in told["rows"] if row[0] == "L0"]
    assert shares == sorted(shares, reverse=True)
    assert abs(sum(shares) - 1) < 1e-5
    lines = exported(page, "expert_map_father", "csv").decode().splitlines()
    assert lines[0] == ",".join(told["columns"])
    assert len(lines) == len(told["rows"]) + 1
    assert exported(page, "expert_map_father", "svg").startswith(b"<svg")
    page.locator("#moe_health tbody tr").nth(5).wait_for()


def the_tensors_are_narrowed_down(page: Any) -> None:
    open_part(page, "tensors")
    page.locator("#mri_tensors select[data-facet=role]").select_option("router")
    assert {cells[2] for cells in table(page, "mri_tensors")} == {"router"}
    page.locator("#mri_tensors input[type=search]").fill("layers.3.")
    assert [cells[1] for cells in table(page, "mri_tensors")] == ["L3"]


def the_panel_shows(page: Any, layer: int) -> None:
    wait_until(page, "n => document.querySelector('#layer_head h3')?.innerText === `Layer L${n}`", layer)
    wait_until(page, "n => new URL(location.href).searchParams.get('layer') === String(n)", layer)
    assert query(page)["layer"] == str(layer)


def exported(page: Any, chart: str, form: str) -> bytes:
    """What the export menu of a chart saves."""
    page.locator(f"#{chart} .dl-export summary").click()
    with page.expect_download() as download:
        page.locator(f"#{chart} [data-export={form}]").click()
    return download.value.path().read_bytes()
