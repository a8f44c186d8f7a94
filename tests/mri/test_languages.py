"""Languages: the built-in texts are what they claim, losses are the model's own, spelling is not called reading."""

import json
import math
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.engine.resident import Resident
from darwin_lab.errors import LabError
from darwin_lab.mri.languages import (
    BETTER,
    GUESSED,
    HELD,
    LANGUAGE_PROBES,
    NAMES,
    SPELLED_ONLY,
    WORSE,
    Reading,
    compare_languages,
    read_languages,
    unknown_share,
)
from darwin_lab.mri.probes import ProbeSet, load_probes

SCRIPTS = {
    "ko": "HANGUL", "zh": "CJK", "ja": "HIRAGANA", "ru": "CYRILLIC", "ar": "ARABIC", "hi": "DEVANAGARI",
}  # fmt: skip
PLAIN, STRANGE = ("question: abc+1", "answer: 2 and 3"), ("ЖЖЖЖ ЖЖЖ", "ЖЖ Ж ЖЖЖ")


def test_the_built_in_texts_are_twelve_languages_of_twelve_texts() -> None:
    probes = load_probes(LANGUAGE_PROBES)
    assert [name.removeprefix("LANG:") for name in probes.names] == list(NAMES)
    assert len(NAMES) >= 10
    for name, texts in probes.texts.items():
        assert len(texts) == len(set(texts)) >= 12, name


def test_every_language_is_written_in_its_script() -> None:
    probes = load_probes(LANGUAGE_PROBES)
    for code in NAMES:
        for text in probes.texts[f"LANG:{code}"]:
            letters = [unicodedata.name(letter, "") for letter in text if letter.isalpha()]
            wanted = SCRIPTS.get(code, "LATIN")
            assert any(name.startswith(wanted) for name in letters), text
            others = set(SCRIPTS.values()) - {wanted} - ({"CJK"} if code == "ja" else set())
            assert not any(name.startswith(tuple(others)) for name in letters), text


def tokenizer_of(words: list[str], pattern: str) -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordLevel({word: place for place, word in enumerate(["<unk>", *words])}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")


def test_words_are_known_and_letters_of_a_word_are_not() -> None:
    words = tokenizer_of(["the", "cat", " "], r"\w+|\s")
    assert unknown_share(words, ("the cat",)) == 0.0
    assert unknown_share(words, ("the dog",)) == pytest.approx(1 / 3)
    letters = tokenizer_of([*"abcdefghijklmnopqrstuvwxyz", " "], r"[\s\S]")
    assert unknown_share(letters, ("the cat",)) == pytest.approx(6 / 7)
    assert unknown_share(letters, ("a i",)) == 0.0


def test_a_sign_that_is_a_word_counts_as_known_and_its_bytes_do_not() -> None:
    signs = tokenizer_of(["水", "山"], r"[\s\S]")
    assert unknown_share(signs, ("水山",)) == 0.0
    level = Tokenizer(
        models.BPE({letter: place for place, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}, [])
    )
    level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert unknown_share(PreTrainedTokenizerFast(tokenizer_object=level), ("水山",)) == 1.0


def test_characters_that_are_dropped_count_as_unknown() -> None:
    made = Tokenizer(models.BPE({letter: place for place, letter in enumerate("abc ")}, []))
    assert unknown_share(PreTrainedTokenizerFast(tokenizer_object=made), ("a 水山",)) == pytest.approx(2 / 4)


@pytest.fixture(scope="module")
def resident(tiny_llama_pair: tuple[Path, Path, Path]) -> tuple[Resident, Checkpoint]:
    source = Checkpoint(tiny_llama_pair[0])
    return Resident.load(source), source


def test_the_loss_of_a_text_is_the_models_own_cross_entropy(resident: tuple[Resident, Checkpoint]) -> None:
    model, source = resident
    texts = ProbeSet({"LANG:en": (" 1+2= 3", " 4+5= 9 12"), "LANG:ru": STRANGE})
    reading = read_languages(model, source, texts)
    for text, found in zip(texts.texts["LANG:en"], reading.nll["LANG:en"], strict=True):
        ids = torch.tensor([model.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            logits = model.model(input_ids=ids, use_cache=False).logits
        expected = torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:]).item()
        assert found == pytest.approx(expected, abs=1e-4)
    assert reading.guess == pytest.approx(math.log(64))


def test_a_language_that_is_only_spelled_gets_its_share_and_no_loss(resident: tuple[Resident, Checkpoint]) -> None:
    reading = read_languages(*resident, ProbeSet({"LANG:ru": STRANGE}))
    assert reading.unknown["LANG:ru"] > 0.5
    assert "LANG:ru" not in reading.nll
    row = compare_languages(reading, reading, reading).rows[0]
    assert (row.verdict, row.child, row.child_minus_father) == (SPELLED_ONLY, None, None)
    assert "Russian" in compare_languages(reading, reading, reading).sentence


def reading_of(model: str, values: list[float], guess: float = 10.0, tokens: int = 9) -> Reading:
    return Reading(
        model, model, "h", guess, {"LANG:ko": (tokens,) * len(values)}, {"LANG:ko": 0.1}, {"LANG:ko": tuple(values)}
    )


@pytest.mark.parametrize(
    ("shift", "verdict"), [(0.5, WORSE), (-0.5, BETTER), (0.0, HELD)], ids=["worse", "better", "held"]
)
def test_a_verdict_needs_both_paired_intervals_on_one_side(shift: float, verdict: str) -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, (3, 12))
    father, mother = reading_of("f", list(3 + noise[0])), reading_of("m", list(3 + noise[1]))
    row = compare_languages(reading_of("c", list(3 + shift + noise[2])), father, mother).rows[0]
    assert row.verdict == verdict
    assert row.child is not None
    assert row.child[1] <= row.child[0] <= row.child[2]
    assert row.child_minus_father[0] == pytest.approx(shift, abs=0.1)


def test_worse_than_one_parent_only_is_held() -> None:
    parents = reading_of("f", [2.0, 2.1, 2.2] * 4), reading_of("m", [4.0, 4.1, 4.2] * 4)
    assert compare_languages(reading_of("c", [3.0, 3.1, 3.2] * 4), *parents).rows[0].verdict == HELD


def test_parents_that_only_guess_are_not_compared() -> None:
    readings = [reading_of(name, [4.5, 4.6, 4.7] * 4, guess=math.log(64)) for name in "cfm"]
    row = compare_languages(*readings).rows[0]
    assert (row.verdict, row.child) == (GUESSED, None)


def test_readings_of_other_tokens_are_refused() -> None:
    with pytest.raises(LabError, match="cannot be compared"):
        compare_languages(
            reading_of("c", [1.0, 2.0]), reading_of("f", [1.0, 2.0], tokens=8), reading_of("m", [1.0, 2.0])
        )


def test_a_reading_survives_json() -> None:
    reading = reading_of("c", [1.5, 2.5])
    assert Reading.from_json(json.loads(json.dumps(reading.to_json()))) == reading
    with pytest.raises(LabError, match="measure it again"):
        Reading.from_json({"model": "x"})


def test_progress_names_the_language(resident: tuple[Resident, Checkpoint]) -> None:
    said: list[str] = []
    tick: Callable[[float, str], None] = lambda fraction, words: said.append(words)  # noqa: E731
    read_languages(*resident, ProbeSet({"LANG:en": PLAIN}), tick)
    assert any("English" in words for words in said)
