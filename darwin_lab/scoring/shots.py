"""Few-shot prompts: solved items before the question.

Takes items and a pool of solved ones, gives the items with their shots written into `meta`, so that whoever reads
the item reads the same prompt. Knows nothing about tokenizers or models.
"""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from darwin_lab.errors import LabError
from darwin_lab.scoring.items import Item
from darwin_lab.scoring.prompt import context_of, target_of

SEED = 1234
"""What lm-evaluation-harness draws its shots with unless told otherwise."""


def with_shots(
    items: Sequence[Item], pool: Sequence[Item], count: int, *, seed: int = SEED, same: bool = False
) -> list[Item]:
    """The items, each after `count` solved items of its own task from `pool` (of any task where its own has none).

    `meta.prefix` gets the shots' text, `meta.shots` their ids. By default every item draws shots of its own, as
    lm-evaluation-harness 0.4.13 does: one `random.Random(seed)` a task goes through the items in their order, and
    where the pool holds items that are asked, one more is drawn and the item itself left out. With `same` all items
    of a task follow the same shots, which then run once for all of them. An item never follows itself or an item
    with its question. Raises LabError when the pool is too small.
    """
    if count < 0:
        raise LabError(f"{count} shots; give 0 or more")
    if count == 0:
        return list(items)
    asked = {item.id for item in items}
    pools: dict[str, list[Item]] = {}
    draws: dict[str, Random] = {}
    fixed: dict[str, list[Item]] = {}
    result = []
    for item in items:
        own = pools.setdefault(item.task, [other for other in pool if other.task == item.task] or list(pool))
        rng = draws.setdefault(item.task, Random(seed))
        spare = int(any(other.id in asked for other in own))
        if len(own) < count + spare:
            raise LabError(
                f"task {item.task!r} has {len(own)} items to draw {count} shots from; give more items or fewer shots"
            )
        if same:
            drawn = fixed.setdefault(item.task, rng.sample(own, min(len(own), 2 * count)))
        else:
            drawn = rng.sample(own, count + spare)
        shots = [shot for shot in drawn if not _alike(shot, item)][:count]
        if len(shots) < count:
            rest = [shot for shot in own if not _alike(shot, item)]
            if len(rest) < count:
                raise LabError(f"item {item.id!r} finds no {count} other items to follow; give more items")
            shots = rng.sample(rest, count)
        result.append(replace(item, meta={**item.meta, "prefix": _text(shots), "shots": [shot.id for shot in shots]}))
    return result


def _alike(shot: Item, item: Item) -> bool:
    return shot.id == item.id or shot.question == item.question


def _text(shots: Sequence[Item]) -> str:
    return "".join(f"{context_of(shot)}{shot.meta.get('delimiter', ' ')}{target_of(shot)}\n\n" for shot in shots)
