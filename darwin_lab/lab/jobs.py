"""One worker thread that owns the device, and the queue in front of it.

Takes functions of a tick; gives views of how far they are. Interactive jobs go before the others, and a long job lets
them in at its `yield_point`s (an evolution: between candidates). Every job's state is in the store, so a reload, a
second page or another process sees the same. Knows nothing of models: a job is any function that calls its tick.
"""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from darwin_lab.errors import Cancelled, LabError
from darwin_lab.lab.store import Store
from darwin_lab.lab.views import JobView
from darwin_lab.progress import Tick, silent

Work = Callable[[Tick], Any]
_PERSIST_EVERY = 0.3
_LET_OTHERS_RUN = 0.0005
_ETA_FROM = 0.005
_ETA_OVER = 60.0
_log = logging.getLogger(__name__)


@dataclass
class _Job:
    id: str
    kind: str
    title: str
    key: str | None
    work: Work
    interactive: bool
    created: float
    state: str = "queued"
    fraction: float = 0.0
    message: str = ""
    started: float | None = None
    away: float = 0.0
    samples: deque[tuple[float, float]] = field(default_factory=deque)
    stop: threading.Event = field(default_factory=threading.Event)

    def pace(self, now: float) -> None:
        """Remember how far the job was; time given to interactive jobs does not count."""
        self.samples.append((now - self.away, self.fraction))
        while len(self.samples) > 2 and self.samples[-1][0] - self.samples[1][0] > _ETA_OVER:
            self.samples.popleft()

    def eta(self) -> float | None:
        """Seconds left at the pace of the last minute; None before anything can be said."""
        if not self.samples:
            return None
        (began, first), (ended, last) = self.samples[0], self.samples[-1]
        if last - first < _ETA_FROM or ended <= began:
            return None
        return (1 - last) * (ended - began) / (last - first)


