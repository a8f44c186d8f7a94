"""Probes: short labelled text sets that a model reads while it is scanned.

Takes a JSONL file of `{"probe": "MATH", "text": "..."}` lines, or pasted text of such lines or of `MATH: ...` lines;
gives a `ProbeSet`. Must not know: models, tokenizers, or what a label means (only `NEUTRAL` has a role, for the rooms
that say so).
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from darwin_lab.errors import LabError

NEUTRAL = "NEUTRAL"
"""The yardstick: everyday prose that exercises no particular skill."""

GENERIC_PROBES = Path(__file__).resolve().parents[2] / "assets" / "probes.jsonl"
FAMILY_PROBES = Path(__file__).resolve().parents[2] / "assets" / "family" / "probes.jsonl"

MOST_BYTES = 4 << 20
"""Probes beyond this size are no probes but a corpus."""
LONGEST_LABEL = 40
_LABELLED = re.compile(r"\s*([^:]*?)\s*:(.*)", re.DOTALL)


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

    def to_jsonl(self) -> str:
        """The lines that `load_probes` reads back equal."""
        rows = [{"probe": name, "text": text} for name, texts in self.texts.items() for text in texts]
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

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
        if path.stat().st_size > MOST_BYTES:
            raise LabError(f"{path} is larger than {MOST_BYTES >> 20} MB; probes are short texts, give fewer of them")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise LabError(f"cannot read probes file {path}: {error.strerror or error}; give a JSONL file") from error
    except UnicodeDecodeError as error:
        raise LabError(f"probes file {path} is not UTF-8 text; save it as UTF-8 JSONL") from error
    return _gathered(
        [_parsed(line, f"{path}:{number}") for number, line in enumerate(text.split("\n"), start=1) if line.strip()],
        f'{path} holds no probe; write lines like {{"probe": "MATH", "text": "..."}}',
    )


def pasted_probes(text: str) -> ProbeSet:
    """Probes out of pasted text: JSONL lines as in a file, or one `LABEL: text` a line; both may be mixed.

    Raises `LabError` naming the number of the first bad line, and for text without any.
    """
    if len(text.encode(errors="replace")) > MOST_BYTES:
        raise LabError(f"the pasted text is larger than {MOST_BYTES >> 20} MB; probes are short texts, give fewer")
    rows = []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if line.strip():
            where = f"line {number} of the pasted probes"
            rows.append(_parsed(line, where) if line.lstrip().startswith("{") else _labelled(line, where))
    return _gathered(rows, "nothing was pasted; write lines like MATH: 2 + 2 = 4")


def _gathered(rows: list[tuple[str, str]], none: str) -> ProbeSet:
    """The probes of (label, text) rows; `LabError(none)` without any."""
    if not rows:
        raise LabError(none)
    found: dict[str, list[str]] = {}
    for label, text in rows:
        found.setdefault(label, []).append(text)
    return ProbeSet({label: tuple(texts) for label, texts in found.items()})


def _labelled(line: str, where: str) -> tuple[str, str]:
    """A `LABEL: text` line."""
    match = _LABELLED.match(line)
    if match is None or not match[1]:
        raise LabError(f"{where} has no label; write LABEL: text, such as MATH: 2 + 2 = 4")
    if not match[2].strip():
        raise LabError(f"{where} has a label and no text; write the words the model shall read after the colon")
    return _label(match[1], where), match[2].strip()


def _label(label: str, where: str) -> str:
    """A label fit to name a row of a chart and an array of a file."""
    label = label.strip()
    if len(label) > LONGEST_LABEL or not label.isprintable() or "/" in label:
        words = f"{label[:20]}..." if len(label) > LONGEST_LABEL else label
        raise LabError(f"{where}: {words!r} is no label; use up to {LONGEST_LABEL} printed characters without /")
    return label


def _parsed(line: str, where: str) -> tuple[str, str]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", "nested too deeply")
        raise LabError(f"{where}: not JSON ({reason}); one object a line") from error
    if not isinstance(row, dict):
        raise LabError(f'{where}: not an object; write {{"probe": "MATH", "text": "..."}}')
    label, text = row.get("probe"), row.get("text")
    if not isinstance(label, str) or not label.strip():
        raise LabError(f'{where}: "probe" is missing; give the label of this text, such as "MATH"')
    if not isinstance(text, str) or not text.strip():
        raise LabError(f'{where}: "text" is missing or empty; give the words the model shall read')
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise LabError(f'{where}: "text" holds half a character (a lone \\u surrogate); write it out')
    return _label(label, where), text
