"""The virtual child: parents plus a recipe, tensors on demand. It has no files until it is exported."""

import hashlib
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from darwin_lab.checkpoint.alignment import Aligned, align
from darwin_lab.checkpoint.checkpoint import Checkpoint, torch_dtype
from darwin_lab.checkpoint.heads import require_true_tie
from darwin_lab.errors import LabError
from darwin_lab.merging.matching import require_same_experts
from darwin_lab.merging.operators import NEEDS_ANCESTOR, USES_ANCESTOR
from darwin_lab.merging.passes import CHUNK, Read
from darwin_lab.merging.recipe import Recipe
from darwin_lab.merging.tensor import merge_chunks
from darwin_lab.progress import Tick, silent


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
        info = self.father.tensors[name]
        whole = torch.empty(info.numel, dtype=torch_dtype(info.dtype))
        start = 0
        for piece in self.chunks(name):
            whole[start : start + piece.numel()] = piece
            start += piece.numel()
        return whole.reshape(info.shape)

    def chunks(
        self, name: str, chunk: int = CHUNK, *, device: str = "cpu", dtype: torch.dtype | None = None
    ) -> Iterator[torch.Tensor]:
        """The child's tensor `name`, flat, in order, in pieces of about `chunk` elements in `dtype` (the father's).

        Reads what it needs of the parents, more than once where the operator asks for it, and holds no whole tensor.
        `device` does the arithmetic and gets the pieces. No byte depends on `chunk`. Raises `LabError` as `read` does,
        when the pieces are taken.
        """
        row, info = self.recipe.rows[name], self.father.tensors[name]
        mothers = row.action == "merge" or row.ratio > 0.0
        ancestors = row.action == "merge" and row.operator in USES_ANCESTOR
        return merge_chunks(
            row,
            self.recipe,
            info.shape,
            dtype or torch_dtype(info.dtype),
            _reader(self.father, name, device),
            _reader(self._mother, name, device) if mothers else None,
            _reader(self._ancestor, name, device) if ancestors and self._ancestor else None,
            fathers_rows=self._mother.fathers_rows(name) if mothers else None,
            chunk=chunk,
        )

    def require_sound(self, tick: Tick = silent) -> None:
        """Raises `LabError` where the parents' weights forbid what the recipe does: experts blended that do not
        correspond, a stored head that belies its config. Every read of the mother does this first."""
        if any(row.action == "merge" or row.ratio > 0.0 for row in self.recipe.rows.values()):
            require_true_tie(self.father)
            require_true_tie(self.mother)
            require_same_experts(self.father, self.mother, self.recipe, tick)

    @cached_property
    def _mother(self) -> Aligned:
        """The mother under the father's names, her experts and tokens in his order."""
        self.require_sound()
        recipe = self.recipe
        return align(self.father, self.mother, vocabulary=recipe.vocabulary, expert_order=recipe.expert_order)

    @cached_property
    def _ancestor(self) -> Aligned | None:
        """The ancestor under the father's names. Her experts keep their numbers: the father's order is hers."""
        if self.ancestor is None:
            return None
        return align(self.father, self.ancestor, vocabulary=self.recipe.vocabulary)


def _reader(source: Checkpoint | Aligned, name: str, device: str) -> Read:
    read = partial(source.read_flat, name)
    return read if device == "cpu" else lambda start, count: read(start, count).to(device)
