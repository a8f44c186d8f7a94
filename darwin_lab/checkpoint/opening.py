"""From what a person types to a checkpoint: a folder, a GGUF file, a Hub id, or `family:father`.

Knows names and folders; the download itself is huggingface_hub's.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from darwin_lab.checkpoint.checkpoint import SIDE_FILES, Checkpoint, digest_is_known
from darwin_lab.checkpoint.gguf import SUFFIX, from_gguf
from darwin_lab.errors import LabError

FAMILY_FOLDER = Path(__file__).resolve().parents[2] / "assets" / "family"
FAMILY_MEMBERS = ("father", "mother", "ancestor")
MAX_REF = 1024
HUB_ID = re.compile(r"^[\w.-]{1,96}/[\w.-]{1,96}$")
_DOWNLOADED = (*SIDE_FILES, "*.safetensors", "model.safetensors.index.json")


def open_checkpoint(ref: str | Path) -> Checkpoint:
    """Opens `ref`: a local folder, a GGUF file, a Hub id `org/name`, or `family:father|mother|ancestor`.

    A GGUF file (or a folder that holds one and no safetensors) is converted once; its name then says so. Raises
    `LabError` when there is no such model or it is not a whole checkpoint.
    """
    text = str(ref).strip()
    if text.startswith("family:"):
        member = text.removeprefix("family:")
        if member not in FAMILY_MEMBERS:
            raise LabError(f"no family member {member!r}; choose family:father, family:mother or family:ancestor")
        return Checkpoint(FAMILY_FOLDER / member, name=text)
    if not text:
        raise LabError("no model given; give a folder, a Hub id such as org/name, or family:father")
    if len(text) > MAX_REF or "\0" in text:
        raise LabError(f"{text[:40]!r}... is no name of a model; give a folder, a Hub id, or family:father")
    folder = Path(text).expanduser()
    gguf = _gguf_file(folder)
    if gguf is not None:
        return Checkpoint(from_gguf(gguf), name=f"{gguf.stem} (from GGUF)")
    if folder.is_dir():
        return Checkpoint(folder, name=folder.resolve().name)
    if folder.is_file():
        raise LabError(f"{folder} is a file; give the folder with config.json and safetensors, or a GGUF file")
    if is_hub_id(text):
        return Checkpoint(download(text), name=text)
    raise LabError(f"no folder {folder}; give a folder, a Hub id such as org/name, or family:father")


def is_hub_id(ref: str | Path) -> bool:
    """Whether `ref` can only mean a model on the Hub: an owner and a name, and nothing that lies here."""
    text = str(ref).strip()
    return bool(HUB_ID.match(text)) and not text.startswith((".", "/")) and not Path(text).expanduser().exists()


def unread_bytes(ref: str | Path) -> float:
    """Bytes that opening `ref` and taking its fingerprint would read; infinity for a model that is not here whole.

    Reads headers at most and asks no network. Raises `LabError` for what is here but no checkpoint.
    """
    text = str(ref).strip()
    if text.startswith("family:"):
        return float(open_checkpoint(text).unread_bytes)
    path = Path(text).expanduser()
    gguf = _gguf_file(path) if path.exists() else None
    if gguf is not None:
        return 0.0 if digest_is_known(gguf) else float(gguf.stat().st_size)
    if path.exists():
        return float(open_checkpoint(path).unread_bytes)
    try:
        return float(Checkpoint(download(text, offline=True)).unread_bytes) if is_hub_id(text) else float("inf")
    except LabError:
        return float("inf")


def _gguf_file(path: Path) -> Path | None:
    """`path` itself, or the one GGUF file in a folder without safetensors."""
    if path.is_file():
        return path.resolve() if path.suffix.lower() == SUFFIX else None
    if not path.is_dir() or any(path.glob("*.safetensors")):
        return None
    found = sorted(file for file in path.iterdir() if file.suffix.lower() == SUFFIX and file.is_file())
    if len(found) > 1:
        raise LabError(f"{path} holds {len(found)} GGUF files ({found[0].name}, ...); give one of them by its path")
    return found[0].resolve() if found else None


def download(repo_id: str, patterns: Sequence[str] = _DOWNLOADED, *, offline: bool = False) -> Path:
    """The folder of a Hub model with the files that match `patterns`; `offline`: those that are here already.

    Raises `LabError` when it is not here and cannot be fetched.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        return Path(snapshot_download(repo_id, allow_patterns=list(patterns), local_files_only=offline))
    except LocalEntryNotFoundError:
        reason = "it is not in the local cache and the Hub cannot be reached; download it first or give a folder"
    except HfHubHTTPError as error:
        code = getattr(error.response, "status_code", "")
        reason = f"the Hub answered {code}; check the name, and log in if the model is gated"
    except (HTTPError, OSError) as error:
        reason = f"{type(error).__name__}; check the network, or give a local folder"
    raise LabError(f"{repo_id} is neither a folder here nor could it be fetched: {reason}")
