"""One tensor of the child: the same bytes in any pieces and on any threads, copies exact, bad numbers named."""

import itertools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from darwin_lab.errors import LabError
from darwin_lab.merging.operators import NEEDS_ANCESTOR, OPERATORS
from darwin_lab.merging.passes import BLOCK, Read
from darwin_lab.merging.recipe import Recipe, Row
from darwin_lab.merging.tensor import merge_chunks, merge_tensor

ALL = (*OPERATORS, "mix")
SHAPE = (3, 299, 1021)
assert 3 * BLOCK < 3 * 299 * 1021 < 4 * BLOCK


@pytest.fixture(params=[1, 2, 4], ids="threads{}".format)
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def trio(shape: tuple[int, ...] = SHAPE, dtype: torch.dtype = torch.bfloat16) -> tuple[torch.Tensor, ...]:
    base, a, b = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    return tuple(tensor.to(dtype) for tensor in (base + 0.1 * a, base + 0.1 * b, base))


def reader(tensor: torch.Tensor) -> Read:
    return lambda start, count: tensor.flatten()[start : start + count].clone()


def row_of(operator: str, ratio: float = 0.4, name: str = "w", **changes: object) -> Row:
    action = "copy" if ratio in (0.0, 1.0) else "merge"
    row = Row(name, 0, "ffn", "ffn", action, ratio, operator, density_a=0.6, density_b=0.7)
    return replace(row, **changes)  # type: ignore[arg-type]


def pieces_of(row: Row, parents: tuple[torch.Tensor, ...], chunk: int, rescale: str = "l1") -> list[torch.Tensor]:
    a, b, base = parents
    recipe = Recipe({row.name: row}, rescale=rescale)
    shape = tuple(a.shape)
    return list(merge_chunks(row, recipe, shape, a.dtype, reader(a), reader(b), reader(base), chunk=chunk))


@pytest.fixture(scope="module")
def expected() -> dict[str, torch.Tensor]:
    """Every operator's child, at this process's one thread and the default chunk."""
    rows = {operator: row_of(operator) for operator in ALL}
    return {name: merge_tensor(row, Recipe({"w": row}, rescale="l1"), *trio()) for name, row in rows.items()}


@pytest.mark.parametrize("operator", ALL)
def test_no_byte_depends_on_threads_or_on_the_size_of_the_pieces(
    operator: str, threads: int, expected: dict[str, torch.Tensor]
) -> None:
    for chunk in (1, BLOCK, 2 * BLOCK, 1 << 20):
        pieces = pieces_of(row_of(operator), trio(), chunk)
        assert all(piece.dtype == torch.bfloat16 and piece.numel() <= max(chunk, BLOCK) for piece in pieces)
        assert torch.equal(torch.cat(pieces).reshape(SHAPE), expected[operator])


@pytest.mark.parametrize("operator", ["slerp", "dare_ties", "arcee_fusion"])
def test_a_row_longer_than_a_block_depends_on_threads_no_more(operator: str, threads: int) -> None:
    parents = trio((2 * BLOCK + 77,))
    pieces = pieces_of(row_of(operator), parents, BLOCK)
    torch.set_num_threads(1)
    assert torch.equal(torch.cat(pieces), torch.cat(pieces_of(row_of(operator), parents, 1 << 20)))


def test_another_process_with_another_hash_seed_gives_the_same_bytes() -> None:
    rows = [row_of(operator) for operator in ("dare_ties", "ties")]
    here = torch.cat([merge_tensor(row, Recipe({}, rescale="l1"), *trio()).flatten() for row in rows])
    words = (
        "import sys, torch; from darwin_lab.merging.recipe import Recipe, Row\n"
        "from darwin_lab.merging.tensor import merge_tensor\n"
        f"base, a, b = torch.randn(3, *{SHAPE}, generator=torch.Generator().manual_seed(0))\n"
        "trio = [tensor.bfloat16() for tensor in (base + 0.1 * a, base + 0.1 * b, base)]\n"
        f"child = [merge_tensor(row, Recipe({{}}, rescale='l1'), *trio).flatten() for row in {rows!r}]\n"
        "sys.stdout.buffer.write(torch.cat(child).view(torch.uint8).numpy().tobytes())"
    )
    there = subprocess.run(
        [sys.executable, "-c", words],
        env={"PYTHONHASHSEED": "77", "PYTHONPATH": ".", "OMP_NUM_THREADS": "2"},
        capture_output=True,
        check=True,
    ).stdout
    assert there == here.view(torch.uint8).numpy().tobytes()


