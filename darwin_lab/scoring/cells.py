"""What a cell of a table says: the choices it holds, and which of them an answer names.

Takes cells as `tables` reads them, gives texts, labels and places. Knows neither columns nor items.
"""

import ast
import json
import re
from collections.abc import Sequence
from string import ascii_uppercase
from typing import Any

ANSWERS = ("label", "text", "letter", "number from 0", "number from 1")
"""How an answer names a choice: by the label beside it, by its very text, by its letter, or by its place."""

_LETTER = re.compile(r"^\W*([A-Za-z])\W*$")


def choices_in(value: Any) -> tuple[list[str], list[str]] | None:
    """(texts, labels) of a cell that holds the choices: a list of texts, {"text": [...], "label": [...]}, a list of
    such pairs, {"A": text, ...}, or a text that spells one of these; None for anything else."""
    if isinstance(value, str):
        value = _spelled(value)
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        labels = value.get("label", [])
        return [text_of(text) for text in value["text"]], [str(label) for label in labels]
    if isinstance(value, dict) and value and all(not isinstance(text, list | dict) for text in value.values()):
        return [text_of(text) for text in value.values()], [str(label) for label in value]
    if isinstance(value, list) and value and all(isinstance(entry, dict) and "text" in entry for entry in value):
        return [text_of(entry["text"]) for entry in value], [str(entry.get("label", "")) for entry in value]
    if isinstance(value, list) and value and not any(isinstance(entry, list | dict) for entry in value):
        return [text_of(entry) for entry in value], []
    return None


def _spelled(text: str) -> Any:
    if not text.strip().startswith(("[", "{")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def place_of(answer: Any, texts: Sequence[str], labels: Sequence[str], way: str) -> int | None:
    """The choice an answer names when read in one way, or None."""
    spoken = text_of(answer).strip()
    if way == "label":
        return labels.index(spoken) if spoken and spoken in labels else None
    if way == "text":
        plain = [text.strip() for text in texts]
        return plain.index(spoken) if spoken in plain and not isinstance(answer, int) else None
    if way == "letter":
        match = _LETTER.match(spoken)
        place = ascii_uppercase.index(match[1].upper()) if match else len(texts)
    else:
        whole = re.fullmatch(r"(\d{1,3})(\.0)?", spoken)
        place = int(whole[1]) - (way == "number from 1") if whole else len(texts)
    return place if 0 <= place < len(texts) else None


def text_of(value: Any) -> str:
    """A cell as text; nothing for an empty one."""
    return "" if value is None else str(value)
