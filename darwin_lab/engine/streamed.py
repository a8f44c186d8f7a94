"""A model scanned with one layer in memory: its weights are fetched layer by layer and dropped again.

Takes a source (a checkpoint or a virtual child), gives what a resident model gives, as far as sweeps need it. Decides
from free memory whether a model must be streamed at all. Knows no probes.
"""

import ctypes
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darwin_lab.checkpoint.anatomy import classify, layer_of
from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.engine.child import Child
from darwin_lab.engine.resident import Resident, require_all, require_no_nan, text_model, text_tokenizer
from darwin_lab.engine.source import Source
from darwin_lab.errors import LabError
from darwin_lab.sizes import bytes_words

WAYS = ("auto", "always", "never")
OVERFLOWS = ("passes", "spill")
SPARE_BYTES = 700 << 20
"""Left free beside weights and states: the libraries, and what a layer computes with."""
SHARE_OF_FREE = 0.8
"""A model is kept in memory when it takes at most this share of what is free."""
LEAST_STATE_BYTES = 64 << 20


@dataclass(frozen=True)
class Memory:
    """What holding a model whole takes (weights while they load, bytes), what is free, and what was decided."""

    needed: int
    free: int
    streamed: bool

    @property
    def sentence(self) -> str:
        """One line for people."""
        how = "streamed, one layer in memory" if self.streamed else "held in memory"
        return f"{how}: whole it takes {bytes_words(self.needed)}, {bytes_words(self.free)} are free"


def weigh(source: Source, stream: str = "auto", device: str = "cpu", dtype: torch.dtype = torch.float32) -> Memory:
    """Whether to stream `source`. Raises `LabError` for an unknown way or device."""
    if stream not in WAYS:
        raise LabError(f"unknown way to stream {stream!r}; choose {', '.join(WAYS)}")
    require_device(device)
    tensors = _checkpoint(source).tensors.values()
    needed = sum(info.numel * dtype.itemsize + info.nbytes for info in tensors) + SPARE_BYTES
    free = free_bytes(device)
    return Memory(needed, free, stream == "always" or (stream == "auto" and needed > SHARE_OF_FREE * free))


def require_device(device: str) -> None:
    """Raises `LabError` for a device that is not there."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise LabError(
            f"device {device} cannot be used ({str(error).splitlines()[0][:80]}); give --device cpu"
        ) from None


def free_bytes(device: str = "cpu") -> int:
    """Free memory of a device; of the CPU what the system calls available, within this process group's own limit."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        rows = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
        free = int(rows["MemAvailable"].split()[0]) << 10
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and (most := limit.read_text().strip()).isdigit():
        free = min(free, max(0, int(most) - int(used.read_text())))
    return free


def load_model(
    source: Source,
    memory: Memory,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    overflow: str = OVERFLOWS[0],
) -> Resident:
    """`source` as decided. Raises as `Resident.load` does."""
    if not memory.streamed:
        return Resident.load(source, device, dtype)
    return Streamed.open(source, device, dtype, overflow=overflow, memory=memory.free)


