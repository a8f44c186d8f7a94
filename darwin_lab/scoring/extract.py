"""The answer in what a model wrote, by the benchmark's own rule.

Takes text, gives an answer or None where the model never answered. Knows nothing about models.
"""

import re

EXTRACTIONS = ("line", "letter", "number", "boxed")
"""`line` the first line (ours); `letter` GPQA's last "ANSWER: LETTER" line; `number` GSM8K's number after ####, else
the last number; `boxed` the last \\boxed{...}."""
_LETTER = re.compile(r"^\W*answer\s*(?:is)?\s*:?\W*\(?([A-Za-z])\)?\W*$", re.IGNORECASE | re.MULTILINE)
_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?|-?\$?\.\d+")
_MARKED = re.compile(r"####\s*(-?\$?[\d,]*\.?\d+)")
_THINKING = re.compile(r"\A(?:(?!<think>).)*</think>|<think>.*?(?:</think>|\Z)", re.DOTALL)


def extract(text: str, way: str) -> str | None:
    """The answer, normalised: a letter in capitals, a number without commas, signs of money or trailing zeros.

    Text between <think> and </think>, closed or not, is no answer, nor is what stands before a </think> that the
    prompt opened. None when nothing is left to read.
    """
    spoken = _THINKING.sub("", text)
    if way == "line":
        return spoken.strip().split("\n", 1)[0].strip() or None
    if way == "letter":
        letters = _LETTER.findall(spoken)
        return letters[-1].upper() if letters else None
    if way == "number":
        found = _MARKED.findall(spoken) or _NUMBER.findall(spoken)
        return normal_number(found[-1]) if found else None
    return _boxed(spoken)


def normal(answer: str, way: str) -> str:
    """A right answer in the form `extract` gives."""
    return normal_number(answer) if way == "number" else answer.strip()


def normal_number(text: str) -> str:
    """ "1,200.50" -> "1200.5"; a text that is no number stays as it is."""
    plain = text.replace(",", "").replace("$", "").strip()
    if not re.fullmatch(r"-?\d*\.?\d+", plain):
        return text.strip()
    sign, digits = ("-", plain[1:]) if plain.startswith("-") else ("", plain)
    whole, _, fraction = digits.partition(".")
    fraction = fraction.rstrip("0")
    value = (whole.lstrip("0") or "0") + (f".{fraction}" if fraction else "")
    return value if value == "0" else sign + value


def _boxed(text: str) -> str | None:
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    begin = start + len("\\boxed{")
    depth = 1
    for place in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[begin:place].strip() or None
    return None
