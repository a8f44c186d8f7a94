"""The shards of a child: which tensors go into which file, and the writing of one file in small pieces.

Takes a child (a checkpoint is asked for its headers only) and sizes, gives safetensors files. A shard is written to
`FILE.part` and gets its name once it is whole and on the disk. Knows nothing of folders' fates, cards or recipes.
"""

import json
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from darwin_lab.checkpoint.checkpoint import Checkpoint, torch_dtype
from darwin_lab.checkpoint.header import BYTES_PER_ELEMENT, TensorInfo
from darwin_lab.engine.child import Child
from darwin_lab.errors import LabError

CHILD_DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*$")


@dataclass(frozen=True)
class Shard:
    """One file: its tensors in order, with offsets from the start of its data."""

    file: str
    tensors: tuple[TensorInfo, ...]

    @property
    def data_bytes(self) -> int:
        return sum(info.nbytes for info in self.tensors)

    @property
    def header(self) -> bytes:
        """Length, JSON table and padding to 8 bytes: everything before the data."""
        table: dict[str, object] = {"__metadata__": {"format": "pt"}}
        for info in self.tensors:
            table[info.name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [info.start, info.end]}
        raw = json.dumps(table, separators=(",", ":")).encode()
        raw += b" " * (-len(raw) % 8)
        return struct.pack("<Q", len(raw)) + raw

    def is_whole(self, folder: Path) -> bool:
        """Whether the finished file lies in `folder`: its size and header are what they must be."""
        path, header = folder / self.file, self.header
        if not path.is_file() or path.stat().st_size != len(header) + self.data_bytes:
            return False
        with path.open("rb") as file:
            return file.read(len(header)) == header


def parse_size(text: str) -> int:
    """Bytes of "2GB", "500MB", "1.5GiB" or a plain number (GB is 10^9, GiB is 2^30). `LabError` for anything else."""
    match = _SIZE.match(text)
    unit = _UNITS.get(match.group(2).upper()) if match else None
    size = int(float(match.group(1)) * unit) if match and unit else 0
    if size < 1:
        raise LabError(f"{text!r} is no size of a shard; write it like 2GB or 500MB")
    return size


def plan_shards(father: Checkpoint, dtype: str | None = None, shard_size: int | None = None) -> tuple[Shard, ...]:
    """The child's files: the father's own, or as many as `shard_size` bytes of tensors each ask for.

    `dtype` (bfloat16, float16, float32) overrides the floats. A tensor larger than `shard_size` has a file to itself.
    Raises `LabError` for an unknown dtype.
    """
    if dtype is not None and dtype not in CHILD_DTYPES:
        raise LabError(f"unknown dtype {dtype!r}; choose {', '.join(CHILD_DTYPES)}")
    if shard_size is None:
        groups = [[info for info in father.tensors.values() if info.file == file] for file in father.files]
        return tuple(_shard(file, infos, dtype) for file, infos in zip(father.files, groups, strict=True))
    groups, room = [[]], shard_size
    for info in father.tensors.values():
        nbytes = info.numel * BYTES_PER_ELEMENT[_dtype_of(info, dtype)]
        if groups[-1] and nbytes > room:
            groups.append([])
            room = shard_size
        groups[-1].append(info)
        room -= nbytes
    if len(groups) == 1:
        return (_shard("model.safetensors", groups[0], dtype),)
    names = [f"model-{number:05}-of-{len(groups):05}.safetensors" for number in range(1, len(groups) + 1)]
    return tuple(_shard(file, infos, dtype) for file, infos in zip(names, groups, strict=True))


def write_shard(child: Child, shard: Shard, folder: Path, device: str) -> Iterator[tuple[int, str]]:
    """Writes one file, yielding (bytes, tensor name) after each piece. `device` does the arithmetic.

    Raises `LabError` when a parent's number is not finite or too large for the file's dtype.
    """
    part = folder / f"{shard.file}.part"
    with part.open("wb") as stream:
        stream.write(shard.header)
        for info in shard.tensors:
            for piece in child.chunks(info.name, device=device, dtype=torch_dtype(info.dtype)):
                raw = piece.cpu().contiguous().view(torch.uint8).numpy()
                stream.write(memoryview(raw))  # type: ignore[arg-type]
                yield raw.nbytes, info.name
        stream.flush()
        os.fsync(stream.fileno())
    part.rename(folder / shard.file)


def _shard(file: str, infos: list[TensorInfo], dtype: str | None) -> Shard:
    """Tensors laid end to end, with the dtypes and offsets they will have."""
    placed, position = [], 0
    for info in infos:
        name = _dtype_of(info, dtype)
        end = position + info.numel * BYTES_PER_ELEMENT[name]
        placed.append(replace(info, dtype=name, file=file, start=position, end=end))
        position = end
    return Shard(file, tuple(placed))


def _dtype_of(info: TensorInfo, dtype: str | None) -> str:
    return CHILD_DTYPES[dtype] if dtype and info.is_float else info.dtype
