"""The header of one safetensors file, checked before anything in it is trusted.

Takes a path, gives a table of tensors with absolute byte ranges. Knows the file format
(8-byte little-endian length, JSON header, data), not models and not folders.
"""

import json
import struct
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

from darwin_lab.errors import LabError

BYTES_PER_ELEMENT = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
    "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "U32": 4, "U64": 8,
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
        table = json.loads(raw)
        if not isinstance(table, dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError):
        raise LabError(f"{path} is not a safetensors file (its header is not JSON); download it again") from None
    table.pop("__metadata__", None)
    infos = [_tensor_info(path, name, row, 8 + length, size) for name, row in table.items()]
    infos.sort(key=lambda info: (info.start, info.end))
    for before, after in pairwise(infos):
        if after.start < before.end:
            raise LabError(f"{path}: tensors {before.name} and {after.name} overlap; the file is damaged, get it again")
    return {info.name: info for info in infos}


def _tensor_info(path: Path, name: str, row: Any, data_start: int, size: int) -> TensorInfo:
    try:
        dtype, shape = row["dtype"], tuple(row["shape"])
        start, end = row["data_offsets"]
        whole = all(isinstance(number, int) and number >= 0 for number in (*shape, start, end))
        expected = prod(shape) * BYTES_PER_ELEMENT[dtype] if whole else -1
    except (KeyError, TypeError, ValueError):
        raise LabError(
            f"{path}: the entry of tensor {name} is not understood; the file is damaged or too new"
        ) from None
    if not whole:
        raise LabError(f"{path}: the entry of tensor {name} is not understood; the file is damaged, get it again")
    if end - start != expected:
        raise LabError(f"{path}: tensor {name} has {end - start} bytes where its shape needs {expected}; get it again")
    if data_start + end > size:
        raise LabError(
            f"{path} is truncated: tensor {name} ends at byte {data_start + end:,} of {size:,}; download it again"
        )
    return TensorInfo(name, dtype, shape, path.name, data_start + start, data_start + end)
