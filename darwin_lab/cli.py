"""The shell: `python -m darwin_lab VERB`; `build_parser` has the verbs.

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
from darwin_lab.genome.genome import EXPERT_MODES, ROUTER_SOURCES
from darwin_lab.genome.layouts import LAYOUTS
from darwin_lab.merging.operators import OPERATORS
from darwin_lab.merging.prescription import MODES

DONE, FAULT, BAD_INPUT, CANCELLED = 0, 1, 2, 130
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
    scan.add_argument(
        "--stream", choices=("auto", "always", "never"), default="auto",
        help="one layer in memory at a time; auto: when the model does not fit",
    )  # fmt: skip
    scan.add_argument(
        "--overflow", choices=("passes", "spill"), default="passes",
        help="streamed texts too many for memory: read the weights again, or put states on disk",
    )  # fmt: skip
    scan.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="to compute in")
    scan.add_argument("--device", default="cpu", metavar="D", help="such as cuda:0; default cpu")
    scan.add_argument("--max-tokens", type=int, metavar="N", help="cut texts to this many tokens; default 512")
    scan.add_argument(
        "--halves", action="store_true", help="also attention and FFN of each layer alone; three times the work"
    )

    plan = _verb(verbs, "plan", "what a merge would do and cost, from headers alone")
    plan.add_argument("father", metavar="FATHER", help=_MODEL)
    plan.add_argument("mother", nargs="?", metavar="MOTHER", help=f"{_MODEL}; left out, FATHER alone is looked at")
    plan.add_argument("--ancestor", metavar="M", help="their common base, for ties, dare_ties and their like")
    plan.add_argument("--vocab", choices=("same", "by-token"), help="by-token: match rows by token; default same")
    plan.add_argument("--operator", choices=OPERATORS, help="whose time and memory; default lerp")
    plan.add_argument("--out", type=Path, metavar="DIR", help="where the child would go; default the current folder")

    _merge(_verb(verbs, "merge", "write a child of two parents"))

    recipe = _verb(verbs, "recipe", "show what made a child")
    recipe.add_argument("child", type=Path, metavar="CHILD", help="an exported child's folder, or its recipe.json")
    recipe.add_argument("--mergekit", type=Path, metavar="FILE.yml", help="write it as mergekit YAML too")

    _score(_verb(verbs, "score", "answer benchmark items"))

    benchmarks = _verb(verbs, "benchmarks", "list the benchmarks of the Hub that `score` knows")
    benchmarks.add_argument("name", nargs="?", metavar="NAME", help="tell all of this one")

    claim = _verb(verbs, "claim", "check a published score: can it be, and what could it show")
    claim.add_argument("score", metavar="SCORE", help="in percent, with the digits it was printed with, such as 90.0")
    claim.add_argument("n", type=int, metavar="N", help="number of items")

    evolve = _verb(verbs, "evolve", "search for a child that beats both parents")
    _parents(evolve)
    evolve.add_argument("--items", type=Path, nargs="+", default=[], metavar="FILE", help="JSONL files of items")
    evolve.add_argument("--probes", type=Path, metavar="FILE", help="JSONL of probes; default: built in")
    evolve.add_argument("--vocab", choices=("same", "by-token"), help="by-token: match rows by token; default same")
    _matching(evolve)
    evolve.add_argument("--layout", choices=LAYOUTS, help="default v6")
    evolve.add_argument("--operator", choices=(*OPERATORS, "mix"), help="default lerp")
    _advice(evolve)
    evolve.add_argument("--budget", type=int, metavar="N", help="candidates scored for real")
    evolve.add_argument("--seed", type=int, metavar="N", help="of the search; default 0")
    evolve.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the run and its child")
    evolve.add_argument("--resume", action="store_true", help="go on with the run in --out")

    inherit = _verb(verbs, "inherit", "what a child has from whom, measured")
    inherit.add_argument("child", metavar="CHILD", help="an exported child's folder, or another model")
    inherit.add_argument("--father", required=True, metavar="F", help=_MODEL)
    inherit.add_argument("--mother", required=True, metavar="M", help=_MODEL)
    inherit.add_argument("--ancestor", metavar="M", help="their common base; default the one its recipe.json names")
    inherit.add_argument("--languages", action="store_true", help="also read a dozen languages with all three")

    health = _verb(verbs, "health", "a child's scan beside its parents'")
    health.add_argument("child", nargs="?", metavar="CHILD", help=f"{_MODEL}; left out with --genome")
    health.add_argument("--genome", type=Path, metavar="G.json", help="a child that has no files: this genome's")
    health.add_argument("--father", required=True, metavar="F", help=_MODEL)
    health.add_argument("--mother", required=True, metavar="M", help=_MODEL)
    health.add_argument("--ancestor", metavar="M", help="their common base, for a genome on ties and the like")
    health.add_argument("--vocab", choices=("same", "by-token"), default="same", help="by-token: match rows by token")
    _matching(health)
    health.add_argument("--probes", type=Path, metavar="FILE", help='JSONL of {"probe", "text"}; default: built in')
    health.add_argument(
        "--max-tokens",
        type=int,
        metavar="N",
        help="cut texts of the check to this many tokens; default 512",
    )
    health.add_argument("--mend", type=Path, metavar="OUT.json", help="new file: the genome with flagged layers mended")
    return parser


def _score(score: argparse.ArgumentParser) -> None:
    score.add_argument("model", nargs="?", metavar="MODEL", help=f"{_MODEL}; may be left out with --endpoint-model")
    score.add_argument("--items", type=Path, nargs="+", default=[], metavar="FILE", help="JSONL, CSV or parquet")
    score.add_argument(
        "--fields", nargs="+", default=[], metavar="ROLE=COLUMN",
        help="how they are read, such as question=Prompt choices=A,B,C,D answer=Key; default: guessed and shown",
    )  # fmt: skip
    score.add_argument("--benchmark", nargs="+", default=[], metavar="NAME", help="of the Hub; `benchmarks` lists them")
    score.add_argument(
        "--split", choices=("selection", "validation", "report"), help="of a benchmark; default selection"
    )
    score.add_argument("--limit", type=int, metavar="N", help="only the first N items of each benchmark")
    score.add_argument(
        "--samples", type=Path, metavar="FILE",
        help="write one JSON line an item; stopped, the same command goes on where it was",
    )  # fmt: skip
    score.add_argument("--shots", type=int, default=0, metavar="K", help="solved items before each question; default 0")
    score.add_argument("--shots-from", type=Path, metavar="FILE", help="file of items the solved ones are drawn from")
    score.add_argument("--shots-seed", type=int, default=1234, metavar="N", help="of the draw; default 1234, lm-eval's")
    score.add_argument("--same-shots", action="store_true", help="the same for all items of a task; they run once")
    score.add_argument("--cut-long", action="store_true", help="cut the beginning of prompts longer than the context")
    score.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="default float32")
    score.add_argument("--device", default="cpu", metavar="D", help="such as cuda:0; default cpu")
    score.add_argument(
        "--stream", choices=("auto", "always", "never"), default="auto",
        help="choices with one layer in memory at a time; auto: when the model does not fit",
    )  # fmt: skip
    score.add_argument("--letters", action="store_true", help="choices by letter, mean over all rotations of the order")
    score.add_argument(
        "--protocol",
        choices=("greedy", "majority", "adaptive"),
        help="have answers written and counted so; default: by choice",
    )
    score.add_argument(
        "--extract",
        choices=("line", "letter", "number", "boxed"),
        help="how they are read; default letter for items with choices, else line",
    )
    score.add_argument("--k", type=int, default=8, metavar="K", help="answers of a majority; default 8")
    score.add_argument(
        "--gate", choices=("confidence", "oracle"), default="confidence", help="of adaptive; oracle cheats"
    )
    score.add_argument("--seed", type=int, default=0, metavar="N", help="of sampled answers and orders; default 0")
    score.add_argument("--max-new-tokens", type=int, metavar="N", help="of an answer; default 64 or the benchmark's")
    score.add_argument("--chat", action="store_true", help="ask through the model's chat template")
    score.add_argument("--thinking", choices=("on", "off"), help="where the chat template knows it")
    score.add_argument(
        "--thinking-budget", type=int, metavar="N",
        help="close the thought after N tokens and ask for the answer; without, --max-new-tokens counts both",
    )  # fmt: skip
    score.add_argument("--endpoint", metavar="URL", help="ask an OpenAI-compatible server; protocol default greedy")
    score.add_argument("--endpoint-model", metavar="NAME", help="the model's name there; default MODEL")
    score.add_argument("--key-env", metavar="NAME", help="environment variable that holds the endpoint's key")
    score.add_argument("--concurrency", type=int, default=4, metavar="N", help="requests at once; default 4")
    score.add_argument("--retries", type=int, default=3, metavar="N", help="of a request that fails; default 3")
    score.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds a request; default 60")
    score.add_argument(
        "--lm-eval", nargs="+", metavar="TASK", help="tasks of lm-evaluation-harness, by name or YAML file, its rules"
    )


def _merge(merge: argparse.ArgumentParser) -> None:
    _parents(merge, optional=True)
    merge.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder for the child")
    how = merge.add_mutually_exclusive_group(required=True)
    how.add_argument("--ratio", type=float, metavar="R", help="mother's share of every tensor, 0 to 1")
    how.add_argument("--genome", type=Path, metavar="G.json", help="a genome file")
    how.add_argument("--blocks", metavar="TEXT", help='ratios by block: "L0-L37 t .5988 router B; L38 t .9; L39 t .5"')
    how.add_argument("--preset", metavar="NAME", help="a published or plain genome by name")
    how.add_argument("--recipe", type=Path, metavar="recipe.json", help="the recipe of an export: the same bytes again")
    how.add_argument("--mergekit", type=Path, metavar="FILE.yml", help="a mergekit configuration")
    merge.add_argument("--operator", choices=OPERATORS, help="default lerp, or the genome's")
    merge.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="the operator's own, such as lambda=1.2"
    )
    merge.add_argument("--router", choices=ROUTER_SOURCES, help="whose router rows: A the father's, B the mother's")
    merge.add_argument(
        "--experts", choices=EXPERT_MODES, help="preserve: the father's where the mother's are dead; usage: by use"
    )
    _matching(merge)
    merge.add_argument("--density", type=float, metavar="D", help="share of a delta kept by dare and ties, .05 to 1")
    merge.add_argument("--seed", type=int, metavar="N", help="of the random masks; default 0, or the genome's")
    merge.add_argument("--vocab", choices=("same", "by-token"), help="by-token: the rows of tokens that both have")
    merge.add_argument("--scans", type=Path, nargs=2, metavar=("DIR_A", "DIR_B"), help="scans of father and mother")
    merge.add_argument("--probes", type=Path, metavar="FILE", help="JSONL to scan them with; default: built in")
    _advice(merge)
    merge.add_argument("--dtype", metavar="D", help="bfloat16, float16 or float32; default the father's")
    merge.add_argument("--shard-size", metavar="SIZE", help="such as 2GB or 500MB; default the father's shards")
    merge.add_argument("--devices", default="cpu", metavar="D,D", help="such as cuda:0,cuda:1; default cpu")
    merge.add_argument("--overwrite", action="store_true", help="replace --out if it exists")


def _verb(verbs: Any, name: str, what: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, nothing else")
    return parser


def _matching(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--match-experts", action="store_true", help="pair experts by likeness instead of by number")


def _advice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--advice", choices=MODES, help="what the MRI advises by; default contrastive: layer swaps")


def _parents(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    kept = "; left out, the one a recipe or mergekit file names" if optional else ""
    for name in ("father", "mother"):
        parser.add_argument(name, nargs="?" if optional else None, metavar=name.upper(), help=_MODEL + kept)
    parser.add_argument("--ancestor", metavar="M", help="their common base, for ties, dare_ties and their like")


def _leave(progress: Progress, code: int, line: str) -> int:
    progress.clear()
    print(line, file=sys.stderr)
    return code
