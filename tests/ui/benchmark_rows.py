"""Rows made by hand for the tests of the Benchmark tab."""

from math import log

from darwin_lab.lab.benching_views import BenchmarkInfo
from darwin_lab.scoring.items import Item
from darwin_lab.scoring.score import Score, from_rows
from darwin_lab.ui.tabs import benchmark_answers

MODELS = {"father": "Father", "mother": "Mother", "blend": "0.5 blend", "abc": "Child"}
ARC = BenchmarkInfo(
    "arc", "ARC", "hub", "CC BY-SA", 0.25, "choice", 300, {"selection": 100, "validation": 50, "report": 150}
)
SPLITS = ("selection", "validation", "report")


def scored(outcomes: dict[str, bool]) -> Score:
    """A score of two-option items: right ones with odds 3 : 1, wrong ones 1 : 3."""
    rows = [
        {"id": name, "task": "arc", "acc": right, "acc_norm": right, "p_gold": 0.75 if right else 0.25,
         "loglik": [log(0.75), log(0.25)], "prediction": 0 if right else 1, "cluster": name}
        for name, right in outcomes.items()
    ]  # fmt: skip
    return from_rows(rows)


def item(name: str, **more) -> Item:
    return Item(name, "arc", f"Which is {name}?", ("this", "that"), 0, more)


OUTCOMES = {  # item -> who is right
    "gained": {"abc"}, "lost": {"father", "mother"}, "his": {"father"}, "hers": {"mother"},
    "all": {"father", "mother", "abc"}, "none": set(),
}  # fmt: skip


def joined():
    scores = {
        who: scored({name: who in right for name, right in OUTCOMES.items()}) for who in ("father", "mother", "abc")
    }
    return benchmark_answers.join([item(name) for name in OUTCOMES], scores)


def named(chart, name):
    return next(one for one in chart.figure.data if one.name == name)
