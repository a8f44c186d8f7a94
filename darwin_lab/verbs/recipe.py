"""The verb `recipe`: what made an exported child, and the same as mergekit YAML as far as that can say it."""

import argparse
from pathlib import Path

from darwin_lab.checkpoint.anatomy import COMPONENTS
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.errors import LabError
from darwin_lab.merging.mergekit_yaml import recipe_to_mergekit
from darwin_lab.merging.recipe import Recipe
from darwin_lab.merging.recipe_file import RecipeFile, read_recipe_file
from darwin_lab.progress import Tick
from darwin_lab.verbs.common import Result


def run(arguments: argparse.Namespace, tick: Tick) -> Result:
    """Show a recipe; with --mergekit write it as YAML and list what that leaves out."""
    file = read_recipe_file(arguments.child)
    recipe = file.recipe
    merged = sum(row.action == "merge" for row in recipe.rows.values())
    data = {
        "recipe": recipe.hash,
        "genome": file.genome,
        "prescription": recipe.prescription_hash or None,
        "parents": {role: vars(parent) for role, parent in file.parents.items()},
        "operators": sorted(recipe.operators),
        "options": recipe.options,
        "seed": recipe.seed,
        "rescale": recipe.rescale,
        "vocabulary": recipe.vocabulary,
        "dtype": file.dtype,
        "tensors": {"merged": merged, "copied": len(recipe.rows) - merged},
        "component_ratio": _component_ratios(recipe),
        "layer_ratio": recipe.layer_ratios(),
        "versions": dict(file.versions),
    }
    lines = _lines(file, merged)
    if arguments.mergekit is not None:
        written = recipe_to_mergekit(
            recipe, {role: _folder_or_id(parent.ref) for role, parent in file.parents.items()}, file.dtype
        )
        _write(arguments.mergekit, written.text)
        data |= {"mergekit": str(arguments.mergekit), "unsaid": list(written.unsaid)}
        told = "written; mergekit cannot say" if written.unsaid else "written; it says all that the recipe does"
        lines += ["", f"{arguments.mergekit}: {told}", *(f"- {one}" for one in written.unsaid)]
    return Result(data, "\n".join(lines))


def _component_ratios(recipe: Recipe) -> dict[str, float]:
    found = {component: recipe.component_ratio(component) for component in COMPONENTS}
    return {component: round(ratio, 6) for component, ratio in found.items() if ratio is not None}


def _lines(file: RecipeFile, merged: int) -> list[str]:
    recipe = file.recipe
    lines = [f"child {recipe.hash}: {merged} tensors merged, {len(recipe.rows) - merged} copied"]
    lines += [f"{role:<10} {parent.name}  {parent.fingerprint}  {parent.ref}" for role, parent in file.parents.items()]
    options = ", ".join(f"{name} {value:g}" for name, value in recipe.options.items())
    operators = ", ".join(sorted(recipe.operators)) or "copy"
    lines.append(f"{'operators':<10} {operators}{f' ({options})' if options else ''}")
    lines.append(f"{'seed':<10} {recipe.seed}, rescale {recipe.rescale}, vocabulary {recipe.vocabulary}")
    ratios = ", ".join(f"{component} {ratio:.4f}" for component, ratio in _component_ratios(recipe).items())
    return [*lines, f"{'mean ratio':<10} {ratios}"]


def _folder_or_id(ref: str) -> str:
    """What mergekit can open: a family name is the lab's own, so its folder."""
    return str(open_checkpoint(ref).folder.resolve()) if ref.startswith("family:") else ref


def _write(path: Path, text: str) -> None:
    if path.exists():
        raise LabError(f"{path} exists; give a new file")
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LabError(f"cannot write {path}: {error.strerror}; choose another --mergekit") from None
