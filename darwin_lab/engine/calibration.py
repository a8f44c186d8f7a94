"""How fast this machine merges and copies: a small pair of made-up parents, exported through the real code.

Takes an operator, gives a `Calibration` after about a second. The sample lies in the temporary folder, so its reads
come from memory and its writes go to that folder's disk: parents on a slower disk take longer, and whoever shows an
estimate made from this says so.
"""

import json
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from darwin_lab.checkpoint.anatomy import read_anatomy
from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.errors import LabError

SAMPLE_WEIGHTS = 1 << 21
SECONDS = 1.0
_DENSITY = 0.5
_MERGED, _COPIED = "model.layers.0.mlp.down_proj.weight", "model.visual.blocks.0.attn.qkv.weight"
_ROWS = 1 << 10
_measured: dict[str, "Calibration"] = {}
_measuring = threading.Lock()


@dataclass(frozen=True)
class Calibration:
    """Measured: nanoseconds per merged weight and per copied byte; `runs` of `weights` weights each, the fastest kept.

    `threads` are those torch used. Where a density matters it was .5.
    """

    operator: str
    merge_ns: float
    copy_ns: float
    weights: int
    runs: int
    threads: int

    def seconds(self, merged_weights: int, copied_bytes: int) -> float:
        """The estimate for an export."""
        return (merged_weights * self.merge_ns + copied_bytes * self.copy_ns) / 1e9


def calibrate(operator: str = "lerp", seconds: float = SECONDS) -> Calibration:
    """Merge and copy a sample for about `seconds`, with all three parents in bf16; the fastest of all calls is kept.

    What else the machine does at the time makes a sample slower and never faster: asking again can only help. Raises
    `LabError` for an unknown operator and where the temporary folder cannot be written.
    """
    with _measuring:
        fresh, known = _measure(operator, seconds), _measured.get(operator)
        if known is not None:
            merge_ns, copy_ns = min(fresh.merge_ns, known.merge_ns), min(fresh.copy_ns, known.copy_ns)
            fresh = replace(fresh, merge_ns=merge_ns, copy_ns=copy_ns, runs=fresh.runs + known.runs)
        _measured[operator] = fresh
        return fresh


def calibrated(operator: str) -> Calibration | None:
    """The last of what `calibrate` found in this process, None while it was not asked."""
    return _measured.get(operator)


def _measure(operator: str, seconds: float) -> Calibration:
    import torch

    from darwin_lab.engine.child import Child
    from darwin_lab.engine.shards import plan_shards, write_shard
    from darwin_lab.merging.operators import NEEDS_ANCESTOR
    from darwin_lab.merging.recipe import uniform_recipe

    if operator not in NEEDS_ANCESTOR:
        raise LabError(f"unknown operator {operator!r}; choose {', '.join(NEEDS_ANCESTOR)}")
    try:
        with tempfile.TemporaryDirectory(prefix="darwin-lab-") as scratch:
            parents = [_sample(Path(scratch) / who, seed) for seed, who in enumerate(("father", "mother", "ancestor"))]
            father, mother, ancestor = parents
            recipe = uniform_recipe(read_anatomy(father), 0.5, operator, _DENSITY)
            child = Child(father, mother, recipe, ancestor)
            fastest, runs, started = [float("inf"), float("inf")], 0, time.perf_counter()
            while runs < 2 or time.perf_counter() - started < seconds:
                for place, shard in enumerate(plan_shards(father)):
                    before = time.perf_counter()
                    for _ in write_shard(child, shard, Path(scratch), "cpu"):
                        pass
                    fastest[place] = min(fastest[place], time.perf_counter() - before)
                runs += 1
    except OSError as error:
        raise LabError(
            f"cannot write to {tempfile.gettempdir()} ({error.strerror}); set TMPDIR to a folder with room"
        ) from None
    merge, copy = fastest
    threads = torch.get_num_threads()
    copied_bytes = father.tensors[_COPIED].nbytes
    return Calibration(operator, merge * 1e9 / SAMPLE_WEIGHTS, copy * 1e9 / copied_bytes, SAMPLE_WEIGHTS, runs, threads)


def _sample(folder: Path, seed: int) -> Checkpoint:
    """A parent of two tensors of one size, in two files: one that merges and one that is copied."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    config = {"num_hidden_layers": 1, "hidden_size": _ROWS, "architectures": ["Sample"]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(_ROWS, SAMPLE_WEIGHTS // _ROWS, generator=generator).to(torch.bfloat16)
    files = {"1.safetensors": _MERGED, "2.safetensors": _COPIED}
    for file, name in files.items():
        save_file({name: weight}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, name in files.items()}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return Checkpoint(folder)
