"""One evolution from its first control to its report: CMA-ES over genes, scored for real, written down as it happens.

Takes a `Problem` (how to score, where to start), `EvolutionSettings` and a `Journal`; gives the result. Candidates
already in the journal are not scored again: the search is told their recorded fitness and must ask for the same genes
again, so a resumed run is the same run. Knows no model, no file and no clock but the seconds a candidate took.

Fitness = unweighted mean over tasks of the mean p(gold) on selection items, rounded to 1e-6 before the optimiser sees
it. Patience, final pick on validation items and the sealed report are those of methods.md sections 7 and 8.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from darwin_lab.evolution.controls import score_controls
from darwin_lab.evolution.fitness import fitness_of
from darwin_lab.evolution.generations import run_search, search_of
from darwin_lab.evolution.problem import Journal, Problem
from darwin_lab.evolution.report import make_report
from darwin_lab.evolution.settings import EvolutionSettings
from darwin_lab.evolution.workload import Workload, planned_items
from darwin_lab.progress import Tick, silent
from darwin_lab.scoring.score import Score


@dataclass(frozen=True)
class EvolutionResult:
    """Why the search stopped, the candidates of the final pick, the pick and its report (see RunView.result)."""

    stopped: str
    top: tuple[dict[str, Any], ...]
    pick: dict[str, Any]
    report: dict[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"stopped": self.stopped, "top": list(self.top), "pick": self.pick, "report": self.report}


def evolve(problem: Problem, settings: EvolutionSettings, journal: Journal, tick: Tick = silent) -> EvolutionResult:
    """Run, or resume, an evolution to its end.

    A `Cancelled` out of `tick` passes through; everything scored until then is in the journal. LabError when the
    recorded candidates are not those of these settings.
    """
    work = Workload(planned_items(problem, settings, search_of(problem, settings).popsize), tick)
    journal.phase("controls")
    controls = score_controls(problem, settings, journal, work)
    journal.phase("search")
    stopped, rows = run_search(problem, settings, journal, work, controls)
    journal.phase("validation")
    top, pick = _final_pick(problem, settings, rows, work)
    report = None
    if settings.report and problem.ids("report"):
        journal.phase("report")
        report = _report(problem, pick, work)
        journal.look(pick["recipe_hash"], report)
    journal.phase("done")
    return EvolutionResult(stopped, tuple(top), pick, report)


def _final_pick(
    problem: Problem, settings: EvolutionSettings, rows: Sequence[Mapping[str, Any]], work: Workload
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The best distinct candidates, scored again on validation items; the best of these is the pick."""
    distinct: dict[str, Mapping[str, Any]] = {}
    complete = [row for row in rows if row["full_fitness"] is not None]
    for row in sorted(complete, key=lambda row: (-row["full_fitness"], row["index"])):
        distinct.setdefault(row["recipe_hash"], row)
    chosen = list(distinct.values())[: settings.final_top]
    recipes = [problem.recipe_of(problem.genome_of(row["genes"])) for row in chosen]
    scores: list[Score | None] = [None] * len(chosen)
    if problem.ids("validation"):
        scores = [*work.score(problem, recipes, "validation", None, "best candidates on validation items")]
    top = [
        {
            **{name: row[name] for name in ("index", "recipe_hash", "genome_hash")},
            "selection": row["full_fitness"],
            "validation": None if score is None else fitness_of(score),
            "validation_acc": None if score is None else score.mean_acc,
            "pick": False,
        }
        for row, score in zip(chosen, scores, strict=True)
    ]
    best = max(top, key=lambda entry: (entry["validation"] or 0.0, entry["selection"], -entry["index"]))
    best["pick"] = True
    genes = next(row["genes"] for row in rows if row["index"] == best["index"])
    kept = {name: best[name] for name in ("index", "recipe_hash", "genome_hash", "selection", "validation")}
    return top, {**kept, "genome": problem.genome_of(genes).to_json()}


def _report(problem: Problem, pick: Mapping[str, Any], work: Workload) -> dict[str, Any]:
    child = problem.recipe_of(problem.genome_of(pick["genome"]["genes"]))
    models = {"child": child, **{name: problem.controls[name] for name in ("father", "mother", "blend")}}
    found = work.score(problem, list(models.values()), "report", None, "child, parents and blend on report items")
    return make_report(dict(zip(models, found, strict=True)), pick["recipe_hash"], pick["genome_hash"])
