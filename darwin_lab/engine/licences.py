"""Whose licence a child carries: the stricter of its parents', by a small ordered table.

Takes checkpoints, gives the Hub's name of a licence and a sentence. Reads README.md and config.json, no weights.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from darwin_lab.checkpoint.checkpoint import Checkpoint

ORDER = (
    "cc0-1.0", "unlicense", "mit", "isc", "bsd-2-clause", "bsd-3-clause", "apache-2.0", "cc-by-4.0", "mpl-2.0",
    "lgpl-3.0", "cc-by-sa-4.0", "gpl-3.0", "agpl-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0",
    "cc-by-nc-nd-4.0",
)  # fmt: skip
"""From the most permissive to the strictest: attribution, then share-alike, then no commerce, then no derivatives."""
UNKNOWN = "other"
_NO_DERIVATIVES = ("cc-by-nd-4.0", "cc-by-nc-nd-4.0")
_LICENCE = re.compile(r"^license:\s*[\"']?([^\s\"'#]+)", re.MULTILINE)


@dataclass(frozen=True)
class Licence:
    """`name` for the card's front matter ("other" where nobody can say), `words` for people."""

    name: str
    words: str


def stricter(parents: Mapping[str, Checkpoint]) -> Licence:
    """The licence of a child of these parents (role -> checkpoint)."""
    found = {role: licence_of(parent.folder) for role, parent in parents.items()}
    said = ", ".join(f"{role}: {name or 'none named'}" for role, name in found.items())
    names = set(found.values())
    if len(names) == 1 and None not in names:
        (name,) = names
        assert name is not None
        barred = "; it does not allow derivatives to be shared" if name in _NO_DERIVATIVES else ""
        return Licence(name, f"{name}, as all parents ({said}){barred}")
    if not all(name in ORDER for name in names):
        return Licence(UNKNOWN, f"not settled ({said}): the terms of every parent apply; read them before sharing")
    strictest = max((name for name in names if name), key=ORDER.index)
    barred = "; it does not allow derivatives to be shared" if strictest in _NO_DERIVATIVES else ""
    return Licence(strictest, f"{strictest}, the strictest of the parents' ({said}){barred}")


def licence_of(folder: Path) -> str | None:
    """What the model's card or config names, in lower case; None when neither does, or only "other"."""
    card, config = folder / "README.md", folder / "config.json"
    named: object = None
    if card.is_file():
        text = card.read_text(encoding="utf-8", errors="replace")
        front = text.split("---", 2)[1] if text.startswith("---") and text.count("---") > 1 else ""
        match = _LICENCE.search(front)
        named = match.group(1) if match else None
    if named is None and config.is_file():
        named = json.loads(config.read_text(encoding="utf-8")).get("license")
    name = str(named).strip().lower() if isinstance(named, str) else ""
    return name if name not in ("", UNKNOWN, "unknown") else None
