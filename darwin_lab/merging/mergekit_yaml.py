"""A recipe of ours, written as mergekit's YAML as far as that can say it (mergekit 0.1.5).

Takes a recipe and what its parents are called, gives text and a list of what the text leaves out. Ratios that differ
between tensors become gradients over the layers and filters by name. Opens no model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from darwin_lab.errors import LabError
from darwin_lab.merging.mergekit import Setting, resolve
from darwin_lab.merging.operators import OPTIONS, USES_DENSITY_A, USES_DENSITY_B, USES_DRAWS
from darwin_lab.merging.recipe import Recipe, Row

_METHOD = {"lerp": "linear", "dare": "dare_linear"}
_CANNOT = frozenset({"mix", "passthrough"})
_OURS_ALONE = frozenset({("sce", "lambda")})
_OF_BASE = frozenset({"slerp", "nearswap", "arcee_fusion", "dare"})
"""Operators whose father is mergekit's base_model."""
_DIGITS = 6


@dataclass(frozen=True)
class MergekitText:
    """The YAML, and in words what it leaves out."""

    text: str
    unsaid: tuple[str, ...]


def recipe_to_mergekit(recipe: Recipe, models: Mapping[str, str], dtype: str | None = None) -> MergekitText:
    """`models`: role ("father", "mother", "ancestor") -> a folder or Hub id.

    Raises `LabError` when no merge_method comes near: several operators, `mix`, or `passthrough`.
    """
    import yaml

    operators = sorted(recipe.operators)
    if len(operators) > 1 or set(operators) & _CANNOT:
        raise LabError(f"mergekit has no merge_method for {' and '.join(operators)}; recipe.json says it all")
    operator = operators[0] if operators else "lerp"
    if operator == "nearswap" and "t" not in recipe.options:
        raise LabError("mergekit's nearswap needs one t for all tensors; make the recipe with --option t=VALUE")
    rows = [row for row in recipe.rows.values() if row.component]
    unsaid = _unsaid(recipe, rows, operator)
    data: dict[str, Any] = {"merge_method": _METHOD.get(operator, operator)}
    if operator in _OF_BASE or operator in OPTIONS:
        role = "father" if operator in _OF_BASE else "ancestor"
        if role not in models:
            raise LabError(f"{operator} needs the name of its ancestor; give the recipe.json of an export")
        data["base_model"] = models[role]
    data["models"] = _models(rows, operator, models, unsaid)
    if operator == "slerp":
        data["parameters"] = {"t": _setting({row.name: row.ratio for row in rows}, rows, unsaid)}
    elif operator in OPTIONS:
        data["parameters"] = _shared(recipe, rows, operator)
    elif operator == "dare" and recipe.rescale == "none":
        data["parameters"] = {"rescale": False}
    if dtype is not None:
        data["out_dtype"] = dtype
    text = yaml.safe_dump(data, sort_keys=False, default_flow_style=None, allow_unicode=True, width=1000)
    return MergekitText(text, tuple(dict.fromkeys(unsaid)))


def _models(rows: Sequence[Row], operator: str, models: Mapping[str, str], unsaid: list[str]) -> list[dict[str, Any]]:
    """Father and mother with their weights and densities, one setting each."""
    if operator in ("slerp", "nearswap", "arcee_fusion", "sce"):
        return [{"model": models["father"]}, {"model": models["mother"]}]
    weights = {"father": {row.name: 1.0 - row.ratio for row in rows}, "mother": {row.name: row.ratio for row in rows}}
    densities = {
        "father": {row.name: 1.0 if row.action == "copy" else row.density_a for row in rows},
        "mother": {row.name: 1.0 if row.action == "copy" else row.density_b for row in rows},
    }
    found = []
    for role in ("mother",) if operator == "dare" else ("father", "mother"):
        parameters = {"weight": _setting(weights[role], rows, unsaid)}
        if operator in (USES_DENSITY_A if role == "father" else USES_DENSITY_B):
            parameters["density"] = _setting(densities[role], rows, unsaid)
        found.append({"model": models[role], "parameters": parameters})
    return found


def _shared(recipe: Recipe, rows: Sequence[Row], operator: str) -> dict[str, Setting]:
    """The options under mergekit's names, and what its defaults would say otherwise."""
    shared: dict[str, Setting] = {
        name: recipe.options.get(name, option.default)
        for name, option in OPTIONS[operator].items()
        if recipe.options.get(name, option.default) is not None and (operator, name) not in _OURS_ALONE
    }
    if operator == "sce":
        shared["select_topk"] = max(row.density_b for row in rows if row.action == "merge")
    if operator in ("dare_ties", "della"):
        shared["rescale"] = recipe.rescale != "none"
    return shared


