"""The queue: one worker, interactive jobs between, cancel, errors that can be read later."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from darwin_lab.errors import Cancelled, LabError
from darwin_lab.lab.jobs import Jobs, _Job
from darwin_lab.lab.store import Store
from darwin_lab.progress import Tick

PATIENCE = 20.0


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    store = Store(tmp_path)
    queue = Jobs(store)
    yield queue
    queue.close()
    store.close()


class Gate:
    """Work that waits until it is let through, ticking all the while."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Event(), threading.Event()

    def __call__(self, tick: Tick) -> str:
        self.entered.set()
        while not self.open.wait(0.005):
            tick(0.5, "waiting")
        return "through"


def test_a_job_gives_its_result_and_stays_readable(jobs: Jobs) -> None:
    job_id = jobs.submit("score", "Score", lambda tick: {"n": 3})
    assert jobs.wait(job_id) == {"n": 3}
    view = jobs.status(job_id)
    assert (view.state, view.fraction, view.result, view.error) == ("done", 1.0, {"n": 3}, None)
    assert view.finished >= view.started >= view.created


def test_jobs_run_one_at_a_time_in_the_order_asked(jobs: Jobs) -> None:
    running, order = [], []

    def work(name: str):
        def run(tick: Tick) -> None:
            running.append(name)
            assert len(running) == 1
            order.append(name)
            running.remove(name)

        return run

    ids = [jobs.submit("scan", name, work(name)) for name in "abcde"]
    for job_id in ids:
        jobs.wait(job_id)
    assert order == list("abcde")


def test_the_same_key_is_the_same_job_while_it_waits_or_runs(jobs: Jobs) -> None:
    gate = Gate()
    first = jobs.submit("scan", "scan", gate, key="scan:father")
    assert gate.entered.wait(PATIENCE)
    assert jobs.submit("scan", "scan", gate, key="scan:father") == first
    assert jobs.submit("scan", "scan", lambda tick: None, key="scan:mother") != first
    gate.open.set()
    jobs.wait(first)
    assert jobs.submit("scan", "scan", lambda tick: None, key="scan:father") != first


def test_interactive_jobs_run_between_the_steps_of_a_long_one(jobs: Jobs) -> None:
    order: list[str] = []
    begun, go = threading.Event(), threading.Event()

    def evolution(tick: Tick) -> None:
        order.append("candidate 1")
        begun.set()
        assert go.wait(PATIENCE)
        jobs.yield_point()
        order.append("candidate 2")

    long = jobs.submit("evolution", "evolution", evolution)
    assert begun.wait(PATIENCE)
    later = jobs.submit("scan", "scan", lambda tick: order.append("scan"))
    quick = jobs.submit("score", "score", lambda tick: order.append("score"), interactive=True)
    go.set()
    for job_id in (long, later, quick):
        jobs.wait(job_id)
    assert order == ["candidate 1", "score", "candidate 2", "scan"]


def test_an_interactive_job_is_not_interrupted_by_another(jobs: Jobs) -> None:
    order: list[str] = []
    begun, go = threading.Event(), threading.Event()

    def first(tick: Tick) -> None:
        begun.set()
        assert go.wait(PATIENCE)
        jobs.yield_point()
        order.append("first")

    def evolution(tick: Tick) -> None:
        jobs.yield_point()

    quick = jobs.submit("score", "first", first, interactive=True)
    assert begun.wait(PATIENCE)
    host = jobs.submit("evolution", "evolution", evolution)
    second = jobs.submit("score", "second", lambda tick: order.append("second"), interactive=True)
    go.set()
    for job_id in (quick, second, host):
        jobs.wait(job_id)
    assert sorted(order) == ["first", "second"]


def test_a_running_job_stops_at_its_next_tick(jobs: Jobs) -> None:
    gate = Gate()
    job_id = jobs.submit("scan", "scan", gate)
    assert gate.entered.wait(PATIENCE)
    jobs.cancel(job_id)
    with pytest.raises(Cancelled):
        jobs.wait(job_id)
    assert jobs.status(job_id).state == "cancelled"


def test_a_waiting_job_that_is_cancelled_never_starts(jobs: Jobs) -> None:
    gate, ran = Gate(), []
    blocker = jobs.submit("scan", "scan", gate)
    waiting = jobs.submit("scan", "other", lambda tick: ran.append(1))
    jobs.cancel(waiting)
    gate.open.set()
    jobs.wait(blocker)
    assert jobs.status(waiting).state == "cancelled" and ran == []


