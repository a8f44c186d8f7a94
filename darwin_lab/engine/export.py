"""Writes a virtual child to disk: the father's names, shapes, dtypes, shards and side files.

Takes a child and a target folder, gives the finished folder. The child streams through in pieces, so memory does not
grow with the model. Everything goes to a hidden folder beside the target, which is renamed at the very end; an error
or a cancel removes it, and after a kill the same export goes on at the last whole shard. Never goes through
`save_pretrained`, which changes layouts and drops tensors.
"""

import contextlib
import errno
import json
import shutil
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Thread
from typing import Any

import torch

from darwin_lab import __version__
from darwin_lab.checkpoint.checkpoint import INDEX_FILE, SIDE_FILES
from darwin_lab.checkpoint.vocabulary import TOKENS_FILE, match_tokens
from darwin_lab.engine.card import ASSETS, CARD_FILE, CardNotes, people, write_card
from darwin_lab.engine.child import Child
from darwin_lab.engine.partial import Partial, clear_stale
from darwin_lab.engine.places import check_place, existing
from darwin_lab.engine.shards import Shard, plan_shards, write_shard
from darwin_lab.errors import LabError
from darwin_lab.merging.recipe_file import RECIPE_FILE, recipe_text, recipe_to_json
from darwin_lab.progress import Tick, part, silent
from darwin_lab.sizes import bytes_words

_OWN_FILES = frozenset((*SIDE_FILES, INDEX_FILE, RECIPE_FILE, TOKENS_FILE, CARD_FILE))
_SPARE_BYTES = 1 << 20
_CHECKING_SHARE, _READING_SHARE, _WEIGHTS_SHARE = 0.02, 0.08, 0.98
Written = Generator[tuple[int, str], None, None]
"""(bytes, tensor name) of each piece as it is written."""


def check_target(out: Path, *, overwrite: bool | None) -> None:
    """Raises `LabError` when `out`, or what it links to, cannot become the child's folder. Call before any long work.

    `overwrite` is None where the verb has no such flag. Overwriting replaces a child and nothing else: a folder with
    any file that no export writes is kept.
    """
    out = _target(out)
    if out.is_file():
        raise LabError(f"{out} is a file; give the name of a new folder")
    if out.is_dir() and any(out.iterdir()):
        if not overwrite:
            more = "" if overwrite is None else ", or --overwrite to replace a child"
            raise LabError(f"{out} exists and is not empty; give another --out{more}")
        if not (out / RECIPE_FILE).is_file():
            raise LabError(f"{out} is not a child the lab wrote (no {RECIPE_FILE}), so it is kept; give another --out")
        stranger = next(_strangers(out), None)
        if stranger is not None:
            raise LabError(f"{out} holds {stranger}, which no export writes; move it away or give another --out")
    check_place(out)


