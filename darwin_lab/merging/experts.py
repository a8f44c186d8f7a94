"""The mother's share of single experts, and of the router rows that travel with them.

Takes parts, ratios, utilisations and recipe rows; gives ratios per expert and what to warn of. Pure arithmetic: reads
no weights. Formulas: methods section 5, "MoE".
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from darwin_lab.checkpoint.anatomy import FUSED, Anatomy, Part, has_expert_rows
from darwin_lab.errors import LabError
from darwin_lab.merging.prescription import DEAD, Prescription

if TYPE_CHECKING:
    from darwin_lab.merging.recipe import Row

_DIGITS = 6


def expert_shares(
    part: Part, ratio: float, mode: str, advice: Prescription | None, experts: int
) -> tuple[float, ...] | None:
    """The mother's share of each expert of a tensor [E], [1] of one that holds a single expert.

    `mode` "preserve": 0 for experts dead in the mother and alive in the father, `ratio` for the others. "usage": see
    `usage_shares`. None where all share `ratio`: mode "blend", a tensor without expert rows, a layer the advice is
    silent on. Raises `LabError` when the advice counts other experts than the model has.
    """
    places = _places(part, experts)
    if advice is None or part.layer is None or mode == "blend" or not places:
        return None
    if mode == "preserve":
        kept = advice.preserve.get(part.layer, ())
        shares = tuple(0.0 if expert in kept else ratio for expert in places)
    else:
        father, mother = advice.utilisation.get(part.layer, ((), ()))
        if father and len(father) != experts:
            raise LabError(f"the scans counted {len(father)} experts, this model has {experts}; scan these parents")
        shares = usage_shares(ratio, [father[e] for e in places], [mother[e] for e in places]) if father else ()
    return None if all(share == ratio for share in shares) else shares


def usage_shares(ratio: float, father: Sequence[float], mother: Sequence[float]) -> tuple[float, ...]:
    """t_e = t u_B / ((1 - t) u_A + t u_B): each expert leans to the parent that uses it; t where neither does.

    `father` and `mother` are the utilisations u_A and u_B [E]; rounded to 1e-6. Source: methods section 5.
    """
    shares = []
    for use_a, use_b in zip(father, mother, strict=True):
        total = (1.0 - ratio) * use_a + ratio * use_b
        shares.append(round(ratio * use_b / total, _DIGITS) if total > 0 else ratio)
    return tuple(shares)


def unroused(anatomy: Anatomy, rows: Mapping[str, "Row"], advice: Prescription) -> dict[int, tuple[int, ...]]:
    """Layer -> experts that get weights of the parent that uses them under the router row of the one that does not.

    They stay unchosen, whatever their weights are: an expert is revived only together with its router row (methods
    section 5). An expert is used above `DEAD` of the even share.
    """
    given: dict[int, dict[int, float]] = {}
    routed: dict[int, dict[int, float]] = {}
    for part in anatomy.mergeable:
        if part.layer in advice.utilisation and (places := _places(part, anatomy.experts)):
            row = rows[part.name]
            shares = row.expert_ratios or (row.ratio,) * len(places)
            kind = routed if part.role == "router" else given
            kind.setdefault(part.layer, {}).update(zip(places, shares, strict=True))
    found = {}
    line = DEAD / max(anatomy.experts, 1)
    for layer, shares_of in given.items():
        father, mother = advice.utilisation[layer]
        rows_of = routed.get(layer, {})
        asleep = [
            expert
            for expert, share in shares_of.items()
            if (mother[expert] < line <= father[expert] and rows_of.get(expert) == 1.0 and share < 1.0)
            or (father[expert] < line <= mother[expert] and rows_of.get(expert) == 0.0 and share > 0.0)
        ]
        if asleep:
            found[layer] = tuple(sorted(asleep))
    return dict(sorted(found.items()))


def _places(part: Part, experts: int) -> Sequence[int]:
    """The experts whose rows a tensor holds; none for a tensor that has no expert axis."""
    if part.role == "expert" and part.expert is not None and part.expert != FUSED:
        return (part.expert,)
    stacked = (part.role == "expert" and part.expert == FUSED) or has_expert_rows(part, experts)
    return range(experts) if stacked else ()
