"""Where the lab keeps its store: `$DARWIN_LAB_HOME`, or the user's data folder. Touches no file but that folder."""

import os
import sys
from pathlib import Path

from darwin_lab.errors import LabError


def lab_home() -> Path:
    """The store's folder, made if it is not there.

    `$DARWIN_LAB_HOME` if set, else `~/Library/Application Support/darwin-lab` (macOS), `%LOCALAPPDATA%/darwin-lab`
    (Windows), `$XDG_DATA_HOME/darwin-lab` or `~/.local/share/darwin-lab` elsewhere. LabError if it cannot be made.
    """
    named = os.environ.get("DARWIN_LAB_HOME")
    home = Path(named).expanduser() if named else _user_data() / "darwin-lab"
    return make_home(home)


def make_home(home: Path) -> Path:
    """`home` as an absolute folder that exists; LabError if it cannot be made."""
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(
            f"cannot use {home} as the lab's folder ({error.strerror}); set DARWIN_LAB_HOME to a folder you may write"
        ) from error
    return home.resolve()


def _user_data() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
