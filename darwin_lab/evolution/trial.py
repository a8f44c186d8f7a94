"""Does the prescription help? Children made by its advice against plain blends, its own placebo and published formulas.

Takes the measurements of a pair and a way to score recipes; gives a `Trial`: differences on report items with
intervals, tests and one sentence, whatever it says. Knows no model and no store.

A *probe draw* asks what the prescription would have been had other texts of the same kind been read. The gain of every
layer swap is measured once a text; a draw takes, within each probe, as many texts with replacement as were read and
prescribes from those. So ten draws cost arithmetic, not measurement. They differ as prescriptions from fresh texts
would differ among themselves, but they share their texts and are no independent repetitions: an item's answers over
the draws are pooled into one number, and items (or their clusters) are what the tests resample.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from darwin_lab.errors import LabError
from darwin_lab.evolution.problem import Scorer
from darwin_lab.evolution.workload import SWEEP
from darwin_lab.genome.genome import neutral_genome
from darwin_lab.merging.prescription import Prescription
from darwin_lab.merging.recipe import Recipe, make_recipe
from darwin_lab.mri.genes import shuffled
from darwin_lab.mri.prescribe import prescribe
from darwin_lab.progress import Tick, part, silent
from darwin_lab.scoring.score import Score
from darwin_lab.statistics.paired import holm, stratified_permutation

if TYPE_CHECKING:
    from darwin_lab.checkpoint.anatomy import Anatomy
    from darwin_lab.mri.contrast import Contrast
    from darwin_lab.mri.record import Scan
    from darwin_lab.mri.static import StaticProfile

DRAWS = 10
LEVEL = 0.05
RIVALS = ("blend", "lerp", "placebo")
"""What the prescription must beat to help. The published formulas, where they can be worked out, are tested too."""
_SWEEP_SHARE = 0.25


@dataclass(frozen=True)
class Advised:
    """One probe draw: what it prescribes, and the same advice given to the wrong layers."""

    prescription: Prescription
    placebo: Prescription


@dataclass(frozen=True)
class Arm:
    """What was scored under one name: accuracy and p(gold) (unweighted means over tasks), of each draw and overall.

    A rival that needs no probes has one entry. `p_gold` is None with generated answers.
    """

    name: str
    acc: float
    p_gold: float | None
    by_draw: tuple[float, ...]
    recipes: tuple[str, ...]


@dataclass(frozen=True)
class Against:
    """The prescription minus one rival in accuracy: 95 % interval, p, p after Holm over all rivals, and every draw."""

    rival: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    by_draw: tuple[float, ...]

    @property
    def verdict(self) -> str:
        """ "better", "worse", or "no difference shown"."""
        if self.p_holm >= LEVEL or self.difference == 0:
            return "no difference shown"
        return "better" if self.difference > 0 else "worse"


@dataclass(frozen=True)
class Trial:
    """A trial of the contrastive prescription on `n` report items.

    texts         probe -> texts a draw takes
    informative   draws whose prescription carried a signal; the others are the .5 blend
    clusters      units the tests resample: items, or clusters of items
    lerp          the uniform ratio that did best on the `selected` selection items, of those in `sweep`
    sweep         ratio -> fitness there
    arms          "prescription", "placebo", "blend", "lerp", "father", "mother", and published formulas by their mode
    """

    draws: int
    seed: int
    n: int
    clusters: int
    tasks: dict[str, int]
    texts: dict[str, int]
    informative: int
    lerp: float
    selected: int
    sweep: dict[str, float]
    arms: dict[str, Arm]
    against: tuple[Against, ...]
    dtype: str = "float32"
    """Of the scans that advised."""

    @property
    def verdicts(self) -> dict[str, str]:
        """Rival -> verdict, of those the prescription must beat."""
        return {row.rival: row.verdict for row in self.against if row.rival in RIVALS}

    @property
    def sentence(self) -> str:
        """What may be said, and no more."""
        return _sentence(self)

    def to_json(self) -> dict[str, Any]:
        """Plain data, with the sentence for whoever reads the file."""
        return {"version": 1, **asdict(self), "sentence": self.sentence}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Trial":
        """The inverse of `to_json`. Raises `LabError` for anything else."""
        try:
            plain = ("draws", "seed", "n", "clusters", "informative", "lerp", "selected", "tasks", "texts", "sweep")
            fields: dict[str, Any] = {name: data[name] for name in plain}
            arms = {name: Arm(**{**arm, **_tuples(arm, "by_draw", "recipes")}) for name, arm in data["arms"].items()}
            against = tuple(Against(**{**row, **_tuples(row, "by_draw")}) for row in data["against"])
            return Trial(**fields, arms=arms, against=against, dtype=data.get("dtype", "float32"))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LabError(f"that is no trial of a prescription ({error}); run it again") from error


def probe_draws(
    scan_a: "Scan",
    scan_b: "Scan",
    contrast: "Contrast",
    anatomy: "Anatomy",
    static: "StaticProfile | None" = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[Advised, ...]:
    """The prescriptions of `draws` probe draws, each with its placebo; the same seed gives the same draws.

    Raises `LabError` for fewer than two draws, and as `prescribe` and `shuffled` do. Source: methods, section 2 (ours).
    """
    if draws < 2:
        raise LabError(f"{draws} probe draws show no spread; ask for two or more")
    made = []
    for number in range(draws):
        drawn = redrawn(contrast, np.random.default_rng([seed, number]))
        advice = prescribe(scan_a, scan_b, anatomy, contrast=drawn, static=static)
        made.append(Advised(advice, shuffled(advice, anatomy, seed * draws + number)))
    return tuple(made)


def redrawn(contrast: "Contrast", rng: np.random.Generator) -> "Contrast":
    """The contrast of as many texts as it has, drawn with replacement within each probe."""
    rows = {probe: rng.integers(0, len(texts), len(texts)) for probe, texts in contrast.lengths.items()}
    return replace(
        contrast,
        lengths={probe: contrast.lengths[probe][chosen] for probe, chosen in rows.items()},
        gain={probe: contrast.gain[probe][chosen] for probe, chosen in rows.items()},
    )


def advised_recipe(
    advice: Prescription,
    anatomy: "Anatomy",
    vocabulary: str = "same",
    expert_order: Mapping[int, tuple[int, ...]] | None = None,
) -> Recipe:
    """The prescription taken at its word: a lerp with every tensor at its mri_ratio, no thresholds, experts blended."""
    genome = neutral_genome("v6", anatomy.layers, transplant=0.0).with_genes(mri_trust=1.0)
    return make_recipe(genome, anatomy, advice, vocabulary=vocabulary, expert_order=expert_order)


def run_trial(
    advised: Sequence[Advised],
    anatomy: "Anatomy",
    texts: Mapping[str, int],
    score: Scorer,
    lerp: Callable[[float], Recipe],
    *,
    seed: int = 0,
    vocabulary: str = "same",
    expert_order: Mapping[int, tuple[int, ...]] | None = None,
    published: Mapping[str, Prescription] = MappingProxyType({}),
    tick: Tick = silent,
) -> Trial:
    """Choose the best lerp on selection items, then score everything on report items: one look.

    `texts` is what a draw took of each probe, `lerp(ratio)` the recipe of one ratio for everything, `published` what
    the published formulas advise, by mode. What `tick` and `score` raise passes through; what was scored is `score`'s
    to remember.
    """
    sweep = [lerp(ratio) for ratio in SWEEP]
    found = score(sweep, "selection", None, part(tick, 0.0, _SWEEP_SHARE))
    fitness = {ratio: _fitness(one) for ratio, one in zip(SWEEP, found, strict=True)}
    best = max(SWEEP, key=lambda ratio: fitness[ratio])

    def taken(advice: Prescription) -> Recipe:
        return advised_recipe(advice, anatomy, vocabulary, expert_order)

    recipes = {
        "prescription": [taken(draw.prescription) for draw in advised],
        "placebo": [taken(draw.placebo) for draw in advised],
        "blend": [lerp(0.5)],
        "lerp": [lerp(best)],
        "father": [lerp(0.0)],
        "mother": [lerp(1.0)],
        **{mode: [taken(advice)] for mode, advice in published.items()},
    }
    flat = [recipe for made in recipes.values() for recipe in made]
    answers = iter(score(flat, "report", None, part(tick, _SWEEP_SHARE, 1.0)))
    scores = {name: [next(answers) for _ in made] for name, made in recipes.items()}
    first = scores["blend"][0]
    tests = {rival: _test(scores["prescription"], scores[rival], seed) for rival in (*RIVALS, *published)}
    adjusted = holm([test.p for test in tests.values()])
    return Trial(
        draws=len(advised),
        seed=seed,
        n=first.n,
        clusters=len(set(first.clusters)),
        tasks={task: bench.n for task, bench in first.benchmarks().items()},
        texts=dict(texts),
        informative=sum(draw.prescription.signal for draw in advised),
        lerp=best,
        selected=found[0].n,
        sweep={f"{ratio:g}": value for ratio, value in fitness.items()},
        arms={name: _arm(name, made, scores[name]) for name, made in recipes.items()},
        against=tuple(
            replace(test, rival=name, p_holm=p) for (name, test), p in zip(tests.items(), adjusted, strict=True)
        ),
    )


def _test(ours: Sequence[Score], theirs: Sequence[Score], seed: int) -> Against:
    """The prescription against one rival, an item's answers over the draws pooled into their mean."""
    first = ours[0]
    test = stratified_permutation(_pooled(ours), _pooled(theirs), first.tasks, first.clusters, seed=seed)
    beside = theirs if len(theirs) == len(ours) else [theirs[0]] * len(ours)
    by_draw = tuple(a.mean_acc - b.mean_acc for a, b in zip(ours, beside, strict=True))
    return Against("", test.difference, test.low, test.high, test.p, test.p, by_draw)


