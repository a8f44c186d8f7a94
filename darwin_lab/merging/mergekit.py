"""mergekit's YAML, read: what it says, as a recipe of ours where both can say it (mergekit 0.1.5).

Takes a file, gives the models' names and, for an anatomy, a recipe. Everything a recipe cannot say is listed: it is
refused when it would change the child's bytes, noted otherwise. Opens no model. Roles: mergekit's `base_model` is the
ancestor of two other models, or the father where it is one of the two that are merged.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

from darwin_lab.checkpoint.anatomy import Anatomy, Part
from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.errors import LabError
from darwin_lab.merging.mergekit_methods import METHODS, Method, Said, settle
from darwin_lab.merging.recipe import Recipe, Row, uniform_recipe

_MOST_BYTES = 1 << 20
_DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
_TOP = {"merge_method", "base_model", "models", "slices", "modules", "parameters", "dtype", "out_dtype",
        "tokenizer_source", "tokenizer", "chat_template", "name", "random_seed"}  # fmt: skip
_ALSO = {"int8_mask", "normalize", "rescale", "lambda", "weight", "density", "gamma", "epsilon", "t", "select_topk",
         "scale"}  # fmt: skip
_NO_EFFECT = {"int8_mask": "the lab's masks are exact in any dtype"}

Setting = Any
"""A number or bool, a list of them (a gradient over the layers of a slice), or {value, filter} tables."""


@dataclass(frozen=True)
class Source:
    """One model of a slice and its own parameters."""

    model: str
    parameters: Mapping[str, Setting]


@dataclass(frozen=True)
class Slice:
    """Layers start..end (end None: all of them) and the models they are merged from."""

    start: int
    end: int | None
    sources: tuple[Source, ...]
    parameters: Mapping[str, Setting]


@dataclass(frozen=True)
class MergekitFile:
    """A configuration that a recipe can say. `said` list what it says that does not matter here."""

    path: str
    method: Method
    father: str
    mother: str
    ancestor: str | None
    slices: tuple[Slice, ...]
    parameters: Mapping[str, Setting]
    dtype: str | None
    said: tuple[str, ...]

    def notes(self, anatomy: Anatomy) -> tuple[str, ...]:
        """What is done otherwise here than mergekit would, for a father of this anatomy."""
        kept = sum(not part.mergeable for part in anatomy.parts.values())
        copied = f"{kept} tensors that are never merged are copied from the father; mergekit drops many such"
        return (*self.said, copied) if kept else self.said

    def child_dtype(self, father: Checkpoint) -> str | None:
        """The dtype to convert to, None where it is what most of the father has already."""
        sizes: dict[str, int] = {}
        for info in father.tensors.values():
            sizes[info.dtype] = sizes.get(info.dtype, 0) + info.nbytes
        return None if self.dtype is None or _DTYPES[self.dtype] == max(sizes, key=sizes.__getitem__) else self.dtype

    def recipe(
        self,
        anatomy: Anatomy,
        *,
        seed: int = 0,
        vocabulary: str = "same",
        expert_order: Mapping[int, tuple[int, ...]] | None = None,
    ) -> Recipe:
        """What it does to every tensor. Raises `LabError`, naming every reason, for what would give other bytes."""
        plain = uniform_recipe(anatomy, 0.5, seed=seed, vocabulary=vocabulary, expert_order=expert_order)
        parts = [part for part in anatomy.parts.values() if part.mergeable]
        said = {part.name: self._said(part, anatomy.layers) for part in parts}
        settled = settle(self.method, said, has_ancestor=self.ancestor is not None)
        if settled.refused:
            raise _refusal(self.path, settled.refused)
        rows: dict[str, Row] = {}
        for name, row in plain.rows.items():
            if name not in said:
                rows[name] = row
                continue
            one = settled.rows[name]
            rows[name] = replace(
                row, action="copy" if one.ratio in (0.0, 1.0) else "merge", ratio=one.ratio, operator=settled.operator,
                density_a=one.density_a, density_b=one.density_b, why=f"mergekit {self.method.name}",
            )  # fmt: skip
        return replace(
            plain, rows=rows, rescale=settled.rescale, options=dict(settled.options),
        )  # fmt: skip

    def _said(self, part: Part, layers: int) -> Said:
        """The parameters that mergekit would resolve for one tensor."""
        chosen, depth = self._place(part, layers)

        def find(name: str, source: Source | None = None) -> float | bool | None:
            scopes = [source.parameters] if source is not None else []
            for scope in (*scopes, chosen.parameters, self.parameters):
                value = resolve(scope.get(name), part.name, depth)
                if value is not None:
                    return value
            return None

        per_model = {
            source.model: {name: find(name, source) for name in ("weight", "density", "gamma", "epsilon", "scale")}
            for source in chosen.sources
        }
        shared = {name: find(name) for name in ("t", "lambda", "normalize", "rescale", "select_topk")}
        return Said(shared, per_model.get(self.father), per_model.get(self.mother))

    def _place(self, part: Part, layers: int) -> tuple[Slice, float]:
        """The slice of a tensor and its depth there, 0 to 1; what lies before and after all layers has depth 0."""
        if part.layer is None:
            return self.slices[0 if part.role in ("embedding", "per_layer_embedding") else -1], 0.0
        ends = [layers if one.end is None else one.end for one in self.slices]
        if ends[-1] != layers:
            raise LabError(f"{self.path} has {ends[-1]} layers, the parents {layers}; it was made for another model")
        place = next(place for place, end in enumerate(ends) if part.layer < end)
        count = ends[place] - self.slices[place].start
        return self.slices[place], (part.layer - self.slices[place].start) / (count - 1) if count > 1 else 1.0


def read_mergekit(path: Path) -> MergekitFile:
    """A YAML file. Raises `LabError`, one line with every reason, when a recipe cannot say what it says."""
    import yaml

    if not path.is_file():
        raise LabError(f"no mergekit file {path}; give a YAML file as mergekit-yaml takes it")
    if path.stat().st_size > _MOST_BYTES:
        raise LabError(f"{path} is larger than any mergekit configuration; give the YAML file itself")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise LabError(f"{path} is not UTF-8 text") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise LabError(f"{path} is not YAML ({' '.join(str(error).split())[:100]}); mend it") from None
    if not isinstance(data, dict) or not isinstance(data.get("merge_method"), str):
        raise LabError(f"{path} has no merge_method; give a YAML file as mergekit-yaml takes it")
    return _understood(str(path), data)


def resolve(setting: Setting, tensor: str, depth: float) -> float | bool | None:
    """mergekit's rule for one parameter: numbers as they are, gradients interpolated by depth, the first filter whose
    text is in the tensor's name; None where nothing is said. Raises `LabError` for what is neither."""
    if setting is None or isinstance(setting, bool):
        return setting
    if isinstance(setting, dict):
        setting = [setting]
    if not isinstance(setting, list):
        return _number(setting)
    if any(isinstance(one, dict) for one in setting):
        for one in setting:
            if not isinstance(one, dict) or "value" not in one:
                raise LabError(f"a parameter mixes numbers and filters ({str(one)[:40]}); write value and filter")
            wanted = one.get("filter")
            if wanted in (None, "*") or str(wanted) in tensor:
                return resolve(one["value"], tensor, depth)
        return None
    if not setting:
        return None
    numbers = [_number(one) for one in setting]
    low = int(depth * (len(numbers) - 1))
    share = depth * (len(numbers) - 1) - low
    return (1 - share) * numbers[low] + share * numbers[min(low + 1, len(numbers) - 1)]


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not isfinite(number):
        raise LabError(f"a parameter is {str(value)[:40]!r}; give a number")
    return number


