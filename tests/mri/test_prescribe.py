from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_scans import LAYERS, PROBES, TEXTS, made_anatomy, made_contrast, made_scan, with_dead

from darwin_lab.errors import LabError
from darwin_lab.genome.layouts import layout_for
from darwin_lab.merging.prescription import Prescription
from darwin_lab.mri.genes import prescription_genes
from darwin_lab.mri.prescribe import gains, layer_blocks, prescribe
from darwin_lab.mri.static import StaticProfile, StaticRow

FATHER, MOTHER = made_scan(1), made_scan(2, name="mother")
ANATOMY = made_anatomy()


def made_static(delta=lambda part: 0.1, entropy_b=5.0):
    rows = [
        StaticRow(part.name, part.layer, part.role, part.component, part.numel, 5.0, entropy_b, 0.1, 0.1, 10.0, 10.0,
                  delta(part), 0.99, 0.01, 4.0)
        for part in ANATOMY.mergeable
    ]  # fmt: skip
    return StaticProfile("father", "mother", tuple(rows))


def contrastive(level, noise=0.0, **options):
    contrast = made_contrast(level, FATHER, MOTHER, noise=noise)
    return prescribe(FATHER, MOTHER, ANATOMY, contrast=contrast, **options)


def test_the_ratio_is_the_sigmoid_of_the_gain_over_its_root_mean_square():
    level = np.array([0.2, -0.1, 0.05, 0.0])
    found = contrastive(level)
    expected = 1 / (1 + np.exp(-1.5 * level / np.sqrt((level**2).mean())))
    assert found.layer_ratio == pytest.approx(tuple(expected), abs=0.003)
    assert found.signal


def test_a_mother_worse_everywhere_gets_less_than_half_everywhere_also_when_alike_in_all_layers():
    for level in ([-0.1, -0.3, -0.2, -0.05], [-0.1, -0.1, -0.1, -0.1]):
        found = contrastive(level, noise=0.01)
        assert found.signal
        assert max(found.layer_ratio) < 0.5


def test_identical_parents_get_half_everywhere_and_the_words_no_difference():
    contrast = made_contrast([0.0] * LAYERS, FATHER, FATHER)
    found = prescribe(FATHER, FATHER, ANATOMY, contrast=contrast)
    assert set(found.ratio.values()) == {0.5}
    assert not found.signal
    assert "no difference" in found.note
    assert found.golden == ()
    assert found.preserve == {}


def test_gains_within_their_own_noise_are_shrunk_and_often_leave_no_signal():
    silent = 0
    for seed in range(12):
        contrast = made_contrast([0.0] * LAYERS, FATHER, MOTHER, noise=1.0, seed=seed)
        found = gains(contrast)
        assert (np.abs(found.shrunk) <= np.abs(found.raw)).all()
        advice = prescribe(FATHER, MOTHER, ANATOMY, contrast=contrast)
        assert advice.signal == (found.tau2 > 0)
        if not advice.signal:
            silent += 1
            assert "no signal for this pair" in advice.note
            assert set(advice.ratio.values()) == {0.5}
    assert silent >= 3


def test_a_probe_of_one_text_leaves_no_signal_and_says_so_instead_of_failing():
    contrast = made_contrast([0.3, -0.2, 0.1, 0.0], FATHER, MOTHER, noise=0.1)
    single = replace(
        contrast,
        lengths={**contrast.lengths, "CODE": contrast.lengths["CODE"][:1]},
        gain={**contrast.gain, "CODE": contrast.gain["CODE"][:1]},
    )
    found = prescribe(FATHER, MOTHER, ANATOMY, contrast=single)
    assert set(found.ratio.values()) == {0.5} and not found.signal
    assert "a probe of one text (CODE) has no interval" in found.note
    few = [
        replace(
            scan,
            lengths={**scan.lengths, "CODE": scan.lengths["CODE"][:1]},
            per_text={m: {**by, "CODE": by["CODE"][:1]} for m, by in scan.per_text.items()},
            counts={**scan.counts, "CODE": scan.counts["CODE"][:1]},
        )
        for scan in (FATHER, MOTHER)
    ]
    assert prescribe(*few, ANATOMY, contrast=single).golden == ()


def test_shrinking_follows_its_formula():
    contrast = made_contrast([0.3, -0.2, 0.1, 0.0], FATHER, MOTHER, noise=0.1)
    found = gains(contrast)
    raw = (contrast.mean["MATH"] + contrast.mean["CODE"]) / 2
    se2 = (contrast.se["MATH"] ** 2 + contrast.se["CODE"] ** 2) / 4
    tau2 = max(0.0, (raw**2 - se2).mean())
    assert found.raw == pytest.approx(raw)
    assert found.shrunk == pytest.approx(raw * tau2 / (tau2 + se2))


