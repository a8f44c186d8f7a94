"""Another parent seen through the father's tensor names, shapes and order of experts and tokens.

Takes two checkpoints, gives an `Aligned`: a source that reads the other's numbers under the father's names, whether
experts are fused or stored one by one, behind a multimodal wrapper or not, and with the vocabulary matched by id or
by token. Reads no more than is asked for. Knows names and shapes; must not know ratios, operators or roles' meaning.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from darwin_lab.checkpoint.anatomy import FUSED, Part, has_expert_rows, has_token_rows, read_anatomy
from darwin_lab.checkpoint.checkpoint import Checkpoint, torch_dtype
from darwin_lab.checkpoint.header import BYTES_PER_ELEMENT, TensorInfo
from darwin_lab.checkpoint.naming import ExpertName, common_name, expert_name, joined
from darwin_lab.checkpoint.vocabulary import check_vocabulary, token_rows
from darwin_lab.errors import LabError

if TYPE_CHECKING:
    import torch

_FATHERS = -1


@dataclass(frozen=True, eq=False)
class _Pieces:
    """A tensor as equal pieces: piece i is `size` elements from `start[i]` of `names[which[i]]`.

    Where `which[i]` is -1 the piece is the father's own, at the place it has there.
    """

    names: tuple[str, ...]
    which: NDArray[np.int32]
    start: NDArray[np.int64]
    size: int

    def runs(self, start: int, count: int) -> Iterator[tuple[int, int, int]]:
        """(index into `names` or -1, first element there, elements), in order, for elements start..start+count."""
        if not count:
            return
        if len(self.which) == 1:
            yield int(self.which[0]), int(self.start[0]) + start, count
            return
        first, last = start // self.size, (start + count - 1) // self.size
        which, begins = self.which[first : last + 1], self.start[first : last + 1]
        apart = (which[1:] != which[:-1]) | (begins[1:] != begins[:-1] + self.size)
        edges = [0, *(np.flatnonzero(apart) + 1).tolist(), last + 1 - first]
        for low, high in pairwise(edges):
            skipped = max(start - (first + low) * self.size, 0)
            end = min(start + count, (first + high) * self.size)
            yield int(which[low]), int(begins[low]) + skipped, end - (first + low) * self.size - skipped


class Aligned:
    """A source: another parent under the father's names.

    `names` are the father's mergeable names this parent can supply, in his order; `tensors` has, for each, his shape
    and this parent's dtype. Rows of tokens this parent does not have read as the father's (`fathers_rows`).
    """

    def __init__(
        self, father: Checkpoint, other: Checkpoint, pieces: dict[str, _Pieces], tensors: dict[str, TensorInfo]
    ) -> None:
        self._father, self._other, self._pieces = father, other, pieces
        self.tensors: Mapping[str, TensorInfo] = tensors

    @property
    def name(self) -> str:
        return self._other.name

    @property
    def folder(self) -> Path:
        return self._other.folder

    @property
    def config(self) -> dict[str, Any]:
        return self._other.config

    @property
    def fingerprint(self) -> str:
        return self._other.fingerprint

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.tensors)

    def read(self, name: str) -> "torch.Tensor":
        """The tensor in the father's shape and this parent's dtype, a copy of its own."""
        info = self._info(name)
        return self.read_flat(name, 0, info.numel).reshape(info.shape)

    def read_flat(self, name: str, start: int, count: int) -> "torch.Tensor":
        """Elements start..start+count of the father's flattened tensor [count]; reads these elements and no others."""
        import torch

        info, pieces = self._info(name), self._pieces[name]
        if start < 0 or count < 0 or start + count > info.numel:
            raise LabError(f"{name} has {info.numel:,} elements; {start:,} to {start + count:,} were asked for")
        runs = list(pieces.runs(start, count))
        if len(runs) == 1 and runs[0][0] != _FATHERS and self._dtype(pieces, runs[0][0]) == info.dtype:
            which, begin, length = runs[0]
            return self._other.read_flat(pieces.names[which], begin, length)
        flat = torch.empty(count, dtype=torch_dtype(info.dtype))
        place = 0
        for which, begin, length in runs:
            source, stored = (self._father, name) if which == _FATHERS else (self._other, pieces.names[which])
            flat[place : place + length] = source.read_flat(stored, begin, length)
            place += length
        return flat

    def fathers_rows(self, name: str) -> "torch.Tensor | None":
        """Bool [rows of axis 0]: True where this parent has no such token; None when it has every row."""
        import torch

        missing = self._pieces[self._info(name).name].which == _FATHERS
        return torch.from_numpy(missing) if bool(missing.any()) else None

    def _dtype(self, pieces: _Pieces, which: int) -> str:
        return self._other.tensors[pieces.names[which]].dtype

    def _info(self, name: str) -> TensorInfo:
        info = self.tensors.get(name)
        if info is None:
            raise LabError(f"{self.name} has nothing that fits {name} of {self._father.name}; compare the two first")
        return info


def align(
    father: Checkpoint,
    other: Checkpoint,
    *,
    vocabulary: str = "same",
    expert_order: Mapping[int, tuple[int, ...]] | None = None,
) -> Aligned:
    """`other` under the father's names. What it cannot supply in his shapes is absent from `names`.

    vocabulary    "same": token rows by their number; "by-token": each of the father's tokens takes the row of the
                  other's equal token, and the father's own row where the other has none
    expert_order  layer -> for each of the father's experts, which of the other's takes its place (its router row,
                  bias and scale travel with it); by number where a layer is absent

    Raises `LabError` for an unknown vocabulary, tokenizers that cannot be read by token, and orders that do not fit.
    """
    check_vocabulary(vocabulary)
    order = tuple(sorted((layer, tuple(experts)) for layer, experts in (expert_order or {}).items()))
    return _aligned(father, other, vocabulary, order)


