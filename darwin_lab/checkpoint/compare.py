"""Whether two (or three) checkpoints can be bred: one check a row, each with its remedy.

Takes opened checkpoints, gives checks. Reads configs, headers and tokenizer files, never weights.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from darwin_lab.checkpoint.anatomy import Anatomy, describe_layers, read_anatomy
from darwin_lab.checkpoint.checkpoint import Checkpoint, read_json
from darwin_lab.errors import LabError

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


@dataclass(frozen=True)
class Check:
    """One line of the compatibility report; `remedy` is empty when `ok`."""

    what: str
    father: str
    mother: str
    ok: bool
    remedy: str = ""


def compare(father: Checkpoint, mother: Checkpoint, ancestor: Checkpoint | None = None) -> tuple[Check, ...]:
    """The compatibility report, most telling check first. Raises `LabError` only when a parent cannot be read."""
    anatomies = read_anatomy(father), read_anatomy(mother)
    checks = _pair_checks(father, mother, *anatomies, "mother")
    if ancestor is not None:
        anatomy = read_anatomy(ancestor)
        checks += [
            Check(f"ancestor: {check.what}", check.father, check.mother, check.ok, check.remedy)
            for check in _pair_checks(father, ancestor, anatomies[0], anatomy, "ancestor")
            if not check.ok or check.what in ("architecture", "tensors")
        ]
    return tuple(checks)


def require_compatible(father: Checkpoint, mother: Checkpoint, ancestor: Checkpoint | None = None) -> tuple[Check, ...]:
    """The report of `compare`; raises `LabError` for the first failing check."""
    checks = compare(father, mother, ancestor)
    for check in checks:
        if not check.ok:
            raise LabError(f"parents differ in {check.what}: {check.father} against {check.mother}; {check.remedy}")
    return checks


def _pair_checks(father: Checkpoint, other: Checkpoint, a: Anatomy, b: Anatomy, who: str) -> list[Check]:
    same = "parents must be checkpoints of one architecture"
    checks = [
        _check("architecture", _architecture(father), _architecture(other), same),
        _check("layers", f"{a.layers} ({describe_layers(a)})", f"{b.layers} ({describe_layers(b)})", same),
        _check("hidden size", str(a.hidden_size), str(b.hidden_size), same),
        _check("experts", _experts(a), _experts(b), same),
        _check("vocabulary", *_vocabularies(father, other), "both need the same tokenizer vocabulary"),
        _tensor_check(a, b, who),
        _shape_check(a, b),
    ]
    dtypes = [", ".join(sorted({info.dtype for info in ck.tensors.values()})) for ck in (father, other)]
    checks.append(Check("dtype (the child has the father's)", dtypes[0], dtypes[1], True))
    return checks


def _check(what: str, father: str, mother: str, remedy: str) -> Check:
    ok = father == mother
    return Check(what, father, mother, ok, "" if ok else remedy)


def _architecture(checkpoint: Checkpoint) -> str:
    names = checkpoint.config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else str(checkpoint.config.get("model_type", "unknown"))


def _experts(anatomy: Anatomy) -> str:
    return f"{anatomy.experts}, top-{anatomy.top_k}" if anatomy.experts else "none (dense)"


def _tensor_check(a: Anatomy, b: Anatomy, who: str) -> Check:
    """Every tensor that is merged must be in both; copied ones come from the father and may be missing."""
    needed = {part.name for part in a.mergeable}
    theirs = {part.name for part in b.mergeable}
    lacking, extra = sorted(needed - theirs), sorted(theirs - needed)
    if not lacking and not extra:
        return Check("tensors", f"{len(needed)} merged", f"{len(theirs)} merged", True)
    example = f"{who} lacks {lacking[0]}" if lacking else f"only the {who} has {extra[0]}"
    remedy = f"{example} ({len(lacking)} lacking, {len(extra)} extra); use checkpoints saved in one layout"
    return Check("tensors", f"{len(needed)} merged", f"{len(theirs)} merged", False, remedy)


def _shape_check(a: Anatomy, b: Anatomy) -> Check:
    for part in a.mergeable:
        other = b.parts.get(part.name)
        if other is not None and other.shape != part.shape:
            remedy = f"{part.name} has another shape; parents must be fine-tunes of one model size"
            return Check("shapes", str(list(part.shape)), str(list(other.shape)), False, remedy)
    return Check("shapes", "all", "equal", True)


def _vocabularies(father: Checkpoint, other: Checkpoint) -> tuple[str, str]:
    """What to print for each; equal texts mean equal vocabularies (tokens and their ids)."""
    paths = [
        next((ck.folder / name for name in _TOKENIZER_FILES if (ck.folder / name).is_file()), None)
        for ck in (father, other)
    ]
    sizes = [f"{ck.text_config.get('vocab_size', '?')} rows" for ck in (father, other)]
    if paths[0] is None or paths[1] is None:
        return sizes[0], sizes[1]
    if sizes[0] != sizes[1] or paths[0].read_bytes() == paths[1].read_bytes():
        return sizes[0], sizes[1]
    tokens = [_vocabulary(str(path), path.stat().st_mtime_ns) for path in paths if path is not None]
    if tokens[0] is None or tokens[1] is None or tokens[0] == tokens[1]:
        same_files = tokens[0] is not None
        return sizes[0], sizes[1] if same_files else f"{sizes[1]}, another {paths[1].name}"
    differing = len(set(tokens[0].items()) ^ set(tokens[1].items())) // 2 or 1
    return sizes[0], f"{sizes[1]}, {differing} tokens differ"


@lru_cache(maxsize=16)
def _vocabulary(path: str, mtime_ns: int) -> dict[str, int] | None:
    """Token to id; None when the file is not JSON that we can read tokens from."""
    if not path.endswith(".json"):
        return None
    data: Any = read_json(Path(path))
    if not isinstance(data, dict) or not isinstance(data.get("model", {}), dict):
        raise LabError(f"{path} is no tokenizer file; copy the model's own beside the weights")
    if "model" not in data:
        return dict(data)
    vocab = data["model"].get("vocab", {})
    if isinstance(vocab, list):  # unigram: [[token, score], ...]
        vocab = {json.dumps(row[0]): number for number, row in enumerate(vocab)}
    added = {token["content"]: token["id"] for token in data.get("added_tokens", [])}
    return {**vocab, **added}
