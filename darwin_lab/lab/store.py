"""The run store: one SQLite file (WAL) plus folders of arrays under the lab's home.

Takes and gives plain values: ids, numbers, JSON. Every write is one transaction, so a reader in any process sees a
row whole or not at all. Knows no model, no job thread and no page. The home must lie on a local disk: SQLite on a
network or bucket volume corrupts.
"""

import json
import logging
import re
import secrets
import sqlite3
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darwin_lab.errors import LabError
from darwin_lab.lab.owners import Owner, is_alive
from darwin_lab.lab.schema import TABLES, VERSION

_ID = re.compile(r"[0-9a-f]{12}")
_NAME = re.compile(r"[0-9a-zA-Z_-]{1,96}")
CANDIDATE_COLUMNS = (
    "generation", "genes", "genome_hash", "recipe_hash", "fitness", "items", "full_fitness", "tasks", "mean_acc",
    "seconds",
)  # fmt: skip
_JSON_COLUMNS = {"settings", "start", "controls", "result", "genes", "tasks", "genome", "refs"}
_log = logging.getLogger(__name__)


class Store:
    """Everything the lab remembers. Safe to use from several threads; other processes may read and write too."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._lock = threading.RLock()
        try:
            self._db = sqlite3.connect(home / "darwin.sqlite", timeout=30, check_same_thread=False)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._prepare()
            self._owners = home / "processes"
            self.owner = Owner(self._owners)
        except (sqlite3.Error, OSError) as error:
            raise LabError(
                f"cannot open the run store in {home} ({error}); set DARWIN_LAB_HOME to a folder on a local disk"
            ) from error
        self.sweep()

    def close(self) -> None:
        """Let go of the file. Work still recorded as under way then counts as interrupted."""
        with self._lock:
            self.owner.release()
            self._db.close()

    def _prepare(self) -> None:
        found = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if found > VERSION:
            raise LabError(
                f"the run store in {self.home} was written by a newer Darwin Lab (schema {found}, this one reads "
                f"{VERSION}); update, or set DARWIN_LAB_HOME to another folder"
            )
        self._db.executescript(TABLES)
        self._db.execute(f"PRAGMA user_version = {VERSION}")
        self._db.commit()

    # ------------------------------------------------------------------------------------------------ ids and rows

    @staticmethod
    def new_id() -> str:
        """A fresh id: 12 random hex digits."""
        return secrets.token_hex(6)

    @staticmethod
    def is_id(value: object) -> bool:
        """Whether this could be an id of the store: nothing else is ever looked up or used in a path."""
        return isinstance(value, str) and _ID.fullmatch(value) is not None

    def _write(self, sql: str, values: Sequence[Any]) -> None:
        try:
            with self._lock, self._db:
                self._db.execute(sql, values)
        except sqlite3.OperationalError as error:
            if "disk is full" not in str(error):
                raise
            raise LabError(f"no space left for the run store in {self.home}; free some and try again") from error

    def _insert(self, table: str, row: Mapping[str, Any], *, replace: bool = False) -> None:
        names = list(row)
        verb = "INSERT OR REPLACE" if replace else "INSERT"
        marks = ", ".join("?" * len(names))
        self._write(f"{verb} INTO {table} ({', '.join(names)}) VALUES ({marks})", [_packed(n, row[n]) for n in names])

    def _update(self, table: str, row_id: str, fields: Mapping[str, Any]) -> None:
        names = list(fields)
        assignments = ", ".join(f"{name} = ?" for name in names)
        values = [_packed(n, fields[n]) for n in names]
        self._write(f"UPDATE {table} SET {assignments} WHERE id = ?", [*values, row_id])

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        with self._lock:
            found = self._db.execute(sql, values).fetchall()
        return [{name: _unpacked(name, row[name]) for name in row.keys()} for row in found]  # noqa: SIM118

    def _row(self, sql: str, values: Sequence[Any] = ()) -> dict[str, Any] | None:
        rows = self._rows(sql, values)
        return rows[0] if rows else None

    # ------------------------------------------------------------------------------------------------ pairs, recipes

    def remember_pair(self, key: str, refs: Mapping[str, Any]) -> None:
        """Keep how a pair was opened, so that it can be opened again by its key."""
        self._insert("pairs", {"key": key, "refs": dict(refs), "created": time.time()}, replace=True)

    def pair_refs(self, key: str) -> dict[str, Any] | None:
        """How the pair with this key was opened."""
        row = self._row("SELECT refs FROM pairs WHERE key = ?", [key])
        return row["refs"] if row else None

    def remember_recipe(self, pair_key: str, recipe_hash: str, **fields: Any) -> None:
        """Keep what a recipe was made from: genome (JSON) or ratio, genome_hash, fingerprint, prescription hash."""
        row = {"pair_key": pair_key, "recipe_hash": recipe_hash, "created": time.time(), **fields}
        self._insert("recipes", row, replace=True)

    def recipe_row(self, pair_key: str, recipe_hash: str) -> dict[str, Any] | None:
        """What a recipe of this pair was made from, or None if it was never seen."""
        return self._row("SELECT * FROM recipes WHERE pair_key = ? AND recipe_hash = ?", [pair_key, recipe_hash])

    # ------------------------------------------------------------------------------------------------ files

    def put_digests(self, digests: Mapping[tuple[str, int, int], bytes]) -> None:
        """Keep the digests of files, by (path, bytes, time of change in ns); of each path the newest."""
        with self._lock, self._db:
            self._db.executemany(
                "INSERT OR REPLACE INTO digests (path, size, mtime_ns, digest) VALUES (?, ?, ?, ?)",
                [(*key, digest) for key, digest in digests.items()],
            )

    def digests(self) -> dict[tuple[str, int, int], bytes]:
        """The digests kept."""
        rows = self._rows("SELECT path, size, mtime_ns, digest FROM digests")
        return {(row["path"], row["size"], row["mtime_ns"]): row["digest"] for row in rows}

    # ------------------------------------------------------------------------------------------------ runs

    def create_run(self, pair_key: str, settings: Mapping[str, Any], title: str) -> str:
        """A new run in state queued; its id."""
        run_id, now = self.new_id(), time.time()
        row = {"id": run_id, "pair_key": pair_key, "state": "queued", "phase": "queued", "settings": dict(settings)}
        self._insert("runs", {**row, "title": title, "owner": self.owner.id, "created": now, "updated": now})
        return run_id

    def update_run(self, run_id: str, **fields: Any) -> None:
        """Change fields of a run and stamp it."""
        self._update("runs", run_id, {**fields, "updated": time.time()})

    def run_row(self, run_id: str) -> dict[str, Any]:
        """One run. LabError when there is none with this id."""
        row = self._row("SELECT * FROM runs WHERE id = ?", [run_id]) if self.is_id(run_id) else None
        if row is None:
            raise LabError("there is no run with that id in this store; choose one from the list of runs")
        return row

    def run_rows(self, pair_key: str | None = None) -> list[dict[str, Any]]:
        """All runs (of one pair), newest first, each with its number of candidates and its best fitness."""
        where, values = ("WHERE pair_key = ?", [pair_key]) if pair_key else ("", [])
        return self._rows(
            "SELECT runs.*, (SELECT COUNT(*) FROM candidates WHERE run_id = runs.id) AS evaluated, "
            "(SELECT MAX(full_fitness) FROM candidates WHERE run_id = runs.id) AS best "
            f"FROM runs {where} ORDER BY created DESC, rowid DESC",
            values,
        )

    def add_candidate(self, run_id: str, row: Mapping[str, Any]) -> None:
        """Record one scored candidate; `row` holds at least index and `CANDIDATE_COLUMNS`."""
        entry = {name: row[name] for name in CANDIDATE_COLUMNS}
        self._insert(
            "candidates", {"run_id": run_id, "idx": row["index"], "created": time.time(), **entry}, replace=True
        )

    def candidates(self, run_id: str) -> list[dict[str, Any]]:
        """The candidates of a run in the order they were scored."""
        rows = self._rows("SELECT * FROM candidates WHERE run_id = ? ORDER BY idx", [run_id])
        for row in rows:
            row["index"] = row.pop("idx")
            row["full"] = row["full_fitness"] is not None
            del row["run_id"]
        return rows

    def add_generation(self, run_id: str, row: Mapping[str, Any]) -> None:
        """Record one finished generation."""
        entry = {"run_id": run_id, "generation": row["generation"], "row": json.dumps(dict(row))}
        self._insert("generations", entry, replace=True)

    def generations(self, run_id: str) -> list[dict[str, Any]]:
        """The finished generations of a run in order."""
        rows = self._rows("SELECT row FROM generations WHERE run_id = ? ORDER BY generation", [run_id])
        return [json.loads(row["row"]) for row in rows]

    # ------------------------------------------------------------------------------------------------ scores

    def put_score(
        self, pair_key: str, recipe_hash: str, items_key: str, split: str, rows: list[dict[str, Any]], threads: int
    ) -> None:
        """Keep the per-item rows of one model on one set of items."""
        blob = zlib.compress(json.dumps(rows).encode(), 6)
        entry = {"pair_key": pair_key, "recipe_hash": recipe_hash, "items_key": items_key, "split": split}
        self._insert("scores", {**entry, "rows": blob, "threads": threads, "created": time.time()}, replace=True)

    def score_rows(
        self, pair_key: str, recipe_hash: str, items_key: str, threads: int | None = None
    ) -> list[dict[str, Any]] | None:
        """The per-item rows of one model on one set of items (made with that many threads), or None."""
        row = self._row(
            "SELECT rows FROM scores WHERE pair_key = ? AND recipe_hash = ? AND items_key = ? "
            "AND threads = COALESCE(?, threads)",
            [pair_key, recipe_hash, items_key, threads],
        )
        return None if row is None else json.loads(zlib.decompress(row["rows"]))

    def score_stamps(self, pair_key: str) -> dict[tuple[str, str], float]:
        """When each set of rows of a pair was last written, by (recipe hash, items key)."""
        rows = self._rows("SELECT recipe_hash, items_key, created FROM scores WHERE pair_key = ?", [pair_key])
        return {(row["recipe_hash"], row["items_key"]): row["created"] for row in rows}

    def put_report(self, pair_key: str, recipe_hash: str, report: Mapping[str, Any]) -> None:
        """Keep a report and count it as one more look at this pair's report items."""
        with self._lock, self._db:
            found = self._db.execute(
                "SELECT looks FROM reports WHERE pair_key = ? AND recipe_hash = ?", [pair_key, recipe_hash]
            ).fetchone()
            looks = 1 + (found["looks"] if found else 0)
            self._db.execute(
                "INSERT OR REPLACE INTO reports (pair_key, recipe_hash, report, looks, created) VALUES (?, ?, ?, ?, ?)",
                [pair_key, recipe_hash, json.dumps(dict(report)), looks, time.time()],
            )

    def report(self, pair_key: str, recipe_hash: str) -> dict[str, Any] | None:
        """The newest report of a child, with the number of looks so far at this pair's report items."""
        row = self._row("SELECT report FROM reports WHERE pair_key = ? AND recipe_hash = ?", [pair_key, recipe_hash])
        return None if row is None else {**json.loads(row["report"]), "looks": self.report_looks(pair_key)}

    def report_looks(self, pair_key: str) -> int:
        """How often a child of this pair was scored on report items."""
        row = self._row("SELECT COALESCE(SUM(looks), 0) AS looks FROM reports WHERE pair_key = ?", [pair_key])
        return int(row["looks"]) if row else 0

    # ------------------------------------------------------------------------------------------------ notes

    def put_note(self, kind: str, scope: str, name: str, value: Any) -> None:
        """Keep a small JSON value under (kind, scope, name), in the place of an earlier one."""
        row = {"kind": kind, "scope": scope, "name": name, "value": json.dumps(value), "created": time.time()}
        self._insert("notes", row, replace=True)

    def notes(self, kind: str, scope: str) -> dict[str, Any]:
        """The values of one kind and scope by name, oldest first."""
        rows = self._rows(
            "SELECT name, value FROM notes WHERE kind = ? AND scope = ? ORDER BY created, rowid", [kind, scope]
        )
        return {row["name"]: json.loads(row["value"]) for row in rows}

    def forget_note(self, kind: str, scope: str, name: str) -> None:
        """Forget one value; it need not be there."""
        self._write("DELETE FROM notes WHERE kind = ? AND scope = ? AND name = ?", [kind, scope, name])

    def count_note(self, kind: str, scope: str, name: str) -> None:
        """Add one to the whole number under (kind, scope, name), which begins at 0."""
        self._write(
            "INSERT INTO notes (kind, scope, name, value, created) VALUES (?, ?, ?, '1', ?) "
            "ON CONFLICT (kind, scope, name) DO UPDATE SET value = CAST(value AS INTEGER) + 1",
            [kind, scope, name, time.time()],
        )

    # ------------------------------------------------------------------------------------------------ jobs

    def put_job(self, job_id: str, kind: str, title: str, key: str | None) -> None:
        """A new job of this process in state queued."""
        row = {"id": job_id, "kind": kind, "title": title, "key": key, "state": "queued", "owner": self.owner.id}
        self._insert("jobs", {**row, "created": time.time()})

    def update_job(self, job_id: str, **fields: Any) -> None:
        """Change fields of a job."""
        if "result" in fields and fields["result"] is not None:
            fields["result"] = json.dumps(fields["result"])
        self._update("jobs", job_id, fields)

    def job_row(self, job_id: str) -> dict[str, Any]:
        """One job. LabError when there is none with this id."""
        row = self._row("SELECT * FROM jobs WHERE id = ?", [job_id]) if self.is_id(job_id) else None
        if row is None:
            raise LabError("there is no job with that id in this store")
        return row

    def open_job_rows(self) -> list[dict[str, Any]]:
        """Jobs queued or running in any process, running ones first, then in the order they were asked for."""
        return self._rows("SELECT * FROM jobs WHERE state IN ('queued', 'running') ORDER BY state DESC, created, rowid")

    def sweep(self) -> int:
        """Mark jobs and runs that a dead process left queued or running as interrupted; how many jobs it were."""
        dead: dict[str, bool] = {}

        def is_dead(owner: str) -> bool:
            if owner not in dead:
                dead[owner] = owner != self.owner.id and not is_alive(self._owners, owner)
            return dead[owner]

        lost = [row for row in self.open_job_rows() if is_dead(row["owner"])]
        for row in lost:
            self.update_job(row["id"], state="interrupted", finished=time.time(), eta=None)
        for run in self._rows("SELECT id, owner FROM runs WHERE state IN ('queued', 'running')"):
            if is_dead(run["owner"] or ""):
                self.update_run(run["id"], state="interrupted")
        if lost:
            _log.info("%d jobs of a process that ended are marked interrupted", len(lost))
        return len(lost)

    # ------------------------------------------------------------------------------------------------ exports, folders

    def put_export(self, **fields: Any) -> str:
        """Record one finished export; its id."""
        export_id = self.new_id()
        self._insert("exports", {"id": export_id, "created": time.time(), **fields})
        return export_id

    def exports(self, pair_key: str, recipe_hash: str) -> list[dict[str, Any]]:
        """Exports of one child, newest first."""
        return self._rows(
            "SELECT * FROM exports WHERE pair_key = ? AND recipe_hash = ? ORDER BY created DESC, rowid DESC",
            [pair_key, recipe_hash],
        )

    def exports_of_pair(self, pair_key: str) -> list[dict[str, Any]]:
        """Exports of any child of one pair, newest first."""
        return self._rows("SELECT * FROM exports WHERE pair_key = ? ORDER BY created DESC, rowid DESC", [pair_key])

    def folder(self, kind: str, *names: str) -> Path:
        """The folder for arrays of one kind ("scans", "contrasts", ...), named by hashes; it may not exist yet."""
        for name in (kind, *names):
            if not _NAME.fullmatch(name):
                raise LabError(f"{name!r} cannot name a folder of the store")
        return self.home / kind / "-".join(names)

    def keep_text(self, path: Path, text: str) -> None:
        """Write a file of this home whole or not at all, in the place of an earlier one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{self.owner.id}.partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)


def kept_json(path: Path) -> dict[str, Any] | None:
    """The JSON object that was kept there; None when there is nothing, or nothing that can be read."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _packed(name: str, value: Any) -> Any:
    return json.dumps(value) if name in _JSON_COLUMNS and value is not None and not isinstance(value, str) else value


def _unpacked(name: str, value: Any) -> Any:
    return json.loads(value) if name in _JSON_COLUMNS and isinstance(value, str) else value
