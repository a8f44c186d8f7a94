"""The run store: whole rows, other processes, and what a dead process left behind."""

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from darwin_lab.errors import LabError
from darwin_lab.lab.home import lab_home
from darwin_lab.lab.owners import Owner, is_alive
from darwin_lab.lab.store import Store

SETTINGS = {"layout": "v6", "seed": 3}


@pytest.fixture
def store(tmp_path: Path):
    opened = Store(tmp_path)
    yield opened
    opened.close()


def candidate(index: int, full: float | None = 0.5) -> dict:
    return {
        "index": index, "generation": index // 2, "genes": {"a": 0.25, "b": index / 10}, "genome_hash": "g" * 12,
        "recipe_hash": f"{index:012x}", "fitness": 0.4 + index / 100, "items": 20, "full_fitness": full,
        "tasks": {"MATH": {"n": 20, "acc": 0.5, "p_gold": 0.45}}, "mean_acc": 0.5, "seconds": 1.25,
    }  # fmt: skip


def test_a_run_comes_back_as_it_was_recorded(store: Store) -> None:
    run_id = store.create_run("p" * 12, SETTINGS, "father x mother")
    for index in (1, 0):
        store.add_candidate(run_id, candidate(index))
    store.add_generation(run_id, {"generation": 0, "best": 0.5, "sigma": 0.18})
    store.update_run(run_id, state="running", controls={"father": {"fitness": 0.3}})
    row = store.run_row(run_id)
    assert row["settings"] == SETTINGS and row["controls"]["father"]["fitness"] == 0.3
    assert [entry["index"] for entry in store.candidates(run_id)] == [0, 1]
    recorded = store.candidates(run_id)[1]
    assert {name: recorded[name] for name in candidate(1)} == candidate(1)
    assert recorded["full"] is True
    assert store.generations(run_id) == [{"generation": 0, "best": 0.5, "sigma": 0.18}]


def test_a_candidate_recorded_again_replaces_itself(store: Store) -> None:
    run_id = store.create_run("p" * 12, SETTINGS, "x")
    store.add_candidate(run_id, candidate(0, full=None))
    store.add_candidate(run_id, {**store.candidates(run_id)[0], "full_fitness": 0.61})
    assert [row["full_fitness"] for row in store.candidates(run_id)] == [0.61]


def test_runs_are_listed_newest_first_with_count_and_best(store: Store) -> None:
    first, second = (store.create_run("p" * 12, SETTINGS, name) for name in "ab")
    store.add_candidate(first, candidate(0, full=0.7))
    rows = store.run_rows()
    assert [row["id"] for row in rows] == [second, first]
    assert (rows[1]["evaluated"], rows[1]["best"]) == (1, 0.7)
    assert store.run_rows("q" * 12) == []


@pytest.mark.parametrize("hostile", ["../../etc/passwd", "", "x" * 12, "0" * 13, "0123456789ab' OR 1=1", None, 12])
def test_an_id_that_is_none_finds_nothing_and_says_so(store: Store, hostile: object) -> None:
    with pytest.raises(LabError, match="no run"):
        store.run_row(hostile)  # type: ignore[arg-type]
    with pytest.raises(LabError, match="no job"):
        store.job_row(hostile)  # type: ignore[arg-type]


@pytest.mark.parametrize("hostile", ["../x", "a/b", "", ".", "a b", "x" * 97])
def test_a_folder_of_arrays_never_leaves_the_home(store: Store, hostile: str) -> None:
    with pytest.raises(LabError):
        store.folder("scans", hostile)


