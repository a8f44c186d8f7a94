"""What the verbs share: their result, and the probes a model is measured with."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darwin_lab.checkpoint.anatomy import read_anatomy
from darwin_lab.checkpoint.checkpoint import Checkpoint, read_json
from darwin_lab.errors import LabError
from darwin_lab.genome.genome import Genome, genome_from_json
from darwin_lab.merging.prescription import MODES, Prescription
from darwin_lab.mri.probes import FAMILY_PROBES, GENERIC_PROBES, ProbeSet, load_probes
from darwin_lab.progress import Tick, part

if TYPE_CHECKING:
    from darwin_lab.merging.matching import ExpertIdentity
    from darwin_lab.merging.recipe import Recipe


@dataclass(frozen=True)
class Result:
    """`data` is what --json prints, `text` what people read."""

    data: dict[str, Any]
    text: str


def probes_for(path: Path | None, model: str) -> ProbeSet:
    return load_probes(path or (FAMILY_PROBES if model.startswith("family:") else GENERIC_PROBES))


def genome_of_file(path: Path, layers: int) -> Genome:
    """The genome of a JSON file. Raises `LabError` naming the file."""
    if not path.is_file():
        raise LabError(f"no genome file {path}; save one from the Genome tab or write it by hand")
    try:
        return genome_from_json(read_json(path), layers)
    except LabError as error:
        where = "" if str(path) in str(error) else f"{path}: "
        raise LabError(f"{where}{error}") from None


def matching(father: Checkpoint, mother: Checkpoint) -> "ExpertIdentity":
    """What --match-experts finds: which of the mother's experts meets each of the father's. `LabError` for a dense
    father."""
    from darwin_lab.merging.matching import expert_identity

    identity = expert_identity(father, mother, read_anatomy(father))
    if identity is None:
        raise LabError(f"{father.name} has no experts to match; leave --match-experts out")
    return identity


def refuse_before_scanning(
    father: Checkpoint, mother: Checkpoint, ancestor: Checkpoint | None, recipe: "Recipe"
) -> None:
    """Raises `LabError` now for a child that could not be read once its advice is there, which takes long to make.
    `recipe` is the child's without that advice."""
    from darwin_lab.engine.child import Child

    Child(father, mother, recipe, ancestor).require_sound()


def asking_for_shorter_probes(error: LabError) -> LabError:
    """The error of a scan inside another verb: where texts are too long, the remedy is that verb's --probes."""
    told, flag, _ = str(error).partition("; shorten it, or cut all texts with --max-tokens ")
    return LabError(f"{told}; give shorter ones with --probes FILE") if flag else error


def lab_advice(
    father: str,
    mother: str,
    ancestor: str | None,
    vocabulary: str,
    wanted: str | None,
    tick: Tick,
    *,
    matched: bool = False,
    probes: Path | None = None,
    mode: str = MODES[0],
) -> tuple[Prescription | None, bool]:
    """The prescription with the hash `wanted`, else what the lab's scans of both parents on `probes` (the built-in
    ones) advise by `mode`, made now where they are missing; and whether any was made. `matched`: their experts meet by
    likeness."""
    from darwin_lab.lab.lab import Lab

    lab, experts = Lab(), "matched" if matched else "numbered"
    try:
        pair = lab.open_pair(father, mother, ancestor, probes=probes, vocabulary=vocabulary, experts=experts)
        jobs = lab.request_scan(pair) if wanted is None else []
        for index, job_id in enumerate(jobs):
            lab.wait(job_id, part(tick, index / len(jobs), (index + 1) / len(jobs)))
        return lab.advice(pair, wanted) if wanted else lab.prescription(pair, mode), bool(jobs)
    finally:
        lab.close()
