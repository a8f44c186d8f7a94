"""Written answers from an OpenAI-compatible endpoint: a model that vLLM, SGLang or another server holds.

Takes a URL and a model's name there, gives the `Ask` that protocols take; what comes back is read as a model in memory
is. The key stays in the environment variable the user names: it goes into the request's header and nowhere else. Knows
nothing about protocols, right answers or storage.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any

import httpx

from darwin_lab.errors import LabError
from darwin_lab.progress import Tick
from darwin_lab.scoring.asking import PLAINLY, greedy_rows
from darwin_lab.scoring.draws import uniform
from darwin_lab.scoring.endpoint_http import RefusedError, Server
from darwin_lab.scoring.endpoint_reply import Heard, heard
from darwin_lab.scoring.items import Item
from darwin_lab.scoring.kept import Entry, Kept
from darwin_lab.scoring.letters import Order
from darwin_lab.scoring.protocols import Ask, Call, Reply
from darwin_lab.scoring.questions import (
    CUES,
    Asking,
    answer_in,
    extraction_of,
    messages_of,
    order_of,
    plain_text,
    stops_of,
    turns_of,
)
from darwin_lab.scoring.thinking import SPENT, TAGS

TOP_TOKENS = 5
"""How many likeliest tokens a server is asked for, where the margin of an answer is wanted."""
_TICK_SECONDS = 0.2
_CONTINUE = {"add_generation_prompt": False, "continue_final_message": True}
"""What makes vLLM and SGLang go on with an assistant's message instead of beginning a new one."""


@dataclass(frozen=True)
class Said:
    """What an endpoint said to one question: `text` without its `thought`. `closed`: the thought's budget was spent and
    we closed it; `lost`: it was spent, and the server could not be made to go on to an answer."""

    text: str
    thought: str = ""
    margin: float | None = None
    closed: bool = False
    lost: bool = False


@dataclass(frozen=True)
class _Question:
    item: str
    payload: dict[str, Any]
    cue: str


