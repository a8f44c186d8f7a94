from darwin_lab.lab.pairs import FAMILY_ITEMS
from darwin_lab.scoring.items import load_items
from darwin_lab.scoring.leaks import find_leaks
from tests.scoring.models import item

LONG = "Which of these gases do plants take from the air to make their food in the light"


def kinds(selection: list, report: list, texts: dict | None = None) -> list[tuple[str, str, str]]:
    found = find_leaks({"selection": selection, "report": report}, texts)
    return [(leak.kind, leak.first, leak.second) for leak in found]


def test_the_same_item_is_found_whatever_its_letters_spaces_and_order_of_choices() -> None:
    one = item(1, f"{LONG}?", ["oxygen", "carbon dioxide"])
    other = item(2, f"  {LONG.upper()} ", ["Carbon  dioxide", "oxygen"])
    assert kinds([one], [other]) == [("exact", "i1", "i2")]


def test_an_item_with_a_few_words_changed_is_near() -> None:
    other = item(2, LONG.replace("these gases", "the gases"), ["oxygen", "carbon dioxide"])
    assert kinds([item(1, LONG, ["oxygen", "carbon dioxide"])], [other]) == [("near", "i1", "i2")]


def test_one_question_with_other_choices_and_two_sums_are_no_leak() -> None:
    one = item(1, "Which is true?", ["ice is warm and dry", "water is wet", "stones swim in rivers"])
    other = item(2, "Which is true?", ["birds have three wings", "fire is cold to touch", "the sky is blue"])
    assert kinds([one], [other]) == []
    assert kinds([item(1, "47+38", ["85", "86"])], [item(2, "47+39", ["86", "85"])]) == []
    assert kinds([item(1, "47+38", ["85", "86"])], [item(2, "47-38", ["85", "86"])]) == []


def test_one_question_asked_with_other_options_is_found_unless_it_is_a_phrase_of_many_items() -> None:
    one = item(1, LONG, ["carbon dioxide", "oxygen"])
    other = item(2, LONG, ["the gas we breathe out all day", "the gas that fills most of the air", "helium"])
    assert kinds([one], [other]) == [("question", "i1", "i2")]
    third = item(3, LONG, ["nothing of the kind", "marsh gas, which burns quite well"])
    assert kinds([one], [other, third]) == []


def test_a_question_inside_a_probe_is_found_with_the_probe_named() -> None:
    probe = f"Some words before. {LONG}? And many more words after it, about something else."
    assert kinds([], [item(1, LONG, ["oxygen", "soot"])], {"KNOWLEDGE": ["unrelated", probe]}) == [
        ("inside", "i1", "KNOWLEDGE 1")
    ]


def test_a_passage_torn_between_two_splits_is_found() -> None:
    one, other = item(1, "who came first", ["a", "b"], cluster="p"), item(2, "why did she go", ["c", "d"], cluster="p")
    assert kinds([one], [other]) == [("cluster", "i1", "i2")]


def test_the_familys_splits_hold_different_items() -> None:
    splits = {name: load_items(FAMILY_ITEMS / f"{name}.jsonl") for name in ("selection", "validation")}
    assert [leak for leak in find_leaks(splits) if leak.kind == "exact"] == []
