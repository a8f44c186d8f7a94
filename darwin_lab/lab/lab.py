"""The lab's front desk: what the page and the shell ask for, and nothing about how it is done.

Takes parents, genomes and settings; gives views of what the store holds. A `request_...` or `start_...` only queues a
job and returns its id at once; a plain noun (`scan`, `score`, `run`, ...) only reads and returns None while there is
nothing to read yet. Neither waits for a model, so every method may be called from a page's handler. `wait` is for the
shell. One `Lab` a process and home; methods may be called from any thread.

Knows no widget and no arithmetic. Every method raises LabError (one line) on bad input.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darwin_lab.errors import LabError
from darwin_lab.evolution.settings import EvolutionSettings
from darwin_lab.lab import exporting, inheriting, pairs, planning, publishing, recipes, runs, scanning, scoring
from darwin_lab.lab.benchmarks import Benchmarks
from darwin_lab.lab.care import Care
from darwin_lab.lab.chat import Chat
from darwin_lab.lab.home import lab_home, make_home
from darwin_lab.lab.jobs import Jobs
from darwin_lab.lab.memory import MemoryChoice
from darwin_lab.lab.pairs import Pair
from darwin_lab.lab.planning import Look
from darwin_lab.lab.publishing import PushPlan, PushView
from darwin_lab.lab.saved_scans import SavedScans
from darwin_lab.lab.store import Store
from darwin_lab.lab.trials import Trials
from darwin_lab.lab.views import ExportView, JobView, RunView
from darwin_lab.lab.workbench import Workbench
from darwin_lab.progress import Tick, silent

if TYPE_CHECKING:
    from darwin_lab.checkpoint.checkpoint import Checkpoint
    from darwin_lab.engine.inherited import Inheritance
    from darwin_lab.genome.genome import Genome
    from darwin_lab.merging.prescription import Prescription
    from darwin_lab.merging.recipe import Recipe
    from darwin_lab.mri.contrast import Contrast
    from darwin_lab.mri.health_record import Health
    from darwin_lab.mri.languages import Languages
    from darwin_lab.mri.scan import Scan
    from darwin_lab.mri.static import StaticProfile
    from darwin_lab.scoring.score import Score


class Lab:
    """The facade. `home` defaults to `$DARWIN_LAB_HOME` or the user's data folder; `cpus` to those usable."""

    def __init__(self, home: str | Path | None = None, device: str = "cpu", cpus: int | None = None) -> None:
        self.store = Store(lab_home() if home is None else make_home(Path(home).expanduser()))
        self.jobs = Jobs(self.store)
        self.bench = Workbench(self.store, self.jobs, device, cpus)
        self.benchmarks = Benchmarks(self.bench)
        self.care = Care(self.bench)
        self.chat = Chat(self.bench)
        self.trials = Trials(self.bench)
        self.saved = SavedScans(self.bench)

    def close(self) -> None:
        """Cancel what runs, wait for it to let go, close the store. What was cancelled this way can be resumed."""
        self.jobs.close()
        self.bench.release_all()
        self.store.close()

    # ------------------------------------------------------------------------------------------------ parents

    def family_pair(self) -> Pair:
        """The embedded family: father, mother and ancestor with their own items and probes."""
        return self.open_pair("family:father", "family:mother", "family:ancestor")

    def open_pair(
        self,
        father: str | Path,
        mother: str | Path,
        ancestor: str | Path | None = None,
        *,
        items: Sequence[str | Path] = (),
        probes: str | Path | None = None,
        split_seed: int = 0,
        vocabulary: str = "same",
        experts: str = "numbered",
    ) -> Pair:
        """Open two parents (folder, Hub id, or family:NAME) and what they are measured with.

        Reads configs and headers only. A pair that cannot be merged still opens: `pair.checks` says why, and
        everything that needs a child raises LabError with the same words. `items` are JSONL files, split by
        `split_seed` unless their rows say otherwise; without them `pair.items_by_split` is None (the family brings
        its own). `probes` defaults to the family's own or the built-in set. With `vocabulary` "by-token" parents of
        unlike vocabularies are matched token by token, with `experts` "matched" (which reads stretches of every expert)
        each of the father's experts with the mother's most alike. The pair is remembered in the store.
        """
        pair = pairs.open_pair(father, mother, ancestor, items, probes, split_seed, vocabulary)
        return self.bench.remember(planning.matched(self.bench, pair, experts))

    def pair(self, key: str) -> Pair:
        """The pair with this key: open already, or opened again from what the store remembers.

        LabError where more of it must be read than a moment allows; `request_pair` does that.
        """
        return self.bench.pair(key)

    def request_pair(self, key: str) -> str | None:
        """Queue the reading of a pair that `pair` would refuse for its size; None where there is nothing to read."""
        return planning.request_pair(self.bench, key)

    def look(
        self,
        father: str | Path | Checkpoint,
        mother: str | Path | Checkpoint,
        ancestor: str | Path | Checkpoint | None = None,
        *,
        vocabulary: str = "same",
        operator: str = "lerp",
    ) -> Look:
        """What two parents are and what a merge would do and cost, from headers alone, for parents of any size.

        Nothing is opened, remembered or downloaded beyond configs, tokenizers and headers. The plan has no time yet:
        `engine.plan.timed` adds it.
        """
        return planning.look(self.bench, father, mother, ancestor, vocabulary, operator)

    def request_open(
        self,
        father: str | Path,
        mother: str | Path,
        ancestor: str | Path | None = None,
        *,
        items: Sequence[str | Path] = (),
        vocabulary: str = "same",
        experts: str = "numbered",
    ) -> str:
        """Queue `open_pair` for parents that take long to read, download or match; its result is {"pair": key}."""
        return planning.request_open(self.bench, father, mother, ancestor, items, vocabulary, experts)

    # ------------------------------------------------------------------------------------------------ MRI

    def request_scan(self, pair: Pair, *, again: bool = False, halves: bool = False) -> list[str]:
        """Queue what is missing of the MRI: father, mother, contrast, static profile. Ids of the jobs, in order.

        Nothing is done twice: parts that are in the store are left out (all of them when the list is empty), parts
        under way return the same job. `again` deletes the stored parts (of the chosen dtype) first. With `halves`
        attention and FFN of each layer are left out by themselves too, which takes about three times as long.
        """
        return scanning.request(self.bench, pair, again=again, halves=halves)

    def memory(self, pair: Pair) -> MemoryChoice:
        """How models of this pair are held in a scan: whole, or streamed a layer at a time where they do not fit."""
        return self.bench.memory(pair, dtype=self.bench.dtype(pair))

    def set_memory(self, pair: Pair, way: str) -> MemoryChoice:
        """Stream models of these parents "always", "never" or by free memory ("auto"), from now on."""
        return self.bench.set_memory(pair, way)

    def dtype(self, pair: Pair) -> str:
        """The dtype these parents are scanned in, "float32" unless another was chosen; see `set_dtype`."""
        return self.bench.dtype(pair)

    def set_dtype(self, pair: Pair, dtype: str) -> MemoryChoice:
        """Scan these parents and their children in "float32" or "bfloat16" from now on.

        It holds for scans, layer swaps, loops, health and mending, and so for what the MRI advises to whatever is asked
        for from now on. Each dtype is a measurement of its own: what was measured in the other stays and is found
        again. Scores, and the candidates of an evolution, are computed in float32 whatever is chosen.
        """
        return self.bench.set_dtype(pair, dtype)

    def with_probes(self, pair: Pair, source: str | Path | None) -> Pair:
        """The pair with other probes: those of a JSONL file (a `Path`), or pasted text (JSONL or `LABEL: text` lines).

        None brings back the probes it has by itself. Another probe set makes another pair: scans, runs and scores are
        kept with the probes they were made with. Reads no weights.
        """
        return planning.with_probes(self.bench, pair, source)

    def scan(self, pair: Pair, who: str) -> Scan | None:
        """The newest scan of "father", "mother" or a child (its recipe hash); partial while it is being made.

        `scan.probes` names the probes it holds so far; `pair.probes.texts` the probes it will hold.
        """
        return scanning.newest(self.bench, pair, who)

    def scan_is_complete(self, pair: Pair, who: str) -> bool:
        """True once that scan holds every probe of the pair."""
        return scanning.complete(self.bench, pair, who)

    def contrast(self, pair: Pair) -> Contrast | None:
        """The causal gain of swapping each layer, per probe; partial while it is being made (methods.md 2)."""
        return scanning.contrast(self.bench, pair)

    def static(self, pair: Pair) -> StaticProfile | None:
        """The static profile per tensor, or None until it was made."""
        return scanning.static(self.bench, pair)

    def prescription(self, pair: Pair, mode: str = "contrastive") -> Prescription | None:
        """What the scans advise, by one of `merging.prescription.MODES`; None until both scans (for "contrastive" the
        swaps too) are whole. LabError where these scans lack what a formula needs."""
        return scanning.prescription(self.bench, pair, mode)

    def advice(self, pair: Pair, wanted: str | None = None) -> Prescription | None:
        """The prescription with the hash `wanted`, of these scans or of earlier ones; without it, the present one."""
        return recipes.advice(self.bench, pair, wanted)

    # ------------------------------------------------------------------------------------------------ genome

    def advised_genome(
        self, pair: Pair, layout: str = "v6", mode: str = "contrastive", advice: Prescription | None = None,
        **options: Any,
    ) -> Genome:  # fmt: skip
        """The genome that `advice`, or else the present prescription by `mode`, translates to; the layout's neutral one
        while there is none.

        `options` are fields of Genome: seed, operator, reading, rescale, blocks, transplant (the V5 card's advice
        brings its own unless it is given).
        """
        told = scanning.prescription(self.bench, pair, mode) if advice is None else advice
        return runs.advised_genome(self.bench, pair, layout, told, options)

    def recipe(self, pair: Pair, genome: Genome) -> Recipe:
        """The child's recipe, one row a tensor; arithmetic only. It becomes known to the store by its hash.

        Uses the pair's prescription when the layout has mri_trust above 0 and the scans are there.
        """
        return recipes.recipe(self.bench, pair, genome)

    def recipe_of(self, pair: Pair, who: str) -> Recipe:
        """The recipe of "father" (ratio 0), "mother" (1), "blend" (.5), or of a recipe hash seen before."""
        return recipes.recipe_of(self.bench, pair, who)

    def genome_of(self, pair: Pair, recipe_hash: str) -> Genome | None:
        """The genome a known recipe came from; None for father, mother and blend."""
        return recipes.genome_of(self.bench, pair, recipe_hash)

    # ------------------------------------------------------------------------------------------------ score

    def request_score(self, pair: Pair, genome: Genome | str, split: str = "selection") -> str:
        """Queue the score of a genome, or of "father", "mother", "blend" or a recipe hash, on one split.

        Jumps the queue: it runs between the candidates of an evolution. `split` is "selection" or "validation";
        report items are only reached through `request_report`, which counts the look.
        """
        return scoring.request(self.bench, pair, recipes.resolve(self.bench, pair, genome), split)

    def score(self, pair: Pair, who: str, split: str = "selection") -> Score | None:
        """The stored score of "father", "mother", "blend" or a recipe hash on a whole split; None if there is none."""
        return scoring.stored(self.bench, pair, who, split)

    # ------------------------------------------------------------------------------------------------ evolution

    def start_evolution(self, pair: Pair, settings: EvolutionSettings | None = None) -> str:
        """Queue an evolution; its run id. With start "mri" it first makes whatever is missing of the scans."""
        return runs.start(self.bench, pair, settings or EvolutionSettings())

    def stop(self, run_id: str) -> None:
        """Stop a run after the batch it is at; what was scored stays, and `resume` goes on from there."""
        runs.stop(self.bench, run_id)

    def resume(self, run_id: str) -> str:
        """Continue a stopped, interrupted or failed run on the very same trajectory; the id of the new job."""
        return runs.resume(self.bench, run_id)

    def run(self, run_id: str) -> RunView:
        """Everything recorded about one run. LabError for an id that is not there."""
        return runs.view(self.bench, run_id)

    def runs(self, pair_key: str | None = None) -> list[RunView]:
        """All runs (of one pair), newest first, without candidates and generations."""
        return runs.views(self.bench, pair_key)

    # ------------------------------------------------------------------------------------------------ health

    def request_health(self, pair: Pair, genome: Genome | str) -> str:
        """Queue the scan of a child (a genome or a recipe hash) that its health is read from. Jumps the queue."""
        return scanning.request_child(self.bench, pair, recipes.resolve(self.bench, pair, genome))

    def health(self, pair: Pair, recipe_hash: str, **thresholds: float) -> Health | None:
        """The child beside its parents; None until all three scans are whole. Thresholds as in `check_health`."""
        return scanning.health(self.bench, pair, recipe_hash, thresholds)

    # ------------------------------------------------------------------------------------------------ report

    def request_report(self, pair: Pair, genome: Genome | str) -> str:
        """Queue the score of a child, its father, mother and .5 blend on report items. Counts one look."""
        return scoring.request_report(self.bench, pair, recipes.resolve(self.bench, pair, genome))

    def report(self, pair: Pair, recipe_hash: str) -> dict[str, Any] | None:
        """The report of a child, or None.

        {"recipe_hash", "genome_hash", "n", "looks", "surpasses_both", "sentence",
        "models": {"child" | "father" | "mother" | "blend": {"mean_acc", "mean_p_gold",
                   "benchmarks": {task: {"n", "acc", "acc_norm", "p_gold", "interval": [lo, hi], "chance"}}}},
        "tests": {"father" | "mother" | "blend": {"difference", "low", "high", "p", "n"}}} - child minus the other,
        unweighted mean over tasks of acc, stratified paired permutation; interval 95 %.
        """
        return self.store.report(pair.key, recipe_hash)

    def report_looks(self, pair: Pair) -> int:
        """How often a child of this pair was scored on report items."""
        return self.store.report_looks(pair.key)

    # ------------------------------------------------------------------------------------------------ export

    def request_export(
        self,
        pair: Pair,
        genome: Genome | str,
        out: str | Path | None = None,
        *,
        overwrite: bool = False,
        archive: bool | None = None,
        shard_size: int | None = None,
    ) -> str:
        """Queue the writing of a child as a checkpoint folder, to `out` or the lab's exports folder.

        `archive` also writes a zip of it beside the folder (default: only when `out` is None, for a page's download).
        `shard_size` in bytes, the father's shards by default. The model card says what was inherited. LabError at once
        if `out` exists and not `overwrite`.
        """
        target = None if out is None else Path(out).expanduser()
        packed = target is None if archive is None else archive
        child = recipes.resolve(self.bench, pair, genome)
        return exporting.request(self.bench, pair, child, target, overwrite, packed, shard_size)

    def export(self, pair: Pair, recipe_hash: str) -> ExportView | None:
        """The newest export of a child that is still on disk, or None."""
        return exporting.newest(self.bench, pair, recipe_hash)

    def request_push(
        self, pair: Pair, recipe_hash: str, repo: str, *, private: bool = True, visitor: str | None = None
    ) -> str:
        """Queue the push of a child's newest export to the Hub as `account/name`.

        `visitor` is the token of the page's visitor; without it the login of this machine is used, on a Space never.
        LabError at once without an export, a login or a proper name.
        """
        return publishing.request(self.bench, pair, recipe_hash, repo, private, publishing.users_token(visitor))

    def push_plan(self, pair: Pair, recipe_hash: str, repo: str, *, private: bool = True) -> PushPlan:
        """What `request_push` would upload: no network, no login. LabError without an export or a proper name."""
        return publishing.plan_push(publishing.export_of(self.bench, pair, recipe_hash).folder, repo, private=private)

    def pushed(self, pair: Pair, recipe_hash: str) -> PushView | None:
        """The newest push of a child from this machine, or None."""
        return publishing.pushed(self.bench, pair, recipe_hash)

    # ------------------------------------------------------------------------------------------------ inheritance

    def request_inheritance(self, pair: Pair, genome: Genome | str) -> str:
        """Queue the measurement of what a child has from whom, in its exported folder where there is one."""
        child = recipes.resolve(self.bench, pair, genome)
        kept = exporting.newest(self.bench, pair, child.hash)
        return inheriting.request(self.bench, pair, child, Path(kept.folder) if kept else None)

    def inheritance(self, pair: Pair, recipe_hash: str) -> Inheritance | None:
        """What was measured of a child, or None."""
        return inheriting.stored(self.bench, pair, recipes.recipe_of(self.bench, pair, recipe_hash))

    def request_languages(self, pair: Pair, genome: Genome | str) -> str:
        """Queue the reading of a dozen languages by a child and its parents. LabError for two tokenizers."""
        return inheriting.request_languages(self.bench, pair, recipes.resolve(self.bench, pair, genome))

    def languages(self, pair: Pair, recipe_hash: str) -> Languages | None:
        """The child's languages beside its parents'; None until all three have been read."""
        return inheriting.languages(self.bench, pair, recipes.recipe_of(self.bench, pair, recipe_hash))

    # ------------------------------------------------------------------------------------------------ jobs

    def job(self, job_id: str) -> JobView:
        """One job. LabError for an id that is not there."""
        return self.jobs.status(job_id)

    def active_jobs(self) -> list[JobView]:
        """Jobs that run or wait, in every process that uses this home: running first, then the queue in order."""
        return self.jobs.active()

    def ended_jobs(self) -> tuple[str, ...]:
        """Ids of the jobs of this process that are over, oldest first; also those too quick to be seen running."""
        return self.jobs.ended()

    def cancel(self, job_id: str) -> None:
        """Stop a job of this process at its next safe point; a queued one never starts. Over already: no effect."""
        self.jobs.cancel(job_id)

    def wait(self, job_id: str, tick: Tick = silent) -> Any:
        """Block until a job is over, passing its progress to `tick`; what it returned.

        LabError with the job's own words when it failed, `Cancelled` when it was stopped, RuntimeError for a fault of
        ours. Whatever `tick` raises cancels the job first.
        """
        return self.jobs.wait(job_id, tick)

    def check_id(self, value: str) -> str:
        """A run or job id as it came from an address bar: itself, or LabError if no id looks like that."""
        if not self.store.is_id(value):
            raise LabError("that is not the id of a run; choose one from the list of runs")
        return value
