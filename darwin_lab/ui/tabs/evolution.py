"""The Evolution tab: start, stop and resume a run, watch it live, and take any candidate out of it.

Takes settings and the genome at hand; gives the selected run and candidate. What is drawn is what the store recorded.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from darwin_lab.errors import LabError
from darwin_lab.evolution.settings import STARTS, EvolutionSettings
from darwin_lab.genome.genome import neutral_genome
from darwin_lab.genome.layouts import LAYOUTS
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.lab.views import RunView
from darwin_lab.ui import words
from darwin_lab.ui.components.chart import chart_card
from darwin_lab.ui.components.data_table import Column, Row, data_table, mark, table_value
from darwin_lab.ui.components.genome_editor import genes_from
from darwin_lab.ui.figures.evolution_curve import evolution_curve
from darwin_lab.ui.figures.style import nothing, plural
from darwin_lab.ui.session import (
    AT_ONCE,
    PICKED,
    QUIET,
    RunChoice,
    Shared,
    duration,
    facts,
    genome_at_hand,
    guarded,
    lead,
    pair_of,
    say,
    to_load,
)
from darwin_lab.ui.tabs.genome import LAYOUT_WORDS, NO_PAIR
from darwin_lab.ui.tabs.genome_views import advice_of, operator_choices

DEFAULTS = EvolutionSettings()
START_WORDS = {
    "mri": "The MRI's advice",
    "neutral": "Neutral genome",
    "random": "Random genome",
    "genome": "The genome in the editor",
}
STATE_SIGN = {"finished": True, "failed": False}
NO_RUN = "No run chosen. Set a budget and press “Start evolution”; the curve grows as each child is scored."


def build(shared: Shared, editor: gr.HTML, evolve: gr.Button) -> None:
    """Put the tab's components on the page and wire them; `evolve` is the Genome tab's "Evolve from here"."""
    lab = shared.lab
    gr.HTML(lead("Evolution", "CMA-ES breeds children, each scored for real on selection items of every skill."))
    with gr.Row(elem_classes=["dl-row"]):
        with gr.Column(scale=3, min_width=280):
            with gr.Column(elem_classes=["dl-card"]):
                gr.HTML("<h3>Settings</h3>")
                start_from = gr.Radio(
                    [(START_WORDS[n], n) for n in STARTS], value="mri", label="Start from", elem_id="evo_start"
                )
                advised_by = gr.Dropdown(
                    [(name, mode) for mode, name in words.ADVICE_WORDS.items()], value=DEFAULTS.prescription,
                    label="The MRI advises by", elem_id="evo_advised_by",
                    info="For a start from its advice, or from an editor that trusts it",
                )  # fmt: skip
                layout = gr.Dropdown(
                    [(LAYOUT_WORDS[n], n) for n in LAYOUTS], value="v6", label="Layout", elem_id="evo_layout"
                )
                with gr.Row(elem_classes=["dl-tight"]):
                    budget = _number(DEFAULTS.budget, "Budget, candidates", "evo_budget", 110, precision=0)
                    seed = _number(0, "Seed", "evo_seed", 90, precision=0)
                with gr.Accordion("More settings", open=False, elem_id="evo_more"):
                    operator = gr.Dropdown(
                        operator_choices("v6", has_ancestor=True),
                        value="lerp",
                        label="Operator",
                        elem_id="evo_operator",
                    )
                    with gr.Row(elem_classes=["dl-tight"]):
                        sigma = _number(DEFAULTS.sigma0, "First step σ", "evo_sigma", 100)
                        patience = _number(DEFAULTS.patience, "Patience", "evo_patience", 100, precision=0)
                    with gr.Row(elem_classes=["dl-tight"]):
                        popsize = _number(0, "Population (0 = auto)", "evo_popsize", 100, precision=0)
                        per_task = _number(
                            DEFAULTS.items_per_task, "Items a skill (0 = all)", "evo_items", 100, precision=0
                        )
                    report = gr.Checkbox(
                        True,
                        label="Score the pick and its parents on report items at the end (one look)",
                        elem_id="evo_report",
                    )
                go = gr.Button("Start evolution", variant="primary", elem_id="evo_go")
                with gr.Row(elem_classes=["dl-tight"]):
                    stop = gr.Button("Stop", interactive=False, elem_id="evo_stop", min_width=80)
                    resume = gr.Button("Resume", interactive=False, elem_id="evo_resume", min_width=80)
            with gr.Column(elem_classes=["dl-card"]):
                gr.HTML("<h3>Runs of this pair</h3>")
                runs = data_table("run_list", label="Runs", pick=True, height=260)
        with gr.Column(scale=9, min_width=480):
            with gr.Column(elem_classes=["dl-card"]):
                state = gr.HTML(say(NO_RUN), elem_id="evo_facts")
            curve = chart_card("evolution_curve", "Fitness, live", words.EVOLUTION, empty=NO_RUN, height=380)
            with gr.Column(elem_classes=["dl-card"]):
                with gr.Row(elem_classes=["dl-tight"]):
                    chosen = gr.HTML("<h3>Candidates</h3>", elem_id="candidate_head")
                    take = gr.Button(
                        "Load into Genome",
                        size="sm",
                        interactive=False,
                        elem_id="candidate_load",
                        scale=0,
                        min_width=150,
                    )
                    check = gr.Button(
                        "Check its health",
                        size="sm",
                        interactive=False,
                        elem_id="candidate_health",
                        scale=0,
                        min_width=150,
                    )
                candidates = data_table(
                    "candidate_table", label="Candidates", pick=True, search=True, height=380, empty=NO_RUN
                )

    settings = [layout, operator, budget, seed, sigma, popsize, start_from, per_task, patience, report, advised_by]

    @guarded
    def begin(pair_key: str, at_hand: dict[str, Any] | None, payload: Any, *picked: Any) -> Any:
        pair = pair_of(lab, pair_key)
        if pair is None:
            raise LabError(NO_PAIR)
        wanted = settings_from(pair, at_hand, payload, picked)
        run = lab.start_evolution(pair, wanted)
        return {"run": run, "candidate": None}

    go.click(begin, [shared.pair, shared.genome, editor, *settings], shared.run, **QUIET)

    @guarded
    def halt(chosen_run: RunChoice) -> Any:
        if not chosen_run["run"]:
            raise LabError("no run is chosen; pick one in the list of runs")
        lab.stop(chosen_run["run"])
        return gr.Button(interactive=False)

    stop.click(halt, shared.run, stop, **QUIET)

    @guarded
    def go_on(chosen_run: RunChoice) -> Any:
        if not chosen_run["run"]:
            raise LabError("no run is chosen; pick one in the list of runs")
        lab.resume(chosen_run["run"])
        return gr.Button(interactive=False)

    resume.click(go_on, shared.run, resume, **QUIET)

    @guarded
    def from_here(pair_key: str, at_hand: dict[str, Any] | None) -> Any:
        pair = pair_of(lab, pair_key)
        if pair is None:
            raise LabError(NO_PAIR)
        genome = genome_at_hand(pair, at_hand)
        gr.Info("Locked genes will keep their value. Press “Start evolution”.", title="Evolution", duration=5)
        advice = advice_of(lab, pair, genome)
        way = advice.mode if advice else DEFAULTS.prescription
        return gr.Tabs(selected="evolution"), "genome", way, genome.layout, genome.operator

    form = [start_from, advised_by, layout, operator]
    evolve.click(from_here, [shared.pair, shared.genome], [shared.tabs, *form], **QUIET)

    def show(pair_key: str, chosen_run: RunChoice) -> list[Any]:
        pair = pair_of(lab, pair_key)
        listed = runs_table(lab, pair, chosen_run["run"])
        off = gr.Button(interactive=False)
        run = run_of(lab, chosen_run)
        if run is None:
            idle = table_value((), (), empty=NO_RUN)
            return [listed, say(NO_RUN), nothing(NO_RUN).wire(), idle, "<h3>Candidates</h3>", off, off, off, off]
        picked = candidate_of(run, chosen_run["candidate"])
        title = "<h3>Candidates</h3>" if picked is None else f"<h3>Candidate {picked['index']}</h3>"
        has = gr.Button(interactive=picked is not None)
        return [
            listed,
            run_facts(run),
            evolution_curve(
                run.generations,
                run.candidates,
                {who: row["fitness"] for who, row in run.controls.items() if row.get("fitness") is not None},
                items=next((row["n"] for row in run.controls.values() if row.get("n")), 0),
                chosen=chosen_run["candidate"],
            ).wire(),
            candidate_table(run, chosen_run["candidate"]),
            title,
            gr.Button(interactive=run.open),
            gr.Button(interactive=run.state in ("stopped", "interrupted", "failed")),
            has,
            has,
        ]

    shown = [runs, state, curve, candidates, chosen, stop, resume, take, check]
    for change in (shared.run_stamp.change, shared.run.change):
        change(show, [shared.pair, shared.run], shown, **AT_ONCE)

    def pick_run(event: gr.EventData) -> RunChoice:
        return {"run": str(event._data["id"]), "candidate": None}

    runs.select(pick_run, None, shared.run, **PICKED)

    def pick_row(chosen_run: RunChoice, event: gr.EventData) -> RunChoice:
        return {**chosen_run, "candidate": int(event._data["id"])}

    candidates.select(pick_row, shared.run, shared.run, **PICKED)

    def pick_point(chosen_run: RunChoice, event: gr.EventData) -> Any:
        at = event._data.get("customdata")
        return {**chosen_run, "candidate": int(at)} if isinstance(at, int) else gr.skip()

    curve.select(pick_point, shared.run, shared.run, **PICKED)

    def load(pair_key: str, chosen_run: RunChoice, tab: str) -> Any:
        pair, run = pair_of(lab, pair_key), run_of(lab, chosen_run)
        picked = candidate_of(run, chosen_run["candidate"]) if run else None
        if pair is None or run is None or picked is None:
            raise LabError("choose a candidate in the table or on the curve first")
        genome = lab.genome_of(pair, picked["recipe_hash"])
        if genome is None:
            asked = run.settings
            base = neutral_genome(asked.layout, pair.anatomy.layers, blocks=asked.blocks, **asked.choices())
            genome = base.with_genes(**picked["genes"])
        return to_load(genome, f"candidate:{run.id}:{picked['index']}"), gr.Tabs(selected=tab)

    @guarded
    def to_genome(pair_key: str, chosen_run: RunChoice) -> Any:
        return load(pair_key, chosen_run, "genome")

    @guarded
    def to_health(pair_key: str, chosen_run: RunChoice) -> Any:
        return load(pair_key, chosen_run, "health")

    take.click(to_genome, [shared.pair, shared.run], [shared.load, shared.tabs], **QUIET)
    check.click(to_health, [shared.pair, shared.run], [shared.load, shared.tabs], **QUIET)


def settings_from(
    pair: Pair, at_hand: dict[str, Any] | None, payload: Any, picked: tuple[Any, ...]
) -> EvolutionSettings:
    """Settings from the form; starting from the editor takes its genes, and its locks become frozen genes."""
    layout, operator, budget, seed, sigma, popsize, start, per_task, patience, report, advised_by = picked
    genome = genome_at_hand(pair, at_hand)
    genes, locked = genes_from(payload, genome.layout_of(pair.anatomy.layers))
    from_editor = start == "genome"
    if from_editor and genome.layout != layout:
        raise LabError(f"the editor holds a {genome.layout} genome; choose layout {genome.layout} or another start")
    chosen: dict[str, Any] = {}
    if from_editor:
        same = ("reading", "rescale", "transplant", "experts", "router", "blocks", "pinned")
        chosen = {name: getattr(genome, name) for name in same} | {"start_genes": genes, "frozen": locked}
        chosen["options"] = genome.options if genome.operator == operator else {}
    return EvolutionSettings(
        layout=layout,
        operator=operator,
        budget=_whole("budget", budget),
        seed=_whole("seed", seed),
        sigma0=float(sigma or 0),
        popsize=_whole("population", popsize) or None,
        start=start,
        items_per_task=_whole("items a skill", per_task),
        patience=_whole("patience", patience),
        report=bool(report),
        prescription=advised_by,
        **chosen,
    )


def run_of(lab: Lab, chosen_run: RunChoice) -> RunView | None:
    """The selected run, None when there is none or it is gone."""
    if not chosen_run["run"]:
        return None
    try:
        return lab.run(chosen_run["run"])
    except LabError:
        return None


def candidate_of(run: RunView, index: int | None) -> dict[str, Any] | None:
    """The candidate with that index."""
    return next((row for row in run.candidates if row["index"] == index), None)


def runs_table(lab: Lab, pair: Pair | None, chosen: str | None) -> dict[str, Any]:
    """Runs of the pair, newest first, failed ones last."""
    if pair is None:
        return table_value((), (), empty=NO_PAIR)
    found = sorted(lab.runs(pair.key), key=lambda run: run.state == "failed")
    rows = [
        Row(
            run.id,
            (
                f"{run.settings.layout} · seed {run.settings.seed}",
                mark(STATE_SIGN.get(run.state), run.state),
                f"{run.evaluated} / {run.settings.budget}",
                run.best,
            ),
        )
        for run in found
    ]
    columns = (Column("run"), Column("state", "mark"), Column("scored", "number"), Column("best", "number", 4))
    return table_value(columns, rows, chosen=chosen, empty="No run yet for this pair.")


def run_facts(run: RunView) -> str:
    """State, progress and the lead over the better parent."""
    rows = [("state", run.state if not run.open else run.phase, run.error or run.message)]
    rows.append(
        ("candidates", f"{len(run.candidates)} / {run.settings.budget}", plural(len(run.generations), "generation"))
    )
    scored = [row["full_fitness"] for row in run.candidates if row.get("full_fitness") is not None]
    parents = {who: run.controls[who]["fitness"] for who in ("father", "mother") if who in run.controls}
    if scored:
        rows.append(("best", f"{max(scored):.4f}", "fitness, all selection items"))
    if parents:
        better = max(parents, key=lambda who: parents[who])
        rows.append(("better parent", f"{parents[better]:.4f}", better))
        if scored:
            rows.append(("lead", f"{max(scored) - parents[better]:+.4f}", "fitness over that parent"))
    if run.open and run.eta_seconds is not None:
        rows.append(("time left", duration(run.eta_seconds), ""))
    if run.result and run.result.get("pick"):
        rows.append(("final pick", f"candidate {run.result['pick']['index']}", f"stopped by {run.result['stopped']}"))
    return facts(rows)


def candidate_table(run: RunView, chosen: int | None) -> dict[str, Any]:
    """Candidates, best first; those that met all selection items above the others."""
    pick = run.result["pick"]["index"] if run.result and run.result.get("pick") else None
    tasks = sorted({task for row in run.candidates for task in row.get("tasks", {})})
    ordered = sorted(
        run.candidates, key=lambda r: (r.get("full_fitness") is None, -(r.get("full_fitness") or r["fitness"]))
    )
    rows = [
        Row(
            str(row["index"]),
            (
                f"{row['index']}{' · final pick' if row['index'] == pick else ''}",
                row["generation"],
                row["fitness"],
                row["items"],
                row.get("full_fitness"),
                row.get("mean_acc"),
                *(row.get("tasks", {}).get(task, {}).get("acc") for task in tasks),
                row["recipe_hash"],
            ),
            "child" if row["index"] == pick else "",
        )
        for row in ordered
    ]
    columns = (
        Column("candidate"),
        Column("generation", "number"),
        Column("fitness", "bar", 4, "Mean over skills of p(gold) on the items it met"),
        Column("items", "number"),
        Column("on all items", "number", 4, "Fitness on all selection items; the best of a generation meet them"),
        Column("mean accuracy", "number", 3),
        *(Column(task.lower(), "number", 3) for task in tasks),
        Column("child", "code"),
    )
    words_ = "The parents are scored first, then the candidates arrive one by one."
    return table_value(columns, rows, chosen=None if chosen is None else str(chosen), empty=words_)


def _whole(what: str, value: Any) -> int:
    if value is None or isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise LabError(f"{what} is {value!r}; give a whole number")
    return int(value)


def _number(value: float, label: str, elem_id: str, min_width: int, precision: int | None = None) -> gr.Number:
    return gr.Number(value, label=label, elem_id=elem_id, min_width=min_width, precision=precision)
