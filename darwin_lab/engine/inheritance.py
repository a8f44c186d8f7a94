"""What a child really has from whom: towers, routers, embeddings, settings and tokenizer files, measured.

Takes a virtual child or an exported folder beside both parents; gives one row a thing, each with a verdict, counts
and what was compared. The weights of a folder are compared byte by byte in chunks, so memory does not depend on the
model; those of a virtual child are what its recipe says, so nothing is read, and the row says so.
Must not know: scores, texts, what a difference does to the model.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from darwin_lab.checkpoint.alignment import Aligned, align
from darwin_lab.checkpoint.anatomy import read_anatomy
from darwin_lab.checkpoint.checkpoint import Checkpoint, read_json, torch_dtype
from darwin_lab.checkpoint.naming import common_name
from darwin_lab.engine.child import Child
from darwin_lab.engine.inherited import (
    ABSENT,
    CHANGED,
    FATHERS,
    MERGED,
    MOTHERS,
    Found,
    Inheritance,
    Inherited,
    together,
)
from darwin_lab.errors import LabError
from darwin_lab.merging.recipe_file import RECIPE_FILE, read_recipe_file
from darwin_lab.progress import Tick, part, silent
from darwin_lab.sizes import bytes_words

CHUNK = 1 << 20
"""Elements compared at a time: a few MB for each of child, father and mother."""
MOST_BETWEEN = 0.9
"""Without a recipe a tensor counts as merged when this share of its numbers lies between the parents' (ours; of three
models tuned apart from one base it is about a third)."""

MOST_SHOWN = 2
"""Settings of a row whose values are shown."""

_WEIGHTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("vision tower", ("vision",)),
    ("projector", ("projector",)),
    ("audio tower", ("audio",)),
    ("multi-token-prediction head", ("mtp",)),
    ("routers", ("router",)),
    ("embeddings and output head", ("embedding", "lm_head", "per_layer_embedding")),
)
_CONTEXT = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "n_ctx", "sliding_window")
_ROTARY = ("rope_", "rotary_", "partial_rotary", "no_rope")
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json")
_SPECIAL = ("_token", "_token_id", "_tokens")
_SPECIAL_FILES = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json")


def what_was_inherited(
    child: Child | Checkpoint,
    father: Checkpoint,
    mother: Checkpoint,
    ancestor: Checkpoint | None = None,
    tick: Tick = silent,
) -> Inheritance:
    """Every row of the child beside its parents, in a fixed order.

    A folder with the lab's own recipe for these parents (and the ancestor, where it needs one) is compared with what
    that recipe gives: a merge whose bytes differ from it is "changed". Raises `LabError` when a model is quantised or
    a tensor cannot be read.
    """
    row = partial(_told, child) if isinstance(child, Child) else _Weights(child, father, mother, ancestor).row
    models = [father] + ([child] if isinstance(child, Checkpoint) else [])
    anatomies = [read_anatomy(model).parts.values() for model in models]
    rows: list[Inherited] = []
    for number, (what, roles) in enumerate(_WEIGHTS):
        names = dict.fromkeys(one.name for parts in anatomies for one in parts if one.role in roles)
        share = part(tick, number / (len(_WEIGHTS) + 1), (number + 1) / (len(_WEIGHTS) + 1))
        rows.append(row(what, tuple(names), share))
    tick(len(_WEIGHTS) / (len(_WEIGHTS) + 1), "comparing settings and tokenizer")
    rows += _file_rows(child, father, mother)
    tick(1.0, "compared with both parents")
    exported = "" if isinstance(child, Child) else str(child.folder)
    return Inheritance(child.name, child.fingerprint, father.name, mother.name, exported, tuple(rows))


# ---------------------------------------------------------------------------------------------------- weights

_Reader = Callable[[int, int], torch.Tensor]


def _told(child: Child, what: str, names: tuple[str, ...], tick: Tick) -> Inherited:
    """One row for the tensors of some roles of a virtual child, which are what its recipe says."""
    tick(1.0, f"the {what}, by the recipe")
    rows = [child.recipe.rows[name] for name in names]
    found = {
        row.name: Found(MERGED if row.action == "merge" else FATHERS if row.ratio == 0.0 else MOTHERS) for row in rows
    }
    return together(what, "tensor", found, f"{_counted(len(names))} by the recipe")


class _Weights:
    """Tensors of an exported child beside those of its parents. `twin` is the virtual child that it should be."""

    def __init__(self, child: Checkpoint, father: Checkpoint, mother: Checkpoint, ancestor: Checkpoint | None) -> None:
        self.child, self.father, self.mother = child, father, mother
        self.twin = _twin(child, father, mother, ancestor)
        recipe = self.twin.recipe if self.twin else None
        self.other = (
            align(father, mother, vocabulary=recipe.vocabulary, expert_order=recipe.expert_order)
            if recipe
            else align(father, mother)
        )
        self.mothers_names = {common_name(name): name for name in mother.tensors}

    def row(self, what: str, names: tuple[str, ...], tick: Tick) -> Inherited:
        """One row for the tensors of some roles."""
        found = {}
        for number, name in enumerate(names):
            tick(number / len(names), f"comparing the {what}: {name}")
            found[name] = self._tensor(name)
        read = [name for name in names if found[name].verdict != ABSENT]
        return together(what, "tensor", found, f"{_counted(len(read))} byte by byte, {bytes_words(self._bytes(read))}")

    def _bytes(self, names: list[str]) -> int:
        return sum(self.child.tensors[name].nbytes for name in names)

    def _tensor(self, name: str) -> Found:
        """One tensor of the child, read once from end to end beside whatever it may be equal to."""
        if name not in self.child.names:
            return Found(ABSENT, note=f"{name} is in the father, not in the child")
        count = self.child.tensors[name].numel
        fathers, mothers = self._reader(self.father, name, count), self._mothers(name, count)
        same = {"father": fathers is not None, "mother": mothers is not None, "twin": self.twin is not None}
        values, between, start = same["father"], 0, 0
        for piece, told in self._pieces(name, count):
            a = fathers(start, len(piece)) if fathers else None
            b = mothers(start, len(piece)) if mothers else None
            start += len(piece)
            same["father"] = same["father"] and a is not None and _same_bytes(piece, a)
            same["mother"] = same["mother"] and b is not None and _same_bytes(piece, b.to(piece.dtype))
            same["twin"] = same["twin"] and told is not None and _same_bytes(piece, told)
            values = values and a is not None and torch.equal(piece, a.to(piece.dtype))
            if self.twin is None and a is not None and b is not None:
                between += _between(piece, a, b)
        if same["father"] or same["mother"]:
            return Found(FATHERS if same["father"] else MOTHERS, both=same["father"] and same["mother"])
        if fathers and self._is_merge(name, same["twin"], between / max(count, 1)):
            return Found(MERGED)
        return Found(CHANGED, note=f"{name}: {self._why(values, fathers is not None)}")

    def _is_merge(self, name: str, as_told: bool, between: float) -> bool:
        """By the folder's recipe where there is one, else by where the numbers lie."""
        if self.twin is None:
            return between >= MOST_BETWEEN
        return as_told and self.twin.recipe.rows[name].action == "merge"

    def _why(self, values: bool, in_father: bool) -> str:
        if values:
            return "the father's numbers in another dtype"
        if not in_father:
            return "the father has no tensor of that name and size"
        return "not what its recipe.json gives" if self.twin else "equal to no parent, nor between them"

    def _mothers(self, name: str, count: int) -> _Reader | None:
        if name in self.other.names:
            return self._reader(self.other, name, count)
        return self._reader(self.mother, self.mothers_names.get(common_name(name), name), count)

    def _pieces(self, name: str, count: int) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        """The child's tensor in order, in pieces, each beside what the recipe of its folder gives."""
        if self.twin is not None and name in self.twin.names and self.father.tensors[name].numel == count:
            start = 0
            for told in self.twin.chunks(name, CHUNK, dtype=torch_dtype(self.child.tensors[name].dtype)):
                yield self.child.read_flat(name, start, len(told)), told
                start += len(told)
        else:
            for start in range(0, count, CHUNK):
                yield self.child.read_flat(name, start, min(CHUNK, count - start)), None

    @staticmethod
    def _reader(source: Checkpoint | Aligned, name: str, count: int) -> _Reader | None:
        """How to read that tensor in pieces; None when there is none of this size."""
        info = source.tensors.get(name)
        return (lambda start, length: source.read_flat(name, start, length)) if info and info.numel == count else None


