"""Does the recipe alone decide the bytes? One child exported in every way there is, and killed at random moments.

Writes a trio of small Llamas with random weights, exports one child of each operator plainly, and again with 1, 2 and
4 threads, another process with another PYTHONHASHSEED, three shard sizes, two and three CPU "devices"; reads it in
pieces of two sizes; then kills exports at random moments and lets them go on; and changes one tensor's density. Prints
a line for each, and how many of all comparisons were byte-identical.

    python benchmarks/export_bytes.py [--operators O ...] [--kills N] [--seed N]
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.synthetic_llama import Shape, write_llama
from darwin_lab.checkpoint.anatomy import read_anatomy
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.child import Child
from darwin_lab.engine.export import export_child
from darwin_lab.merging.operators import OPERATORS, USES_DENSITY_B
from darwin_lab.merging.recipe import uniform_recipe

ROOT = Path(__file__).resolve().parents[1]
SHAPE = Shape(layers=6, hidden=256, ffn=704, vocabulary=4096, heads=8, kv_heads=4)
SHARD_SIZES = (600_000, 2_500_000, 10**9)
PIECES = (1 << 15, 1 << 19)
Digests = dict[str, str]


def child_of(folder: Path, operator: str) -> Child:
    father, mother, ancestor = (open_checkpoint(folder / name) for name in ("father", "mother", "ancestor"))
    return Child(father, mother, uniform_recipe(read_anatomy(father), 0.4, operator, 0.6, seed=7), ancestor)


def digests(folder: Path) -> Digests:
    """Tensor name -> SHA-256 of its bytes, whatever file it lies in."""
    checkpoint = open_checkpoint(folder)
    return {name: _digest(checkpoint.read(name).reshape(-1)) for name in checkpoint.names}


def _digest(flat: torch.Tensor) -> str:
    return hashlib.sha256(flat.view(torch.uint8).numpy().tobytes()).hexdigest()


def exported(place: Path, child: Child, threads: int = 1, **how: object) -> Digests:
    """The digests of one export, which is then removed."""
    torch.set_num_threads(threads)
    out = export_child(child, place / "child", **how)  # type: ignore[arg-type]
    torch.set_num_threads(1)
    found = digests(out)
    shutil.rmtree(out)
    return found


def in_another_process(place: Path, folder: Path, operator: str) -> Digests:
    script = (
        "import sys; from pathlib import Path; from benchmarks.export_bytes import child_of, export_child\n"
        "export_child(child_of(Path(sys.argv[1]), sys.argv[2]), Path(sys.argv[3]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", script, str(folder), operator, str(place / "child")]
    subprocess.run(command, check=True, cwd=ROOT, env=environment, capture_output=True)
    found = digests(place / "child")
    shutil.rmtree(place / "child")
    return found


def in_pieces(child: Child, size: int) -> Digests:
    return {name: _digest(torch.cat([*child.chunks(name, size)])) for name in child.names}


def killed_and_resumed(place: Path, child: Child, moment: float) -> tuple[Digests, int]:
    """An export killed after `moment` seconds and started again, and how many shards it found finished."""
    work: Callable[[], Path] = lambda: export_child(child, place / "child", shard_size=SHARD_SIZES[0])  # noqa: E731
    process = os.fork()
    if process == 0:
        work()
        os._exit(0)
    time.sleep(moment)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    whole = len(list(place.glob(".child.partial-*/*.safetensors")))
    if (place / "child").exists():
        shutil.rmtree(place / "child")
        whole = -1
    found = digests(work())
    left = sorted(path.name for path in place.iterdir())
    shutil.rmtree(place / "child")
    return (found if left == ["child"] else {}), whole


def one_density(child: Child) -> bool:
    """Whether another density for one tensor changes that tensor and no other."""
    name = "model.layers.3.mlp.up_proj.weight"
    rows = {**child.recipe.rows, name: replace(child.recipe.rows[name], density_b=0.55)}
    other = Child(child.father, child.mother, replace(child.recipe, rows=rows), child.ancestor)
    before, after = in_pieces(child, PIECES[0]), in_pieces(other, PIECES[0])
    return {tensor for tensor in before if before[tensor] != after[tensor]} == {name}


def compared(folder: Path, place: Path, operator: str) -> dict[str, bool]:
    """What was changed -> whether every tensor stayed the same, byte for byte."""
    child = child_of(folder, operator)
    plain = exported(place, child)
    ways: dict[str, Callable[[], Digests]] = {
        **{f"{threads} threads": lambda threads=threads: exported(place, child, threads) for threads in (2, 4)},
        **{f"shards of {size:,} B": lambda size=size: exported(place, child, shard_size=size) for size in SHARD_SIZES},
        **{f"pieces of {size:,}": lambda size=size: in_pieces(child, size) for size in PIECES},
        "another process, PYTHONHASHSEED and 2 threads": lambda: in_another_process(place, folder, operator),
        **{
            f"{lanes} cpu devices": lambda lanes=lanes: exported(
                place, child, shard_size=SHARD_SIZES[0], devices=("cpu",) * lanes
            )
            for lanes in (2, 3)
        },
    }
    same = {what: way() == plain for what, way in ways.items()}
    if operator in USES_DENSITY_B:
        same["one tensor's density changes that tensor alone"] = one_density(child)
    return same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operators", nargs="+", choices=OPERATORS, default=OPERATORS)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: list[bool] = []
    with tempfile.TemporaryDirectory(prefix="darwin-lab-bytes-") as temporary:
        folder, place = Path(temporary) / "parents", Path(temporary) / "place"
        place.mkdir()
        for seed, name in enumerate(("father", "mother", "ancestor")):
            write_llama(folder / name, SHAPE, seed)
        print(f"{SHAPE.parameters / 1e6:.1f} M parameters, bf16; {len(arguments.operators)} operators", flush=True)
        for operator in arguments.operators:
            same = compared(folder, place, operator)
            results += same.values()
            wrong = [what for what, held in same.items() if not held]
            told = f"; not with {', '.join(wrong)}" if wrong else ""
            print(f"{operator:<16} {sum(same.values())} of {len(same)} the same{told}", flush=True)
        results += kills(folder, place, arguments.kills, arguments.seed)
    print(f"byte-identical: {sum(results)} of {len(results)} ({sum(results) / len(results):.3f})")
    raise SystemExit(not all(results))


def kills(folder: Path, place: Path, count: int, seed: int) -> list[bool]:
    """One result a kill; a moment after the export had ended is drawn again."""
    child = child_of(folder, "dare_ties")
    child.fingerprint  # noqa: B018 - hashed once here, not again in every fork
    started = time.monotonic()
    ticks: list[float] = []
    plain = exported(place, child, shard_size=SHARD_SIZES[0], tick=lambda *_: ticks.append(time.monotonic() - started))
    length = ticks[-3]  # the last piece of the weights; the card and the end come after it
    moments, same, found = random.Random(seed), [], []
    while len(same) < count:
        digests_after, whole = killed_and_resumed(place, child, moments.uniform(0.0, length))
        if whole >= 0:
            same.append(digests_after == plain)
            found.append(whole)
    print(f"{count} kills within {length:.1f} s: {sum(same)} resumed to the same bytes; whole shards found: {found}")
    return same


if __name__ == "__main__":
    main()
