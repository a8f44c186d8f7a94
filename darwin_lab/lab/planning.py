"""Looking before opening: what a pair is and what it would cost, and the opening of parents too large to read at once.

A look reads headers and takes a moment for parents of any size. Opening reads every weight once, because a pair is
known by its content: small parents are opened where they are asked for, large ones by a job. What was read is
remembered, so that a file that has not changed is read once. Knows no widget.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from darwin_lab.checkpoint.anatomy import Anatomy, read_anatomy
from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.checkpoint.looking import look_at
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.plan import Plan, plan_pair
from darwin_lab.errors import LabError
from darwin_lab.lab import pairs
from darwin_lab.lab.pairs import Pair
from darwin_lab.lab.scan_places import parent
from darwin_lab.lab.workbench import AT_ONCE_BYTES, Workbench
from darwin_lab.mri.probes import ProbeSet, load_probes, pasted_probes
from darwin_lab.progress import Tick, part, silent

_READING = 0.9
"""The share of an opening that reading every weight takes; comparing experts reads stretches of them again."""


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
        return is_small(self.total_bytes)


def is_small(total_bytes: int) -> bool:
    """Whether parents of so many bytes are read and scanned in moments."""
    return total_bytes <= AT_ONCE_BYTES


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
    experts: str,
) -> str:
    """Queue the opening of a large pair, or of one whose experts are to be matched; see `Lab.request_open`."""

    def opened(tick: Tick) -> Pair:
        return matched(bench, pairs.open_pair(father, mother, ancestor, items, vocabulary=vocabulary), experts, tick)

    key = f"open:{father}:{mother}:{ancestor}:{vocabulary}:{experts}"
    return _read_first(bench, [father, mother, *([ancestor] if ancestor else [])], opened, key)


def matched(bench: Workbench, pair: Pair, experts: str, tick: Tick = silent) -> Pair:
    """The pair with its experts "numbered" or "matched"; once matched, they are not compared again."""
    if experts not in (pairs.NUMBERED, pairs.MATCHED):
        raise LabError(f"unknown way to pair experts {experts!r}; choose {pairs.NUMBERED} or {pairs.MATCHED}")
    if experts == pairs.NUMBERED:
        return pair
    kept = pairs.kept_order(bench.store.pair_refs(pairs.matched_key(pair))) if pair.anatomy.experts else None
    return pairs.match_experts(pair, kept, tick)


def request_pair(bench: Workbench, key: str) -> str | None:
    """Queue the opening of a remembered pair that must be read first; see `Lab.request_pair`."""
    refs = bench.refs_to_read(key)
    if refs is None:
        return None
    members = [refs[who] for who in ("father", "mother", "ancestor") if refs[who]]
    return _read_first(bench, members, lambda _: pairs.reopen(refs), f"open:{key}")


def _read_first(bench: Workbench, refs: Sequence[str | Path], opened: Callable[[Tick], Pair], key: str) -> str:
    """Queue the reading of every weight of `refs`, then the opening of their pair; the job's result is its key."""

    def work(tick: Tick) -> dict[str, str]:
        members = [open_checkpoint(ref) for ref in refs]
        done, total = 0, sum(member.total_bytes for member in members)
        for member in members:
            share = part(tick, _READING * done / total, _READING * (done + member.total_bytes) / total)
            member.read_through(share)
            done += member.total_bytes
        return {"pair": bench.remember(opened(part(tick, _READING, 1.0))).key}

    names = " × ".join(Path(ref).name for ref in refs[:2])
    return bench.jobs.submit("open", f"Reading {names}", work, key=key, interactive=True)


def with_probes(bench: Workbench, pair: Pair, source: str | Path | None) -> Pair:
    """The pair measured with other probes; see `Lab.with_probes`."""
    if source is None:
        return bench.remember(pairs.with_probes(pair, None))
    probes = load_probes(source) if isinstance(source, Path) else pasted_probes(source)
    _require_readable(pair, probes)
    path = bench.store.folder("probes", probes.hash).with_suffix(".jsonl")
    try:
        bench.store.keep_text(path, probes.to_jsonl())
    except OSError as error:
        raise LabError(f"cannot keep the probes in {path.parent} ({error.strerror}); free some space") from error
    return bench.remember(pairs.with_probes(pair, probes, path))


def _require_readable(pair: Pair, probes: ProbeSet) -> None:
    """LabError for the first text that a parent cannot be scanned on: too short to predict a token, or too long."""
    from darwin_lab.engine.resident import longest_input, text_config, text_tokenizer
    from darwin_lab.mri.measures import encode_texts
    from darwin_lab.mri.scan import MAX_TOKENS

    for who in ("father", "mother"):
        source = parent(pair, who)
        tokenizer, context = text_tokenizer(source), longest_input(text_config(source))
        for probe, texts in probes.texts.items():
            encode_texts(tokenizer, texts, probe, MAX_TOKENS, context)