def _understood(path: str, data: Mapping[str, Any]) -> MergekitFile:
    refused: list[str] = []
    notes: list[str] = []
    method = METHODS.get(data["merge_method"])
    if method is None:
        raise LabError(f"{path}: merge_method {data['merge_method']} is none of ours; it can be {', '.join(METHODS)}")
    refused += [f"{key} is not known" for key in data if key not in _TOP]
    slices = _slices(data, refused)
    models = list(dict.fromkeys(source.model for one in slices for source in one.sources))
    base = _model(data.get("base_model"), refused) if data.get("base_model") is not None else None
    father, mother, ancestor = _roles(method, models, base, refused)
    for scope in (data.get("parameters"), *(scope for one in slices for scope in _scopes(one))):
        for name in scope if isinstance(scope, dict) else ():
            if name not in _ALSO:
                refused.append(f"parameter {name} is not known")
            elif name in _NO_EFFECT:
                notes.append(f"{name}: {_NO_EFFECT[name]}")
            elif name not in method.parameters:
                notes.append(f"{name}: {method.name} does not use it")
    dtype = _files(data, father, refused, notes)
    if refused:
        raise _refusal(path, refused)
    notes += method.notes
    parameters = data.get("parameters") or {}
    return MergekitFile(path, method, father, mother, ancestor, slices, parameters, dtype, tuple(dict.fromkeys(notes)))


