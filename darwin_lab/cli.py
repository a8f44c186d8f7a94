"""The shell: `python -m darwin_lab scan | merge | score | evolve | health`.

Takes arguments, gives an exit code: 0 done, 2 bad input, 130 cancelled, 1 a fault of ours. stdout is the result
(with --json one JSON object and nothing else), stderr one line of error and, on a terminal, progress. What a verb
does is in `verbs/`; nothing heavy is imported before a verb runs.
"""

import argparse
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from darwin_lab.errors import Cancelled, LabError

DONE, FAULT, BAD_INPUT, CANCELLED = 0, 1, 2, 130
_OPERATORS = ("lerp", "slerp", "task_arithmetic", "dare", "ties", "dare_ties")
_MODEL = "a folder, a Hub id such as org/name, or family:father, family:mother, family:ancestor"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise LabError(f"{message}; see `{self.prog} --help`")


class Progress:
    """A tick that redraws one line on a terminal, and is silent anywhere else."""

    def __init__(self) -> None:
        self.shown = sys.stderr.isatty()
        self._last = 0.0
        self._width = 0

    def __call__(self, fraction: float, words: str) -> None:
        now = time.monotonic()
        if not self.shown or (now - self._last < 0.1 and fraction < 1.0):
            return
        self._last = now
        line = f"{fraction:4.0%} {words}"[: os.get_terminal_size(sys.stderr.fileno()).columns - 1]
        sys.stderr.write("\r" + line.ljust(self._width))
        sys.stderr.flush()
        self._width = len(line)

    def clear(self) -> None:
        if self.shown and self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code."""
    progress = Progress()
    try:
        arguments = build_parser().parse_args(argv)
        verb = importlib.import_module(f"darwin_lab.verbs.{arguments.verb}")
        result = verb.run(arguments, progress)
        progress.clear()
        if arguments.json:
            print(json.dumps(result.data, ensure_ascii=False, allow_nan=False))
        else:
            print(result.text)
        return DONE
    except LabError as error:
        return _leave(progress, BAD_INPUT, f"error: {error}")
    except (Cancelled, KeyboardInterrupt):
        return _leave(progress, CANCELLED, "cancelled")
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - keeps the interpreter from flushing to a closed pipe
        return DONE
    except Exception:
        traceback.print_exc()
        return _leave(progress, FAULT, "error: this is a fault of the lab's own; please report it with the lines above")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = _Parser(prog="python -m darwin_lab", description="See inside two parents, breed them, check the child.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=_Parser)

    scan = _verb(verbs, "scan", "the Model MRI of one model")
    scan.add_argument("model", metavar="MODEL", help=_MODEL)
    scan.add_argument("--probes", type=Path, metavar="FILE", help='JSONL of {"probe", "text"}; default: built in')
    scan.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder for the scan")

    merge = _verb(verbs, "merge", "write a child of two parents")
    _parents(merge)
    merge.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder for the child")
    how = merge.add_mutually_exclusive_group(required=True)
    how.add_argument("--ratio", type=float, metavar="R", help="mother's share of every tensor, 0 to 1")
    how.add_argument("--genome", type=Path, metavar="G.json", help="a genome file")
    how.add_argument("--preset", metavar="NAME", help="a published or plain genome by name")
    merge.add_argument("--operator", choices=_OPERATORS, help="default lerp, or the genome's")
    merge.add_argument("--density", type=float, metavar="D", help="share of a delta kept by dare and ties, .05 to 1")
    merge.add_argument("--seed", type=int, metavar="N", help="of the random masks; default 0, or the genome's")
    merge.add_argument("--dtype", metavar="D", help="bfloat16, float16 or float32; default the father's")
    merge.add_argument("--scans", type=Path, nargs=2, metavar=("DIR_A", "DIR_B"), help="scans of father and mother")
    merge.add_argument("--overwrite", action="store_true", help="replace --out if it exists")

    score = _verb(verbs, "score", "answer benchmark items")
    score.add_argument("model", metavar="MODEL", help=_MODEL)
    score.add_argument("--items", type=Path, nargs="+", default=[], metavar="FILE", help="JSONL files of items")
    score.add_argument("--limit", type=int, metavar="N", help="only the first N items of each benchmark")
    score.add_argument("--samples", type=Path, metavar="FILE", help="write one JSON line an item")

    evolve = _verb(verbs, "evolve", "search for a child that beats both parents")
    _parents(evolve)
    evolve.add_argument("--items", type=Path, nargs="+", default=[], metavar="FILE", help="JSONL files of items")
    evolve.add_argument("--probes", type=Path, metavar="FILE", help="JSONL of probes; default: built in")
    evolve.add_argument("--layout", choices=("v4", "v6", "layerwise"), help="default v6")
    evolve.add_argument("--operator", choices=(*_OPERATORS, "mix"), help="default lerp")
    evolve.add_argument("--budget", type=int, metavar="N", help="candidates scored for real")
    evolve.add_argument("--seed", type=int, metavar="N", help="of the search; default 0")
    evolve.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the run and its child")
    evolve.add_argument("--resume", action="store_true", help="go on with the run in --out")

    health = _verb(verbs, "health", "a child's scan beside its parents'")
    health.add_argument("child", metavar="CHILD", help=_MODEL)
    health.add_argument("--father", required=True, metavar="F", help=_MODEL)
    health.add_argument("--mother", required=True, metavar="M", help=_MODEL)
    health.add_argument("--probes", type=Path, metavar="FILE", help='JSONL of {"probe", "text"}; default: built in')
    return parser


def _verb(verbs: Any, name: str, what: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, nothing else")
    return parser


def _parents(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("father", metavar="FATHER", help=_MODEL)
    parser.add_argument("mother", metavar="MOTHER", help=_MODEL)
    parser.add_argument("--ancestor", metavar="M", help="their common base, for ties, dare_ties and task_arithmetic")


def _leave(progress: Progress, code: int, line: str) -> int:
    progress.clear()
    print(line, file=sys.stderr)
    return code