@given(st.integers(1, 600), st.sampled_from(["lerp", "slerp", "task_arithmetic", "ties", "dare_ties", "nearswap"]))
@settings(max_examples=40, deadline=None)
def test_an_element_has_the_same_bits_wherever_it_lies_in_a_vector(count: int, operator: str) -> None:
    """Body and tail of the vectorised loops agree: repeating a tensor repeats the child."""
    a, b, base = (torch.cat([tensor[:count]] * 2) for tensor in trio((600,), torch.float32))
    child = torch.cat(pieces_of(row_of(operator, density_a=1.0, density_b=1.0), (a, b, base), BLOCK))
    assert torch.equal(child[:count], child[count:])


@pytest.mark.parametrize("operator", ["dare", "dare_ties", "della"])
def test_another_tensor_or_seed_has_other_masks(operator: str) -> None:
    rows = [row_of(operator, name=name) for name in ("w", "v")]
    one, other = (torch.cat(pieces_of(row, trio(), BLOCK)) for row in rows)
    again = merge_tensor(rows[0], Recipe({"w": rows[0]}, seed=1, rescale="l1"), *trio()).flatten()
    assert not torch.equal(one, other)
    assert not torch.equal(one, again)


@pytest.mark.parametrize(("operator", "ratio"), itertools.product(ALL, [0.0, 1.0]))
def test_ratio_zero_and_one_are_copies_whatever_the_operator(operator: str, ratio: float) -> None:
    parents = trio()
    child = torch.cat(pieces_of(row_of(operator, ratio), parents, BLOCK)).reshape(SHAPE)
    assert torch.equal(child, parents[int(ratio)])


def test_a_copied_mother_is_rounded_to_the_fathers_dtype() -> None:
    a, b, base = trio(dtype=torch.float32)
    (row, recipe) = row_of("lerp", 1.0), Recipe({})
    assert torch.equal(merge_tensor(row, recipe, a.bfloat16(), b, base), b.bfloat16())


def test_arithmetic_is_in_float32_with_one_rounding() -> None:
    a, b, _ = trio(dtype=torch.float32)
    row = row_of("lerp")
    expected = (a.bfloat16().float() * (1 - 0.4) + b * 0.4).bfloat16()
    assert torch.equal(merge_tensor(row, Recipe({"w": row}), a.bfloat16(), b), expected)


@pytest.mark.parametrize("operator", [name for name, needs in NEEDS_ANCESTOR.items() if needs])
def test_an_operator_that_needs_an_ancestor_says_so(operator: str) -> None:
    a, b, _ = trio()
    with pytest.raises(LabError, match=f"{operator} needs a common ancestor"):
        merge_tensor(row_of(operator), Recipe({}), a, b)


@pytest.mark.parametrize("operator", ALL)
@pytest.mark.parametrize(("who", "parent"), enumerate(["father", "mother", "ancestor"]))
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_bad_number_is_named_with_its_parent(operator: str, who: int, parent: str, value: float) -> None:
    if parent == "ancestor" and not NEEDS_ANCESTOR[operator] and operator != "mix":
        return
    parents = trio((40_000,))
    parents[who][[3, 39_999]] = value
    with pytest.raises(LabError, match=f"^w of the {parent} holds 2 NaN or Inf of 40,000 values"):
        pieces_of(row_of(operator), parents, BLOCK)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_a_bad_number_is_found_in_copies_of_mergeable_tensors_only(dtype: torch.dtype) -> None:
    a, b, base = trio((50,), dtype)
    b[49] = float("-inf")
    with pytest.raises(LabError, match="w of the mother holds 1 NaN or Inf"):
        pieces_of(row_of("lerp", 1.0), (a, b, base), BLOCK)
    tower = Row("w", None, "vision", "", "copy", 1.0)
    assert torch.equal(torch.cat(pieces_of(tower, (a, b, base), BLOCK)), b)


