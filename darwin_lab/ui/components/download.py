"""A file of the lab where gradio may hand it out: in the temporary folder, not in the store."""

import shutil
import tempfile
from pathlib import Path


def served(file: Path, key: str, name: str) -> str:
    """The path to give to a download button: a link to `file` (or a copy), called `name`; `key` names its content."""
    place = Path(tempfile.gettempdir()) / "darwin-lab-downloads" / key
    offered = place / name
    if not offered.exists():
        place.mkdir(parents=True, exist_ok=True)
        try:
            offered.hardlink_to(file)
        except OSError:
            shutil.copyfile(file, offered)
    return str(offered)
