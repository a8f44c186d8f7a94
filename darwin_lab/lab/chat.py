"""The desk for asking models: one prompt to several of them, told as they write; and how fast a model reads and writes.

Takes the names of models the benchmark desk knows, gives views of what was said so far. Answers live in memory and in
the result of their job; speeds are kept in the store. Knows no widget. Methods may be called from any thread.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from darwin_lab.errors import Cancelled, LabError
from darwin_lab.lab import benching_models
from darwin_lab.progress import Tick, part

if TYPE_CHECKING:
    from darwin_lab.lab.pairs import Pair
    from darwin_lab.lab.workbench import Workbench
    from darwin_lab.scoring.chat import Manner, Said

MOST_MODELS = 6
_KEPT = 32
_SPEED = "speed"


@dataclass(frozen=True)
class Reply:
    """One model's answer so far. state: waiting, loading, writing, done, stopped or failed (`note` says why).

    first, seconds: until its first and its last token, without loading. speed: tokens a second after the first.
    """

    model: str
    label: str
    state: str = "waiting"
    text: str = ""
    thought: str = ""
    tokens: int = 0
    prompt_tokens: int = 0
    first: float = 0.0
    seconds: float = 0.0
    speed: float | None = None
    chat: bool = False
    note: str = ""


class Chat:
    """The desk of one lab; `Lab.chat`."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._live: OrderedDict[str, list[Reply]] = OrderedDict()

    def ask(self, pair: Pair, prompt: str, models: Sequence[str], manner: Manner) -> str:
        """Queue one prompt for several models, which answer one after the other; the job's id.

        `models` are keys of `Benchmarks.models`. LabError at once for none, too many, an unknown one, or no prompt.
        """
        if not prompt.strip():
            raise LabError("there is nothing to answer; write a prompt first")
        if not 0 < len(models) <= MOST_MODELS:
            raise LabError(f"{len(models)} models were chosen; choose 1 to {MOST_MODELS}")
        targets = [benching_models.target(self._bench, pair, key) for key in models]
        replies = [Reply(target.key, target.label) for target in targets]

        def work(tick: Tick) -> dict[str, Any]:
            for place, target in enumerate(targets):
                share = part(tick, place / len(targets), (place + 1) / len(targets))
                _answer(target, prompt, manner, partial(replies.__setitem__, place), replies[place], share)
            return {"prompt": prompt, "replies": [asdict(reply) for reply in replies]}

        job = self._bench.jobs.submit("ask", f"Asking {len(targets)} models", work, interactive=True)
        self._live[job] = replies
        while len(self._live) > _KEPT:
            self._live.popitem(last=False)
        return job

    def replies(self, job_id: str) -> list[Reply]:
        """The answers of an ask so far, in the order asked; once its job is over none is still to come. LabError for a
        job that is none or left nothing."""
        view = self._bench.jobs.status(job_id)
        if job_id in self._live:
            told = list(self._live[job_id])
            return told if view.open else [_ended(reply, view.error) for reply in told]
        if view.kind != "ask" or not view.result:
            raise LabError("these answers are gone; ask again")
        return [Reply(**row) for row in view.result["replies"]]

    # ------------------------------------------------------------------------------------------------ speed

    def request_speed(self, pair: Pair, model: str) -> str:
        """Queue the timing of a model by batch size; see `speed`."""
        target = benching_models.target(self._bench, pair, model)

        def work(tick: Tick) -> list[dict[str, Any]]:
            from darwin_lab.scoring.speed import speed_test

            tick(0.0, f"loading {target.label}")
            rows = [asdict(row) for row in speed_test(target.load(), tick=tick)]
            self._bench.store.put_note(_SPEED, self._scope(pair), target.key, rows)
            return rows

        key = f"speed:{self._scope(pair)}:{target.key}"
        return self._bench.jobs.submit("speed", f"Speed of {target.label}", work, key=key, interactive=True)

    def speed(self, pair: Pair, model: str) -> list[dict[str, Any]] | None:
        """Rows {"batch", "reading", "writing"} - each rate [median, slowest, fastest] tokens a second, or None where
        the batch did not fit - as measured last on this device with this many threads; None until then."""
        rows: list[dict[str, Any]] | None = self._bench.store.notes(_SPEED, self._scope(pair)).get(model)
        return rows

    def _scope(self, pair: Pair) -> str:
        return f"{pair.key}:{self._bench.device}:{self._bench.threads(pair)}"


def _answer(
    target: benching_models.Target, prompt: str, manner: Manner, show: partial[None], reply: Reply, tick: Tick
) -> None:
    """One model's answer, shown token by token; what it cannot do is its reply's note, and the next one goes on."""
    from darwin_lab.scoring.chat import converse

    now = replace(reply, state="loading")
    show(now)
    tick(0.0, f"loading {target.label}")

    def watch(said: Said) -> None:
        nonlocal now
        now = _told(reply, said, "writing")
        show(now)
        tick(min(said.tokens / manner.max_new_tokens, 1.0), f"{target.label} writes")

    try:
        now = _told(reply, converse(target.load(), prompt, manner, watch), "done")
    except LabError as error:
        now = replace(now, state="failed", note=str(error))
    except Cancelled:
        now = replace(now, state="stopped", note="stopped")
        raise
    finally:
        show(now)


def _ended(reply: Reply, error: str | None) -> Reply:
    """The reply when its job is over: one that was not finished never will be."""
    if reply.state not in ("waiting", "loading", "writing"):
        return reply
    return replace(reply, state="failed", note=error) if error else replace(reply, state="stopped", note="stopped")


def _told(reply: Reply, said: Said, state: str) -> Reply:
    ends = {"length": "cut at the tokens asked for, or at the end of its context", "end": "it ended here", "": ""}
    return replace(
        reply,
        state=state,
        text=said.text,
        thought=said.thought,
        tokens=said.tokens,
        prompt_tokens=said.prompt_tokens,
        first=said.first,
        seconds=said.seconds,
        speed=said.speed,
        chat=said.chat,
        note=ends[said.ended],
    )