@pytest.mark.parametrize("operator", ALL)
def test_a_tensor_without_elements_stays_one(operator: str) -> None:
    assert merge_tensor(row_of(operator), Recipe({}), *trio((0, 3))).shape == (0, 3)


def test_large_finite_numbers_are_no_infinities() -> None:
    a, b, base = (tensor * 3e37 for tensor in trio((1000,), torch.float32))
    assert bool(torch.isfinite(torch.cat(pieces_of(row_of("slerp"), (a, b, base), BLOCK))).all())


def test_a_number_too_large_for_float16_stops_the_merge() -> None:
    a, b, base = trio((100,), torch.float32)
    b[7] = 1e6
    for ratio in (0.4, 1.0):
        row = row_of("lerp", ratio)
        with pytest.raises(LabError, match="w holds numbers too large for torch"):
            merge_tensor(row, Recipe({"w": row}), a.half(), b, base)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("operator", ["dare", "nearswap", "mix", "task_arithmetic", "passthrough"])
def test_finite_parents_whose_child_overflows_stop_the_merge(operator: str, dtype: torch.dtype) -> None:
    a, b, base = trio((100,), dtype)
    a[7], b[7] = 3e38 if NEEDS_ANCESTOR[operator] else -3e38, 3e38
    row, options = row_of(operator, density_b=0.999), {"lambda": 2.0, "scale": 2.0}
    with pytest.raises(LabError, match=f"^w holds numbers too large for {dtype}; use operator lerp"):
        merge_tensor(row, Recipe({"w": row}, options=options), a, b, base if NEEDS_ANCESTOR[operator] else None)
    lerped = merge_tensor(row_of("lerp"), Recipe({}), a, b)
    assert bool(torch.isfinite(lerped).all())


def test_a_copy_too_large_for_bfloat16_stops_the_merge() -> None:
    a, b, base = trio((100,), torch.float32)
    b[7] = torch.finfo(torch.float32).max
    with pytest.raises(LabError, match=r"w holds numbers too large for torch.bfloat16; .*--dtype float32"):
        merge_tensor(row_of("lerp", 1.0), Recipe({}), a.bfloat16(), b, base)


@pytest.mark.parametrize("operator", ALL)
def test_experts_have_shares_of_their_own_and_zero_and_one_are_copies(operator: str) -> None:
    a, b, base = parents = trio((5, 40, 33))
    row = row_of(operator, role="expert", expert_ratios=(0.0, 0.3, 1.0, 0.4, 0.4))
    child = torch.cat(pieces_of(row, parents, BLOCK)).reshape(a.shape)
    assert torch.equal(child[0], a[0])
    assert torch.equal(child[2], b[2])
    if operator not in ("dare", "dare_ties", "della", "mix"):
        for expert, share in ((1, 0.3), (3, 0.4)):
            alone = pieces_of(row_of(operator, share), tuple(tensor[expert] for tensor in parents), BLOCK)
            assert torch.equal(child[expert].flatten(), torch.cat(alone))
    elif operator != "della":
        assert not torch.equal((child - base)[3] == 0, (child - base)[4] == 0)


def test_experts_with_too_few_shares_are_refused() -> None:
    row = row_of("lerp", role="expert", expert_ratios=(0.2, 0.3))
    with pytest.raises(LabError, match=r"^row w: expert_ratios has 2 numbers for 5 experts; write one for each$"):
        merge_tensor(row, Recipe({}), *trio((5, 4, 3)))


def router_row(*shares: float, ratio: float = 0.4, operator: str = "lerp") -> Row:
    return Row("w", 0, "router", "ffn", "merge", ratio, operator, expert_ratios=shares)


