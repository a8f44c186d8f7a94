"""Files kept open for reading at any place, by any number of threads.

Takes paths, fills memory. Opens a file once, not once a read; knows nothing of formats.
"""

import os
from collections import OrderedDict
from pathlib import Path
from threading import Lock

MOST_OPEN = 32


class _Open:
    """A descriptor that closes when nobody holds it any more."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def __del__(self) -> None:
        number = getattr(self, "number", None)
        if number is not None:
            os.close(number)


class Descriptors:
    """The files of one folder, the latest `MOST_OPEN` of them open; all are closed with this object."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, Lock()
        self._files: OrderedDict[str, _Open] = OrderedDict()

    def fill(self, file: str, start: int, memory: memoryview) -> bool:
        """Fills `memory` (bytes) from byte `start` of `file`; False when the file ends before that."""
        opened = self._opened(file)
        done = 0
        while done < len(memory):
            got = os.preadv(opened.number, [memory[done:]], start + done)
            if got == 0:
                return False
            done += got
        return True

    def _opened(self, file: str) -> _Open:
        with self._lock:
            opened = self._files.get(file)
            if opened is None:
                opened = self._files[file] = _Open(self._folder / file)
                if len(self._files) > MOST_OPEN:
                    self._files.popitem(last=False)
            else:
                self._files.move_to_end(file)
            return opened
