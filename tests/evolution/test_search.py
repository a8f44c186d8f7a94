"""The search: bounds, its own randomness, and exact replay."""

import numpy as np
import pytest

from darwin_lab.errors import LabError
from darwin_lab.evolution.search import FreeGene, Search

FREE = [FreeGene("a", 0.05, 1.0, 1.0), FreeGene("b", 0.0, 1.0, 0.5, 0.3), FreeGene("c", 0.0, 1.0, 0.02)]


def new(seed: int = 3, popsize: int | None = None) -> Search:
    return Search(FREE, {"still": 0.4}, sigma0=0.18, popsize=popsize, seed=seed)


def near(genes: dict[str, float]) -> float:
    """Best at a = .3, b = .9, c = .6."""
    return -((genes["a"] - 0.3) ** 2) - (genes["b"] - 0.9) ** 2 - (genes["c"] - 0.6) ** 2


def run(search: Search, generations: int) -> list[tuple[list[dict[str, float]], list[float]]]:
    history = []
    for _ in range(generations):
        asked = search.ask()
        fitness = [near(genes) for genes in asked]
        search.tell(fitness)
        history.append((asked, fitness))
    return history


def test_candidates_stay_in_bounds_and_carry_the_fixed_genes() -> None:
    for asked, _ in run(new(), 15):
        for genes in asked:
            assert set(genes) == {"a", "b", "c", "still"}
            assert genes["still"] == 0.4
            assert 0.05 <= genes["a"] <= 1 and 0 <= genes["b"] <= 1 and 0 <= genes["c"] <= 1
            assert all(value == round(value, 6) for value in genes.values())


def test_the_search_finds_the_optimum() -> None:
    last = run(new(), 40)[-1][0]
    best = max(last, key=near)
    assert near(best) > -1e-3


def test_the_same_seed_gives_the_same_candidates_and_another_one_others() -> None:
    assert run(new(3), 5) == run(new(3), 5)
    assert run(new(3), 1) != run(new(4), 1)


def test_two_searches_at_once_do_not_disturb_each_other() -> None:
    alone = run(new(3), 5)
    one, other = new(3), new(8)
    mixed = []
    for _ in range(5):
        mixed += run(one, 1)
        run(other, 1)
    assert mixed == alone


def test_numpys_global_generator_is_neither_used_nor_seeded() -> None:
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    first = run(new(), 4)
    assert (np.random.get_state()[1] == before).all()
    np.random.seed(6)
    assert run(new(), 4) == first


def test_seed_zero_is_a_seed_and_not_the_clock() -> None:
    assert run(new(0), 2) == run(new(0), 2)


def test_asking_twice_gives_the_same_candidates() -> None:
    search = new()
    assert search.ask() == search.ask()


def test_a_search_told_the_recorded_fitness_asks_for_the_recorded_genes() -> None:
    original = new()
    history = run(original, 6)
    fresh = new()
    for asked, fitness in history:
        fresh.expect(asked)
        fresh.tell(fitness)
    assert fresh.ask() == original.ask()
    assert fresh.sigma == original.sigma


def test_genes_that_are_not_the_recorded_ones_are_noticed() -> None:
    recorded = new().ask()
    recorded[2] = {**recorded[2], "b": recorded[2]["b"] + 1e-5}
    with pytest.raises(LabError, match="candidate 2 of generation 0"):
        new().expect(recorded)


def test_popsize_follows_the_number_of_free_genes() -> None:
    assert new().popsize == 7
    assert new(popsize=5).popsize == 5
    assert len(new(popsize=5).ask()) == 5


def test_fewer_than_two_free_genes_are_refused() -> None:
    with pytest.raises(LabError, match="freeze fewer"):
        Search(FREE[:1], {}, sigma0=0.18, popsize=None, seed=0)


def test_a_narrow_gene_is_searched_narrowly() -> None:
    asked = np.array([[genes["b"], genes["c"]] for genes in Search(
        [FreeGene("b", 0, 1, 0.5, 0.2), FreeGene("c", 0, 1, 0.5, 1.0)], {}, sigma0=0.1, popsize=200, seed=1
    ).ask()])  # fmt: skip
    assert asked[:, 0].std() < 0.5 * asked[:, 1].std()