@pytest.mark.parametrize("operator", ["lerp", "slerp", "ties", "task_arithmetic"])
def test_router_rows_take_their_experts_share_of_a_whole_routers_blend(operator: str) -> None:
    parents = trio((4, 70), torch.float32)
    child = torch.cat(pieces_of(router_row(0.2, 0.7, 0.4, 0.2, operator=operator), parents, BLOCK)).reshape(4, 70)
    for share, experts in ((0.2, [0, 3]), (0.7, [1]), (0.4, [2])):
        whole = torch.cat(pieces_of(row_of(operator, share, density_a=1.0, density_b=1.0), parents, BLOCK))
        assert torch.equal(child[experts], whole.reshape(4, 70)[experts])


def test_a_router_row_that_stays_the_fathers_is_brought_to_the_others_scale() -> None:
    a, b, base = trio((4, 70), torch.float32)
    b = b * 3
    child = torch.cat(pieces_of(router_row(0.4, 0.0, 0.4, 0.4), (a, b, base), BLOCK)).reshape(4, 70)
    blended = 0.6 * a + 0.4 * b
    centred = a - a.mean(0)
    scale = (blended - blended.mean(0)).norm() / centred.norm()
    assert torch.allclose(child[1], blended.mean(0) + centred[1] * scale, atol=1e-5)
    assert torch.allclose(child[[0, 2, 3]], blended[[0, 2, 3]], atol=1e-6)


def test_a_router_that_is_the_fathers_but_for_one_row_keeps_his_bytes() -> None:
    parents = trio((4, 70))
    child = torch.cat(pieces_of(router_row(0.0, 0.0, 0.3, 0.0, ratio=0.0), parents, BLOCK)).reshape(4, 70)
    assert torch.equal(child[[0, 1, 3]], parents[0][[0, 1, 3]])
    assert not torch.equal(child[2], parents[0][2])


@pytest.mark.parametrize("operator", ["lerp", "dare_ties", "passthrough"])
@pytest.mark.parametrize("ratio", [0.4, 1.0])
def test_rows_only_the_father_has_are_his_byte_for_byte(operator: str, ratio: float) -> None:
    a, b, base = trio((70, 1000))
    rows = torch.arange(70) % 3 == 1
    row = row_of(operator, ratio)
    recipe = Recipe({"w": row})
    mixed = merge_tensor(row, recipe, a, b, base, fathers_rows=rows)
    assert torch.equal(mixed[rows], a[rows])
    assert torch.equal(mixed[~rows], merge_tensor(row, recipe, a, b, base)[~rows])


@pytest.mark.parametrize("ratio", [0.4, 1.0])
def test_rows_only_the_father_has_are_rounded_to_the_childs_dtype(ratio: float) -> None:
    a, b, base = (reader(tensor) for tensor in trio((70, 100), torch.float32))
    rows, row = torch.arange(70) % 3 == 1, row_of("lerp", ratio)
    pieces = merge_chunks(row, Recipe({"w": row}), (70, 100), torch.bfloat16, a, b, base, fathers_rows=rows)
    child = torch.cat(list(pieces))
    assert child.dtype == torch.bfloat16
    assert torch.equal(child.reshape(70, 100)[rows], trio((70, 100), torch.float32)[0][rows].bfloat16())


def test_rows_of_the_father_that_his_dtype_alone_can_hold_are_refused() -> None:
    a = torch.tensor([[1.0, 2.0], [1e5, 4.0]], dtype=torch.bfloat16)
    b = torch.ones(2, 2, dtype=torch.bfloat16)
    row = row_of("passthrough", 0.4)
    pieces = merge_chunks(
        row,
        Recipe({"w": row}, options={"scale": 0.5}),
        (2, 2),
        torch.float16,
        reader(a),
        reader(b),
        fathers_rows=torch.tensor([False, True]),
    )
    with pytest.raises(LabError, match=r"w holds numbers too large for torch\.float16"):
        list(pieces)
