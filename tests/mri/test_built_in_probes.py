"""The texts the lab ships: enough of every skill, in enough languages, each said once and short enough to read."""

import json
from collections import Counter
from itertools import combinations

from darwin_lab.mri.contrast import CONTRAST_TEXTS
from darwin_lab.mri.languages import LANGUAGE_PROBES
from darwin_lab.mri.probes import GENERIC_PROBES, load_probes

SKILLS = ("REASONING", "MATH", "CODE", "KNOWLEDGE", "LANGUAGE", "LOGIC", "KOREAN", "MULTILINGUAL", "NEUTRAL")
MOST_BYTES = 480
"""About 120 tokens: four bytes of UTF-8 a token."""
ROWS = [json.loads(line) for line in GENERIC_PROBES.read_text(encoding="utf-8").splitlines()]
SCRIPTS = {"ko": "가힣", "ja": "ぁん", "zh": "一龥", "ru": "ая", "ar": "اي", "hi": "अह"}


def pieces(text: str) -> set[str]:
    """Every run of five letters, whatever the case and the spaces."""
    plain = " ".join(text.lower().split())
    return {plain[start : start + 5] for start in range(len(plain) - 4)}


def test_every_skill_has_forty_texts_or_more_and_there_are_no_others() -> None:
    probes = load_probes(GENERIC_PROBES)
    assert probes.names == SKILLS
    assert min(len(texts) for texts in probes.texts.values()) >= 40


def test_no_text_is_there_twice_nor_nearly_and_none_is_also_a_text_of_a_language() -> None:
    texts = [row["text"] for row in ROWS]
    assert max(Counter(texts).values()) == 1
    known = [pieces(text) for text in texts]
    alike = [
        (round(len(a & b) / min(len(a), len(b)), 2), texts[i][:40], texts[j][:40])
        for (i, a), (j, b) in combinations(enumerate(known), 2)
        if len(a & b) > 0.5 * min(len(a), len(b))
    ]
    assert alike == []
    assert not {text for group in load_probes(LANGUAGE_PROBES).texts.values() for text in group} & set(texts)


def test_the_multilingual_texts_are_ten_languages_or_more_of_five_texts_or_more() -> None:
    languages = Counter(row["language"] for row in ROWS if row["probe"] == "MULTILINGUAL")
    assert len(languages) >= 10
    assert min(languages.values()) >= 5


def test_the_texts_a_contrast_reads_of_it_hold_every_language() -> None:
    rows = [row for row in ROWS if row["probe"] == "MULTILINGUAL"]
    assert {row["language"] for row in rows[:CONTRAST_TEXTS]} == {row["language"] for row in rows}


def test_a_text_that_names_its_language_is_written_in_its_script() -> None:
    named = [row for row in ROWS if "language" in row]
    assert {row["language"] for row in named if row["probe"] == "KOREAN"} == {"ko"}
    for row in named:
        if row["language"] in SCRIPTS:
            first, last = SCRIPTS[row["language"]]
            letters = [letter for letter in row["text"] if letter.isalpha()]
            assert sum(first <= letter <= last for letter in letters) > 0.2 * len(letters), row


def test_every_row_is_a_label_a_text_of_readable_length_and_perhaps_its_language() -> None:
    for row in ROWS:
        assert {"probe", "text"} <= set(row) <= {"probe", "language", "text"}, row
        assert len(row["text"]) >= 20, row
        assert len(row["text"].encode()) <= MOST_BYTES, row
        assert row["text"] == row["text"].strip(), row
