"""mergekit 0.1.5 in an environment of its own, for the scripts that compare with it. Not run by itself.

The environment sees the lab's own torch, transformers and safetensors, so that both tools stand on the same ones;
mergekit and the few packages it needs beside them are installed into it alone.
"""

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

DEFAULT_FOLDER = Path(tempfile.gettempdir()) / "darwin-lab-mergekit"
PINS = ("mergekit==0.1.5", "immutables==0.21", "accelerate==1.15.0", "peft==0.19.1")


def prepare(folder: Path = DEFAULT_FOLDER) -> Path:
    """The environment's Python; made on first use."""
    python, ready = folder / "bin" / "python", folder / "ready.json"
    if ready.exists() and json.loads(ready.read_text()) == [sys.prefix, *PINS]:
        return python
    print(f"installing mergekit into {folder}", flush=True)
    venv.create(folder, clear=True, with_pip=True)
    ask = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    inside = subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout.strip()
    (Path(inside) / "lab.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", *PINS], check=True)
    ready.write_text(json.dumps([sys.prefix, *PINS]))
    return python


def merge_command(python: Path, config: Path, out: Path) -> list[str]:
    """mergekit's own shell on one thread, seeded, without a model card."""
    options = ["--no-write-model-card", "--no-copy-tokenizer", "--num-threads", "1", "--random-seed", "0", "--quiet"]
    return [str(python), "-m", "mergekit.scripts.run_yaml", str(config), str(out), *options]


def one_thread() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
