"""A child in pieces is the child, whatever the pieces, for every operator, family kind and order of experts."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from darwin_lab.checkpoint.anatomy import read_anatomy
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.child import Child
from darwin_lab.merging.operators import OPERATORS
from darwin_lab.merging.recipe import uniform_recipe

Trio = tuple[Path, Path, Path]


def child_of(trio: Trio, operator: str, ratio: float = 0.4, **changes: object) -> Child:
    father, mother, ancestor = map(open_checkpoint, trio)
    recipe = uniform_recipe(read_anatomy(father), ratio, operator, 0.6)
    return Child(father, mother, replace(recipe, **changes), ancestor)  # type: ignore[arg-type]


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_pieces_laid_end_to_end_are_the_tensor(tiny_moe_pair: Trio, operator: str) -> None:
    child = child_of(tiny_moe_pair, operator)
    for name in child.names:
        whole = child.read(name)
        pieces = list(child.chunks(name, 1))
        assert torch.equal(torch.cat(pieces), whole.flatten())
        assert whole.shape == child.father.tensors[name].shape
        assert whole.dtype == child.father.read_flat(name, 0, 1).dtype


def test_the_mothers_experts_come_in_the_recipes_order_and_the_ancestors_in_their_own(tiny_moe_pair: Trio) -> None:
    father, mother, ancestor = map(open_checkpoint, tiny_moe_pair)
    name = next(part.name for part in read_anatomy(father).mergeable if part.role == "expert")
    order = (1, 0, *range(2, 8))
    child = child_of(tiny_moe_pair, "task_arithmetic", expert_order={0: order}, options={"lambda": 0.5})
    a, b, base = (parent.read(name).float() for parent in (father, mother, ancestor))
    expected = base + 0.5 * (0.6 * (a - base) + 0.4 * (b[list(order)] - base))
    assert torch.allclose(child.read(name).float(), expected, atol=2e-3)


def test_pieces_in_another_dtype_are_rounded_once(tiny_llama_pair: Trio) -> None:
    child = child_of(tiny_llama_pair, "lerp")
    name = next(row.name for row in child.recipe.rows.values() if row.action == "merge")
    exact = torch.cat(list(child.chunks(name, dtype=torch.float32)))
    assert torch.equal(exact.bfloat16(), child.read(name).flatten())
    assert not torch.equal(exact, child.read(name).flatten().float())
