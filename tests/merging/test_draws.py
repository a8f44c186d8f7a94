"""Draws depend on key and index alone, masks have their density, and no two tensors share one at any shift."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from darwin_lab.merging.draws import RUN, Draws, draw_key


def masks(size: int, *keys: tuple[int, str, str], density: float = 0.5) -> list[torch.Tensor]:
    return [Draws(draw_key(*key)).keep(density, 0, size).clone().bool() for key in keys]


@given(st.integers(0, 3 * RUN), st.integers(1, 2 * RUN), st.sampled_from([0.05, 0.37, 0.99999, 1.0]))
@settings(max_examples=25, deadline=None)
def test_a_draw_depends_on_nothing_but_its_key_and_index(start: int, count: int, density: float) -> None:
    key = draw_key(7, "model.layers.0.weight", "mother")
    whole = Draws(key).keep(density, 0, 5 * RUN).clone()
    pieces = Draws(key)
    pieces.keep(density, 11, 100)
    assert torch.equal(pieces.keep(density, start, count), whole[start : start + count])


def test_own_bits_are_splitmix64() -> None:
    """The first two outputs of the published generator seeded with 0, a quarter a draw."""
    words = Draws(0).own(0, 8).view(np.uint64)
    assert [hex(int(word)) for word in words] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4"]


def test_places_beyond_the_32nd_bit_draw_numbers_of_their_own() -> None:
    draws = Draws(draw_key(0, "w", "mother"))
    near = draws.own(0, 4096).copy()
    far = draws.own(1 << 32, 4096).copy()
    assert (near == far).mean() < 0.01
    assert draws.shared(0) != draws.shared(1 << 17)


@pytest.mark.parametrize("density", [0.05, 0.3, 0.500004, 0.95])
def test_the_kept_share_is_the_density(density: float) -> None:
    size = 1 << 21
    (mask,) = masks(size, (0, "w", "mother"), density=density)
    assert mask.double().mean().item() == pytest.approx(density, abs=4 * (density * (1 - density) / size) ** 0.5)


def test_runs_vary_no_more_than_independent_elements_would() -> None:
    (mask,) = masks(400 * RUN, (1, "w", "mother"), density=0.3)
    per_run = mask.view(-1, RUN).double().sum(1)
    assert float(per_run.var()) == pytest.approx(RUN * 0.3 * 0.7, rel=0.35)


def test_density_one_keeps_everything_and_masks_are_all_bits_or_none() -> None:
    assert bool((Draws(draw_key(0, "w", "mother")).keep(1.0, 5, 100_000) == -1).all())
    assert set(Draws(draw_key(0, "w", "mother")).keep(0.5, 0, 1000).tolist()) == {0, -1}


def test_a_chance_for_every_element_is_the_same_draw() -> None:
    draws = Draws(draw_key(3, "w", "father"))
    chances = np.random.default_rng(0).choice([0.0, 0.2, 0.7, 1.0], 3 * RUN)
    each = draws.keep_each(chances, 123).clone()
    for chance in (0.0, 0.2, 0.7, 1.0):
        same = torch.from_numpy(chances == chance)
        assert torch.equal(each[same], draws.keep(chance, 123, 3 * RUN)[same])


def test_a_higher_density_keeps_all_that_a_lower_one_does() -> None:
    draws = Draws(draw_key(0, "w", "mother"))
    low, high = (draws.keep(density, 0, 100_000).clone() for density in (0.3, 0.31))
    assert bool((high[low != 0] != 0).all())


def test_masks_of_tensors_parents_and_seeds_are_independent_at_every_shift() -> None:
    """For independent masks the agreement is binomial; 5.5 sigma over the shifts finds a shifted copy."""
    size = 50_000
    all_masks = masks(size, (0, "a", "mother"), (0, "b", "mother"), (0, "a", "father"), (1, "a", "mother"))
    for i, one in enumerate(all_masks):
        for other in all_masks[i:]:
            for shift in range(40):
                if one is other and shift == 0:
                    continue
                agree = (one[shift:] == other[: size - shift]).double().mean().item()
                assert abs(agree - 0.5) < 5.5 * 0.5 / (size - shift) ** 0.5
