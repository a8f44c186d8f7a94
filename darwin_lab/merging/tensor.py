"""One tensor of the child: a recipe row and the parents' tensors in, the child's tensor out.

Arithmetic in float32 with one rounding at the end, to the father's dtype. Knows rows and tensors,
not where they come from.
"""

import torch

from darwin_lab.errors import LabError
from darwin_lab.merging.operators import NEEDS_ANCESTOR, Blend, Draw, blend, block_dot
from darwin_lab.merging.recipe import Recipe, Row


def merge_tensor(
    row: Row, recipe: Recipe, a: torch.Tensor, b: torch.Tensor, base: torch.Tensor | None = None
) -> torch.Tensor:
    """The child's tensor, shape and dtype of `a`. Raises `LabError` naming the tensor when a parent's is not finite."""
    if row.action == "copy":
        kept, parent = (a, "father") if row.ratio == 0.0 else (b, "mother")
        if row.component:
            _float(kept, row.name, parent)
        return kept.to(a.dtype)
    flat = {"father": _float(a, row.name, "father"), "mother": _float(b, row.name, "mother")}
    if base is not None:
        flat["ancestor"] = _float(base, row.name, "ancestor")
    if row.expert_ratios is None:
        merged = _blend(row, recipe, row.ratio, flat, slice(None))
    elif row.role == "router":
        merged = _merge_router(row, recipe, flat, len(row.expert_ratios))
    else:
        size = a.numel() // len(row.expert_ratios)
        merged = torch.cat(
            [
                _blend(row, recipe, ratio, flat, slice(expert * size, (expert + 1) * size))
                for expert, ratio in enumerate(row.expert_ratios)
            ]
        )
    return merged.to(a.dtype).reshape(a.shape)


def _blend(row: Row, recipe: Recipe, ratio: float, flat: dict[str, torch.Tensor], part: slice) -> torch.Tensor:
    a, b = flat["father"][part], flat["mother"][part]
    if ratio in (0.0, 1.0):
        return a if ratio == 0.0 else b
    base = flat["ancestor"][part] if "ancestor" in flat and row.operator != "lerp" else None
    if NEEDS_ANCESTOR[row.operator] and base is None:
        raise LabError(f"{row.operator} needs a common ancestor; name one, or use dare, lerp or slerp")
    how = Blend(row.operator, ratio, row.density_a, row.density_b, recipe.rescale, row.mix)
    return blend(a, b, base, how, Draw(recipe.seed, row.name, part.start or 0))


def _merge_router(row: Row, recipe: Recipe, flat: dict[str, torch.Tensor], experts: int) -> torch.Tensor:
    """Rows of experts that stay the father's are his, centred and rescaled to the blended router's logit scale.

    Without its row a revived expert would never be chosen (methods section 5, "router rows travel with their experts").
    """
    blended = _blend(row, recipe, row.ratio, flat, slice(None)).reshape(experts, -1).clone()
    father = flat["father"].reshape(experts, -1)
    centred = father - father.mean(0), blended - blended.mean(0)
    scales = [block_dot(rows.flatten(), rows.flatten()) ** 0.5 for rows in centred]
    revived = blended.mean(0) + centred[0] * (scales[1] / scales[0] if scales[0] else 1.0)
    kept = [expert for expert, ratio in enumerate(row.expert_ratios or ()) if ratio == 0.0]
    blended[kept] = revived[kept]
    return blended.flatten()


def _float(tensor: torch.Tensor, name: str, parent: str) -> torch.Tensor:
    flat = tensor.flatten().float()
    finite = torch.isfinite(flat)
    if not bool(finite.all()):
        count = int((~finite).sum())
        raise LabError(
            f"{name} of the {parent} holds {count} NaN or Inf of {flat.numel():,} values; mend that checkpoint"
        )
    return flat
