"""The folder an export grows in: `.NAME.partial-<recipe hash>` beside the target, renamed to it at the very end.

Takes what the bytes depend on (`identity`) and the shards, gives a locked folder with the whole shards that an earlier,
killed export of the very same child left there. An error or a cancel removes the folder; only a kill leaves it, until
the same export takes it up or another one to the same target is done.
"""

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from darwin_lab.engine.shards import Shard
from darwin_lab.errors import LabError
from darwin_lab.locking import lock_file

STATE_FILE = "export.json"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What network disks without locks answer; there nobody is kept from exporting twice at once."""


class Partial:
    """A folder for one export. `whole` names the shards that are there already and need not be written again."""

    def __init__(self, out: Path, recipe_hash: str, identity: dict[str, Any], shards: Sequence[Shard]) -> None:
        """Takes up or makes the folder. Raises `LabError` when a living export holds it."""
        self.out = out
        self.folder = out.parent / f".{out.name}.partial-{recipe_hash}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._state = self._claim()
        try:
            self.whole = self._take_up(identity, shards)
        except BaseException:
            self.remove()
            raise

    def _take_up(self, identity: dict[str, Any], shards: Sequence[Shard]) -> frozenset[str]:
        """Keeps what an equal export finished, clears the rest and notes what this one is."""
        wanted = {**identity, "shards": {shard.file: shard.data_bytes for shard in shards}}
        same = _read(self._state) == wanted
        whole = frozenset(shard.file for shard in shards if same and shard.is_whole(self.folder))
        for path in self.folder.iterdir():
            if path.name not in (*whole, STATE_FILE):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._state.seek(0)
        self._state.truncate()
        self._state.write(json.dumps(wanted, indent=1).encode())
        self._state.flush()
        os.fsync(self._state.fileno())
        return whole

    def finish(self) -> None:
        """Renames the folder to its target; an earlier child there is lost only once the new one is in place.

        What killed exports of other children left for this target goes with it.
        """
        aside = self.out.parent / f"{self.folder.name}.old"
        (self.folder / STATE_FILE).unlink()
        _sync(self.folder)
        if self.out.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
            self.out.rename(aside)
        self.folder.rename(self.out)
        _sync(self.out.parent)
        self._state.close()
        shutil.rmtree(aside, ignore_errors=True)
        clear_stale(self.out)

    def remove(self) -> None:
        """Leaves nothing behind."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._state.close()

    def _claim(self) -> IO[bytes]:
        state = (self.folder / STATE_FILE).open("a+b")
        try:
            lock_file(state)
        except (BlockingIOError, PermissionError):
            state.close()
            raise LabError(f"another export of this child to {self.out} is under way; wait for it to end") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        return state


def clear_stale(out: Path, keep: Path | None = None) -> None:
    """Removes the folders of exports to `out` that were killed; those of living exports and `keep` stay.

    A folder without a state file stays too: its export may be about to rename it.
    """
    name = re.compile(re.escape(f".{out.name}.partial-") + "[0-9a-f]{12}")
    with contextlib.suppress(OSError):
        for folder in [path for path in out.parent.iterdir() if name.fullmatch(path.name) and path != keep]:
            with contextlib.suppress(OSError), (folder / STATE_FILE).open("r+b") as state:
                lock_file(state)
                shutil.rmtree(folder, ignore_errors=True)


def _read(state: IO[bytes]) -> object:
    """What an earlier export noted, or None where it was killed before it could."""
    state.seek(0)
    try:
        return json.loads(state.read())
    except ValueError:
        return None


def _sync(folder: Path) -> None:
    """Makes renames in `folder` last through a power cut, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
