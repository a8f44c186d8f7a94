"""The items the verb `score` asks: files of any table, or benchmarks of the Hub's catalogue."""

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from darwin_lab.errors import LabError
from darwin_lab.lab.benching_sets import look_key
from darwin_lab.lab.home import lab_home
from darwin_lab.lab.pairs import FAMILY_ITEMS
from darwin_lab.lab.store import Store
from darwin_lab.progress import Tick
from darwin_lab.scoring import hub
from darwin_lab.scoring.catalogue import Entry, entry
from darwin_lab.scoring.fields import guess_fields, is_own_file, parse_fields, read_items
from darwin_lab.scoring.items import Item, load_items

NEW_TOKENS = 64


@dataclass(frozen=True)
class Given:
    """The items, what --json says of where they come from, the same in words, and the tokens an answer may take."""

    items: list[Item]
    data: dict[str, Any]
    words: list[str]
    max_new_tokens: int = NEW_TOKENS


def given_items(arguments: argparse.Namespace, tick: Tick) -> Given:
    """What --benchmark or --items name; the family's selection items for a member without either.

    LabError for flags that contradict each other and for whatever cannot be read or fetched.
    """
    if arguments.benchmark and (arguments.items or arguments.fields):
        raise LabError("--benchmark brings its own items; leave out --items and --fields")
    if arguments.fields and not arguments.items:
        raise LabError("--fields says how --items FILE is read; give a file")
    if arguments.benchmark:
        return _of_benchmarks([entry(name) for name in dict.fromkeys(arguments.benchmark)], arguments, tick)
    if arguments.split is not None:
        raise LabError("--split is a part of a --benchmark; files of items are answered whole")
    if not arguments.items and not (arguments.model or "").startswith("family:"):
        raise LabError(
            "no items; give --items FILE (JSONL, CSV or parquet; the README has the format) or --benchmark NAME "
            "(`benchmarks` lists them)"
        )
    files: list[Path] = arguments.items or [FAMILY_ITEMS / "selection.jsonl"]
    if not arguments.fields and all(is_own_file(path) for path in files):
        return Given(load_items(files), {}, [])
    fields = parse_fields(arguments.fields) if arguments.fields else None
    return _of_files(files, fields)


def solved_items(arguments: argparse.Namespace, items: Sequence[Item]) -> list[Item]:
    """What --shots-from holds, read as --items are: the lab's own JSONL as it is, any other table by --fields.

    A row is called by its place in a file of the same name as that of the items: it then gets an id of its own.
    """
    path: Path = arguments.shots_from
    if is_own_file(path):
        return load_items(path)
    asked = {item.id: item.question for item in items}
    found = read_items(path, parse_fields(arguments.fields) if arguments.fields else None)
    return [
        item if asked.get(item.id, item.question) == item.question else replace(item, id=f"shot {item.id}")
        for item in found
    ]


def _of_files(files: Sequence[Path], fields: dict[str, str | list[str]] | None) -> Given:
    items: list[Item] = []
    homes: dict[str, Path] = {}
    words, data = [], {}
    for path in files:
        for item in read_items(path, fields):
            if item.id in homes:
                raise LabError(f"{path}: id {item.id!r} was already used in {homes[item.id]}; give every item its own")
            homes[item.id] = path
            items.append(item)
        if fields is not None or not is_own_file(path):
            guess = guess_fields(path, fields)
            told = ", ".join(f"{role}={_joined(column)}" for role, column in guess.fields.items())
            how = f"; answers read as {guess.answers}" if guess.answers else ""
            words += [f"{path.name}: {told}{how}", *(f"{path.name}: {note}" for note in guess.notes)]
            data[str(path)] = {**guess.fields, "answers": guess.answers, "notes": list(guess.notes)}
    return Given(items, {"fields": data} if data else {}, words)


def _of_benchmarks(chosen: Sequence[Entry], arguments: argparse.Namespace, tick: Tick) -> Given:
    split = arguments.split or "selection"
    home = lab_home()
    items: list[Item] = []
    words, data = [], {}
    keys = {}
    for one in chosen:
        loaded, revision = hub.load(one, home / "hub", tick)
        keys[one.name] = look_key(loaded.items[split])
        part = [replace(item, task=one.name) for item in loaded.items[split]]
        if arguments.limit is not None:
            part.sort(key=lambda item: hashlib.sha256(item.cluster.encode()).digest())
        items += part
        left = f"; {loaded.left_out}" if loaded.left_out else ""
        words.append(f"{one.name}: {one.repo} at {revision[:12]}, {split} items, {one.licence}; {one.prompt}{left}")
        data[one.name] = {"repo": one.repo, "revision": revision, "split": split, "licence": one.licence}
    if split == "report":
        for one in chosen:
            data[one.name]["looks"] = looks = _count_look(home, keys[one.name])
            words.append(f"report items of {one.name}: look {looks} in this lab")
    most = max(one.max_new_tokens for one in chosen)
    return Given(items, {"sources": data}, words, most)


def _count_look(home: Path, key: str) -> int:
    """Counts where the page does, by what the items are; every look at them so far."""
    store = Store(home)
    try:
        store.count_note("look", key, "")
        return int(store.notes("look", key)[""])
    finally:
        store.close()


def _joined(column: str | Sequence[str]) -> str:
    return column if isinstance(column, str) else ",".join(column)
