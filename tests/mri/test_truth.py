"""Planted truth: what was put into a model on purpose is what the scan and the health check find, and nothing else."""

import numpy as np
import pytest
import torch
from planted import ALPHABET, HARMLESS, PROBES, SKILL, write_built

from darwin_lab.checkpoint.anatomy import read_anatomy
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.child import Child
from darwin_lab.engine.resident import Resident
from darwin_lab.merging.recipe import uniform_recipe
from darwin_lab.mri.advantage import advantage
from darwin_lab.mri.contrast import contrast
from darwin_lab.mri.health import check_health
from darwin_lab.mri.prescribe import prescribe
from darwin_lab.mri.probes import ProbeSet
from darwin_lab.mri.scan import scan_model
from tests.families import write_family_pair


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(father, his scan)."""
    father = write_built(tmp_path_factory.mktemp("built") / "father")
    return father, scan_model(Resident.load(father), father, PROBES)


def test_the_layer_that_alone_holds_a_skill_is_found_on_that_skills_probe_only(built):
    _, scan = built
    loss = scan.importance("loss")
    others = [layer for layer in range(scan.layers) if layer != SKILL]
    assert scan.mean_nll()["NEXT"] < 0.01
    assert scan.interval("loss", "NEXT")[SKILL, 0] > 10
    assert np.abs(loss["NEXT"][others]).max() < 0.01
    assert loss["NEUTRAL"].max() < 0.1


def test_a_layer_whose_removal_changes_nothing_reads_zero_in_every_measure(built):
    _, scan = built
    for probe in scan.probes:
        for measure in ("skip", "influence", "loss", "kl"):
            assert abs(scan.importance(measure)[probe][HARMLESS]) < 1e-6
        for measure in ("skip", "influence"):
            assert (np.delete(scan.importance(measure)[probe], HARMLESS) > 1e-5).all()


def test_a_planted_interference_is_found_in_its_layer_and_nothing_on_the_control(built, tmp_path):
    father, scan = built
    mother = write_built(tmp_path / "mother", noise=0.00024)
    resident = Resident.load(mother)
    scan_b = scan_model(resident, mother, PROBES)
    control = Child(father, mother, uniform_recipe(read_anatomy(father), 0.5))
    assert check_health(scan_model(resident, control, PROBES), scan, scan_b).verdict == "healthy"
    planted = write_built(tmp_path / "planted", disturbed=3)
    found = check_health(scan_model(resident, planted, PROBES), scan, scan_b)
    assert {row.layer for row in found.rows if row.interference} == {3}
    assert found.verdict != "healthy"
    assert {advice.layer for advice in found.advice} >= {3}
    assert "L3" in found.sentence


def test_a_lost_skill_is_found_in_its_layer(built, tmp_path):
    _, scan = built
    mother = write_built(tmp_path / "mother", noise=0.00024)
    resident = Resident.load(mother)
    lost = write_built(tmp_path / "lost", skill_at=None)
    found = check_health(scan_model(resident, lost, PROBES), scan, scan_model(resident, mother, PROBES))
    assert {(row.layer, row.probe) for row in found.rows if row.function_loss and row.probe == "NEXT"} == {
        (SKILL, "NEXT")
    }
    assert [row.probe for row in found.nll if row.lost] == ["NEXT"]


def used_by_force(resident, texts):
    """Layer -> experts that any token chose: text by text, without padding, seen where the experts are called."""
    used = {}
    with torch.no_grad():
        for index, layer in enumerate(resident.decoder_layers):
            experts = layer.mlp.experts
            used[index] = set()
            hook = experts.register_forward_pre_hook(
                lambda module, args, index=index: used[index].update(args[1].flatten().tolist())
            )
            for text in texts:
                resident.hidden(*resident.encode_batch([resident.tokenizer(text)["input_ids"]]))
            hook.remove()
    return used


@pytest.mark.parametrize("planted", [{}, {0: (3,)}, {0: (1, 2), 1: (0,)}], ids=["control", "one", "three"])
def test_experts_made_dead_on_purpose_are_exactly_those_found(planted, tmp_path):
    source = open_checkpoint(write_family_pair("gpt_oss", tmp_path)[0])
    resident = Resident.load(source)
    rng = np.random.default_rng(0)
    words = list(ALPHABET + "0123456789+=?. ")
    probes = ProbeSet({"MANY": tuple("".join(rng.choice(words, size=length)) for length in range(20, 80))})
    with torch.no_grad():
        for layer, experts in planted.items():
            resident.decoder_layers[layer].mlp.router.bias[list(experts)] = -1e4
    found = scan_model(resident, source, probes)
    report = found.expert_report()
    used = used_by_force(resident, probes.texts["MANY"])
    assert report.certified
    assert {layer: set(np.flatnonzero(~row).tolist()) for layer, row in enumerate(report.dead)} == used
    assert {layer: set(range(4)) - chosen for layer, chosen in used.items()} == {
        layer: set(planted.get(layer, ())) for layer in range(found.layers)
    }
    assert report.dead_share == pytest.approx([len(planted.get(layer, ())) / 4 for layer in range(found.layers)])


@pytest.mark.parametrize("operator", ["lerp", "slerp"])
def test_a_father_merged_with_himself_scans_as_himself(tiny_moe_pair, operator):
    father = open_checkpoint(tiny_moe_pair[0])
    probes = ProbeSet({"MATH": ("1+1=2, 2+2=4", "3+4=7"), "NEUTRAL": ("the cat sat", "it rained")})
    child = Child(father, father, uniform_recipe(read_anatomy(father), 0.5, operator))
    own, childs = (scan_model(Resident.load(source), source, probes) for source in (father, child))
    for measure, by_probe in own.per_text.items():
        for probe, values in by_probe.items():
            assert np.array_equal(values, childs.per_text[measure][probe])
    for probe in probes.names:
        assert np.array_equal(own.nll[probe], childs.nll[probe])
        assert np.array_equal(own.counts[probe], childs.counts[probe])
    assert check_health(childs, own, own).verdict == "healthy"


def test_a_model_has_no_advantage_over_itself_and_its_prescription_says_no_difference(tiny_moe_pair):
    father = open_checkpoint(tiny_moe_pair[0])
    probes = ProbeSet({"MATH": ("1+1=2, 2+2=4", "3+4=7"), "NEUTRAL": ("the cat sat", "it rained")})
    one, twin = Resident.load(father), Resident.load(father)
    scan = scan_model(one, father, probes)
    for measure in ("skip", "influence", "loss", "kl"):
        found = advantage(scan, scan, measure)
        assert not found.values.any()
        assert not found.different.any()
    advice = prescribe(scan, scan, read_anatomy(father), contrast=contrast(one, twin, probes))
    assert "no difference" in advice.note
    assert set(advice.ratio.values()) == {0.5}
    assert advice.golden == ()
