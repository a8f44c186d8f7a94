"""What the verbs share: their result, and the probes a model is measured with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darwin_lab.mri.probes import FAMILY_PROBES, GENERIC_PROBES, ProbeSet, load_probes


@dataclass(frozen=True)
class Result:
    """`data` is what --json prints, `text` what people read."""

    data: dict[str, Any]
    text: str


def probes_for(path: Path | None, model: str) -> ProbeSet:
    return load_probes(path or (FAMILY_PROBES if model.startswith("family:") else GENERIC_PROBES))
