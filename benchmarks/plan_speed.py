"""The plan of a pair of full size, from headers alone.

Builds two pairs without weights in the hub's layout - Qwen3.5-35B-A3B (fused trunk, multi-token-prediction head per
expert, vision tower) and Gemma4-31B - from transformers' models on the meta device: the files are as long as the real
ones and take no disk space. Then opens each pair, compares and plans it, as the page and the shell do, and prints the
counts and the seconds (on a busy machine, look at those spent computing), with and without the one-second calibration;
and the whole shell command, imports included.

    python benchmarks/plan_speed.py [--keep DIR]
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from darwin_lab.checkpoint.layout import layout_words
from darwin_lab.checkpoint.looking import look_at
from darwin_lab.engine.calibration import calibrate
from darwin_lab.engine.plan import Plan, plan_pair, timed
from darwin_lab.engine.plan_words import fate_words, time_estimate_words
from tests.full_size import FULL_SIZE, write_full_size

ROOT = Path(__file__).resolve().parents[1]
TENSORS = {"Qwen3.5-35B-A3B": 1811, "Gemma4-31B": 1188}
TARGET = 3.0


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--keep", type=Path, metavar="DIR", help="leave the made-up parents in this new folder")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="darwin-lab-plan-") as scratch:
        root = chosen.keep or Path(scratch)
        pairs = {name: [write_full_size(root / name / who, name) for who in ("father", "mother")] for name in FULL_SIZE}
        met = [measure(name, *folders) for name, folders in pairs.items()]
    return 0 if all(met) else 1


def measure(name: str, father: Path, mother: Path) -> bool:
    """Print one pair's plan and its times; whether both the counts and the target were met."""
    started, busy = time.perf_counter(), time.process_time()
    plan = plan_pair(look_at(father), look_at(mother))
    planned, busy = time.perf_counter() - started, time.process_time() - busy
    before = time.perf_counter()
    plan = timed(plan, calibrate("lerp"))
    calibrated = time.perf_counter() - before
    before = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "darwin_lab", "plan", father, mother], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
    )
    shell = time.perf_counter() - before
    print(f"{name}: {words(plan)}")
    print(f"  opened, compared and planned in {planned:.2f} s, {busy:.2f} s of them computing")
    print(f"  ratio to the target of {TARGET:g} s: {planned / TARGET:.2f}")
    print(f"  {calibrated:.2f} s of calibration more; the whole shell command, imports included, {shell:.2f} s\n")
    return plan.father.tensors == TENSORS[name] and planned < TARGET


def words(plan: Plan) -> str:
    """Counts, layout and fates of a plan."""
    assert plan.cost is not None
    lines = [f"{plan.father.tensors:,} tensors a parent, {plan.father.bytes:,} bytes", layout_words(plan.father.layout)]
    return "\n  ".join([*lines, *fate_words(plan), time_estimate_words(plan.cost)])


if __name__ == "__main__":
    raise SystemExit(main())
