from hypothesis import given, settings
from hypothesis import strategies as st

from darwin_lab.scoring.batches import Context, branch, plan_batches, share_contexts

tokens = st.lists(st.integers(1, 3), min_size=1, max_size=5).map(tuple)
pairs = st.lists(st.lists(st.tuples(tokens, tokens), min_size=1, max_size=4), min_size=1, max_size=8)


def predictions(contexts: list[Context], budget: int, rows: int | None) -> dict[int, list[tuple[tuple[int, ...], int]]]:
    """option -> (everything before it, token) for each token that a batch plan would read."""
    found: dict[int, list[tuple[tuple[int, ...], int]]] = {}
    for batch in plan_batches(contexts, budget, rows):
        T = batch.context_ids.shape[1]
        places = batch.context_reads.positions[batch.context_reads.place].tolist()
        for place, token, option in zip(
            places, batch.context_reads.token.tolist(), batch.context_reads.option, strict=True
        ):
            row = batch.context_ids[place // T].tolist()[: place % T + 1]
            found.setdefault(int(option), []).append(((*batch.prefix, *row), token))
        W = batch.branch_ids.shape[1]
        places = batch.branch_reads.positions[batch.branch_reads.place].tolist()
        for place, token, option in zip(
            places, batch.branch_reads.token.tolist(), batch.branch_reads.option, strict=True
        ):
            row = batch.branch_ids[place // W].tolist()[: place % W + 1]
            parent = batch.context_ids[int(batch.branch_parent[place // W])].tolist()
            found.setdefault(int(option), []).append(((*batch.prefix, *parent, *row), token))
    return found


@settings(deadline=None, max_examples=100)
@given(
    pairs, st.sampled_from([(), (7,) * 900, (7, 8) * 300]), st.sampled_from([1, 50, 5000]), st.sampled_from([None, 2])
)
def test_every_token_of_every_option_is_predicted_once_after_exactly_what_precedes_it(
    encoded: list, prefix: tuple[int, ...], budget: int, rows: int | None
) -> None:
    encoded = [[(prefix + context, option) for context, option in options] for options in encoded]
    contexts, _ = share_contexts(encoded)
    found = predictions(contexts, budget, rows)
    number = 0
    for options in encoded:
        for context, option in options:
            wanted = [(context + option[:place], token) for place, token in enumerate(option)]
            assert sorted(found[number]) == sorted(wanted)
            number += 1


def test_a_long_common_prefix_becomes_a_batchs_own() -> None:
    shots = tuple(range(500))
    contexts = [branch((*shots, 900 + n, n), [(n, (1, 2))]) for n in range(6)]
    (batch,) = plan_batches(contexts, 4096)
    assert batch.prefix == shots
    assert batch.context_ids.shape == (6, 3)


def test_what_saves_less_than_a_forward_costs_is_not_shared() -> None:
    contexts = [branch((1, 2, 3, 900 + n, n), [(n, (1, 2))]) for n in range(6)]
    assert {batch.prefix for batch in plan_batches(contexts, 4096)} == {()}


def test_a_short_context_is_run_again_for_every_branch_and_a_long_one_once() -> None:
    short = [branch((n, 1), [(4 * n + k, (k, k, k)) for k in range(4)]) for n in range(9)]
    (batch,) = plan_batches(short, 4096)
    assert batch.context_ids.shape == (36, 4)
    assert len(batch.branch_ids) == 0
    (batch,) = plan_batches([branch((1,) * 30, [(k, (k, k, k)) for k in range(4)])], 4096)
    assert (batch.context_ids.shape, batch.branch_ids.shape) == ((1, 30), (4, 2))


def test_contexts_that_do_not_branch_may_differ_in_length() -> None:
    contexts = [branch((5,) * length, [(length, (1,))]) for length in (9, 6, 7)]
    (batch,) = plan_batches(contexts, 4096)
    assert batch.context_ids.shape == (3, 9)
