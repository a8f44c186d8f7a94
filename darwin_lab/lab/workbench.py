"""What every piece of lab work shares: the store, the queue, the open pairs, and the models held in memory.

A model in memory becomes whatever is scanned or scored. A large model is held once and uses all CPUs, and one that
does not fit is streamed, a layer at a time; a small one computes fastest with one thread, so it is held once a CPU (a
*lane*) and the lanes work side by side: what comes out does not depend on the number of CPUs then. A second model a
lane is held only while two parents are contrasted. Models are touched by the worker and its lanes alone. Knows nothing
of scans, scores or runs.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from darwin_lab.checkpoint.checkpoint import learn_digests
from darwin_lab.errors import Cancelled, LabError
from darwin_lab.lab.jobs import Jobs
from darwin_lab.lab.memory import AUTO, DTYPES, FLOAT32, WAYS, MemoryChoice, choose, in_torch
from darwin_lab.lab.pairs import Pair, bytes_to_read, reopen
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
AT_ONCE_BYTES = 2 * 10**9
"""Parents of which at most so much is to be read are opened where they are asked for, others by a job."""
_RECIPES_KEPT = 256
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class _Held:
    """A model at its place: the father's fingerprint with the dtype, and the bytes its weights take all the time."""

    kind: tuple[str, str]
    resident: "Resident"
    weights: int


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
        self._held: dict[str, _Held] = {}
        self._threads: int | None = None
        learn_digests(store.digests())

    # ------------------------------------------------------------------------------------------------ pairs

    def remember(self, pair: Pair) -> Pair:
        """The pair, or the equal one that is open already; kept in the store by its key."""
        known = self._pairs.setdefault(pair.key, pair)
        if known is pair:
            self.store.remember_pair(pair.key, pair.refs)
            self.store.put_digests({key: digest for member in pair.members for key, digest in member.digests().items()})
        return known

    def pair(self, key: str) -> Pair:
        """The pair with this key, opened again if need be.

        LabError when it is unknown or has changed on disk, and when so much of it must be read that it takes a job.
        """
        if key not in self._pairs:
            refs = self._refs(key)
            if refs is None:
                raise LabError("there are no such parents in this store; open them first")
            if self.refs_to_read(key) is not None:
                raise LabError(
                    f"{refs['father']} and {refs['mother']} are large and have to be read first; open them in Parents"
                )
            pair = self.remember(reopen(refs))
            if pair.key != key:
                raise LabError(
                    f"{refs['father']} and {refs['mother']}, their items or probes changed since; open them again"
                )
        return self._pairs[key]

    def refs_to_read(self, key: str) -> dict[str, Any] | None:
        """How to open a known pair of which more must be read than `AT_ONCE_BYTES`; None for any other key."""
        refs = None if key in self._pairs else self._refs(key)
        return refs if refs is not None and bytes_to_read(refs) > AT_ONCE_BYTES else None

    def _refs(self, key: str) -> dict[str, Any] | None:
        return self.store.pair_refs(key) if self.store.is_id(key) else None

    # ------------------------------------------------------------------------------------------------ models

    def child(self, pair: Pair, recipe: Recipe) -> "Child":
        """The virtual child of a recipe."""
        from darwin_lab.engine.child import Child

        pair.require_mergeable()
        return Child(pair.father, pair.mother, recipe, pair.ancestor)

    def memory(self, pair: Pair, models: int = 1, dtype: str = FLOAT32) -> MemoryChoice:
        """Whether `models` models of this pair at once are held in memory or streamed, as chosen and as is free."""
        way = self.store.notes("memory", _parents(pair)).get("way", AUTO)
        held = sum(held.weights for held in list(self._held.values()))
        return choose(pair, way, self.device, models, held, dtype=dtype, small=self._is_small(pair))

    def set_memory(self, pair: Pair, way: str) -> MemoryChoice:
        """Keep the way for these parents, whatever they are measured with. LabError for an unknown one."""
        if way not in WAYS:
            raise LabError(f"unknown way to hold a model {way!r}; choose {', '.join(WAYS)}")
        self.store.put_note("memory", _parents(pair), "way", way)
        return self.memory(pair, dtype=self.dtype(pair))

    def dtype(self, pair: Pair) -> str:
        """The dtype scans of these parents are computed in, as chosen; all else is computed in float32."""
        return str(self.store.notes("memory", _parents(pair)).get("dtype", FLOAT32))

    def set_dtype(self, pair: Pair, dtype: str) -> MemoryChoice:
        """Keep the dtype for these parents, whatever they are measured with. LabError for an unknown one."""
        if dtype not in DTYPES:
            raise LabError(f"unknown dtype {dtype!r} to scan in; choose {' or '.join(DTYPES)}")
        self.store.put_note("memory", _parents(pair), "dtype", dtype)
        return self.memory(pair, dtype=dtype)

    def threads(self, pair: Pair) -> int:
        """Threads of one lane's arithmetic. All scores of a run are made with one setting, which it records."""
        return self._threads or (1 if self._is_small(pair) else self.cpus)

    def lanes(self, pair: Pair, dtype: str = FLOAT32) -> int:
        """How many models are worked on side by side: one where they are streamed."""
        if not self._is_small(pair) or self.memory(pair, dtype=dtype).streamed:
            return 1
        return max(1, min(MOST_LANES, self.cpus // self.threads(pair)))

    def prepare(self, pair: Pair, source: "Source", lanes: int, *suffixes: str, dtype: str = FLOAT32) -> None:
        """Load what `lanes` lanes will need, before they start: transformers cannot load two models at once."""
        for lane in range(lanes):
            for suffix in ("", *suffixes):
                self._hold(pair, source, f"lane {lane}{suffix}", 1 + len(suffixes), dtype)

    def resident(
        self, pair: Pair, source: "Source", place: str = "lane 0", *, models: int = 1, dtype: str = FLOAT32
    ) -> "Resident":
        """A model in memory, or streamed, that is `source` now. Every `place` holds one of its own; `release_all` frees
        them, and a model of another dtype takes its place. `models` is how many of this pair are used at once.

        Only for the worker and its lanes: the weights stay what they are until the next call for the same place.
        """
        resident = self._hold(pair, source, place, models, dtype)
        resident.become(source)
        return resident

    def _hold(self, pair: Pair, source: "Source", place: str, models: int, dtype: str) -> "Resident":
        import torch

        from darwin_lab.engine.streamed import Memory, load_model

        if torch.get_num_threads() != self.threads(pair):
            torch.set_num_threads(self.threads(pair))
        kind, wanted = (pair.father.fingerprint, dtype), self.memory(pair, models, dtype)
        held = self._held.get(place)
        if held is not None and held.kind == kind:
            stays = models == 1 and wanted.way == AUTO and not held.resident.streamed
            if stays or held.resident.streamed == wanted.streamed:
                return held.resident
        del held
        self._held.pop(place, None)
        room = Memory(wanted.needed, wanted.free // models, wanted.streamed)
        resident = load_model(source, room, self.device, in_torch(dtype))
        weights = 0 if wanted.streamed else sum(tensor.nbytes for tensor in resident.model.parameters())
        self._held[place] = _Held(kind, resident, weights)
        return resident

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

    def letting_in(self, tick: Tick) -> Tick:
        """A tick that lets interactive jobs in as well, for work that holds its model at a place of its own."""
        import torch

        def let_in(fraction: float, words: str) -> None:
            tick(fraction, words)
            threads = torch.get_num_threads()
            with torch.inference_mode(False):
                self.jobs.yield_point()
            torch.set_num_threads(threads)

        return let_in

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


def _parents(pair: Pair) -> str:
    """What names the parents of a pair, whatever they are measured with."""
    return "-".join(member.fingerprint for member in (pair.father, pair.mother))


def usable_cpus() -> int:
    """`OMP_NUM_THREADS` where it is set, else the CPUs this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
