"""Any task of lm-evaluation-harness on a model in memory, by lm-eval's own prompts, requests and metrics.

Takes names of tasks or files of them (YAML), gives a score a task. lm-eval is an optional extra
(`requirements-lm-eval.txt`). Knows nothing about candidates or storage.
"""

import copy
import importlib.util
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isnan, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from darwin_lab.errors import Cancelled, LabError
from darwin_lab.progress import Tick, part, silent
from darwin_lab.scoring.score import Score
from darwin_lab.scoring.shots import SEED

if TYPE_CHECKING:
    from darwin_lab.engine.resident import Resident

EXTRA = "requirements-lm-eval.txt"
MISSING = f"lm-evaluation-harness is not installed; run: pip install --no-deps -r {EXTRA}"
FIRST = ("acc", "exact_match")
"""Metrics that say right or wrong, before any other that does."""
BATCH_ROWS = 16
_NO_ANSWER = "[invalid]"  # what lm-eval's filters leave where they find nothing


def require_harness() -> None:
    """Raises LabError with the line that installs lm-eval, unless it is there."""
    if importlib.util.find_spec("lm_eval") is None:
        raise LabError(MISSING)


def run_tasks(
    resident: "Resident",
    tasks: Sequence[str],
    limit: int | None = None,
    shots: int | None = None,
    tick: Tick = silent,
) -> list[Score]:
    """A score for each task; a group or tag counts as its tasks. `limit` items of each, `shots` in place of its own.

    acc is lm-eval's acc or exact_match, or the first of the task's metrics that is 0 or 1 for every item; an item's id
    is task-number. The tick comes with every forward and may stop the run. Raises LabError without the extra, for a
    streamed model, a task that lm-eval cannot load or run, and one that calls no item right or wrong.
    """
    require_harness()
    if resident.streamed:
        raise LabError("lm-evaluation-harness needs the whole model in memory; give --stream never")
    names, folders = _named(tasks)
    scores: list[Score] = []
    with resident.lock, _quiet():
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager

        model = _model(resident)
        for number, name in enumerate(names):
            model.watch(part(tick, number / len(names), (number + 1) / len(names)), name)
            try:
                found = simple_evaluate(
                    model=model,
                    tasks=[name],
                    num_fewshot=shots,
                    limit=limit,
                    task_manager=TaskManager(include_path=folders or None),
                    log_samples=True,
                    bootstrap_iters=0,
                    random_seed=None,
                    numpy_random_seed=None,
                    torch_random_seed=None,
                    fewshot_random_seed=SEED,
                )
            except (Cancelled, LabError):
                raise
            except Exception as error:  # whatever a task's own code or data raises
                words = " ".join(str(error).split())[:200]
                raise LabError(
                    f"lm-evaluation-harness cannot run {name!r} ({type(error).__name__}: {words}); check the name, "
                    "and that its data is here or can be downloaded"
                ) from error
            scores.extend(score_of_samples(task, samples) for task, samples in found["samples"].items())
    tick(1.0, "scored")
    return scores


def score_of_samples(task: str, samples: Sequence[Mapping[str, Any]]) -> Score:
    """The score in the samples lm-eval logs for a task, one an item (of several filters, the first)."""
    chosen = [sample for sample in samples if sample["filter"] == samples[0]["filter"]]
    right = _marks(task, chosen)
    norm = [bool(sample.get("acc_norm", mark)) for sample, mark in zip(chosen, right, strict=True)]
    logliks = [_loglik(sample) for sample in chosen]
    ids = tuple(f"{task}-{sample['doc_id']}" for sample in chosen)
    return Score(
        ids=ids,
        tasks=(task,) * len(chosen),
        acc=np.array(right, dtype=bool),
        acc_norm=np.array(norm, dtype=bool),
        p_gold=np.array([_p_gold(s, values) for s, values in zip(chosen, logliks, strict=True)], dtype=np.float64),
        loglik=tuple(logliks),
        predictions=tuple(_prediction(s, values) for s, values in zip(chosen, logliks, strict=True)),
        clusters=ids,
    )


