"""Files people hand to one another: a few known files in one zip, packed whole and unpacked with suspicion.

Takes folders and paths; gives one zip, or the known files of one in a folder. Whatever else a zip holds (other names,
paths, links, more bytes than it may) makes it refused before anything of it is written. Must not know: what is inside.
"""

import json
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from darwin_lab.errors import LabError

MOST_SHARED_BYTES = 50_000_000
"""A shared file is at most this large: what a page lets its visitors upload."""
MOST_UNPACKED_BYTES = 600_000_000
"""What the files in it may take, all together."""
MOST_WORDS_BYTES = 16_000_000
"""What a .json file in it may take: it is parsed whole, and a scan's is seldom larger than one million."""
ABOUT = "about.json"
_MOST_ABOUT_BYTES = 10_000
_BLOCK = 1 << 20


def pack(folder: Path, names: Sequence[str], target: Path, about: dict[str, Any]) -> Path:
    """The files `names` of a folder as one zip at `target`, whole or not at all, with a few words `about` them.

    Raises `LabError` when it is larger than `MOST_SHARED_BYTES` or there is no room.
    """
    partial = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(ABOUT, json.dumps(about, ensure_ascii=False))
            for name in names:
                archive.write(folder / name, name)
        size = partial.stat().st_size
        if size > MOST_SHARED_BYTES:
            raise LabError(
                f"{target.name} would take {size / 1e6:.0f} MB; files up to {MOST_SHARED_BYTES / 1e6:.0f} MB are "
                f"shared, so copy the folder {folder} instead"
            )
        partial.replace(target)
    except OSError as error:
        raise LabError(f"cannot write {target} ({error.strerror or error}); free some space") from error
    finally:
        partial.unlink(missing_ok=True)
    return target


def unpack(path: Path, folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Put the files `names` of a zip (or of a folder) into `folder`; the words about them, empty without.

    Raises `LabError` for anything but a zip or folder with exactly these files within the sizes allowed.
    """
    if path.is_dir():
        for name in names:
            if not (path / name).is_file():
                raise LabError(f"{path} has no {name}; give a folder that `scan --out` wrote")
            _require_words_fit(path.name, name, (path / name).stat().st_size)
            shutil.copyfile(path / name, folder / name)
        return {}
    if not path.is_file():
        raise LabError(f"there is no file {path}; give a shared .zip file or a folder that `scan --out` wrote")
    if path.stat().st_size > MOST_SHARED_BYTES:
        raise LabError(f"{path.name} is larger than {MOST_SHARED_BYTES / 1e6:.0f} MB; that is no shared file")
    try:
        with zipfile.ZipFile(path) as archive:
            return _taken(archive, path.name, folder, names)
    except (LabError, OSError):
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:100]
        raise LabError(f"{path.name} is no zip file that can be read ({reason}); share it again") from error


def _taken(archive: zipfile.ZipFile, called: str, folder: Path, names: Sequence[str]) -> dict[str, Any]:
    found = archive.infolist()
    listed = [info.filename for info in found]
    odd = next((name for name in listed if name not in (*names, ABOUT)), None)
    if odd is not None:
        raise LabError(f"{called} holds {odd[:60]!r}, which is no part of a shared file; nothing of it was kept")
    missing = next((name for name in names if name not in listed), None)
    if missing is not None:
        raise LabError(f"{called} has no {missing}; share it again")
    if len(set(listed)) != len(listed):
        raise LabError(f"{called} holds a file twice; share it again")
    if sum(info.file_size for info in found) > MOST_UNPACKED_BYTES:
        raise LabError(f"{called} unpacks to more than {MOST_UNPACKED_BYTES / 1e6:.0f} MB; nothing of it was kept")
    for info in found:
        _require_words_fit(called, info.filename, info.file_size)
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without a bound
            raise LabError(f"{called} is packed in an unknown way; share it again")
    for info in found:
        if info.filename in names:
            _copy(archive, info, folder / info.filename)
    return _about(archive) if ABOUT in listed else {}


def _require_words_fit(called: str, name: str, size: int) -> None:
    if name.endswith(".json") and size > MOST_WORDS_BYTES:
        raise LabError(f"{name} in {called} is larger than {MOST_WORDS_BYTES / 1e6:.0f} MB; nothing of it was kept")


def _copy(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    """One member; never more bytes than it says it has."""
    with archive.open(info) as source, target.open("wb") as file:
        left = info.file_size
        while left > 0 and (block := source.read(min(_BLOCK, left))):
            file.write(block)
            left -= len(block)


def _about(archive: zipfile.ZipFile) -> dict[str, Any]:
    if archive.getinfo(ABOUT).file_size > _MOST_ABOUT_BYTES:
        return {}
    try:
        told = json.loads(archive.read(ABOUT))
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}
