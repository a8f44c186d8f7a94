"""From what a person types to a checkpoint: a folder, a Hub id, or `family:father`.

Knows names and folders; the download itself is huggingface_hub's.
"""

import re
from pathlib import Path

from darwin_lab.checkpoint.checkpoint import SIDE_FILES, Checkpoint
from darwin_lab.errors import LabError

FAMILY_FOLDER = Path(__file__).resolve().parents[2] / "assets" / "family"
FAMILY_MEMBERS = ("father", "mother", "ancestor")
MAX_REF = 1024
_HUB_ID = re.compile(r"^[\w.-]{1,96}/[\w.-]{1,96}$")
_DOWNLOADED = (*SIDE_FILES, "*.safetensors", "model.safetensors.index.json")


def open_checkpoint(ref: str | Path) -> Checkpoint:
    """Opens `ref`: a local folder, a Hub id `org/name`, or `family:father|mother|ancestor`.

    Raises `LabError` when there is no such model or it is not a whole safetensors checkpoint.
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
    if folder.is_dir():
        return Checkpoint(folder, name=folder.resolve().name)
    if folder.is_file():
        raise LabError(f"{folder} is a file; give the folder that holds config.json and the safetensors files")
    if _HUB_ID.match(text) and not text.startswith((".", "/")):
        return Checkpoint(_download(text), name=text)
    raise LabError(f"no folder {folder}; give a folder, a Hub id such as org/name, or family:father")


def _download(repo_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo_id, allow_patterns=list(_DOWNLOADED)))
    except LocalEntryNotFoundError:
        reason = "it is not in the local cache and the Hub cannot be reached; download it first or give a folder"
    except HfHubHTTPError as error:
        code = getattr(error.response, "status_code", "")
        reason = f"the Hub answered {code}; check the name, and log in if the model is gated"
    except OSError as error:
        reason = f"{type(error).__name__}; check the network, or give a local folder"
    raise LabError(f"{repo_id} is neither a folder here nor could it be fetched: {reason}")
