"""Mending on a child with an interference planted at one layer: found there alone, and moved just far enough."""

import json

import numpy as np
import pytest
import torch
from made_scans import with_importance
from planted import PLANTED, PROBES, write_built, write_parent

from darwin_lab.checkpoint.anatomy import read_anatomy
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.child import Child
from darwin_lab.engine.resident import Resident
from darwin_lab.engine.streamed import load_model, weigh
from darwin_lab.engine.variants import variant_sweep
from darwin_lab.errors import LabError
from darwin_lab.genome.genome import neutral_genome
from darwin_lab.merging.recipe import make_recipe
from darwin_lab.mri.health import check_health
from darwin_lab.mri.health_record import Thresholds
from darwin_lab.mri.mending import (
    CLEAR_ALREADY,
    CLEARED,
    FORMS,
    NOT_CLEARED,
    mend,
    mends_from_json,
    mends_to_json,
    nll_changes,
)
from darwin_lab.mri.scan import scan_model
from tests.families import write_family_pair


class Case:
    """A pair, its scans, a model in memory, and children of it with layers pinned."""

    def __init__(self, father, mother):
        self.father, self.mother, self.anatomy = father, mother, read_anatomy(father)
        self.model = Resident.load(father)
        self.parents = tuple(self.scan(source) for source in (father, mother))

    def scan(self, source):
        return scan_model(self.model, source, PROBES)

    def child(self, pins=None, genome=None):
        made = genome or neutral_genome("v6", self.anatomy.layers).with_genes(mri_trust=0.0)
        from dataclasses import replace

        return Child(self.father, self.mother, make_recipe(replace(made, pinned=dict(pins or {})), self.anatomy))

    def check(self, child):
        return check_health(self.scan(child), *self.parents)

    def mend(self, advice, limits=None, model=None, parents=None):
        ratios = dict(enumerate(self.child().recipe.layer_ratios()))
        return mend(model or self.model, self.child, ratios, advice, PROBES, parents or self.parents, limits)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    root = tmp_path_factory.mktemp("planted")
    return Case(write_parent(root / "father", "father"), write_parent(root / "mother", "mother"))


def test_the_planted_interference_is_the_one_flag_and_mending_clears_it(planted):
    before = planted.check(planted.child())
    assert before.flagged_layers == (PLANTED,)
    assert before.verdict != "healthy"
    (mended,) = planted.mend(before.advice)
    assert (mended.layer, mended.outcome, mended.before) == (PLANTED, CLEARED, pytest.approx(0.5))
    after = planted.check(planted.child({PLANTED: mended.after}))
    assert after.flagged_layers == ()
    assert after.verdict == "healthy"


def test_a_pair_without_the_plant_has_nothing_to_mend(tmp_path):
    control = Case(write_built(tmp_path / "father"), write_built(tmp_path / "mother", noise=0.00024))
    found = control.check(control.child())
    assert (found.verdict, found.advice) == ("healthy", ())
    assert control.mend(found.advice) == ()


def test_the_layer_moves_no_further_than_its_flag_asks(planted):
    advice = planted.check(planted.child()).advice
    (mended,) = planted.mend(advice)
    step = 0.5 / FORMS**2
    towards = 1 if mended.towards == "mother" else -1
    nearer = planted.check(planted.child({PLANTED: round(mended.after - towards * step, 6)}))
    assert nearer.flagged_layers == (PLANTED,) or any(row.lost for row in nearer.nll)
    between = [one for one in mended.tried if abs(one.ratio - 0.5) < abs(mended.after - 0.5)]
    assert between
    assert all(one.flagged or one.lost for one in between)