@lru_cache(maxsize=16)
def _aligned(
    father: Checkpoint, other: Checkpoint, vocabulary: str, expert_order: tuple[tuple[int, tuple[int, ...]], ...]
) -> Aligned:
    anatomy = read_anatomy(father)
    orders = dict(expert_order)
    for layer, given in orders.items():
        if layer not in anatomy.moe_layers or len(given) != anatomy.experts or not set(given) <= {*range(len(given))}:
            raise LabError(
                f"the expert order of layer {layer} does not fit {father.name} "
                f"({anatomy.experts} experts in layers {list(anatomy.moe_layers)}); match the experts again"
            )
    stored = {common_name(name): name for name in other.tensors}
    pieces: dict[str, _Pieces] = {}
    tensors: dict[str, TensorInfo] = {}
    for part in anatomy.mergeable:
        found: _Pieces | None
        if vocabulary == "by-token" and has_token_rows(part):
            found = _by_token(part, father, other, stored)
        else:
            order = None if part.layer is None else orders.get(part.layer)
            found = _by_number(part, other, stored, order, anatomy.experts)
        if found is not None:
            pieces[part.name] = found
            tensors[part.name] = _described(part, father, other, found)
    return Aligned(father, other, pieces, tensors)


def _by_number(
    part: Part, other: Checkpoint, stored: Mapping[str, str], order: tuple[int, ...] | None, experts: int
) -> _Pieces | None:
    """Where the other keeps `part`: in a tensor of its own, in single experts, or inside a fused tensor."""
    key = common_name(part.name)
    named = expert_name(key) if part.expert is not None else None
    if order is not None and named is not None and named.expert is not None:
        key = joined(named := named._replace(expert=order[named.expert]))
    info = other.tensors.get(stored.get(key, ""))
    if info is not None and info.shape == part.shape:
        if order is None or not (part.expert == FUSED or has_expert_rows(part, experts)):
            return _whole(info.name, part.numel)
        size = part.numel // len(order)
        return _Pieces((info.name,), np.zeros(len(order), np.int32), np.asarray(order, np.int64) * size, size)
    if info is not None or named is None:
        return None
    if named.expert is None:
        return _stitched(part, named, other, stored, order or tuple(range(part.shape[0])))
    return _sliced(part, named, other, stored)


def _whole(name: str, numel: int, start: int = 0) -> _Pieces:
    return _Pieces((name,), np.zeros(1, np.int32), np.full(1, start, np.int64), numel)


def _stitched(
    part: Part, named: ExpertName, other: Checkpoint, stored: Mapping[str, str], order: tuple[int, ...]
) -> _Pieces | None:
    """A fused tensor [E, ...] out of single experts; gate above up."""
    halves = named.halves
    if len(part.shape) < 2 or part.shape[1] % len(halves):
        return None
    wanted = (part.shape[1] // len(halves), *part.shape[2:])
    keys = [joined(named._replace(expert=expert, half=half)) for expert in order for half in halves]
    infos = [other.tensors.get(stored.get(key, "")) for key in keys]
    names = [info.name for info in infos if info is not None and info.shape == wanted]
    if len(names) < len(keys):
        return None
    numbers = np.arange(len(names), dtype=np.int32)
    return _Pieces(tuple(names), numbers, np.zeros(len(names), np.int64), part.numel // len(names))


def _sliced(part: Part, named: ExpertName, other: Checkpoint, stored: Mapping[str, str]) -> _Pieces | None:
    """A single expert's tensor out of a fused one; gate lies above up."""
    expert = named.expert or 0
    stacked = ((named.half, 1),) if named.half == "down_proj" else ((named.half, 1), ("gate_up_proj", 2))
    for half, rows in stacked:
        info = other.tensors.get(stored.get(joined(named._replace(expert=None, half=half)), ""))
        if info is None or not info.shape or expert >= info.shape[0]:
            continue
        if info.shape[1:] == (part.shape[0] * rows, *part.shape[1:]):
            place = expert * rows + (rows == 2 and named.half == "up_proj")
            return _whole(info.name, part.numel, place * part.numel)
    return None


def _by_token(part: Part, father: Checkpoint, other: Checkpoint, stored: Mapping[str, str]) -> _Pieces | None:
    """Rows of the other's table in the order of the father's tokens; the father's own where there is no such token."""
    info = other.tensors.get(stored.get(common_name(part.name), ""))
    if info is None or info.shape[1:] != part.shape[1:]:
        return None
    rows, size = part.shape[0], part.numel // part.shape[0]
    theirs = token_rows(father, other, rows, info.shape[0])
    which = np.where(theirs < 0, _FATHERS, 0).astype(np.int32)
    return _Pieces((info.name,), which, np.where(theirs < 0, np.arange(rows), theirs) * size, size)


def _described(part: Part, father: Checkpoint, other: Checkpoint, pieces: _Pieces) -> TensorInfo:
    """The father's name and shape, the other's dtype (float32 where its pieces differ)."""
    first = other.tensors[pieces.names[0]]
    dtypes = {other.tensors[name].dtype for name in pieces.names}
    if _FATHERS in pieces.which:
        dtypes.add(father.tensors[part.name].dtype)
    if len(dtypes) == 1 and len(pieces.names) == 1 and first.shape == part.shape:
        return TensorInfo(part.name, first.dtype, part.shape, first.file, first.start, first.end)
    dtype = dtypes.pop() if len(dtypes) == 1 else "F32"
    return TensorInfo(part.name, dtype, part.shape, first.file, 0, part.numel * BYTES_PER_ELEMENT[dtype])
