"""Planted truth in a trained model: what is put into the embedded family on purpose, and what the scan makes of it.

Scans the family's father (or another model) as he is and with things planted in his weights, and prints what was
planted beside what was found:
  identity   the father merged with himself scans as the father, bit for bit; no advantage over himself, no advice
  harmless   a layer whose outputs are zero: its loss is zero to rounding in every text, no other layer's is
  dead       the scan's count of experts that were never chosen against a count text by text without padding
  damage     a layer's outputs three times as loud: the health check's interference is largest there, and it finds
             nothing in the father himself. Trained layers lean on each other, so it spreads to earlier ones

    python benchmarks/scan_truth.py [--model family:father] [--texts 6] [--layer 5]
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from darwin_lab.checkpoint.anatomy import read_anatomy
from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.child import Child
from darwin_lab.engine.resident import Resident
from darwin_lab.engine.sweep import Step, skip_sweep
from darwin_lab.merging.recipe import uniform_recipe
from darwin_lab.mri.advantage import advantage
from darwin_lab.mri.health import check_health
from darwin_lab.mri.probes import ProbeSet
from darwin_lab.mri.record import Scan
from darwin_lab.mri.scan import scan_model
from darwin_lab.verbs.common import probes_for

OUTPUTS = ("o_proj.weight", "out_proj.weight", "down_proj.weight", "down_proj")
"""How the tensors end that write into the stream."""
ROUNDING = 1e-5


class Planted:
    """A checkpoint in which the outputs of one layer are multiplied by `factor`."""

    def __init__(self, source: Checkpoint, layer: int, factor: float) -> None:
        self.name, self.folder, self.config, self.names = source.name, source.folder, source.config, source.names
        self.fingerprint = f"{source.fingerprint}-{layer}-{factor}"
        self._source, self._factor = source, factor
        parts = read_anatomy(source).layer_parts(layer)
        self._written = {part.name for part in parts if part.name.endswith(OUTPUTS)}

    def read(self, name: str) -> torch.Tensor:
        """The tensor, changed where it writes into the stream."""
        tensor = self._source.read(name)
        return tensor * self._factor if name in self._written else tensor


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", default="family:father")
    arguments.add_argument("--texts", type=int, default=6, help="texts of each probe (default 6)")
    arguments.add_argument("--layer", type=int, default=5, help="where to plant (default 5)")
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    father = open_checkpoint(chosen.model)
    whole = probes_for(None, chosen.model)
    probes = ProbeSet({probe: texts[: chosen.texts] for probe, texts in whole.texts.items()})
    resident = Resident.load(father)
    scan = scan_model(resident, father, probes)
    print(f"{scan.model}: {scan.layers} layers, {sum(scan.tokens.values()):,} tokens of {', '.join(scan.probes)}")
    met = [
        identity(resident, father, scan, probes),
        dead(resident, scan, probes),
        harmless(resident, father, probes, chosen.layer),
        damage(resident, father, scan, probes, chosen.layer),
    ]
    return 0 if all(met) else 1


def identity(resident: Resident, father: Checkpoint, scan: Scan, probes: ProbeSet) -> bool:
    """The father with himself."""
    child = Child(father, father, uniform_recipe(read_anatomy(father), 0.5))
    again = scan_model(resident, child, probes)
    same = all(np.array_equal(a, again.per_text[m][p]) for m, by in scan.per_text.items() for p, a in by.items())
    resident.become(father)
    largest = max(float(np.abs(advantage(scan, scan, measure).values).max()) for measure in scan.per_text)
    print(f"identity   father with himself: {'the same scan' if same else 'ANOTHER scan'}; advantage at most {largest}")
    return same and largest == 0


def dead(resident: Resident, scan: Scan, probes: ProbeSet) -> bool:
    """Experts never chosen, by the scan and by force."""
    report = scan.expert_report()
    if report is None:
        print("dead       this model has no experts")
        return True
    used: dict[int, set[int]] = {layer: set() for layer in scan.moe_layers}

    def note(step: Step) -> None:
        for routing in step.routing:
            used[step.layer].update(routing.chosen.flatten().tolist())

    for text in [text for texts in probes.texts.values() for text in texts]:
        skip_sweep(resident, *resident.encode_batch([resident.tokenizer(text)["input_ids"][:512]]), watch=note)
    force = [scan.experts - len(used[layer]) for layer in scan.moe_layers]
    found = [int((row == 0).sum()) for row in report.utilisation]
    print(f"dead       never chosen, a layer: scan {found}, by force {force}; {report.note}")
    return found == force


def harmless(resident: Resident, father: Checkpoint, probes: ProbeSet, layer: int) -> bool:
    """A layer that writes nothing."""
    planted = scan_model(resident, Planted(father, layer, 0.0), probes)
    loss = planted.per_text["loss"]
    largest = [
        max(float(np.abs(values[:, index]).max()) for values in loss.values()) for index in range(planted.layers)
    ]
    zero = [index for index, most in enumerate(largest) if most < ROUNDING]
    others = min(most for index, most in enumerate(largest) if index != layer)
    figures = f"{largest[layer]:.0e}; others {others:.0e}"
    print(f"harmless   planted in layer {layer}; no loss when skipped: layers {zero} ({figures})")
    return zero == [layer]


def damage(resident: Resident, father: Checkpoint, scan: Scan, probes: ProbeSet, layer: int) -> bool:
    """A layer three times as loud, beside the father twice; and the father beside himself."""
    broken = scan_model(resident, Planted(father, layer, 3.0), probes)
    found, control = check_health(broken, scan, scan), check_health(scan, scan, scan)
    excess: dict[int, float] = {}
    for row in found.rows:
        if row.interference:
            excess[row.layer] = max(excess.get(row.layer, 0.0), row.child - max(row.father, row.mother))
    told = ", ".join(
        f"layer {index} by {more:.2f}" for index, more in sorted(excess.items(), key=lambda item: -item[1])
    )
    print(f"damage     planted in layer {layer}; interference in {told}: {found.verdict}")
    print(f"           control: {control.verdict}, flagged {list(control.flagged_layers)}")
    return max(excess, key=lambda index: excess[index], default=-1) == layer and control.verdict == "healthy"


if __name__ == "__main__":
    raise SystemExit(main())
