"""Probes: short labelled text sets that a model reads while it is scanned.

Takes a JSONL file of `{"probe": "MATH", "text": "..."}` lines; gives a `ProbeSet`.
Must not know: models, tokenizers, or what a label means (only `NEUTRAL` has a role, for the rooms that say so).
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from darwin_lab.errors import LabError

NEUTRAL = "NEUTRAL"
"""The yardstick: everyday prose that exercises no particular skill."""

GENERIC_PROBES = Path(__file__).resolve().parents[2] / "assets" / "probes.jsonl"
FAMILY_PROBES = Path(__file__).resolve().parents[2] / "assets" / "family" / "probes.jsonl"


@dataclass(frozen=True)
class ProbeSet:
    """Texts by probe label, both in the order of the file."""

    texts: dict[str, tuple[str, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.texts)

    @property
    def hash(self) -> str:
        """16 hex digits of the content: labels, texts and their order."""
        canonical = json.dumps([[name, list(texts)] for name, texts in self.texts.items()], ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def only(self, *names: str) -> "ProbeSet":
        """The subset with these labels. Raises `LabError` for a label that is not there."""
        missing = [name for name in names if name not in self.texts]
        if missing:
            raise LabError(f"no probe named {', '.join(missing)}; this set holds {', '.join(self.texts)}")
        return ProbeSet({name: self.texts[name] for name in names})


def load_probes(path: str | Path) -> ProbeSet:
    """Read a probes JSONL file.

    Raises `LabError` naming file and line for a line that is not `{"probe": label, "text": words}`, for an empty
    text, and for a file without any line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise LabError(f"cannot read probes file {path}: {error.strerror or error}; give a JSONL file") from error
    except UnicodeDecodeError as error:
        raise LabError(f"probes file {path} is not UTF-8 text; save it as UTF-8 JSONL") from error
    found: dict[str, list[str]] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            label, text = _parsed(line, f"{path}:{number}")
            found.setdefault(label, []).append(text)
    if not found:
        raise LabError(f'{path} holds no probe; write lines like {{"probe": "MATH", "text": "..."}}')
    return ProbeSet({label: tuple(texts) for label, texts in found.items()})


def _parsed(line: str, where: str) -> tuple[str, str]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise LabError(f"{where}: not JSON ({error.msg}); one object a line") from error
    if not isinstance(row, dict):
        raise LabError(f'{where}: not an object; write {{"probe": "MATH", "text": "..."}}')
    label, text = row.get("probe"), row.get("text")
    if not isinstance(label, str) or not label.strip():
        raise LabError(f'{where}: "probe" is missing; give the label of this text, such as "MATH"')
    if not isinstance(text, str) or not text.strip():
        raise LabError(f'{where}: "text" is missing or empty; give the words the model shall read')
    return label.strip(), text
