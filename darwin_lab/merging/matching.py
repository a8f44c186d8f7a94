"""Whether expert 3 of one parent is expert 3 of the other, and which one it is when it is not.

Takes two checkpoints, gives per MoE layer the share of experts whose best match has the same number, and the best
one-to-one matching. Reads a few stretches of every expert into a sketch of fixed size, never a whole layer. Knows
names and weights; must not know ratios or recipes. Source: methods section 4, "Identity check".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from darwin_lab.checkpoint.alignment import Aligned, align
from darwin_lab.checkpoint.anatomy import FUSED, Anatomy, Part, has_expert_rows, read_anatomy
from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.errors import LabError
from darwin_lab.merging.draws import Draws, draw_key
from darwin_lab.progress import Tick, silent

if TYPE_CHECKING:
    from darwin_lab.merging.recipe import Recipe

Floats = NDArray[np.float64]
MATCH_THEM = '--match-experts in the shell, Experts "Matched by weights" in the Parents tab'
"""Where experts that do not correspond by number are matched."""
SAME = 0.99
"""Least share of experts that must find themselves before two parents are merged by number."""
SKETCH = 512
"""Numbers a sketch has. A cosine c of two sketches errs by (1 - c^2) / sqrt(512): .044 at 0, .004 at .95."""
STRETCH, STRETCHES = 1 << 14, 4
"""Of each of an expert's tensors this many evenly spaced stretches of this many weights are read, or all of it."""
_TIE = 1e-6


@dataclass(frozen=True)
class ExpertIdentity:
    """How the experts of two parents correspond. Keys are decoder layers with experts.

    share: part of the father's experts whose most similar expert of the mother has their own number. order: for each
    of the father's experts the mother's in the best one-to-one matching; only layers where it is not by number.
    similarity: mean similarity of the pairs so matched, 1 for equal experts, about 0 for strangers.
    """

    share: Mapping[int, float]
    order: Mapping[int, tuple[int, ...]]
    similarity: Mapping[int, float]

    @property
    def worst(self) -> float:
        """The smallest share of any layer."""
        return min(self.share.values(), default=1.0)

    @property
    def same(self) -> bool:
        """Whether the parents may be merged expert by expert as they are numbered: no other numbering fits better."""
        return self.worst >= SAME or not self.order

    def require_same(self) -> None:
        """Raises `LabError` naming the worst layer and the remedy when the experts do not correspond by number."""
        if not self.same:
            layer = min(self.share, key=lambda one: self.share[one])
            raise LabError(
                f"only {self.share[layer]:.0%} of the experts in layer {layer} are most like the one with their own "
                f"number in the other parent ({SAME:.0%} needed); match them by weights ({MATCH_THEM}), or choose "
                "parents of one base"
            )

    def words(self) -> str:
        """One sentence for people."""
        if not self.order:
            return f"experts correspond by number in all {len(self.share)} layers"
        alike = min(self.similarity[layer] for layer in self.order)
        return f"experts matched anew in {len(self.order)} of {len(self.share)} layers, similarity {alike:.2f} or more"


def expert_identity(
    father: Checkpoint, mother: Checkpoint | Aligned, anatomy: Anatomy, tick: Tick = silent
) -> ExpertIdentity | None:
    """Compare all experts of two parents that can be merged; `anatomy` is the father's. None for dense models.
    An aligned mother's experts count in the order she was aligned in.

    An expert is its router row and its weights, each centred over the layer's experts; the similarity of two is the
    mean of both cosines. Memory is one sketch an expert of one layer. Raises `LabError` for weights that are not
    finite.
    """
    if not anatomy.experts:
        return None
    theirs = mother if isinstance(mother, Aligned) else align(father, mother)
    share: dict[int, float] = {}
    order: dict[int, tuple[int, ...]] = {}
    similarity: dict[int, float] = {}
    for done, layer in enumerate(anatomy.moe_layers):
        tick(done / len(anatomy.moe_layers), f"comparing the experts of layer {layer}")
        parts = [part for part in anatomy.layer_parts(layer) if part.mergeable]
        alike = _similarities(*(_experts(source, parts, anatomy.experts) for source in (father, theirs)))
        own = np.diagonal(alike)
        share[layer] = float((own >= alike.max(1) - _TIE).mean())
        matched = tuple(range(anatomy.experts)) if share[layer] == 1.0 else _best_matching(alike)
        similarity[layer] = float(alike[range(anatomy.experts), matched].mean())
        if matched != tuple(range(anatomy.experts)):
            order[layer] = matched
    tick(1.0, "experts compared")
    return ExpertIdentity(share, order, similarity)


