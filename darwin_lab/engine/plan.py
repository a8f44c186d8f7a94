"""What a merge would do and cost, from configs and headers alone, before anything long starts.

Takes one opened checkpoint, or a pair with perhaps an ancestor; gives a `Plan` of plain numbers, which
`plan_words` puts into sentences. Reads no weights, computes no fingerprint and imports no torch. Time comes from a
`Calibration` that the caller made; memory from the buffers of the kernel.
"""

import re
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from darwin_lab.checkpoint.alignment import align
from darwin_lab.checkpoint.anatomy import Anatomy, Part, has_token_rows, read_anatomy
from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.checkpoint.compare import Check, compare
from darwin_lab.checkpoint.heads import is_tied
from darwin_lab.checkpoint.layout import Layout, layout_words, read_layout
from darwin_lab.checkpoint.naming import atoms
from darwin_lab.checkpoint.vocabulary import match_tokens
from darwin_lab.engine.calibration import Calibration
from darwin_lab.engine.hardware import CONTEXT, Serving, serving
from darwin_lab.engine.places import existing
from darwin_lab.errors import LabError
from darwin_lab.merging.operators import NEEDS_ANCESTOR, USES_ANCESTOR

MERGED, COPIED, STUCK, DROPPED = "merged", "copied", "cannot be merged", "dropped"
FATES = (MERGED, COPIED, STUCK, DROPPED)
NO_PLACE = "the father has no such tensor"
"""Why a tensor of the mother is dropped; for every other reason the child has the father's in its place."""
_SELECTING = frozenset({"ties", "breadcrumbs", "della", "arcee_fusion", "sce"})
"""Operators that cut by magnitude over a whole tensor; they count magnitudes in histograms."""
_HISTOGRAM_BYTES = 6 << 20
_SCRATCH_BLOCKS = 20
"""At most what any operator holds beside the parents' blocks."""
_TOKEN_BYTES = 12
"""Of the table that matches vocabularies, per row."""
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")


@dataclass(frozen=True)
class RoleSize:
    """All tensors of one role. `active` of its `parameters` take part in one token; MTP and towers take none."""

    role: str
    tower: str
    tensors: int
    parameters: int
    bytes: int
    active: int


@dataclass(frozen=True)
class ModelPlan:
    """One checkpoint by its headers.

    parameters  everything in the files
    text        of these, the language model: without the MTP head, the vision and audio towers and their projectors;
                a head that is tied to the embedding is counted once
    active      of `text`, what one token meets: routed experts by top-k of all, everything else whole
    tables      of `text`, embedding tables and head: a token reads one row of a table and multiplies with the head
    """

    name: str
    architecture: str
    layers: int
    hidden_size: int
    layout: Layout
    tensors: int
    parameters: int
    bytes: int
    text: int
    active: int
    tables: int
    roles: tuple[RoleSize, ...]
    dtypes: tuple[str, ...]
    serving: Serving

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        data = {key: value for key, value in vars(self).items() if key not in ("layout", "roles", "serving", "dtypes")}
        return {
            **data,
            "layout": layout_words(self.layout),
            "experts": self.layout.experts,
            "top_k": self.layout.top_k,
            "dtypes": list(self.dtypes),
            "roles": [asdict(row) for row in self.roles],
            "vram": self.serving.to_json(),
        }


@dataclass(frozen=True)
class Group:
    """Tensors that differ by number only and share a fate.

    `layers` is the first and the last, None outside the decoder. `whose` is the parent whose files they lie in:
    dropped tensors are the mother's, all others the father's.
    """

    fate: str
    whose: str
    pattern: str
    role: str
    reason: str
    dtype: str
    shape: tuple[int, ...]
    layers: tuple[int, int] | None
    tensors: int
    parameters: int
    bytes: int


@dataclass(frozen=True)
class Vocabulary:
    """What matching by token finds: tokens of both, of the father alone (his rows stay), of the mother alone (left)."""

    shared: int
    only_father: int
    only_mother: int


@dataclass(frozen=True)
class Cost:
    """What the export takes: bytes of memory beside Python and torch, bytes on disk, bytes free there, seconds."""

    memory: int
    disk: int
    free: int
    read: int
    seconds: float | None = None
    calibration: Calibration | None = None


