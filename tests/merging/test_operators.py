"""The operators against three-line references, their limits, and their indifference to threads and place."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from darwin_lab.merging.draws import draw_bits, draw_key, keep_mask
from darwin_lab.merging.operators import OPERATORS, Blend, Draw, blend, block_dot, lerp, slerp

DRAW = Draw(seed=0, name="w")
RATIOS = st.floats(0.01, 0.99)
SEEDS = st.integers(0, 2**31)


def trio(seed: int, size: int = 500) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(size, generator=generator)
    a, b = (base + 0.1 * torch.randn(size, generator=generator) for _ in range(2))
    return a, b, base


@given(SEEDS, RATIOS)
@settings(max_examples=30, deadline=None)
def test_lerp_is_the_weighted_mean(seed: int, ratio: float) -> None:
    a, b, _ = trio(seed)
    expected = (1 - ratio) * a.double() + ratio * b.double()
    assert torch.allclose(lerp(a, b, ratio).double(), expected, atol=1e-6)


@given(SEEDS, RATIOS)
@settings(max_examples=30, deadline=None)
def test_slerp_is_the_spherical_formula(seed: int, ratio: float) -> None:
    a, b = torch.randn(2, 300, generator=torch.Generator().manual_seed(seed))
    x, y = a.double().numpy(), b.double().numpy()
    angle = np.arccos(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    expected = (np.sin((1 - ratio) * angle) * x + np.sin(ratio * angle) * y) / np.sin(angle)
    assert np.allclose(slerp(a, b, ratio).numpy(), expected, atol=1e-5)


def test_slerp_of_nearly_parallel_tensors_is_lerp() -> None:
    a = torch.randn(100, generator=torch.Generator().manual_seed(0))
    b = a * 1.5
    assert torch.equal(slerp(a, b, 0.3), lerp(a, b, 0.3))


@given(SEEDS, RATIOS, st.sampled_from([0.2, 0.5, 1.0]))
@settings(max_examples=40, deadline=None)
def test_ties_is_trim_elect_average(seed: int, ratio: float, density: float) -> None:
    a, b, base = trio(seed)
    deltas = []
    for parent, weight in ((a, 1 - ratio), (b, ratio)):
        delta = (parent - base).numpy().astype(np.float64)
        keep = int(density * len(delta))
        delta[np.argsort(-np.abs(delta), kind="stable")[keep:]] = 0
        deltas.append((delta, weight))
    total = sum(delta * weight for delta, weight in deltas)
    sign = np.where(total >= 0, 1, -1)
    summed = sum(delta * weight * (np.sign(delta) == sign) for delta, weight in deltas)
    weights = sum(weight * (np.sign(delta) == sign) for delta, weight in deltas)
    expected = base.numpy() + summed / np.where(weights == 0, 1, weights)
    got = blend(a, b, base, Blend("ties", ratio, density, density), DRAW)
    assert np.allclose(got.numpy(), expected, atol=1e-5)


@given(SEEDS, RATIOS)
@settings(max_examples=30, deadline=None)
def test_dare_ties_masks_rescales_elects_and_sums(seed: int, ratio: float) -> None:
    a, b, base = trio(seed)
    how = Blend("dare_ties", ratio, 0.4, 0.7)
    parts = []
    for parent, who, density, weight in ((a, "father", 0.4, 1 - ratio), (b, "mother", 0.7, ratio)):
        mask = keep_mask(draw_key(0, "w", who), density, 0, a.numel())
        parts.append((parent - base) * mask / density * weight)
    sign = torch.where(parts[0] + parts[1] >= 0, 1.0, -1.0)
    expected = base + sum(part * (part.sign() == sign) for part in parts)
    assert torch.allclose(blend(a, b, base, how, DRAW), expected, atol=1e-5)


def test_dare_without_an_ancestor_moves_the_kept_entries_by_ratio_over_density() -> None:
    a, b, _ = trio(1)
    mask = keep_mask(draw_key(0, "w", "mother"), 0.5, 0, a.numel())
    expected = torch.where(mask, a + 0.3 * (b - a) / 0.5, a)
    assert torch.allclose(blend(a, b, None, Blend("dare", 0.3, density_b=0.5), DRAW), expected, atol=1e-6)


def test_l1_rescaling_keeps_the_l1_norm_of_the_delta() -> None:
    a, b, _ = trio(2, 20_000)
    child = blend(a, b, None, Blend("dare", 1.0 - 1e-9, density_b=0.3, rescale="l1"), DRAW)
    assert float((child - a).abs().sum()) == pytest.approx(float((b - a).abs().sum()), rel=1e-4)


@pytest.mark.parametrize("operator", ["dare", "task_arithmetic"])
def test_at_density_one_it_is_lerp(operator: str) -> None:
    a, b, base = trio(3)
    assert torch.allclose(blend(a, b, base, Blend(operator, 0.4), DRAW), lerp(a, b, 0.4), atol=1e-6)


@pytest.mark.parametrize("operator", ["task_arithmetic", "ties", "dare_ties"])
def test_an_operator_that_needs_an_ancestor_says_so(operator: str) -> None:
    a, b, _ = trio(4)
    with pytest.raises(ValueError, match="ancestor"):
        blend(a, b, None, Blend(operator, 0.4), DRAW)


def test_a_draw_depends_on_nothing_but_its_key_and_index() -> None:
    key = draw_key(7, "model.layers.0.weight", "mother")
    whole = draw_bits(key, 0, 10_000)
    pieces = torch.cat([draw_bits(key, start, 2_500) for start in range(0, 10_000, 2_500)])
    assert torch.equal(whole, pieces)


def test_the_kept_share_is_the_density_and_density_one_keeps_all() -> None:
    key = draw_key(0, "w", "mother")
    for density in (0.05, 0.5, 0.95):
        share = keep_mask(key, density, 0, 200_000).float().mean().item()
        assert share == pytest.approx(density, abs=4 * (density * (1 - density) / 200_000) ** 0.5)
    assert bool(keep_mask(key, 1.0, 0, 1000).all())


def test_masks_of_tensors_parents_and_seeds_are_independent_at_every_shift() -> None:
    """For independent masks the agreement is binomial; 5 sigma over the first shifts finds a shifted copy."""
    size = 50_000
    masks = [
        keep_mask(draw_key(seed, name, parent), 0.5, 0, size)
        for seed, name, parent in ((0, "a", "mother"), (0, "b", "mother"), (0, "a", "father"), (1, "a", "mother"))
    ]
    for i in range(len(masks)):
        for j in range(i + 1, len(masks)):
            for shift in range(40):
                agree = (masks[i][shift:] == masks[j][: size - shift]).float().mean().item()
                assert abs(agree - 0.5) < 5 * 0.5 / size**0.5


def test_reductions_do_not_depend_on_the_thread_count() -> None:
    x, y = torch.randn(2, 1_000_003, generator=torch.Generator().manual_seed(0))
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        results.append(
            (block_dot(x, y), *[blend(x, y, x * 0.9, Blend(op, 0.3, 0.5, 0.5, "l1"), DRAW) for op in OPERATORS])
        )
    torch.set_num_threads(before)
    for other in results[1:]:
        assert other[0] == results[0][0]
        assert all(torch.equal(p, q) for p, q in zip(other[1:], results[0][1:], strict=True))
