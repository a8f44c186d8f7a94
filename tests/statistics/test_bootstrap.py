import numpy as np
import pytest
from scipy import stats

from darwin_lab.statistics import resample
from darwin_lab.statistics.bootstrap import bootstrap_mean, max_t_threshold
from darwin_lab.statistics.paired import paired_bootstrap


def test_the_bootstrap_of_a_mean_agrees_with_scipy() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=(80, 3))
    mean, low, high, se = bootstrap_mean(values, draws=6000)
    reference = stats.bootstrap((values,), np.mean, axis=0, n_resamples=6000, method="percentile", rng=1)
    assert mean == pytest.approx(values.mean(axis=0))
    assert low == pytest.approx(reference.confidence_interval.low, abs=0.03)
    assert high == pytest.approx(reference.confidence_interval.high, abs=0.03)
    assert se == pytest.approx(reference.standard_error, rel=0.05)


def test_a_text_twice_as_long_counts_twice() -> None:
    values = np.array([[1.0], [4.0]])
    assert bootstrap_mean(values, weights=[2, 1])[0] == pytest.approx([2.0])


def test_trailing_axes_keep_their_shape_and_cells_do_not_mix() -> None:
    values = np.random.default_rng(1).random((20, 4, 5))
    whole = bootstrap_mean(values)
    cell = bootstrap_mean(values[:, 2, 3])
    assert whole[0].shape == (4, 5)
    assert [float(part[2, 3]) for part in whole] == pytest.approx([float(part) for part in cell])


def test_one_text_has_a_mean_and_no_interval() -> None:
    mean, low, high, se = bootstrap_mean([[3.0, 5.0]])
    assert mean.tolist() == [3.0, 5.0]
    assert np.isnan([low, high, se]).all()


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0]])
def test_weights_that_do_not_fit_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights"):
        bootstrap_mean([1.0, 2.0], weights=weights)


def test_the_block_size_changes_no_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).random(40)
    whole = bootstrap_mean(values)[1:], paired_bootstrap(values)
    monkeypatch.setattr(resample, "BLOCK", 123)
    assert (bootstrap_mean(values)[1:], paired_bootstrap(values)) == whole


def noise(seed: int, probes: int = 4, texts: int = 30, layers: int = 8) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {f"probe {index}": rng.normal(size=(texts, layers)) for index in range(probes)}


def test_noise_alone_seldom_shows_a_cell_anywhere_on_the_map() -> None:
    shown = [max_t_threshold(noise(seed), draws=300).different.any() for seed in range(150)]
    assert np.mean(shown) < 0.13


@pytest.mark.parametrize("texts", [8, 24])
def test_texts_that_count_unevenly_show_no_more_noise(texts: int) -> None:
    shown = []
    for seed in range(120):
        maps = noise(seed, texts=texts, layers=12)
        rng = np.random.default_rng(seed + 1000)
        weights = {name: rng.integers(20, 200, texts).astype(float) for name in maps}
        shown.append(max_t_threshold(maps, weights, draws=200).different.any())
    assert np.mean(shown) < 0.08


def test_a_real_difference_is_found_in_its_cell_and_nowhere_else() -> None:
    maps = noise(5)
    maps["probe 2"][:, 3] += 2.0
    result = max_t_threshold(maps)
    assert [tuple(cell) for cell in np.argwhere(result.different)] == [(2, 3)]


def test_the_map_is_stricter_than_a_single_cell() -> None:
    maps = noise(6)
    single = max_t_threshold({"probe 0": maps["probe 0"][:, :1]})
    assert single.threshold == pytest.approx(1.96, abs=0.2)
    assert max_t_threshold(maps).threshold > 2.5


def test_the_neutral_probe_is_subtracted_and_gets_no_row() -> None:
    maps = noise(7, probes=3)
    maps["NEUTRAL"] = maps["probe 1"] + 1.0
    result = max_t_threshold(maps, neutral="NEUTRAL")
    expected = [maps[f"probe {index}"].mean(axis=0) - maps["NEUTRAL"].mean(axis=0) for index in range(3)]
    assert result.estimate == pytest.approx(np.array(expected))
    plain = max_t_threshold({name: maps[name] for name in ("probe 0", "probe 1", "probe 2")})
    assert (result.se > plain.se).mean() > 0.9


def test_cells_without_spread_differ_when_they_are_not_zero() -> None:
    flat = np.zeros((10, 2))
    flat[:, 1] = 0.5
    result = max_t_threshold({"p": flat})
    assert result.different.tolist() == [[False, True]]


def test_one_text_is_too_few_for_a_map() -> None:
    with pytest.raises(ValueError, match="fewer than two texts"):
        max_t_threshold({"p": np.zeros((1, 3))})
