"""The parts of the MRI tab over real scans of tiny parents and over made scans of the largest models."""

import json
from dataclasses import replace

import numpy as np
import pytest

from darwin_lab.errors import LabError
from darwin_lab.lab.lab import Lab
from darwin_lab.merging.prescription import Prescription
from darwin_lab.mri.record import HALVES, Scan
from darwin_lab.mri.static import StaticProfile
from darwin_lab.ui.tabs import mri_expert_views as experts
from darwin_lab.ui.tabs import mri_layer_views as layers
from darwin_lab.ui.tabs import mri_views as views
from tests.mri.made_scans import made_scan, with_dead
from tests.ui.big_scans import EXPERTS, LAYERS, PROBES, big_scan

MEGABYTE = 1_000_000
TEXTS = {"MATH": ("1 + 1 = 2", "3 + 4 = 7", "9 - 5 = 4"), "NEUTRAL": ("It rains.", "The door is open.")}


@pytest.fixture(scope="module")
def big():
    return {"father": big_scan(0), "mother": big_scan(1, name="mother", dead=0.5)}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("home"))
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def probes_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("probes") / "probes.jsonl"
    rows = [{"probe": probe, "text": text.lower()} for probe, texts in TEXTS.items() for text in texts]
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


@pytest.fixture(scope="module")
def dense(lab, tiny_llama_pair, probes_file):
    pair = lab.open_pair(*tiny_llama_pair, probes=probes_file)
    for job in lab.request_scan(pair):
        lab.wait(job)
    return pair


def blank(scans: dict[str, Scan], half: str, layer: int) -> dict[str, Scan]:
    """The scans where `layer` has no such half."""
    found = {}
    for who, scan in scans.items():
        halves = {h: {m: dict(by) for m, by in measures.items()} for h, measures in scan.halves.items()}
        for by_probe in halves[half].values():
            for probe, values in by_probe.items():
                by_probe[probe] = values.copy()
                by_probe[probe][:, layer] = np.nan
        found[who] = replace(scan, halves=halves)
    return found


# ---------------------------------------------------------------------------------------------------- large models


@pytest.mark.parametrize("measure", ["load", "saliency"])
@pytest.mark.parametrize("order", ["index", "load"])
def test_the_largest_expert_map_is_under_half_a_megabyte_on_the_wire(big, measure, order):
    drawn = experts.expert_charts(big, order, measure)
    assert [chart.figure.data[0].z.shape for chart in drawn] == [(EXPERTS, LAYERS)] * 3
    for chart in drawn:
        assert len(json.dumps(chart.wire())) < MEGABYTE / 2
        assert len(chart.figure.data) == 2


def test_a_click_into_the_largest_model_answers_with_little(big):
    chart, table = layers.experts_of_layer(big, 7), layers.expert_table(big, 7)
    assert len(table["rows"]) == EXPERTS
    assert len(chart.wire()) + len(json.dumps(table)) < MEGABYTE / 4


def test_expert_maps_of_one_probe_show_that_probe_and_share_one_colour_range(big):
    drawn = experts.expert_charts(big, "index", "saliency", "CODE")
    assert "CODE: 4,000 tokens" in drawn[0].note
    assert "on all probes" in drawn[0].note
    heats = [chart.figure.data[0] for chart in drawn[:2]]
    assert (heats[0].zmin, heats[0].zmax) == (heats[1].zmin, heats[1].zmax)


def test_the_switch_hides_cards_without_forgetting_them(big):
    told = [json.loads(one) for one in views.shown_charts(experts.expert_charts(big, "index"), "mother")]
    assert [one["hidden"] for one in told] == [True, False, True]
    assert all(one["figure"] for one in told)


# ---------------------------------------------------------------------------------------------------- experts


def test_the_health_table_names_the_layer_with_the_dead_experts():
    scans = {"father": made_scan(tokens=1000), "mother": with_dead(made_scan(name="mother", tokens=1000), 2, 5)}
    table = experts.health_table(scans)
    assert [column["label"] for column in table["columns"]] == [
        "metric", "father", "father's status", "mother", "mother's status", "what it means",
    ]  # fmt: skip
    dead = next(row["cells"] for row in table["rows"] if row["id"] == "dead experts")
    assert dead[1:5] == [
        "0.0 %", {"tone": "ok", "words": "✓ none"},
        "3.1 %", {"tone": "bad", "words": "✕ some · worst L2 12 %"},
    ]  # fmt: skip


