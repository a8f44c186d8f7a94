import json
from collections import Counter

import pytest

from darwin_lab.errors import LabError
from darwin_lab.mri.probes import GENERIC_PROBES, ProbeSet, load_probes


def test_probes_keep_the_order_of_the_file(tmp_path):
    path = tmp_path / "probes.jsonl"
    path.write_text('{"probe": "B", "text": "one"}\n\n{"probe": "A", "text": "two"}\n{"probe": "B", "text": "three"}\n')
    assert load_probes(path).texts == {"B": ("one", "three"), "A": ("two",)}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{not json", "not JSON"),
        ('["MATH", "1 + 1"]', "not an object"),
        ('{"text": "no label"}', '"probe" is missing'),
        ('{"probe": "MATH"}', '"text" is missing'),
        ('{"probe": "MATH", "text": "  "}', '"text" is missing or empty'),
    ],
)
def test_a_broken_line_is_named_with_its_number(tmp_path, line, words):
    path = tmp_path / "probes.jsonl"
    path.write_text('{"probe": "MATH", "text": "fine"}\n' + line + "\n")
    with pytest.raises(LabError) as raised:
        load_probes(path)
    assert f"{path}:2" in str(raised.value)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_and_an_empty_file_say_what_to_do(tmp_path):
    with pytest.raises(LabError, match="cannot read"):
        load_probes(tmp_path / "nowhere.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(LabError, match="holds no probe"):
        load_probes(tmp_path / "empty.jsonl")


def test_the_hash_knows_labels_texts_and_order():
    sets = [{"A": ("x", "y")}, {"A": ("y", "x")}, {"B": ("x", "y")}, {"A": ("x", "z")}, {"A": ("x",), "B": ("y",)}]
    hashes = [ProbeSet(texts).hash for texts in sets]
    assert len(set(hashes)) == len(sets)
    assert hashes[0] == ProbeSet({"A": ("x", "y")}).hash


def test_a_subset_of_probes_is_taken_by_name_and_an_unknown_name_is_refused():
    probes = ProbeSet({"A": ("x",), "B": ("y",)})
    assert probes.only("B").texts == {"B": ("y",)}
    with pytest.raises(LabError, match="no probe named C"):
        probes.only("C")


def test_the_generic_probes_hold_enough_texts_of_every_skill_and_no_text_twice():
    probes = load_probes(GENERIC_PROBES)
    assert set(probes.names) == {"REASONING", "MATH", "CODE", "KNOWLEDGE", "LANGUAGE", "LOGIC", "NEUTRAL"}
    for name, texts in probes.texts.items():
        assert len(texts) >= 32, name
        assert sum(len(text.split()) for text in texts) >= 32 * 25, name
    texts = Counter(text for group in probes.texts.values() for text in group)
    assert max(texts.values()) == 1


def test_the_generic_language_probe_holds_korean_and_other_scripts():
    text = "".join(load_probes(GENERIC_PROBES).texts["LANGUAGE"])
    for first, last in (("가", "힣"), ("ぁ", "ん"), ("а", "я"), ("一", "龥")):
        assert any(first <= letter <= last for letter in text)
    for line in GENERIC_PROBES.read_text(encoding="utf-8").splitlines():
        assert set(json.loads(line)) == {"probe", "text"}
