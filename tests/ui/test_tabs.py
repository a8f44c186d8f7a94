"""The page over a real lab and tiny parents: it builds, its handlers read and queue, and bad input changes nothing."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from darwin_lab.errors import LabError
from darwin_lab.genome.genome import neutral_genome
from darwin_lab.lab.lab import Lab
from darwin_lab.merging.prescription import MODES
from darwin_lab.ui.page import TABS, build, follow, on_arrival
from darwin_lab.ui.session import NO_RUN_CHOSEN, genome_at_hand
from darwin_lab.ui.tabs import (
    child_views,
    evolution,
    genome,
    genome_views,
    mri_layer_views,
    mri_views,
    parents,
    parents_views,
)

PROBES = ("MATH", "NEUTRAL")
SEEN = {"ended": None, "notice": "", "bar": None, "place": None}


def write_measures(folder):
    rng = random.Random(0)
    word = lambda: "".join(rng.choice("abc123 ") for _ in range(20))  # noqa: E731
    probes = [{"probe": probe, "text": word()} for probe in PROBES for _ in range(4)]
    (folder / "probes.jsonl").write_text("\n".join(map(json.dumps, probes)))
    items = [
        {"id": f"{split}-{n}", "task": "ADD", "question": word(), "choices": ["a", "b", "c"], "answer": n % 3,
         "meta": {"split": split}}
        for split in ("selection", "validation", "report") for n in range(6)
    ]  # fmt: skip
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    return {"items": [folder / "items.jsonl"], "probes": folder / "probes.jsonl"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("home"))
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def pair(lab, tiny_moe_pair, tmp_path_factory):
    return lab.open_pair(*tiny_moe_pair, **write_measures(tmp_path_factory.mktemp("measures")))


@pytest.fixture(scope="module")
def scanned(lab, pair):
    for job in lab.request_scan(pair):
        lab.wait(job)
    return pair


def test_the_page_builds_with_every_tab_and_names_for_its_parts(lab, pair):
    config = build(lab, pair).get_config_file()
    ids = {part["props"].get("elem_id") for part in config["components"]}
    assert {f"tab_{name}" for name in TABS} <= ids
    assert {
        "probe_map_father", "advantage_map", "expert_map_mother", "dead_share", "layer_panel", "genome_editor",
        "ratio_strip", "recipe_table", "evolution_curve", "candidate_table", "evo_go", "evo_stop",
        "evo_resume", "health_bars", "health_nll", "score_table", "child_export", "child_download",
        "status_bar",
    } <= ids  # fmt: skip


def test_nothing_of_the_page_is_offered_as_a_public_endpoint(lab, pair):
    for event in build(lab, pair).get_config_file()["dependencies"]:
        assert event["api_visibility"] == "private", event


def test_no_choice_and_no_pick_is_dropped_while_another_is_answered(lab, pair):
    modes = {"input": "always_last", "change": "always_last", "select": "multiple"}
    page = build(lab, pair).get_config_file()
    kinds = {part["id"]: part["type"] for part in page["components"]}
    for event in page["dependencies"]:
        for part, name in event["targets"]:
            if name in modes and kinds.get(part) not in ("tab", "tabitem"):
                mode = "always_last" if kinds[part] == "dropdown" else modes[name]
                assert event["trigger_mode"] == mode, (kinds[part], event)


def test_no_menu_listens_to_the_event_that_comes_twice_for_one_pick(lab, pair):
    page = build(lab, pair).get_config_file()
    menus = {
        part["id"] for part in page["components"] if part["type"] == "dropdown" and not part["props"].get("multiselect")
    }
    listened = {(part, name) for event in page["dependencies"] for part, name in event["targets"] if part in menus}
    assert {name for _, name in listened} <= {"select", "change"}
    assert "select" in {name for _, name in listened}


def test_no_number_is_refused_by_its_widget_which_names_no_remedy_and_where_nothing_is_queued_says_nothing(lab, pair):
    numbers = [part["props"] for part in build(lab, pair).get_config_file()["components"] if part["type"] == "number"]
    assert numbers
    assert [n["label"] for n in numbers if (n.get("minimum"), n.get("maximum")) != (None, None)] == []


def test_every_chart_explains_itself(lab, pair):
    for part in build(lab, pair).get_config_file()["components"]:
        props = part["props"]
        if "dl-chart" in str(props.get("html_template", "")):
            assert min(len(props["props"][word]) for word in ("definition", "reading", "trap")) > 30


def test_a_visitor_meets_the_first_pair(lab, pair):
    key, layer, run, load, _, _ = on_arrival(lab, pair, {})
    assert (key, layer, run) == (pair.key, None, NO_RUN_CHOSEN)
    assert load["genome"]["layout"] == "v6"


def test_a_link_restores_layer_and_child(lab, pair):
    wanted = neutral_genome("layerwise", pair.anatomy.layers).with_genes(layer_1=0.9)
    recipe = lab.recipe(pair, wanted)
    key, layer, _, load, _, _ = on_arrival(lab, pair, {"layer": "2", "child": recipe.hash, "pair": pair.key})
    assert (key, layer) == (pair.key, 2)
    assert load["genome"]["genes"] == wanted.genes


@pytest.mark.parametrize(
    "query", [{"run": "../../etc/passwd"}, {"run": "0" * 12}, {"pair": "<script>"}, {"layer": "99"}]
)
def test_a_hostile_link_is_harmless(lab, pair, query):
    key, layer, run, _, _, _ = on_arrival(lab, pair, query)
    assert (key, layer, run["run"]) == (pair.key, None, None)


def test_the_clock_redraws_only_what_changed(lab, scanned):
    place = {"pair": None}
    first = follow(lab, (scanned, NO_RUN_CHOSEN, None), place, ("", "", ""), SEEN)
    stamps, seen = first[2:5], first[5]
    assert all(isinstance(stamp, str) and stamp for stamp in stamps)
    again = follow(lab, (scanned, NO_RUN_CHOSEN, None), place, tuple(stamps), seen)
    assert all(not isinstance(update, str) for update in again[2:5])
    assert again[0] != first[0]


def test_a_job_too_quick_to_be_seen_running_still_redraws_the_child_and_says_that_it_failed(lab, scanned):
    def fails(tick):
        raise LabError("no luck today; try again")

    at, place = (scanned, NO_RUN_CHOSEN, None), {"pair": None}
    *_, child_before, seen = follow(lab, at, place, ("", "", ""), SEEN)
    with pytest.raises(LabError):
        lab.wait(lab.jobs.submit("export", "Export of child 0", fails))
    bar, *_, child_after, _ = follow(lab, at, place, ("", "", child_before), seen)
    assert isinstance(child_after, str)
    assert child_after != child_before
    assert "no luck today" in bar["notice"]


def test_the_maps_show_what_the_store_holds(lab, scanned):
    scans = {who: lab.scan(scanned, who) for who in ("father", "mother")}
    charts = mri_views.probe_charts(scanned, scans, "skip")
    for chart, scan in zip(charts, scans.values(), strict=True):
        for row, probe in enumerate(scanned.probes.texts):
            assert chart.figure.data[0].z[row] == pytest.approx(scan.importance("skip")[probe], rel=1e-6)
    assert charts[0].figure.data[0].zmax == charts[1].figure.data[0].zmax
    assert mri_views.difference(lab, scanned, scans, "loss", "importance").figure is not None
    assert mri_views.difference(lab, scanned, scans, "loss", "gain").figure is not None
    assert mri_layer_views.experts_of_layer(scans, 0).figure is not None


def test_a_layers_tensors_are_listed_with_their_distance(lab, scanned):
    table = mri_layer_views.tensor_table(lab, scanned, 1)
    assert len(table["rows"]) == len(scanned.anatomy.layer_parts(1))
    assert any(isinstance(row["cells"][2], float) for row in table["rows"])


def test_the_strip_follows_the_recipe(lab, scanned):
    genome = neutral_genome("layerwise", scanned.anatomy.layers).with_genes(layer_0=0.1, layer_3=0.9)
    recipe = lab.recipe(scanned, genome)
    drawn = genome_views.strip_chart(lab, scanned, genome, recipe).figure.data[0].y
    assert [value + 0.5 for value in drawn] == pytest.approx(recipe.layer_ratios())


def test_idle_genes_are_greyed_out_with_a_reason(lab, scanned):
    genome = neutral_genome("v6", scanned.anatomy.layers)
    rows = {row["name"]: row for row in genome_views.editor_of(lab, scanned, genome, "s")["genes"]}
    assert "lerp" in rows["density_b"]["idle"]
    assert rows["attn_ratio"]["idle"] == ""
    assert rows["attn_ratio"]["mri"] is not None


@pytest.mark.parametrize("mode", MODES)
def test_a_genome_is_shown_beside_the_advice_it_goes_by(lab, scanned, mode):
    genome = lab.advised_genome(scanned, "v6", mode)
    advice = lab.prescription(scanned, mode)
    drawn = genome_views.strip_chart(lab, scanned, genome, lab.recipe(scanned, genome)).figure
    ticks = [list(trace.y) for trace in drawn.data if trace.name == "MRI advises"]
    assert ticks == [pytest.approx(advice.layer_ratio)]
    assert mode in genome_views.choice_values(lab, scanned, genome)
    told = lab.recipe(scanned, genome)
    assert (told.prescription_hash, told.advised_by) == (advice.hash, advice.mode)
    assert genome.genes["mri_trust"] == (0.7 if mode == "card_v5" else 0.5)
    assert genome.transplant == (0.05 if mode == "card_v5" else 0.15)


def test_a_genome_keeps_the_prescription_it_names_until_another_way_is_chosen(lab, scanned):
    named = lab.advised_genome(scanned, "v6", "card_v6")
    for way in ("contrastive", "card_v5", "paper"):
        told = genome.prescription_by(lab, scanned, named, way)
        assert told == (None if way == "contrastive" else lab.prescription(scanned, way).hash)
    assert genome.prescription_by(lab, scanned, named, "card_v6") == named.prescription
    unnamed = neutral_genome("v6", scanned.anatomy.layers)
    assert genome.prescription_by(lab, scanned, unnamed, "contrastive") is None
    by_swaps = lab.advised_genome(scanned, "v6")
    assert genome.prescription_by(lab, scanned, by_swaps, "contrastive") == by_swaps.prescription


def test_the_ticks_are_those_of_the_prescription_a_genome_names_not_of_present_scans(lab, scanned, monkeypatch):
    named = lab.advised_genome(scanned, "v6", "card_v6")
    lab.recipe(scanned, named)
    before = genome_views.editor_of(lab, scanned, named, "s")
    monkeypatch.setattr(lab, "prescription", lambda *_: None)
    assert genome_views.editor_of(lab, scanned, named, "s") == before
    monkeypatch.setattr(lab, "scan", lambda *_: None)
    assert all(row["mri"] is None for row in genome_views.editor_of(lab, scanned, named, "s")["genes"])


def test_settings_from_the_editor_take_its_genes_and_freeze_its_locks(scanned):
    genome = neutral_genome("v6", scanned.anatomy.layers)
    payload = {"genes": [{"name": "attn_ratio", "value": 0.7, "locked": True}]}
    form = ("v6", "lerp", 12, 3, 0.2, 0, "genome", 0, 5, True, "card_v6")
    settings = evolution.settings_from(scanned, genome.to_json(), payload, form)
    assert settings.start_genes["attn_ratio"] == 0.7
    assert settings.frozen == ("attn_ratio",)
    assert (settings.budget, settings.seed, settings.popsize, settings.prescription) == (12, 3, None, "card_v6")


def test_a_budget_that_is_no_whole_number_is_refused(scanned):
    with pytest.raises(LabError, match="budget"):
        evolution.settings_from(scanned, None, None, ("v6", "lerp", 2.5, 0, 0.2, 0, "mri", 0, 5, True, "contrastive"))


def test_the_report_shows_n_interval_and_p_for_every_model(lab, scanned):
    genome = neutral_genome("v6", scanned.anatomy.layers)
    lab.wait(lab.request_report(scanned, genome))
    report = lab.report(scanned, lab.recipe(scanned, genome).hash)
    table = child_views.report_table(report)
    assert [row["id"] for row in table["rows"]] == ["child", "father", "mother", "blend"]
    assert "n 6" in table["columns"][-1]["label"]
    assert child_views.report_chart(report).figure is not None


def test_a_pair_that_cannot_be_bred_says_why(lab, tiny_moe_pair, tiny_llama_pair):
    mixed = lab.open_pair(tiny_moe_pair[0], tiny_llama_pair[1])
    assert "cannot be bred" in parents_views.pair_words(mixed)
    assert "✕" in parents_views.checks_table(mixed)["rows"][0]["cells"][3]["words"]


def test_experts_that_fit_by_number_are_said_to_fit_by_number_only(lab, tiny_moe_pair, tiny_llama_pair):
    for folders, said in ((tiny_moe_pair, "✓ fits by number; the MRI says"), (tiny_llama_pair, "✓ fits")):
        rows = parents_views.checks_table(lab.open_pair(*folders[:2]))["rows"]
        (experts,) = [row["cells"][3]["words"] for row in rows if row["id"] == "experts"]
        assert experts.startswith(said) and ("MRI" in experts) == ("MRI" in said)


def test_a_genome_of_unknown_advice_keeps_it_through_a_move(lab, scanned):
    told = replace(neutral_genome("v6", scanned.anatomy.layers), prescription="deadbeef0000")
    assert not set(MODES) & set(map(str, genome_views.choice_values(lab, scanned, told)))
    assert genome.prescription_by(lab, scanned, told, None) == "deadbeef0000"
    assert genome.prescription_by(lab, scanned, told, "contrastive") is None


def test_names_of_checkpoints_are_never_read_as_html(lab, tiny_moe_pair, tmp_path):
    odd = tmp_path / "<img src=x>"
    odd.symlink_to(Path(tiny_moe_pair[0]))
    words = parents.header_words(lab.open_pair(odd, tiny_moe_pair[1]))
    assert "<img" not in words


def test_an_empty_reference_is_refused_with_the_remedy(lab):
    with pytest.raises(LabError, match="no mother given"):
        parents.open_own(lab, "somewhere", " ", "", [])


def test_on_a_space_local_folders_stay_closed(lab, tiny_moe_pair, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "somebody/lab")
    with pytest.raises(LabError, match="Hub ids"):
        parents.open_own(lab, str(tiny_moe_pair[0]), str(tiny_moe_pair[1]), "", [])
    monkeypatch.chdir(tiny_moe_pair[0].parent)
    inside = f"../{tiny_moe_pair[0].parent.name}"
    with pytest.raises(LabError, match="Hub ids"):
        parents.open_own(lab, inside, "owner/name", "", [])


def test_a_genome_that_does_not_fit_the_pair_becomes_the_neutral_one(pair):
    foreign = neutral_genome("layerwise", 99).to_json()
    assert genome_at_hand(pair, foreign) == neutral_genome("v6", pair.anatomy.layers)
