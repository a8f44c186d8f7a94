"""The record of what a child inherited: one row a thing, its verdict, and how many parts make one verdict.

Takes what single parts turned out to be; gives rows, JSON and the table of a model card. Compares nothing itself.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from darwin_lab.errors import LabError

FATHERS, MERGED, MOTHERS, CHANGED, ABSENT = "father's, byte for byte", "merged", "mother's", "changed", "absent"


@dataclass(frozen=True)
class Inherited:
    """One thing. `fathers + mothers + merged + changed + missing` is how many parts were looked at.

    verdict   one of `FATHERS`, `MERGED`, `MOTHERS`, `CHANGED` (there, but neither), `ABSENT`
    unit      what is counted: tensor, file or setting; `both`: how many are equal in both parents
    compared  what was compared, and how; `note` the values, or the first part that differs
    """

    what: str
    verdict: str
    unit: str
    fathers: int = 0
    mothers: int = 0
    merged: int = 0
    changed: int = 0
    missing: int = 0
    both: int = 0
    compared: str = ""
    note: str = ""

    @property
    def parts(self) -> int:
        """How many parts were looked at."""
        return self.fathers + self.mothers + self.merged + self.changed + self.missing


@dataclass(frozen=True)
class Inheritance:
    """All rows for one child. `exported` is the folder that was read, "" for a virtual child."""

    child: str
    fingerprint: str
    father: str
    mother: str
    exported: str
    rows: tuple[Inherited, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"version": 1, **asdict(self), "rows": [asdict(row) for row in self.rows]}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Inheritance":
        """The inverse of `to_json`. Raises `LabError` for anything else."""
        try:
            rows = tuple(Inherited(**row) for row in data["rows"])
            names = ("child", "fingerprint", "father", "mother", "exported")
            return Inheritance(**{name: str(data[name]) for name in names}, rows=rows)
        except (KeyError, TypeError) as error:
            raise LabError(f"that is no list of what was inherited ({error}); measure it again") from error

    def to_markdown(self) -> str:
        """The rows as a table for a model card."""
        lines = ["| what | inherited | compared |", "| --- | --- | --- |"]
        lines += [
            f"| {row.what} | {row.verdict} | {'; '.join(filter(None, (row.compared, row.note))) or '-'} |".replace(
                "\n", " "
            )
            for row in self.rows
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Found:
    """What one part turned out to be; `both`: father and mother are equal there; `note` says why it is "changed"."""

    verdict: str
    both: bool = False
    note: str = ""


def together(what: str, unit: str, found: Mapping[str, Found], compared: str) -> Inherited:
    """One verdict for many parts: that of all where they agree; "changed" as soon as one is."""
    count = dict.fromkeys((FATHERS, MOTHERS, MERGED, CHANGED, ABSENT), 0)
    for one in found.values():
        count[one.verdict] += 1
    present = [verdict for verdict in count if count[verdict] and verdict != ABSENT]
    lost = count[ABSENT] > 0
    if not present:
        verdict = ABSENT
    elif lost or CHANGED in present:
        verdict = CHANGED
    else:
        verdict = present[0] if len(present) == 1 else MERGED
    worst = next((one.note for one in found.values() if one.verdict in (CHANGED, ABSENT)), "")
    notes = worst or next((one.note for one in found.values() if one.note), "")
    both = sum(one.both for one in found.values())
    if both:
        notes = "; ".join(filter(None, (f"{'all' if both == len(found) else both} equal in both parents", notes)))
    return Inherited(
        what, verdict, unit, count[FATHERS], count[MOTHERS], count[MERGED], count[CHANGED], count[ABSENT], both,
        compared if found else "neither the father nor the child has any", notes,
    )  # fmt: skip
