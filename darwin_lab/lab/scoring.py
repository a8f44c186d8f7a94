"""Scores as lab work: what was scored stays in the store, item by item, and is never computed twice.

A score is named by pair, recipe and items. Report items are only ever scored here for a report, which is counted.
"""

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from darwin_lab.errors import LabError
from darwin_lab.evolution.report import make_report
from darwin_lab.lab import recipes
from darwin_lab.lab.pairs import Pair
from darwin_lab.lab.workbench import Workbench
from darwin_lab.merging.recipe import Recipe
from darwin_lab.progress import Tick, part
from darwin_lab.scoring.items import by_choice
from darwin_lab.scoring.score import Score, from_rows, join_scores

if TYPE_CHECKING:
    from darwin_lab.engine.resident import Resident
    from darwin_lab.scoring.choice import ChoicePlan

OPEN_SPLITS = ("selection", "validation")
BESIDE = ("father", "mother", "blend")


def request(bench: Workbench, pair: Pair, recipe: Recipe, split: str) -> str:
    """Queue one score; see `Lab.request_score`."""
    if split not in OPEN_SPLITS:
        raise LabError(f"items of split {split!r} are not scored freely; choose {' or '.join(OPEN_SPLITS)}")
    pair.items(split)
    pair.require_mergeable()

    def work(tick: Tick) -> dict[str, Any]:
        score = score_recipes(bench, pair, [recipe], split, None, tick)[0]
        return {"recipe_hash": recipe.hash, "split": split, "n": score.n, "mean_acc": score.mean_acc}

    key = f"score:{pair.key}:{recipe.hash}:{split}"
    return bench.jobs.submit("score", f"Score of {recipe.hash} on {split} items", work, key=key, interactive=True)


def stored(bench: Workbench, pair: Pair, who: str, split: str) -> Score | None:
    """The score of "father", "mother", "blend" or a recipe hash on all items of a split, or None."""
    recipe_hash = recipes.recipe_of(bench, pair, who).hash if who in BESIDE else who
    if pair.items_by_split is None:
        return None
    key = ("score", pair.key, recipe_hash, split)
    if key not in bench.loaded:
        rows = bench.store.score_rows(pair.key, recipe_hash, items_key(_ids(pair, split)))
        if rows is None:
            return None
        bench.loaded[key] = from_rows(rows)
    return bench.loaded[key]  # type: ignore[no-any-return]


def request_report(bench: Workbench, pair: Pair, recipe: Recipe) -> str:
    """Queue a report; see `Lab.request_report`."""
    pair.items("report")
    pair.require_mergeable()

    def work(tick: Tick) -> dict[str, Any]:
        models = {"child": recipe, **{who: recipes.recipe_of(bench, pair, who) for who in BESIDE}}
        found = score_recipes(bench, pair, list(models.values()), "report", None, tick)
        scores = dict(zip(models, found, strict=True))
        row = bench.store.recipe_row(pair.key, recipe.hash) or {}
        report = make_report(scores, recipe.hash, row.get("genome_hash") or "")
        bench.store.put_report(pair.key, recipe.hash, report)
        return {"recipe_hash": recipe.hash, "sentence": report["sentence"]}

    key = f"report:{pair.key}:{recipe.hash}"
    return bench.jobs.submit("report", f"Report of child {recipe.hash}", work, key=key, interactive=True)


def score_recipes(
    bench: Workbench, pair: Pair, made: Sequence[Recipe], split: str, ids: Sequence[str] | None, tick: Tick
) -> list[Score]:
    """Score recipes on a split, or on some of its items, as many at once as there are lanes; stored ones are read.

    Only for the worker thread. Interactive jobs are let in before every wave. A score made with another number of
    threads is made again: within a run all scores come from one setting.
    """
    wanted = tuple(ids) if ids is not None else _ids(pair, split)
    key, threads = items_key(wanted), bench.threads(pair)
    scores: dict[str, Score] = {}
    for recipe in made:
        rows = bench.store.score_rows(pair.key, recipe.hash, key, threads)
        if rows is not None:
            scores[recipe.hash] = from_rows(rows)
    todo = list({recipe.hash: recipe for recipe in made if recipe.hash not in scores}.values())

    def work(recipe: Recipe, place: str, share: Tick) -> Score:
        share(0.0, f"scoring {recipe.hash}")
        resident = bench.resident(pair, bench.child(pair, recipe), place)
        score = _score(bench, pair, resident, split, wanted, share)
        bench.store.put_score(pair.key, recipe.hash, key, split, score.to_rows(), threads)
        return score

    lanes = bench.lanes(pair)
    for start in range(0, len(todo), lanes):
        bench.jobs.yield_point()
        wave = todo[start : start + lanes]
        bench.prepare(pair, pair.father, len(wave))
        share = part(tick, start / len(todo), (start + len(wave)) / len(todo))
        found = bench.side_by_side([partial(work, recipe) for recipe in wave], share)
        scores.update({recipe.hash: score for recipe, score in zip(wave, found, strict=True)})
    tick(1.0, "scored")
    return [scores[recipe.hash] for recipe in made]


def _score(
    bench: Workbench, pair: Pair, resident: "Resident", split: str, wanted: tuple[str, ...], tick: Tick
) -> Score:
    """Choices by log-likelihood, the others by generation, together in the order wanted."""
    by_id = {item.id: item for item in pair.items(split)}
    with_choices = [name for name in wanted if by_choice(by_id[name])]
    generated = [by_id[name] for name in wanted if not by_choice(by_id[name])]
    if not generated:
        return _plan(bench, pair, resident, split).score(resident, subset=wanted, tick=tick)
    from darwin_lab.scoring.asking import score_generation

    share = len(with_choices) / len(wanted)
    parts = [score_generation(resident, generated, tick=part(tick, share, 1.0))]
    if with_choices:
        plan = _plan(bench, pair, resident, split)
        parts.append(plan.score(resident, subset=with_choices, tick=part(tick, 0.0, share)))
    return join_scores(parts, wanted)


def _plan(bench: Workbench, pair: Pair, resident: "Resident", split: str) -> "ChoicePlan":
    """The batch plan of a split, made once: every candidate of every run is scored with the same one."""
    from darwin_lab.scoring.choice import ChoicePlan

    with bench.planning:
        if (pair.key, split) not in bench.plans:
            items = [item for item in pair.items(split) if by_choice(item)]
            bench.plans[pair.key, split] = ChoicePlan(items, resident.tokenizer)
        return bench.plans[pair.key, split]


def _ids(pair: Pair, split: str) -> tuple[str, ...]:
    return tuple(item.id for item in pair.items(split))


def items_key(ids: Sequence[str]) -> str:
    """What rows of these items, of one pair, are stored under."""
    return hashlib.sha256("\n".join(ids).encode("utf-8", "surrogatepass")).hexdigest()[:12]
