"""Pushing an export to the Hub, against a Hub that only writes down what it is asked."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from darwin_lab.errors import Cancelled, LabError
from darwin_lab.genome.genome import neutral_genome
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.lab.publishing import check_repo, plan_push, push, users_token

TOKEN = "hf_secretsecretsecret"


class Hub:
    """A Hub that records every call; `there` are its repositories: name -> private."""

    def __init__(self, there: dict[str, bool] | None = None, fail: Exception | None = None) -> None:
        self.there, self.fail = dict(there or {}), fail
        self.calls: list[tuple[str, Any]] = []

    def create_repo(self, repo: str, *, token: str, private: bool, exist_ok: bool) -> str:
        assert (token, exist_ok) == (TOKEN, True)
        if self.fail is not None:
            raise self.fail
        self.there.setdefault(repo, private)
        self.calls.append(("create", repo))
        return f"https://huggingface.co/{repo}"

    def repo_info(self, repo: str, *, token: str) -> SimpleNamespace:
        return SimpleNamespace(private=self.there[repo])

    def preupload_lfs_files(self, repo: str, *, additions: list[Any], token: str) -> None:
        self.calls += [("upload", (one.path_in_repo, content_of(one.path_or_fileobj))) for one in additions]

    def create_commit(self, repo: str, operations: list[Any], *, commit_message: str, token: str) -> None:
        self.calls.append(("commit", [one.path_in_repo for one in operations]))


def content_of(given: bytes | str) -> bytes:
    return given if isinstance(given, bytes) else Path(given).read_bytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Something that looks like an export."""
    made = tmp_path / "child"
    (made / "charts").mkdir(parents=True)
    files = {"model.safetensors": b"w" * 5000, "recipe.json": b"{}", "README.md": b"# child", "charts/a.png": b"p" * 50}
    for name, content in files.items():
        (made / name).write_bytes(content)
    return made


def test_a_pushed_recipe_does_not_tell_where_the_parents_lay(folder: Path) -> None:
    people = {"father": {"name": "tuned", "ref": "/home/me/secret/tuned"}, "mother": {"name": "a/b", "ref": "a/b"}}
    (folder / "recipe.json").write_text(json.dumps({"version": 2, "parents": people}))
    hub = Hub()
    push(plan_push(folder, "me/child"), TOKEN, api=hub)
    sent = json.loads(dict(content for kind, content in hub.calls if kind == "upload")["recipe.json"])
    assert [parent["ref"] for parent in sent["parents"].values()] == ["tuned", "a/b"]


def test_a_dry_run_lists_every_file_with_its_size_and_asks_nobody(folder: Path) -> None:
    plan = plan_push(folder, " me/my-child.v1 ")
    assert (plan.repo, plan.private) == ("me/my-child.v1", True)
    assert dict(plan.files) == {"model.safetensors": 5000, "charts/a.png": 50, "README.md": 7, "recipe.json": 2}
    assert plan.total == 5059


def test_a_push_is_one_commit_of_exactly_the_planned_files(folder: Path) -> None:
    hub, plan = Hub(), plan_push(folder, "me/child")
    assert push(plan, TOKEN, api=hub) == "https://huggingface.co/me/child"
    assert hub.there == {"me/child": True}
    uploaded = dict(content for kind, content in hub.calls if kind == "upload")
    assert uploaded == {name: (folder / name).read_bytes() for name, _ in plan.files}
    assert [kind for kind, _ in hub.calls].count("commit") == 1
    assert hub.calls[-1] == ("commit", [name for name, _ in plan.files])


def test_a_public_repository_is_not_filled_by_a_private_push(folder: Path) -> None:
    hub = Hub({"me/child": False})
    with pytest.raises(LabError, match="public"):
        push(plan_push(folder, "me/child"), TOKEN, api=hub)
    assert [kind for kind, _ in hub.calls] == ["create"]
    push(plan_push(folder, "me/child", private=False), TOKEN, api=hub)


def test_a_cancel_between_files_leaves_no_commit(folder: Path) -> None:
    hub = Hub()

    def tick(fraction: float, words: str) -> None:
        if any(kind == "upload" for kind, _ in hub.calls):
            raise Cancelled(words)

    with pytest.raises(Cancelled):
        push(plan_push(folder, "me/child"), TOKEN, api=hub, tick=tick)
    assert [kind for kind, _ in hub.calls] == ["create", "upload"]


