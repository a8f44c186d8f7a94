"""Every family, every layout, every operator: is the child whole, and are 0 and 1 copies?

Writes tiny random parents of each family (as transformers saves them, as the Hub holds them, with fused and with single
experts), breeds them and checks the exported folders. One line a family and layout:

  tensors   of the child; names, shapes, dtypes must be exactly the father's
  reload    names transformers misses / has no place for
  MTP, vision, experts   tensors of each in the exported child (- where the family has none)
  copies    operators whose child is the father byte for byte at 0 and the mother in every merged tensor at 1
  half      operators whose child at .5 has the father's names, shapes and dtypes, and is finite
  mothers   layouts of the mother that give the same bytes (dare_ties, .37) as the father's own layout

About two minutes of one idle core. Exits 1 when a line fails.

    python benchmarks/families.py [--families llama qwen3_5_moe ...]
"""

import argparse
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from darwin_lab.checkpoint.anatomy import read_anatomy
from darwin_lab.checkpoint.checkpoint import Checkpoint, torch_dtype
from darwin_lab.engine.child import Child
from darwin_lab.engine.export import export_child
from darwin_lab.merging.operators import OPERATORS
from darwin_lab.merging.recipe import uniform_recipe
from tests.families import (
    KINDS,
    LAYOUTS,
    MIXTURES,
    WITH_MTP,
    WITH_VISION,
    header_of,
    reloaded,
    tensors_of,
    write_family_pair,
)

Trio = tuple[Path, Path, Path]
DENSITY, RATIO, SEED = 0.5, 0.37, 3
WORDS = ("family", "layout", "tensors", "reload", "MTP", "vision", "experts", "copies", "half", "mothers", "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=KINDS, default=KINDS, metavar="FAMILY", help=", ".join(KINDS))
    torch.set_num_threads(1)
    failed = 0
    print(line(WORDS))
    for kind in parser.parse_args().families:
        with tempfile.TemporaryDirectory() as place:
            trios = {layout: write_family_pair(kind, Path(place), layout) for layout in LAYOUTS[kind]}
            for layout in trios:
                cells, ok = check(kind, layout, trios, Path(place) / "children" / layout)
                failed += not ok
                print(line((kind, layout, *cells, "ok" if ok else "FAILED")), flush=True)
    print(f"{len(OPERATORS)} operators: {', '.join(OPERATORS)}")
    print("every line holds" if not failed else f"{failed} lines FAILED")
    return 1 if failed else 0


def line(cells: tuple[str, ...]) -> str:
    widths = (17, 7, 8, 7, 5, 7, 8, 8, 7, 8, 0)
    return " ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def check(kind: str, layout: str, trios: dict[str, Trio], place: Path) -> tuple[tuple[str, ...], bool]:
    """The cells of one line, and whether it holds."""
    trio = trios[layout]
    out = export_child(child_of(trio, 0.5), place)
    missing, unexpected = reloaded(out)
    anatomy = read_anatomy(Checkpoint(out))
    roles = [part.role for part in anatomy.parts.values()]
    held = {role: roles.count(role) for role in ("mtp", "vision", "expert")}
    due = {
        "mtp": kind in WITH_MTP and layout != "saved", "vision": kind in WITH_VISION, "expert": kind in MIXTURES,
    }  # fmt: skip
    tensors = [tensors_of(folder) for folder in trio[:2]]
    moved = {part.name for part in anatomy.mergeable}
    copies = [name for name in OPERATORS if copies_at_the_ends(trio, name, tensors, moved)]
    half = [name for name in OPERATORS if is_whole(child_of(trio, 0.5, name), tensors[0])]
    mothers = [other for other in trios if same_bytes(trio, trios[other])]
    ok = (
        header_of(out) == header_of(trio[0])
        and not missing
        and not unexpected
        and all(bool(held[role]) == due[role] for role in held)
        and len(copies) == len(half) == len(OPERATORS)
        and len(mothers) == len(trios)
    )
    counts = (str(held[role]) if held[role] or due[role] else "-" for role in held)
    shares = (f"{len(found)}/{len(OPERATORS)}" for found in (copies, half))
    cells = (str(len(roles)), f"{len(missing)}/{len(unexpected)}", *counts, *shares, f"{len(mothers)}/{len(trios)}")
    return cells, ok


def child_of(trio: Trio, ratio: float, operator: str = "lerp") -> Child:
    father, mother, ancestor = map(Checkpoint, trio)
    return Child(father, mother, uniform_recipe(read_anatomy(father), ratio, operator, DENSITY, SEED), ancestor)


def copies_at_the_ends(trio: Trio, operator: str, tensors: list[dict[str, torch.Tensor]], moved: set[str]) -> bool:
    father, mother = tensors
    at_0, at_1 = (child_of(trio, ratio, operator) for ratio in (0.0, 1.0))
    return all(
        equal(at_0.read(name), father[name]) and equal(at_1.read(name), (mother if name in moved else father)[name])
        for name in at_0.names
    )


def is_whole(child: Child, father: dict[str, torch.Tensor]) -> bool:
    if set(child.names) != set(father):
        return False
    for row in child.recipe.rows.values():
        tensor = child.read(row.name)
        if tensor.shape != father[row.name].shape or tensor.dtype != torch_dtype(child.father.tensors[row.name].dtype):
            return False
        if row.action == "merge" and not bool(torch.isfinite(tensor).all()):
            return False
    return True


def same_bytes(trio: Trio, other: Trio) -> bool:
    straight, crossed = (child_of((trio[0], *rest[1:]), RATIO, "dare_ties") for rest in (trio, other))
    return all(equal(crossed.read(name), straight.read(name)) for name in straight.names)


def equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Byte for byte: NaN equals itself, -0 is not 0."""
    raw = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (a, b)]
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*raw)


if __name__ == "__main__":
    sys.exit(main())
