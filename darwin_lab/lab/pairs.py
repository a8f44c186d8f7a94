"""Two parents opened together with what they are measured with: items by split and probes.

Takes what a person types, gives a `Pair`. Reads configs, headers and text files; never loads a model. Knows no store.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from darwin_lab.checkpoint.anatomy import Anatomy, read_anatomy
from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.checkpoint.compare import Check, compare
from darwin_lab.checkpoint.opening import FAMILY_FOLDER, open_checkpoint, unread_bytes
from darwin_lab.errors import LabError
from darwin_lab.mri.probes import FAMILY_PROBES, GENERIC_PROBES, ProbeSet, load_probes
from darwin_lab.scoring.items import Item, items_hash, load_items, split_items

FAMILY_ITEMS = FAMILY_FOLDER / "items"
_FAMILY = "family:"


@dataclass(frozen=True, eq=False)
class Pair:
    """Father, mother, perhaps their ancestor, and what they are measured with.

    key             12 hex digits: content of the parents, items, split and probes
    anatomy         the father's, which is the child's
    checks          the compatibility report; `compatible` when all are ok
    items_by_split  "selection", "validation", "report" -> items, or None without items
    refs            how to open this pair again (JSON)
    vocabulary      "same", or "by-token": the mother's token rows are found by token
    items_hash      names the items, None without
    """

    key: str
    father: Checkpoint
    mother: Checkpoint
    ancestor: Checkpoint | None
    anatomy: Anatomy
    checks: tuple[Check, ...]
    items_by_split: Mapping[str, list[Item]] | None
    probes: ProbeSet
    refs: dict[str, Any] = field(default_factory=dict)
    vocabulary: str = "same"
    items_hash: str | None = None

    @property
    def members(self) -> tuple[Checkpoint, ...]:
        """Father, mother and, where there is one, ancestor."""
        return (self.father, self.mother, *([self.ancestor] if self.ancestor else []))

    @property
    def total_bytes(self) -> int:
        """Weights of all of them on disk."""
        return sum(member.total_bytes for member in self.members)

    @property
    def compatible(self) -> bool:
        """Whether the parents can be merged."""
        return all(check.ok for check in self.checks)

    @cached_property
    def ids(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """Split -> task -> ids of its items, in order; empty without items."""
        table: dict[str, dict[str, list[str]]] = {}
        for split, items in (self.items_by_split or {}).items():
            for item in items:
                table.setdefault(split, {}).setdefault(item.task, []).append(item.id)
        return {split: {task: tuple(ids) for task, ids in tasks.items()} for split, tasks in table.items()}

    def require_mergeable(self) -> None:
        """LabError with the first failed check of a pair that cannot be merged."""
        for check in self.checks:
            if not check.ok:
                raise LabError(f"parents differ in {check.what}: {check.father} against {check.mother}; {check.remedy}")

    def items(self, split: str) -> list[Item]:
        """The items of a split. LabError when this pair has none."""
        if self.items_by_split is None:
            raise LabError("these parents have no items yet; give one or more JSONL files of items when opening them")
        found = self.items_by_split.get(split)
        if found is None:
            raise LabError(f"unknown split {split!r}; choose one of {', '.join(self.items_by_split)}")
        if not found:
            raise LabError(f"no {split} items in these files; add items or mark some with meta.split = {split!r}")
        return found


def open_pair(
    father: str | Path,
    mother: str | Path,
    ancestor: str | Path | None = None,
    items: Sequence[str | Path] = (),
    probes: str | Path | None = None,
    split_seed: int = 0,
    vocabulary: str = "same",
) -> Pair:
    """Open a pair; see `Lab.open_pair`. LabError for whatever cannot be opened or read."""
    members = [open_checkpoint(ref) for ref in (father, mother, *([ancestor] if ancestor else []))]
    item_files = [Path(path) for path in items]
    if not item_files and _is_family(father, mother):
        item_files = sorted(FAMILY_ITEMS.glob("*.jsonl"))
    loaded = load_items(item_files) if item_files else None
    probe_set = load_probes(probes) if probes else _own_probes(father, mother)
    refs = {
        "father": lasting_ref(father),
        "mother": lasting_ref(mother),
        "ancestor": lasting_ref(ancestor) if ancestor else None,
        "items": [lasting_ref(path) for path in items],
        "probes": lasting_ref(probes) if probes else None,
        "split_seed": split_seed,
        "vocabulary": vocabulary,
    }
    named = items_hash(loaded) if loaded else None
    return Pair(
        key=_key(members, named, split_seed, probe_set, vocabulary),
        father=members[0],
        mother=members[1],
        ancestor=members[2] if ancestor else None,
        anatomy=read_anatomy(members[0]),
        checks=compare(*members, vocabulary=vocabulary),
        items_by_split=split_items(loaded, split_seed) if loaded else None,
        probes=probe_set,
        refs=refs,
        vocabulary=vocabulary,
        items_hash=named,
    )


def with_probes(pair: Pair, probes: ProbeSet | None, path: Path | None = None) -> Pair:
    """The same parents and items measured with other probes, those of the file `path`; with None their own."""
    father, mother = pair.refs["father"], pair.refs["mother"]
    chosen = _own_probes(father, mother) if probes is None else probes
    return replace(
        pair,
        key=_key(pair.members, pair.items_hash, pair.refs["split_seed"], chosen, pair.vocabulary),
        probes=chosen,
        refs={**pair.refs, "probes": str(path) if path else None},
    )


def _is_family(*refs: str | Path) -> bool:
    return all(str(ref).startswith(_FAMILY) for ref in refs)


def _own_probes(father: str | Path, mother: str | Path) -> ProbeSet:
    """The probes of a pair that brought none: the family's, or the built-in ones."""
    return load_probes(FAMILY_PROBES if _is_family(father, mother) else GENERIC_PROBES)


def _key(members: Sequence[Checkpoint], items: str | None, split_seed: int, probes: ProbeSet, vocabulary: str) -> str:
    content = [member.fingerprint for member in members]
    measured = [items, split_seed, probes.hash, *([vocabulary] if vocabulary != "same" else [])]
    return hashlib.sha256(json.dumps([content, measured]).encode()).hexdigest()[:12]


def bytes_to_read(refs: Mapping[str, Any]) -> float:
    """What `reopen` would read of weights that nobody read before; infinity where some would be downloaded first."""
    return sum(unread_bytes(refs[who]) for who in ("father", "mother", "ancestor") if refs[who])


def reopen(refs: Mapping[str, Any]) -> Pair:
    """Open a pair again from the `refs` of an earlier one."""
    return open_pair(
        refs["father"], refs["mother"], refs["ancestor"], refs["items"], refs["probes"], refs["split_seed"],
        refs.get("vocabulary", "same"),
    )  # fmt: skip


def lasting_ref(ref: str | Path) -> str:
    """A reference that means the same from any working directory."""
    path = Path(ref).expanduser()
    return str(path.resolve()) if path.exists() else str(ref)
