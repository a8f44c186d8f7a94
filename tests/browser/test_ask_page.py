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