def test_progress_counts_bytes_and_ends_at_one(folder: Path) -> None:
    seen: list[tuple[float, str]] = []
    push(plan_push(folder, "me/child"), TOKEN, api=Hub(), tick=lambda fraction, words: seen.append((fraction, words)))
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert fractions[1] > 0.9


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(401, "log in again"), (403, "your own account"), (404, "no such account"), (500, "try again")],
)
def test_what_the_hub_refuses_ends_in_one_line_with_a_remedy_and_no_token(
    folder: Path, status: int, remedy: str
) -> None:
    error = OSError(f"{status} for {TOKEN}\nmore lines")
    error.response = SimpleNamespace(status_code=status)  # type: ignore[attr-defined]
    with pytest.raises(LabError, match=remedy) as raised:
        push(plan_push(folder, "me/child"), TOKEN, api=Hub(fail=error))
    assert TOKEN not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "name",
    ["child", "me/", "me/a/b", "me/a b", "../x/y", "me/..", "me/-child", "me/a--b", "me/child.git", "m" * 97 + "/c"],
)
def test_a_bad_repository_name_is_refused_with_the_rule(name: str) -> None:
    with pytest.raises(LabError, match="repository name"):
        check_repo(name)


def test_a_folder_that_is_no_export_is_not_pushed(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("private")
    with pytest.raises(LabError, match="export the child first"):
        plan_push(tmp_path, "me/child")


def test_links_out_of_the_folder_are_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    assert "link" not in dict(plan_push(folder, "me/child").files)


def test_on_a_laptop_the_machines_login_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPACE_ID", raising=False)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: TOKEN)
    assert users_token(None) == TOKEN
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(LabError, match="hf auth login"):
        users_token(None)


def test_on_a_space_only_the_visitors_own_sign_in_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "somebody/lab")
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_space")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: pytest.fail("the Space's token was asked for"))
    with pytest.raises(LabError, match="sign in"):
        users_token(None)
    assert users_token(TOKEN) == TOKEN


def test_a_child_is_exported_pushed_and_remembered_without_its_token(
    lab: Lab, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    genome = neutral_genome("v6", pair.anatomy.layers)
    child = lab.recipe(pair, genome).hash
    with pytest.raises(LabError, match="export it first"):
        lab.push_plan(pair, child, "me/child")
    lab.wait(lab.request_export(pair, genome))
    assert "model.safetensors" in dict(lab.push_plan(pair, child, "me/child").files)
    job = lab.request_push(pair, child, "me/child", visitor=TOKEN)
    lab.wait(job)
    done = lab.pushed(pair, child)
    assert done is not None
    assert (done.repo, done.private, done.url) == ("me/child", True, "https://huggingface.co/me/child")
    assert "me/child" not in lab.job(job).title
    stored = [path.read_bytes() for path in lab.store.home.rglob("*") if path.is_file()]
    assert not any(TOKEN.encode() in content for content in stored)
    monkeypatch.setenv("SPACE_ID", "somebody/lab")
    assert lab.pushed(pair, child) is None


def test_what_was_inherited_is_measured_kept_and_measured_again_in_the_export(lab: Lab, pair: Pair) -> None:
    genome = neutral_genome("v6", pair.anatomy.layers)
    child = lab.recipe(pair, genome).hash
    assert lab.inheritance(pair, child) is None
    lab.wait(lab.request_inheritance(pair, genome))
    virtual = lab.inheritance(pair, child)
    assert virtual is not None
    assert virtual.exported == ""
    lab.wait(lab.request_export(pair, genome))
    lab.wait(lab.request_inheritance(pair, genome))
    written = lab.inheritance(pair, child)
    assert written.exported == lab.export(pair, child).folder
    assert [row.verdict for row in written.rows] == [row.verdict for row in virtual.rows]
    card = (Path(written.exported) / "README.md").read_text()
    assert "embeddings and output head" in card


def test_languages_are_read_once_for_each_model(lab: Lab, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    from darwin_lab.mri import languages

    read: list[str] = []
    original = languages.read_languages
    monkeypatch.setattr(
        languages,
        "read_languages",
        lambda resident, source, *more: (read.append(source.fingerprint), original(resident, source, *more))[1],
    )
    genomes = [neutral_genome("v4", pair.anatomy.layers).with_genes(ratio=ratio) for ratio in (0.3, 0.7)]
    for genome in genomes:
        child = lab.recipe(pair, genome).hash
        assert lab.languages(pair, child) is None
        lab.wait(lab.request_languages(pair, genome))
        found = lab.languages(pair, child)
        assert found is not None
        assert len(found.rows) >= 10
    assert len(read) == len(set(read)) == 4
    assert json.dumps(found.to_json())
