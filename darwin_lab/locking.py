"""A lock on an open file that the operating system lets go of when its process ends, however it ends.

Takes an open file, gives nothing. Process ids would not do for this: they are used again.
"""

import os
import sys
from typing import IO

if sys.platform == "win32":
    import msvcrt

    def lock_file(file: IO[bytes]) -> None:
        """Takes the lock, or raises OSError at once when another process holds it."""
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def lock_file(file: IO[bytes]) -> None:
        """Takes the lock, or raises OSError at once when another process holds it."""
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
