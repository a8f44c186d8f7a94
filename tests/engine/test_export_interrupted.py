"""An export that does not come to its end: nothing is left, or after a kill it goes on at the last whole shard."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from darwin_lab.engine import export as export_room
from darwin_lab.engine.child import Child
from darwin_lab.engine.export import export_child
from darwin_lab.engine.partial import STATE_FILE
from darwin_lab.errors import Cancelled, LabError
from darwin_lab.progress import Tick
from tests.engine.test_child import Trio, child_of

SHARD = 12_000


def export(child: Child, out: Path, tick: Tick = lambda fraction, words: None, dtype: str | None = None) -> Path:
    return export_child(child, out, shard_size=SHARD, dtype=dtype, tick=tick)


def killed(work: Callable[[], object]) -> None:
    """Does `work` in a process of its own, which must not live to end it."""
    process = os.fork()
    if process == 0:
        try:
            work()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


def kill_at(moment: int) -> Tick:
    """A tick that kills its own process the `moment`-th time it is called."""
    left = [moment]

    def tick(fraction: float, words: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return tick


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors*")}


def left_of(folder: Path) -> list[str]:
    """The whole shards a killed export left in `folder`, marked with a time of their own."""
    found = sorted(folder.glob(".child.partial-*/*.safetensors"))
    for path in found:
        os.utime(path, (12345, 12345))
    return [path.name for path in found]


def taken_over(out: Path) -> list[str]:
    return sorted(path.name for path in out.glob("*.safetensors") if path.stat().st_mtime == 12345)


@pytest.mark.parametrize("moment", [1, 4, 9, 17, 30, 38])
def test_after_a_kill_the_same_export_goes_on_and_gives_the_same_bytes(
    tiny_llama_pair: Trio, tmp_path: Path, moment: int
) -> None:
    child = child_of(tiny_llama_pair, 0.4, "dare_ties", 0.6)
    whole = files(export(child, tmp_path / "whole"))
    place = tmp_path / "place"
    killed(lambda: export(child, place / "child", kill_at(moment)))
    assert not (place / "child").exists()
    left = left_of(place)
    out = export(child, place / "child")
    assert files(out) == whole
    assert taken_over(out) == left
    assert [path.name for path in place.iterdir()] == ["child"]
    assert not (out / STATE_FILE).exists()


def test_what_was_written_before_a_kill_counts_as_done(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    child = child_of(tiny_llama_pair)
    killed(lambda: export(child, tmp_path / "child", kill_at(30)))
    kept = sum(path.stat().st_size for path in tmp_path.glob(".child.partial-*/*.safetensors"))
    said: list[tuple[float, str]] = []
    export(child, tmp_path / "child", lambda *told: said.append(told))
    start = next(fraction for fraction, words in said if words.startswith("writing "))
    assert start > 0.8 * kept / child.father.total_bytes > 0.3


@pytest.mark.parametrize("change", ["recipe", "dtype", "parent", "shards"])
def test_another_export_takes_over_nothing(tiny_llama_pair: Trio, tmp_path: Path, change: str) -> None:
    trio = tuple(Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in tiny_llama_pair)
    place = tmp_path / "place"
    killed(lambda: export(child_of(trio, 0.4), place / "child", kill_at(30)))
    assert left_of(place)
    if change == "parent":
        tensors = bytearray((trio[1] / "model.safetensors").read_bytes())
        tensors[-2:] = b"\x00\x00"
        (trio[1] / "model.safetensors").write_bytes(tensors)
    child = child_of(trio, 0.5 if change == "recipe" else 0.4)
    dtype = "float16" if change == "dtype" else None
    fresh = files(export_child(child, tmp_path / "fresh", dtype=dtype, shard_size=SHARD * (1 + (change == "shards"))))
    out = export_child(child, place / "child", dtype=dtype, shard_size=SHARD * (1 + (change == "shards")))
    assert files(out) == fresh
    assert taken_over(out) == []


def test_a_shard_damaged_since_the_kill_is_written_again(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    child = child_of(tiny_llama_pair)
    whole = files(export(child, tmp_path / "whole"))
    killed(lambda: export(child, tmp_path / "child", kill_at(30)))
    shard = next(tmp_path.glob(".child.partial-*/*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    assert files(export(child, tmp_path / "child")) == whole


def test_two_exports_of_one_child_to_one_place_do_not_mix(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    child = child_of(tiny_llama_pair)
    refused: list[str] = []

    def meanwhile(fraction: float, words: str) -> None:
        if " written, " in words and not refused:
            with pytest.raises(LabError, match="another export of this child") as caught:
                export(child, tmp_path / "child")
            refused.append(str(caught.value))

    out = export(child, tmp_path / "child", meanwhile)
    assert refused
    assert files(out) == files(export(child, tmp_path / "again"))


def test_what_another_child_left_at_the_target_goes_when_one_is_done(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    near = [".child.partial-0123456789ab.zip", ".child.partial-mine", ".child-2.partial-0123456789ab"]
    for name in near:
        (tmp_path / name).mkdir()
    killed(lambda: export(child_of(tiny_llama_pair, 0.4), tmp_path / "child", kill_at(30)))
    assert left_of(tmp_path)
    export(child_of(tiny_llama_pair, 0.5), tmp_path / "child")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*near, "child"])


def test_a_living_export_of_another_child_keeps_its_folder(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    done: list[Path] = []

    def meanwhile(fraction: float, words: str) -> None:
        if " written, " in words and not done:
            done.append(export_child(child_of(tiny_llama_pair, 0.5), tmp_path / "child"))

    out = export_child(
        child_of(tiny_llama_pair, 0.4), tmp_path / "child", shard_size=SHARD, overwrite=True, tick=meanwhile
    )
    assert done
    assert files(out) == files(export(child_of(tiny_llama_pair, 0.4), tmp_path / "again"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "child"]


def test_what_another_child_left_is_given_up_where_the_space_is_needed(
    tiny_llama_pair: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(lambda: export(child_of(tiny_llama_pair, 0.4), tmp_path / "child", kill_at(30)))

    def usage(path: Path) -> object:
        return shutil._ntuple_diskusage(1 << 30, 0, 0 if left_of(tmp_path) else 1 << 29)

    monkeypatch.setattr(export_room.shutil, "disk_usage", usage)
    export(child_of(tiny_llama_pair, 0.5), tmp_path / "child")
    assert [path.name for path in tmp_path.iterdir()] == ["child"]


def test_what_a_killed_export_had_begun_counts_as_room_for_the_same_export(
    tiny_llama_pair: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = files(export(child_of(tiny_llama_pair, 0.4), tmp_path / "whole"))
    killed(lambda: export(child_of(tiny_llama_pair, 0.4), tmp_path / "child", kill_at(30)))
    (begun,) = tmp_path.glob(".child.partial-*")
    (begun / "model-00099.safetensors.part").write_bytes(bytes(1 << 21))
    needed = export_room._SPARE_BYTES + sum(
        len(data) for name, data in whole.items() if not (begun / name).is_file() and name.endswith("safetensors")
    )
    room = {"free": needed - (1 << 20)}
    monkeypatch.setattr(
        export_room.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1 << 30, 0, room["free"])
    )
    assert files(export(child_of(tiny_llama_pair, 0.4), tmp_path / "child")) == whole


def test_a_folder_that_appears_at_the_target_meanwhile_is_kept(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    def meanwhile(fraction: float, words: str) -> None:
        (tmp_path / "child").mkdir(exist_ok=True)
        (tmp_path / "child" / "mine.txt").write_text("precious")

    with pytest.raises(LabError, match="exists and is not empty"):
        export(child_of(tiny_llama_pair), tmp_path / "child", meanwhile)
    assert [path.name for path in tmp_path.rglob("*")] == ["child", "mine.txt"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.98])
@pytest.mark.parametrize("reason", [Cancelled, KeyboardInterrupt])
def test_a_cancelled_export_leaves_nothing(
    tiny_llama_pair: Trio, tmp_path: Path, share: float, reason: type[BaseException]
) -> None:
    def stop(fraction: float, words: str) -> None:
        if fraction >= share:
            raise reason

    with pytest.raises(reason):
        export(child_of(tiny_llama_pair), tmp_path / "out" / "child", stop)
    assert list(tmp_path.rglob("*")) in ([], [tmp_path / "out"])


def test_too_little_space_is_said_before_the_first_byte(
    tiny_llama_pair: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil._ntuple_diskusage(1 << 30, 1 << 30, 2000)
    monkeypatch.setattr(export_room.shutil, "disk_usage", lambda path: full)
    with pytest.raises(LabError, match=r"no space left for .*: 1\.\d MiB needed, 2\.0 KiB free; free some first"):
        export(child_of(tiny_llama_pair), tmp_path / "child")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
@pytest.mark.parametrize("devices", [("cpu",), ("cpu", "cpu")])
def test_a_disk_that_fills_up_while_writing_leaves_nothing_and_spares_the_parents(
    tiny_llama_pair: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: tuple[str, ...]
) -> None:
    child = child_of(tiny_llama_pair)
    before = [(folder / "model.safetensors").read_bytes() for folder in tiny_llama_pair]
    opened = Path.open

    def full_from_the_third(path: Path, *args: object, **kwargs: object):
        return opened(Path("/dev/full") if "00003-of" in path.name else path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full_from_the_third)
    with pytest.raises(LabError, match=r"no space left for .* \([\d.]+ KiB needed\); free some and run it again"):
        export_child(child, tmp_path / "child", shard_size=SHARD, devices=devices)
    assert list(tmp_path.iterdir()) == []
    assert [(folder / "model.safetensors").read_bytes() for folder in tiny_llama_pair] == before
