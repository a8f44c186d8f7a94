"""A checkpoint on disk: config, side files and a lazy table of tensors.

Takes a folder, gives tensors by name. Nothing but headers is read until asked for.
Knows files and names; does not know what a tensor is for.
"""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from darwin_lab.checkpoint.descriptors import Descriptors
from darwin_lab.checkpoint.header import TensorInfo, read_header
from darwin_lab.errors import LabError
from darwin_lab.progress import Tick, silent

if TYPE_CHECKING:
    import torch

INDEX_FILE = "model.safetensors.index.json"
SIDE_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model",
    "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "chat_template.json", "preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json",
    "LICENSE", "LICENSE.txt", "NOTICE",
)  # fmt: skip
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_READ_BLOCK = 1 << 22
FileKey = tuple[str, int, int]
"""Absolute path, bytes, and time of change in nanoseconds of a file."""
_digests: dict[FileKey, bytes] = {}


class Checkpoint:
    """One model on disk; a *source* of tensors by name.

    `tensors` is in file order. `read` gives a new tensor in the dtype of the file, on the CPU.
    """

    def __init__(self, folder: Path, name: str | None = None) -> None:
        """Reads `config.json` and every header. Raises `LabError` when the folder is not a whole checkpoint."""
        self.folder = folder
        self.name = name or folder.name
        self.config = _read_config(folder)
        _check_side_files(folder, self.side_files)
        self.files = _weight_files(folder)
        self._descriptors = Descriptors(folder)
        self.tensors: dict[str, TensorInfo] = {}
        for file in self.files:
            for tensor, info in read_header(folder / file).items():
                if tensor in self.tensors:
                    raise LabError(
                        f"{folder}: tensor {tensor} is in both {self.tensors[tensor].file} and {file}; keep one"
                    )
                self.tensors[tensor] = info
        _check_index(folder, self.tensors)
        if not self.tensors:
            raise LabError(f"{folder}: the safetensors files hold no tensors")

    @property
    def text_config(self) -> dict[str, Any]:
        """The part of the config that describes the language model."""
        inner = self.config.get("text_config")
        return inner if isinstance(inner, dict) else self.config

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.tensors)

    @property
    def total_bytes(self) -> int:
        return sum(info.nbytes for info in self.tensors.values())

    @property
    def parameters(self) -> int:
        return sum(info.numel for info in self.tensors.values())

    @property
    def side_files(self) -> tuple[str, ...]:
        """Files that travel with the weights, verbatim; remote code modules included (never run)."""
        here = {path.name for path in self.folder.iterdir() if path.is_file()}
        return tuple(sorted(name for name in here if name in SIDE_FILES or name.endswith(".py")))

    @property
    def fingerprint(self) -> str:
        """16 hex digits of the BLAKE3 of config, tokenizer and all weight bytes; the same wherever the folder lies."""
        return self.read_through(silent)

    def read_through(self, tick: Tick) -> str:
        """The fingerprint, with a tick before each file; files that were read before and have not changed are not."""
        digest = blake3()
        names = self._identity_files
        for place, name in enumerate(names):
            tick(place / len(names), f"reading {name} of {self.name}")
            digest.update(self._digest(name)[1])
        return digest.hexdigest(length=8)

    def digests(self) -> dict[FileKey, bytes]:
        """The digests the fingerprint is made of, by file; what `learn_digests` takes."""
        return dict(self._digest(name) for name in self._identity_files)

    @property
    def unread_bytes(self) -> int:
        """What `read_through` would read: bytes of the files whose digest is not known."""
        paths = [self.folder / name for name in self._identity_files]
        return sum(path.stat().st_size for path in paths if not digest_is_known(path))

    @property
    def _identity_files(self) -> tuple[str, ...]:
        names = [name for name in ("config.json", "tokenizer.json", "tokenizer.model") if (self.folder / name).exists()]
        return (*names, *self.files)

    def _digest(self, name: str) -> tuple[FileKey, bytes]:
        path = (self.folder / name).resolve()
        stat = path.stat()
        return (str(path), stat.st_size, stat.st_mtime_ns), file_digest(str(path), stat.st_size, stat.st_mtime_ns)

    def read(self, name: str) -> "torch.Tensor":
        """The tensor `name`, a copy of its own. Raises `LabError` when there is none or its dtype has no torch twin."""
        info = self._info(name)
        return self.read_flat(name, 0, info.numel).reshape(info.shape)

    def read_flat(self, name: str, start: int, count: int) -> "torch.Tensor":
        """Elements start..start+count of the flattened tensor [count], a copy of its own, in the dtype of the file."""
        import numpy as np
        import torch

        info = self._info(name)
        dtype = _torch_dtypes().get(info.dtype)
        if dtype is None:
            raise LabError(f"{self.folder}: tensor {name} is {info.dtype}; export an unquantised checkpoint first")
        raw = np.empty(count * dtype.itemsize, dtype=np.uint8)
        if not self._descriptors.fill(info.file, info.start + start * dtype.itemsize, raw.data):
            raise LabError(f"{self.folder / info.file} ended inside tensor {name}; download it again")
        return torch.from_numpy(raw).view(dtype)

    def _info(self, name: str) -> TensorInfo:
        info = self.tensors.get(name)
        if info is None:
            raise LabError(f"{self.folder} has no tensor {name}")
        return info


