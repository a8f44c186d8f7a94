import pytest
from hypothesis import given
from hypothesis import strategies as st

from darwin_lab.scoring.extract import extract, normal, normal_number


@pytest.mark.parametrize(
    ("way", "text", "answer"),
    [
        ("line", " four \nand more", "four"),
        ("line", "", None),
        ("line", "<think>five? no</think>\nfour", "four"),
        ("letter", "It is B.\nANSWER: C", "C"),
        ("letter", "ANSWER: A\nNo.\n**Answer: (d)**", "D"),
        ("letter", "The answer is B", None),
        ("letter", "Answer is B.", "B"),
        ("letter", "I cannot say", None),
        ("letter", "<think>ANSWER: A</think>", None),
        ("letter", "<think>ANSWER: A and so on", None),
        ("number", "She has 3 + 4 = 7 apples.\n#### 1,234.50", "1234.5"),
        ("number", "so 16 - 4 is 12 dollars, $12.00", "12"),
        ("number", "it falls to -5", "-5"),
        ("number", "none", None),
        ("boxed", r"thus \boxed{1} or \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        ("boxed", r"thus \boxed{1", None),
        ("boxed", "thus 1", None),
    ],
)
def test_the_answer_is_read_by_the_benchmarks_rule(way: str, text: str, answer: str | None) -> None:
    assert extract(text, way) == answer


@given(st.integers(-(10**9), 10**9), st.sampled_from(["", ".0", ".00"]))
def test_a_number_is_the_same_however_it_is_written(value: int, tail: str) -> None:
    assert normal_number(f"{value:,}{tail}") == str(value)
    assert extract(f"#### {value:,}{tail}", "number") == normal(str(value), "number")
