"""Which token is which row: vocabularies read from tokenizer files, and two of them matched by token.

Takes opened checkpoints, gives tables of rows. Knows tokenizer files and, of tensors, how many rows a table of tokens
has; reads no weights.
"""

import math
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from darwin_lab.checkpoint.anatomy import classify
from darwin_lab.checkpoint.checkpoint import Checkpoint, read_json
from darwin_lab.errors import LabError

VOCABULARIES = ("same", "by-token")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
_TABLES = (("text", "embedding"), ("text", "lm_head"))
TOKENS_FILE = "tokens.json"
"""Beside a child whose parents were matched by token: which tokens met and which did not."""


@dataclass(frozen=True)
class TokenMatch:
    """Two vocabularies side by side: tokens both have rows of, the father's others and those only the other names.

    The father's others include tokens that the other names without a row in its tables; each in order of its number.
    """

    shared: int
    only_father: tuple[str, ...]
    only_other: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """{"merged": n, "fathers_alone": [tokens], "mothers_lost": [tokens]}: what `TOKENS_FILE` holds."""
        return {
            "merged": self.shared,
            "fathers_alone": list(self.only_father),
            "mothers_lost": list(self.only_other),
        }


def check_vocabulary(vocabulary: str) -> None:
    """Raises `LabError` when `vocabulary` is no way of matching two vocabularies."""
    if vocabulary not in VOCABULARIES:
        raise LabError(f"unknown vocabulary {vocabulary!r}; choose {' or '.join(VOCABULARIES)}")


def tokenizer_file(checkpoint: Checkpoint) -> Path | None:
    """The file that says which token is which row; None when the checkpoint has none."""
    return next((path for name in TOKENIZER_FILES if (path := checkpoint.folder / name).is_file()), None)


def vocabulary(checkpoint: Checkpoint) -> dict[str, int] | None:
    """Token to row; None when there is no tokenizer file or it is not JSON. Raises `LabError` for a broken one."""
    path = tokenizer_file(checkpoint)
    return None if path is None or path.suffix != ".json" else _read(str(path), path.stat().st_mtime_ns)


def match_tokens(father: Checkpoint, other: Checkpoint) -> TokenMatch:
    """What matching by token finds. Raises `LabError` when a vocabulary cannot be read or nothing is shared."""
    mine, theirs = _required(father), _required(other)
    rows, other_rows = _table_rows(father), _table_rows(other)
    shared = {token for token in mine.keys() & theirs.keys() if mine[token] < rows and theirs[token] < other_rows}
    if not shared:
        raise LabError(f"{father.name} and {other.name} share no token; they cannot be matched by token")
    return TokenMatch(len(shared), _without(mine, shared), _without(theirs, mine.keys()))


def vocabulary_report(father: Checkpoint, other: Checkpoint) -> tuple[str, str, bool]:
    """(words for the father, words for the other, whether tokens and their rows are the same).

    Parents without a tokenizer file to read are compared by the number of rows, and the words say so.
    """
    sizes = [checkpoint.text_config.get("vocab_size", "?") for checkpoint in (father, other)]
    mine, theirs = (f"{size} rows" for size in sizes)
    if sizes[0] != sizes[1]:
        return mine, theirs, False
    files = [tokenizer_file(checkpoint) for checkpoint in (father, other)]
    contents = [file.read_bytes() if file else None for file in files]
    if contents[0] is not None and contents[0] == contents[1]:
        return mine, theirs, True
    tables = vocabulary(father), vocabulary(other)
    if tables[0] is not None and tables[1] is not None:
        differing = len(set(tables[0].items()) ^ set(tables[1].items()))
        return mine, f"{theirs}, {(differing + 1) // 2} tokens differ" if differing else theirs, not differing
    if None not in contents and tables == (None, None):
        return mine, f"{theirs}, another {TOKENIZER_FILES[1]}", False
    unread = ["" if table else " (no tokenizer.json)" for table in tables]
    return mine + unread[0], f"{theirs}{unread[1]}: compared by size only", True


def token_rows(father: Checkpoint, other: Checkpoint, rows: int, other_rows: int) -> NDArray[np.int64]:
    """[rows] for each row of the father's table the other's row of the same token; -1 where there is none.

    Rows beyond the tokenizer (padding of the table) belong to no token and are -1. Raises `LabError` when a vocabulary
    cannot be read.
    """
    mine, theirs = _required(father), _required(other)
    found = np.full(rows, -1, dtype=np.int64)
    for token, row in mine.items():
        there = theirs.get(token, other_rows)
        if 0 <= row < rows and 0 <= there < other_rows:
            found[row] = there
    return found


def _table_rows(checkpoint: Checkpoint) -> float:
    """The rows that the embedding and the head both have; a token numbered beyond them has none."""
    roles = {name: classify(name) for name in checkpoint.tensors if not name.endswith("wpe.weight")}
    shapes = [checkpoint.tensors[name].shape for name, role in roles.items() if role in _TABLES]
    return min((shape[0] for shape in shapes if shape), default=math.inf)


def _without(tokens: dict[str, int], shared: AbstractSet[str]) -> tuple[str, ...]:
    return tuple(sorted(tokens.keys() - shared, key=tokens.__getitem__))


def _required(checkpoint: Checkpoint) -> dict[str, int]:
    tokens = vocabulary(checkpoint)
    if not tokens:
        raise LabError(f"{checkpoint.folder} has no tokenizer.json to match tokens by; copy it beside the weights")
    return tokens


@lru_cache(maxsize=16)
def _read(path: str, mtime_ns: int) -> dict[str, int]:
    """Token to row; `mtime_ns` is in the key so that a changed file is read again."""
    data: Any = read_json(Path(path))
    try:
        if "model" not in data:
            return {token: int(row) for token, row in data.items()}
        listed = data["model"].get("vocab", {})
        named = {entry[0]: row for row, entry in enumerate(listed)} if isinstance(listed, list) else dict(listed)
        return {**named, **{token["content"]: token["id"] for token in data.get("added_tokens") or ()}}
    except (AttributeError, KeyError, TypeError, ValueError, IndexError):
        raise LabError(f"{path} is no tokenizer file; copy the model's own beside the weights") from None
