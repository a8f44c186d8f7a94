"""The journal of a run in the store: what `evolution/` writes down, row by row, and reads back on resume."""

from collections.abc import Mapping
from typing import Any

from darwin_lab.lab.store import Store


class StoreJournal:
    """Implements `evolution.problem.Journal` for one run."""

    def __init__(self, store: Store, run_id: str, pair_key: str) -> None:
        self._store, self._run_id, self._pair_key = store, run_id, pair_key
        self._controls: dict[str, Any] = dict(store.run_row(run_id)["controls"] or {})

    def history(self) -> list[dict[str, Any]]:
        """The candidate rows recorded so far, by index."""
        return self._store.candidates(self._run_id)

    def candidate(self, row: Mapping[str, Any]) -> None:
        """Record a candidate, or the same one again with its full fitness."""
        self._store.add_candidate(self._run_id, row)

    def generation(self, row: Mapping[str, Any]) -> None:
        """Record a finished generation."""
        self._store.add_generation(self._run_id, row)

    def control(self, name: str, row: Mapping[str, Any]) -> None:
        """Record a control."""
        self._controls[name] = dict(row)
        self._store.update_run(self._run_id, controls=self._controls)

    def phase(self, name: str) -> None:
        """The run enters a phase."""
        self._store.update_run(self._run_id, phase=name)

    def look(self, recipe_hash: str, report: Mapping[str, Any]) -> None:
        """Record a report: one look at the report items."""
        self._store.put_report(self._pair_key, recipe_hash, report)
