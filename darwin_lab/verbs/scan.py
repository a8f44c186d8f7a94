"""The verb `scan`: one model scanned and the scan saved."""

import argparse
from pathlib import Path

from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.export import check_target
from darwin_lab.engine.resident import Resident
from darwin_lab.mri.record import Scan
from darwin_lab.mri.scan import scan_model
from darwin_lab.progress import Tick
from darwin_lab.verbs.common import Result, probes_for


def run(arguments: argparse.Namespace, tick: Tick) -> Result:
    """Scan one model and save the scan."""
    check_target(arguments.out, overwrite=False)
    probes = probes_for(arguments.probes, arguments.model)
    source = open_checkpoint(arguments.model)
    made = scan_model(Resident.load(source), source, probes, tick)
    made.save(arguments.out)
    return Result({**made.to_json(), "out": str(arguments.out)}, _scan_text(made, arguments.out))


def _scan_text(made: Scan, out: Path) -> str:
    loss = made.importance("loss")
    lines = [f"{made.model}: {made.layers} layers, {sum(made.tokens.values()):,} probe tokens, saved in {out}", ""]
    lines.append("rise in NLL when the layer is skipped")
    lines.append("layer " + " ".join(f"{probe[:9]:>9}" for probe in made.probes))
    lines += [
        f"{layer:>5} " + " ".join(f"{loss[probe][layer]:9.3f}" for probe in made.probes) for layer in range(made.layers)
    ]
    report = made.expert_report()
    if report is not None:
        lines += ["", report.note]
    return "\n".join(lines)