def test_scans_without_saliency_and_similarity_say_so_instead_of_drawing():
    old = {"father": made_scan(), "mother": made_scan(1, name="mother")}
    assert "without saliency" in experts.expert_charts(old, "index", "saliency")[0].empty
    assert "Scan the pair again" in experts.similarity_chart(old).empty
    assert experts.entropy_chart(old).figure is not None
    row = next(row["cells"] for row in experts.health_table(old)["rows"] if row["id"] == "output similarity")
    assert row[2]["words"] == "not measured"


@pytest.mark.parametrize(
    ("correspond", "words"),
    [(True, "they can be blended"), (False, "99 % are needed to blend them by number: match them in Parents")],
)
def test_the_note_says_whether_the_experts_of_the_parents_correspond(correspond, words):
    scans = {"father": made_scan(), "mother": made_scan(1, name="mother")}
    profile = StaticProfile("father", "mother", (), {1: 1.0, 2: 0.754}, correspond)
    assert f"75.4 % in the worst layer, L2; {words}" in experts.health_note(scans, profile)
    assert "counterpart" not in experts.health_note(scans, StaticProfile("father", "mother", ()))


def test_too_few_tokens_certify_nothing_and_the_chart_says_how_many_are_missing():
    short = {"father": made_scan(tokens=4), "mother": made_scan(1, name="mother", tokens=1000)}
    assert "not enough tokens" in experts.dead_chart(short).note
    assert "needed" in experts.dead_chart(short).note
    assert [bar.name for bar in experts.dead_chart(short).figure.data] == ["Mother"]


def test_a_dense_pair_says_in_one_line_that_it_has_no_experts():
    dense = {"father": made_scan(moe=False), "mother": made_scan(1, name="mother", moe=False)}
    assert experts.dense_words(dense) == experts.DENSE
    assert "The father has no experts" in experts.dense_words({**dense, "mother": made_scan()})
    assert experts.dense_words({"father": made_scan(), "mother": None}) == ""
    assert experts.health_table(dense)["empty"] == experts.DENSE


# ---------------------------------------------------------------------------------------------------- layers


def test_halves_share_one_colour_range_and_blank_layers_that_have_no_such_half(big, lab, dense):
    scans = blank(big, "attn", 3)
    pair = replace(dense, anatomy=replace(dense.anatomy, layers=LAYERS, layer_kinds=("mamba",) * LAYERS))
    drawn = views.probe_charts(
        replace(pair, probes=type(pair.probes)(dict.fromkeys(PROBES, ("a",)))), scans, "loss", "attn"
    )
    heats = [chart.figure.data[0] for chart in drawn]
    assert heats[0].zmax == heats[1].zmax
    assert np.isnan(heats[0].z[:, 3]).all()
    assert heats[0].z[0, 4] == pytest.approx(scans["father"].importance("loss", "attn")["MATH"][4], rel=1e-6)


def test_halves_that_were_not_measured_come_with_the_remedy(lab, dense):
    scans = views.both_scans(lab, dense)
    assert HALVES == ("attn", "ffn")
    for chart in [
        *views.probe_charts(dense, scans, "loss", "attn"),
        views.difference(lab, dense, scans, "loss", "importance", "ffn"),
    ]:
        assert chart.figure is None
        assert "Measure attention and FFN halves" in chart.empty
    assert "whole layers only" in views.probe_charts(dense, scans, "influence", "attn")[0].empty


def test_the_texts_of_a_probe_come_with_the_largest_effect_first(lab, dense):
    scans = views.both_scans(lab, dense)
    rows = layers.text_table(dense, scans, "loss", 2, "MATH")["rows"]
    effects = [max(abs(row["cells"][2]), abs(row["cells"][3])) for row in rows]
    assert effects == sorted(effects, reverse=True)
    for row in rows:
        assert row["cells"][0] == dense.probes.texts["MATH"][int(row["id"])]
        assert row["cells"][2] == pytest.approx(float(scans["father"].per_text["loss"]["MATH"][int(row["id"]), 2]))
        assert row["cells"][4] == pytest.approx(row["cells"][2] - row["cells"][3])


def test_every_tensor_of_the_model_is_listed_with_what_was_measured_of_it(lab, dense):
    table = layers.model_tensors(lab, dense)
    labels = [column["label"] for column in table["columns"]]
    profile = lab.static(dense).by_name
    assert [row["id"] for row in table["rows"]] == list(dense.anatomy.parts)
    for row in table["rows"]:
        if row["id"] in profile:
            shown = dict(zip(labels, row["cells"], strict=True))
            found = profile[row["id"]]
            assert shown["difference"] == found.delta_norm
            assert shown["stable rank"] == found.stable_rank
            assert shown["std, mother"] == found.std_b


