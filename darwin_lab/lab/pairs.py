"""Two parents opened together with what they are measured with: items by split and probes.

Takes what a person types, gives a `Pair`. Reads configs, headers and text files, and stretches of every expert where
experts are to be matched; never loads a model. Knows no store.
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
from darwin_lab.genome.genome import Genome
from darwin_lab.merging.prescription import Prescription
from darwin_lab.merging.recipe import Recipe, make_recipe, uniform_recipe
from darwin_lab.mri.probes import FAMILY_PROBES, GENERIC_PROBES, ProbeSet, load_probes
from darwin_lab.progress import Tick, silent
from darwin_lab.scoring.items import Item, items_hash, load_items, split_items

FAMILY_ITEMS = FAMILY_FOLDER / "items"
NUMBERED, MATCHED = "numbered", "matched"
_FAMILY = "family:"


@dataclass(frozen=True, eq=False)
class Pair:
    """Father, mother, perhaps their ancestor, and what they are measured with.

    key             12 hex digits: content of the parents, items, split and probes, and how the parents are matched
    anatomy         the father's, which is the child's
    checks          the compatibility report; `compatible` when all are ok
    items_by_split  "selection", "validation", "report" -> items, or None without items
    refs            how to open this pair again (JSON)
    vocabulary      "same", or "by-token": the mother's token rows are found by token
    items_hash      names the items, None without
    experts         "numbered", or "matched": each of the father's experts meets the mother's that is most alike
    expert_order    of matched experts, as `Recipe` has it; empty where they go by number
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
    experts: str = NUMBERED
    expert_order: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    def recipe(self, genome: Genome, advice: Prescription | None = None) -> Recipe:
        """What a genome makes of these parents, matched as this pair matches them; `advice` as `make_recipe` takes."""
        return make_recipe(genome, self.anatomy, advice, vocabulary=self.vocabulary, expert_order=self.expert_order)

    def uniform(self, ratio: float) -> Recipe:
        """The recipe of one ratio for everything."""
        return uniform_recipe(self.anatomy, ratio, vocabulary=self.vocabulary, expert_order=self.expert_order)

    @property
    def experts_words(self) -> str:
        """One sentence on matched experts; empty where they go by number."""
        if self.experts != MATCHED or not self.compatible:
            return ""
        layers = len(self.anatomy.moe_layers)
        if not self.expert_order:
            return f"Matched by their weights, the experts keep their numbers in all {layers} layers."
        return f"Experts are matched by their weights: renumbered in {len(self.expert_order)} of {layers} layers."

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
        key=_key(members, named, split_seed, probe_set, vocabulary, NUMBERED),
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


def match_experts(pair: Pair, order: Mapping[int, tuple[int, ...]] | None = None, tick: Tick = silent) -> Pair:
    """The same parents with the mother's experts in the father's order, which is another pair.

    Finds the order by reading stretches of every expert of both parents, unless it is given. A pair that cannot be
    merged is not read. LabError for a dense father, and for experts that are not finite.
    """
    from darwin_lab.merging.matching import expert_identity

    if not pair.anatomy.experts:
        raise LabError(f"{pair.father.name} has no experts to match; open this pair with its experts by number")
    if order is None and pair.compatible:
        identity = expert_identity(pair.father, pair.mother, pair.anatomy, tick)
        order = identity.order if identity else {}
    kept = None if order is None else {str(layer): list(experts) for layer, experts in order.items()}
    refs = {**pair.refs, "experts": MATCHED, "expert_order": kept}
    return replace(pair, key=matched_key(pair), experts=MATCHED, expert_order=order or {}, refs=refs)


def matched_key(pair: Pair) -> str:
    """The key of the same parents with their experts matched."""
    return _key(pair.members, pair.items_hash, pair.refs["split_seed"], pair.probes, pair.vocabulary, MATCHED)


def kept_order(refs: Mapping[str, Any] | None) -> dict[int, tuple[int, ...]] | None:
    """The order of the experts that the `refs` of a matched pair hold; None where they hold none."""
    kept = (refs or {}).get("expert_order")
    return None if kept is None else {int(layer): tuple(experts) for layer, experts in kept.items()}


def with_probes(pair: Pair, probes: ProbeSet | None, path: Path | None = None) -> Pair:
    """The same parents and items measured with other probes, those of the file `path`; with None their own."""
    father, mother = pair.refs["father"], pair.refs["mother"]
    chosen = _own_probes(father, mother) if probes is None else probes
    return replace(
        pair,
        key=_key(pair.members, pair.items_hash, pair.refs["split_seed"], chosen, pair.vocabulary, pair.experts),
        probes=chosen,
        refs={**pair.refs, "probes": str(path) if path else None},
    )


def _is_family(*refs: str | Path) -> bool:
    return all(str(ref).startswith(_FAMILY) for ref in refs)


def _own_probes(father: str | Path, mother: str | Path) -> ProbeSet:
    """The probes of a pair that brought none: the family's, or the built-in ones."""
    return load_probes(FAMILY_PROBES if _is_family(father, mother) else GENERIC_PROBES)


def _key(
    members: Sequence[Checkpoint], items: str | None, split_seed: int, probes: ProbeSet, vocabulary: str, experts: str
) -> str:
    content = [member.fingerprint for member in members]
    rare = [word for word, usual in ((vocabulary, "same"), (experts, NUMBERED)) if word != usual]
    return hashlib.sha256(json.dumps([content, [items, split_seed, probes.hash, *rare]]).encode()).hexdigest()[:12]


def bytes_to_read(refs: Mapping[str, Any]) -> float:
    """What `reopen` would read of weights that nobody read before; infinity where some would be downloaded first."""
    return sum(unread_bytes(refs[who]) for who in ("father", "mother", "ancestor") if refs[who])


def reopen(refs: Mapping[str, Any]) -> Pair:
    """Open a pair again from the `refs` of an earlier one; experts that were matched are not compared again."""
    pair = open_pair(
        refs["father"], refs["mother"], refs["ancestor"], refs["items"], refs["probes"], refs["split_seed"],
        refs.get("vocabulary", "same"),
    )  # fmt: skip
    return match_experts(pair, kept_order(refs)) if refs.get("experts") == MATCHED else pair


def lasting_ref(ref: str | Path) -> str:
    """A reference that means the same from any working directory."""
    path = Path(ref).expanduser()
    return str(path.resolve()) if path.exists() else str(ref)