def test_weights_choose_the_probes_that_count():
    contrast = made_contrast([0.1, 0.1, -0.1, -0.1], FATHER, MOTHER)
    flipped = replace(contrast, gain={**contrast.gain, "CODE": -contrast.gain["CODE"]})
    assert not prescribe(FATHER, MOTHER, ANATOMY, contrast=flipped).signal
    only = prescribe(FATHER, MOTHER, ANATOMY, contrast=flipped, weights={"CODE": 1.0})
    assert only.layer_ratio[0] < 0.5 < only.layer_ratio[3]


def test_inside_a_layer_the_tensor_that_moved_more_follows_the_layer_more():
    static = made_static(lambda part: 0.3 if part.component == "attn" else 0.1)
    found = contrastive([0.2, 0.1, 0.3, 0.2], static=static)
    assert (
        found.ratio["model.layers.2.self_attn.q_proj.weight"]
        > found.ratio["model.layers.2.mlp.experts.down_proj"]
        > 0.5
    )
    assert found.ratio["model.embed_tokens.weight"] == 0.5
    assert "mtp.fc.weight" not in found.ratio


def test_a_scan_rounded_differently_gives_the_same_ratios():
    level = np.array([0.21, -0.13, 0.052, 0.01])
    assert contrastive(level).ratio == contrastive(level * (1 + 1e-6)).ratio


def test_the_card_says_half_for_identical_parents_and_that_it_carries_no_signal():
    found = prescribe(FATHER, FATHER, ANATOMY, mode="card_v6", static=made_static())
    assert set(found.ratio.values()) == {0.5}
    assert not found.signal
    assert "0.5000" in found.note
    assert "carries no signal" in found.note


def test_the_v5_card_follows_its_formula_and_reads_no_text():
    found = prescribe(FATHER, MOTHER, ANATOMY, mode="card_v5", static=made_static(entropy_b=2.0))
    father, mother = (0.5 * entropy + 0.3 * 0.1 + 0.002 * 10.0 for entropy in (5.0, 2.0))
    assert set(found.ratio.values()) == {round(mother / (father + mother), 6)}
    assert found.signal, "a mother who is less everywhere is advice too"
    assert not prescribe(FATHER, MOTHER, ANATOMY, mode="card_v5", static=made_static(entropy_b=4.95)).signal
    assert prescribe(MOTHER, FATHER, ANATOMY, mode="card_v5", static=made_static(entropy_b=2.0)).ratio == found.ratio
    assert prescription_genes(found, layout_for("v6", LAYERS), ANATOMY, MOTHER)[0]["mri_trust"] == 0.7


@pytest.mark.parametrize("probe", ["REASONING", "skills"])
def test_the_papers_formula_sets_reasoning_against_neutral_text(probe):
    def called(name):
        return "REASONING" if name == "MATH" else name

    def renamed(values):
        return {called(name): value for name, value in values.items()}

    def conditioned(scan, angle):
        """Every layer's mean output at `angle` between the named probe and neutral text, at none for CODE."""
        centroids = {name: np.tile([1.0, 0.0], (LAYERS, 1)).astype(np.float32) for name in PROBES}
        centroids["MATH"] = np.tile([np.cos(angle), np.sin(angle)], (LAYERS, 1)).astype(np.float32)
        if probe != "REASONING":
            return replace(scan, centroids=centroids)
        by_probe = {name: getattr(scan, name) for name in ("lengths", "nll", "counts", "router")}
        by_probe = {**by_probe, "centroids": centroids}
        return replace(
            scan,
            probes=tuple(map(called, PROBES)),
            per_text={measure: renamed(values) for measure, values in scan.per_text.items()},
            **{name: renamed(values) for name, values in by_probe.items()},
        )

    father, mother = conditioned(FATHER, 0.3), conditioned(MOTHER, 1.2)
    found = prescribe(father, mother, ANATOMY, mode="paper", static=made_static())
    static, share = 0.3 * 5.0 + 0.2 * 0.1 + 0.002 * 10.0, 1.0 if probe == "REASONING" else 0.5
    a, b = (0.5 * static + 0.5 * share * (1 - np.cos(angle)) for angle in (0.3, 1.2))
    assert found.ratio["model.layers.1.mlp.gate.weight"] == pytest.approx(b / (a + b), abs=1e-6)
    assert found.ratio["model.embed_tokens.weight"] == 0.5
    assert found.signal and found.note.startswith("the paper's ratio lies in 0.5000")


def test_the_papers_formula_names_what_a_scan_lacks_for_it():
    static = made_static()
    with pytest.raises(LabError, match="father holds no mean activations of MATH; scan it again"):
        prescribe(FATHER, MOTHER, ANATOMY, mode="paper", static=static)
    few = [replace(scan, probes=("MATH", "CODE")) for scan in (FATHER, MOTHER)]
    with pytest.raises(LabError, match="needs a NEUTRAL probe"):
        prescribe(*few, ANATOMY, mode="paper", static=static)