def test_what_was_tried_is_what_a_whole_scan_of_that_child_says(planted):
    (mended,) = planted.mend(planted.check(planted.child()).advice)
    for tried in (mended.was, mended.tried[0], mended.tried[-1]):
        pins = {} if tried is mended.was else {PLANTED: tried.ratio}
        scan = planted.scan(planted.child(pins))
        for probe in PROBES.names:
            assert tried.importance[probe] == pytest.approx(scan.importance("skip")[probe][PLANTED], rel=1e-4, abs=1e-6)
            assert tried.nll[probe] == pytest.approx(scan.mean_nll()[probe], rel=1e-5)


def test_a_layer_that_no_ratio_clears_is_said_and_left_as_it_is(planted):
    advice = planted.check(planted.child()).advice
    important = tuple(with_importance(scan, "skip", "NEXT", PLANTED, 5.0) for scan in planted.parents)
    (mended,) = planted.mend(advice, parents=important)
    assert (mended.outcome, mended.after) == (NOT_CLEARED, None)
    assert {0.0, 1.0} & {one.ratio for one in mended.tried}
    assert "does not clear" in mended.sentence


def test_a_layer_that_is_clear_needs_no_move(planted):
    advice = planted.check(planted.child()).advice
    (mended,) = planted.mend(advice, Thresholds(interference_margin=5.0))
    assert (mended.outcome, mended.after, mended.tried) == (CLEAR_ALREADY, None, ())


def test_loss_can_be_the_measure_and_influence_cannot(planted):
    advice = planted.check(planted.child()).advice
    (mended,) = planted.mend(advice, Thresholds(measure="loss", interference_margin=9.0))
    scan = planted.scan(planted.child())
    for probe in PROBES.names:
        assert mended.was.importance[probe] == pytest.approx(scan.importance("loss")[probe][PLANTED], abs=1e-4)
    with pytest.raises(LabError, match="influence"):
        planted.mend(advice, Thresholds(measure="influence"))


def test_a_streamed_model_mends_alike(planted):
    advice = planted.check(planted.child()).advice
    streamed = load_model(planted.father, weigh(planted.father, "always"))
    whole, layer_by_layer = planted.mend(advice), planted.mend(advice, model=streamed)
    assert [one.after for one in whole] == [one.after for one in layer_by_layer]


def test_mends_survive_json(planted):
    made = planted.mend(planted.check(planted.child()).advice)
    assert mends_from_json(json.loads(json.dumps(mends_to_json(made)))) == made
    with pytest.raises(LabError, match="mend again"):
        mends_from_json([{"layer": 1}])


def test_the_change_of_nll_is_paired_over_texts(planted):
    before, after = planted.scan(planted.child()), planted.scan(planted.child({PLANTED: 0.0}))
    for row in nll_changes(before, after):
        mean, low, high = row.difference
        assert mean == pytest.approx(row.after - row.before, abs=1e-6)
        assert low <= mean <= high
        assert row.texts == len(PROBES.texts[row.probe])


FAMILIES = ("smollm2", "gemma4_e", "qwen3_5_moe", "gpt_oss")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_form_of_a_layer_ends_as_its_own_model_does(family, tmp_path):
    father, mother = (open_checkpoint(path) for path in write_family_pair(family, tmp_path)[:2])
    anatomy = read_anatomy(father)
    layer = anatomy.layers // 2
    base = neutral_genome("layerwise", anatomy.layers)
    from dataclasses import replace

    children = [
        Child(father, mother, make_recipe(replace(base, pinned=pins), anatomy))
        for pins in ({}, {layer: 0.0}, {layer: 0.8})
    ]
    model = Resident.load(father)
    model.become(children[0])
    rows = [model.tokenizer(text)["input_ids"] for text in ("1+2=3, 2+2=4", "abc abc")]
    batch = model.encode_batch(rows)
    (swept,) = variant_sweep(model, children[0], layer, children[1:], [batch])
    for found, child in zip(swept, children, strict=False):
        model.become(father)
        model.become(child)
        with torch.no_grad():
            alone = model.hidden(*batch)
        real = batch[1].bool()
        np.testing.assert_allclose(found[real].numpy(), alone[real].numpy(), atol=2e-5, rtol=1e-4)