def test_another_process_reads_while_this_one_writes(store: Store, tmp_path: Path) -> None:
    run_id = store.create_run("p" * 12, SETTINGS, "x")
    store.add_candidate(run_id, candidate(0))
    code = (
        "from pathlib import Path; from darwin_lab.lab.store import Store;"
        f"other = Store(Path({str(tmp_path)!r}));"
        f"assert len(other.candidates({run_id!r})) == 1;"
        f"other.add_candidate({run_id!r}, {candidate(1)!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [row["index"] for row in store.candidates(run_id)] == [0, 1]


def test_many_threads_may_write_at_once(store: Store) -> None:
    run_id = store.create_run("p" * 12, SETTINGS, "x")

    def write(start: int) -> None:
        for index in range(start, start + 20):
            store.add_candidate(run_id, candidate(index))
            store.candidates(run_id)

    threads = [threading.Thread(target=write, args=(20 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.candidates(run_id)) == 80


def test_what_a_dead_process_left_running_is_interrupted_and_what_is_alive_is_not(tmp_path: Path) -> None:
    code = (
        "import os; from pathlib import Path; from darwin_lab.lab.store import Store;"
        f"s = Store(Path({str(tmp_path)!r})); s.put_job('a'*12, 'scan', 'scan', None);"
        "s.update_job('a'*12, state='running');"
        "print(s.create_run('p'*12, {}, 'x'), flush=True); os._exit(9)"
    )
    dead = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    run_id = dead.stdout.strip()
    first = Store(tmp_path)
    try:
        assert first.job_row("a" * 12)["state"] == "interrupted"
        assert first.run_row(run_id)["state"] == "interrupted"
        first.put_job("b" * 12, "scan", "scan", None)
        second = Store(tmp_path)
        try:
            assert second.job_row("b" * 12)["state"] == "queued"
        finally:
            second.close()
    finally:
        first.close()
    third = Store(tmp_path)
    try:
        assert third.job_row("b" * 12)["state"] == "interrupted"
    finally:
        third.close()


def test_an_owner_is_alive_until_it_lets_go(tmp_path: Path) -> None:
    owner = Owner(tmp_path)
    assert is_alive(tmp_path, owner.id)
    owner.release()
    assert not is_alive(tmp_path, owner.id)
    assert not is_alive(tmp_path, None)


def test_each_report_is_one_look_however_often_it_is_read(store: Store) -> None:
    store.put_report("p" * 12, "a" * 12, {"n": 10})
    store.put_report("p" * 12, "a" * 12, {"n": 10})
    store.put_report("p" * 12, "b" * 12, {"n": 10})
    store.report("p" * 12, "a" * 12)
    assert store.report_looks("p" * 12) == 3
    assert store.report("p" * 12, "b" * 12) == {"n": 10, "looks": 3}
    assert store.report_looks("q" * 12) == 0


def test_scores_are_told_apart_by_items_and_threads(store: Store) -> None:
    rows = [{"id": "m1", "p_gold": 0.123456789012345, "task": "수학"}]
    store.put_score("p" * 12, "r" * 12, "i" * 12, "selection", rows, threads=2)
    assert store.score_rows("p" * 12, "r" * 12, "i" * 12) == rows
    assert store.score_rows("p" * 12, "r" * 12, "i" * 12, threads=2) == rows
    assert store.score_rows("p" * 12, "r" * 12, "i" * 12, threads=1) is None
    assert store.score_rows("p" * 12, "r" * 12, "j" * 12) is None


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / "darwin.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(LabError, match="newer"):
        Store(tmp_path)


def test_the_home_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARWIN_LAB_HOME", str(tmp_path / "deep" / "home"))
    assert lab_home() == tmp_path / "deep" / "home" and lab_home().is_dir()
    monkeypatch.delenv("DARWIN_LAB_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    if sys.platform == "linux":
        assert lab_home() == tmp_path / "data" / "darwin-lab"


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("DARWIN_LAB_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(LabError, match="DARWIN_LAB_HOME"):
        lab_home()


def test_notes_keep_small_values_in_the_order_they_were_written(store: Store, tmp_path: Path) -> None:
    store.put_note("reference", "ADD", "second", {"n": 2})
    store.put_note("reference", "ADD", "first", [1, "é"])
    store.put_note("reference", "TAKE", "other", None)
    assert list(store.notes("reference", "ADD").items()) == [("second", {"n": 2}), ("first", [1, "é"])]
    store.put_note("reference", "ADD", "second", "new")
    assert store.notes("reference", "ADD")["second"] == "new"
    store.forget_note("reference", "ADD", "second")
    store.forget_note("reference", "ADD", "never there")
    other = Store(tmp_path)
    assert other.notes("reference", "ADD") == {"first": [1, "é"]} and other.notes("nothing", "ADD") == {}
    other.close()


def test_no_count_is_lost_between_threads_and_processes(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path)
    threads = [
        threading.Thread(target=lambda home=home: [home.count_note("look", "p", "ADD") for _ in range(25)])
        for home in (store, store, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert store.notes("look", "p") == {"ADD": 75}