@dataclass(frozen=True)
class Plan:
    """A pair (or one parent) before anything long starts; `mother` and `cost` are None for one parent."""

    father: ModelPlan
    mother: ModelPlan | None
    ancestor: ModelPlan | None
    operator: str
    vocabulary: str
    checks: tuple[Check, ...]
    groups: tuple[Group, ...]
    tokens: Vocabulary | None
    cost: Cost | None

    @property
    def compatible(self) -> bool:
        """Whether the parents can be merged as asked."""
        return all(check.ok for check in self.checks)

    def of(self, fate: str) -> tuple[Group, ...]:
        """The groups of one fate, largest first."""
        return tuple(group for group in self.groups if group.fate == fate)

    def total(self, fate: str) -> tuple[int, int, int]:
        """(tensors, parameters, bytes) of one fate."""
        found = self.of(fate)
        return sum(g.tensors for g in found), sum(g.parameters for g in found), sum(g.bytes for g in found)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        fates = {fate: dict(zip(("tensors", "parameters", "bytes"), self.total(fate), strict=True)) for fate in FATES}
        return {
            "father": self.father.to_json(),
            "mother": self.mother.to_json() if self.mother else None,
            "ancestor": self.ancestor.to_json() if self.ancestor else None,
            "operator": self.operator,
            "vocabulary": self.vocabulary,
            "compatible": self.compatible if self.mother else None,
            "checks": [asdict(check) for check in self.checks],
            "fates": fates if self.mother else None,
            "groups": [asdict(group) for group in self.groups],
            "tokens": asdict(self.tokens) if self.tokens else None,
            "cost": asdict(self.cost) if self.cost else None,
        }


def plan_model(checkpoint: Checkpoint, anatomy: Anatomy | None = None) -> ModelPlan:
    """The headers of one checkpoint, counted; `anatomy` where it was read already.

    Raises `LabError` when they cannot be read.
    """
    anatomy = anatomy or read_anatomy(checkpoint)
    config = checkpoint.text_config
    layout = read_layout(anatomy, config)
    tied = is_tied(checkpoint)
    share = layout.top_k / layout.experts if layout.experts and layout.top_k else 1.0
    sizes: dict[tuple[str, str], Counter[str]] = {}
    for part in anatomy.parts.values():
        counts = sizes.setdefault((part.role, part.tower), Counter())
        counted = 0 if part.tower != "text" or (tied and part.role == "lm_head") else part.numel
        counts.update(
            tensors=1,
            parameters=part.numel,
            bytes=checkpoint.tensors[part.name].nbytes,
            text=counted,
            active=round(counted * share) if part.role == "expert" else counted,
            tables=counted if part.component == "embed" and part.layer is None else 0,
        )
    total = sum(sizes.values(), Counter())
    served = [(key, counts) for key, counts in sizes.items() if key[1] != "mtp"]
    weights = sum(counts["parameters"] for _, counts in served)
    stored = sum(counts["bytes"] for _, counts in served)
    dtypes = Counter[str]()
    for info in checkpoint.tensors.values():
        dtypes[info.dtype] += info.nbytes
    ranked = tuple(dtype for dtype, _ in dtypes.most_common())
    named = checkpoint.config.get("architectures")
    return ModelPlan(
        name=checkpoint.name,
        architecture=str(named[0]) if isinstance(named, list) and named else str(config.get("model_type", "unknown")),
        layers=anatomy.layers,
        hidden_size=anatomy.hidden_size,
        layout=layout,
        tensors=len(checkpoint.tensors),
        parameters=total["parameters"],
        bytes=total["bytes"],
        text=total["text"],
        active=total["active"],
        tables=total["tables"],
        roles=tuple(
            RoleSize(role, tower, counts["tensors"], counts["parameters"], counts["bytes"], counts["active"])
            for (role, tower), counts in sorted(sizes.items(), key=lambda row: -row[1]["bytes"])
        ),
        dtypes=ranked,
        serving=serving(weights, stored, ranked[0], layout.cached_numbers(CONTEXT)),
    )


def plan_pair(
    father: Checkpoint,
    mother: Checkpoint | None = None,
    ancestor: Checkpoint | None = None,
    *,
    vocabulary: str = "same",
    operator: str = "lerp",
    out: Path | None = None,
) -> Plan:
    """The plan of a pair, or of the father alone. Headers, configs and tokenizer files are read, nothing else.

    A pair that cannot be merged has a plan too: its failing checks say why, and what cannot be merged is listed.
    The free space is that of the disk `out` would lie on; `timed` adds the time. Raises `LabError` when a parent
    cannot be read.
    """
    if mother is not None and ancestor is None and NEEDS_ANCESTOR[operator]:
        raise LabError(f"{operator} needs a common ancestor; name one, or plan with dare, lerp or slerp")
    if mother is None:
        return Plan(plan_model(father), None, None, operator, vocabulary, (), (), None, None)
    checks = compare(father, mother, ancestor, vocabulary=vocabulary)
    anatomies = read_anatomy(father), read_anatomy(mother)
    tokens = None
    try:
        supplied = set(align(father, mother, vocabulary=vocabulary).names)
        if vocabulary == "by-token":
            match = match_tokens(father, mother)
            tokens = Vocabulary(match.shared, len(match.only_father), len(match.only_other))
    except LabError:  # tokenizers that cannot be matched have a failing check
        supplied = set(align(father, mother).names)
    plan = Plan(
        father=plan_model(father, anatomies[0]),
        mother=plan_model(mother, anatomies[1]),
        ancestor=plan_model(ancestor) if ancestor else None,
        operator=operator,
        vocabulary=vocabulary,
        checks=checks,
        groups=_fates((father, mother), anatomies, supplied, by_token=tokens is not None),
        tokens=tokens,
        cost=None,
    )
    readers = 3 if ancestor is not None and operator in USES_ANCESTOR else 2
    return replace(plan, cost=_cost(plan, readers, out, tokens))


