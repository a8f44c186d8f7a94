"""The Health tab in a real browser: thresholds move the verdict, a planted interference is mended and used."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tour import query, table, wait_scanned, wait_until

from darwin_lab.genome.genome import neutral_genome
from darwin_lab.lab.lab import Lab
from tests.mri.planted import PLANTED, PROBES, write_parent


@pytest.fixture
def lab(app_url: str, home: Path) -> Iterator[Lab]:
    """The same store as the server's, read from another process."""
    torch.set_num_threads(1)
    lab = Lab(home)
    yield lab
    lab.close()


def test_a_planted_interference_is_judged_by_moved_thresholds_mended_and_used(
    page: Any, app_url: str, lab: Lab, tmp_path: Path
) -> None:
    wait_scanned(page)
    for who in ("father", "mother"):
        write_parent(tmp_path / who, who)
    rows = [{"probe": probe, "text": text} for probe, texts in PROBES.texts.items() for text in texts]
    (tmp_path / "probes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pair = lab.open_pair(tmp_path / "father", tmp_path / "mother", probes=tmp_path / "probes.jsonl")
    child = lab.recipe(pair, neutral_genome("v6", pair.anatomy.layers).with_genes(mri_trust=0.0)).hash
    page.goto(f"{app_url}/?tab=health&pair={pair.key}&child={child}")
    wait_until(page, "hash => new URL(location.href).searchParams.get('child') === hash", child)
    the_child_is_checked(page)
    moved_thresholds_move_the_verdict(page)
    mending_shows_before_and_after(page)
    page.locator("#mended_use").click()
    mended = lab.care.mending(pair, child).mended
    wait_until(page, "hash => new URL(location.href).searchParams.get('child') === hash", mended)
    assert query(page)["child"] != child
    the_verdict_says(page, "The child is healthy")


def the_child_is_checked(page: Any) -> None:
    page.locator("#health_check").click()
    the_verdict_says(page, f"interference in L{PLANTED}")
    page.locator("#health_loops tbody tr").nth(2).wait_for()
    assert [cells[0] for cells in table(page, "health_loops")] == ["child", "father", "mother"]
    assert {cells[2] for cells in table(page, "health_loops")} == {"8"}


def moved_thresholds_move_the_verdict(page: Any) -> None:
    page.locator("#health_more > button").click()
    margin = page.locator("#health_interference_margin input")
    margin.fill("5")
    wait_until(page, "() => !document.querySelector('#health_verdict').innerText.includes('interference in')")
    assert page.locator("#health_advice tbody tr").count() == 0
    assert page.locator("#health_mend").is_disabled()
    margin.fill("0.02")
    the_verdict_says(page, f"interference in L{PLANTED}")
    page.locator("#health_advice tbody tr").first.wait_for()
    assert [cells[0] for cells in table(page, "health_advice")] == [f"L{PLANTED}"]


def mending_shows_before_and_after(page: Any) -> None:
    page.locator("#health_mend").click()
    page.locator("#mended_verdicts", has_text="After: healthy").wait_for()
    assert "Before: healthy" not in page.locator("#mended_verdicts").inner_text()
    page.locator("#mended_layers tbody tr").first.wait_for()
    assert [cells[0] for cells in table(page, "mended_layers")] == [f"L{PLANTED}"]


def the_verdict_says(page: Any, words: str) -> None:
    wait_until(page, "words => document.querySelector('#health_verdict').innerText.includes(words)", words)
