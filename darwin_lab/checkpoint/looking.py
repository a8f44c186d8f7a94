"""A first look at a checkpoint: everything that headers say, and no weights, wherever the model is.

Takes what a person types, gives a checkpoint. A model that lies on this machine is opened; of one on the Hub only
config, tokenizer, index and headers are fetched, a few megabytes for a model of any size; its weights cannot be read.
"""

import json
import shutil
import struct
import tempfile
import weakref
from pathlib import Path
from typing import Any

from darwin_lab.checkpoint.checkpoint import INDEX_FILE, SIDE_FILES, Checkpoint, read_json
from darwin_lab.checkpoint.opening import download, is_hub_id, open_checkpoint
from darwin_lab.errors import LabError

_SINGLE_FILE = "model.safetensors"
_SMALL_FILES = (*SIDE_FILES, INDEX_FILE)


def look_at(ref: str | Path) -> Checkpoint:
    """The checkpoint `ref` names, as `open_checkpoint` takes it, without downloading weights.

    Raises `LabError` when there is no such model, or its headers are not those of a whole safetensors checkpoint.
    """
    text = str(ref).strip()
    if not is_hub_id(text):
        return open_checkpoint(ref)
    try:
        return Checkpoint(download(text, offline=True), name=text)
    except LabError:  # nothing of it is here, or only a part
        return _from_headers(text)


def _from_headers(repo_id: str) -> Checkpoint:
    """A checkpoint whose small files are real and whose weight files were holes that are gone once they were read."""
    small = download(repo_id, patterns=_SMALL_FILES)
    folder = Path(tempfile.mkdtemp(prefix="darwin-lab-look-"))
    try:
        for path in small.iterdir():
            if path.is_file() and path.name in _SMALL_FILES:
                shutil.copyfile(path, folder / path.name)
        for file in _weight_files(folder):
            _write_hole(folder / file, _header(repo_id, file))
        found = Checkpoint(folder, name=repo_id)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    for file in found.files:
        (folder / file).unlink()
    weakref.finalize(found, shutil.rmtree, folder, ignore_errors=True)
    return found


def _weight_files(folder: Path) -> list[str]:
    if not (folder / INDEX_FILE).is_file():
        return [_SINGLE_FILE]
    index = read_json(folder / INDEX_FILE)
    table = index.get("weight_map") if isinstance(index, dict) else None
    files = sorted({str(file) for file in table.values()}) if isinstance(table, dict) else []
    if not files or any(Path(file).name != file for file in files):
        raise LabError(f"{folder.name}: its index names no files of its own; choose another checkpoint")
    return files


def _header(repo_id: str, file: str) -> dict[str, Any]:
    """The header of one file on the Hub, by a request for its first bytes."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, NotASafetensorsRepoError, SafetensorsParsingError

    try:
        found = HfApi().parse_safetensors_file_metadata(repo_id, file)
    except (NotASafetensorsRepoError, SafetensorsParsingError):
        raise LabError(f"{repo_id}: {file} is not a safetensors file; choose a checkpoint in safetensors") from None
    except HfHubHTTPError as error:
        code = getattr(error.response, "status_code", "")
        raise LabError(f"{repo_id}: the Hub answered {code} for {file}; is it a safetensors checkpoint?") from None
    except (HTTPError, OSError) as error:
        raise LabError(f"{repo_id}: {file} could not be fetched ({type(error).__name__}); check the network") from None
    return {
        name: {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": list(info.data_offsets)}
        for name, info in found.tensors.items()
    }


def _write_hole(path: Path, header: dict[str, Any]) -> None:
    """A safetensors file of the right length that takes no space: its header, then nothing."""
    raw = json.dumps(header).encode()
    end = max((row["data_offsets"][1] for row in header.values()), default=0)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)
