"""The benchmark desk: models x benchmarks, scored item by item, and what may be said of the result.

Takes names of models and benchmarks, gives views of what the store holds. `request` queues one job a model; every
other method reads. Rows are visible while a job makes them. Report items are sealed: each request counts one look per
benchmark, kept by what the items are, not by a name. Knows no widget. Every method raises LabError (one line) on bad
input.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darwin_lab.errors import LabError
from darwin_lab.lab import benching_export, benching_files, benching_hub, benching_models, benching_sets
from darwin_lab.lab.benching_models import BESIDE, PARENTS, Target
from darwin_lab.lab.benching_rows import Rows, Stamps
from darwin_lab.lab.benching_sets import Benchmark
from darwin_lab.lab.benching_views import BenchmarkInfo, BenchRow, CategoryRow, ModelChoice, Reference
from darwin_lab.progress import Tick, part
from darwin_lab.scoring import vigour
from darwin_lab.scoring.items import SPLITS, Item
from darwin_lab.scoring.leaks import Leak, find_leaks
from darwin_lab.statistics.equivalence import Equivalence, tost_paired
from darwin_lab.statistics.paired import smallest_gap
from darwin_lab.statistics.proportion import wilson

if TYPE_CHECKING:
    from darwin_lab.lab.pairs import Pair
    from darwin_lab.lab.workbench import Workbench
    from darwin_lab.scoring.fields import FieldGuess
    from darwin_lab.scoring.score import Score
    from darwin_lab.scoring.vigour import Complementarity, VigourRow

REPORT = "report"


class Benchmarks:
    """The desk of one lab; `Lab.benchmarks`. Methods may be called from any thread."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._rows = Rows(bench)
        self._sets: dict[str, dict[str, Benchmark]] = {}
        self._under_way: dict[tuple[str, str, str, str], str] = {}
        self._at: dict[tuple[str, str, str], str] = {}
        self._errors: dict[tuple[str, str, str, str], str] = {}

    # ------------------------------------------------------------------------------------------------ what there is

    def catalogue(self, pair: Pair) -> list[BenchmarkInfo]:
        """Every benchmark this pair may be scored on: its own tasks, added files, then the Hub's. A file that was added
        under the name of one of the tasks has another name here, and its note says so."""
        own = [benchmark.info for benchmark in self._own(pair).values()]
        files = benching_files.infos(self._bench, self._own(pair))
        taken = {info.name for info in (*own, *files)}
        return [*own, *files, *(info for info in benching_hub.infos(self._bench) if info.name not in taken)]

    def shown(self, info: BenchmarkInfo) -> bool:
        """Whether the page may show the benchmark's items: gated ones stay hidden."""
        return not info.gated

    def guess_fields(self, path: str | Path, fields: Mapping[str, str | Sequence[str]] | None = None) -> FieldGuess:
        """Which columns of a JSONL, CSV or parquet file are what, with its first items read so, and what is wrong.

        `fields` (role -> column or columns) takes the place of the guess: its first items, read as told.
        """
        from darwin_lab.scoring.fields import guess_fields

        return guess_fields(path, fields)

    def add_file(
        self,
        path: str | Path,
        fields: Mapping[str, str | Sequence[str]] | None = None,
        name: str | None = None,
        pair: Pair | None = None,
    ) -> BenchmarkInfo:
        """Add a local file as a benchmark; `fields` (role -> column or columns) defaults to the guess.

        A copy is kept in the lab's home, so the file may go; the very same file again changes nothing. LabError that
        names line or item of what is wrong, and for a name that a benchmark of the Hub, another file, or a task of
        `pair` or of any pair this desk has shown has.
        """
        shown = [*self._sets.values(), *([self._own(pair)] if pair is not None else [])]
        taken = {task for own in shown for task in own}
        return benching_files.add(self._bench, Path(path).expanduser(), fields, name, taken).info

    def forget_file(self, name: str) -> None:
        """Take an added file out of the catalogue. Its scores stay. LabError when no file has that name."""
        benching_files.forget(self._bench, name)

    def models(self, pair: Pair, at_hand: str | None = None) -> list[ModelChoice]:
        """Father, mother, blend, the child `at_hand` (a recipe hash), finalists of runs, exports, added folders."""
        return benching_models.choices(self._bench, pair, at_hand)

    def add_folder(self, pair: Pair, path: str | Path) -> ModelChoice:
        """Remember another model beside this pair. LabError when the folder holds no checkpoint."""
        return benching_models.add_folder(self._bench, pair, path)

    # ------------------------------------------------------------------------------------------------ running

    def request(
        self,
        pair: Pair,
        models: Sequence[str],
        benchmarks: Sequence[str],
        *,
        split: str = "selection",
        limit: int | None = None,
    ) -> list[str]:
        """Queue models x benchmarks on one split, one job a model; the ids of the jobs, in order.

        `limit`: only so many items of each benchmark, the same ones for every model. Items answered before are not
        asked again. Split "report" counts one look per benchmark, once its items are here. A job goes on after a
        benchmark that cannot be answered and fails at its end with the first one's words.
        """
        if not models or not benchmarks:
            raise LabError("choose at least one model and one benchmark")
        if limit is not None and limit < 1:
            raise LabError(f"{limit} items of each benchmark; give 1 or more")
        if split not in SPLITS:
            raise LabError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
        found = {name: self._known(pair, name) for name in benchmarks}
        here = [known for known in found.values() if known is not None]
        for known in here:
            benching_sets.require_items(known, split)
        targets = [benching_models.target(self._bench, pair, key) for key in dict.fromkeys(models)]
        uncounted: set[str] = set()
        if split == REPORT:
            uncounted = {name for name, known in found.items() if known is None}
            for known in here:
                self._count_look(known)
        return [self._submit(pair, target, tuple(found), split, limit, uncounted) for target in targets]

    def _submit(
        self, pair: Pair, target: Target, names: tuple[str, ...], split: str, limit: int | None, uncounted: set[str]
    ) -> str:
        def work(tick: Tick) -> dict[str, Any]:
            return self._work(pair, target, names, split, limit, uncounted, tick)

        told = hashlib.sha256("\n".join(names).encode("utf-8", "surrogatepass")).hexdigest()[:12]
        key = f"bench:{pair.key}:{target.key}:{split}:{told}:{limit}"
        title = f"{target.label} on {names[0] if len(names) == 1 else f'{len(names)} benchmarks'}, {split} items"
        job = self._bench.jobs.submit("benchmark", title, work, key=key, interactive=True)
        self._bench.store.put_note("benched", pair.key, target.key, target.label)
        for name in names:
            self._bench.store.put_note("asked", pair.key, name, True)
            self._under_way[pair.key, target.key, name, split] = job
            self._errors.pop((pair.key, target.key, name, split), None)
        return job

    def _count_look(self, benchmark: Benchmark) -> None:
        self._bench.store.count_note("look", benchmark.look_key, "")

    def _work(
        self, pair: Pair, target: Target, names: tuple[str, ...], split: str, limit: int | None, uncounted: set[str],
        tick: Tick,
    ) -> dict[str, Any]:  # fmt: skip
        """One job; the first of a request that has the items of an `uncounted` benchmark counts the look."""
        stored_as = target.learn(part(tick, 0.0, 0.02))
        tick(0.02, f"loading {target.label}")
        asked, failed = 0, {}
        resident = None
        for place, name in enumerate(names):
            self._at[pair.key, target.key, split] = name
            share = part(tick, 0.02 + 0.98 * place / len(names), 0.02 + 0.98 * (place + 1) / len(names))
            try:
                benchmark = self._fetched(pair, name, share)
                benching_sets.require_items(benchmark, split)
                if name in uncounted:
                    uncounted.discard(name)
                    self._count_look(benchmark)
                resident = resident or target.load()
                asked += self._rows.answer(pair, stored_as, resident, benchmark, split, limit, share)
            except LabError as error:
                failed[name] = str(error)
                self._errors[pair.key, target.key, name, split] = str(error)
        if failed:
            name, words = next(iter(failed.items()))
            raise LabError(f"{name}: {words}")
        tick(1.0, "scored")
        return {"model": target.key, "benchmarks": list(names), "split": split, "asked": asked}

    # ------------------------------------------------------------------------------------------------ reading

    def table(self, pair: Pair, split: str = "selection") -> list[BenchRow]:
        """One row a model and benchmark: the parents, the blend and every model that was ever asked, on the pair's own
        tasks and every other benchmark that was ever asked for."""
        keys = [*(BESIDE if pair.compatible else PARENTS)]
        keys += [key for key in self._bench.store.notes("benched", pair.key) if key not in keys]
        targets = [found for key in keys if (found := self._target(pair, key)) is not None]
        asked, stamps = self._bench.store.notes("asked", pair.key), self._rows.stamps(pair)
        return [
            self._row(pair, target, info, split, stamps)
            for info in self.catalogue(pair)
            if info.source == "pair" or info.name in asked
            for target in targets
        ]

    def _row(self, pair: Pair, target: Target, info: BenchmarkInfo, split: str, stamps: Stamps) -> BenchRow:
        place = (pair.key, target.key, info.name, split)
        state = self._state(place)
        error = self._errors.get(place, "")
        n = info.splits.get(split)
        score = self._score(pair, target, self._known(pair, info.name), split, stamps) if info.cached else None
        if score is None:
            return BenchRow(target.key, info.name, n, state=state, note=error)
        bench = score.benchmarks()[info.name]
        state = "done" if state == "none" or bench.n == n else state
        partial = f"{bench.n} of {n} items" if state == "done" and bench.n != n else ""
        return BenchRow(
            target.key, info.name, n, bench.n, bench.acc, bench.acc_norm, bench.p_gold, bench.interval, bench.chance,
            bench.corrected, bench.invalid, state, error or partial,
        )  # fmt: skip

    def score(self, pair: Pair, model: str, benchmark: str, split: str = "selection") -> Score | None:
        """The answers so far of one model, item by item; None before the first."""
        return self._score(pair, self._target(pair, model), self._known(pair, benchmark), split)

    def items(self, pair: Pair, benchmark: str, split: str = "selection") -> list[Item]:
        """The items of a benchmark that is on this machine. LabError for report items nobody was scored on yet, and
        on a Space for gated ones: a visitor's browser is another machine."""
        known = self._here(pair, benchmark)
        if known.gated and os.environ.get("SPACE_ID"):
            raise LabError(f"the items of {benchmark} are gated and not shown on a Space; open the lab on your machine")
        if split == REPORT and not self.looks(pair, benchmark):
            raise LabError(f"report items of {benchmark} are sealed until a model is scored on them; each look counts")
        return list(benching_sets.require_items(known, split))

    def categories(self, pair: Pair, model: str, benchmark: str, split: str = "selection") -> list[CategoryRow]:
        """A model's accuracy by category of the items it answered, in the order the categories first appear."""
        score, known = self.score(pair, model, benchmark, split), self._known(pair, benchmark)
        if score is None or known is None:
            return []
        category = {item.id: item.category for item in known.items[split]}
        right: dict[str, list[bool]] = {}
        for name, acc in zip(score.ids, score.acc.tolist(), strict=True):
            right.setdefault(category[name], []).append(acc)
        return [
            CategoryRow(name, len(rows), sum(rows) / len(rows), wilson(sum(rows), len(rows)))
            for name, rows in right.items()
        ]

    def vigour(self, pair: Pair, child: str, split: str = "selection") -> list[VigourRow]:
        """A child against both parents, a row for each benchmark all three have answers to."""
        scores = {}
        for info in (info for info in self.catalogue(pair) if info.cached):
            found = [self.score(pair, key, info.name, split) for key in (child, *PARENTS)]
            if all(score is not None for score in found):
                scores[info.name] = (found[0], found[1], found[2])
        return vigour.vigour_rows(scores, report=split == REPORT, split=split)  # type: ignore[arg-type]

    def equivalence(
        self, pair: Pair, model: str, other: str, benchmark: str, split: str = "selection", margin: float = 0.05
    ) -> Equivalence | None:
        """Whether two models are alike on a benchmark to within `margin` of accuracy, by TOST; None without two common
        passages or items."""
        scores = [self.score(pair, key, benchmark, split) for key in (model, other)]
        found = vigour.common([score for score in scores if score is not None])
        if len(found) < 2 or len(set(found[0].clusters)) < 2:
            return None
        return tost_paired(found[0].acc.astype(float) - found[1].acc, margin, found[0].clusters)

    def complementarity(self, pair: Pair, benchmark: str, split: str = "selection") -> Complementarity | None:
        """What father and mother know apart, and what the plain blend makes of it; None until both have answers."""
        father, mother, blend = (
            self.score(pair, key, benchmark, split) if key != "blend" or pair.compatible else None for key in BESIDE
        )
        return None if father is None or mother is None else vigour.complementarity(father, mother, blend)

    # ------------------------------------------------------------------------------------------------ beside it

    def references(self, benchmark: str) -> list[Reference]:
        """Published rows of a benchmark, oldest first, each marked as unpaired and checked for impossible counts."""
        rows = self._bench.store.notes("reference", benchmark)
        return [benching_export.reference(name, **row) for name, row in rows.items()]

    def add_reference(self, benchmark: str, name: str, acc: str | float, n: int, source: str) -> Reference:
        """Keep a published score, `acc` in percent with the digits it was printed with ("90.0").

        LabError for what is no percentage, no number of items, or has neither name nor source.
        """
        if not name.strip() or not source.strip():
            raise LabError("a published row needs the model's name and a source, such as its card or paper")
        made = benching_export.reference(name.strip(), str(acc).strip(), n, source.strip())
        row = {"acc": str(acc).strip(), "n": n, "source": source.strip()}
        self._bench.store.put_note("reference", benchmark, name.strip(), row)
        return made

    def forget_reference(self, benchmark: str, name: str) -> None:
        """Take a published row away."""
        self._bench.store.forget_note("reference", benchmark, name)

    def smallest_gap(self, n: int, acc: float = 0.5) -> float:
        """The smallest difference, as a share, that n items show four times in five between models that err
        independently, around the accuracy `acc`."""
        return smallest_gap(n, acc)

    def leaks(self, pair: Pair, benchmark: str | None = None) -> list[Leak]:
        """Items of the pair's own splits (or of one benchmark's) that are alike, passages torn apart between splits,
        and items that stand in the pair's probes. Compares every text when first asked, which takes seconds for
        thousands of items: call it in a job; the result is kept. LabError for items that are not on this machine."""
        splits, key = pair.items_by_split or {}, "all"
        if benchmark is not None:
            known = self._here(pair, benchmark)
            splits, key = known.items, "-".join(known.key(split) for split in SPLITS)
        found = self._bench.store.notes("leaks", pair.key).get(key)
        if found is None:
            found = [asdict(leak) for leak in find_leaks(splits, pair.probes.texts)]
            self._bench.store.put_note("leaks", pair.key, key, found)
        return [Leak(**leak) for leak in found]

    def looks(self, pair: Pair, benchmark: str) -> int:
        """How often these very report items were asked for, under any name and beside any pair: here, by the shell's
        `score --split report`, and by reports of every pair that was shown here with them as its own. 0 for items that
        are not on this machine."""
        known, store = self._known(pair, benchmark), self._bench.store
        if known is None or not known.items[REPORT]:
            return 0
        reports = sum(store.report_looks(key) for key in store.notes("own", known.look_key))
        return int(store.notes("look", known.look_key).get("", 0)) + reports

    def export(self, pair: Pair, split: str, form: str) -> str:
        """The table of a split as "csv", "json" or "markdown" (a model card's); no item's text is in any of them."""
        return benching_export.export(self, pair, split, form)

    # ------------------------------------------------------------------------------------------------ finding

    def _own(self, pair: Pair) -> dict[str, Benchmark]:
        if pair.key not in self._sets:
            self._sets[pair.key] = own = benching_sets.of_pair(pair)
            for benchmark in own.values():
                if benchmark.items[REPORT]:
                    self._bench.store.put_note("own", benchmark.look_key, pair.key, True)
        return self._sets[pair.key]

    def _known(self, pair: Pair, name: str) -> Benchmark | None:
        """The benchmark of this name with its items; None when they are not here yet. LabError for no such name."""
        found = self._own(pair).get(name) or benching_files.find(self._bench, name)
        return found or benching_hub.cached(self._bench, name)

    def _here(self, pair: Pair, name: str) -> Benchmark:
        known = self._known(pair, name)
        if known is None:
            raise LabError(f"the items of {name} are not on this machine yet; run it once, which downloads them")
        return known

    def _fetched(self, pair: Pair, name: str, tick: Tick) -> Benchmark:
        return self._known(pair, name) or benching_hub.fetch(self._bench, name, tick)

    def _target(self, pair: Pair, key: str) -> Target | None:
        """The model, or None when it is gone: its rows cannot be named then."""
        try:
            return benching_models.target(self._bench, pair, key)
        except LabError:
            return None

    def _score(
        self, pair: Pair, target: Target | None, benchmark: Benchmark | None, split: str, stamps: Stamps | None = None
    ) -> Score | None:
        if target is None or target.stored_as is None or benchmark is None or not benchmark.items.get(split):
            return None
        return self._rows.score(pair, target.stored_as, benchmark, split, stamps)

    def _state(self, place: tuple[str, str, str, str]) -> str:
        """Of a benchmark: a job that is at another one has it in its queue."""
        job = self._under_way.get(place)
        state = self._bench.jobs.status(job).state if job is not None else "none"
        pair_key, model, benchmark, split = place
        if state == "running":
            return "running" if self._at.get((pair_key, model, split)) == benchmark else "queued"
        return "queued" if state == "queued" else "none"