def _marks(task: str, samples: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Per item whether it is right, by the first metric that says so."""
    metrics = list(samples[0]["metrics"])
    for name in sorted(metrics, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST)):
        values = [sample.get(name) for sample in samples]
        if all(isinstance(value, bool | int | float | np.number) and value in (0, 1) for value in values):
            return [bool(value) for value in values]
    raise LabError(f"task {task!r} calls no item right or wrong (it measures {', '.join(metrics)}); run lm-eval itself")


def _loglik(sample: Mapping[str, Any]) -> tuple[float, ...]:
    """The log-likelihood of each choice; none where a text was written."""
    found = sample["filtered_resps"]
    if len(found) > 1 and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in found):
        return tuple(float(pair[0]) for pair in found)
    return ()


def _p_gold(sample: Mapping[str, Any], loglik: Sequence[float]) -> float:
    """Softmax over the choices, at the right one; NaN where there are none."""
    target = sample["target"]
    if not loglik or not isinstance(target, int) or not 0 <= target < len(loglik) or any(map(isnan, loglik)):
        return nan
    weights = np.exp(np.array(loglik) - max(loglik))
    return float(weights[target] / weights.sum())


def _prediction(sample: Mapping[str, Any], loglik: Sequence[float]) -> int | str:
    if loglik:
        return int(np.argmax(loglik))
    first = sample["filtered_resps"][0]
    text = str(first[0] if isinstance(first, list | tuple) and first else first).strip()
    return "" if text == _NO_ANSWER else text


def _named(tasks: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of tasks, and the folders of those given as a file. Raises LabError for a file that names none."""
    names, folders = [], []
    for task in tasks:
        if not task.endswith((".yaml", ".yml")):
            names.append(task)
            continue
        try:
            named = re.search(r"^task:\s*[\"']?([\w.-]+)", Path(task).read_text(encoding="utf-8"), re.MULTILINE)
        except (OSError, UnicodeDecodeError) as error:
            raise LabError(f"cannot read {task} ({type(error).__name__}); give a task file of lm-eval") from None
        if named is None:
            raise LabError(f"{task} names no task (a line `task: NAME`); give a task file of lm-eval")
        names.append(named[1])
        folders.append(str(Path(task).absolute().parent))
    return names, folders


def _model(resident: "Resident") -> Any:
    """lm-eval's model around the one in memory; it ticks at every forward."""
    from lm_eval.models.huggingface import HFLM

    class Watched(HFLM):  # type: ignore[misc]
        _tick: Tick = staticmethod(silent)
        _task = ""
        _rows = 0

        def watch(self, tick: Tick, task: str) -> None:
            self._tick, self._task, self._rows = tick, task, 0

        def _model_call(self, inps: Any, *args: Any, **kwargs: Any) -> Any:
            self._count(len(inps))
            return super()._model_call(inps, *args, **kwargs)

        def _model_generate(self, context: Any, *args: Any, **kwargs: Any) -> Any:
            self._count(len(context))
            return super()._model_generate(context, *args, **kwargs)

        def _count(self, rows: int) -> None:
            self._rows += rows
            self._tick(0.0, f"{self._task}: {self._rows} prompts")

    return Watched(
        pretrained=resident.model, tokenizer=copy.deepcopy(resident.tokenizer), batch_size=BATCH_ROWS, backend="causal"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Within, lm-eval's own messages and bars are off: what matters is said by ours."""
    from tqdm import tqdm

    logger = logging.getLogger("lm_eval")
    level, start = logger.level, tqdm.__init__

    def hidden(self: Any, *args: Any, **kwargs: Any) -> None:
        start(self, *args, **{**kwargs, "disable": True})

    logger.setLevel(logging.ERROR)
    tqdm.__init__ = hidden
    try:
        yield
    finally:
        logger.setLevel(level)
        tqdm.__init__ = start
