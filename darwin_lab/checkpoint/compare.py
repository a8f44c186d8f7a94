"""Whether two (or three) checkpoints can be bred: one check a row, each with its remedy.

Takes opened checkpoints, gives checks. Reads configs, headers and tokenizer files, never weights.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import chain

from darwin_lab.checkpoint.alignment import align
from darwin_lab.checkpoint.anatomy import Anatomy, Part, read_anatomy
from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.checkpoint.heads import has_head, is_tied, is_untied, lacks_head
from darwin_lab.checkpoint.layout import layout_words, read_layout
from darwin_lab.checkpoint.naming import atoms
from darwin_lab.checkpoint.vocabulary import check_vocabulary, match_tokens, vocabulary_report
from darwin_lab.errors import LabError

_BY_NUMBER = "fits by number; the MRI says whether they correspond"
_ONE_ARCHITECTURE = "parents must be checkpoints of one architecture"
_LANGUAGE_MODELS = ("ForCausalLM", "ForConditionalGeneration")
_COPY = "stored, though its config ties it to the embedding"


@dataclass(frozen=True)
class Check:
    """One line of the compatibility report; `remedy` is empty when `ok`, `note` says what an `ok` leaves open."""

    what: str
    father: str
    mother: str
    ok: bool
    remedy: str = ""
    note: str = ""


def compare(
    father: Checkpoint, mother: Checkpoint, ancestor: Checkpoint | None = None, *, vocabulary: str = "same"
) -> tuple[Check, ...]:
    """The compatibility report, most telling check first.

    Parents may differ in layout (fused or single experts, a multimodal wrapper) and, with `vocabulary` "by-token", in
    vocabulary. Raises `LabError` only when a parent cannot be read or `vocabulary` is unknown.
    """
    check_vocabulary(vocabulary)
    anatomies = read_anatomy(father), read_anatomy(mother)
    checks = _pair_checks(father, mother, *anatomies, "mother", vocabulary)
    if ancestor is not None:
        anatomy = read_anatomy(ancestor)
        checks += [
            Check(f"ancestor: {check.what}", check.father, check.mother, check.ok, check.remedy)
            for check in _pair_checks(father, ancestor, anatomies[0], anatomy, "ancestor", vocabulary)
            if not check.ok or check.what in ("architecture", "tensors")
        ]
    return tuple(checks)


def require_compatible(
    father: Checkpoint, mother: Checkpoint, ancestor: Checkpoint | None = None, *, vocabulary: str = "same"
) -> tuple[Check, ...]:
    """The report of `compare`; raises `LabError` for the first failing check."""
    checks = compare(father, mother, ancestor, vocabulary=vocabulary)
    for check in checks:
        if not check.ok:
            raise LabError(f"parents differ in {check.what}: {check.father} against {check.mother}; {check.remedy}")
    return checks


def dropped(father: Checkpoint, other: Checkpoint) -> tuple[tuple[str, str], ...]:
    """(name, reason) of every tensor of `other` that has no place in the father's layout, in file order.

    What the father has too, but is copied from him, has a place and is not listed: its reason is in his anatomy.
    """
    kept = _held(father)
    parts = read_anatomy(other).parts
    return tuple(
        (name, f"{_what(parts[name])}: {father.name} has none")
        for name, info in other.tensors.items()
        if not kept.issuperset(atoms(name, info.shape))
    )


def _what(part: Part) -> str:
    return part.reason.split(":")[0] or f"{part.role.replace('_', ' ')} tensor"


def _held(checkpoint: Checkpoint) -> set[str]:
    return set(chain.from_iterable(atoms(info.name, info.shape) for info in checkpoint.tensors.values()))


def _pair_checks(
    father: Checkpoint, other: Checkpoint, a: Anatomy, b: Anatomy, who: str, vocabulary: str
) -> list[Check]:
    checks = [
        _architecture_check(father, other),
        _check("layers", _layers(father, a), _layers(other, b), _ONE_ARCHITECTURE),
        _check("hidden size", str(a.hidden_size), str(b.hidden_size), _ONE_ARCHITECTURE),
        _check("experts", _experts(a), _experts(b), _ONE_ARCHITECTURE, _BY_NUMBER if a.experts else ""),
        _vocabulary_check(father, other, vocabulary),
        _head_check(father, other, a, b, who),
        *_tensor_checks(father, other, a, b, who, vocabulary),
    ]
    dtypes = [", ".join(sorted({info.dtype for info in ck.tensors.values()})) for ck in (father, other)]
    checks.append(Check("dtype (the child has the father's)", dtypes[0], dtypes[1], True))
    lost = Counter(reason.split(":")[0] for _, reason in dropped(father, other))
    if lost:
        words = ", ".join(f"{count} x {what}" for what, count in lost.items())
        checks.append(Check(f"only the {who}'s (dropped)", "-", words, True))
    return checks


def _layers(checkpoint: Checkpoint, anatomy: Anatomy) -> str:
    return f"{anatomy.layers}: {layout_words(read_layout(anatomy, checkpoint.text_config))}"


def _check(what: str, father: str, mother: str, remedy: str, note: str = "") -> Check:
    ok = father == mother
    return Check(what, father, mother, ok, "" if ok else remedy, note if ok else "")


def _architecture_check(father: Checkpoint, other: Checkpoint) -> Check:
    """Equal, or the same language model with and without its multimodal wrapper."""
    names = [_architecture(checkpoint) for checkpoint in (father, other)]
    kinds = [checkpoint.text_config.get("model_type") for checkpoint in (father, other)]
    wrapped = all(name.endswith(_LANGUAGE_MODELS) for name in names) and None not in kinds and kinds[0] == kinds[1]
    ok = names[0] == names[1] or wrapped
    return Check("architecture", names[0], names[1], ok, "" if ok else _ONE_ARCHITECTURE)


def _architecture(checkpoint: Checkpoint) -> str:
    names = checkpoint.config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else str(checkpoint.config.get("model_type", "unknown"))


def _experts(anatomy: Anatomy) -> str:
    return f"{anatomy.experts}, top-{anatomy.top_k}" if anatomy.experts else "none (dense)"


def _head_check(father: Checkpoint, other: Checkpoint, a: Anatomy, b: Anatomy, who: str) -> Check:
    """Both store a head or neither does: one that is merged by itself would no longer be the embedding."""
    words = _head_words(father, a), _head_words(other, b)
    lacking = next((model for model, anatomy in ((father, a), (other, b)) if lacks_head(model, anatomy)), None)
    remedy = ""
    if lacking is not None:
        remedy = (
            f"get {lacking.name} whole, or set tie_word_embeddings to true in its config.json if its embedding is the "
            "head"
        )
    elif has_head(a) != has_head(b):
        stored = father if has_head(a) else other
        remedy = "untie the one (store its embedding as lm_head.weight too and set tie_word_embeddings to false)"
        if is_tied(stored):
            remedy = (
                f"the stored head of {stored.name} is a second copy of its embedding by its config; load it in "
                "transformers and save it again, which leaves the copy out"
            )
    elif has_head(a) and is_tied(father) and is_untied(other) and who == "mother":
        remedy = (
            f"the child has the father's config, which would drop the head; set tie_word_embeddings to false in the "
            f"config.json of {father.name}"
        )
    elif has_head(a):
        checked = f"{_COPY} (its values are checked before a merge)"
        words = words[0].replace(_COPY, checked), words[1].replace(_COPY, checked)
    return Check("head", *words, not remedy, remedy)


def _head_words(checkpoint: Checkpoint, anatomy: Anatomy) -> str:
    if has_head(anatomy):
        return _COPY if is_tied(checkpoint) else "its own"
    return "none stored, though its config unties it" if lacks_head(checkpoint, anatomy) else "tied to the embedding"


def _tensor_checks(
    father: Checkpoint, other: Checkpoint, a: Anatomy, b: Anatomy, who: str, vocabulary: str
) -> list[Check]:
    """Every merged tensor must be in both, in one shape; copied ones come from the father and may be missing."""
    heads_differ = has_head(a) != has_head(b)
    needed, theirs_merged = (
        [part for part in anatomy.mergeable if part.role != "lm_head" or not heads_differ] for anatomy in (a, b)
    )
    try:
        supplied = set(align(father, other, vocabulary=vocabulary).names)
    except LabError:  # the vocabularies cannot be matched, which has a check of its own
        supplied = set(align(father, other).names)
        needed = [part for part in needed if part.component != "embed"]
    kept, theirs = _held(father), {atom: part for part in b.parts.values() for atom in atoms(part.name, part.shape)}
    lacking = [part for part in needed if part.name not in supplied]
    absent = [part.name for part in lacking if not theirs.keys() >= set(atoms(part.name, part.shape))]
    extra = [part.name for part in theirs_merged if not kept.issuperset(atoms(part.name, part.shape))]
    counts = [f"{len(x.mergeable)} merged" for x in (a, b)]
    tensors = Check("tensors", counts[0], counts[1], not absent and not extra)
    if absent or extra:
        example = f"{who} lacks {absent[0]}" if absent else f"only the {who} has {extra[0]}"
        remedy = f"{example} ({len(absent)} lacking, {len(extra)} extra); parents must be fine-tunes of one model"
        tensors = Check("tensors", counts[0], counts[1], False, remedy)
    odd = next((part for part in lacking if part.name not in absent), None)
    if odd is None:
        return [tensors, Check("shapes", "all", "equal", True)]
    twin = theirs[next(iter(atoms(odd.name, odd.shape)))]
    remedy = f"{odd.name} has another shape; parents must be fine-tunes of one model size"
    return [tensors, Check("shapes", str(list(odd.shape)), str(list(twin.shape)), False, remedy)]


def _vocabulary_check(father: Checkpoint, other: Checkpoint, vocabulary: str) -> Check:
    if vocabulary == "same":
        mine, theirs, ok = vocabulary_report(father, other)
        remedy = "both need one tokenizer vocabulary; or match them by token (--vocab by-token)"
        return Check("vocabulary", mine, theirs, ok, "" if ok else remedy)
    try:
        match = match_tokens(father, other)
    except LabError as error:
        return Check("vocabulary", "by token", "cannot be matched", False, str(error))
    mine = f"{match.shared + len(match.only_father):,} tokens, {len(match.only_father):,} of them his alone (kept)"
    theirs = f"{match.shared:,} matched by token, {len(match.only_other):,} hers alone (dropped)"
    return Check("vocabulary", mine, theirs, True)