def timed(plan: Plan, calibration: Calibration) -> Plan:
    """The plan with the estimated time of its export; without one where there is nothing to export."""
    if plan.cost is None or not plan.compatible:
        return plan
    seconds = calibration.seconds(plan.total(MERGED)[1], plan.total(COPIED)[2])
    return replace(plan, cost=replace(plan.cost, seconds=seconds, calibration=calibration))


def _fates(
    parents: tuple[Checkpoint, Checkpoint], anatomies: tuple[Anatomy, Anatomy], supplied: set[str], *, by_token: bool
) -> tuple[Group, ...]:
    """What becomes of each tensor of the father, which is each of the child, and which of the mother's are left out.

    `supplied` names the father's tensors that the mother has a counterpart for.
    """
    father, mother = parents
    his, hers = _atoms(father), _atoms(mother)
    all_his, all_hers = set().union(*his.values()), set().union(*hers.values())
    used = set().union(*(his[name] for name in supplied))
    kept, left = [], []
    for part in anatomies[0].parts.values():
        if not part.mergeable:
            kept.append((COPIED, part, part.reason))
        elif part.name in supplied:
            rows = by_token and has_token_rows(part)
            kept.append((MERGED, part, "rows matched by token" if rows else ""))
        else:
            reason = "has no such tensor" if all_hers.isdisjoint(his[part.name]) else "has it in another shape"
            kept.append((STUCK, part, f"the mother {reason}"))
    for part in anatomies[1].parts.values():
        if all_his.isdisjoint(hers[part.name]):
            left.append((DROPPED, part, NO_PLACE))
        elif used.isdisjoint(hers[part.name]):
            reason = "has another shape" if part.mergeable else f"is kept ({part.reason.split(':')[0]})"
            left.append((DROPPED, part, f"the father's {reason}"))
    return (*_grouped("father", kept, father), *_grouped("mother", left, mother))


def _atoms(checkpoint: Checkpoint) -> dict[str, tuple[str, ...]]:
    """What each tensor holds, under names that every layout shares."""
    return {info.name: tuple(atoms(info.name, info.shape)) for info in checkpoint.tensors.values()}


def _grouped(whose: str, rows: Iterable[tuple[str, Part, str]], checkpoint: Checkpoint) -> list[Group]:
    """Tensors that differ by number only become one group, the largest first."""
    found: dict[tuple[str, str, str, str, tuple[int, ...]], list[Part]] = {}
    for fate, part, reason in rows:
        pattern = _NUMBER.sub("*", part.name)
        key = (fate, reason, pattern, checkpoint.tensors[part.name].dtype, part.shape)
        found.setdefault(key, []).append(part)
    groups = [
        Group(
            fate=fate,
            whose=whose,
            pattern=pattern if len(parts) > 1 else parts[0].name,
            role=parts[0].role,
            reason=reason,
            dtype=dtype,
            shape=shape,
            layers=_span(parts),
            tensors=len(parts),
            parameters=sum(part.numel for part in parts),
            bytes=sum(checkpoint.tensors[part.name].nbytes for part in parts),
        )
        for (fate, reason, pattern, dtype, shape), parts in found.items()
    ]
    return sorted(groups, key=lambda group: (FATES.index(group.fate), -group.bytes))


def _span(parts: Iterable[Part]) -> tuple[int, int] | None:
    layers = [part.layer for part in parts if part.layer is not None and part.tower == "text"]
    return (min(layers), max(layers)) if layers else None


def _cost(plan: Plan, readers: int, out: Path | None, tokens: Vocabulary | None) -> Cost:
    widest = max((group.shape[-1] for group in plan.of(MERGED) if group.shape), default=1)
    matched = tokens.shared + tokens.only_father if tokens else 0
    merged, copied = plan.total(MERGED), plan.total(COPIED)
    return Cost(
        memory=_buffers(plan.operator, readers, widest) + matched * _TOKEN_BYTES,
        disk=plan.father.bytes,
        free=shutil.disk_usage(existing(out or Path())).free,
        read=merged[2] * readers + copied[2],
    )


def _buffers(operator: str, readers: int, widest: int) -> int:
    """Bytes the kernel holds at once: pieces as read and as written, float32 blocks, histograms of a selection.

    Counted for parents stored in 32 bits, each piece held twice while the next is read. `widest` is the longest row
    (last axis): an operator that works by rows holds at least one.
    """
    from darwin_lab.merging.arithmetic import BY_ROWS
    from darwin_lab.merging.passes import BLOCK, CHUNK

    block = max(BLOCK, widest) if operator in BY_ROWS else BLOCK
    numbers = 2 * (readers + 1) * max(CHUNK, block) + (3 + _SCRATCH_BLOCKS) * block
    return 4 * numbers + (_HISTOGRAM_BYTES if operator in _SELECTING else 0)