def mixes_experts(recipe: "Recipe") -> bool:
    """Whether some layer takes experts or router rows of both parents, so that their numbers must correspond."""
    shares: dict[int, set[float]] = {}
    for row in recipe.rows.values():
        if row.component and row.layer is not None and row.role in ("expert", "router"):
            shares.setdefault(row.layer, set()).update(row.expert_ratios or (row.ratio,))
    experts = {row.layer for row in recipe.rows.values() if row.role == "expert"}
    return any(found not in ({0.0}, {1.0}) for layer, found in shares.items() if layer in experts)


def require_same_experts(father: Checkpoint, mother: Checkpoint, recipe: "Recipe", tick: Tick = silent) -> None:
    """Raises `LabError` when a recipe would blend experts that do not correspond.

    Reads nothing where no layer takes experts of both parents, or where the recipe has matched them; else the experts
    of both, once for all recipes of these parents.
    """
    if not recipe.expert_order and mixes_experts(recipe):
        found = _compared(father, mother)
        if not found:
            found.append(expert_identity(father, mother, read_anatomy(father), tick))
        if found[0] is not None:
            found[0].require_same()


@lru_cache(maxsize=16)
def _compared(father: Checkpoint, mother: Checkpoint) -> list[ExpertIdentity | None]:
    """A place for what comparing these parents by number gives; empty until that was done."""
    return []


def _experts(source: Checkpoint | Aligned, parts: list[Part], experts: int) -> list[Floats]:
    """What tells a layer's experts apart: their weights as sketches [E, SKETCH], their router rows [E, H]."""
    sketches = np.zeros((experts, SKETCH))
    rows = []
    for part in parts:
        if part.role == "expert" and part.expert == FUSED:
            size = part.numel // experts
            for expert in range(experts):
                sketches[expert] += _sketch(source, part, part.name, expert * size, size)
        elif part.role == "expert" and part.expert is not None:
            key = part.name.replace(f"experts.{part.expert}.", "experts.")
            sketches[part.expert] += _sketch(source, part, key, 0, part.numel)
        elif has_expert_rows(part, experts) and len(part.shape) == 2:
            rows.append(source.read(part.name).double().numpy())
    return [sketches, *rows]


def _sketch(source: Checkpoint | Aligned, part: Part, key: str, start: int, size: int) -> Floats:
    """Random signs (the same for every expert and both parents) times weights, summed over every SKETCH-th [SKETCH]."""
    count = min(size, STRETCH)
    stretches = min(STRETCHES, ceil(size / STRETCH))
    total = np.zeros(SKETCH)
    for number in range(stretches):
        place = number * (size - count) // max(stretches - 1, 1)
        weights = source.read_flat(part.name, start + place, count).float()
        padded = torch.nn.functional.pad(weights * _signs(key, place, count), (0, -count % SKETCH))
        total += padded.reshape(-1, SKETCH).sum(0).double().numpy()
    if not np.isfinite(total).all():
        raise LabError(f"{part.name} of {source.name} holds NaN or Inf; mend that checkpoint")
    return total


@lru_cache(maxsize=64)
def _signs(key: str, place: int, count: int) -> torch.Tensor:
    """float32 [count] of 1 and -1, drawn once for all experts."""
    return 1.0 - 2.0 * (Draws(draw_key(0, key, "sketch")).keep(0.5, place, count) != 0).float()


def _similarities(father: list[Floats], mother: list[Floats]) -> Floats:
    """[E, E] mean over sketches and router rows of the cosine between the father's experts and the mother's."""
    cosines: Floats = np.stack([_unit(a) @ _unit(b).T for a, b in zip(father, mother, strict=True)])
    mean: Floats = cosines.mean(0)
    return mean


def _unit(rows: Floats) -> Floats:
    """Rows less their mean, at length 1; a row that is the mean stays 0."""
    centred = rows - rows.mean(0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    unit: Floats = np.divide(centred, lengths, out=np.zeros_like(centred), where=lengths > 1e-12 * np.abs(rows).max())
    return unit


def _best_matching(alike: Floats) -> tuple[int, ...]:
    """For each row the column of the one-to-one matching with the largest sum (Hungarian)."""
    from scipy.optimize import linear_sum_assignment

    return tuple(int(column) for column in linear_sum_assignment(alike, maximize=True)[1])
