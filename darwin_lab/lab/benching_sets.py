"""The benchmarks of a lab: the tasks of a pair's own items, files somebody added, and the Hub's catalogue.

Takes names, gives `Benchmark`s: their items by split, and a key that changes with every item. Reads files; downloads
only in `fetch`, which is for the worker. Knows no model.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from darwin_lab.errors import LabError
from darwin_lab.lab.benching_views import BenchmarkInfo
from darwin_lab.lab.pairs import Pair
from darwin_lab.scoring.items import SPLITS, Item, by_choice, items_hash


@dataclass(frozen=True, eq=False)
class Benchmark:
    """One benchmark with its items read: `items` by split. All are of one task, the benchmark's name."""

    name: str
    title: str
    source: str
    items: Mapping[str, list[Item]]
    licence: str = ""
    gated: bool = False
    note: str = ""
    max_new_tokens: int = 64
    _keys: dict[str, str] = field(default_factory=dict)

    def key(self, split: str) -> str:
        """12 hex digits of the split's items and how they are asked."""
        if split not in self._keys:
            told = f"{items_hash(self.items[split])}\n{self.max_new_tokens}"
            self._keys[split] = hashlib.sha256(told.encode()).hexdigest()[:12]
        return self._keys[split]

    def order(self, split: str) -> list[Item]:
        """The items in the order they are answered: passages drawn by a hash, so that any first part is a fair one."""
        return sorted(self.items[split], key=lambda item: hashlib.sha256(item.cluster.encode()).digest())

    @cached_property
    def look_key(self) -> str:
        """What looks at its report items are counted under, as `look_key`."""
        return look_key(self.items["report"])

    @cached_property
    def info(self) -> BenchmarkInfo:
        """What is shown of it."""
        every = [item for items in self.items.values() for item in items]
        choice = [item for item in every if by_choice(item)]
        chance = sum(1 / len(item.choices or ()) for item in every if item.choices) / len(every)
        kind = "choice" if len(choice) == len(every) else "generative"
        sizes = {split: len(self.items[split]) for split in SPLITS}
        return BenchmarkInfo(
            self.name, self.title, self.source, self.licence, chance, kind, len(every), sizes, self.gated, True,
            self.note,
        )  # fmt: skip


def of_pair(pair: Pair) -> dict[str, Benchmark]:
    """Each task of the pair's own items as a benchmark; none without items."""
    tasks: dict[str, dict[str, list[Item]]] = {}
    for split, items in (pair.items_by_split or {}).items():
        for item in items:
            tasks.setdefault(item.task, {name: [] for name in SPLITS})[split].append(item)
    return {
        task: Benchmark(task, task, "pair", items, note="of the parents' own items") for task, items in tasks.items()
    }


def look_key(items: Sequence[Item]) -> str:
    """What looks at these items are counted under: questions, choices and answers, whatever file, benchmark, pair or
    id they go by."""
    return items_hash(
        [replace(item, id=repr((item.question, item.choices, item.answer)), task="", meta={}) for item in items]
    )


def as_one(name: str, items: Mapping[str, list[Item]]) -> dict[str, list[Item]]:
    """The items under one task, `name`; what their task was becomes their category where they have none."""
    return {
        split: [replace(item, task=name, meta={"category": item.task, **item.meta}) for item in items.get(split, [])]
        for split in SPLITS
    }


def require_items(benchmark: Benchmark, split: str) -> list[Item]:
    """The items of a split. LabError for an unknown split or one without items."""
    if split not in SPLITS:
        raise LabError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    if not benchmark.items[split]:
        filled = [name for name in SPLITS if benchmark.items[name]]
        raise LabError(f"benchmark {benchmark.name} has no {split} items; it has {' and '.join(filled)} items")
    return benchmark.items[split]
