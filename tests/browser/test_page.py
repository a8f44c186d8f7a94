"""Smaller promises of the page: sizes, keyboard, exports, links, light and dark."""

import json
from typing import Any

import pytest
from tour import open_part, open_tab, series, table


def test_every_chart_has_the_size_of_its_card(page: Any) -> None:
    series(page, "probe_map_father")
    open_tab(page, "genome")
    series(page, "ratio_strip")
    open_tab(page, "mri")
    for part, chart in (("layers", "probe_map_father"), ("experts", "expert_map_father")):
        open_part(page, part)
        series(page, chart)
        inner, outer = page.evaluate(
            "c => { const p = document.querySelector(`#${c} .dl-plot`);"
            " return [+p.querySelector('.main-svg').getAttribute('width'), p.clientWidth]; }",
            chart,
        )
        assert outer > 300
        assert abs(inner - outer) < 2


@pytest.mark.parametrize("width", [820, 1440, 2560])
def test_nothing_hangs_over_the_edge(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 1000})
    for tab in ("parents", "mri", "genome", "evolution", "health", "child"):
        open_tab(page, tab)
        page.wait_for_timeout(400)
        assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth"), tab


def test_parents_are_compared_check_by_check(page: Any) -> None:
    open_tab(page, "parents")
    page.wait_for_selector("#pair_checks tbody tr")
    assert all(cells[-1].startswith("✓") for cells in table(page, "pair_checks"))
    assert {cells[0] for cells in table(page, "pair_people")} == {"Father", "Mother", "Ancestor"}
    assert any("expert" in cells[0] for cells in table(page, "pair_anatomy"))


def test_a_pair_that_is_not_there_is_refused_with_a_remedy_and_changes_nothing(page: Any) -> None:
    open_tab(page, "parents")
    page.wait_for_selector("#pair_checks tbody tr")
    page.get_by_text("Two checkpoints of your own").click()
    page.locator("#father_ref input, #father_ref textarea").first.fill("/nowhere/at/all")
    page.locator("#mother_ref input, #mother_ref textarea").first.fill("/nowhere/either")
    page.locator("#open_pair").click()
    toast = page.locator(".toast-body").first
    toast.wait_for()
    assert "/nowhere/at/all" in toast.inner_text()
    assert "Traceback" not in page.content()
    assert len(table(page, "pair_people")) == 3


def test_a_gene_is_moved_locked_and_reset_by_keyboard(page: Any) -> None:
    open_tab(page, "genome")
    slider = page.locator("#gene-ffn_ratio")
    slider.focus()
    page.keyboard.press("PageUp")
    assert slider.input_value() == "0.6"
    page.keyboard.press("Backspace")
    assert slider.input_value() == "0.5"
    lock = page.locator("[data-gene=ffn_ratio] .dl-lock")
    lock.focus()
    page.keyboard.press("Enter")
    assert lock.get_attribute("aria-pressed") == "true"
    assert slider.is_disabled()


def test_new_advice_never_undoes_a_move_or_a_lock(page: Any) -> None:
    open_tab(page, "genome")
    slider = page.locator("#gene-ffn_ratio")
    slider.focus()
    page.keyboard.press("PageDown")
    page.locator("[data-gene=attn_ratio] .dl-lock").click()
    page.locator("#operator input").click()
    page.get_by_role("option", name="slerp", exact=True).click()
    page.wait_for_function("() => document.querySelector('#ratio_strip .dl-note')?.innerText.includes('FFN')")
    page.wait_for_timeout(1500)
    assert slider.input_value() == "0.4"
    assert page.locator("[data-gene=attn_ratio] .dl-lock").get_attribute("aria-pressed") == "true"


def test_the_last_of_many_moves_is_the_one_that_counts(page: Any) -> None:
    open_tab(page, "genome")
    page.locator("#gene-embed_ratio").focus()
    for _ in range(25):
        page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "() => JSON.parse(document.querySelector('#ratio_strip .js-plotly-plot') ? '1' : '0') === 1"
        " && document.querySelector('#ratio_strip .dl-note').innerText.includes('embedding')"
    )
    page.locator("#json_fold button").first.click()
    page.wait_for_function("() => document.querySelector('#genome_json')?.innerText.includes('\"embed_ratio\": 0.525')")


def test_a_preset_fills_the_editor(page: Any) -> None:
    open_tab(page, "genome")
    page.locator("#preset input").click()
    page.get_by_role("option", name="Mother", exact=True).click()
    page.wait_for_function("() => document.querySelector('#gene-global_ratio')?.value === '1'")
    page.wait_for_function(
        "() => document.querySelector('#ratio_strip .js-plotly-plot')"
        "._fullData[0].y.every(y => Math.abs(y - 0.5) < 1e-9)"
    )


def test_a_chart_is_exported_as_data_and_as_image(page: Any) -> None:
    drawn = series(page, "probe_map_father")["father"]
    page.locator("#probe_map_father .dl-export summary").click()
    with page.expect_download() as download:
        page.locator("#probe_map_father [data-export=csv]").click()
    lines = download.value.path().read_text().splitlines()
    assert lines[0].startswith("probe,layer")
    assert float(lines[1].split(",")[2]) == pytest.approx(drawn["z"][0][0], rel=1e-4)
    page.locator("#probe_map_father .dl-export summary").click()
    with page.expect_download() as download:
        page.locator("#probe_map_father [data-export=json]").click()
    assert json.loads(download.value.path().read_text())["layout"]["uirevision"] == "keep"
    page.locator("#probe_map_father .dl-export summary").click()
    with page.expect_download() as download:
        page.locator("#probe_map_father [data-export=png]").click()
    assert download.value.path().read_bytes()[:4] == b"\x89PNG"


def test_a_chart_says_what_it_is_and_shows_its_table(page: Any) -> None:
    series(page, "probe_map_father")
    page.locator("#probe_map_father .dl-help summary").click()
    assert "Known trap" in page.locator("#probe_map_father .dl-help .dl-pop-body").inner_text()
    page.keyboard.press("Escape")
    page.locator("#probe_map_father .dl-table summary").click()
    page.locator("#probe_map_father .dl-table-body tbody tr").nth(11).wait_for()


def test_a_broken_link_is_named_and_harmless(page: Any, app_url: str) -> None:
    page.goto(app_url + "/?run=../../etc/passwd")
    page.get_by_text("That link is not valid").first.wait_for()
    series(page, "probe_map_father")


def test_colours_follow_the_dark_theme(page: Any, app_url: str) -> None:
    page.goto(app_url + "/?__theme=dark")
    series(page, "probe_map_father")
    colour = page.evaluate("() => document.querySelector('#probe_map_father .js-plotly-plot')._fullLayout.font.color")
    assert colour.lower() == "#98a4b5"


def test_a_job_is_followed_and_stopped_beside_its_button(page: Any) -> None:
    open_tab(page, "genome")
    page.locator("#gene-attn_ratio").focus()
    page.keyboard.press("ArrowRight")
    page.locator("#score_genome").click()
    line = page.locator("#score_progress .dl-job")
    line.wait_for()
    assert "%" in line.inner_text()
    line.get_by_role("button", name="Cancel").click()
    line.wait_for(state="hidden")
    page.locator("#score_genome").click()
    page.locator(".dl-status-all").click()
    line.wait_for(state="hidden")
    page.wait_for_timeout(1500)
    assert "p(gold)" not in page.locator("#genome_score_words").inner_text()
