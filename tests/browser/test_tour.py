"""The ten-minute tour on the embedded family: what the charts show is what the store holds, from the scan to the
downloaded child."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tour import open_part, open_tab, query, series, table, wait_idle, wait_until

from darwin_lab.engine.child import Child
from darwin_lab.engine.resident import Resident
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair

BUDGET, SKILL_ITEMS = 40, 20
SAME_LOGITS = 1e-4
"""Float32 rounding between two ways of running the same weights."""
TEXTS = ["Question: what is 12 + 30?", "the quick brown fox"]


@pytest.fixture(scope="module")
def lab(app_url: str, home: Path) -> Iterator[Lab]:
    """The same store as the server's, read from another process."""
    torch.set_num_threads(1)
    lab = Lab(home)
    yield lab
    lab.close()


def test_the_ten_minute_tour(page: Any, lab: Lab, tmp_path: Path) -> None:
    pair = lab.family_pair()
    the_map_fills_and_shows_the_scan(page, lab, pair)
    a_cell_opens_its_layer(page, lab, pair)
    a_moved_gene_moves_the_strip(page, lab, pair)
    the_score_in_the_table_is_the_stored_one(page, lab, pair)
    run = an_evolution_grows_and_survives_a_reload(page, lab, pair)
    a_candidate_becomes_the_child(page, lab, run)
    the_health_chart_shows_the_childs_scan(page, lab, pair)
    the_download_is_the_child(page, lab, pair, tmp_path)


def the_map_fills_and_shows_the_scan(page: Any, lab: Lab, pair: Pair) -> None:
    series(page, "probe_map_father")
    wait_until(page, "() => document.querySelector('#mri_progress')?.innerText.match(/7 \\/ 7/g)?.length === 3")
    wait_idle(page)
    for who in ("father", "mother"):
        scan = lab.scan(pair, who)
        shown = series(page, f"probe_map_{who}")[who]
        assert shown["y"] == list(pair.probes.texts)
        for row, probe in enumerate(shown["y"]):
            assert shown["z"][row] == pytest.approx(scan.importance("loss")[probe].tolist(), rel=1e-5, abs=1e-7)
    open_part(page, "experts")
    for who in ("father", "mother"):
        scan = lab.scan(pair, who)
        report = scan.expert_report()
        load = np.array(series(page, f"expert_map_{who}")[who]["z"], dtype=float).T
        alive = ~report.dead
        expected = np.clip(np.log2(np.maximum(report.utilisation, 1e-12) * scan.experts), -4, 4)
        assert load[alive] == pytest.approx(expected[alive], abs=1e-4)
        dead = series(page, f"expert_map_{who}")["dead"]
        assert len(dead["x"]) == int(report.dead.sum())
    open_part(page, "layers")


def a_cell_opens_its_layer(page: Any, lab: Lab, pair: Pair) -> None:
    layers = pair.anatomy.layers
    box = page.locator("#probe_map_father .nsewdrag").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 5.5 / layers, box["y"] + box["height"] * 0.2)
    page.mouse.click(box["x"] + box["width"] * 5.5 / layers, box["y"] + box["height"] * 0.2)
    wait_until(page, "() => document.querySelector('#layer_head h3')?.innerText === 'Layer L5'")
    shown = series(page, "layer_probes")["Mother"]
    scan = lab.scan(pair, "mother")
    assert shown["x"] == pytest.approx([scan.importance("loss")[probe][5] for probe in shown["y"]], rel=1e-5)
    assert len(table(page, "layer_tensors")) == len(pair.anatomy.layer_parts(5))
    wait_until(page, "() => new URL(location.href).searchParams.get('layer') === '5'")


def a_moved_gene_moves_the_strip(page: Any, lab: Lab, pair: Pair) -> None:
    open_tab(page, "genome")
    before = series(page, "ratio_strip")["attention"]["y"]
    page.locator("#gene-attn_ratio").focus()
    for _ in range(4):
        page.keyboard.press("PageUp")
    wait_until(
        page,
        "old => document.querySelector('#ratio_strip .js-plotly-plot')._fullData.find(t => t.name === 'attention').y[0]"
        " > old + 0.05",
        before[0],
    )
    child = child_at_hand(page)
    stored = lab.recipe_of(pair, child)
    assert lab.genome_of(pair, child).genes["attn_ratio"] == pytest.approx(0.9)
    shown = series(page, "ratio_strip")
    for name, component in (("whole layer", None), ("attention", "attn"), ("FFN + experts", "ffn")):
        assert [y + 0.5 for y in shown[name]["y"]] == pytest.approx(stored.layer_ratios(component), abs=1e-6)
    assert page.locator("#gene-attn_ratio").input_value() == "0.9"


