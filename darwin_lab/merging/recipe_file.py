"""`recipe.json`: a recipe as an artefact, with everything the child's bytes depend on and one row a tensor.

Takes a recipe and its parents, gives JSON; takes JSON, gives the very same recipe (equal hash) and how to find its
parents again. Format version 2. Checks every value it reads; reads no weights.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from pathlib import Path
from platform import python_version
from typing import Any

from darwin_lab import __version__
from darwin_lab.checkpoint.anatomy import Anatomy
from darwin_lab.checkpoint.checkpoint import Checkpoint, read_json
from darwin_lab.checkpoint.vocabulary import VOCABULARIES
from darwin_lab.errors import LabError
from darwin_lab.genome.genome import RESCALES
from darwin_lab.merging.operators import NEEDS_ANCESTOR, OPTIONS
from darwin_lab.merging.recipe import Recipe, Row, check_options

RECIPE_FILE = "recipe.json"
VERSION = 2
ROLES = ("father", "mother", "ancestor")
_DTYPES = ("bfloat16", "float16", "float32")
_LIBRARIES = ("torch", "transformers")


@dataclass(frozen=True)
class ParentRef:
    """A parent as the file names it: `ref` opens it again on the machine of the export, `fingerprint` proves it."""

    name: str
    ref: str
    fingerprint: str


@dataclass(frozen=True)
class RecipeFile:
    """A file read back. `dtype` is None where the father's dtypes were kept; `genome` is its JSON, if there was one."""

    recipe: Recipe
    parents: Mapping[str, ParentRef]
    dtype: str | None
    genome: Mapping[str, Any] | None
    versions: Mapping[str, str]

    def check_parents(self, given: Mapping[str, Checkpoint | None]) -> None:
        """Raises `LabError` when a parent (role -> checkpoint) is missing, or not the one the recipe was made with."""
        for role, wanted in self.parents.items():
            found = given.get(role)
            if found is None:
                raise LabError(f"the recipe needs its {role} {wanted.name}; give --{role}")
            if found.fingerprint != wanted.fingerprint:
                raise LabError(
                    f"{found.name} is not the {role} of this recipe: its fingerprint is {found.fingerprint}, the "
                    f"recipe's {wanted.name} had {wanted.fingerprint}; give the checkpoint it was made with"
                )

    def check_roles(self, anatomy: Anatomy) -> None:
        """Raises `LabError` where a row's role is not the father's: the recipe's hash says nothing of roles."""
        for name, row in self.recipe.rows.items():
            part = anatomy.parts.get(name)
            if part is not None and (row.role, row.component or part.component) != (part.role, part.component):
                has = f"{row.role} {row.component}".strip()
                is_ = f"{part.role} {part.component}".strip()
                raise LabError(f"{name} is {is_!r} in the father, the recipe says {has!r}; get the recipe anew")

    def other_versions(self) -> dict[str, tuple[str, str]]:
        """What differs from the machine of the export: name -> (then, now). The bytes may then differ too."""
        now = library_versions()
        return {name: (then, now[name]) for name, then in self.versions.items() if now.get(name, then) != then}


