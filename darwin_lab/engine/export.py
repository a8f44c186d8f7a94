"""Writes a virtual child to disk: the father's names, shapes, dtypes, shards and side files.

Takes a child and a target folder, gives the finished folder. Everything goes to
`.NAME.partial-<recipe hash>` beside the target, which is renamed at the very end; an error or a cancel
removes it. Never goes through `save_pretrained`, which changes layouts and drops tensors.
"""

import contextlib
import errno
import json
import os
import shutil
import struct
from pathlib import Path
from typing import BinaryIO

import torch

from darwin_lab.checkpoint.checkpoint import INDEX_FILE, torch_dtype
from darwin_lab.checkpoint.header import BYTES_PER_ELEMENT, TensorInfo
from darwin_lab.engine.card import model_card
from darwin_lab.engine.child import Child
from darwin_lab.errors import LabError
from darwin_lab.progress import Tick, silent

RECIPE_FILE = "recipe.json"
CHILD_DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
_SPARE_BYTES = 1 << 20


def check_target(out: Path, *, overwrite: bool) -> None:
    """Raises `LabError` when `out` cannot become the child's folder. Call before any long work."""
    if out.is_file():
        raise LabError(f"{out} is a file; give the name of a new folder")
    if out.is_dir() and any(out.iterdir()):
        if not overwrite:
            raise LabError(f"{out} exists and is not empty; give another --out, or --overwrite to replace a child")
        if out.is_symlink() or not (out / RECIPE_FILE).is_file():
            raise LabError(f"{out} is not a child the lab wrote (no {RECIPE_FILE}), so it is kept; give another --out")
    parent = _existing(out.parent)
    if not os.access(parent, os.W_OK):
        raise LabError(f"{parent} cannot be written to; choose another --out")


def export_child(
    child: Child, out: Path, *, overwrite: bool = False, dtype: str | None = None, notes: str = "", tick: Tick = silent
) -> Path:
    """Writes the child and returns `out`. `dtype` (bfloat16, float16, float32) overrides the father's floats.

    `notes` is markdown that goes into the model card. Raises `LabError` before the first byte for a bad target or
    too little space, and when a parent's tensor is not finite; nothing is left behind.
    """
    if dtype is not None and dtype not in CHILD_DTYPES:
        raise LabError(f"unknown dtype {dtype!r}; choose {', '.join(CHILD_DTYPES)}")
    out = out.absolute()
    check_target(out, overwrite=overwrite)
    _check_apart(child, out)
    shards = {file: _layout(child, file, dtype) for file in child.father.files}
    total = sum(info.nbytes for shard in shards.values() for info in shard)
    _check_space(out, total)
    partial = out.parent / f".{out.name}.partial-{child.recipe.hash}"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        done = 0
        for file, infos in shards.items():
            with (partial / file).open("wb") as stream:
                _write_header(stream, infos)
                for info in infos:
                    tick(done / max(total, 1), f"writing {info.name}")
                    tensor = _cast(child.read(info.name), torch_dtype(info.dtype), info.name).contiguous()
                    stream.write(memoryview(tensor.reshape(-1).view(torch.uint8).numpy()))  # type: ignore[arg-type]
                    done += info.nbytes
                stream.flush()
                os.fsync(stream.fileno())
        _write_side_files(child, partial, total, dtype, notes)
        _put_in_place(partial, out)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise LabError(
                f"no space left for {out} ({total / 1e6:.0f} MB needed); free some and run it again"
            ) from None
        raise LabError(f"cannot write {out}: {error.strerror or type(error).__name__}; choose another --out") from None
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    tick(1.0, f"wrote {out}")
    return out


def _check_apart(child: Child, out: Path) -> None:
    """Raises `LabError` when `out` is, holds or lies inside the folder of a parent or the ancestor."""
    target = out.resolve()
    for parent in (child.father, child.mother, child.ancestor):
        folder = parent.folder.resolve() if parent else None
        if folder and (target.is_relative_to(folder) or folder.is_relative_to(target)):
            raise LabError(f"{out} is or holds the folder of a parent ({folder}); choose another --out")


def _put_in_place(partial: Path, out: Path) -> None:
    """Renames; an earlier child steps aside first, so that it is lost only once the new one is there."""
    aside = out.parent / f"{partial.name}.old"
    if out.is_dir():
        out.rename(aside)
    partial.rename(out)
    shutil.rmtree(aside, ignore_errors=True)


def _cast(tensor: torch.Tensor, dtype: torch.dtype, name: str) -> torch.Tensor:
    """The tensor in `dtype`. Raises `LabError` when a number is too large for it."""
    cast = tensor.to(dtype)
    if cast.dtype != tensor.dtype and bool((torch.isfinite(tensor) & ~torch.isfinite(cast)).any()):
        raise LabError(f"{name} holds numbers too large for {dtype}; use bfloat16 or float32")
    return cast


def _layout(child: Child, file: str, dtype: str | None) -> list[TensorInfo]:
    """The tensors of one shard in the father's order, with the bytes they will have."""
    infos, position = [], 0
    for info in child.father.tensors.values():
        if info.file != file:
            continue
        name = CHILD_DTYPES[dtype] if dtype and info.is_float else info.dtype
        end = position + info.numel * BYTES_PER_ELEMENT[name]
        infos.append(TensorInfo(info.name, name, info.shape, file, position, end))
        position = end
    return infos


def _write_header(stream: BinaryIO, infos: list[TensorInfo]) -> None:
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    for info in infos:
        table[info.name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [info.start, info.end]}
    raw = json.dumps(table, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    stream.write(struct.pack("<Q", len(raw)) + raw)


def _write_side_files(child: Child, folder: Path, total: int, dtype: str | None, notes: str) -> None:
    for name in child.father.side_files:
        shutil.copyfile(child.father.folder / name, folder / name)
    if dtype is not None:
        config = {**child.config, "dtype": dtype}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    index = child.father.folder / INDEX_FILE
    if index.is_file():
        data = json.loads(index.read_text(encoding="utf-8"))
        data.setdefault("metadata", {})["total_size"] = total
        (folder / INDEX_FILE).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    (folder / RECIPE_FILE).write_text(json.dumps(recipe_record(child, dtype), indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(model_card(child, notes), encoding="utf-8")


def recipe_record(child: Child, dtype: str | None = None) -> dict[str, object]:
    """What `recipe.json` holds: everything the bytes depend on, and one row a tensor."""
    people = {"father": child.father, "mother": child.mother, "ancestor": child.ancestor}
    return {
        "version": 1,
        "recipe": child.recipe.hash,
        "genome": child.recipe.genome_hash,
        "prescription": child.recipe.prescription_hash,
        "seed": child.recipe.seed,
        "rescale": child.recipe.rescale,
        "dtype": dtype or "the father's",
        "parents": {
            role: {"name": parent.name, "fingerprint": parent.fingerprint} for role, parent in people.items() if parent
        },
        "rows": child.recipe.to_rows(),
    }


def _check_space(out: Path, total: int) -> None:
    free = shutil.disk_usage(_existing(out.parent)).free
    if free < total + _SPARE_BYTES:
        raise LabError(
            f"no space left for {out}: {total / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free; free some first"
        )


def _existing(folder: Path) -> Path:
    """The nearest folder above that exists."""
    folder = folder.absolute()
    with contextlib.suppress(StopIteration):
        return next(path for path in (folder, *folder.parents) if path.is_dir())
    return Path("/")
