"""Looking before opening: what a pair is and what it would cost, and the opening of parents too large to read at once.

A look reads headers and takes a moment for parents of any size. Opening reads every weight once, because a pair is
known by its content: small parents are opened where they are asked for, large ones by a job. Knows no widget.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from darwin_lab.checkpoint.anatomy import Anatomy, read_anatomy
from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.checkpoint.looking import look_at
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.plan import Plan, plan_pair
from darwin_lab.lab.pairs import open_pair
from darwin_lab.lab.workbench import Workbench
from darwin_lab.progress import Tick, part

AT_ONCE_BYTES = 2 * 10**9
"""Parents up to this size together are opened, and their scan started, without being asked again."""


@dataclass(frozen=True, eq=False)
class Look:
    """A pair by its headers: `anatomy` is the father's, `plan` what a merge would do and cost."""

    father: Checkpoint
    mother: Checkpoint
    ancestor: Checkpoint | None
    anatomy: Anatomy
    plan: Plan

    @property
    def total_bytes(self) -> int:
        """Weights of all of them."""
        return sum(member.total_bytes for member in (self.father, self.mother, self.ancestor) if member)

    @property
    def is_small(self) -> bool:
        """Whether reading and scanning them is a matter of moments."""
        return self.total_bytes <= AT_ONCE_BYTES


def look(
    bench: Workbench,
    father: str | Path | Checkpoint,
    mother: str | Path | Checkpoint,
    ancestor: str | Path | Checkpoint | None,
    vocabulary: str,
    operator: str,
) -> Look:
    """See `Lab.look`."""
    members = [ref if isinstance(ref, Checkpoint) else look_at(ref) for ref in (father, mother, ancestor) if ref]
    base = members[2] if len(members) > 2 else None
    out = bench.store.folder("exports", "child")
    plan = plan_pair(members[0], members[1], base, vocabulary=vocabulary, operator=operator, out=out)
    return Look(members[0], members[1], base, read_anatomy(members[0]), plan)


def request_open(
    bench: Workbench,
    father: str | Path,
    mother: str | Path,
    ancestor: str | Path | None,
    items: Sequence[str | Path],
    vocabulary: str,
) -> str:
    """Queue the opening of a large pair; see `Lab.request_open`."""

    def work(tick: Tick) -> dict[str, str]:
        members = [open_checkpoint(ref) for ref in (father, mother, ancestor) if ref]
        done, total = 0, sum(member.total_bytes for member in members)
        for member in members:
            share = part(tick, done / total, (done + member.total_bytes) / total)
            member.read_through(share)
            done += member.total_bytes
        pair = bench.remember(open_pair(father, mother, ancestor, items, vocabulary=vocabulary))
        return {"pair": pair.key}

    names = " × ".join(Path(ref).name for ref in (father, mother))
    key = f"open:{father}:{mother}:{ancestor}:{vocabulary}"
    return bench.jobs.submit("open", f"Reading {names}", work, key=key, interactive=True)
