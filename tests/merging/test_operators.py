"""Every operator against a three-line reference in float64, over random parents, ratios and densities."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from darwin_lab.merging.draws import Draws, draw_key
from darwin_lab.merging.operators import IGNORES_RATIO, NEEDS_ANCESTOR, OPERATORS, OPTIONS
from darwin_lab.merging.recipe import Recipe, Row
from darwin_lab.merging.tensor import merge_tensor

Array = NDArray[np.float64]
RATIOS = st.floats(0.01, 0.99)
DENSITIES = st.sampled_from([0.05, 0.3, 0.75, 1.0])
SEEDS = st.integers(0, 2**31)
RESCALES = st.sampled_from(["inverse", "l1", "none"])
SHAPES = st.sampled_from([(1,), (7,), (20, 25), (5, 3, 17), (131, 257)])
LAMBDAS = st.sampled_from([1.0, 0.4, 1.7])
examples = settings(max_examples=40, deadline=None)


def trio(seed: int, shape: tuple[int, ...] = (20, 25)) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Father, mother, ancestor; half of the fine-tuning lies on a coarse grid, so that magnitudes tie."""
    generator = torch.Generator().manual_seed(seed)
    base, a, b = torch.randn(3, *shape, generator=generator)
    a, b = (torch.where(step.abs() < 0.7, (step * 4).round() / 4, step) for step in (a, b))
    return base + 0.25 * a, base + 0.25 * b, base


def merged(
    operator: str,
    parents: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None],
    ratio: float = 0.4,
    densities: tuple[float, float] = (1.0, 1.0),
    rescale: str = "inverse",
    mix: float = 0.5,
    **options: float,
) -> Array:
    row = Row("w", 0, "ffn", "ffn", "merge", ratio, operator, *densities, mix)
    recipe = Recipe({"w": row}, rescale=rescale, options={name.rstrip("_"): value for name, value in options.items()})
    return merge_tensor(row, recipe, *parents).double().numpy()


def deltas(parents: tuple[torch.Tensor, ...]) -> tuple[Array, Array, Array]:
    """dA, dB (rounded to float32, as the kernel's are) and the ancestor."""
    a, b, base = parents
    return (a - base).double().numpy(), (b - base).double().numpy(), base.double().numpy()


def mask(density: float, parent: str, like: Array) -> Array:
    kept = Draws(draw_key(0, "w", parent)).keep(density, 0, like.size).numpy() != 0
    return kept.reshape(like.shape).astype(np.float64)


def rescaled(delta: Array, kept: Array, chance: Array | float, rescale: str) -> Array:
    scale = {"inverse": 1.0 / chance, "none": 1.0}.get(rescale)
    if scale is None:
        before, after = np.abs(delta).sum(), np.abs(delta * kept).sum()
        scale = before / after if min(before, after) > 1e-7 else 1.0
    return delta * kept * scale


def largest(delta: Array, keep: int) -> Array:
    """1 at the `keep` largest magnitudes, the earlier of equals first."""
    kept = np.zeros(delta.size)
    kept[np.argsort(-np.abs(delta).ravel(), kind="stable")[:keep]] = 1
    return kept.reshape(delta.shape)


def elected(a: Array, b: Array, ratio: float, *, average: bool) -> Array:
    """NaN where the sum is a rounding away from a tie, so that its sign says nothing."""
    x, y = a * (1 - ratio), b * ratio
    sign = np.where(x + y >= 0, 1, -1)
    agree_x, agree_y = np.sign(x) == sign, np.sign(y) == sign
    weights = (1 - ratio) * agree_x + ratio * agree_y if average else 1.0
    summed = (x * agree_x + y * agree_y) / np.where(weights == 0, 1, weights)
    return np.where(np.abs(x + y) < 1e-6 * np.maximum(np.abs(x), np.abs(y)), np.nan, summed)


def near(got: Array, expected: Array, tolerance: float = 2e-6) -> bool:
    sure = ~np.isnan(expected)
    got, expected = got[sure], expected[sure]
    return bool(np.allclose(got, expected, rtol=tolerance, atol=tolerance * (1 + np.abs(expected).max(initial=0))))


