"""Memory of a merge on disk: does a 3B-parameter pair of bf16 checkpoints stay under 1 GB?

Writes two parents with random weights (6 GB each), merges them in a process of its own and watches that process's
anonymous memory. Needs 20 GB of disk in --folder. Prints the peak, what imports alone take, and the ratio to 1 GB.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.synthetic_llama import Shape, write_llama

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 10**9
_MERGE = """
import json, sys, threading, time
from pathlib import Path

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

import torch
torch.set_num_threads(1)
from darwin_lab.checkpoint.anatomy import read_anatomy
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.child import Child
from darwin_lab.engine.export import export_child
from darwin_lab.merging.recipe import uniform_recipe

imports = peak = anonymous()
done = threading.Event()

def watch():
    global peak
    while not done.wait(0.005):
        peak = max(peak, anonymous())

watcher = threading.Thread(target=watch)
watcher.start()
father, mother = (open_checkpoint(folder) for folder in sys.argv[1:3])
recipe = uniform_recipe(read_anatomy(father), 0.4, sys.argv[4], 0.6)
started = time.monotonic()
export_child(Child(father, mother, recipe), Path(sys.argv[3]), shard_size=2 * 10**9)
seconds = time.monotonic() - started
done.set()
watcher.join()
print(json.dumps({"imports": imports, "peak": peak, "seconds": seconds}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where the 20 GB go; default the system's temporary folder")
    parser.add_argument("--operators", nargs="+", default=["lerp", "slerp", "dare"])
    parser.add_argument("--layers", type=int, default=28, help="28 layers are 3 billion parameters")
    arguments = parser.parse_args()
    shape = Shape(arguments.layers, 3072, 8192)
    folder = Path(tempfile.mkdtemp(prefix="darwin-lab-memory-", dir=arguments.folder))
    try:
        parents = [write_llama(folder / name, shape, seed) for seed, name in enumerate(("father", "mother"))]
        print(f"parents: {shape.parameters / 1e9:.2f} B parameters each, bf16")
        worst = 0
        for operator in arguments.operators:
            out = folder / "child"
            started = time.monotonic()
            command = [sys.executable, "-c", _MERGE, *map(str, parents), str(out), operator]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr)
            found = json.loads(done.stdout)
            worst = max(worst, found["peak"])
            print(
                f"{operator:<8} peak anonymous memory {found['peak'] / 1e6:.0f} MB, of which imports "
                f"{found['imports'] / 1e6:.0f} MB; {found['seconds']:.0f} s of {time.monotonic() - started:.0f} s"
            )
            shutil.rmtree(out)
        print(f"ratio to 1 GB: {worst / LIMIT:.2f} (must stay under 1)")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
