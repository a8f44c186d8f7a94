"""Files stay open between reads, serve any thread, and close with their owner."""

import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from darwin_lab.checkpoint.descriptors import MOST_OPEN, Descriptors


def open_files(folder: Path) -> int:
    links = (path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink())
    return sum(link.is_relative_to(folder) for link in links)


def numbered(folder: Path, count: int) -> list[str]:
    names = [f"{number}.bin" for number in range(count)]
    for number, name in enumerate(names):
        (folder / name).write_bytes(bytes([number]) * 1000)
    return names


def test_any_thread_reads_any_place(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(range(256)) * 1000)
    files = Descriptors(tmp_path)

    def read(start: int) -> bool:
        memory = np.empty(500, np.uint8)
        return files.fill("a.bin", start, memory.data) and bool((memory == (np.arange(500) + start) % 256).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(0, 255_000, 97)))


def test_a_file_that_ends_too_soon_is_told(tmp_path: Path) -> None:
    (name,) = numbered(tmp_path, 1)
    assert Descriptors(tmp_path).fill(name, 990, memoryview(bytearray(10)))
    assert not Descriptors(tmp_path).fill(name, 991, memoryview(bytearray(10)))


def test_few_files_stay_open_and_none_outlives_its_owner(tmp_path: Path) -> None:
    files = Descriptors(tmp_path)
    for number, name in enumerate(numbered(tmp_path, MOST_OPEN + 9)):
        memory = bytearray(3)
        assert files.fill(name, 5, memoryview(memory))
        assert memory == bytes([number]) * 3
    assert open_files(tmp_path) == MOST_OPEN
    del files
    gc.collect()
    assert open_files(tmp_path) == 0