def export_child(
    child: Child,
    out: Path,
    *,
    overwrite: bool = False,
    dtype: str | None = None,
    shard_size: int | None = None,
    devices: Sequence[str] = ("cpu",),
    genome: Mapping[str, Any] | None = None,
    notes: CardNotes | None = None,
    tick: Tick = silent,
) -> Path:
    """Writes the child, through `out` where that is a link to a folder, and returns `out`.

    `dtype` (bfloat16, float16, float32) overrides the father's floats, `shard_size` (bytes) his shards. Shards go
    round-robin to `devices`, which do the arithmetic side by side; the bytes do not depend on them (measured with
    several CPU workers; no GPU has been measured). `genome` (JSON) is kept in `recipe.json`, `notes` go into the model
    card. Raises `LabError` before the first byte for a bad target, device or too little space, and when a parent's
    tensor is not finite; nothing is left behind.
    """
    started = time.monotonic()
    asked, out = out.absolute(), _target(out)
    _check_apart(child, out)
    check_target(out, overwrite=overwrite)
    check_devices(devices)
    shards = plan_shards(child.father, dtype, shard_size)
    _check_space(out, shards, child)
    child.require_sound(part(tick, 0.0, _CHECKING_SHARE))
    parents = list(people(child).values())
    for place, parent in enumerate(parents):
        start = _CHECKING_SHARE + (_READING_SHARE - _CHECKING_SHARE) * place / len(parents)
        parent.read_through(part(tick, start, start + (_READING_SHARE - _CHECKING_SHARE) / len(parents)))
    identity = {"version": 1, "lab": __version__, "recipe": child.recipe.hash, "parents": child.parents, "dtype": dtype}
    try:
        partial = Partial(out, child.recipe.hash, json.loads(json.dumps(identity)), shards)
    except OSError as error:
        raise _write_error(out, shards, error) from None
    try:
        _write_weights(child, shards, partial, devices, part(tick, _READING_SHARE, _WEIGHTS_SHARE))
        _write_side_files(child, partial.folder, shards, dtype, shard_size)
        record = recipe_to_json(child.recipe, people(child), dtype=dtype, genome=genome)
        (partial.folder / RECIPE_FILE).write_text(recipe_text(record), encoding="utf-8")
        if child.recipe.vocabulary != "same":
            words = json.dumps(match_tokens(child.father, child.mother).to_json(), ensure_ascii=False, indent=1)
            (partial.folder / TOKENS_FILE).write_text(words + "\n", encoding="utf-8")
        tick(_WEIGHTS_SHARE, "writing the model card")
        write_card(child, partial.folder, time.monotonic() - started, notes)
        check_target(out, overwrite=overwrite)
        partial.finish()
    except OSError as error:
        partial.remove()
        raise _write_error(out, shards, error) from None
    except BaseException:
        partial.remove()
        raise
    tick(1.0, f"wrote {asked}")
    return asked


def check_devices(devices: Sequence[str]) -> None:
    """Raises `LabError` for a device this machine or its torch does not have."""
    if not devices:
        raise LabError("no device given; write cpu, or cuda:0,cuda:1 for several")
    for name in devices:
        try:
            torch.empty(1, device=name).cpu()
        except (RuntimeError, AssertionError, NotImplementedError):
            raise LabError(f"no device {name!r} here; choose cpu, or cuda:0 on a machine with a GPU") from None


def _write_weights(child: Child, shards: Sequence[Shard], partial: Partial, devices: Sequence[str], tick: Tick) -> None:
    """Every shard that is not whole yet, with the bytes so far and the time left in the words of the tick."""
    total = sum(shard.data_bytes for shard in shards)
    missing = [shard for shard in shards if shard.file not in partial.whole]
    kept = done = total - sum(shard.data_bytes for shard in missing)
    if len(devices) == 1:
        events = _in_turn(child, missing, partial.folder, devices[0])
    else:
        lanes = [missing[lane :: len(devices)] for lane in range(len(devices))]
        events = _side_by_side(child, lanes, partial.folder, devices)
    started = time.monotonic()
    tick(done / max(total, 1), f"writing {len(missing)} shards, {bytes_words(total - done)} to go")
    with contextlib.closing(events):
        for count, name in events:
            done += count
            pace = (done - kept) / max(time.monotonic() - started, 1e-6)
            left = _duration((total - done) / pace)
            words = f"{bytes_words(done)} of {bytes_words(total)} written, {left} left ({name})"
            tick(done / max(total, 1), words)


def _in_turn(child: Child, shards: Sequence[Shard], folder: Path, device: str) -> Written:
    for shard in shards:
        yield from write_shard(child, shard, folder, device)


def _side_by_side(child: Child, lanes: Sequence[Sequence[Shard]], folder: Path, devices: Sequence[str]) -> Written:
    """One thread a device, each writing its own shards; what they report comes out in the caller's thread.

    The first error of a thread is raised here; whenever the caller stops, the threads stop at their next piece.
    """
    reports: Queue[tuple[int, str] | BaseException | None] = Queue(maxsize=2 * len(devices))
    stop = Event()

    def work(shards: Sequence[Shard], device: str) -> None:
        try:
            for shard in shards:
                for written in write_shard(child, shard, folder, device):
                    reports.put(written)
                    if stop.is_set():
                        return
        except BaseException as error:
            reports.put(error)
        finally:
            reports.put(None)

    threads = [Thread(target=work, args=lane, daemon=True) for lane in zip(lanes, devices, strict=True)]
    for thread in threads:
        thread.start()
    try:
        running = len(threads)
        while running:
            report = reports.get()
            if report is None:
                running -= 1
            elif isinstance(report, BaseException):
                raise report
            else:
                yield report
    finally:
        stop.set()
        while any(thread.is_alive() for thread in threads):
            with contextlib.suppress(Empty):
                reports.get(timeout=0.01)