class Jobs:
    """The queue and its worker. Methods may be called from any thread and return at once, except `wait`, `close`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._changed = threading.Condition()
        self._waiting: deque[_Job] = deque()
        self._live: dict[str, _Job] = {}
        self._stack: list[_Job] = []
        self._ended: list[str] = []
        self._thread: threading.Thread | None = None
        self._closing = False

    # ------------------------------------------------------------------------------------------------ asking

    def submit(self, kind: str, title: str, work: Work, *, key: str | None = None, interactive: bool = False) -> str:
        """Queue `work(tick)`, whose return value must be JSON; the job's id.

        While a job with the same `key` waits or runs, its id is returned and nothing is queued.
        """
        with self._changed:
            if self._closing:
                raise LabError("the lab is closing and takes no more jobs; start it again")
            for job in self._live.values():
                if key is not None and job.key == key and not job.stop.is_set():
                    return job.id
            job = _Job(self._store.new_id(), kind, title, key, work, interactive, time.time())
            self._store.put_job(job.id, kind, title, key)
            self._live[job.id] = job
            if interactive:
                ahead = sum(1 for other in self._waiting if other.interactive)
                self._waiting.insert(ahead, job)
            else:
                self._waiting.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="darwin-lab-worker", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return job.id

    def status(self, job_id: str) -> JobView:
        """One job, of this or another process. LabError for an unknown id."""
        with self._changed:
            job = self._live.get(job_id)
            if job is not None:
                return _view_of(job)
        return _view_of_row(self._store.job_row(job_id))

    def active(self) -> list[JobView]:
        """Jobs that run or wait, in every process of this home; running first, then this process's queue in order."""
        with self._changed:
            own = [_view_of(job) for job in [*reversed(self._stack), *self._waiting]]
        known = {view.id for view in own}
        others = [_view_of_row(row) for row in self._store.open_job_rows() if row["owner"] != self._store.owner.id]
        views = [*own, *(view for view in others if view.id not in known)]
        return sorted(views, key=lambda view: view.state != "running")

    def ended(self) -> tuple[str, ...]:
        """Ids of the jobs of this process that are over, oldest first; it only grows, so its length tells news."""
        with self._changed:
            return tuple(self._ended)

    def cancel(self, job_id: str) -> None:
        """Stop a job of this process: at its next tick, or before it starts. Over already: no effect."""
        with self._changed:
            job = self._live.get(job_id)
            if job is None:
                owner = self._store.job_row(job_id)
                if owner["state"] in ("queued", "running"):
                    raise LabError("that job belongs to another process of Darwin Lab; stop it there")
                return
            job.stop.set()
            if job in self._waiting:
                self._waiting.remove(job)
                self._end(job, "cancelled")

    def wait(self, job_id: str, tick: Tick = silent) -> Any:
        """Block until a job is over; its result. See `Lab.wait` for what is raised."""
        try:
            while (view := self.status(job_id)).open:
                tick(view.fraction, view.message or view.title)
                with self._changed:
                    if job_id in self._live:
                        self._changed.wait(0.1)
                        continue
                time.sleep(0.1)
        except BaseException:
            self.cancel(job_id)
            raise
        if view.state == "done":
            return view.result
        if view.state == "failed":
            raise RuntimeError(view.error) if view.internal else LabError(view.error or "the job failed")
        raise Cancelled(view.title)

    def yield_point(self) -> None:
        """Called by a running job where its device state may change hands: runs the interactive jobs that wait.

        Elsewhere than on the worker, or inside an interactive job, it does nothing.
        """
        if threading.current_thread() is not self._thread or len(self._stack) != 1:
            return
        host, since = self._stack[0], time.time()
        while (job := self._next(interactive_only=True)) is not None:
            self._run(job)
        host.away += time.time() - since

    def close(self) -> None:
        """Cancel everything and wait until the worker let go."""
        with self._changed:
            self._closing = True
            for job in list(self._waiting):
                job.stop.set()
                self._end(job, "cancelled")
            self._waiting.clear()
            for job in self._stack:
                job.stop.set()
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    # ------------------------------------------------------------------------------------------------ working

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closing:
                    self._changed.wait()
                if self._closing:
                    return
            job = self._next(interactive_only=False)
            if job is not None:
                self._run(job)

    def _next(self, *, interactive_only: bool) -> _Job | None:
        with self._changed:
            if not self._waiting or (interactive_only and not self._waiting[0].interactive):
                return None
            job = self._waiting.popleft()
            job.state, job.started = "running", time.time()
            self._stack.append(job)
            return job

    def _run(self, job: _Job) -> None:
        state, fields = "failed", {}  # type: str, dict[str, Any]
        try:
            self._store.update_job(job.id, state="running", started=job.started)
            result = job.work(self._tick_of(job))
            json.dumps(result)  # a result that is no JSON is a fault of the work, not of the record
            state, fields = "done", {"result": result}
        except Cancelled:
            state = "cancelled"
        except LabError as error:
            fields = {"error": str(error)}
        except Exception as error:
            _log.exception("job %s (%s) failed", job.id, job.title)
            words = f"internal error ({type(error).__name__}) in {job.title}; the log has the details, please report it"
            fields = {"error": words, "internal": 1}
        finally:
            with self._changed:
                self._stack.remove(job)
                self._end(job, state, **fields)

    def _end(self, job: _Job, state: str, **fields: Any) -> None:
        """Record how a job ended and forget it; the caller holds the lock."""
        fraction = 1.0 if state == "done" else job.fraction
        try:
            self._store.update_job(
                job.id, state=state, finished=time.time(), eta=None, fraction=fraction, message=job.message, **fields
            )
        except Exception:
            _log.exception("job %s ended as %s but that could not be recorded", job.id, state)
        self._live.pop(job.id, None)
        self._ended.append(job.id)
        self._changed.notify_all()

    def _tick_of(self, job: _Job) -> Tick:
        def tick(fraction: float, words: str) -> None:
            if job.stop.is_set():
                raise Cancelled(job.title)
            job.fraction, job.message = min(max(fraction, 0.0), 1.0), words
            now = time.time()
            if not job.samples or now - job.away - job.samples[-1][0] > _PERSIST_EVERY:
                job.pace(now)
                self._store.update_job(job.id, fraction=job.fraction, message=words, eta=job.eta())
            # A thread that only runs Python would keep the interpreter's lock for whole switch intervals.
            time.sleep(_LET_OTHERS_RUN)

        return tick


def _view_of(job: _Job) -> JobView:
    return JobView(
        job.id, job.kind, job.title, job.state, job.fraction, job.message, job.eta(),
        created=job.created, started=job.started,
    )  # fmt: skip


def _view_of_row(row: dict[str, Any]) -> JobView:
    return JobView(
        row["id"], row["kind"], row["title"], row["state"], row["fraction"], row["message"], row["eta"], row["error"],
        bool(row["internal"]), row["result"], row["created"], row["started"], row["finished"],
    )  # fmt: skip
