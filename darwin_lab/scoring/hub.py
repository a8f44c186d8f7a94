"""The files of a benchmark from the Hub: fetched once, pinned to a commit, found again without network.

Takes a catalogue entry and a folder for the pins, gives its items. huggingface_hub downloads and caches; what is kept
here is which commit a benchmark is pinned to and which of its files are in. Reads nothing but those files.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from darwin_lab.errors import LabError
from darwin_lab.progress import Tick, silent
from darwin_lab.scoring.catalogue import Entry, Loaded, to_splits
from darwin_lab.scoring.tables import read_table


@dataclass(frozen=True)
class Pin:
    """The commit a benchmark was fetched at, and its files here: part -> (name in the data set, path)."""

    revision: str
    files: dict[str, list[tuple[str, str]]]


def pinned(chosen: Entry, folder: Path) -> Pin | None:
    """What was fetched before; None when nothing was, or one of its files is gone."""
    try:
        told = json.loads((folder / f"{chosen.name}.json").read_text(encoding="utf-8"))
        pin = Pin(told["revision"], {part: [tuple(f) for f in files] for part, files in told["files"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    whole = set(pin.files) == set(chosen.parts) and chosen.revision in (None, pin.revision)
    return pin if whole and all(Path(path).is_file() for files in pin.files.values() for _, path in files) else None


def load(chosen: Entry, folder: Path, tick: Tick = silent) -> tuple[Loaded, str]:
    """(items by split, commit) of a benchmark, from this machine where it was fetched before, else from the Hub.

    LabError (one line that says what to do) offline, without access to a gated data set, without pyarrow where its
    files are parquet, and when the data set has other files or columns than it had.
    """
    pin = pinned(chosen, folder) or _fetch(chosen, folder, tick)
    parts = {}
    for part, files in pin.files.items():
        rows: list[tuple[str, dict[str, Any]]] = []
        for name, path in files:
            table = read_table(path)
            rows += [(name, {"row": place, **row}) for place, row in enumerate(table.rows)]
        parts[part] = rows
    return to_splits(chosen, parts), pin.revision


def _fetch(chosen: Entry, folder: Path, tick: Tick) -> Pin:
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    tick(0.0, f"asking the Hub for {chosen.repo}")
    try:
        found_there = HfApi().dataset_info(chosen.repo, revision=chosen.revision)
        revision = chosen.revision or str(found_there.sha)
        names = [sibling.rfilename for sibling in found_there.siblings or ()]
        wanted = {part: _matching(chosen, names, patterns) for part, patterns in chosen.parts.items()}
        count = sum(map(len, wanted.values()))
        files: dict[str, list[tuple[str, str]]] = {}
        for part, found in wanted.items():
            files[part] = []
            for name in found:
                tick(sum(map(len, files.values())) / count, f"downloading {name} of {chosen.repo}")
                path = hf_hub_download(chosen.repo, name, repo_type="dataset", revision=revision)
                files[part].append((name, str(path)))
    except LabError:
        raise
    except Exception as error:
        raise _refused(chosen, error) from error
    pin = Pin(revision, files)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{chosen.name}.partial"
    partial.write_text(json.dumps({"revision": revision, "files": files}), encoding="utf-8")
    partial.replace(folder / f"{chosen.name}.json")
    return pin


def _matching(chosen: Entry, names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    found = sorted(name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns))
    if not found:
        raise LabError(f"{chosen.repo} has no file {patterns[0]} at this revision; the data set has changed, report it")
    return found


def _refused(chosen: Entry, error: Exception) -> LabError:
    """One line for whatever keeps the files away. Raises what is no fault of the network or the Hub."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    where = f"{chosen.name} ({chosen.repo})"
    code = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, GatedRepoError) or (chosen.gated and code in (401, 403)):
        return LabError(
            f"{where} is gated: accept its conditions at {chosen.url} with your account, log in here with "
            "`hf auth login`, then ask again"
        )
    if isinstance(error, RepositoryNotFoundError):
        return LabError(f"{where} is not on the Hub under that name any more; use a local file of its items instead")
    if isinstance(error, HfHubHTTPError) and code is not None:
        return LabError(f"{where}: the Hub answered {code}; try again later, or use a local file of its items")
    if isinstance(error, OfflineModeIsEnabled | LocalEntryNotFoundError | HfHubHTTPError | HTTPError | OSError):
        access = (
            f"; it is gated: accept its conditions at {chosen.url} and log in with `hf auth login` before"
            if chosen.gated
            else ""
        )
        return LabError(
            f"{where} is not on this machine and the Hub cannot be reached; connect once and ask again, or use a local "
            f"file of its items{access}"
        )
    raise error