class Streamed(Resident):
    """A model whose layers are in memory only while they run; `bytes_read` counts what its source gave.

    A layer takes the place of the one before it, tensor by tensor, so that memory does not fray.

    The states of all batches of a pass are held (or, with `spill`, lie in files there): `state_bytes` bounds them.
    """

    streamed = True
    in_memory = 0
    """Bytes of states that fit beside the weights."""
    bytes_read = 0
    _scratch: tempfile.TemporaryDirectory[str] | None = None

    @staticmethod
    def open(
        source: Source,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        overflow: str = OVERFLOWS[0],
        memory: int | None = None,
    ) -> "Streamed":
        """The skeleton of `source`; `memory` bounds weights and states, by default what is free.

        Raises `LabError` as `Resident.load` does, and for an unknown way to deal with overflow.
        """
        if overflow not in OVERFLOWS:
            raise LabError(f"unknown overflow {overflow!r}; choose {' or '.join(OVERFLOWS)}")
        model_class, config = text_model(source)
        where = torch.device(device)
        with torch.device("meta"):
            model = model_class._from_config(config, dtype=dtype)
        model.eval().requires_grad_(False)
        made = Streamed(model, text_tokenizer(source), source, where, dtype)
        _fill_buffers(model, where)
        made._wire(source)
        made.held = made._most_held()
        room = (free_bytes(device) if memory is None else memory) - SPARE_BYTES - made.held
        made.in_memory = made.state_bytes = max(room, LEAST_STATE_BYTES)
        if overflow == "spill":
            made._scratch = tempfile.TemporaryDirectory(prefix="darwin-lab-states-")
            made.spill = Path(made._scratch.name)
            made.state_bytes = shutil.disk_usage(made.spill).free // 2
        return made

    def become(self, source: Source) -> None:
        """From now on the weights are those of `source`; nothing is read yet."""
        if source.fingerprint != self.fingerprint:
            self._drop(list(self._stage_of_path))
            self._wire(source)

    def tensor(self, path: str) -> torch.Tensor:
        owner, _, leaf = path.rpartition(".")
        found: torch.Tensor = getattr(self.model.get_submodule(owner), leaf).data
        return found

    @contextmanager
    def embedding(self) -> Iterator[None]:
        """Within, what enters the layers; afterwards only the norms and a table tied to the output matrix stay."""
        self._fetch(OUTSIDE)
        self._fetch(TABLES)
        yield
        self._drop([p for p, stage in self._stage_of_path.items() if stage == TABLES and p not in self._tied.values()])

    @contextmanager
    def layer(self, index: int) -> Iterator[nn.Module]:
        """Within, one decoder layer."""
        self._fetch(index)
        try:
            yield self.decoder_layers[index]
        finally:
            self._drop([path for path, stage in self._stage_of_path.items() if stage == index])
            _give_back()

    @contextmanager
    def head(self) -> Iterator[None]:
        """Within, the output matrix; afterwards nothing outside the layers stays."""
        self._fetch(HEAD)
        yield
        self._drop([path for path, stage in self._stage_of_path.items() if stage < 0])

    def passes_words(self, tokens: int, parts: int = 1) -> str:
        """One line: what the states of `tokens` probe tokens take, in passes and spilled to disk."""
        states = tokens * self.state_bytes_per_token(parts)
        weights = sum(info.nbytes for info in _checkpoint(self._source).tensors.values())
        passes = max(1, ceil(states / self.in_memory))
        chosen = "spilled" if self.spill else "in passes"
        return (
            f"{self.layers} layers one at a time; {tokens:,} tokens make {bytes_words(states)} of states, "
            f"{bytes_words(self.in_memory)} fit: {passes} pass{'es' if passes > 1 else ''} reading "
            f"{bytes_words(passes * weights)} or spilled {bytes_words(states)} on disk and {bytes_words(weights)} "
            f"read; chosen: {chosen}"
        )

    def _wire(self, source: Source) -> None:
        """Notes which tensors of `source` each stage needs. Raises `LabError` for weights missing or left over."""
        self._source, self.fingerprint = source, source.fingerprint
        self.bytes_read = 0
        self._spare: dict[tuple[torch.Size, torch.dtype], list[torch.Tensor]] = {}
        self._tied: dict[str, str] = dict(self.model.all_tied_weights_keys)
        self._stage_of_path = {path: _stage(path) for path in self.paths.values() if path not in self._tied}
        self._names: dict[int, list[str]] = {}
        filled, extra = dict.fromkeys(self._stage_of_path, 0), []
        for name in source.names:
            place = self.place(name)
            if place is None:
                extra += [] if self.ignores(name) else [name]
            elif place.path in filled:
                self._names.setdefault(self._stage_of_path[place.path], []).append(name)
                filled[place.path] += place.view(self.tensor(place.path)).numel()
        missing = [path for path, count in filled.items() if count != self.tensor(path).numel()]
        require_all(source, missing, extra)

    def _fetch(self, stage: int) -> None:
        """Brings the weights of a stage into memory, unless they are there."""
        paths = [path for path, of in self._stage_of_path.items() if of == stage and self.tensor(path).is_meta]
        for path in paths:
            tensor = self.tensor(path)
            spare = self._spare.get((tensor.shape, tensor.dtype))
            self._set(path, spare.pop() if spare else torch.empty_like(tensor, device=self.device))
        with torch.no_grad():
            for name in self._names.get(stage, ()):
                place = self.place(name)
                if place is not None and place.path in paths:
                    tensor = self._source.read(name)
                    self.bytes_read += tensor.nbytes
                    require_no_nan(name, tensor, self._source)
                    place.view(self.tensor(place.path)).copy_(tensor)

    def _drop(self, paths: Sequence[str]) -> None:
        for path in paths:
            tensor = self.tensor(path)
            if not tensor.is_meta:
                self._set(path, torch.empty_like(tensor, device="meta"))
                if self._stage_of_path[path] >= 0:
                    self._spare.setdefault((tensor.shape, tensor.dtype), []).append(tensor)

    def _set(self, path: str, tensor: torch.Tensor) -> None:
        """Puts a tensor at a path, and wherever that path is tied to."""
        for place in (path, *(target for target, origin in self._tied.items() if origin == path)):
            owner, _, leaf = place.rpartition(".")
            module = self.model.get_submodule(owner)
            if leaf in module._buffers:
                module._buffers[leaf] = tensor
            else:
                module._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)

    def _most_held(self) -> int:
        """Bytes of the largest stages that are in memory together, and of one tensor being read."""
        sizes: dict[int, int] = {}
        for path, stage in self._stage_of_path.items():
            sizes[stage] = sizes.get(stage, 0) + self.tensor(path).nbytes
        outside = sizes.pop(OUTSIDE, 0) + max(sizes.pop(TABLES, 0), sizes.pop(HEAD, 0))
        largest = max(
            info.nbytes for info in _checkpoint(self._source).tensors.values() if layer_of(info.name) is not None
        )
        return outside + max(sizes.values()) + largest


OUTSIDE, TABLES, HEAD = -1, -2, -3
"""Stages beside the layers' own numbers: norms and the like, embedding tables, the output matrix."""


def _give_back() -> None:
    """What the C library keeps of freed memory between live tensors, back to the system where that library can: else a
    sweep takes more with every layer."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _stage(path: str) -> int:
    layer = layer_of(path)
    if layer is not None:
        return layer
    role = classify(path)[1]
    if role == "lm_head":
        return HEAD
    return TABLES if role in ("embedding", "per_layer_embedding") else OUTSIDE


def _fill_buffers(model: Any, device: torch.device) -> None:
    """Gives the buffers that no checkpoint holds (rotary frequencies, embedding scales) their values."""
    for module in model.modules():
        unset = [name for name in module._non_persistent_buffers_set if getattr(module, name).is_meta]
        for name in unset:
            module._buffers[name] = torch.empty_like(module._buffers[name], device=device)
        if unset:
            model._init_weights(module)


def _checkpoint(source: Source) -> Checkpoint:
    """The files whose sizes a source has."""
    if isinstance(source, Child):
        return source.father
    if not isinstance(source, Checkpoint):
        raise LabError(f"{source.name} is neither a checkpoint nor a child; it cannot be streamed")
    return source
