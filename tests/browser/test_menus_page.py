"""A drop-down in a real browser: one pick is one request, by mouse and by keyboard, and leaving it is none."""

import json
from typing import Any

from tour import open_tab, wait_until

LISTENERS = """id => { const menu = gradio_config.components.find(one => one.props.elem_id === id).id;
  const its = one => one.targets.some(([target]) => target === menu);
  return gradio_config.dependencies.filter(its).map(one => one.id); }"""


def test_one_pick_of_a_menu_is_one_request_and_leaving_it_is_none(page: Any) -> None:
    open_tab(page, "genome")
    field = page.locator("#layout input")
    field.wait_for()
    listening, asked = page.evaluate(LISTENERS, "layout"), []
    assert listening
    page.on("request", lambda sent: asked.append(sent) if asked_by(sent, listening) else None)

    field.click()
    page.get_by_role("option", name="v4 · 5 genes").click()
    the_editor_has(page, 5)
    assert len(asked) == 1

    field.click()
    page.keyboard.press("Escape")
    page.locator("h2").get_by_text("Genome", exact=True).click()
    field.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    wait_until(page, "() => document.querySelectorAll('#genome_editor input[type=range]').length > 5")
    page.wait_for_timeout(500)
    assert field.input_value() != "v4 · 5 genes"
    assert len(asked) == 2


def the_editor_has(page: Any, genes: int) -> None:
    wait_until(page, "n => document.querySelectorAll('#genome_editor input[type=range]').length === n", genes)
    page.wait_for_timeout(500)


def asked_by(sent: Any, listening: list[int]) -> bool:
    """Whether a request is one of these listeners asking."""
    if sent.method != "POST" or "/gradio_api/" not in sent.url or not sent.post_data:
        return False
    return json.loads(sent.post_data).get("fn_index") in listening
