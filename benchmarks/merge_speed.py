"""What a merge costs beside mergekit, beside the floor, and in memory.

    python benchmarks/merge_speed.py [--repeats 3] [--parameters 300e6]

Writes a father, a mother and an ancestor (random bf16 Llamas), then on one thread, runs alternating:
  1. CPU seconds (user + system of the whole process, from the shell) of a merge by the lab and by mergekit, for
     dare_ties (density .6), slerp and lerp; smallest of the repeats, with start-up (`merge --help`) and without it
  2. lerp in one process against the floor: read both parents, write the child
  3. start-up of `merge --help`
  4. peak anonymous memory above imports of a dare_ties merge, and of one with four times as many layers
The lab's figures include the fingerprints of all parents, which it writes beside the child; mergekit makes none.
Prints each ratio beside its target. On a busy machine seconds grow and ratios wander: repeat.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.mergekit_env import DEFAULT_FOLDER, merge_command, one_thread, prepare
from benchmarks.synthetic_llama import Shape, write_llama

TARGETS = {"dare_ties": 0.3, "slerp": 0.6, "lerp": 0.6}
FLOOR_TARGET, HELP_TARGET, MEMORY_TARGET, GROWTH_TARGET = 2.0, 1.0, 250e6, 1.1
PARENTS = ("father", "mother", "ancestor")
RATIO, DENSITY = 0.4, 0.6
CHUNK = 1 << 17


def main() -> int:
    """Runs all four parts; 0 when every target is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--parameters", type=float, default=300e6, help="about how many (default 300e6)")
    parser.add_argument("--environment", type=Path, default=DEFAULT_FOLDER, help="where mergekit is installed")
    parser.add_argument("--folder", type=Path, default=None, help="where to write (about 16 bytes a parameter)")
    parser.add_argument("--inside", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        return inside(arguments.inside[0], Path(arguments.inside[1]))
    python = prepare(arguments.environment)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        root = Path(name)
        shape = shape_of(arguments.parameters)
        for number, who in enumerate(PARENTS):
            write_llama(root / "model" / who, shape, seed=number)
        print(f"{shape.parameters / 1e6:.0f} M parameters, {shape.layers} layers, bf16, one thread", flush=True)
        kept = [against_mergekit(python, root, arguments.repeats), against_floor(root / "model", arguments.repeats)]
        kept.append(in_memory(root, shape))
        return 0 if all(kept) else 1


def shape_of(parameters: float) -> Shape:
    """A Llama of that size, hidden size 1024."""
    one = Shape(layers=1, hidden=1024, ffn=2816, heads=16, kv_heads=16)
    layer = replace(one, layers=2).parameters - one.parameters
    return replace(one, layers=max(1, round((parameters - one.parameters) / layer) + 1))


def against_mergekit(python: Path, root: Path, repeats: int) -> bool:
    """Part 1 and 3: both shells, alternating."""
    lab = [sys.executable, "-m", "darwin_lab", "merge"]
    helps = {"lab": [*lab, "--help"], "mergekit": [str(python), "-m", "mergekit.scripts.run_yaml", "--help"]}
    startup = dict.fromkeys(helps, float("inf"))
    for _ in range(repeats):
        for tool, command in helps.items():
            startup[tool] = min(startup[tool], cpu_seconds(command))
    kept = report("start-up of merge --help, CPU s", startup["lab"], HELP_TARGET, f"mergekit {startup['mergekit']:.2f}")
    for operator, target in TARGETS.items():
        best = dict.fromkeys(helps, float("inf"))
        config = root / f"{operator}.yml"
        config.write_text(yaml.safe_dump(mergekit_config(root / "model", operator)))
        for turn in range(repeats):
            for tool in ("lab", "mergekit") if turn % 2 == 0 else ("mergekit", "lab"):
                out = root / f"child-{operator}-{tool}-{turn}"
                command = [*lab, *lab_arguments(root / "model", operator), "--out", str(out)]
                if tool == "mergekit":
                    command = merge_command(python, config, out)
                best[tool] = min(best[tool], cpu_seconds(command))
                subprocess.run(["rm", "-rf", str(out)], check=True)
        without = [best[tool] - startup[tool] for tool in ("lab", "mergekit")]
        words = f"{best['lab']:.2f} / {best['mergekit']:.2f} s; without start-up {without[0]:.2f} / {without[1]:.2f} s"
        kept &= report(
            f"{operator}, lab / mergekit", best["lab"] / best["mergekit"], target,
            f"{words} = {without[0] / without[1]:.2f}",
        )  # fmt: skip
    return kept


def lab_arguments(model: Path, operator: str) -> list[str]:
    """Arguments of `darwin_lab merge`, but for --out."""
    given = [str(model / "father"), str(model / "mother"), "--ratio", str(RATIO), "--operator", operator]
    if operator == "dare_ties":
        given += ["--ancestor", str(model / "ancestor"), "--density", str(DENSITY)]
    return given


def mergekit_config(model: Path, operator: str) -> dict[str, object]:
    """The same merge in mergekit's words; it reads, adds and writes in bfloat16 unless told otherwise."""
    models = [
        {"model": str(model / who), "parameters": {"weight": weight, "density": DENSITY}}
        for who, weight in (("father", 1 - RATIO), ("mother", RATIO))
    ]
    if operator == "dare_ties":
        return {"merge_method": operator, "base_model": str(model / "ancestor"), "models": models, "dtype": "bfloat16"}
    for entry in models:
        entry["parameters"].pop("density")  # type: ignore[attr-defined]
    if operator == "lerp":
        return {"merge_method": "linear", "models": models, "dtype": "bfloat16"}
    bare = [{"model": entry["model"]} for entry in models]
    base = str(model / "father")
    return {
        "merge_method": "slerp", "base_model": base, "models": bare, "parameters": {"t": RATIO}, "dtype": "bfloat16",
    }  # fmt: skip


def against_floor(model: Path, repeats: int) -> bool:
    """Part 2, in a process of its own."""
    best = {"floor": float("inf"), "lerp": float("inf")}
    for _ in range(repeats):
        for line in run_inside("floor", model).splitlines():
            what, seconds = line.split()
            best[what] = min(best[what], float(seconds))
    return report(
        "lerp / floor", best["lerp"] / best["floor"], FLOOR_TARGET, f"{best['lerp']:.2f} / {best['floor']:.2f} s"
    )


def in_memory(root: Path, shape: Shape) -> bool:
    """Part 4: this model and one with four times the layers."""
    peak = float(run_inside("memory", root / "model"))
    subprocess.run(["rm", "-rf", str(root / "model")], check=True)
    for number, who in enumerate(PARENTS):
        write_llama(root / "deep" / who, replace(shape, layers=4 * shape.layers), seed=number)
    deep = float(run_inside("memory", root / "deep"))
    kept = report("peak anonymous memory above imports, MB", peak / 1e6, MEMORY_TARGET / 1e6, "")
    return (
        report("the same at four times the layers, ratio", deep / peak, GROWTH_TARGET, f"{deep / 1e6:.0f} MB") and kept
    )


def run_inside(what: str, model: Path) -> str:
    command = [sys.executable, __file__, "--inside", what, str(model)]
    return subprocess.run(command, env=one_thread(), capture_output=True, text=True, check=True).stdout


def inside(what: str, model: Path) -> int:
    """The measured process: "floor" prints CPU seconds of lerp and of the floor, "memory" the peak in bytes."""
    import torch

    from darwin_lab.checkpoint.anatomy import read_anatomy
    from darwin_lab.checkpoint.checkpoint import Checkpoint
    from darwin_lab.engine.child import Child
    from darwin_lab.engine.export import export_child
    from darwin_lab.merging.recipe import uniform_recipe

    torch.set_num_threads(1)
    father, mother, ancestor = (Checkpoint(model / who) for who in PARENTS)
    anatomy = read_anatomy(father)
    out = model / "out"
    if what == "memory":
        child = Child(father, mother, uniform_recipe(anatomy, RATIO, "dare_ties", DENSITY), ancestor)
        print(peak_anonymous(lambda: export_child(child, out)))
        subprocess.run(["rm", "-rf", str(out)], check=True)
        return 0
    child = Child(father, mother, uniform_recipe(anatomy, RATIO), None)

    def floor(name: str) -> None:
        for start in range(0, father.tensors[name].numel, CHUNK):
            count = min(CHUNK, father.tensors[name].numel - start)
            father.read_flat(name, start, count)
            stream.write(memoryview(mother.read_flat(name, start, count).view(torch.uint8).numpy()))

    def lerp(name: str) -> None:
        for piece in child.chunks(name):
            stream.write(memoryview(piece.view(torch.uint8).numpy()))

    for _ in range(2):
        for what_now, write in (("floor", floor), ("lerp", lerp)):
            started = time.process_time()
            with out.open("wb", buffering=0) as stream:
                for name in father.names:
                    write(name)
            print(what_now, time.process_time() - started)
            out.unlink()
    return 0


def peak_anonymous(work: Callable[[], object]) -> int:
    """Bytes of anonymous memory during `work` above those before it, sampled every few milliseconds."""
    before = peak = anonymous()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.003):
            peak = max(peak, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return peak - before


def anonymous() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def cpu_seconds(command: list[str]) -> float:
    """User and system seconds of a command and the processes it waited for."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, env=one_thread(), stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{errors.read().decode()[-2000:]}")
    return usage.ru_utime + usage.ru_stime


def report(what: str, value: float, target: float, words: str) -> bool:
    """One line; True when the value is within its target."""
    verdict = "ok" if value <= target else "NOT MET"
    print(f"{what:42s} {value:8.2f}  (target {target:g}) {verdict}  {words}", flush=True)
    return value <= target


if __name__ == "__main__":
    raise SystemExit(main())
