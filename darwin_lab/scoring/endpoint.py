"""Written answers from an OpenAI-compatible endpoint: a model that vLLM, SGLang or another server holds.

Takes a URL and a model's name there, gives the `Ask` that protocols take; what comes back is read as a model in memory
is. The key stays in the environment variable the user names: it goes into the request's header and nowhere else. Knows
nothing about protocols, right answers or storage.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

import httpx

from darwin_lab.errors import LabError
from darwin_lab.progress import Tick
from darwin_lab.scoring.asking import PLAINLY, greedy_rows
from darwin_lab.scoring.draws import uniform
from darwin_lab.scoring.items import Item
from darwin_lab.scoring.kept import Entry, Kept
from darwin_lab.scoring.letters import Order
from darwin_lab.scoring.protocols import Ask, Call, Reply
from darwin_lab.scoring.questions import Asking, answer_in, messages_of, order_of, plain_text, stops_of, turns_of

AGAIN = frozenset((408, 429, 500, 502, 503, 504))
"""Answers of a server that may be another one a little later."""
LONGEST_WAIT = 60.0
_TICK_SECONDS = 0.2


class Endpoint:
    """A model behind `url` (".../v1"; a bare host gets it). At most `concurrency` requests are under way at once.

    One that is refused for now (429, 5xx) or takes longer than `timeout` seconds is sent again up to `retries` times,
    after `pause` seconds, twice that, and so on, or after what the server asks for. Raises LabError for a URL that is
    none and a key variable that is not set.
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
        self.url, self.model = _base(url), model
        if not model.strip():
            raise LabError("an endpoint serves models by name; say which with --endpoint-model")
        if concurrency < 1 or retries < 0 or timeout <= 0:
            raise LabError("--concurrency and --timeout must be above 0, --retries 0 or more")
        self._concurrency, self._retries, self._timeout, self._pause = concurrency, retries, timeout, pause
        self._key_env = key_env
        if key_env is not None and not os.environ.get(key_env):
            raise LabError(f"the environment variable {key_env} is not set; put the endpoint's key there")
        if not all("!" <= letter <= "~" for letter in self._key()):
            raise LabError(
                f"the environment variable {key_env} holds no key (white space or accents in it); set it anew"
            )

    def asked(self, items: Sequence[Item], how: Asking = PLAINLY, keep: Kept | None = None) -> Ask:
        """The model as a protocol asks it: chat completions with `how.chat`, otherwise completions.

        A sampled call has a seed that belongs to (how.seed, item id, sample). Replies have no margin, so a confidence
        gate judges by agreement. Texts go to `keep` as they come, and are not asked for again. Raises LabError, in one
        line, for a server that cannot be reached, refuses, or answers something else, and for a thinking budget.
        """
        if how.thinking_budget is not None:
            raise LabError("an endpoint closes its thoughts itself; leave out --thinking-budget, or score in memory")

        def ask(calls: Sequence[Call], tick: Tick) -> list[Reply]:
            orders = [order_of(items[call.item], call, how.seed) for call in calls]
            names: list[str] = []
            wanted: dict[str, tuple[str, dict[str, Any]]] = {}
            asked: dict[str, list[tuple[Call, Order | None]]] = {}
            for call, order in zip(calls, orders, strict=True):
                payload = self._payload(items[call.item], call, order, how)
                names.append(_digest(self.url, payload))
                wanted[names[-1]] = items[call.item].id, payload
                asked.setdefault(names[-1], []).append((call, order))
            texts = {name: keep.get(name) for name in wanted} if keep else {}
            texts = {name: text for name, text in texts.items() if text is not None}

            def came(name: str, text: str) -> None:
                texts[name] = text
                if keep is not None:
                    rows = [
                        row
                        for call, order in asked[name]
                        for row in greedy_rows(items[call.item], call, answer_in(items[call.item], order, text))
                    ]
                    keep.put([Entry(name, text, tuple(rows))])

            self._fetch("chat/completions" if how.chat else "completions",
                        {name: given for name, given in wanted.items() if name not in texts}, came, tick)  # fmt: skip
            tick(1.0, "answered")
            return [
                Reply(answer_in(items[call.item], order, texts[name]), texts[name])
                for call, order, name in zip(calls, orders, names, strict=True)
            ]

        return ask

    def _payload(self, item: Item, call: Call, order: Order | None, how: Asking) -> dict[str, Any]:
        turns = turns_of(item, call, order)
        payload: dict[str, Any] = {
            "model": self.model,
            "max_tokens": how.max_new_tokens,
            "temperature": call.temperature,
            "seed": int(uniform("endpoint", how.seed, item.id, call.sample) * 2**31) if call.temperature else how.seed,
        }
        if not how.chat:
            return {**payload, "prompt": plain_text(turns), "stop": list(stops_of(item))}
        if how.thinking is not None:
            payload["chat_template_kwargs"] = {"enable_thinking": how.thinking}
        return {**payload, "messages": messages_of(turns)}

    def _fetch(
        self,
        path: str,
        wanted: Mapping[str, tuple[str, dict[str, Any]]],
        came: Callable[[str, str], None],
        tick: Tick,
    ) -> None:
        """Sends the requests (item id, payload); `came` gets each text by its name, in the caller's thread.

        Whoever stops the work waits for no answer that is under way.
        """
        stop = Event()
        key = self._key()
        client = httpx.Client(timeout=self._timeout, headers={"Authorization": f"Bearer {key}"} if key else {})
        todo: SimpleQueue[str] = SimpleQueue()
        found: SimpleQueue[tuple[str, str | Exception]] = SimpleQueue()
        for name in wanted:
            todo.put(name)

        def work() -> None:
            while not stop.is_set():
                try:
                    name = todo.get_nowait()
                except Empty:
                    return
                try:
                    found.put((name, self._text(client, path, *wanted[name], stop)))
                except Exception as error:
                    found.put((name, error))

        for number in range(min(self._concurrency, len(wanted))):
            Thread(target=work, name=f"endpoint {number}", daemon=True).start()
        left = len(wanted)
        try:
            while left:
                tick(1 - left / len(wanted), f"{left} answers to come from {self.model}")
                try:
                    name, text = found.get(timeout=_TICK_SECONDS)
                except Empty:
                    continue
                if isinstance(text, Exception):
                    raise text
                came(name, text)
                left -= 1
        finally:
            stop.set()
            client.close()

    def _text(self, client: httpx.Client, path: str, item: str, payload: dict[str, Any], stop: Event) -> str:
        """What the model wrote; a request that fails for now is sent again."""
        url = f"{self.url}/{path}"
        for attempt in range(self._retries + 1):
            pause = self._pause * 2**attempt
            try:
                answer = client.post(url, json=payload)
            except httpx.TimeoutException:
                trouble = f"gives no answer within {self._timeout:g} s"
            except httpx.ConnectError as error:
                raise LabError(f"{url} cannot be reached ({_line(str(error))}); is the server running there?") from None
            except httpx.TransportError as error:
                trouble = f"breaks the connection ({_line(str(error)) or type(error).__name__})"
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise LabError(f"{url} cannot be asked ({_line(str(error))}); check --endpoint") from None
            else:
                if answer.status_code not in AGAIN:
                    return _said(self._accepted(answer, url, item), url)
                trouble = f"answers HTTP {answer.status_code}{self._words(answer)}"
                pause = max(pause, _asked_pause(answer))
            if attempt < self._retries and stop.wait(min(pause, LONGEST_WAIT)):
                break
        raise LabError(
            f"item {item!r}: {url} {trouble}, {self._retries + 1} times; give a lower --concurrency or a longer "
            "--timeout"
        )

    def _accepted(self, answer: httpx.Response, url: str, item: str) -> httpx.Response:
        """The answer, unless it is a refusal. Raises LabError with what the server said."""
        code, words = answer.status_code, self._words(answer)
        if code in (401, 403):
            key = f"the key in {self._key_env}" if self._key_env else "a request without a key"
            raise LabError(f"{url} refuses {key} (HTTP {code}{words}); name the variable that holds it with --key-env")
        if code == 404:
            raise LabError(f"{url} knows no model {self.model!r} (HTTP 404{words}); {self.url}/models lists its models")
        if code != 200:
            raise LabError(f"item {item!r}: {url} refuses it (HTTP {code}{words}); mend the item or the settings")
        return answer

    def _words(self, answer: httpx.Response) -> str:
        """ ": " and what the server said, in one line and without the key."""
        try:
            error = answer.json()["error"]
            words = error["message"] if isinstance(error, dict) else error
        except (ValueError, KeyError, TypeError):
            words = answer.text
        key = self._key()
        words = _line(str(words).replace(key, "***") if key else str(words))
        return f": {words}" if words else ""

    def _key(self) -> str:
        """The key, as it is in the environment now; "" without one."""
        return os.environ.get(self._key_env, "").strip() if self._key_env else ""


