"""The lab's merge operators against mergekit's own, in float32 on the same parents.

    python benchmarks/merge_exact.py [--ratio .3]

Writes a father, a mother and an ancestor (small random Llamas, float32), merges them with both tools and prints for
each operator the largest difference of a weight, relative to the largest weight of its tensor. The first five rows are
the promise (at most 1e-6; densities 1); the rest are the other operators and densities both tools can say. Draws cannot
be compared (mergekit's are torch's global ones), and for arcee_fusion the share of entries where the two chose another
parent is printed: its threshold meets rounding.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.mergekit_env import DEFAULT_FOLDER, merge_command, one_thread, prepare
from benchmarks.synthetic_llama import Shape, write_llama
from darwin_lab.checkpoint.anatomy import read_anatomy
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.child import Child
from darwin_lab.merging.recipe import uniform_recipe

LIMIT = 1e-6
SHAPE = Shape(layers=3, hidden=256, ffn=700, vocabulary=1009, heads=8, kv_heads=4)


@dataclass(frozen=True)
class Case:
    """One operator in both tools' words. theirs: mergekit's parameters for the whole merge; `per_model`: whether
    weight and density are given to each model."""

    operator: str
    method: str
    density: float = 1.0
    theirs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, float] = field(default_factory=dict)
    per_model: bool = True
    base: str = "ancestor"
    promised: bool = False
    ratio: float | None = None


CASES = (
    Case("lerp", "linear", base="", promised=True),
    Case("slerp", "slerp", theirs={"t": "ratio"}, per_model=False, base="father", promised=True),
    Case("task_arithmetic", "task_arithmetic", promised=True),
    Case("ties", "ties", promised=True),
    Case("dare_ties", "dare_ties", promised=True),
    Case("task_arithmetic", "task_arithmetic", theirs={"lambda": 1.3}, options={"lambda": 1.3}),
    Case("ties", "ties", density=0.4),
    Case("breadcrumbs", "breadcrumbs", density=0.6, theirs={"gamma": 0.05}, options={"gamma": 0.05}),
    Case("della", "della"),
    Case("sce", "sce", per_model=False, ratio=0.5),
    Case("sce", "sce", density=0.3, theirs={"select_topk": 0.3}, per_model=False, ratio=0.5),
    Case("nearswap", "nearswap", theirs={"t": 0.002}, options={"t": 0.002}, per_model=False, base="father"),
    Case("arcee_fusion", "arcee_fusion", per_model=False, base="father"),
)


def main() -> int:
    """Runs every case; 0 when the promised ones hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratio", type=float, default=0.3, help="the mother's share (default .3)")
    parser.add_argument("--environment", type=Path, default=DEFAULT_FOLDER, help="where mergekit is installed")
    arguments = parser.parse_args()
    python = prepare(arguments.environment)
    kept = True
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_parents(root)
        print(f"{'operator':16s} {'density':>7s}  {'options':22s} {'largest difference':>18s}")
        for number, told in enumerate(CASES):
            case = replace(told, ratio=arguments.ratio if told.ratio is None else told.ratio)
            theirs = load_file(merge_with_mergekit(python, root, case, root / f"child-{number}") / "model.safetensors")
            differences = {name: (tensor - theirs[name]).abs() for name, tensor in ours(root, case)}
            assert differences.keys() == theirs.keys()
            largest = max(float(d.max() / theirs[name].abs().max()) for name, d in differences.items())
            options = ", ".join(f"{key} {value}" for key, value in case.options.items())
            line = f"{case.operator:16s} {case.density:7.2f}  {options:22s} {largest:18.2e}"
            if case.operator == "arcee_fusion":
                other = sum(int((d > LIMIT * theirs[name].abs().max()).sum()) for name, d in differences.items())
                line += f"  ({other / sum(d.numel() for d in differences.values()):.1e} chosen otherwise)"
            if case.promised:
                kept &= largest <= LIMIT
                line += "  ok" if largest <= LIMIT else f"  ABOVE {LIMIT:g}"
            print(line, flush=True)
    return 0 if kept else 1


def write_parents(root: Path) -> None:
    """Float32 folders father, mother and ancestor; the parents a small step from the ancestor."""
    for number, who in enumerate(("ancestor", "father", "mother")):
        file = write_llama(root / who, SHAPE, seed=number) / "model.safetensors"
        config = (root / who / "config.json").read_text().replace("bfloat16", "float32")
        (root / who / "config.json").write_text(config)
        generator = torch.Generator().manual_seed(number)
        tensors = {name: 0.02 * torch.randn(shape, generator=generator) for name, shape in SHAPE.tensors.items()}
        if who != "ancestor":
            base = load_file(root / "ancestor" / "model.safetensors")
            tensors = {name: base[name] + 0.1 * tensor for name, tensor in tensors.items()}
        save_file(tensors, file, metadata={"format": "pt"})


def merge_with_mergekit(python: Path, root: Path, case: Case, out: Path) -> Path:
    """Runs mergekit's shell; returns the folder it wrote."""
    models = []
    for who, weight in (("father", 1 - (case.ratio or 0)), ("mother", case.ratio)):
        model: dict[str, Any] = {"model": str(root / who)}
        if case.per_model:
            model["parameters"] = {"weight": weight, **({"density": case.density} if case.base else {})}
        models.append(model)
    parameters = {key: case.ratio if value == "ratio" else value for key, value in case.theirs.items()}
    config = {"merge_method": case.method, "models": models, "parameters": parameters, "dtype": "float32"}
    if case.base:
        config["base_model"] = str(root / case.base)
    path = root / "merge.yml"
    path.write_text(yaml.safe_dump(config))
    done = subprocess.run(
        merge_command(python, path, out), env=one_thread(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"mergekit failed on {case.operator}:\n{done.stderr[-2000:]}")
    return out


def ours(root: Path, case: Case) -> list[tuple[str, torch.Tensor]]:
    """The lab's child, tensor by tensor."""
    father, mother, ancestor = (open_checkpoint(str(root / who)) for who in ("father", "mother", "ancestor"))
    recipe = uniform_recipe(read_anatomy(father), case.ratio or 0.0, case.operator, case.density)
    child = Child(father, mother, replace(recipe, options=dict(case.options)), ancestor)
    return [(name, child.read(name)) for name in child.names]


if __name__ == "__main__":
    raise SystemExit(main())
