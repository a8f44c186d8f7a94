"""Items that a search has already seen: exact and near duplicates between splits, and inside probes and shots.

Takes named sets of texts, gives the pairs that are too alike. Knows nothing about models.
"""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from darwin_lab.scoring.items import Item

SHINGLE = 5
"""Letters a shingle: long enough to say something, short enough for languages without spaces."""
NEAR = 0.8
SHORTEST = 24
"""Letters below which two texts are only compared whole: "47+38" and "47+39" are different sums."""


@dataclass(frozen=True)
class Leak:
    """Two texts of different sets: `kind` "exact", "near" (share of common shingles) "inside" (share of the first
    that stands in the second), "question" (the same one with other options) or "cluster" (items of one passage in two
    splits)."""

    kind: str
    first: str
    first_set: str
    second: str
    second_set: str
    similarity: float


@dataclass(frozen=True)
class _Text:
    name: str
    plain: str
    shingles: frozenset[str]


def item_text(item: Item) -> str:
    """What makes an item that item: its question and its choices, in whatever order."""
    return " ".join([item.question, *sorted(item.choices or (str(item.answer),))])


def find_leaks(
    splits: Mapping[str, Sequence[Item]], texts: Mapping[str, Sequence[str]] | None = None, near: float = NEAR
) -> list[Leak]:
    """Pairs of items of different splits that are the same or nearly so, and items found inside longer `texts`
    (probe name -> its texts).

    Texts are compared in small letters without spaces, accents' encodings and punctuation (NFKC). "near": Jaccard
    similarity of 5-letter shingles at least `near`; "inside": at least `near` of the question's own shingles stand in
    a text; "question": letter for letter, where neither split asks it twice ("Which of these is true?" is no
    question of its own); "cluster": a passage is one unit and may not be torn (methods.md 8).
    """
    whole = {name: [_text(item.id, item_text(item)) for item in items] for name, items in splits.items()}
    leaks = []
    for first, second in combinations(whole, 2):
        alike = _between(first, whole[first], second, whole[second], near)
        asked = _same_question(first, splits[first], second, splits[second])
        leaks += alike
        leaks += [leak for leak in asked if (leak.first, leak.second) not in {(one.first, one.second) for one in alike}]
        leaks.extend(_torn_clusters(first, splits[first], second, splits[second]))
    for probe, lines in (texts or {}).items():
        probes = [_text(f"{probe} {number}", line) for number, line in enumerate(lines)]
        for name, items in splits.items():
            questions = [_text(item.id, item.question) for item in items]
            leaks.extend(_inside(name, questions, probe, probes, near))
    return leaks


def _text(name: str, text: str) -> _Text:
    plain = "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum() or c in "+-*/=<>%.")
    return _Text(name, plain, frozenset(plain[i : i + SHINGLE] for i in range(max(1, len(plain) - SHINGLE + 1))))


def _between(first: str, ours: Sequence[_Text], second: str, theirs: Sequence[_Text], near: float) -> list[Leak]:
    holders = _holders(theirs)
    leaks = []
    for text in ours:
        for place, common in _met(text, holders):
            other = theirs[place]
            if text.plain == other.plain:
                leaks.append(Leak("exact", text.name, first, other.name, second, 1.0))
                continue
            similarity = common / (len(text.shingles) + len(other.shingles) - common)
            if similarity >= near and min(len(text.plain), len(other.plain)) >= SHORTEST:
                leaks.append(Leak("near", text.name, first, other.name, second, similarity))
    return leaks


def _inside(first: str, ours: Sequence[_Text], second: str, theirs: Sequence[_Text], near: float) -> list[Leak]:
    holders = _holders(theirs)
    leaks = []
    for text in ours:
        for place, common in _met(text, holders):
            other = theirs[place]
            share = common / len(text.shingles)
            if text.plain == other.plain:
                leaks.append(Leak("exact", text.name, first, other.name, second, 1.0))
            elif len(text.plain) >= SHORTEST and share >= near:
                leaks.append(Leak("inside", text.name, first, other.name, second, share))
    return leaks


def _holders(texts: Sequence[_Text]) -> dict[str, list[int]]:
    holders: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        for shingle in text.shingles:
            holders.setdefault(shingle, []).append(place)
    return holders


def _met(text: _Text, holders: Mapping[str, list[int]]) -> list[tuple[int, int]]:
    """(place, shingles in common) of every text that shares one."""
    met: Counter[int] = Counter()
    for shingle in text.shingles:
        met.update(holders.get(shingle, ()))
    return sorted(met.items())


def _same_question(first: str, ours: Sequence[Item], second: str, theirs: Sequence[Item]) -> list[Leak]:
    once, again = _asked_once(ours), _asked_once(theirs)
    return [Leak("question", name, first, again[text], second, 1.0) for text, name in once.items() if text in again]


def _asked_once(items: Sequence[Item]) -> dict[str, str]:
    """Question -> id, of the questions that are long enough to say something and asked by one item only."""
    texts = {item.id: _text(item.id, item.question).plain for item in items}
    asked = Counter(texts.values())
    return {text: name for name, text in texts.items() if len(text) >= SHORTEST and asked[text] == 1}


def _torn_clusters(first: str, ours: Sequence[Item], second: str, theirs: Sequence[Item]) -> list[Leak]:
    homes = {item.cluster: item.id for item in ours if "cluster" in item.meta}
    return [
        Leak("cluster", homes[item.cluster], first, item.id, second, 1.0)
        for item in theirs
        if "cluster" in item.meta and item.cluster in homes
    ]