def _said(answer: httpx.Response, url: str) -> str:
    """The text of a completion. Raises LabError for anything else."""
    try:
        choice = answer.json()["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
    except (ValueError, LookupError, TypeError):
        raise LabError(
            f"{url} answers something that is no completion ({_line(answer.text)!r}); is the server there "
            "OpenAI-compatible?"
        ) from None
    return text if isinstance(text, str) else ""


def _base(url: str) -> str:
    """The endpoint's root, ending in /v1 unless another path was given."""
    plain = url.strip().rstrip("/")
    for ending in ("/chat/completions", "/completions"):
        plain = plain.removesuffix(ending)
    try:
        parts = urlsplit(plain)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise LabError(f"{url!r} is not the address of a server; give one such as http://localhost:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise LabError(
            "an endpoint's address holds no key or question; put the key in a variable and name it, --key-env"
        )
    return plain if parts.path else f"{plain}/v1"


def _asked_pause(answer: httpx.Response) -> float:
    """Seconds the server asks to wait; 0 where it does not say."""
    asked = answer.headers.get("retry-after", "")
    return float(asked) if asked.isdigit() else 0.0


def _digest(url: str, payload: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps([url, payload], sort_keys=True).encode(), digest_size=16).hexdigest()


def _line(text: str) -> str:
    """A server's words in one line."""
    return " ".join(text.split())[:200]
