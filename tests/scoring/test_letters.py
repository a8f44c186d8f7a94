import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from darwin_lab.errors import LabError
from darwin_lab.scoring.items import Item
from darwin_lab.scoring.letters import as_letters, debiased, drawn_order, has_letters, lettered, numbered, rotations
from tests.scoring.models import item

ITEM = item(0, "which?", ["red", "green", "blue", "grey"], 2)


@given(st.text(max_size=5), st.integers(2, 8), st.integers(0, 3))
def test_in_a_round_of_showings_every_choice_stands_once_under_every_letter(name: str, choices: int, seed: int) -> None:
    for first in (0, choices):
        orders = [drawn_order(name, choices, seed, first + turn) for turn in range(choices)]
        for column in zip(*orders, strict=True):
            assert sorted(column) == list(range(choices))


def test_an_order_belongs_to_seed_item_and_number() -> None:
    assert drawn_order("a", 6, 0, 0) == drawn_order("a", 6, 0, 0)
    others = [
        drawn_order("b", 6, 0, 0),
        drawn_order("a", 6, 1, 0),
        drawn_order("a", 6, 0, 1),
        drawn_order("a", 6, 0, 6),
    ]
    assert all(other != drawn_order("a", 6, 0, 0) for other in others)


def test_the_right_choice_keeps_being_right_under_its_letter() -> None:
    shown = as_letters(ITEM, (3, 2, 0, 1))
    assert shown.question == "which?\nA. grey\nB. blue\nC. red\nD. green\nAnswer:"
    assert (shown.choices, shown.answer) == (("A", "B", "C", "D"), 1)
    assert lettered(ITEM, (3, 2, 0, 1)).splitlines()[2] == "B. blue"


def test_a_bias_towards_a_letter_cancels_over_a_round() -> None:
    belief = np.log([0.2, 0.1, 0.6, 0.1])
    bias = np.array([3.0, 0.0, -1.0, 0.5])
    shown = rotations(ITEM, seed=4)
    logliks = [belief[list(order)] + bias for order, _ in shown]
    assert any(int(np.argmax(loglik)) != entry.answer for loglik, (_, entry) in zip(logliks, shown, strict=True))
    mean = debiased([order for order, _ in shown], logliks)
    assert int(np.argmax(mean)) == ITEM.answer
    assert mean - mean[0] == pytest.approx(belief - belief[0])


def test_an_item_without_choices_has_no_letters() -> None:
    with pytest.raises(LabError, match="'w' has no choices"):
        lettered(Item("w", "t", "q", None, "x"), (0, 1))


@pytest.mark.parametrize(
    ("choices", "bare"),
    [
        ("A B C", True), ("(A) (B) (C) (D)", True), ("A. B.", True),
        ("B A", False), ("A C", False), ("a b", False), ("A: B:", False), ("one A", False),
    ],
)  # fmt: skip
def test_bare_letters_in_order_are_told_from_choices_of_their_own(choices: str, bare: bool) -> None:
    assert has_letters(item(0, "q", choices.split(), 0)) == bare
    assert not has_letters(Item("w", "t", "q", None, "x"))


def test_an_item_that_holds_its_letters_has_one_showing_as_it_is() -> None:
    held = item(0, "which?\n(A) red\n(B) blue", ["(A)", "(B)"], 1)
    ((order, shown),) = rotations(held, seed=4)
    assert order == (0, 1)
    assert (shown.id, shown.question, shown.choices, shown.answer) == ("i0#0", held.question, held.choices, 1)


def test_choices_under_letters_take_the_place_of_the_numbered_list_a_question_ends_with() -> None:
    listed = item(0, f"who?\n\n{numbered(['Ann', 'Bob'])}", ["Ann", "Bob"], 0)
    assert listed.question == "who?\n\n1 - Ann\n2 - Bob\n\nAnswer:"
    assert lettered(listed, (1, 0)) == "who?\nA. Bob\nB. Ann"
