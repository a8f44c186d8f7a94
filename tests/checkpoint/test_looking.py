"""A look at a model on the Hub fetches its small files and headers, and can never pass for the model itself."""

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError
from huggingface_hub.utils import SafetensorsFileMetadata
from huggingface_hub.utils import TensorInfo as HubTensorInfo

from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.checkpoint.header import read_header
from darwin_lab.checkpoint.looking import look_at
from darwin_lab.engine.plan import plan_pair
from darwin_lab.errors import LabError

Trio = tuple[Path, Path, Path]


@pytest.fixture
def hub(tiny_moe_pair: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A made-up Hub that has some/model, and counts what is asked of it."""
    source, asked = tiny_moe_pair[0], {"files": [], "headers": []}

    def snapshot(repo_id: str, allow_patterns: list[str], local_files_only: bool = False) -> str:
        if local_files_only or repo_id != "some/model":
            raise LocalEntryNotFoundError("not here")
        folder = tmp_path / "snapshot"
        folder.mkdir(exist_ok=True)
        for name in allow_patterns:
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
                asked["files"].append(name)
        return str(folder)

    def header(_: Any, repo_id: str, filename: str) -> SafetensorsFileMetadata:
        asked["headers"].append(filename)
        infos = read_header(source / filename)
        first = min(info.start for info in infos.values())
        tensors = {
            info.name: HubTensorInfo(info.dtype, list(info.shape), (info.start - first, info.end - first))
            for info in infos.values()
        }
        return SafetensorsFileMetadata({"format": "pt"}, tensors)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(huggingface_hub.HfApi, "parse_safetensors_file_metadata", header)
    return asked


def test_a_look_at_the_hub_sees_what_the_files_hold(hub: dict[str, Any], tiny_moe_pair: Trio) -> None:
    found, real = look_at("some/model"), Checkpoint(tiny_moe_pair[0])
    assert found.name == "some/model"
    described = [(info.name, info.dtype, info.shape, info.nbytes) for info in found.tensors.values()]
    assert described == [(info.name, info.dtype, info.shape, info.nbytes) for info in real.tensors.values()]
    assert found.config == real.config
    assert plan_pair(found, Checkpoint(tiny_moe_pair[1])).compatible
    assert "model.safetensors" not in hub["files"]
    assert hub["headers"] == ["model.safetensors"]


def test_what_was_only_looked_at_has_no_weights_to_read(hub: dict[str, Any]) -> None:
    found = look_at("some/model")
    with pytest.raises((LabError, OSError)):
        found.read(found.names[0])
    with pytest.raises((LabError, OSError)):
        _ = found.fingerprint


def test_a_model_that_is_nowhere_is_named(hub: dict[str, Any]) -> None:
    with pytest.raises(LabError, match="some/other"):
        look_at("some/other")


def test_a_network_that_breaks_off_is_one_line(hub: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise HTTPError("the server hung up")

    monkeypatch.setattr(huggingface_hub.HfApi, "parse_safetensors_file_metadata", broken)
    with pytest.raises(LabError, match="check the network"):
        look_at("some/model")


def test_a_folder_is_opened_as_ever(tiny_moe_pair: Trio) -> None:
    found = look_at(tiny_moe_pair[0])
    assert found.folder == tiny_moe_pair[0]
    assert found.read(found.names[0]).numel() > 0
