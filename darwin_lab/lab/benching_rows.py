"""Answers item by item: what of a benchmark a model has answered so far, and the work that answers the rest.

Rows are visible as they are made, and a cancelled or killed job goes on where it was; an item that was ever answered,
here or in an evolution, is not asked again. Finished rows lie in the store, unfinished work in files beside it. Scores
of one pair, one process or several.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darwin_lab.lab import scoring
from darwin_lab.lab.benching_sets import Benchmark
from darwin_lab.lab.pairs import Pair
from darwin_lab.lab.workbench import Workbench
from darwin_lab.progress import Tick
from darwin_lab.scoring.kept import Kept, rows_so_far
from darwin_lab.scoring.score import Score, from_rows

if TYPE_CHECKING:
    from darwin_lab.engine.resident import Resident

Row = dict[str, Any]
Stamps = Mapping[tuple[str, str], float]
Stamp = tuple[tuple[float | None, ...], tuple[tuple[Path, int], ...]]
"""When the rows of a score were stored, and how large the files of unfinished work are."""


class Rows:
    """The rows of one lab's benchmarks, read again when they changed on disk."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._stored: dict[tuple[str, str, str], tuple[float, dict[str, Row]]] = {}
        self._scores: dict[tuple[str, str, str, str], tuple[Stamp, Score | None]] = {}
        self._whole: dict[tuple[str, str], str] = {}

    def stamps(self, pair: Pair) -> Stamps:
        """When what the store holds was written; one look at it serves a whole table."""
        return self._bench.store.score_stamps(pair.key)

    def score(
        self, pair: Pair, stored_as: str, benchmark: Benchmark, split: str, stamps: Stamps | None = None
    ) -> Score | None:
        """The rows so far, in the order of the split, as a score: the very same object while nothing was added."""
        seen = self.stamps(pair) if stamps is None else stamps
        keys = self._keys(pair, benchmark, split)
        files = self._unfinished(pair, stored_as, benchmark, split)
        place = (pair.key, stored_as, benchmark.key(split), split)
        known = self._scores.get(place)
        if known is not None and len(files) < len(known[0][1]):
            seen = self.stamps(pair)  # work was finished after the look: its rows are stored before its file goes
        stamp = tuple(seen.get((stored_as, key)) for key in keys), tuple(files.items())
        if known is None or known[0] != stamp:
            found: dict[str, Row] = {}
            for path in files:
                found |= {row["id"]: row for row in rows_so_far(path)}
            found |= self._finished(pair, stored_as, benchmark, split, seen)
            rows = [found[item.id] for item in benchmark.items[split] if item.id in found]
            self._scores[place] = known = stamp, from_rows(rows) if rows else None
        return known[1]

    def answer(
        self,
        pair: Pair,
        stored_as: str,
        resident: "Resident",
        benchmark: Benchmark,
        split: str,
        limit: int | None,
        tick: Tick,
    ) -> int:
        """Answer what is missing of the first `limit` items; how many items were asked.

        For the worker. LabError for items this model cannot read; `Cancelled` leaves what was answered for the next
        time the same is asked.
        """
        from darwin_lab.scoring.evaluate import score_items

        wanted = {item.id for item in benchmark.items[split]}
        found = self._finished(pair, stored_as, benchmark, split, self.stamps(pair))
        done = {name: row for name, row in found.items() if name in wanted}
        todo = [item for item in benchmark.order(split)[:limit] if item.id not in done]
        if not todo:
            return 0
        threads = self._bench.threads(pair)
        key = {
            "model": stored_as, "items": benchmark.key(split), "which": [item.id for item in todo], "threads": threads,
            "device": str(resident.device), "dtype": str(resident.dtype), "streamed": resident.streamed,
        }  # fmt: skip
        name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]
        folder = self._folder(pair)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{stored_as}-{benchmark.key(split)}-{name}.jsonl"

        def share(fraction: float, words: str) -> None:
            tick(fraction, f"{benchmark.name}: {words}")

        with Kept(path, key) as keep:
            score = score_items(resident, todo, benchmark.max_new_tokens, share, keep=keep)
            rows = done | {row["id"]: row for row in score.to_rows()}
            self._bench.store.put_score(
                pair.key, stored_as, self._keys(pair, benchmark, split)[0], split, list(rows.values()), threads
            )
        for unfinished in folder.glob(f"{stored_as}-{benchmark.key(split)}-*.jsonl"):
            if unfinished == path or rows.keys() >= {row["id"] for row in rows_so_far(unfinished)}:
                unfinished.unlink(missing_ok=True)
        return len(todo)

    def _finished(self, pair: Pair, stored_as: str, benchmark: Benchmark, split: str, stamps: Stamps) -> dict[str, Row]:
        """What the store has: this desk's rows, and for the pair's own items a whole split's, of all tasks."""
        found: dict[str, Row] = {}
        for key in self._keys(pair, benchmark, split):
            stamp = stamps.get((stored_as, key))
            if stamp is None:
                continue
            place = (pair.key, stored_as, key)
            known = self._stored.get(place)
            if known is None or known[0] != stamp:
                rows = self._bench.store.score_rows(pair.key, stored_as, key) or []
                self._stored[place] = known = stamp, {row["id"]: row for row in rows}
            found |= known[1]
        return found

    def _unfinished(self, pair: Pair, stored_as: str, benchmark: Benchmark, split: str) -> dict[Path, int]:
        """The files of work under way, or stopped, and their sizes."""
        found = {}
        for path in sorted(self._folder(pair).glob(f"{stored_as}-{benchmark.key(split)}-*.jsonl")):
            with suppress(FileNotFoundError):  # the work was done since
                found[path] = path.stat().st_size
        return found

    def _folder(self, pair: Pair) -> Path:
        return self._bench.store.folder("kept", pair.key)

    def _keys(self, pair: Pair, benchmark: Benchmark, split: str) -> list[str]:
        """What rows are stored under: this desk's name for them, and for the pair's own items a whole split's."""
        own = f"b-{benchmark.key(split)}"
        if benchmark.source != "pair":
            return [own]
        if (pair.key, split) not in self._whole:
            self._whole[pair.key, split] = scoring.items_key(tuple(item.id for item in pair.items(split)))
        return [own, self._whole[pair.key, split]]
