"""lm-evaluation-harness in an environment of its own, and how the other scripts here ask it.

The environment sees the lab's own torch and transformers, so that both sides run the very same model code; lm-eval
and what it needs beside them are installed into it alone, at pinned versions and without letting pip choose.
"""

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from darwin_lab.scoring.items import Item
from darwin_lab.scoring.shots import SEED

DEFAULT_FOLDER = Path(tempfile.gettempdir()) / "darwin-lab-lm-eval"
EXTRA = Path(__file__).resolve().parents[1] / "requirements-lm-eval.txt"
PINS = EXTRA.read_text(encoding="utf-8").split()


@dataclass(frozen=True)
class Task:
    """Items of one task, and the pool its shots are drawn from (None: from the items themselves).

    With `same` every item follows the first shots of the pool."""

    name: str
    items: Sequence[Item]
    pool: Sequence[Item] | None
    same: bool = False


def prepare(folder: Path) -> Path:
    """The environment's Python; made on first use."""
    python = folder / "bin" / "python"
    ready = folder / "ready.json"
    if ready.exists() and json.loads(ready.read_text()) == [sys.prefix, *PINS]:
        return python
    print(f"installing lm-evaluation-harness into {folder}", flush=True)
    venv.create(folder, clear=True, with_pip=True)
    inside = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    (Path(inside) / "lab.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", *PINS], check=True)
    ready.write_text(json.dumps([sys.prefix, *PINS]))
    return python


def ask(
    python: Path,
    model: Path,
    tasks: Sequence[Task],
    *,
    shots: int,
    seed: int = SEED,
    dtype: str = "float32",
    threads: int = 1,
    batch_size: int = 8,
) -> dict[str, Any]:
    """What `lm_eval_side.py` answers: {task: {seconds, acc, acc_norm, items: {id: ...}}}."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        request = {
            "model": str(model), "dtype": dtype, "threads": threads, "batch_size": batch_size, "shots": shots,
            "seed": seed,
            "tasks": [
                {
                    "name": task.name,
                    "items": _write(folder / f"{task.name}.jsonl", task.items),
                    "pool": _write(folder / f"{task.name}-pool.jsonl", task.pool) if task.pool else None,
                    "style": task.items[0].meta.get("style", "question"),
                    "same": task.same,
                }
                for task in tasks
            ],
        }  # fmt: skip
        (folder / "request.json").write_text(json.dumps(request))
        done = subprocess.run(
            [python, Path(__file__).with_name("lm_eval_side.py"), folder / "request.json", folder / "answer.json"],
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "HF_DATASETS_CACHE": str(folder / "cache")},
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"lm-evaluation-harness failed:\n{done.stderr[-3000:]}")
        answer: dict[str, Any] = json.loads((folder / "answer.json").read_text())
        return answer


def _write(path: Path, items: Sequence[Item]) -> str:
    rows = ({"id": i.id, "question": i.question, "choices": i.choices, "answer": i.answer} for i in items)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)
