"""The header of one safetensors file, checked before anything in it is trusted.

Takes a path, gives a table of tensors with absolute byte ranges. Knows the file format
(8-byte little-endian length, JSON header, data), not models and not folders.
"""

import json
import struct
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

from darwin_lab.errors import LabError

BYTES_PER_ELEMENT = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
    "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "U16": 2, "U32": 4, "U64": 8,
}  # fmt: skip
FLOAT_DTYPES = frozenset({"F64", "F32", "F16", "BF16"})
MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies: `start`..`end` are absolute byte offsets in `file` (a name inside the folder)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    start: int
    end: int

    @property
    def numel(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.end - self.start

    @property
    def is_float(self) -> bool:
        return self.dtype in FLOAT_DTYPES


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as its pairs, so that a name that comes twice is seen."""


def read_header(path: Path) -> dict[str, TensorInfo]:
    """The tensors of `path` in file order. Raises `LabError` for anything that is not a whole safetensors file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(MAX_HEADER_BYTES, max(size - 8, 0)):
            raise LabError(f"{path} is not a safetensors file (no header found); download or convert it again")
        raw = file.read(length)
    try:
        rows = json.loads(raw, object_pairs_hook=_Pairs)
        if not isinstance(rows, _Pairs):
            raise ValueError("not an object")
    except (ValueError, RecursionError):
        raise LabError(f"{path} is not a safetensors file (its header is not JSON); download it again") from None
    odd = next((name for name, _ in rows if not name.isprintable()), None)
    if odd is not None:
        raise LabError(f"{path} names a tensor {odd[:80]!r}; no model does, so get the file again")
    infos = [_tensor_info(path, name, row, 8 + length, size) for name, row in rows if name != "__metadata__"]
    twice = next((name for name, count in Counter(name for name, _ in rows).items() if count > 1), None)
    if twice is not None:
        raise LabError(f"{path} holds tensor {twice} twice; the file is damaged, get it again")
    infos.sort(key=lambda info: (info.start, info.end))
    for before, after in pairwise(infos):
        if after.start < before.end:
            raise LabError(f"{path}: tensors {before.name} and {after.name} overlap; the file is damaged, get it again")
    return {info.name: info for info in infos}


def _tensor_info(path: Path, name: str, row: Any, data_start: int, size: int) -> TensorInfo:
    try:
        entry = dict(row)
        dtype, shape = entry["dtype"], tuple(entry["shape"])
        start, end = entry["data_offsets"]
        whole = all(type(number) is int and number >= 0 for number in (*shape, start, end))
        size_of_one = BYTES_PER_ELEMENT.get(dtype)
    except (KeyError, TypeError, ValueError):
        raise LabError(
            f"{path}: the entry of tensor {name} is not understood; the file is damaged or too new"
        ) from None
    if not whole:
        raise LabError(f"{path}: the entry of tensor {name} is not understood; the file is damaged, get it again")
    if size_of_one is None:
        raise LabError(f"{path}: tensor {name} is {dtype}, no plain number format; get the unquantised checkpoint")
    if end - start != prod(shape) * size_of_one:
        needed = prod(shape) * size_of_one
        raise LabError(f"{path}: tensor {name} has {end - start} bytes where its shape needs {needed}; get it again")
    if data_start + end > size:
        raise LabError(
            f"{path} is truncated: tensor {name} ends at byte {data_start + end:,} of {size:,}; download it again"
        )
    return TensorInfo(name, dtype, shape, path.name, data_start + start, data_start + end)