def _write_side_files(
    child: Child, folder: Path, shards: Sequence[Shard], dtype: str | None, shard_size: int | None
) -> None:
    """The father's files verbatim; config and index only where a dtype or a shard size changes what they say."""
    for name in child.father.side_files:
        shutil.copyfile(child.father.folder / name, folder / name)
    if dtype is not None:
        config = {**child.config, "dtype": dtype}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    index = child.father.folder / INDEX_FILE
    data: dict[str, Any] = {"weight_map": {info.name: shard.file for shard in shards for info in shard.tensors}}
    if shard_size is None and index.is_file():
        data = json.loads(index.read_text(encoding="utf-8"))
    elif len(shards) == 1:
        return
    total = sum(shard.data_bytes for shard in shards)
    data["metadata"] = {**data.get("metadata", {}), "total_size": total}
    (folder / INDEX_FILE).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _check_apart(child: Child, out: Path) -> None:
    """Raises `LabError` when `out` is, holds or lies inside the folder of a parent or the ancestor."""
    for parent in people(child).values():
        folder = parent.folder.resolve()
        if out.is_relative_to(folder) or folder.is_relative_to(out):
            raise LabError(f"{out} is or holds the folder of a parent ({folder}); choose another --out")


def _check_space(out: Path, shards: Sequence[Shard], child: Child) -> None:
    """Raises `LabError` when the shards that are not there yet do not fit on the disk.

    What killed exports of other children to this target left is given up for them.
    """
    left = out.parent / f".{out.name}.partial-{child.recipe.hash}"
    needed = _SPARE_BYTES + sum(shard.data_bytes for shard in shards if not (left / shard.file).is_file())
    parent, begun = existing(out.parent), _begun_bytes(left, shards)
    if shutil.disk_usage(parent).free + begun < needed:
        clear_stale(out, keep=left)
    free = shutil.disk_usage(parent).free + begun
    if free < needed:
        raise LabError(
            f"no space left for {out}: {bytes_words(needed)} needed, {bytes_words(free)} free; free some first"
        )


def _begun_bytes(left: Path, shards: Sequence[Shard]) -> int:
    """What the resumed export clears before it writes: files of its killed forerunner that are no whole shards."""
    whole = {shard.file for shard in shards}
    begun = [path for path in left.iterdir() if path.is_file() and path.name not in whole] if left.is_dir() else []
    return sum(path.stat().st_size for path in begun)


def _write_error(out: Path, shards: Sequence[Shard], error: OSError) -> LabError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        needed = sum(shard.data_bytes for shard in shards)
        return LabError(f"no space left for {out} ({bytes_words(needed)} needed); free some and run it again")
    return LabError(f"cannot write {out}: {error.strerror or type(error).__name__}; choose another --out")


def _target(out: Path) -> Path:
    """Where `out` leads once its links are followed. Raises `LabError` when they lead in a circle."""
    try:
        return out.resolve()
    except (OSError, RuntimeError):
        raise LabError(f"{out} is a link that leads nowhere; choose another --out") from None


def _strangers(out: Path) -> Iterator[Path]:
    """Files in `out`, as paths inside it, that are not of an export's own kind."""
    for path in sorted(out.rglob("*")):
        inside = path.relative_to(out)
        if path.is_dir() and not path.is_symlink():
            continue
        own = inside.name in _OWN_FILES or inside.suffix in (".safetensors", ".py")
        picture = inside.parent == Path(ASSETS) and inside.suffix == ".png"
        if not (picture or (own and inside.parent == Path())):
            yield inside


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
