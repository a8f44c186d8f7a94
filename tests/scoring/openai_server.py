"""A local OpenAI-compatible server for tests: it answers by a script and remembers what it was asked."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any, dict[str, str]]
"""Status, body (text, or what becomes JSON) and headers."""


class Served:
    """What a server was asked: `requests` (path, payload), `keys` (Authorization headers), `most_at_once`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.keys: list[str | None] = []
        self.most_at_once = self._now = 0
        self._lock = threading.Lock()

    def enter(self, path: str, payload: dict[str, Any], key: str | None) -> int:
        with self._lock:
            self.requests.append((path, payload))
            self.keys.append(key)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            return len(self.requests) - 1

    def leave(self) -> None:
        with self._lock:
            self._now -= 1


def said(path: str, text: str | None, *, read: int = 0, cut: bool = False, **more: Any) -> Answer:
    """A completion as vLLM writes it, with `more` in its message (of a chat) or its choice."""
    if path.endswith("chat/completions"):
        logprobs = {"logprobs": more.pop("logprobs")} if "logprobs" in more else {}
        choice = {"message": {"role": "assistant", "content": text, **more}, **logprobs}
    else:
        choice = {"text": text, **more}
    whole = {"index": 0, "finish_reason": "length" if cut else "stop", **choice}
    return 200, {"object": "completion", "choices": [whole], "usage": {"prompt_tokens": read}}, {}


def refused(code: int, words: str, **headers: str) -> Answer:
    """An error as vLLM writes it."""
    return code, {"error": {"message": words, "code": code}}, headers


@contextmanager
def serving(answer: Callable[[int, str, dict[str, Any]], Answer]) -> Iterator[Served]:
    """A server on a free port; `answer(number, path, payload)` makes each reply, in a thread of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            if not sent:
                return  # the client went away
            payload = json.loads(sent)
            number = served.enter(self.path, payload, self.headers.get("Authorization"))
            try:
                code, body, headers = answer(number, self.path, payload)
            finally:
                served.leave()  # before the reply: whoever reads it may already ask again
            try:
                raw = (body if isinstance(body, str) else json.dumps(body)).encode()
                self.send_response(code)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)
            except OSError:
                pass

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served = Served(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