@given(SEEDS, RATIOS, SHAPES)
@examples
def test_lerp_is_the_weighted_mean(seed: int, ratio: float, shape: tuple[int, ...]) -> None:
    a, b, base = trio(seed, shape)
    assert near(merged("lerp", (a, b, base), ratio), (1 - ratio) * a.double().numpy() + ratio * b.double().numpy())


@pytest.mark.parametrize("operator", ["lerp", "slerp", "dare", "nearswap"])
@given(seed=SEEDS, ratio=RATIOS)
@examples
def test_a_parent_merged_with_itself_is_itself_to_the_last_bit(operator: str, seed: int, ratio: float) -> None:
    a, _, _ = trio(seed)
    assert np.array_equal(merged(operator, (a, a.clone(), None), ratio), a.double().numpy())


@given(SEEDS, RATIOS, st.sampled_from([1.0, 1e-25, 1e25]))
@examples
def test_slerp_is_the_spherical_formula_at_any_scale(seed: int, ratio: float, scale: float) -> None:
    a, b = torch.randn(2, 300, generator=torch.Generator().manual_seed(seed)) * scale
    x, y = a.double().numpy(), b.double().numpy()
    angle = np.arccos(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    expected = (np.sin((1 - ratio) * angle) * x + np.sin(ratio * angle) * y) / np.sin(angle)
    assert near(merged("slerp", (a, b, None), ratio) / scale, expected / scale)


@pytest.mark.parametrize("factor", [1.5, -1.0, 0.0])
def test_slerp_of_parallel_opposite_and_zero_tensors_is_lerp(factor: float) -> None:
    a = torch.randn(100, generator=torch.Generator().manual_seed(0))
    parents = (a, a * factor, None)
    assert np.array_equal(merged("slerp", parents, 0.3), merged("lerp", parents, 0.3))


@given(SEEDS, RATIOS, LAMBDAS)
@examples
def test_task_arithmetic_scales_the_weighted_sum_of_deltas(seed: int, ratio: float, factor: float) -> None:
    parents = trio(seed)
    a, b, base = deltas(parents)
    expected = base + factor * ((1 - ratio) * a + ratio * b)
    assert near(merged("task_arithmetic", parents, ratio, lambda_=factor), expected)


@given(SEEDS, RATIOS, DENSITIES, DENSITIES, LAMBDAS, SHAPES)
@examples
def test_ties_is_trim_elect_average(
    seed: int, ratio: float, density_a: float, density_b: float, factor: float, shape: tuple[int, ...]
) -> None:
    parents = trio(seed, shape)
    a, b, base = deltas(parents)
    trimmed = (delta * largest(delta, max(1, int(d * delta.size))) for delta, d in ((a, density_a), (b, density_b)))
    expected = base + factor * elected(*trimmed, ratio, average=True)
    assert near(merged("ties", parents, ratio, (density_a, density_b), lambda_=factor), expected)


@pytest.mark.parametrize("operator", ["ties", "dare_ties"])
def test_deltas_that_cancel_elect_plus(operator: str) -> None:
    base, step = torch.zeros(2), torch.tensor([0.5, -0.5])
    assert merged(operator, (base + step, base - step, base), 0.5).tolist() == pytest.approx(
        [0.5, 0.5] if operator == "ties" else [0.25, 0.25]
    )


@given(SEEDS, RATIOS, DENSITIES, DENSITIES, RESCALES, LAMBDAS)
@examples
def test_dare_ties_masks_rescales_elects_and_sums(
    seed: int, ratio: float, density_a: float, density_b: float, rescale: str, factor: float
) -> None:
    parents = trio(seed)
    a, b, base = deltas(parents)
    a = rescaled(a, mask(density_a, "father", a), density_a, rescale if density_a < 1 else "none")
    b = rescaled(b, mask(density_b, "mother", b), density_b, rescale if density_b < 1 else "none")
    expected = base + factor * elected(a, b, ratio, average=False)
    assert near(merged("dare_ties", parents, ratio, (density_a, density_b), rescale, lambda_=factor), expected)


@given(SEEDS, RATIOS, DENSITIES, RESCALES)
@examples
def test_dare_without_an_ancestor_moves_the_kept_entries_from_the_father(
    seed: int, ratio: float, density: float, rescale: str
) -> None:
    a, b, _ = trio(seed)
    delta = (b - a).double().numpy()
    kept = rescaled(delta, mask(density, "mother", delta), density, rescale if density < 1 else "none")
    got = merged("dare", (a, b, None), ratio, (1.0, density), rescale)
    assert near(got, a.double().numpy() + ratio * kept)


@given(SEEDS, RATIOS, DENSITIES, st.floats(0.0, 1.0), st.booleans())
@examples
def test_mix_lies_between_lerp_and_the_sparse_form(
    seed: int, ratio: float, density: float, share: float, has_ancestor: bool
) -> None:
    a, b, base = trio(seed)
    parents = (a, b, base if has_ancestor else None)
    sparse = merged("dare_ties" if has_ancestor else "dare", parents, ratio, (density, density))
    expected = (1 - share) * merged("lerp", parents, ratio) + share * sparse
    assert near(merged("mix", parents, ratio, (density, density), mix=share), expected)


@given(SEEDS, RATIOS, DENSITIES, st.sampled_from([0.0, 0.01, 0.2]), SHAPES)
@examples
def test_breadcrumbs_drops_the_largest_and_the_smallest(
    seed: int, ratio: float, density: float, gamma: float, shape: tuple[int, ...]
) -> None:
    parents = trio(seed, shape)
    a, b, base = deltas(parents)
    kept, top = int(density * a.size), int(gamma * a.size)
    above = a.size - kept - max(0, a.size - kept - top)
    a, b = (delta * (largest(delta, above + kept) - largest(delta, above) * (density < 1)) for delta in (a, b))
    got = merged("breadcrumbs", parents, ratio, (density, density), gamma=gamma)
    assert near(got, base + (1 - ratio) * a + ratio * b)


@given(SEEDS, RATIOS, st.sampled_from([0.05, 0.2, 0.5, 0.95, 1.0]), RESCALES, SHAPES)
@examples
def test_della_keeps_large_entries_of_a_row_more_often(
    seed: int, ratio: float, density: float, rescale: str, shape: tuple[int, ...]
) -> None:
    parents = trio(seed, shape)
    *pair, base = deltas(parents)
    reach, last, thin = min(0.15, density, 1 - density), shape[-1] - 1, []
    for delta, parent in zip(pair, ("father", "mother"), strict=True):
        rank = np.argsort(np.argsort(np.abs(delta), axis=-1, kind="stable"), axis=-1, kind="stable")
        chance = density - reach + 2 * reach * rank / last if last else np.full(shape, density)
        kept = Draws(draw_key(0, "w", parent)).keep_each(chance.ravel(), 0).numpy().reshape(shape) != 0
        thin.append(rescaled(delta, kept | (density == 1), np.maximum(chance, 1e-30), rescale))
    got = merged("della", parents, ratio, (density, density), rescale)
    assert near(got, base + elected(*thin, ratio, average=True), 1e-5)


@given(SEEDS, RATIOS, DENSITIES, st.sampled_from([1.0, 1e-4]))
@examples
def test_sce_selects_by_variance_weights_by_energy_and_erases_the_minority(
    seed: int, ratio: float, density: float, scale: float
) -> None:
    a, b, base = trio(seed)
    parents = (base + (a - base) * scale, base + (b - base) * scale, base)
    da, db, base64 = deltas(parents)
    apart = (parents[0] - base - (parents[1] - base)).double().numpy()
    chosen = largest(apart, int(density * np.count_nonzero(apart))) if density < 1 else np.ones_like(apart)
    da, db = da * chosen, db * chosen
    energy_a, energy_b = (np.square(delta).mean() for delta in (da, db))
    if energy_a + energy_b < 1e-6:
        energy_a = energy_b = 1.0
    weight = ratio * energy_b / ((1 - ratio) * energy_a + ratio * energy_b)
    sign = np.where((1 - ratio) * da + ratio * db >= 0, 1, -1)
    w_a, w_b = (1 - weight) * (np.sign(da) == sign), weight * (np.sign(db) == sign)
    expected = base64 + (w_a * da + w_b * db) / np.maximum(w_a + w_b, 1e-6)
    expected[np.isnan(elected(da, db, ratio, average=False))] = np.nan
    assert near(merged("sce", parents, ratio, (1.0, density)), expected, 1e-5)


@given(SEEDS, SHAPES)
@examples
def test_arcee_fusion_copies_the_mother_where_she_stands_out(seed: int, shape: tuple[int, ...]) -> None:
    a, b, _ = trio(seed, shape)
    p, q = torch.softmax(b, -1) + 1e-8, torch.softmax(a, -1) + 1e-8
    importance = (b - a).abs() * (p * torch.log(p / q)).sum(-1, keepdim=True).clamp(min=0)
    sorted_, last = importance.flatten().sort().values, importance.numel() - 1
    low, median, high = (sorted_[quarter * last // 4] for quarter in (1, 2, 3))
    limit = median + 1.5 * (high - low)
    got = torch.from_numpy(merged("arcee_fusion", (a, b, None), 0.4)).float()
    sure = (importance - limit).abs() > 1e-4 * limit
    assert torch.equal(got[sure], torch.where(importance >= limit, b, a)[sure])


@given(SEEDS, RATIOS, st.sampled_from([None, 0.001, 0.1]))
@examples
def test_nearswap_takes_the_mother_where_the_parents_are_near(seed: int, ratio: float, t: float | None) -> None:
    a, b, _ = trio(seed)
    x, y, gap = a.double().numpy(), b.double().numpy(), (a - b).abs().double().numpy()
    limit = ratio / (1 - ratio) * gap.mean() if t is None else t
    share = np.clip(limit / np.maximum(gap, 1e-6), 0, 1)
    got = merged("nearswap", (a, b, None), ratio, **({} if t is None else {"t": t}))
    assert near(got, share * y + (1 - share) * x, 1e-5)


@pytest.mark.parametrize(("ratio", "nearer"), [(0.2, 0), (0.5, 0), (0.6, 1)])
def test_passthrough_is_the_nearer_parent_scaled(ratio: float, nearer: int) -> None:
    parents = trio(3)
    assert near(merged("passthrough", parents, ratio, scale=0.5), 0.5 * parents[nearer].double().numpy())
    assert np.array_equal(merged("passthrough", parents, ratio), parents[nearer].double().numpy())


@pytest.mark.parametrize("operator", ["dare", "task_arithmetic", "breadcrumbs"])
def test_at_density_one_it_is_lerp(operator: str) -> None:
    assert near(merged(operator, trio(3)), merged("lerp", trio(3)))


@pytest.mark.parametrize("operator", [name for name, needs in NEEDS_ANCESTOR.items() if not needs and name != "mix"])
def test_an_ancestor_changes_nothing_where_none_is_needed(operator: str) -> None:
    a, b, base = trio(5)
    assert np.array_equal(merged(operator, (a, b, base)), merged(operator, (a, b, None)))


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_ratio_acts_unless_the_table_says_that_it_does_not(operator: str) -> None:
    same = np.array_equal(merged(operator, trio(6), 0.3), merged(operator, trio(6), 0.7))
    assert same == (operator in IGNORES_RATIO)


@pytest.mark.parametrize(("operator", "option"), [(name, option) for name in OPTIONS for option in OPTIONS[name]])
def test_every_option_acts_and_its_default_is_what_is_used_without_it(operator: str, option: str) -> None:
    densities = (0.5, 0.5)
    plain = merged(operator, trio(7), 0.4, densities)
    default = OPTIONS[operator][option].default
    if default is not None:
        assert np.array_equal(plain, merged(operator, trio(7), 0.4, densities, **{option: default}))
    low, high = OPTIONS[operator][option].low, OPTIONS[operator][option].high
    assert not np.array_equal(plain, merged(operator, trio(7), 0.4, densities, **{option: (low + 2 * high) / 3}))
