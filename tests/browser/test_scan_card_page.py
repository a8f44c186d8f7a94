"""The card of scan settings and kept scans in a real browser: a shared file arrives, is compared, leaves and goes."""

import re
from pathlib import Path
from typing import Any

from darwin_lab.lab.shared_files import pack
from tests.mri.made_scans import made_scan


def shared_scan(folder: Path) -> Path:
    """A file as somebody else's lab would share it."""
    made_scan(name="somebody's").save(folder / "scan")
    return pack(folder / "scan", ("scan.json", "scan.safetensors"), folder / "theirs.scan.zip", {"name": "theirs"})


def test_a_shared_scan_arrives_is_renamed_downloaded_and_deleted(page: Any, tmp_path: Path) -> None:
    page.locator("#scan_card > button").click()
    page.locator("#scan_card input[type=file][accept*=zip]").first.set_input_files(shared_scan(tmp_path))
    row = page.locator("#kept_scans tbody tr")
    row.filter(has_text="theirs").wait_for()
    page.locator("#kept_told", has_text=re.compile("cells would not mean the same|there is no scan of")).wait_for()
    page.locator("#kept_name input, #kept_name textarea").first.fill("from a friend")
    page.locator("#kept_rename").click()
    row.filter(has_text="from a friend").wait_for()
    with page.expect_download() as started:
        page.locator("#kept_download").click()
    assert started.value.suggested_filename == "from-a-friend.scan.zip"
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.locator("#kept_delete").click()
    page.wait_for_timeout(500)
    assert row.count() == 1
    page.once("dialog", lambda dialog: dialog.accept())
    page.locator("#kept_delete").click()
    page.locator("#kept_scans .dl-nothing").wait_for()


def test_the_way_to_hold_models_and_bad_probes_answer_in_words(page: Any) -> None:
    page.locator("#scan_card > button").click()
    page.locator("#scan_memory", has_text="Held in memory").wait_for()
    page.locator("#scan_way label", has_text="Always stream").click()
    page.locator("#scan_memory", has_text="as you chose").wait_for()
    page.locator("#scan_way label", has_text="By free memory").click()
    page.locator("#scan_memory", has_text="Held in memory").wait_for()
    page.locator("#probes_paste textarea").fill("MATH: 1 + 1 = 2\nno label")
    page.locator("#probes_use").click()
    page.get_by_text("line 2 of the pasted probes has no label").wait_for()
    assert page.locator("#probes_paste textarea").input_value().endswith("no label")