def _unsaid(recipe: Recipe, rows: Sequence[Row], operator: str) -> list[str]:
    merged = [row for row in rows if row.action == "merge"]
    copies, towers = len(rows) - len(merged), len(recipe.rows) - len(rows)
    masked = operator in USES_DRAWS and any(min(row.density_a, row.density_b) < 1.0 for row in merged)
    by_expert = sum(row.expert_ratios is not None for row in merged)
    found = []
    if by_expert:
        found.append(f"per-expert ratios of {by_expert} tensors: their experts all get the tensor's ratio")
    if recipe.expert_order:
        found.append(f"the order of experts in {len(recipe.expert_order)} layers: mergekit merges them by index")
    if recipe.vocabulary != "same":
        found.append("the vocabulary by token: set mergekit's tokenizer options yourself")
    if masked:
        found.append(f"the masks of seed {recipe.seed}: mergekit draws its own")
        if recipe.rescale == "inverse":
            found.append("rescaling by 1 / density: mergekit matches L1 norms")
    if copies and operator not in ("lerp", "slerp"):
        told = " and are scaled by lambda" if recipe.options.get("lambda", 1.0) != 1.0 else ""
        found.append(f"{copies} tensors copied from one parent: mergekit adds their delta to the base again{told}")
    if copies and operator in ("nearswap", "arcee_fusion", "sce"):
        found.append(f"{operator} has no ratio: the copied tensors are merged too")
    if operator == "sce" and ({row.ratio for row in merged} - {0.5} or len({row.density_b for row in merged}) > 1):
        found.append("ratios and per-tensor selections of sce: mergekit has one select_topk and no ratio")
    found += [
        f"{name} {value:g}: mergekit's {operator} has none"
        for name, value in recipe.options.items()
        if (operator, name) in _OURS_ALONE and value != 1.0
    ]
    if towers:
        found.append(f"{towers} tensors copied from the father because they are never merged: mergekit drops many such")
    return found


def _setting(values: Mapping[str, float], rows: Sequence[Row], unsaid: list[str]) -> Setting:
    """One number, a gradient over the layers, or filters: the shortest that gives every tensor its value."""
    if len(set(values.values())) == 1:
        return round(next(iter(values.values())), _DIGITS)
    layers = 1 + max((row.layer for row in rows if row.layer is not None), default=0)
    slots: dict[str, dict[int, float]] = {}
    for row in rows:
        if row.layer is not None:
            slots.setdefault(_slot(row), {})[row.layer] = values[row.name]
    gradients = {slot: _gradient(by_layer, layers) for slot, by_layer in slots.items()}
    groups: dict[tuple[float, ...], list[str]] = {}
    for slot, gradient in gradients.items():
        groups.setdefault(gradient, []).append(slot)
    outside = [row for row in rows if row.layer is None]
    usual = max(groups, key=lambda gradient: len(groups[gradient])) if groups else (values[outside[0].name],)
    conditions: list[dict[str, Setting]] = [
        {"filter": row.name, "value": round(values[row.name], _DIGITS)} for row in outside
    ]
    for gradient, members in groups.items():
        if gradient != usual:
            conditions += [{"filter": word, "value": _short(gradient)} for word in _words(members, gradients)]
    setting = [*conditions, {"value": _short(usual)}] if conditions else _short(usual)
    wrong = [row.name for row in rows if abs(_resolved(setting, row, layers) - values[row.name]) > 1e-6]
    if wrong:
        unsaid.append(f"{len(wrong)} tensors that no filter can tell apart ({wrong[0]})")
    return setting


def _slot(row: Row) -> str:
    """What a tensor is called inside its layer, with the dot before it: ".self_attn.q_proj.weight"."""
    return row.name.partition(f".{row.layer}")[2]


def _gradient(by_layer: Mapping[int, float], layers: int) -> tuple[float, ...]:
    """One value a layer; a layer without the tensor takes the value before it, which nothing reads."""
    found, last = [], next(iter(by_layer.values()))
    for layer in range(layers):
        last = by_layer.get(layer, last)
        found.append(round(last, _DIGITS))
    return tuple(found)


def _short(gradient: Sequence[float]) -> Setting:
    return round(gradient[0], _DIGITS) if len(set(gradient)) == 1 else list(gradient)


def _words(members: Sequence[str], gradients: Mapping[str, tuple[float, ...]]) -> list[str]:
    """Filters for `members`: a module's name where all that is in it has their gradient, else the whole slot."""
    words: dict[str, None] = {}
    for member in members:
        module = member.split(".")[1]
        whole = all(gradients[slot] == gradients[member] for slot in gradients if module in slot)
        words[module if whole else member] = None
    return list(words)


def _resolved(setting: Setting, row: Row, layers: int) -> float:
    depth = 0.0 if row.layer is None else row.layer / (layers - 1) if layers > 1 else 1.0
    value = resolve(setting, row.name, depth)
    assert value is not None
    return float(value)
