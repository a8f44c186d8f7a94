"""A lab over tiny random parents, with a few items and probes of their own."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair

ITEMS_A_TASK = 10
PROBES = ("MATH", "NEUTRAL")


def write_items(path: Path) -> Path:
    rng = random.Random(0)
    rows = []
    for task in ("ADD", "TAKE"):
        for split in ("selection", "validation", "report"):
            for number in range(ITEMS_A_TASK):
                x, y = rng.randrange(50), rng.randrange(50)
                rows.append({
                    "id": f"{task}-{split}-{number}", "task": task, "question": f"{x}+{y}",
                    "choices": [str(x + y + step) for step in range(3)], "answer": rng.randrange(3),
                    "meta": {"split": split},
                })  # fmt: skip
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def write_probes(path: Path) -> Path:
    rng = random.Random(1)
    rows = [
        {"probe": probe, "text": "".join(rng.choice("abc123+=. ") for _ in range(24))}
        for probe in PROBES
        for _ in range(4)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def at_every_step(lab: Lab, act: Callable[[], None]) -> None:
    """From now on `act` runs wherever a long job lets interactive ones in: between probes, between candidates."""
    original = lab.jobs.yield_point

    def step() -> None:
        act()
        original()

    lab.jobs.yield_point = step  # type: ignore[method-assign]


@pytest.fixture(scope="session")
def measures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Items and probes for the tiny models, as keyword arguments of `open_pair`."""
    folder = tmp_path_factory.mktemp("measures")
    return {"items": [write_items(folder / "items.jsonl")], "probes": write_probes(folder / "probes.jsonl")}


@pytest.fixture
def new_lab(tmp_path: Path) -> Iterator[Callable[..., Lab]]:
    """Opens labs; every one that is still open is closed at the end."""
    opened: list[Lab] = []

    def open_lab(home: Path | None = None, **options: Any) -> Lab:
        opened.append(Lab(home or tmp_path / "home", **{"cpus": 1, **options}))
        return opened[-1]

    yield open_lab
    for lab in opened:
        if not lab.jobs._closing:
            lab.close()


@pytest.fixture
def lab(new_lab: Callable[..., Lab]) -> Lab:
    return new_lab()


@pytest.fixture
def pair(lab: Lab, tiny_llama_pair: tuple[Path, Path, Path], measures: dict[str, Any]) -> Pair:
    return lab.open_pair(*tiny_llama_pair, **measures)


@pytest.fixture
def nothing_kept(lab: Lab) -> Iterator[None]:
    """Forgets, after a test, the scans it kept."""
    yield
    for about in lab.saved.list():
        lab.saved.forget(about.id)