def recipe_to_json(
    recipe: Recipe,
    parents: Mapping[str, Checkpoint],
    *,
    dtype: str | None = None,
    genome: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What `recipe.json` holds. `parents`: role ("father", "mother", "ancestor") -> checkpoint."""
    return {
        "version": VERSION,
        "recipe": recipe.hash,
        "genome": dict(genome) if genome is not None else None,
        "genome_hash": recipe.genome_hash,
        "prescription": recipe.prescription_hash,
        "advised_by": recipe.advised_by,
        "parents": {
            role: asdict(ParentRef(parents[role].name, _ref(parents[role]), parents[role].fingerprint))
            for role in ROLES
            if role in parents
        },
        "seed": recipe.seed,
        "rescale": recipe.rescale,
        "options": dict(recipe.options),
        "vocabulary": recipe.vocabulary,
        "expert_order": {str(layer): list(order) for layer, order in recipe.expert_order.items()},
        "dtype": dtype,
        "warnings": list(recipe.warnings),
        "versions": library_versions(),
        "rows": recipe.to_rows(),
    }


def recipe_text(data: Mapping[str, Any]) -> str:
    """The JSON as text: one line a key, one line a tensor."""
    head = {key: value for key, value in data.items() if key != "rows"}
    rows = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in data["rows"])
    return json.dumps(head, indent=1, ensure_ascii=False)[:-2] + f',\n "rows": [\n{rows}\n ]\n}}\n'


def recipe_from_json(data: Any) -> Recipe:
    """The recipe of a file's JSON. Raises `LabError` for another version, a value that makes no sense, or a wrong hash.

    The key `recipe` (the hash) may be left out: then rows edited by hand are taken as they are.
    """
    if not isinstance(data, dict) or not isinstance(data.get("rows"), list):
        raise LabError("that is no recipe.json: it has no rows; give the file beside an export")
    if data.get("version") != VERSION:
        raise LabError(
            f"the recipe has version {data.get('version')!r}, this lab reads version {VERSION}, which says everything "
            "the bytes depend on; export the child again"
        )
    rows = [_row(row, place) for place, row in enumerate(data["rows"])]
    recipe = Recipe(
        rows={row.name: row for row in rows},
        seed=_field(data, "seed", _is_whole, 0, "a whole number"),
        rescale=_field(data, "rescale", lambda value: value in RESCALES, "inverse", " or ".join(RESCALES)),
        genome_hash=_field(data, "genome_hash", _is_text, "", "a text"),
        prescription_hash=_field(data, "prescription", _is_text, "", "a text"),
        advised_by=_field(data, "advised_by", _is_text, "", "a text"),
        vocabulary=_field(
            data, "vocabulary", lambda value: value in VOCABULARIES, VOCABULARIES[0], " or ".join(VOCABULARIES)
        ),
        expert_order=_expert_order(data),
        options=_options(data, rows),
        warnings=tuple(_field(data, "warnings", _is_text_list, [], "a list of texts")),
    )
    if len(recipe.rows) != len(rows):
        raise LabError("the recipe has two rows for one tensor; export the child again")
    if "recipe" in data and data["recipe"] != recipe.hash:
        raise LabError(
            f"the rows of the recipe give {recipe.hash}, its name is {data['recipe']!r}: the file was changed or comes "
            'from a newer lab; take the key "recipe" out to run it as it stands'
        )
    return recipe


def read_recipe_file(path: Path) -> RecipeFile:
    """`recipe.json`, or the folder of the export that holds it. Raises `LabError` naming the file."""
    file = path / RECIPE_FILE if path.is_dir() else path
    if not file.is_file():
        raise LabError(f"no recipe {file}; give the recipe.json beside an export")
    data = read_json(file)
    try:
        recipe = recipe_from_json(data)
        parents = _field(
            data, "parents", lambda value: _is_table(value, _is_parent), {}, "name, ref and fingerprint of each"
        )
        if not {"father", "mother"} <= set(parents) <= set(ROLES):
            raise LabError("the recipe does not name its father and mother; export the child again")
        return RecipeFile(
            recipe,
            {role: ParentRef(**{field.name: parents[role][field.name] for field in fields(ParentRef)})
             for role in ROLES if role in parents},
            _field(data, "dtype", lambda value: value is None or value in _DTYPES, None,
                   f"null (the father's), {', '.join(_DTYPES)}"),
            _field(data, "genome", lambda value: value is None or isinstance(value, dict), None, "null or a genome"),
            _field(data, "versions", lambda value: _is_table(value, _is_text), {}, "a text for each name"),
        )  # fmt: skip
    except LabError as error:
        raise LabError(f"{file}: {error}") from None


def library_versions() -> dict[str, str]:
    """Of the lab, Python and the libraries that bytes may depend on, here and now."""
    return {"lab": __version__, "python": python_version(), **{name: _installed(name) for name in _LIBRARIES}}


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _ref(parent: Checkpoint) -> str:
    """How to open it again: its Hub id or family name, or the full path of a local folder."""
    named = parent.name.startswith("family:") or "/" in parent.name
    return parent.name if named else str(parent.folder.resolve())


def _row(data: Any, place: int) -> Row:
    """One checked row. Every field of `Row` without a default must be there; none may be there that `Row` lacks."""
    if not isinstance(data, dict) or not isinstance(data.get("name"), str):
        raise LabError(f"row {place} of the recipe names no tensor; export the child again")
    known = {field.name: field for field in fields(Row)}
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise LabError(f"row {data['name']}: unknown key {unknown[0]!r}; a newer lab wrote this recipe")
    values = {}
    for name, field in known.items():
        if name not in data:
            if field.default is MISSING:
                raise LabError(f"row {data['name']}: {name} is missing; export the child again")
            continue
        fits, wanted = _ROW_VALUES[name]
        if not fits(data[name]):
            raise LabError(f"row {data['name']}: {name} is {_shown(data[name])}, which makes no sense; write {wanted}")
        values[name] = _as_field(data[name], fits)
    row = Row(**values)
    if row.action == "copy" and row.ratio not in (0.0, 1.0):
        raise LabError(
            f"row {row.name}: copy at ratio {row.ratio:g} makes no sense; write ratio 0 (the father's) or 1 (the "
            'mother\'s), or action "merge"'
        )
    if row.expert_ratios is not None and (row.action == "copy" or row.role not in ("expert", "router")):
        what = "is copied whole" if row.action == "copy" else f"has no experts (role {row.role})"
        raise LabError(f"row {row.name}: expert_ratios does nothing in a tensor that {what}; write null")
    return row


def _as_field(value: Any, fits: Callable[[Any], bool]) -> Any:
    """JSON has no tuples, and a hand may have written 1 for 1.0, which would hash differently."""
    if isinstance(value, list):
        return tuple(map(float, value))
    return float(value) if fits in (_is_share, _is_density) else value


def _field(data: Mapping[str, Any], key: str, fits: Callable[[Any], bool], default: Any, wanted: str) -> Any:
    value = data.get(key, default)
    if not fits(value):
        raise LabError(f"{key} is {_shown(value)}, which makes no sense; write {wanted}")
    return value


def _expert_order(data: Mapping[str, Any]) -> dict[int, tuple[int, ...]]:
    order = _field(
        data, "expert_order", lambda value: _is_table(value, _is_order), {},
        "for each layer every expert's number once, from 0",
    )  # fmt: skip
    for layer in order:
        if not (layer.isascii() and layer.isdigit() and len(layer) < 10):
            raise LabError(f"expert_order names layer {_shown(layer)}; layers are whole numbers")
    return {int(layer): tuple(experts) for layer, experts in order.items()}


def _options(data: Mapping[str, Any], rows: list[Row]) -> dict[str, float]:
    """Every option is one of an operator the rows name, in its range there. Rows that are copied name one as well."""
    options = _field(data, "options", lambda value: _is_table(value, _is_number), {}, "a number for each name")
    named = sorted({row.operator for row in rows}, key=lambda operator: (operator not in OPTIONS, operator))
    for name, value in options.items():
        for operator in [one for one in named if name in OPTIONS.get(one, {})] or named[:1]:
            check_options(operator, {name: float(value)})
    return {name: float(value) for name, value in options.items()}


def _shown(value: Any) -> str:
    return repr(str(value)[:40])


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < 1 << 1000
    return isinstance(value, float) and isfinite(value)


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_density(value: Any) -> bool:
    """mergekit files may go below the .05 of the genes."""
    return _is_share(value) and value > 0


def _is_order(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_whole, value)) and sorted(value) == list(range(len(value)))


def _is_text_list(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_table(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(map(fits, value.values()))


def _is_parent(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_text(value.get(field.name)) for field in fields(ParentRef))


def _one_of(*texts: str) -> tuple[Callable[[Any], bool], str]:
    return lambda value: _is_text(value) and value in texts, f"{', '.join(texts[:-1])} or {texts[-1]}"


_TEXT = (_is_text, "a text")
_DENSITY = (_is_density, "a number above 0, to 1 (all of it)")
_ROW_VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": _TEXT,
    "layer": (lambda value: value is None or (_is_whole(value) and value >= 0), "null or the layer's number"),
    "role": _TEXT,
    "component": _TEXT,
    "action": _one_of("copy", "merge"),
    "ratio": (_is_share, "the mother's share, from 0 to 1"),
    "operator": _one_of(*NEEDS_ANCESTOR),
    "density_a": _DENSITY,
    "density_b": _DENSITY,
    "mix": (_is_share, "the share of the sparse form, from 0 to 1"),
    "transplant": (lambda value: value in ("", "father", "mother"), 'father, mother or ""'),
    "expert_ratios": (
        lambda value: value is None or (isinstance(value, list) and bool(value) and all(map(_is_share, value))),
        "null or the mother's share of every expert, each from 0 to 1",
    ),
    "why": _TEXT,
    "numel": (lambda value: _is_whole(value) and value >= 0, "the number of its elements"),
}
"""Field of `Row` -> (whether a value can be it, what to write instead)."""
