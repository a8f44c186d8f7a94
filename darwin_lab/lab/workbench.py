"""What every piece of lab work shares: the store, the queue, the open pairs, and the models held in memory.

A model in memory becomes whatever is scanned or scored. A large model is held once and uses all CPUs; a small one
computes fastest with one thread, so it is held once a CPU (a *lane*) and the lanes work side by side: what comes out
does not depend on the number of CPUs then. A second model a lane is held only while two parents are contrasted.
Models are touched by the worker and its lanes alone. Knows nothing of scans, scores or runs.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from darwin_lab.errors import Cancelled, LabError
from darwin_lab.lab.jobs import Jobs
from darwin_lab.lab.pairs import Pair, reopen
from darwin_lab.lab.store import Store
from darwin_lab.merging.recipe import Recipe
from darwin_lab.progress import Tick

if TYPE_CHECKING:
    from darwin_lab.engine.child import Child
    from darwin_lab.engine.resident import Resident
    from darwin_lab.engine.source import Source
    from darwin_lab.scoring.choice import ChoicePlan

SMALL_BYTES = 64 << 20
"""Checkpoints up to this size are worked on in lanes: their matrices are too small for a second thread to help."""
MOST_LANES = 4
_RECIPES_KEPT = 256
T = TypeVar("T")


class Workbench:
    """Shared state of one lab. `cpus` bounds threads times lanes; by default those this process may use."""

    def __init__(self, store: Store, jobs: Jobs, device: str = "cpu", cpus: int | None = None) -> None:
        self.store, self.jobs, self.device = store, jobs, device
        self.cpus = cpus or usable_cpus()
        self.recipes: OrderedDict[tuple[str, str], Recipe] = OrderedDict()
        self.plans: dict[tuple[str, str], ChoicePlan] = {}
        self.planning = threading.Lock()
        self.loaded: dict[Any, Any] = {}
        self._pairs: dict[str, Pair] = {}
        self._held: dict[str, tuple[str, Resident]] = {}
        self._threads: int | None = None

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

    def threads(self, pair: Pair) -> int:
        """Threads of one lane's arithmetic. All scores of a run are made with one setting, which it records."""
        return self._threads or (1 if self._is_small(pair) else self.cpus)

    def lanes(self, pair: Pair) -> int:
        """How many models are worked on side by side."""
        return max(1, min(MOST_LANES, self.cpus // self.threads(pair))) if self._is_small(pair) else 1

    def prepare(self, pair: Pair, source: "Source", lanes: int, *suffixes: str) -> None:
        """Load what `lanes` lanes will need, before they start: transformers cannot load two models at once."""
        for lane in range(lanes):
            for suffix in ("", *suffixes):
                self._hold(pair, source, f"lane {lane}{suffix}")

    def resident(self, pair: Pair, source: "Source", place: str = "lane 0") -> "Resident":
        """A model in memory that is `source` now. Every `place` holds one of its own; `release_all` frees them.

        Only for the worker and its lanes: the weights stay what they are until the next call for the same place.
        """
        resident = self._hold(pair, source, place)
        resident.become(source)
        return resident

    def _hold(self, pair: Pair, source: "Source", place: str) -> "Resident":
        import torch

        from darwin_lab.engine.resident import Resident

        if torch.get_num_threads() != self.threads(pair):
            torch.set_num_threads(self.threads(pair))
        kind = pair.father.fingerprint
        if self._held.get(place, ("", None))[0] != kind:
            self._held.pop(place, None)
            self._held[place] = (kind, Resident.load(source, self.device))
        return self._held[place][1]

    def side_by_side(self, works: Sequence[Callable[[str, Tick], T]], tick: Tick) -> list[T]:
        """Run each `work(place, tick)` on a lane of its own, all at once; their results in order.

        The tick shows their mean progress. What one of them raises stops the others and is raised.
        """
        if len(works) == 1:
            return [works[0]("lane 0", tick)]
        done = [0.0] * len(works)
        stop = threading.Event()

        def run(lane: int) -> T:
            def lane_tick(fraction: float, words: str) -> None:
                if stop.is_set():
                    raise Cancelled(words)
                done[lane] = fraction
                tick(sum(done) / len(done), words)

            try:
                return works[lane](f"lane {lane}", lane_tick)
            except BaseException:
                stop.set()
                raise

        with ThreadPoolExecutor(len(works), thread_name_prefix="darwin-lab-lane") as pool:
            futures = [pool.submit(run, lane) for lane in range(len(works))]
        errors = [error for future in futures if (error := future.exception()) is not None]
        if errors:
            raise next((error for error in errors if not isinstance(error, Cancelled)), errors[0])
        return [future.result() for future in futures]

    def release_all(self, ending: str = "") -> None:
        """Free the models held in places whose name ends so: all of them by default."""
        for place in [place for place in self._held if place.endswith(ending)]:
            self._held.pop(place)

    @contextmanager
    def using(self, threads: int | None) -> Iterator[None]:
        """Within, a lane's arithmetic uses this many threads: those a run began with."""
        before, self._threads = self._threads, threads or self._threads
        try:
            yield
        finally:
            self._threads = before

    def _is_small(self, pair: Pair) -> bool:
        return self.device == "cpu" and pair.father.total_bytes <= SMALL_BYTES

    def keep_recipe(self, pair: Pair, recipe: Recipe) -> None:
        """Keep a recipe at hand; the longest unused one makes room."""
        self.recipes[pair.key, recipe.hash] = recipe
        self.recipes.move_to_end((pair.key, recipe.hash))
        while len(self.recipes) > _RECIPES_KEPT:
            self.recipes.popitem(last=False)


def usable_cpus() -> int:
    """`OMP_NUM_THREADS` where it is set, else the CPUs this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
