"""The verb `health`: a child's scan beside its parents'."""

import argparse

from darwin_lab.checkpoint.compare import require_compatible
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.streamed import load_model, weigh
from darwin_lab.mri.health import check_health
from darwin_lab.mri.prescribe import golden_layers
from darwin_lab.mri.scan import scan_model
from darwin_lab.progress import Tick, part
from darwin_lab.verbs.common import Result, probes_for


def run(arguments: argparse.Namespace, tick: Tick) -> Result:
    """Scan child and parents on the same probes and compare."""
    probes = probes_for(arguments.probes, arguments.father)
    sources = [open_checkpoint(ref) for ref in (arguments.child, arguments.father, arguments.mother)]
    require_compatible(sources[1], sources[0])
    require_compatible(sources[1], sources[2])
    model = load_model(sources[0], weigh(sources[0]))
    scans = [
        scan_model(model, source, probes, part(tick, index / 3, (index + 1) / 3))
        for index, source in enumerate(sources)
    ]
    child, father, mother = scans
    found = check_health(child, father, mother, golden=golden_layers(father, mother))
    rows = [f"{'probe':<12} {'child':>8} {'father':>8} {'mother':>8}   NLL, nats a token"]
    rows += [f"{row.probe:<12} {row.child:8.3f} {row.father:8.3f} {row.mother:8.3f}" for row in found.nll]
    return Result(found.to_json(), "\n".join([f"{found.verdict}: {found.sentence}", "", *rows]))
