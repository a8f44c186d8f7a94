import pytest

from darwin_lab.errors import LabError
from darwin_lab.mri.probes import ProbeSet, load_probes, pasted_probes


def test_probes_keep_the_order_of_the_file(tmp_path):
    path = tmp_path / "probes.jsonl"
    path.write_text('{"probe": "B", "text": "one"}\n\n{"probe": "A", "text": "two"}\n{"probe": "B", "text": "three"}\n')
    assert load_probes(path).texts == {"B": ("one", "three"), "A": ("two",)}


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"probe": "A", "text": "one"}\n', encoding="utf-8-sig")
    assert load_probes(tmp_path / "p.jsonl").texts == {"A": ("one",)}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{not json", "not JSON"),
        ('["MATH", "1 + 1"]', "not an object"),
        ('{"text": "no label"}', '"probe" is missing'),
        ('{"probe": "MATH"}', '"text" is missing'),
        ('{"probe": "MATH", "text": "  "}', '"text" is missing or empty'),
        ('{"probe": "MATH", "text": "\\ud800"}', "half a character"),
        ('{"probe": "A/B", "text": "x"}', "is no label"),
        ("[" * 100_000, "not JSON"),
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


def test_pasted_lines_with_labels_and_pasted_jsonl_give_the_same_probes():
    wanted = {"MATH": ("2 + 2 = 4", "a: b"), "TEA TIME": ("at four",)}
    assert pasted_probes("MATH: 2 + 2 = 4\n\n TEA TIME :at four\nMATH: a: b\n").texts == wanted
    assert pasted_probes(ProbeSet(wanted).to_jsonl()).texts == wanted
    mixed = pasted_probes('MATH: 2 + 2 = 4\r\n{"probe": "MATH", "text": "a: b"}\r\nTEA TIME: at four')
    assert mixed.hash == ProbeSet(wanted).hash


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("no label here", "has no label"),
        (": no label either", "has no label"),
        ("MATH:  ", "no text"),
        ("A/B: x", "is no label"),
        ("L" * 50 + ": x", "is no label"),
        ("{broken", "not JSON"),
    ],
)
def test_a_bad_pasted_line_is_named_with_its_number(line, words):
    with pytest.raises(LabError, match=words) as raised:
        pasted_probes(f"MATH: fine\n\n{line}\n")
    assert "line 3" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_empty_and_an_endless_paste_say_what_to_do(tmp_path):
    with pytest.raises(LabError, match="nothing was pasted; write lines like"):
        pasted_probes(" \n\n")
    corpus = "MATH: " + "1" * (4 << 20)
    with pytest.raises(LabError, match="larger than 4 MB"):
        pasted_probes(corpus)
    (tmp_path / "corpus.jsonl").write_text(corpus)
    with pytest.raises(LabError, match="larger than 4 MB"):
        load_probes(tmp_path / "corpus.jsonl")


def test_written_probes_are_read_back_equal(tmp_path):
    probes = ProbeSet({"한국어": ("수박\u2028은", 'a "quote"'), "B": ("two\nlines",)})
    (tmp_path / "p.jsonl").write_text(probes.to_jsonl(), encoding="utf-8")
    assert load_probes(tmp_path / "p.jsonl").hash == probes.hash
