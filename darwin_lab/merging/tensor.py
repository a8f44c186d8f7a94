"""One tensor of the child: a recipe row and functions that read the parents in, the child's tensor out, in pieces.

Arithmetic in float32 with one rounding at the end, to the father's dtype. No byte depends on the size of the pieces
or on the number of threads. Knows rows and flat tensors, not where they come from.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from math import prod

import torch

from darwin_lab.errors import LabError
from darwin_lab.merging.arithmetic import BLENDS, BY_ROWS, SHOWS_IN_CHILD
from darwin_lab.merging.operators import NEEDS_ANCESTOR, USES_ANCESTOR, How
from darwin_lab.merging.passes import BLOCK, CHUNK, SUMMED, Read, Stretch, all_finite, require_finite, sums_finite
from darwin_lab.merging.recipe import Recipe, Row


def merge_chunks(
    row: Row,
    recipe: Recipe,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    a: Read,
    b: Read | None = None,
    base: Read | None = None,
    *,
    fathers_rows: torch.Tensor | None = None,
    chunk: int = CHUNK,
) -> Iterator[torch.Tensor]:
    """The child's flattened tensor in order, in pieces [at most about `chunk`], each a tensor of its own in `dtype`.

    a, b, base: read father, mother and ancestor, each in its own dtype. fathers_rows: bool [rows of axis 0], rows
    copied from the father whatever the recipe says. `chunk` is rounded up to whole blocks. Raises `LabError` naming
    tensor and parent where a mergeable tensor holds NaN or Inf, where the operator needs an ancestor that is not
    there, and where a number is too large for `dtype`.
    """
    chunk = max(-(-chunk // BLOCK), 1) * BLOCK
    if row.action == "copy":
        read, parent = (a, "father") if row.ratio == 0.0 or b is None else (b, "mother")
        rounded = _copied(row, parent, read, dtype, prod(shape), chunk)
    else:
        assert b is not None
        if NEEDS_ANCESTOR[row.operator] and base is None:
            raise LabError(f"{row.operator} needs a common ancestor; name one, or use dare, lerp or slerp")
        reads = (a, b) if base is None or row.operator not in USES_ANCESTOR else (a, b, base)
        whole = Stretch(row.name, reads, 0, prod(shape), shape[-1] if shape else 1, chunk)
        rounded = _packed(_merged(row, recipe, shape, whole), whole, dtype)
    if fathers_rows is None or not bool(fathers_rows.any()):
        return rounded
    return _with_fathers_rows(rounded, a, fathers_rows, prod(shape[1:]), row.name)


def merge_tensor(
    row: Row,
    recipe: Recipe,
    a: torch.Tensor,
    b: torch.Tensor | None = None,
    base: torch.Tensor | None = None,
    *,
    fathers_rows: torch.Tensor | None = None,
) -> torch.Tensor:
    """The child's tensor, shape and dtype of `a`, from whole tensors. Raises as `merge_chunks` does."""
    reads = [None if tensor is None else _reader(tensor) for tensor in (b, base)]
    pieces = merge_chunks(row, recipe, tuple(a.shape), a.dtype, _reader(a), *reads, fathers_rows=fathers_rows)
    return torch.cat([a.new_empty(0), *pieces]).reshape(a.shape)


def _reader(tensor: torch.Tensor) -> Read:
    flat = tensor.flatten()
    return lambda start, count: flat[start : start + count]


def _copied(row: Row, parent: str, read: Read, dtype: torch.dtype, count: int, chunk: int) -> Iterator[torch.Tensor]:
    for start in range(0, count, chunk):
        piece = read(start, min(chunk, count - start))
        if row.component and not all_finite(piece):
            require_finite(row.name, parent, read, 0, count)
        if piece.dtype == dtype:
            yield piece
        else:
            rounded = piece.to(dtype)
            yield _fitting(rounded, row.name) if all_finite(piece) else rounded


def _merged(row: Row, recipe: Recipe, shape: tuple[int, ...], whole: Stretch) -> Iterator[torch.Tensor]:
    """Pieces not yet rounded; a merged one is good until the next."""
    how = How(row.operator, row.density_a, row.density_b, recipe.rescale, row.mix, recipe.seed, recipe.options)
    shares = row.expert_ratios
    if not whole.count:
        return
    if shares is not None and shape[:1] != (len(shares),):
        experts, given = shape[0] if shape else 1, f"{len(shares)} number{'' if len(shares) == 1 else 's'}"
        raise LabError(f"row {row.name}: expert_ratios has {given} for {experts} experts; write one for each")
    if shares is None:
        yield from _blended(whole, how, row.ratio)
    elif row.role == "router":
        yield from _router(whole, how, row.ratio, shares)
    else:
        size = whole.count // len(shares)
        for expert, ratio in enumerate(shares):
            yield from _blended(whole.part(expert * size, size), how, ratio)