@lru_cache(maxsize=1)
def _torch_dtypes() -> "dict[str, torch.dtype]":
    import torch

    return {
        "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
        "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
        "BOOL": torch.bool,
    }  # fmt: skip


def torch_dtype(name: str) -> "torch.dtype":
    """The torch dtype of a safetensors dtype name such as "BF16"."""
    return _torch_dtypes()[name]


def file_digest(path: str, size: int, mtime_ns: int) -> bytes:
    """16 bytes of the BLAKE3 of a file; one whose `size` and `mtime_ns` are those it was last read with is not read."""
    key = (str(Path(path).resolve()), size, mtime_ns)
    if key not in _digests:
        digest = blake3()
        with Path(path).open("rb") as file:
            while block := file.read(_READ_BLOCK):
                digest.update(block)
        _digests[key] = digest.digest(length=16)
    return _digests[key]


def learn_digests(known: Mapping[FileKey, bytes]) -> None:
    """Take digests over from an earlier process, so that files that have not changed since are not read again."""
    _digests.update(known)


def digest_is_known(path: Path) -> bool:
    """Whether `file_digest` knows this file as it is now."""
    stat = path.stat()
    return (str(path.resolve()), stat.st_size, stat.st_mtime_ns) in _digests


def read_json(path: Path) -> Any:
    """A JSON file. Raises `LabError` naming the file and the place where it breaks."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise LabError(f"{path} is not UTF-8 text") from None
    except (ValueError, RecursionError) as error:
        raise LabError(f"{path} is not JSON ({str(error)[:100]}); mend or replace it") from None


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise LabError(f"{folder} has no config.json; give the folder that from_pretrained would take")
    config = read_json(path)
    if not isinstance(config, dict):
        raise LabError(f"{path} is not a JSON object; replace it with the model's config.json")
    return config


def _weight_files(folder: Path) -> tuple[str, ...]:
    """File names of the shards, by the index where there is one. Only files inside the folder count."""
    if (folder / INDEX_FILE).is_file():
        _check_side_files(folder, (INDEX_FILE,))
        files = tuple(sorted(set(_index_map(folder).values())))
        for file in files:
            _check_inside(folder, file)
        return files
    single = folder / "model.safetensors"
    found = [single] if single.is_file() else sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        _check_inside(folder, found[0].name)
        return (found[0].name,)
    if len(found) > 1:
        raise LabError(f"{folder} has {len(found)} safetensors files and no {INDEX_FILE}; add the index")
    if any(path.suffix in PICKLE_SUFFIXES for path in folder.iterdir()):
        raise LabError(f"{folder} holds only pickled weights, which can run code; convert them to safetensors first")
    raise LabError(f"{folder} has no .safetensors weights; download the model again")


def _index_map(folder: Path) -> dict[str, str]:
    path = folder / INDEX_FILE
    index = read_json(path)
    table = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(table, dict) or not table or not all(isinstance(file, str) for file in table.values()):
        raise LabError(f"{path} has no weight_map; download the index again")
    return table


def _check_inside(folder: Path, file: str) -> None:
    path = folder / file
    if Path(file).name != file or "\0" in file or not _same_home(folder, path):
        raise LabError(f"{folder}: shard {file!r} points outside the folder; only files inside it are read")
    if not path.is_file():
        raise LabError(f"{folder}: shard {file}, named by {INDEX_FILE}, is missing; download it")


def _check_side_files(folder: Path, names: Iterable[str]) -> None:
    """Config, index, tokenizer and code are copied into children, so a link must not bring in what lies elsewhere."""
    for name in names:
        if not _same_home(folder, folder / name):
            raise LabError(f"{folder}: {name} is a link that points outside the folder; copy the file into it")


def _same_home(folder: Path, path: Path) -> bool:
    """True inside the folder, or in the blob store that a Hub snapshot folder links to."""
    target, home = path.resolve(), folder.resolve()
    cache = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    return target.is_relative_to(home) or target.is_relative_to(cache)


def _check_index(folder: Path, tensors: dict[str, TensorInfo]) -> None:
    """The index and the headers must name the same tensors in the same files."""
    if not (folder / INDEX_FILE).is_file():
        return
    table = _index_map(folder)
    for name, file in table.items():
        if name not in tensors or tensors[name].file != file:
            raise LabError(
                f"{folder}: {INDEX_FILE} says {name} is in {file}, which does not hold it; get the shard again"
            )
    extra = next((name for name in tensors if name not in table), None)
    if extra is not None:
        raise LabError(f"{folder}: tensor {extra} in {tensors[extra].file} is not in {INDEX_FILE}; get the index again")
