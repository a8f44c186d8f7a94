"""Requests to an OpenAI-compatible server: sent again while it is busy, refused in one line, the key kept out of words.

Takes a URL and a payload, gives the response that was accepted. Knows nothing about items beyond the id an error names,
and nothing about what an answer means.
"""

import os
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import httpx

from darwin_lab.errors import LabError

AGAIN = frozenset((408, 429, 500, 502, 503, 504))
"""Answers of a server that may be another one a little later."""
LONGEST_WAIT = 60.0


class RefusedError(LabError):
    """The server understood a request and will not do it, whoever asks."""


class Server:
    """The server behind `url` (".../v1"; a bare host gets it), asked for `model`.

    A request that is refused for now (429, 5xx) or takes longer than `timeout` seconds is sent again up to `retries`
    times, after `pause` seconds, twice that, and so on, or after what the server asks for. Raises LabError for a URL
    that is none and a key variable that is not set.
    """

    def __init__(self, url: str, model: str, key_env: str | None, retries: int, timeout: float, pause: float) -> None:
        self.url, self.model = _base(url), model
        if not model.strip():
            raise LabError("an endpoint serves models by name; say which with --endpoint-model")
        if retries < 0 or timeout <= 0:
            raise LabError("--timeout must be above 0, --retries 0 or more")
        self._retries, self._timeout, self._pause = retries, timeout, pause
        self._key_env = key_env
        if key_env is not None and not os.environ.get(key_env):
            raise LabError(f"the environment variable {key_env} is not set; put the endpoint's key there")
        if not all("!" <= letter <= "~" for letter in self._key()):
            raise LabError(
                f"the environment variable {key_env} holds no key (white space or accents in it); set it anew"
            )

    def client(self) -> httpx.Client:
        """A client that sends the key; for any number of threads."""
        key = self._key()
        return httpx.Client(timeout=self._timeout, headers={"Authorization": f"Bearer {key}"} if key else {})

    def post(
        self, client: httpx.Client, path: str, payload: dict[str, Any], item: str, stop: Event | None = None
    ) -> httpx.Response:
        """What the server answers. Raises RefusedError or LabError, in one line; `stop` ends a wait between tries."""
        url = f"{self.url}/{path}"
        for attempt in range(self._retries + 1):
            pause = self._pause * 2**attempt
            try:
                answer = client.post(url, json=payload)
            except httpx.TimeoutException:
                trouble = f"gives no answer within {self._timeout:g} s"
            except httpx.ConnectError as error:
                raise LabError(
                    f"{url} cannot be reached ({one_line(str(error))}); is the server running there?"
                ) from None
            except httpx.TransportError as error:
                trouble = f"breaks the connection ({one_line(str(error)) or type(error).__name__})"
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise LabError(f"{url} cannot be asked ({one_line(str(error))}); check --endpoint") from None
            else:
                if answer.status_code not in AGAIN:
                    return self._accepted(answer, url, item)
                trouble = f"answers HTTP {answer.status_code}{self._words(answer)}"
                pause = max(pause, _asked_pause(answer))
            if attempt < self._retries and (stop or Event()).wait(min(pause, LONGEST_WAIT)):
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
            raise RefusedError(f"item {item!r}: {url} refuses it (HTTP {code}{words}); mend the item or the settings")
        return answer

    def _words(self, answer: httpx.Response) -> str:
        """ ": " and what the server said, in one line and without the key."""
        try:
            error = answer.json()["error"]
            words = error["message"] if isinstance(error, dict) else error
        except (ValueError, KeyError, TypeError):
            words = answer.text
        key = self._key()
        words = one_line(str(words).replace(key, "***") if key else str(words))
        return f": {words}" if words else ""

    def _key(self) -> str:
        """The key, as it is in the environment now; "" without one."""
        return os.environ.get(self._key_env, "").strip() if self._key_env else ""


def one_line(text: str) -> str:
    """A server's words in one line."""
    return " ".join(text.split())[:200]


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
