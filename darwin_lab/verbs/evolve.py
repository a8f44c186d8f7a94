"""The verb `evolve`: a search for a child, its record and its final pick."""

import argparse
import json
from pathlib import Path

from darwin_lab.checkpoint.checkpoint import read_json
from darwin_lab.engine.export import check_target
from darwin_lab.errors import LabError
from darwin_lab.evolution.settings import EvolutionSettings, settings_from_json
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import MATCHED, NUMBERED, Pair, lasting_ref
from darwin_lab.lab.views import RunView
from darwin_lab.progress import Tick, part
from darwin_lab.verbs.common import Result, asking_for_shorter_probes

RUN_FILE = "run.json"


def run(arguments: argparse.Namespace, tick: Tick) -> Result:
    """Evolve a child, export the final pick to OUT/child, and leave the run's record in OUT/run.json."""
    lab = Lab()
    try:
        run_id, pair = _resumed(lab, arguments) if arguments.resume else _started(lab, arguments)
        job_id = lab.run(run_id).job_id
        try:
            lab.wait(str(job_id), part(tick, 0.0, 0.95))
        except LabError as error:
            lab.jobs.close()
            raise asking_for_shorter_probes(error) from None
        except BaseException:
            lab.jobs.close()
            raise
        finally:
            _write_run(arguments.out, lab.run(run_id), pair)
        run = lab.run(run_id)
        assert run.result is not None
        child = arguments.out / "child"
        pick = run.result["pick"]["recipe_hash"]
        lab.wait(lab.request_export(pair, pick, child, overwrite=True, archive=False), part(tick, 0.95, 1.0))
        data = {"run": run_id, "out": str(arguments.out), "child": str(child), "evaluated": run.evaluated, **run.result}
        return Result(data, _evolve_text(run, child))
    finally:
        lab.close()


def _started(lab: Lab, arguments: argparse.Namespace) -> tuple[str, Pair]:
    if arguments.out.is_dir() and any(arguments.out.iterdir()):
        raise LabError(f"{arguments.out} exists and is not empty; give another --out, or --resume to go on with it")
    check_target(arguments.out, overwrite=None)
    family = arguments.father.startswith("family:") and arguments.mother.startswith("family:")
    if not arguments.items and not family:
        raise LabError(
            "no items to select on; give --items FILE with one JSON object a line (the README has the format)"
        )
    pair = lab.open_pair(
        arguments.father,
        arguments.mother,
        arguments.ancestor or ("family:ancestor" if family else None),
        items=arguments.items,
        probes=arguments.probes,
        vocabulary=arguments.vocab or "same",
        experts=MATCHED if arguments.match_experts else NUMBERED,
    )
    asked = {name: getattr(arguments, name) for name in ("layout", "operator", "budget", "seed")}
    asked["prescription"] = arguments.advice
    settings: EvolutionSettings = settings_from_json(
        {name: value for name, value in asked.items() if value is not None}
    )
    run_id = lab.start_evolution(pair, settings)
    arguments.out.mkdir(parents=True, exist_ok=True)
    _write_run(arguments.out, lab.run(run_id), pair)
    return run_id, pair


def _resumed(lab: Lab, arguments: argparse.Namespace) -> tuple[str, Pair]:
    path = arguments.out / RUN_FILE
    if not path.is_file():
        raise LabError(f"{arguments.out} holds no run to resume; leave --resume out to start one")
    run_id = lab.check_id(str(read_json(path).get("run", "")))
    run = lab.run(run_id)
    reading = lab.request_pair(run.pair_key)
    if reading is not None:
        lab.wait(reading)
    refs, settings = lab.pair(run.pair_key).refs, run.settings.to_json()
    for flag, asked, has in (
        ("FATHER", lasting_ref(arguments.father), refs["father"]),
        ("MOTHER", lasting_ref(arguments.mother), refs["mother"]),
        ("--vocab", arguments.vocab, refs.get("vocabulary", "same")),
        ("--advice", arguments.advice, settings["prescription"]),
        ("--match-experts", MATCHED if arguments.match_experts else None, refs.get("experts", NUMBERED)),
        *((f"--{name}", getattr(arguments, name), settings[name]) for name in ("layout", "operator", "budget", "seed")),
    ):
        if asked is not None and asked != has:
            raise LabError(f"{flag} {asked} contradicts the run in {arguments.out}, which has {has}; leave it out")
    if run.state != "finished":
        lab.resume(run_id)
    return run_id, lab.pair(run.pair_key)


def _write_run(out: Path, run: RunView, pair: Pair) -> None:
    data = {
        "version": 1,
        "run": run.id,
        "state": run.state,
        "pair": pair.refs,
        "settings": run.settings.to_json(),
        "controls": run.controls,
        "generations": run.generations,
        "candidates": run.candidates,
        "result": run.result,
    }
    partial = out / f".{RUN_FILE}.partial"
    partial.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    partial.replace(out / RUN_FILE)


def _evolve_text(run: RunView, child: Path) -> str:
    assert run.result is not None
    pick = run.result["pick"]
    lines = [
        f"run {run.id}: {run.evaluated} candidates, stopped by {run.result['stopped']}; child {pick['recipe_hash']}"
    ]
    report = run.result.get("report")
    if report:
        lines.append(f"{'report items':<14} {'mean acc':>9}")
        lines += [f"{who:<14} {model['mean_acc']:>9.4f}" for who, model in report["models"].items()]
        lines.append(report["sentence"])
    return "\n".join([*lines, f"exported to {child}"])