def test_thousands_of_numbered_experts_share_rows_of_means(lab, dense, monkeypatch):
    part = next(iter(dense.anatomy.parts.values()))
    names = [f"model.layers.0.mlp.experts.{e}.down_proj.weight" for e in range(layers.MOST_TENSORS + 1)]
    crowd = replace(dense, anatomy=replace(dense.anatomy, parts={n: replace(part, name=n, layer=0) for n in names}))
    rows = layers.model_tensors(lab, crowd)["rows"]
    assert [row["id"] for row in rows] == ["model.layers.0.mlp.experts.*.down_proj.weight"]
    assert rows[0]["cells"][3].startswith(f"{len(names)} of ")


# ---------------------------------------------------------------------------------------------------- signal check


class Advised:
    """A lab that knows nothing but two prescriptions."""

    def __init__(self, **advice):
        self.advice = advice

    def prescription(self, pair, mode="contrastive"):
        return self.advice.get(mode)

    def scan(self, pair, who):
        return None


def advice(mode, spread, signal, note=""):
    return Prescription(mode, {}, (), {}, (), spread=spread, signal=signal, note=note)


def test_a_card_ratio_that_says_nothing_is_called_that(dense):
    lab = Advised(
        contrastive=advice("contrastive", (0.2, 0.8), True, "mother's layer is better in 1 of 4 layers; the rest"),
        card_v6=advice("card_v6", (0.5, 0.502), False),
    )
    words = views.signal_words(lab, dense)
    assert "mri_ratio spread .500-.502: carries no information for this pair" in words
    assert "mother&#x27;s layer is better in 1 of 4 layers" in words


def test_a_card_ratio_is_told_for_tensors_and_for_layers_and_gets_no_tick(dense):
    card = Prescription("card_v6", {}, (0.49, 0.51), {}, (), spread=(0.2, 0.8), signal=True, note="")
    words = views.signal_words(Advised(contrastive=advice("contrastive", (0.2, 0.8), True), card_v6=card), dense)
    assert "mri_ratio spread .200-.800 over tensors, .490-.510 over layers; no noise is held against it" in words
    assert words.count("✓") == 1


def test_every_way_to_advise_is_a_row_that_says_how_far_it_reaches_or_why_it_is_blank(dense):
    layers_ = dense.anatomy.layers

    class Scanned(Advised):
        def prescription(self, pair, mode="contrastive"):
            if mode == "paper":
                raise LabError("the scan of father holds no mean activations of MATH; scan it again")
            return super().prescription(pair, mode)

    told = advice("contrastive", (0.2, 0.8), True)
    lab = Scanned(
        contrastive=replace(told, layer_ratio=(0.2, 0.8, *[0.5] * (layers_ - 2)), golden=(1,)),
        card_v5=replace(advice("card_v5", (0.5, 0.5003), False), layer_ratio=(0.5,) * layers_),
    )
    chart = views.advice_chart(lab, dense)
    shares = chart.figure.data[0]
    assert [label.split("<")[0] for label in shares.y] == ["Layer swaps", "Card V5", "Card V6", "Paper"]
    assert shares.y[0].endswith("<br>.200-.800") and shares.y[1].endswith("<br>.5000-.5003, no signal")
    assert shares.z[0][:2].tolist() == pytest.approx([0.2, 0.8])
    assert np.isnan(shares.z[2:]).all()
    assert "Card V6: waits for the scan" in chart.note
    assert "Paper: the scan of father holds no mean activations of MATH; scan it again" in chart.note
    assert [note.x for note in chart.figure.layout.annotations] == [1]
    assert len(chart.rows) == 2 * layers_
    assert views.advice_chart(Advised(), dense).figure is None


def test_before_the_swaps_are_measured_the_signal_is_not_judged(dense):
    assert "judged when both scans and the swaps are done" in views.signal_words(Advised(), dense)


def test_identical_parents_are_no_difference_in_every_view(lab, tiny_llama_pair, probes_file):
    twins = lab.open_pair(tiny_llama_pair[0], tiny_llama_pair[0], probes=probes_file)
    for job in lab.request_scan(twins):
        lab.wait(job)
    scans = views.both_scans(lab, twins)
    assert "No difference" in views.signal_words(lab, twins)
    for view in ("importance", "gain"):
        chart = views.difference(lab, twins, scans, "loss", view)
        assert chart.note.startswith("no difference")
        assert not chart.figure.data[0].z.any()
    assert "alike to the last bit" in layers.tensors_note(lab, twins)
