"""Weights are read once: what was read is remembered by path, size and time, and large parents are read by a job."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from darwin_lab.checkpoint import checkpoint, opening
from darwin_lab.errors import LabError
from darwin_lab.lab import workbench
from darwin_lab.lab.lab import Lab
from darwin_lab.ui.page import on_arrival

Trio = tuple[Path, Path, Path]


@pytest.fixture
def trio(tiny_llama_pair: Trio, tmp_path: Path) -> Trio:
    """Parents of this test's own."""
    father, mother, ancestor = (shutil.copytree(member, tmp_path / member.name) for member in tiny_llama_pair)
    return father, mother, ancestor


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this were a new process."""
    monkeypatch.setattr(checkpoint, "_digests", {})


def test_a_later_process_opens_a_pair_without_reading_its_weights(
    new_lab: Any, trio: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(monkeypatch)
    key = new_lab().open_pair(*trio).key
    forget(monkeypatch)
    lab = new_lab()
    remembered = set(checkpoint._digests)
    assert {Path(path).parent.name for path, *_ in remembered} == {"father", "mother", "ancestor"}
    assert lab.request_pair(key) is None
    assert lab.pair(key).key == key
    assert set(checkpoint._digests) == remembered, "every file that is read adds a digest"


def test_a_file_that_changed_is_read_again_and_makes_another_pair(
    new_lab: Any, trio: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_lab().open_pair(*trio).key
    weights = trio[1] / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    os.utime(weights, ns=(1, 1))
    forget(monkeypatch)
    with pytest.raises(LabError, match="changed since; open them again"):
        new_lab().pair(key)


def test_large_parents_that_nobody_read_are_left_to_a_job(
    new_lab: Any, trio: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = new_lab()
    key = lab.open_pair(*trio).key
    monkeypatch.setattr(workbench, "AT_ONCE_BYTES", 0)
    forget(monkeypatch)
    later = new_lab()
    assert later.request_pair(key) is None, "what was read before need not be read again"
    later.store._write("DELETE FROM digests", [])
    forget(monkeypatch)
    with pytest.raises(LabError, match="have to be read first; open them in Parents"):
        later.pair(key)
    assert checkpoint._digests == {}
    job = later.request_pair(key)
    assert later.request_pair(key) in (job, None)
    assert later.wait(job) == {"pair": key}
    assert later.request_pair(key) is None
    assert later.pair(key).key == key


def test_a_link_to_large_parents_reads_nothing_itself(
    new_lab: Any, trio: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = new_lab()
    key = lab.open_pair(*trio).key
    forget(monkeypatch)
    monkeypatch.setattr(workbench, "AT_ONCE_BYTES", 0)
    later: Lab = new_lab()
    later.store._write("DELETE FROM digests", [])
    forget(monkeypatch)
    queued: list[Any] = []
    monkeypatch.setattr(later.jobs, "submit", lambda *args, **named: queued.append(args) or "0" * 12)
    arrived = on_arrival(later, None, {"pair": key})
    assert arrived[0] == ""
    assert [args[0] for args in queued] == ["open"]
    assert checkpoint._digests == {}


def test_more_than_a_few_hundred_shards_are_still_read_once(tmp_path: Path) -> None:
    paths = []
    for number in range(300):
        paths.append(tmp_path / f"{number}.safetensors")
        paths[-1].write_bytes(str(number).encode())
    for path in paths:
        stat = path.stat()
        checkpoint.file_digest(str(path), stat.st_size, stat.st_mtime_ns)
    assert all(checkpoint.digest_is_known(path) for path in paths)


def test_what_is_to_be_read_of_a_reference_is_known_before_it_is_read(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(monkeypatch)
    father = opening.open_checkpoint(trio[0])
    assert opening.unread_bytes(trio[0]) >= father.total_bytes > 0
    assert father.fingerprint
    assert opening.unread_bytes(trio[0]) == 0
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF" + bytes(96))
    assert opening.unread_bytes(gguf) == 100
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert opening.unread_bytes("nobody/nothing-of-this-name") == float("inf")
    assert opening.unread_bytes(tmp_path / "nowhere" / "at" / "all") == float("inf")
