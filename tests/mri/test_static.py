import numpy as np
import pytest

from darwin_lab.mri.static import StaticProfile, compare_tensors, histogram_entropy, stable_rank

RNG = np.random.default_rng(0)
A = RNG.standard_normal((40, 60)).astype(np.float32)


def test_equal_tensors_have_no_difference():
    found = compare_tensors(A, A.copy())
    assert found["delta_norm"] == 0
    assert found["sign_flips"] == 0
    assert found["stable_rank"] == 0
    assert found["cosine"] == pytest.approx(1)
    assert found["entropy_a"] == found["entropy_b"]


def test_the_numbers_are_those_of_their_definitions():
    b = (A + 0.1 * RNG.standard_normal(A.shape)).astype(np.float32)
    found = compare_tensors(A, b)
    assert found["norm_a"] == pytest.approx(np.linalg.norm(A), rel=1e-6)
    assert found["std_b"] == pytest.approx(b.std(), rel=1e-5)
    assert found["delta_norm"] == pytest.approx(np.linalg.norm(b - A) / np.linalg.norm(A), rel=1e-6)
    assert found["cosine"] == pytest.approx((A * b).sum() / np.linalg.norm(A) / np.linalg.norm(b), rel=1e-6)
    assert found["sign_flips"] == pytest.approx((np.sign(A) != np.sign(b)).mean())
    delta = b - A
    spectral = np.linalg.norm(delta, 2)
    assert found["stable_rank"] == pytest.approx((np.linalg.norm(delta) / spectral) ** 2, rel=0.05)


def test_a_rank_one_change_has_stable_rank_one_also_per_expert():
    one = np.outer(np.arange(1, 9), np.arange(1, 6)).astype(np.float32)
    assert stable_rank(one) == pytest.approx(1)
    assert stable_rank(np.stack([one, 3 * one]), stacked=True) == pytest.approx(1)


def test_a_gaussian_has_the_entropy_of_its_clipped_histogram_and_a_constant_none():
    values = RNG.standard_normal(400_000).astype(np.float32)
    expected = 0.5 * np.log(2 * np.pi * np.e) - np.log(8 / 256)
    assert histogram_entropy(values, float(values.mean()), float(values.std())) == pytest.approx(expected, abs=0.01)
    assert histogram_entropy(np.ones(5, dtype=np.float32), 1.0, 0.0) == 0


def test_a_zero_father_is_measured_against_the_mother():
    zero = np.zeros((3, 4), dtype=np.float32)
    found = compare_tensors(zero, np.ones((3, 4), dtype=np.float32))
    assert found["delta_norm"] == pytest.approx(1)
    assert compare_tensors(zero, zero)["cosine"] == 1


def test_a_profile_of_two_checkpoints_covers_all_mergeable_tensors_and_survives_json(tiny_moe_pair):
    from darwin_lab.checkpoint.alignment import align
    from darwin_lab.checkpoint.anatomy import read_anatomy
    from darwin_lab.checkpoint.opening import open_checkpoint
    from darwin_lab.mri.static import static_profile

    father, mother = (open_checkpoint(folder) for folder in tiny_moe_pair[:2])
    anatomy = read_anatomy(father)
    profile = static_profile(father, align(father, mother), anatomy)
    assert [row.name for row in profile.rows] == [part.name for part in anatomy.mergeable]
    assert profile.by_name["model.embed_tokens.weight"].delta_norm > 0
    assert profile.same_experts == {0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0}
    assert StaticProfile.from_json(profile.to_json()) == profile
    assert (profile.layer_delta(anatomy.layers) > 0).all()


def test_a_mother_in_another_layout_has_the_same_profile(family_pairs):
    from darwin_lab.checkpoint.alignment import align
    from darwin_lab.checkpoint.anatomy import read_anatomy
    from darwin_lab.checkpoint.opening import open_checkpoint
    from darwin_lab.mri.static import static_profile

    father = open_checkpoint(family_pairs("qwen3_moe", "fused")[0])
    rows = []
    for layout in ("fused", "single"):
        mother = open_checkpoint(family_pairs("qwen3_moe", layout)[1])
        rows.append(static_profile(father, align(father, mother), read_anatomy(father)).rows)
    assert rows[0] == rows[1]


def test_a_mother_whose_experts_are_reordered_has_the_profile_of_the_experts_in_their_places(family_pairs):
    from darwin_lab.checkpoint.alignment import align
    from darwin_lab.checkpoint.anatomy import read_anatomy
    from darwin_lab.checkpoint.opening import open_checkpoint
    from darwin_lab.mri.static import static_profile

    father, mother = (open_checkpoint(folder) for folder in family_pairs("qwen3_moe", "single")[:2])
    anatomy, order = read_anatomy(father), (2, 0, 3, 1)
    straight = static_profile(father, align(father, mother), anatomy).by_name
    crossed = static_profile(father, align(father, mother, expert_order={0: order}), anatomy).by_name
    name = "model.layers.{}.mlp.experts.{}.down_proj.weight"
    for place, expert in enumerate(order):
        assert crossed[name.format(0, place)].norm_b == straight[name.format(0, expert)].norm_b
        assert crossed[name.format(0, place)].cosine < straight[name.format(0, place)].cosine
    assert crossed["model.layers.0.mlp.gate.weight"].delta_norm > straight["model.layers.0.mlp.gate.weight"].delta_norm
    assert crossed[name.format(1, 0)] == straight[name.format(1, 0)]
