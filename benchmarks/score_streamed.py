"""Choice scoring with one layer in memory against the whole model: same numbers, each weight read once.

Writes a Llama's shape (hidden 2048, bf16, random numbers) and scores choice items on it in float32, in a process of its
own each way. Prints each way's peak memory and what it read beside the size of the weights, the largest difference of
a log-likelihood and how many argmaxes differ; exits 1 when the streamed run reads more than the weights once, holds
more than half of what the whole model takes, or gives other numbers (1e-5 of the largest) or choices.

    python benchmarks/score_streamed.py [--layers 8] [--items 16]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from scan_streamed import peak, write_checkpoint

WAYS = ("always", "never")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=8, help="decoder layers (default 8)")
    parser.add_argument("--items", type=int, default=16, help="items of four options (default 16)")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.way:
        print(json.dumps(score(chosen.model, chosen.way, chosen.items)))
        return 0
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        write_checkpoint(Path(scratch) / "model", chosen.layers)
        for way in WAYS:
            command = [sys.executable, __file__, "--way", way, "--model", str(Path(scratch) / "model")]
            done = subprocess.run([*command, "--items", str(chosen.items)], check=True, capture_output=True, text=True)
            found[way] = json.loads(done.stdout.splitlines()[-1])
    one, whole = (found[way] for way in WAYS)
    worst = max(
        abs(mine - yours)
        for few, many in zip(one["loglik"], whole["loglik"], strict=True)
        for mine, yours in zip(few, many, strict=True)
    )
    largest = max(abs(value) for values in whole["loglik"] for value in values)
    differ = sum(mine != yours for mine, yours in zip(one["predictions"], whole["predictions"], strict=True))
    print(f"weights {one['weights'] / 1e9:.3f} GB (bf16), computed in float32; {chosen.items} items of four options")
    print(f"streamed: peak {one['peak'] / 1e9:.2f} GB, read {one['read'] / 1e9:.3f} GB")
    print(f"whole:    peak {whole['peak'] / 1e9:.2f} GB")
    print(f"largest difference {worst:.1e} nats (of {largest:.0f}), {differ} argmaxes differ")
    fine = worst <= 1e-5 * largest and not differ and one["read"] <= one["weights"] and one["peak"] < whole["peak"] / 2
    return int(not fine)


def score(folder: Path, way: str, count: int) -> dict[str, object]:
    """Scores made-up items in this process; gives the numbers, the peak memory and the bytes read."""
    import torch

    from darwin_lab.checkpoint.opening import open_checkpoint
    from darwin_lab.engine.streamed import Streamed, load_model, weigh
    from darwin_lab.scoring.choice import score_choices
    from darwin_lab.scoring.items import Item

    torch.set_num_threads(1)
    source = open_checkpoint(folder)
    source.__dict__["fingerprint"] = "synthetic"
    model = load_model(source, weigh(source, way))
    words = [[str((number * 131 + place * 7) % 500) for place in range(16)] for number in range(count)]
    items = [
        Item(f"i{number}", "t", " ".join(some), tuple(f"{k} {some[k]} {some[-k]}" for k in range(1, 5)), number % 4,
             {"style": "continuation"})
        for number, some in enumerate(words)
    ]  # fmt: skip
    found = score_choices(model, items)
    read = model.bytes_read if isinstance(model, Streamed) else None
    return {
        "loglik": found.loglik, "predictions": found.predictions, "peak": peak(), "read": read,
        "weights": source.total_bytes,
    }  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