def test_the_card_follows_its_formula():
    found = prescribe(FATHER, MOTHER, ANATOMY, mode="card_v6", static=made_static(entropy_b=2.0))
    combined = []
    for scan, entropy in ((FATHER, 5.0), (MOTHER, 2.0)):
        probe = np.mean([scan.importance("skip")[name][1] for name in ("MATH", "CODE")])
        combined.append(0.4 * (0.3 * entropy + 0.2 * 0.1 + 0.002 * 10.0) + 0.6 * probe)
    assert found.ratio["model.layers.1.mlp.gate.weight"] == pytest.approx(combined[1] / sum(combined), abs=1e-6)
    assert found.signal
    assert found.spread == (min(found.ratio.values()), max(found.ratio.values()))


def test_experts_dead_in_the_mother_and_alive_in_the_father_are_preserved():
    mother = with_dead(with_dead(MOTHER, 1, 3), 2, 5)
    father = with_dead(FATHER, 2, 5)
    contrast = made_contrast([0.1] * LAYERS, father, mother)
    assert prescribe(father, mother, ANATOMY, contrast=contrast).preserve == {1: (3,)}


def test_a_prescription_counts_the_experts_of_both_parents_each_by_its_own_number():
    mother, father = with_dead(MOTHER, 1, 3), with_dead(FATHER, 2, 5)
    found = prescribe(father, mother, ANATOMY, contrast=made_contrast([0.1] * 4, father, mother))
    assert found.dead == {1: (3,)}
    assert sorted(found.utilisation) == list(range(LAYERS))
    even, hers = found.utilisation[1]
    assert even == pytest.approx((1 / 8,) * 8)
    assert hers == pytest.approx((1 / 8, 1 / 8, 1 / 8, 0, 1 / 4, 1 / 8, 1 / 8, 1 / 8))
    swapped = found.reordered({1: (3, 1, 2, 0, 4, 5, 6, 7)})
    assert swapped.preserve == {1: (0,)}
    assert swapped.utilisation[1][1][:4] == pytest.approx((0, 1 / 8, 1 / 8, 1 / 8))
    assert swapped.utilisation[2] == found.utilisation[2]


def test_dead_experts_are_not_preserved_on_too_few_tokens():
    few = {probe: np.full(TEXTS, 4, dtype=np.int32) for probe in PROBES}
    mother = with_dead(replace(MOTHER, lengths=few), 1, 3)
    father = replace(FATHER, lengths=few)
    assert not mother.expert_report().certified
    assert prescribe(father, mother, ANATOMY, contrast=made_contrast([0.1] * 4, father, mother)).preserve == {}


def test_a_prescription_survives_json_and_blends_routers_by_default():
    found = contrastive([0.2, -0.1, 0.05, 0.0], n_blocks=2)
    assert Prescription.from_json(found.to_json()) == found
    assert found.router == dict.fromkeys(range(LAYERS), "blend")
    assert found.blocks == ((0, 1), (2, 3))
    assert set(found.component_ratio) == {"attn", "ffn", "embed", "global"}


def test_what_is_missing_or_does_not_belong_is_refused():
    other = made_contrast([0.1] * LAYERS, FATHER, made_scan(9, name="mother"))
    for words, options in {
        "needs the contrast": {},
        "of other parents": {"contrast": other},
        "needs the static profile": {"mode": "card_v6"},
        "no prescription mode": {"mode": "v7"},
    }.items():
        with pytest.raises(LabError, match=words):
            prescribe(FATHER, MOTHER, ANATOMY, **options)


def test_blocks_are_ten_layers_by_default_and_change_points_find_the_steps():
    assert layer_blocks(np.zeros(12)) == ((0, 5), (6, 11))
    steps = np.array([0, 0, 0, 0, 0, 1, 1, 5, 5, 5])
    assert layer_blocks(steps, 3, "change") == ((0, 4), (5, 6), (7, 9))
    with pytest.raises(LabError, match="blocks do not fit"):
        layer_blocks(np.zeros(4), 5)
    with pytest.raises(LabError, match="no block split"):
        layer_blocks(np.zeros(4), 2, "odd")


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.data())
def test_blocks_cover_every_layer_once(layers, data):
    count = data.draw(st.integers(1, layers))
    profile = np.array(data.draw(st.lists(st.floats(0, 1), min_size=layers, max_size=layers)))
    for split in ("equal", "change"):
        blocks = layer_blocks(profile, count, split)
        assert [layer for first, last in blocks for layer in range(first, last + 1)] == list(range(layers))
        assert len(blocks) == count