class Endpoint:
    """A model behind `url` (".../v1"; a bare host gets it). At most `concurrency` requests are under way at once.

    `retries`, `timeout`, `pause` and `key_env` as `Server` has them. After answers came, `said` has them all:
    what a budget for thinking cost, and which greedy ones came without a margin, can be counted there.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key_env: str | None = None,
        concurrency: int = 4,
        retries: int = 3,
        timeout: float = 60.0,
        pause: float = 0.5,
    ) -> None:
        if concurrency < 1:
            raise LabError("--concurrency must be above 0")
        self._server = Server(url, model, key_env, retries, timeout, pause)
        self.url, self.model = self._server.url, model
        self.said: dict[str, Said] = {}
        self.continues: bool | None = None
        self._concurrency = concurrency
        self._no_probabilities = False

    def asked(
        self, items: Sequence[Item], how: Asking = PLAINLY, keep: Kept | None = None, *, margins: bool = False
    ) -> Ask:
        """The model as a protocol asks it: chat completions with `how.chat`, otherwise completions.

        A sampled call has a seed that belongs to (how.seed, item id, sample). With `margins` the greedy calls ask for
        probabilities, and their replies have a margin where the server gives any. A thinking budget is kept by a second
        request that closes the thought, where the server goes on with a message it is given; elsewhere `max_tokens`
        bounds thought and answer together, and a thought that takes all of it leaves no answer. What is said goes to
        `keep` as it comes, the thought apart from the text, and is not asked for again. Raises LabError, in one line,
        for a server that cannot be reached, refuses, answers something else, or does not tell a thought whose budget
        is spent from an answer.
        """

        def ask(calls: Sequence[Call], tick: Tick) -> list[Reply]:
            if how.thinking_budget is not None and self.continues is None:
                self.continues = self._goes_on(how)
            orders = [order_of(items[call.item], call, how.seed) for call in calls]
            names: list[str] = []
            wanted: dict[str, _Question] = {}
            asked: dict[str, list[tuple[Call, Order | None]]] = {}
            for call, order in zip(calls, orders, strict=True):
                item = items[call.item]
                payload = self._payload(item, call, order, how, margins)
                names.append(_digest(self.url, payload, how))
                wanted[names[-1]] = _Question(item.id, payload, CUES.get(extraction_of(item), ""))
                asked.setdefault(names[-1], []).append((call, order))
            known = {name: keep.get(name) for name in wanted} if keep else {}
            self.said.update((name, Said(**value)) for name, value in known.items() if value is not None)
            missing = {name: given for name, given in wanted.items() if known.get(name) is None}

            def came(name: str, said: Said) -> None:
                self.said[name] = said
                if keep is not None:
                    rows = [
                        row
                        for call, order in asked[name]
                        for row in greedy_rows(items[call.item], call, answer_in(items[call.item], order, said.text))
                    ]
                    keep.put([Entry(name, asdict(said), tuple(rows))])

            self._fetch(missing, how, came, tick)
            tick(1.0, "answered")
            return [
                Reply(answer_in(items[call.item], order, said.text), said.text, said.margin, said.thought)
                for call, order, said in zip(calls, orders, map(self.said.__getitem__, names), strict=True)
            ]

        return ask

    def _payload(self, item: Item, call: Call, order: Order | None, how: Asking, margins: bool) -> dict[str, Any]:
        turns = turns_of(item, call, order)
        payload: dict[str, Any] = {
            "model": self.model,
            "max_tokens": how.max_new_tokens,
            "temperature": call.temperature,
            "seed": int(uniform("endpoint", how.seed, item.id, call.sample) * 2**31) if call.temperature else how.seed,
        }
        if how.thinking_budget is not None:
            payload["max_tokens"] = how.thinking_budget + (0 if self.continues else how.max_new_tokens)
        if margins and call.temperature == 0:
            payload |= {"logprobs": True, "top_logprobs": TOP_TOKENS} if how.chat else {"logprobs": TOP_TOKENS}
        if not how.chat:
            return {**payload, "prompt": plain_text(turns), "stop": list(stops_of(item))}
        return {**payload, **_thinking(how), "messages": messages_of(turns)}

    def _goes_on(self, how: Asking) -> bool:
        """Whether the server goes on with an assistant's message that it is given: asked with and without the flag for
        it, the prompts it reads differ in length. No item is shown to it for this."""
        opening, closing = TAGS[0]
        begun = {"role": "assistant", "content": f"{opening}\nIt is A.{SPENT}{closing}\n\nANSWER:"}
        payload = {
            "model": self.model, "max_tokens": 1, "temperature": 0, "add_generation_prompt": False, **_thinking(how),
            "messages": [{"role": "user", "content": "Which letter comes first?"}, begun],
        }  # fmt: skip
        with self._server.client() as client:
            try:
                read = [
                    heard(self._server.post(client, "chat/completions", {**payload, **more}, "(trial)"), self.url).read
                    for more in ({}, _CONTINUE)
                ]
            except RefusedError:
                return False
        return None not in read and read[0] != read[1]

    def _fetch(
        self, wanted: Mapping[str, _Question], how: Asking, came: Callable[[str, Said], None], tick: Tick
    ) -> None:
        """Asks the questions; `came` gets what is said to each by its name, in the caller's thread.

        Whoever stops the work waits for no answer that is under way.
        """
        stop = Event()
        client = self._server.client()
        todo: SimpleQueue[str] = SimpleQueue()
        found: SimpleQueue[tuple[str, Said | Exception]] = SimpleQueue()
        for name in wanted:
            todo.put(name)

        def work() -> None:
            while not stop.is_set():
                try:
                    name = todo.get_nowait()
                except Empty:
                    return
                try:
                    found.put((name, self._ask(client, wanted[name], how, stop)))
                except Exception as error:
                    found.put((name, error))

        for number in range(min(self._concurrency, len(wanted))):
            Thread(target=work, name=f"endpoint {number}", daemon=True).start()
        left = len(wanted)
        try:
            while left:
                tick(1 - left / len(wanted), f"{left} answers to come from {self.model}")
                try:
                    name, said = found.get(timeout=_TICK_SECONDS)
                except Empty:
                    continue
                if isinstance(said, Exception):
                    raise said
                came(name, said)
                left -= 1
        finally:
            stop.set()
            client.close()

    def _ask(self, client: httpx.Client, question: _Question, how: Asking, stop: Event) -> Said:
        """What the model says to one question, its thought closed where a budget for it is spent."""
        first = self._heard(client, question, {}, how, stop)
        if how.thinking_budget is None or not first.cut:
            return Said("" if first.thinking else first.text, first.thought, first.margin)
        if not first.marked:
            raise LabError(
                f"item {question.item!r}: {self.url} spent {question.payload['max_tokens']} tokens and marks no "
                "thought (no reasoning_content, no <think>), so its budget cannot be kept; start the server with its "
                "reasoning parser, or leave out --thinking-budget"
            )
        if not self.continues:
            return Said("" if first.thinking else first.text, first.thought, first.margin, lost=first.thinking)
        opening, closing = first.tags or TAGS[0]
        begun = question.cue if first.thinking else first.text
        ending = SPENT if first.thinking else "\n"
        message = {"role": "assistant", "content": f"{opening}\n{first.thought}{ending}{closing}\n\n{begun}"}
        more = {"messages": [*question.payload["messages"], message], "max_tokens": how.max_new_tokens, **_CONTINUE}
        rest = self._heard(client, question, more, how, stop)
        # A reasoning parser may take what follows a thought that the prompt closed for a thought.
        said = rest.text if rest.tags else rest.text or rest.thought
        return Said(f"{begun}{said}", first.thought, rest.margin, closed=first.thinking)

    def _heard(
        self, client: httpx.Client, question: _Question, more: Mapping[str, Any], how: Asking, stop: Event
    ) -> Heard:
        """One answer; a server that gives no probabilities is asked without from then on."""
        path, payload = "chat/completions" if how.chat else "completions", {**question.payload, **more}
        url = f"{self.url}/{path}"
        plain = {name: value for name, value in payload.items() if name not in ("logprobs", "top_logprobs")}
        if plain == payload or self._no_probabilities:
            return heard(self._server.post(client, path, plain, question.item, stop), url)
        try:
            return heard(self._server.post(client, path, payload, question.item, stop), url)
        except RefusedError:
            answer = heard(self._server.post(client, path, plain, question.item, stop), url)
            self._no_probabilities = True
            return answer


def _thinking(how: Asking) -> dict[str, Any]:
    """What tells a server's chat template to think or not."""
    return {} if how.thinking is None else {"chat_template_kwargs": {"enable_thinking": how.thinking}}


def _digest(url: str, payload: Mapping[str, Any], how: Asking) -> str:
    """A digest of all that an answer depends on."""
    asked = [url, payload] if how.thinking_budget is None else [url, payload, how.thinking_budget, how.max_new_tokens]
    return hashlib.blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=16).hexdigest()