def _pooled(scores: Sequence[Score]) -> NDArray[np.float64]:
    """[n] share of the draws in which the item was answered right."""
    share: NDArray[np.float64] = np.mean([score.acc for score in scores], axis=0, dtype=np.float64)
    return share


def _arm(name: str, made: Sequence[Recipe], scores: Sequence[Score]) -> Arm:
    by_draw = tuple(score.mean_acc for score in scores)
    soft = float(np.mean([score.mean_p_gold for score in scores]))
    return Arm(
        name, float(np.mean(by_draw)), soft if math.isfinite(soft) else None, by_draw, tuple(one.hash for one in made)
    )


def _fitness(score: Score) -> float:
    """p(gold), or accuracy where answers are generated; rounded like an evolution's."""
    soft = score.mean_p_gold
    return round(soft if math.isfinite(soft) else score.mean_acc, 6)


def _sentence(trial: Trial) -> str:
    verdicts = trial.verdicts
    better = [rival for rival, verdict in verdicts.items() if verdict == "better"]
    if not trial.informative:
        return (
            f"The prescription carries no signal for this pair: in all {trial.draws} probe draws every ratio is .5, so "
            "there is nothing to test."
        )
    if len(better) == len(verdicts):
        head = "The prescription helps on this pair"
    elif better:
        head = "The prescription helps this pair in part"
    elif "worse" in verdicts.values():
        head = "The prescription does not help on this pair"
    else:
        head = "No help shown from the prescription on this pair"
    body = "; ".join(_against_words(row, trial) for row in trial.against if row.rival in verdicts)
    tests = len(trial.against)
    tail = f" Mean of {trial.draws} probe draws on {trial.n:,} report items, p after Holm over all {tests} tests."
    formulas = "; ".join(_against_words(row, trial) for row in trial.against if row.rival not in verdicts)
    tail += f" Beside the published formulas: {formulas}." if formulas else ""
    if better and verdicts["placebo"] == "no difference shown":
        tail += " Permuting its layers did as well: what helped is not which layer gets which share."
    if trial.informative < trial.draws:
        tail += f" {trial.draws - trial.informative} of the draws carried no signal: there every ratio is .5."
    return f"{head}: {body}.{tail}"


def _against_words(row: Against, trial: Trial) -> str:
    names = {"blend": "the .5 blend", "lerp": f"the best lerp ({trial.lerp:g})", "placebo": "the placebo",
             "card_v5": "card V5", "card_v6": "card V6", "paper": "the paper's"}  # fmt: skip
    name, p = names[row.rival], "p < .001" if row.p_holm < 0.001 else f"p = {row.p_holm:.3f}"
    size = f"{row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}], {p}"
    if row.verdict == "no difference shown":
        return f"no difference shown to {name} ({size})"
    return f"{row.verdict} than {name} ({size})"


def _tuples(data: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: tuple(data[name]) for name in names}