def _files(data: Mapping[str, Any], father: str, refused: list[str], notes: list[str]) -> str | None:
    """What it says of dtype, tokenizer and seed; gives the child's dtype."""
    source = data.get("tokenizer_source")
    tokenizer = data.get("tokenizer")
    if isinstance(tokenizer, dict):
        source = tokenizer.get("source", "union")
        refused += [f"tokenizer: {key} cannot be said" for key in sorted(set(tokenizer) - {"source"}) if tokenizer[key]]
    if source in ("base", "union"):
        notes.append(f"tokenizer source {source}: the father's tokenizer; the parents' vocabularies must be equal here")
    elif source is not None and source != father:
        refused.append(f"tokenizer source {str(source)[:60]}: the child has the father's tokenizer")
    if data.get("chat_template") not in (None, "auto"):
        refused.append("chat_template: the child has the father's")
    if data.get("random_seed") is not None:
        notes.append("random_seed: mergekit draws other masks; the lab's are keyed by --seed")
    dtype = data.get("out_dtype") or data.get("dtype")
    if dtype is not None and dtype not in _DTYPES:
        refused.append(f"dtype {str(dtype)[:40]} (it can be {', '.join(_DTYPES)})")
    if data.get("dtype") not in (None, "float32"):
        notes.append(f"dtype {data['dtype']}: arithmetic is in float32 here, rounded once at the end")
    return dtype


def _slices(data: Mapping[str, Any], refused: list[str]) -> tuple[Slice, ...]:
    """`models`, `slices` or one module of either, as slices that keep every layer in order."""
    outer: dict[str, Any] = {}
    if isinstance(data.get("modules"), dict):
        if len(data["modules"]) != 1:
            refused.append("modules: only one can be said")
        inner = next(iter(data["modules"].values()), None)
        data, outer = (inner if isinstance(inner, dict) else {}), {}
        outer = data.get("parameters") or {}
    if isinstance(data.get("models"), list) and not data.get("slices"):
        return (Slice(0, None, tuple(_sources(data["models"], refused)), outer),)
    if not isinstance(data.get("slices"), list) or not data["slices"]:
        raise LabError("a mergekit file needs models or slices; this one has neither")
    found, due = [], 0
    for number, one in enumerate(data["slices"], 1):
        sources = one.get("sources") if isinstance(one, dict) else None
        if not isinstance(sources, list) or not all(isinstance(source, dict) for source in sources):
            raise LabError(f"slice {number} has no sources; write a list of model and layer_range")
        if one.get("base_model") is not None or one.get("residual_weight") is not None:
            refused.append(f"slice {number}: a base_model or residual_weight of its own")
        ranges = {tuple(source.get("layer_range") or ()) for source in sources}
        wanted = next(iter(ranges), ())
        if len(ranges) != 1 or len(wanted) != 2 or not all(isinstance(edge, int) for edge in wanted):
            refused.append(f"slice {number}: its sources have different layers")
            continue
        if wanted[0] != due or wanted[1] <= wanted[0]:
            refused.append(f"slice {number} starts at layer {wanted[0]} where layer {due} is due (frankenmerge)")
        due = wanted[1]
        parameters = {**outer, **(one.get("parameters") or {})}
        found.append(Slice(wanted[0], wanted[1], tuple(_sources(sources, refused)), parameters))
    return tuple(found)


def _sources(rows: Sequence[Any], refused: list[str]) -> Iterator[Source]:
    for row in rows:
        if not isinstance(row, dict) or "model" not in row:
            raise LabError("a model of the mergekit file has no name; write - model: NAME")
        parameters = row.get("parameters") or {}
        yield Source(_model(row["model"], refused), parameters if isinstance(parameters, dict) else {})


def _model(value: Any, refused: list[str]) -> str:
    """The name of a model. Adapters, revisions and other architectures cannot be said."""
    if isinstance(value, dict):
        path = value.get("model")
        path = path.get("path") if isinstance(path, dict) and not path.get("revision") else path
        extra = [key for key in ("lora", "override_architecture") if value.get(key)]
        value = "+".join([str(path), *extra]) if isinstance(path, str) else "@"
    name = str(value)
    if "@" in name:
        refused.append(f"{name[:60]} names a revision: download it and give its folder")
    elif "+" in name and not Path(name).exists():
        refused.append(f"{name[:60]} adds an adapter: merge that into its model first")
    return name


def _roles(method: Method, models: list[str], base: str | None, refused: list[str]) -> tuple[str, str, str | None]:
    """(father, mother, ancestor): see the module. Two models are merged; the base may be a third."""
    others = [model for model in models if model != base]
    if method.base == "needed" and base is None:
        refused.append(f"{method.name} without base_model")
    if len(others) == 2 and (base is None or (method.base == "needed" and not method.pair_of_base)):
        return others[0], others[1], base
    if len(others) == 1 and base is not None:
        return base, others[0], base if method.needs_himself else None
    refused.append(f"{len({*models, base} - {None})} models: a child has a father, a mother and perhaps an ancestor")
    return "", "", None


def _scopes(one: Slice) -> Iterable[Mapping[str, Setting]]:
    return (one.parameters, *(source.parameters for source in one.sources))


def _refusal(path: str, reasons: Iterable[str]) -> LabError:
    listed = "; ".join(dict.fromkeys(reasons))
    return LabError(f"{path} says what a recipe cannot: {listed}; change these or merge with mergekit itself")