def the_score_in_the_table_is_the_stored_one(page: Any, lab: Lab, pair: Pair) -> None:
    page.locator("#score_genome").click()
    wait_until(page, "() => document.querySelectorAll('#genome_score tbody tr').length === 4", timeout=300_000)
    rows = {cells[0]: cells for cells in table(page, "genome_score")}
    for name, who in (
        ("Child", child_at_hand(page)),
        ("Father", "father"),
        ("Mother", "mother"),
        ("0.5 blend", "blend"),
    ):
        score = lab.score(pair, who)
        assert rows[name][1:3] == [f"{score.mean_p_gold:.4f}", f"{score.mean_acc:.3f}"]


def an_evolution_grows_and_survives_a_reload(page: Any, lab: Lab, pair: Pair) -> str:
    page.locator("#evolve_from_here").click()
    page.locator("#evo_budget input").fill(str(BUDGET))
    page.locator("#evo_more button").first.click()
    page.locator("#evo_items input").fill(str(SKILL_ITEMS))
    page.locator("#evo_report input").uncheck()
    page.locator("#evo_go").click()
    counted = "n => +document.querySelector('#candidate_table .dl-data')?.dataset.rows >= n"
    wait_until(page, counted, 2)
    seen = len(series(page, "evolution_curve")["candidate"]["y"])
    wait_until(page, counted, seen + 2)
    run = query(page)["run"]
    page.reload()
    wait_until(page, counted, seen + 2)
    assert (query(page)["run"], query(page)["tab"]) == (run, "evolution")
    assert lab.run(run).open
    page.locator("#evo_stop").click()
    wait_until(page, "() => document.querySelector('#evo_facts')?.innerText.includes('stopped')")
    wait_idle(page)
    view = lab.run(run)
    assert view.state == "stopped"
    wait_until(
        page, "n => +document.querySelector('#candidate_table .dl-data').dataset.rows === n", len(view.candidates)
    )
    shown = series(page, "evolution_curve")
    assert shown["candidate"]["y"] == pytest.approx([row["fitness"] for row in view.candidates], abs=1e-6)
    for name, who, dash in (
        ("Father", "father", "dash"),
        ("Mother", "mother", "dot"),
        ("0.5 blend", "blend", "dashdot"),
    ):
        met = [row[who] for row in view.generations]
        assert shown[name]["y"] == pytest.approx([*met[:1], *met] or [view.controls[who]["fitness"]] * 2)
        assert shown[name]["dash"] == dash
    return run


def a_candidate_becomes_the_child(page: Any, lab: Lab, run: str) -> None:
    best = page.locator("#candidate_table tbody tr").first
    index = int(best.get_attribute("data-id"))
    best.click()
    wait_until(page, "n => document.querySelector('#candidate_head')?.innerText === `Candidate ${n}`", index)
    page.locator("#candidate_health").click()
    wanted = next(row for row in lab.run(run).candidates if row["index"] == index)["recipe_hash"]
    wait_until(page, "hash => new URL(location.href).searchParams.get('child') === hash", wanted)


def the_health_chart_shows_the_childs_scan(page: Any, lab: Lab, pair: Pair) -> None:
    page.locator("#health_check").click()
    shown = series(page, "health_bars")
    health = lab.health(pair, child_at_hand(page))
    for name, who in (("Child", "child"), ("Father", "father"), ("Mother", "mother")):
        assert shown[name]["y"] == pytest.approx(health.layer_importance[who], rel=1e-5)
    assert (shown["Child"]["type"], shown["Father"]["dash"], shown["Mother"]["dash"]) == ("bar", "dash", "dot")
    assert health.sentence in page.locator("#health_verdict").inner_text()
    losses = {cells[0]: cells for cells in table(page, "health_nll")}
    for row in health.nll:
        assert losses[row.probe][1:4] == [f"{value:.3f}" for value in (row.child, row.father, row.mother)]


def the_download_is_the_child(page: Any, lab: Lab, pair: Pair, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    open_tab(page, "child")
    page.locator("#child_export").click()
    page.wait_for_selector("#child_download", timeout=300_000)
    with page.expect_download() as download:
        page.locator("#child_download").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        archive.extractall(tmp_path)
    folder = next(path.parent for path in tmp_path.rglob("config.json"))
    model, loading = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    recipe = lab.recipe_of(pair, child_at_hand(page))
    virtual = Resident.load(Child(pair.father, pair.mother, recipe, pair.ancestor))
    ids, mask = virtual.encode_batch([virtual.tokenizer(text)["input_ids"] for text in TEXTS])
    with torch.no_grad():
        ours = virtual.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        theirs = model.eval()(input_ids=ids, attention_mask=mask, use_cache=False).logits
    assert (ours - theirs)[mask.bool()].abs().max().item() < SAME_LOGITS


def child_at_hand(page: Any) -> str:
    """The recipe hash the page is showing, once the address agrees with the facts of the Genome tab."""
    wait_until(page, "() => /^[0-9a-f]{12}$/.test(new URL(location.href).searchParams.get('child') || '')")
    page.wait_for_timeout(1500)
    return str(query(page)["child"])
