"""The virtual child: parents plus a recipe, tensors on demand. It has no files until it is exported."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.errors import LabError
from darwin_lab.merging.operators import NEEDS_ANCESTOR
from darwin_lab.merging.recipe import Recipe
from darwin_lab.merging.tensor import merge_tensor


class Child:
    """A source whose tensors are merged when read, in the father's names, shapes and dtypes.

    Raises `LabError` at once when the recipe needs an ancestor that is not there or rows do not fit the father.
    """

    def __init__(
        self,
        father: Checkpoint,
        mother: Checkpoint,
        recipe: Recipe,
        ancestor: Checkpoint | None = None,
        name: str = "child",
    ) -> None:
        needy = sorted(operator for operator in recipe.operators if NEEDS_ANCESTOR[operator])
        if needy and ancestor is None:
            raise LabError(
                f"{needy[0]} needs a common ancestor; give --ancestor, or use --operator dare, lerp or slerp"
            )
        if tuple(recipe.rows) != father.names:
            raise LabError(f"the recipe was made for another model than {father.name}; make it anew from this pair")
        self.father, self.mother, self.ancestor, self.recipe, self.name = father, mother, ancestor, recipe, name

    @property
    def folder(self) -> Path:
        return self.father.folder

    @property
    def config(self) -> dict[str, Any]:
        return self.father.config

    @property
    def names(self) -> tuple[str, ...]:
        return self.father.names

    @property
    def parents(self) -> tuple[str, ...]:
        """Fingerprints of father, mother and, where there is one, ancestor."""
        return tuple(parent.fingerprint for parent in (self.father, self.mother, self.ancestor) if parent)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits: parents and recipe."""
        return hashlib.blake2b("+".join((*self.parents, self.recipe.hash)).encode(), digest_size=8).hexdigest()

    def read(self, name: str) -> torch.Tensor:
        """The child's tensor `name`. Raises `LabError` naming a tensor whose parents are not finite."""
        row = self.recipe.rows[name]
        if row.action == "copy" and row.ratio == 0.0:
            father = self.father.read(name)
            return merge_tensor(row, self.recipe, father, father)
        base = None
        if row.action == "merge" and self.ancestor is not None and row.operator not in ("lerp", "slerp", "dare"):
            base = self.ancestor.read(name)
        return merge_tensor(row, self.recipe, self.father.read(name), self.mother.read(name), base)
