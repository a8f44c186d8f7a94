"""Whether a folder can be made somewhere, asked before any long work.

Takes a path, writes nothing. Knows nothing of exports or of what will lie there.
"""

import os
import shutil
from pathlib import Path

from darwin_lab.errors import LabError


def existing(folder: Path) -> Path:
    """The nearest folder above that exists, or the folder itself."""
    folder = folder.absolute()
    return next((path for path in (folder, *folder.parents) if path.is_dir()), Path("/"))


def check_place(out: Path) -> None:
    """Raises `LabError` when no folder `out` can be made: above it lies a file, or what cannot be written to."""
    above = out.absolute().parent
    met = next((path for path in (above, *above.parents) if path.exists()), Path("/"))
    if not met.is_dir():
        raise LabError(f"{met} is a file, so nothing can be put into it; choose another --out")
    if not os.access(met, os.W_OK) or shutil.disk_usage(met).total == 0:
        raise LabError(f"{met} cannot be written to; choose another --out")
