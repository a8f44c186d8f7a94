"""What every piece of lab work shares: the store, the queue, the open pairs, and the models held in memory.

At most one model is held, which becomes whatever is scanned or scored; a second one only while two parents are
contrasted. All models are touched by the worker thread alone. Knows nothing of scans, scores or runs.
"""

import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from darwin_lab.errors import LabError
from darwin_lab.lab.jobs import Jobs
from darwin_lab.lab.pairs import Pair, reopen
from darwin_lab.lab.store import Store
from darwin_lab.merging.recipe import Recipe

if TYPE_CHECKING:
    from darwin_lab.engine.child import Child
    from darwin_lab.engine.resident import Resident
    from darwin_lab.engine.source import Source
    from darwin_lab.scoring.choice import ChoicePlan

_RECIPES_KEPT = 256


class Workbench:
    """Shared state of one lab. `threads` is how many the device's arithmetic uses, for every score of a run alike."""

    def __init__(self, store: Store, jobs: Jobs, device: str = "cpu", threads: int | None = None) -> None:
        self.store, self.jobs, self.device = store, jobs, device
        self.threads = threads or default_threads()
        self.recipes: OrderedDict[tuple[str, str], Recipe] = OrderedDict()
        self.plans: dict[tuple[str, str], ChoicePlan] = {}
        self.loaded: dict[Any, Any] = {}
        self._pairs: dict[str, Pair] = {}
        self._held: dict[str, tuple[str, Resident]] = {}

    # ------------------------------------------------------------------------------------------------ pairs

    def remember(self, pair: Pair) -> Pair:
        """The pair, or the equal one that is open already; kept in the store by its key."""
        known = self._pairs.setdefault(pair.key, pair)
        if known is pair:
            self.store.remember_pair(pair.key, pair.refs)
        return known

    def pair(self, key: str) -> Pair:
        """The pair with this key, opened again if need be. LabError when it is unknown or has changed on disk."""
        if key not in self._pairs:
            refs = self.store.pair_refs(key) if self.store.is_id(key) else None
            if refs is None:
                raise LabError("there are no such parents in this store; open them first")
            pair = self.remember(reopen(refs))
            if pair.key != key:
                raise LabError(
                    f"{refs['father']} and {refs['mother']}, their items or probes changed since; open them again"
                )
        return self._pairs[key]

    # ------------------------------------------------------------------------------------------------ models

    def child(self, pair: Pair, recipe: Recipe) -> "Child":
        """The virtual child of a recipe."""
        from darwin_lab.engine.child import Child

        pair.require_mergeable()
        return Child(pair.father, pair.mother, recipe, pair.ancestor)

    def resident(self, pair: Pair, source: "Source", *, place: str = "first") -> "Resident":
        """A model in memory that is `source` now. `place` "second" holds another beside it; `release` frees it.

        Only for the worker thread: the weights stay what they are until the next call for the same place.
        """
        import torch

        from darwin_lab.engine.resident import Resident

        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        kind = pair.father.fingerprint
        if self._held.get(place, ("", None))[0] != kind:
            self.release(place)
            self._held[place] = (kind, Resident.load(source, self.device))
        resident = self._held[place][1]
        resident.become(source)
        return resident

    def release(self, place: str | None = None) -> None:
        """Free the model held in `place`, or all of them."""
        for name in [place] if place else list(self._held):
            self._held.pop(name, None)

    @contextmanager
    def using(self, threads: int | None) -> Iterator[None]:
        """Within, the device's arithmetic uses this many threads: those a run began with."""
        before, self.threads = self.threads, threads or self.threads
        try:
            yield
        finally:
            self.threads = before

    def keep_recipe(self, pair: Pair, recipe: Recipe) -> None:
        """Keep a recipe at hand; the longest unused one makes room."""
        self.recipes[pair.key, recipe.hash] = recipe
        self.recipes.move_to_end((pair.key, recipe.hash))
        while len(self.recipes) > _RECIPES_KEPT:
            self.recipes.popitem(last=False)


def default_threads() -> int:
    """`OMP_NUM_THREADS` where it is set, else the CPUs this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
