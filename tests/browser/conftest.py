"""The real page in a headless browser: one server a session, and a page that fails on any console error or any
request that leaves the machine. Skipped where there is no chromium."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
WIDE = {"width": 1440, "height": 1000}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's folder that the server and the tests share."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def app_url(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `python app.py` with an empty store."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    port, scratch = free_port(), tmp_path_factory.mktemp("server")
    settings = {
        "GRADIO_SERVER_PORT": str(port), "GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_TEMP_DIR": str(scratch),
        "DARWIN_LAB_HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1",
    }  # fmt: skip
    log, url = scratch / "server.log", f"http://127.0.0.1:{port}"
    with log.open("w") as lines:
        server = subprocess.Popen(
            [sys.executable, "app.py"], cwd=ROOT, env={**os.environ, **settings}, stdout=lines, stderr=subprocess.STDOUT
        )
    try:
        wait_for(server, url, log)
        yield url
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def wait_for(server: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    for _ in range(480):
        if server.poll() is not None:
            pytest.fail("the server died at start:\n" + log.read_text())
        try:
            urllib.request.urlopen(url + "/gradio_api/startup-events", timeout=1)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.25)
    pytest.fail("the server did not start:\n" + log.read_text())


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless chromium."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    drivers = pytest.importorskip("playwright.sync_api")
    flags = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update"]
    with drivers.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, app_url: str) -> Iterator[Any]:
    """A fresh visitor; at the end the test fails if anything went wrong in the console or left the machine."""
    context = browser.new_context(viewport=WIDE, accept_downloads=True)
    context.set_default_timeout(120_000)
    opened, wrong = context.new_page(), []
    opened.on("pageerror", lambda error: wrong.append(f"page error: {error}"))
    opened.on("console", lambda said: wrong.append(f"console: {said.text}") if said.type == "error" else None)
    opened.on("response", lambda got: wrong.append(f"{got.status}: {got.url}") if got.status >= 400 else None)
    opened.on(
        "request", lambda asked: wrong.append(f"left the machine: {asked.url}") if outside(asked.url, app_url) else None
    )
    opened.goto(app_url)
    yield opened
    context.close()
    assert not wrong, wrong[:5]


def outside(url: str, app_url: str) -> bool:
    """Whether a request goes anywhere but to the server (data: and blob: stay in the browser)."""
    return url.startswith(("http", "ws")) and not url.startswith(app_url)
