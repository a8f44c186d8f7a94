"""The Ask tab in the browser: one question, three answers, and their speed."""

import re
from typing import Any

from tour import wait_scanned


def test_father_mother_and_child_answer_one_question(page: Any) -> None:
    wait_scanned(page)
    page.get_by_role("tab", name="Ask", exact=True).click()
    page.locator("#ask_models input:checked").nth(2).wait_for(state="attached")
    page.locator("#ask_prompt textarea").fill("Question: 12+30\nAnswer:")
    page.locator("#ask_prompt textarea").press("Shift+Enter")
    page.locator("#ask_answers .dl-answer[data-state='done']").nth(2).wait_for()
    cards = page.locator("#ask_answers .dl-answer")
    assert cards.count() == 3
    for place, role in enumerate(("father", "mother", "child")):
        assert role in str(cards.nth(place).get_attribute("class"))
        assert re.search(r"\d+ tokens after \d+ of prompt", cards.nth(place).inner_text())
    page.locator("#ask_stop:disabled").wait_for()
    page.get_by_role("button", name="Speed on this device").click()
    page.locator("#speed_now").click()
    page.locator("#speed_table tbody tr").nth(2).wait_for()
    assert re.search(r"\d+ \[\d", page.locator("#speed_table").inner_text())


def test_the_manner_of_an_answer_is_heeded_and_an_answer_under_way_is_stopped(page: Any) -> None:
    wait_scanned(page)
    page.get_by_role("tab", name="Ask", exact=True).click()
    page.locator("#ask_models input:checked").nth(2).wait_for(state="attached")
    page.locator("#ask_prompt textarea").fill("Question: 12+30\nAnswer:")
    page.locator("#ask_manner button").first.click()
    page.locator("#ask_template").get_by_text("Chat template").click()
    page.locator("#ask_now").click()
    page.locator("#ask_answers .dl-answer[data-state='failed']").nth(2).wait_for()
    assert "no chat template" in page.locator("#ask_answers").inner_text()

    # As plain text, warm and long: it writes until it is stopped, and nobody waits for a turn after that.
    page.locator("#ask_template").get_by_text("Plain text").click()
    for slider, value in (("ask_tokens", "2048"), ("ask_temperature", "2")):
        page.locator(f"#{slider} input[type=number]").fill(value)
        page.locator(f"#{slider} input[type=number]").press("Tab")
    page.locator("#ask_now").click()
    page.locator("#ask_answers .dl-answer[data-state='writing']").first.wait_for()
    page.locator("#ask_stop").click()
    page.locator("#ask_stop:disabled").wait_for()
    states = page.eval_on_selector_all("#ask_answers .dl-answer", "all => all.map(one => one.dataset.state)")
    assert len(states) == 3
    assert set(states) <= {"done", "stopped"}
    assert states[-1] == "stopped"
    cards = page.locator("#ask_answers").inner_text()
    assert "plain text continued" in cards
    assert "waits for its turn" not in cards