def test_cancelling_what_is_over_changes_nothing(jobs: Jobs) -> None:
    job_id = jobs.submit("scan", "scan", lambda tick: None)
    jobs.wait(job_id)
    jobs.cancel(job_id)
    assert jobs.status(job_id).state == "done"


def test_bad_input_keeps_its_words(jobs: Jobs) -> None:
    def work(tick: Tick) -> None:
        raise LabError("items.jsonl:3: not valid JSON; write one JSON object a line")

    job_id = jobs.submit("score", "score", work)
    with pytest.raises(LabError, match=r"items\.jsonl:3"):
        jobs.wait(job_id)
    view = jobs.status(job_id)
    assert view.state == "failed" and not view.internal


def test_a_fault_of_ours_is_an_internal_error_with_the_traceback_in_the_log_only(
    jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    def work(tick: Tick) -> None:
        raise ZeroDivisionError("secret detail")

    with caplog.at_level(logging.ERROR):
        job_id = jobs.submit("score", "score", work)
        with pytest.raises(RuntimeError, match="internal error"):
            jobs.wait(job_id)
    view = jobs.status(job_id)
    assert view.internal and "secret detail" not in view.error and "\n" not in view.error
    assert "secret detail" in caplog.text


def test_a_result_that_is_no_json_is_a_fault_and_not_a_job_that_runs_for_ever(jobs: Jobs) -> None:
    job_id = jobs.submit("score", "score", lambda tick: object())
    with pytest.raises(RuntimeError):
        jobs.wait(job_id)
    assert jobs.status(job_id).state == "failed"


def test_the_worker_lives_on_after_a_failure(jobs: Jobs) -> None:
    def fail(tick: Tick) -> None:
        raise ValueError

    broken = jobs.submit("score", "bad", fail)
    good = jobs.submit("score", "good", lambda tick: 7)
    assert jobs.wait(good) == 7
    assert jobs.status(broken).state == "failed"


def test_progress_is_seen_live_and_in_the_store(jobs: Jobs) -> None:
    gate = Gate()
    job_id = jobs.submit("scan", "scan", gate)
    assert gate.entered.wait(PATIENCE)
    seen: list[tuple[float, str]] = []

    def watch(fraction: float, words: str) -> None:
        seen.append((fraction, words))
        if (0.5, "waiting") in seen:
            gate.open.set()

    jobs.wait(job_id, watch)
    assert (0.5, "waiting") in seen
    assert jobs._store.job_row(job_id)["message"] == "waiting"


def test_time_left_follows_the_pace_of_the_last_minute_without_time_given_away() -> None:
    job = _Job("a" * 12, "scan", "scan", None, lambda tick: None, interactive=False, created=0.0)
    assert job.eta() is None
    for second in range(0, 100, 10):
        job.fraction = second / 1000
        job.pace(1000.0 + second)
    assert job.eta() == pytest.approx(910.0)
    job.away = 500.0
    for second in range(100, 170, 10):
        job.fraction = 0.09 + 5 * (second - 90) / 1000
        job.pace(1500.0 + second)
    assert job.eta() == pytest.approx((1 - job.fraction) / 0.005, rel=0.15)


def test_active_lists_the_running_job_first_and_then_the_queue(jobs: Jobs) -> None:
    gate = Gate()
    running = jobs.submit("scan", "running", gate)
    assert gate.entered.wait(PATIENCE)
    waiting = [jobs.submit("scan", name, lambda tick: None) for name in "ab"]
    quick = jobs.submit("score", "quick", lambda tick: None, interactive=True)
    assert [view.id for view in jobs.active()] == [running, quick, *waiting]
    gate.open.set()
    for job_id in (running, *waiting, quick):
        jobs.wait(job_id)
    assert jobs.active() == []


def test_whoever_stops_waiting_stops_the_job(jobs: Jobs) -> None:
    def impatient(fraction: float, words: str) -> None:
        raise KeyboardInterrupt

    gate = Gate()
    job_id = jobs.submit("scan", "scan", gate)
    with pytest.raises(KeyboardInterrupt):
        jobs.wait(job_id, impatient)
    with pytest.raises(Cancelled):
        jobs.wait(job_id)


def test_closing_cancels_everything_and_takes_no_more(tmp_path: Path) -> None:
    store = Store(tmp_path)
    queue, gate = Jobs(store), Gate()
    running = queue.submit("scan", "scan", gate)
    assert gate.entered.wait(PATIENCE)
    waiting = queue.submit("scan", "scan", lambda tick: None)
    queue.close()
    assert {queue.status(job_id).state for job_id in (running, waiting)} == {"cancelled"}
    with pytest.raises(LabError, match="closing"):
        queue.submit("scan", "scan", lambda tick: None)
    store.close()
