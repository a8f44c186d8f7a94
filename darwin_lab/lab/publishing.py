"""Pushing a finished export to the Hugging Face Hub: a plan that needs no network, and the upload itself.

Takes an exported folder, a repository's name and the user's own token; gives the address of the repository. Weights
go up file by file, so progress is in bytes and a cancel takes effect between files; they appear in one commit at the
end or not at all. The token is held by the queued job alone: it is never stored, logged or shown. On a Space it must
be the visitor's (OAuth), the Space's own HF_TOKEN is never read, and nobody else is shown where a visitor pushed to.
"""

import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darwin_lab.checkpoint.checkpoint import read_json
from darwin_lab.errors import Cancelled, LabError
from darwin_lab.lab import exporting
from darwin_lab.lab.pairs import Pair
from darwin_lab.lab.views import ExportView
from darwin_lab.lab.workbench import Workbench
from darwin_lab.merging.recipe_file import RECIPE_FILE
from darwin_lab.progress import Tick, silent
from darwin_lab.sizes import bytes_words

_REPO = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
_BAD_NAME = re.compile(r"--|\.\.|^[.-]|[.-]$|\.git$|\.ipynb$")
_REMEDIES = {
    401: "the Hub does not accept this login; log in again",
    403: "this login may not write there; use a name under your own account and a token that can write",
    404: "the Hub knows no such account; use a name under your own account",
    413: "a file is too large for the Hub; export with smaller shards",
    429: "the Hub asks to slow down; try again in a few minutes",
}


@dataclass(frozen=True)
class PushPlan:
    """What would be uploaded: (name, bytes) of every file, in the order of the upload."""

    repo: str
    private: bool
    folder: str
    files: tuple[tuple[str, int], ...]

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(size for _, size in self.files)


@dataclass(frozen=True)
class PushView:
    """A push that is done."""

    repo: str
    url: str
    private: bool
    bytes: int
    created: float


def check_repo(repo: str) -> str:
    """The name of a model repository, `account/name`. LabError with the rule it breaks."""
    repo = repo.strip()
    if not _REPO.fullmatch(repo):
        raise LabError(f"{repo[:80]!r} is no repository name; write account/name in letters, digits, '-', '_' and '.'")
    bad = next((part for part in repo.split("/") if _BAD_NAME.search(part)), None)
    if bad:
        raise LabError(f"{bad!r} cannot be part of a repository name: no '--', no '..', no '-' or '.' at either end")
    return repo


def plan_push(folder: str | Path, repo: str, *, private: bool = True) -> PushPlan:
    """What a push would upload, without asking anybody. LabError for a bad name or a folder that is no export."""
    home = Path(folder)
    if not (home / RECIPE_FILE).is_file():
        raise LabError(f"{home.name} is not an export of the lab; export the child first")
    found = [path for path in home.rglob("*") if path.is_file() and not path.is_symlink()]
    names = sorted((str(path.relative_to(home)), path.stat().st_size) for path in found)
    return PushPlan(check_repo(repo), private, str(home), tuple(sorted(names, key=lambda file: (-file[1], file[0]))))


def users_token(visitor: str | None) -> str:
    """The token to push with: the visitor's on a Space, the login of this machine elsewhere. LabError without one."""
    if visitor:
        return visitor
    if os.environ.get("SPACE_ID"):
        raise LabError("sign in with Hugging Face first: on a Space the lab pushes with your own login only")
    from huggingface_hub import get_token

    token: str | None = get_token()
    if not token:
        raise LabError("no Hugging Face login on this machine; run `hf auth login` with a token that can write")
    return token


def push(plan: PushPlan, token: str, *, api: Any = None, tick: Tick = silent) -> str:
    """Upload every file of the plan in one commit; the repository's address.

    A repository that is there already gets the files too, unless it is public and the plan says private. LabError,
    with the remedy, for whatever the Hub refuses; a cancel between files leaves the repository without a new commit.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = api or HfApi()
    try:
        address = f"{api.create_repo(plan.repo, token=token, private=plan.private, exist_ok=True)}"
        if plan.private and not api.repo_info(plan.repo, token=token).private:
            raise LabError("that repository is there already and public; choose another name, or allow a public one")
        operations, done, total = [], 0, bytes_words(plan.total)
        for name, size in plan.files:
            tick(0.98 * done / max(plan.total, 1), f"uploading {name}: {bytes_words(done)} of {total}")
            file = Path(plan.folder) / name
            content = _without_places(file) if name == RECIPE_FILE else str(file)
            operation = CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
            api.preupload_lfs_files(plan.repo, additions=[operation], token=token)
            operations.append(operation)
            done += size
        tick(0.98, "making the commit")
        api.create_commit(plan.repo, operations, commit_message="Upload a child bred by Darwin Lab", token=token)
    except (LabError, Cancelled):
        raise
    except Exception as error:  # what the client and the network throw has no base class in common
        raise LabError(f"the push failed: {_reason(error, token)}") from None
    tick(1.0, "pushed")
    return address


def export_of(bench: Workbench, pair: Pair, recipe_hash: str) -> ExportView:
    """The newest export of a child. LabError when there is none."""
    kept = exporting.newest(bench, pair, recipe_hash)
    if kept is None:
        raise LabError("there is no export of this child yet; export it first")
    return kept


def request(bench: Workbench, pair: Pair, recipe_hash: str, repo: str, private: bool, token: str) -> str:
    """Queue the push of a child's newest export; see `Lab.request_push`."""
    plan = plan_push(export_of(bench, pair, recipe_hash).folder, repo, private=private)

    def work(tick: Tick) -> dict[str, Any]:
        url = push(plan, token, tick=tick)
        done = {"repo": plan.repo, "url": url, "private": private, "bytes": plan.total, "created": time.time()}
        path = _record(bench, pair, recipe_hash)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(done), encoding="utf-8")
        return done

    key = f"push:{pair.key}:{recipe_hash}:{plan.repo}"
    return bench.jobs.submit("push", f"Push of child {recipe_hash}", work, key=key)


def pushed(bench: Workbench, pair: Pair, recipe_hash: str) -> PushView | None:
    """The newest push of a child from this machine; None on a Space, whose visitors are strangers to one another."""
    path = _record(bench, pair, recipe_hash)
    if os.environ.get("SPACE_ID") or not path.is_file():
        return None
    return PushView(**json.loads(path.read_text(encoding="utf-8")))


def _record(bench: Workbench, pair: Pair, recipe_hash: str) -> Path:
    return bench.store.folder("pushes", pair.key, recipe_hash).with_suffix(".json")


def _without_places(recipe: Path) -> bytes:
    """`recipe.json` for strangers: the names and fingerprints of the parents, not where they lay on this machine."""
    data = read_json(recipe)
    local = [parent for parent in data.get("parents", {}).values() if Path(parent["ref"]).is_absolute()]
    for parent in local:
        parent["ref"] = parent["name"]
    return (json.dumps(data, indent=1) + "\n").encode() if local else recipe.read_bytes()


def _reason(error: Exception, token: str) -> str:
    """One line: the remedy where we know it, else the first line of what the library says, without the token."""
    answer = getattr(error, "response", None)
    status = getattr(answer, "status_code", None)
    if status in _REMEDIES:
        return _REMEDIES[status]
    if type(error).__name__ == "OfflineModeIsEnabled":
        return "offline mode is on; unset HF_HUB_OFFLINE"
    words = (str(error).strip().splitlines() or [type(error).__name__])[0].replace(token, "***")[:160]
    return f"{words}; check the connection and try again"