def _blended(stretch: Stretch, how: How, ratio: float) -> Iterator[torch.Tensor]:
    if ratio in (0.0, 1.0):
        yield from stretch.copied(int(ratio))
        return
    if how.operator in BY_ROWS:
        stretch = stretch.by_rows()
    blend = BLENDS[how.operator](stretch, how)
    for block in stretch.blocks(unchecked=how.operator in SHOWS_IN_CHILD):
        yield blend(block, ratio)


def _router(whole: Stretch, how: How, ratio: float, shares: tuple[float, ...]) -> Iterator[torch.Tensor]:
    """One row an expert, each with its expert's share; a row that is one parent's whole gets the others' scale.

    Such a row is that parent's, centred and rescaled to the logit scale of the router blended at the tensor's own
    ratio: without its row a revived expert would never be chosen (methods section 5, "router rows travel with their
    experts").
    """
    rows = replace(whole, width=whole.count // len(shares), block=whole.count // len(shares))
    moved = {share: _revived(whole, how, ratio, len(shares), int(share)) for share in {0.0, 1.0} & {*shares} - {ratio}}
    blend = BLENDS[how.operator](rows.by_rows(), how)
    for expert, block in enumerate(rows.blocks()):
        share = shares[expert]
        if share in moved:
            yield moved[share][expert]
        elif share in (0.0, 1.0):
            yield block.a if share == 0.0 else block.b
        else:
            yield blend(block, share)


def _revived(whole: Stretch, how: How, ratio: float, experts: int, parent: int) -> torch.Tensor:
    """float32 [experts, H]: a parent's router (0 the father's) around the blended one's mean row, at its scale."""
    blended = torch.cat([piece.float() for piece in _blended(whole, how, ratio)]).view(experts, -1)
    own = torch.cat([piece.float() for piece in whole.copied(parent)]).view(experts, -1)
    mean = _mean_row(blended)
    centred = own - _mean_row(own)
    scales = [_norm(rows) for rows in (centred, blended - mean)]
    return mean + centred * (scales[1] / scales[0] if scales[0] else 1.0)


def _mean_row(rows: torch.Tensor) -> torch.Tensor:
    """Added row by row: a sum over an axis may depend on the number of threads."""
    total = torch.zeros_like(rows[0])
    for row in rows:
        total += row
    return total / rows.shape[0]


def _norm(rows: torch.Tensor) -> float:
    return math.sqrt(math.fsum(float(part.square().sum()) for part in torch.split(rows.flatten(), SUMMED)))


def _packed(pieces: Iterator[torch.Tensor], whole: Stretch, dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """The same elements rounded to `dtype`, in tensors of a chunk. Raises `LabError` where they are not finite."""
    done, filled = 0, 0
    out = torch.empty(0, dtype=dtype)
    for piece in pieces:
        taken = 0
        while taken < piece.numel():
            if filled == out.numel():
                if filled:
                    yield _fitting(out, whole.name, whole)
                out, filled = torch.empty(min(whole.chunk, whole.count - done), dtype=dtype, device=piece.device), 0
            size = min(piece.numel() - taken, out.numel() - filled)
            out[filled : filled + size].copy_(piece if size == piece.numel() else piece[taken : taken + size])
            done, filled, taken = done + size, filled + size, taken + size
    if filled:
        yield _fitting(out, whole.name, whole)


def _fitting(rounded: torch.Tensor, name: str, merged: Stretch | None = None) -> torch.Tensor:
    """The tensor itself, made of finite numbers. Raises `LabError` when those `merged` are not, or when its dtype, or
    float32 before, was too small."""
    if not sums_finite(rounded) and not all_finite(rounded):
        if merged is not None:
            merged.require_finite()
        raise LabError(f"{name} holds numbers too large for {rounded.dtype}; {_REMEDIES.get(rounded.dtype, _CALMER)}")
    return rounded


_CALMER = "use operator lerp, which stays between its parents"
_REMEDIES = {
    torch.float16: "use --dtype bfloat16 or float32",
    torch.bfloat16: f"{_CALMER}, or --dtype float32 where the father's is",
}


def _with_fathers_rows(
    pieces: Iterator[torch.Tensor], a: Read, fathers_rows: torch.Tensor, width: int, name: str
) -> Iterator[torch.Tensor]:
    """The pieces with the father's own elements in his rows. Raises `LabError` where those are too large."""
    start = 0
    for piece in pieces:
        first, end = start // width, -(-(start + piece.numel()) // width)
        rows = fathers_rows[first:end]
        if bool(rows.any()):
            mask = rows.to(piece.device).repeat_interleave(width)[start - first * width :][: piece.numel()]
            yield _fitting(torch.where(mask, a(start, piece.numel()).to(piece.dtype), piece), name)
        else:
            yield piece
        start += piece.numel()
