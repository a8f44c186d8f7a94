"""Which process owns a piece of work, and whether it is still alive.

A process takes an `Owner`: a locked file in the lab's folder. The operating system lets go of the lock when the
process ends, however it ends, so a lock that can be taken belongs to nobody any more. Process ids would not do: they
are used again. Knows nothing of jobs or runs.
"""

import secrets
from pathlib import Path

from darwin_lab.locking import lock_file


class Owner:
    """This process's claim: `id` names it for as long as the process lives or until `release`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.id = secrets.token_hex(6)
        self._path = folder / f"{self.id}.lock"
        self._file = self._path.open("a+b")
        lock_file(self._file)

    def release(self) -> None:
        """Give the claim up; work recorded under this id then counts as left behind."""
        if not self._file.closed:
            self._file.close()
            self._path.unlink(missing_ok=True)


def is_alive(folder: Path, owner: str | None) -> bool:
    """Whether the process that holds this claim still runs. A claim found dead is swept away."""
    if not owner:
        return False
    path = folder / f"{owner}.lock"
    try:
        with path.open("r+b") as file:
            lock_file(file)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    path.unlink(missing_ok=True)
    return False
