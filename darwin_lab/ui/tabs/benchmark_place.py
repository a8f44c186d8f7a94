"""What the parts of the Benchmark tab share: the split, the child, the stamp of what can be run, and small words.

Knows the lab's benchmark desk by its reading methods only; draws nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from darwin_lab.errors import LabError
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.ui.figures.style import NAME
from darwin_lab.ui.session import Shared, genome_at_hand, pair_of

if TYPE_CHECKING:
    from darwin_lab.lab.benching_views import BenchmarkInfo, ModelChoice

SPLITS = [("Selection", "selection"), ("Validation", "validation"), ("Report (sealed)", "report")]
SPLIT_WORDS = {
    "selection": "Selection items: what evolution may see. Compare freely; nothing here is a result.",
    "validation": "Validation items: kept for the choice among a few finalists.",
    "report": "Report items are sealed: every run on them counts a look, because a number that was peeked at often is "
    "worth less.",
}
NO_PAIR = "Open a pair in Parents first; then father, mother, their blend and every child can be scored here."
PEOPLE = ("father", "mother", "blend")


@dataclass(frozen=True)
class Place:
    """The controls above the parts, and `listed`: a hidden text that changes when there is more to choose from."""

    shared: Shared
    split: gr.Radio
    child: gr.Dropdown
    listed: gr.Textbox


def role_of(model: str) -> str:
    """Whose colour a model has: father, mother, blend, or child for everything else."""
    return model if model in PEOPLE else "child"


def opened(lab: Lab, pair_key: str) -> Pair:
    """The selected pair. LabError while there is none."""
    pair = pair_of(lab, pair_key)
    if pair is None:
        raise LabError("open a pair in Parents first")
    return pair


def child_at_hand(lab: Lab, pair: Pair, at_hand: dict[str, Any] | None) -> str | None:
    """The recipe hash of the genome at hand; None while there is none, or for parents that cannot be bred."""
    if at_hand is None:
        return None
    try:
        return lab.recipe(pair, genome_at_hand(pair, at_hand)).hash
    except LabError:
        return None


def model_names(lab: Lab, pair: Pair, at_hand: dict[str, Any] | None) -> dict[str, str]:
    """Key -> label of everything that can be scored, the child at hand after parents and blend."""
    hand = child_at_hand(lab, pair, at_hand)
    found: Sequence[ModelChoice] = lab.benchmarks.models(pair, hand)
    return {choice.key: choice.label for choice in found}


def short_names(names: Mapping[str, str]) -> dict[str, str]:
    """The same with father, mother and blend by their role alone: what fits a legend or a column."""
    return {key: NAME.get(key, label) for key, label in names.items()}


def benchmark_names(infos: Sequence[BenchmarkInfo]) -> dict[str, str]:
    """Name -> title; titles that two benchmarks share get the name behind them."""
    titles = [info.title for info in infos]
    return {info.name: info.title if titles.count(info.title) == 1 else f"{info.title} · {info.name}" for info in infos}


def choices(names: Mapping[str, str]) -> list[tuple[str, str]]:
    """Choices of a gradio menu out of key -> label."""
    return [(label, key) for key, label in names.items()]


def kept(value: Sequence[str] | None, names: Mapping[str, str], default: Sequence[str]) -> list[str]:
    """What was chosen and still is there, or the default while nothing was."""
    still = [key for key in value or () if key in names]
    return still or [key for key in default if key in names]


def menu(names: Mapping[str, str], now: Any, value: Any) -> gr.Dropdown:
    """New choices for a menu that stands at `now`. Its value is sent only where it has to change: an answer on its
    way must not undo what somebody chose meanwhile."""
    return gr.Dropdown(choices=choices(names)) if value == now else gr.Dropdown(choices=choices(names), value=value)


def points(value: float) -> str:
    """A difference of accuracies in points, with a sign unless it rounds to nothing."""
    words = f"{100 * value:+.1f}".replace("-", "−")
    return "0.0" if words in ("+0.0", "−0.0") else words


def p_words(p: float) -> str:
    """A p value; small ones as a bound."""
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def whole(words: str, what: str) -> int:
    """A whole number of at least 1 as somebody typed it. LabError for anything else."""
    text = words.strip().replace(",", "").replace(" ", "")
    if not text.isascii() or not text.isdigit() or not 1 <= len(text) <= 10 or not int(text):
        raise LabError(f"{words.strip()!r} is no {what}; give a whole number such as 198")
    return int(text)


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage, a dash while unknown."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def interval_words(interval: tuple[float, float] | None) -> str:
    """An interval in percent."""
    return "" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"