def _counted(tensors: int) -> str:
    return f"{tensors:,} tensor{'' if tensors == 1 else 's'}"


def _same_bytes(piece: torch.Tensor, other: torch.Tensor) -> bool:
    return piece.dtype == other.dtype and torch.equal(piece.view(torch.uint8), other.view(torch.uint8))


def _between(piece: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> int:
    """How many numbers lie between the parents', one rounding step of the child's dtype allowed."""
    child, a, b = piece.float(), a.float(), b.float()
    step = torch.finfo(piece.dtype).eps * torch.maximum(a.abs(), b.abs()) if piece.is_floating_point() else 0.0
    inside = (child >= torch.minimum(a, b) - step) & (child <= torch.maximum(a, b) + step)
    return int(inside.sum())


def _twin(child: Checkpoint, father: Checkpoint, mother: Checkpoint, ancestor: Checkpoint | None) -> Child | None:
    """The virtual child of the folder's own recipe; None without one for these parents, or where one is not given."""
    if not (child.folder / RECIPE_FILE).is_file():
        return None
    try:
        told = read_recipe_file(child.folder)
        told.check_parents({"father": father, "mother": mother, "ancestor": ancestor})
        return Child(father, mother, told.recipe, ancestor)
    except LabError:
        return None


# ---------------------------------------------------------------------------------------------------- files


def _file_rows(child: Child | Checkpoint, father: Checkpoint, mother: Checkpoint) -> list[Inherited]:
    """Settings and tokenizer: values by key, files by their bytes. A virtual child takes the father's."""
    folders = child.folder, father.folder, mother.folder
    how = "by the recipe: the father's files, copied as they are" if isinstance(child, Child) else ""
    special_files = [[_settings(folder / name) for folder in folders] for name in _SPECIAL_FILES]
    configs, tokenizers = special_files[0], special_files[2]
    context = [_picked(config, lambda key: key in _CONTEXT) for config in configs]
    rotary = [_flat(_picked(config, lambda key: key.startswith(_ROTARY))) for config in configs]
    special = [
        {f"{file} {key}": value for file, one in zip(_SPECIAL_FILES, side, strict=True) for key, value in one.items()}
        for side in zip(*([_picked(one, _is_special) for one in kind] for kind in special_files), strict=True)
    ]
    templates = [_chat_template(folder, settings) for folder, settings in zip(folders, tokenizers, strict=True)]
    files = [_bytes_of(folder, _TOKENIZER) for folder in folders]
    defaults = [_bytes_of(folder, ("generation_config.json",)) for folder in folders]
    return [
        _parts_row("context length", "setting", context, how or "config.json"),
        _parts_row("rotary positions", "setting", rotary, how or "config.json"),
        _parts_row("chat template", "file", templates, how or "its text"),
        _parts_row("tokenizer", "file", files, how or "file by file, byte by byte"),
        _parts_row("special tokens", "setting", special, how or "config, generation config and tokenizer config"),
        _parts_row("generation config", "file", defaults, how or "byte by byte"),
    ]


def _parts_row(what: str, unit: str, values: list[dict[str, Any]], compared: str) -> Inherited:
    """One row for keyed parts of [child, father, mother]."""
    child, father, mother = values
    found = {}
    for key in dict.fromkeys((*father, *child)):
        mine, his, hers = (side.get(key) for side in values)
        note = f"{key}: {_shown(mine)} (father {_shown(his)}, mother {_shown(hers)})"
        if key not in child:
            found[key] = Found(ABSENT, note=f"{key} is the father's, not the child's")
        elif key in father and mine == his:
            found[key] = Found(FATHERS, both=key in mother and mine == hers)
        else:
            found[key] = Found(MOTHERS if key in mother and mine == hers else CHANGED, note=note)
    row = together(what, unit, found, compared)
    if row.verdict != FATHERS or unit != "setting":
        return row
    apart = [key for key in found if father[key] != mother.get(key)]
    shown = [f"{key}: {_shown(father[key])} (mother {_shown(mother.get(key))})" for key in apart[:MOST_SHOWN]]
    shown = shown or [f"{key}: {_shown(father[key])}" for key in list(found)[:MOST_SHOWN]]
    return replace(row, note="; ".join(filter(None, (row.note, *shown))))


def _settings(path: Path) -> dict[str, Any]:
    """A JSON object, empty when there is no such file."""
    data = read_json(path) if path.is_file() else {}
    return data if isinstance(data, dict) else {}


def _picked(settings: Mapping[str, Any], wanted: Callable[[str], bool]) -> dict[str, Any]:
    """Keys at the top and in the language model's own part, with their path."""
    inner = settings.get("text_config")
    nested = {f"text_config.{key}": inner[key] for key in inner if wanted(key)} if isinstance(inner, dict) else {}
    return {**{key: settings[key] for key in settings if wanted(key)}, **nested}


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings under dotted names, the rotary base first."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= {f"{key}.{one}": value[one] for one in value} if isinstance(value, dict) else {key: value}
    return dict(sorted(flat.items(), key=lambda item: not item[0].endswith("rope_theta")))


def _is_special(key: str) -> bool:
    return key.endswith(_SPECIAL) and not key.startswith(("add_", "max_", "min_"))


def _chat_template(folder: Path, tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    files = _bytes_of(folder, ("chat_template.jinja", "chat_template.json"))
    inside = tokenizer.get("chat_template")
    return {**files, **({"tokenizer_config.json": json.dumps(inside).encode()} if inside else {})}


def _bytes_of(folder: Path, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


def _shown(value: Any) -> str:
    """A value in few words; files by their size."""
    if value is None:
        return "none"
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
