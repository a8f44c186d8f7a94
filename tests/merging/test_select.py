"""Exact selection: exactly k, the right ones, the earlier of equals, in one block or many."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from darwin_lab.merging.select import find_cuts, find_ranks, magnitude_bits


@given(
    st.integers(0, 2**31),
    st.integers(1, 3000),
    st.sampled_from([1, 7, 250, 5000]),
    st.sampled_from(["spread", "grid", "equal", "tiny"]),
    st.data(),
)
@settings(max_examples=80, deadline=None)
def test_a_cut_keeps_exactly_the_k_largest_and_the_earlier_of_equals(
    seed: int, total: int, block: int, kind: str, data: st.DataObject
) -> None:
    keep = data.draw(st.integers(0, total))
    values = torch.randn(total, generator=torch.Generator().manual_seed(seed))
    values = {"spread": values, "grid": (values * 2).round(), "equal": values.sign(), "tiny": values * 1e-42}[kind]
    blocks = torch.split(values, block)
    cuts = find_cuts(lambda: ((magnitude_bits(part), magnitude_bits(-part)) for part in blocks), [[keep], [0]], total)
    kept = torch.cat([cuts[0][0].mask(magnitude_bits(part)) for part in blocks])
    expected = np.zeros(total, np.int32)
    expected[np.argsort(-np.abs(values.numpy()), kind="stable")[:keep]] = -1
    assert np.array_equal(kept.numpy(), expected)
    assert not any(bool(cuts[1][0].mask(magnitude_bits(part)).any()) for part in blocks)


def test_ranks_are_those_of_a_sorted_array() -> None:
    values = torch.randn(10_001, generator=torch.Generator().manual_seed(0)).abs()
    blocks = torch.split(values, 1000)
    ranks = [1, 2, 5000, 5001, 10_001]
    found = find_ranks(lambda: ((magnitude_bits(part),) for part in blocks), [ranks])
    bits = torch.tensor([found[0, rank][0] for rank in ranks], dtype=torch.int32)
    assert torch.equal(bits.view(torch.float32), values.sort(descending=True).values[[rank - 1 for rank in ranks]])
