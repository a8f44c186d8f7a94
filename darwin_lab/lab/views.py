"""What the page and the shell read about work that is queued, running or over.

Plain frozen records made from rows of the store. They hold numbers and words only: no model, no connection, no
thread, so they may be kept, compared (`==` tells whether anything changed) and turned into JSON.
"""

from dataclasses import dataclass, field
from typing import Any

from darwin_lab.evolution.settings import EvolutionSettings

OPEN_STATES = ("queued", "running")


@dataclass(frozen=True)
class JobView:
    """One job.

    state     queued, running, done, failed, cancelled, or interrupted (its process died)
    fraction  share done in [0, 1]; message says at what it is
    eta_seconds  time left, None while nothing can be said
    error     one line when failed; "internal error" when it was a fault of ours, whose traceback is in the log
    internal  True for such a fault
    result    what the work returned, as JSON (None until done)
    """

    id: str
    kind: str
    title: str
    state: str
    fraction: float = 0.0
    message: str = ""
    eta_seconds: float | None = None
    error: str | None = None
    internal: bool = False
    result: Any = None
    created: float = 0.0
    started: float | None = None
    finished: float | None = None

    @property
    def open(self) -> bool:
        """True while the job waits or runs."""
        return self.state in OPEN_STATES


@dataclass(frozen=True)
class RunView:
    """One evolution as recorded so far.

    state       queued, running, finished, stopped (by somebody), failed, interrupted (its process died; resume it)
    phase       queued, scan, controls, search, validation, report, done
    candidates  one dict each, in the order scored: index, generation, genes {name: value}, genome_hash, recipe_hash,
                fitness (mean over tasks of mean p_gold on the generation's items), items (how many), full (True when
                it met all selection items), full_fitness (None unless so), tasks {task: {n, acc, p_gold}},
                mean_acc, seconds, created
    generations one dict each: generation, best, mean, worst (of fitness), sigma, best_so_far (of full_fitness),
                father, mother, blend (the controls on the same items), items, evaluated (candidates so far),
                improved (paired improvement on the best before), seconds
    controls    {"father" | "mother" | "blend" | opt-in ones: {recipe_hash, fitness, mean_acc, tasks, n}} on all
                selection items
    result      None until the search is over, then {"stopped": "budget" | "patience" | "converged",
                "top": [{index, recipe_hash, genome_hash, selection, validation, validation_acc, pick}, ...],
                "pick": {index, recipe_hash, genome_hash, genome (JSON), selection, validation},
                "report": report dict of `Lab.report` or None}
    start       {"genes": {...}, "stds": {...}, "frozen": {gene: why}} the search began from
    fraction, eta_seconds, message  as in JobView, for the whole run
    """

    id: str
    pair_key: str
    state: str
    phase: str
    settings: EvolutionSettings
    candidates: list[dict[str, Any]] = field(default_factory=list)
    generations: list[dict[str, Any]] = field(default_factory=list)
    controls: dict[str, dict[str, Any]] = field(default_factory=dict)
    result: dict[str, Any] | None = None
    start: dict[str, Any] | None = None
    fraction: float = 0.0
    eta_seconds: float | None = None
    message: str = ""
    error: str | None = None
    job_id: str | None = None
    title: str = ""
    threads: int | None = None
    evaluated: int = 0
    best: float | None = None
    created: float = 0.0
    updated: float = 0.0

    @property
    def open(self) -> bool:
        """True while the run waits or runs."""
        return self.state in OPEN_STATES


@dataclass(frozen=True)
class ExportView:
    """One exported child: its recipe, the folder that was written, the zip beside it (None when not asked for)."""

    id: str
    pair_key: str
    recipe_hash: str
    genome_hash: str
    folder: str
    archive: str | None
    bytes: int
    created: float
