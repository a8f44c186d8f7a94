"""A folder that holds one measurement: NAME.json for words and numbers, NAME.safetensors for arrays.

Takes plain data and numpy arrays; gives them back equal. The folder appears whole or not at all: it is written beside
its place and renamed. Must not know: what was measured.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from darwin_lab.errors import LabError

Arrays = dict[str, NDArray[Any]]


def write_folder(folder: str | Path, name: str, words: dict[str, Any], arrays: Arrays) -> Path:
    """Write (or replace) `folder` with the two files, atomically; returns the folder.

    Raises `LabError` when the place cannot be written; nothing half-written stays.
    """
    folder = Path(folder)
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        (partial / f"{name}.json").write_text(json.dumps(words, indent=1, ensure_ascii=False), encoding="utf-8")
        save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, partial / f"{name}.safetensors")
        if folder.exists():
            replaced = folder.with_name(f".{folder.name}.replaced-{os.getpid()}")
            folder.rename(replaced)
            partial.rename(folder)
            shutil.rmtree(replaced)
        else:
            partial.rename(folder)
    except OSError as error:
        raise LabError(
            f"cannot write {folder}: {error.strerror or error}; choose a place with room and rights"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def read_folder(folder: str | Path, name: str) -> tuple[dict[str, Any], Arrays]:
    """What `write_folder` wrote. Raises `LabError` for a folder that is missing, damaged or of another kind."""
    folder = Path(folder)
    try:
        words = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        return words, load_file(folder / f"{name}.safetensors")
    except Exception as error:
        raise LabError(f"{folder} holds no readable {name} ({error}); delete it and measure again") from error


def dtype_of(settings: dict[str, Any]) -> str:
    """The numbers a measurement with these settings was computed in; the default is left out of them."""
    return str(settings.get("dtype", "float32"))


def same_measurement(kind: str, pieces: list[tuple[str, Any, Any]]) -> None:
    """Raise `LabError` for the first (what, one, other) whose values differ: two `kind` do not belong together."""
    for what, one, other in pieces:
        if one != other:
            raise LabError(f"these {kind} differ in {what} ({one} against {other}); measure both the same way")
