"""The gradient view: what a small move of every tensor's ratio, and of every gene, is predicted to do to each probe.

Takes a model in memory that carries a child, the child and its genome; gives dNLL/dr of every tensor,
`<grad_W NLL_p, B - A>` (mother minus father), from one backward pass over a probe's texts, a text at a time so that
there are intervals. Genes follow by the chain rule through genome -> recipe: a recipe is a pure function, so the
derivative of its ratios by a gene is taken numerically, from two recipes a little apart, without touching the model.
For the operator lerp the direction is exact; for any other B - A is the direction a lerp would take from there.
Must not know: files, jobs, charts. Source: methods, section 2, "Gradient view".
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from darwin_lab.checkpoint.alignment import align
from darwin_lab.errors import LabError
from darwin_lab.genome.layouts import SHARES
from darwin_lab.merging.recipe import Recipe, Row, make_recipe
from darwin_lab.mri.measures import encode_texts
from darwin_lab.progress import Tick, part, silent
from darwin_lab.statistics.bootstrap import bootstrap_mean

if TYPE_CHECKING:
    from darwin_lab.checkpoint.anatomy import Anatomy
    from darwin_lab.engine.child import Child
    from darwin_lab.engine.resident import Resident
    from darwin_lab.genome.genome import Genome
    from darwin_lab.merging.prescription import Prescription
    from darwin_lab.mri.probes import ProbeSet

Floats = NDArray[np.float64]
GENE_STEP = 0.005
"""How far a gene is moved, both ways, to take the derivative of the ratios: far above their quantum of 1e-6."""
MOST_TEXTS = 24
MOST_TOKENS = 512
PATH_NODES = 8
"""Places on the way from father to mother where the gradient is taken (Gauss-Legendre)."""
PATH_TEXTS = 8
"""Texts of a probe that are read on that way: both sides of the comparison read the same ones."""
LERP = "lerp"


@dataclass(frozen=True)
class Directions:
    """How fast every tensor's ratio changes with a gene: tensor -> [1], or [E] where experts differ.

    `jumps` counts tensors that a threshold turns into a copy, or back, within the step: they have no derivative and
    are left out.
    """

    rates: dict[str, Floats]
    jumps: int


@dataclass(frozen=True)
class GeneEffect:
    """One gene on one probe: dNLL/dgene in nats a token, 95 % bootstrap over its texts (NaN with one)."""

    gene: str
    probe: str
    slope: float
    low: float
    high: float


@dataclass(frozen=True)
class Gradients:
    """The gradient view of one child.

    texts, tokens, nll  probe -> texts read, tokens predicted, NLL of the child in nats a token
    tensors             tensor names; `slopes[probe]` their dNLL/dr in that order
    effects             every gene that moves a ratio, on every probe
    jumps               gene -> tensors a threshold keeps from having a derivative, where there are any
    exact               False when the operator is no lerp
    """

    recipe_hash: str
    genome_hash: str
    probes_hash: str
    texts: dict[str, int]
    tokens: dict[str, int]
    nll: dict[str, float]
    tensors: tuple[str, ...]
    slopes: dict[str, tuple[float, ...]]
    effects: tuple[GeneEffect, ...]
    jumps: dict[str, int]
    exact: bool

    @property
    def genes(self) -> tuple[str, ...]:
        """The genes that have an effect, in the layout's order."""
        return tuple(dict.fromkeys(effect.gene for effect in self.effects))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"version": 1, **asdict(self)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Gradients":
        """The inverse of `to_json`. Raises `LabError` for anything else."""
        try:
            names = ("recipe_hash", "genome_hash", "probes_hash", "texts", "tokens", "nll", "jumps", "exact")
            return Gradients(
                **{name: data[name] for name in names},
                tensors=tuple(data["tensors"]),
                slopes={probe: tuple(values) for probe, values in data["slopes"].items()},
                effects=tuple(GeneEffect(**effect) for effect in data["effects"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise LabError(f"that is no gradient view ({error}); measure it again") from error


@dataclass(frozen=True)
class PathRow:
    """One probe along the straight way from father to mother: the integral of the slope, the NLL it must explain
    (mother minus father), both in nats a token. The residual is what jumps and the few nodes leave over; between
    `start` and `end` lies the piece of the way that the slopes at its two ends explain least, by `left` nats."""

    probe: str
    integral: float
    difference: float
    left: float
    start: float
    end: float

    @property
    def residual(self) -> float:
        """Difference minus integral."""
        return self.difference - self.integral


def gene_effects(
    resident: "Resident",
    child: "Child",
    probes: "ProbeSet",
    genome: "Genome",
    anatomy: "Anatomy",
    prescription: "Prescription | None" = None,
    tick: Tick = silent,
    *,
    max_texts: int = MOST_TEXTS,
    max_tokens: int = MOST_TOKENS,
) -> Gradients:
    """The gradient view of `child`, which `resident` already carries and `genome` (with `prescription`) made.

    Of every probe the first `max_texts` texts are read. Holds the weights three times: model, gradients, and B - A.
    Raises `LabError` for a streamed model, unusable texts, and a loss that is not finite.
    """
    require_resident(resident)
    directions = gene_directions(genome, anatomy, prescription, child.recipe)
    widths = {name: len(rate) for one in directions.values() for name, rate in one.rates.items() if len(rate) > 1}
    reader = _Reader(resident, child, widths)
    texts, tokens, nll, slopes, effects = {}, {}, {}, {}, []
    for place, (probe, lines) in enumerate(probes.texts.items()):
        share = part(tick, place / len(probes.texts), (place + 1) / len(probes.texts))
        weight, losses, found = reader.probe(probe, lines[:max_texts], max_tokens, share)
        texts[probe], tokens[probe] = len(weight), int(weight.sum())
        nll[probe] = float(np.average(losses, weights=weight))
        slopes[probe] = tuple(reader.by_tensor(np.average(found, axis=0, weights=weight)))
        for gene, direction in directions.items():
            mean, low, high, _ = bootstrap_mean(found @ reader.column(direction.rates), weight)
            effects.append(GeneEffect(gene, probe, float(mean), float(low), float(high)))
    return Gradients(
        recipe_hash=child.recipe.hash,
        genome_hash=genome.hash,
        probes_hash=probes.hash,
        texts=texts,
        tokens=tokens,
        nll=nll,
        tensors=reader.names,
        slopes=slopes,
        effects=tuple(sorted(effects, key=lambda effect: list(directions).index(effect.gene))),
        jumps={gene: direction.jumps for gene, direction in directions.items() if direction.jumps},
        exact=child.recipe.operators <= {LERP},
    )


def gene_directions(
    genome: "Genome", anatomy: "Anatomy", prescription: "Prescription | None", recipe: Recipe
) -> dict[str, Directions]:
    """Gene -> how it moves the ratios, for the genes that move any; densities and the weight of "mix" move none.

    Central differences of two recipes `GENE_STEP` to both sides, one-sided at a bound.
    """
    found = {}
    for gene in genome.layout_of(anatomy.layers).genes:
        if gene.group not in SHARES and gene.name != "mri_trust":
            continue
        value = genome.genes[gene.name]
        ends = min(gene.high, value + GENE_STEP), max(gene.low, value - GENE_STEP)
        above, below = (
            make_recipe(
                genome.with_genes(**{gene.name: end}),
                anatomy,
                prescription,
                vocabulary=recipe.vocabulary,
                expert_order=recipe.expert_order,
            )
            for end in ends
        )
        rates, jumps = {}, 0
        for name, row in above.rows.items():
            other = below.rows[name]
            if row.decision == other.decision:
                continue
            if (row.action, row.transplant) != (other.action, other.transplant):
                jumps += 1
            else:
                rates[name] = (_ratios(row, other) - _ratios(other, row)) / (ends[0] - ends[1])
        if rates or jumps:
            found[gene.name] = Directions(rates, jumps)
    return found


def path_integral(
    resident: "Resident",
    child_of: Callable[[float], "Child"],
    probes: "ProbeSet",
    tick: Tick = silent,
    *,
    nodes: int = PATH_NODES,
    max_texts: int = PATH_TEXTS,
    max_tokens: int = MOST_TOKENS,
) -> tuple[PathRow, ...]:
    """From father to mother in a straight line: the integral of the slope against the NLL difference, per probe.

    `child_of(ratio)` is the child of one ratio for everything; `resident` becomes it. Raises `LabError` as
    `gene_effects` does.
    """
    require_resident(resident)
    places, shares = np.polynomial.legendre.leggauss(nodes)
    stops = [0.0, *((places + 1) / 2).tolist(), 1.0]
    slope: dict[str, list[float]] = {probe: [] for probe in probes.names}
    nll: dict[str, list[float]] = {probe: [] for probe in probes.names}
    for number, ratio in enumerate(stops):
        child = child_of(ratio)
        resident.become(child)
        reader = _Reader(resident, child, {})
        for place, (probe, lines) in enumerate(probes.texts.items()):
            done = (number + place / len(probes.texts)) / len(stops)
            tick(done, f"from father to mother: {ratio:.2f}, {probe}")
            weight, losses, found = reader.probe(probe, lines[:max_texts], max_tokens, silent)
            slope[probe].append(float(np.average(found.sum(axis=1), weights=weight)))
            nll[probe].append(float(np.average(losses, weights=weight)))
    return tuple(_path_row(probe, stops, shares / 2, slope[probe], nll[probe]) for probe in probes.names)


def _path_row(probe: str, stops: list[float], shares: Floats, slope: list[float], nll: list[float]) -> PathRow:
    steps, along = np.diff(stops), np.asarray(slope)
    left = np.diff(nll) - steps * (along[:-1] + along[1:]) / 2
    most = int(np.argmax(np.abs(left)))
    integral = float(shares @ along[1:-1])
    return PathRow(probe, integral, nll[-1] - nll[0], float(left[most]), stops[most], stops[most + 1])


def require_resident(resident: "Resident") -> None:
    """Raises `LabError` for a model that is read a layer at a time: a backward pass needs all of it."""
    if resident.streamed:
        raise LabError(
            "the gradient view needs the whole model in memory, and this one is streamed; set the memory of this pair "
            "to never stream, or use smaller parents"
        )


class _Reader:
    """B - A of every tensor that may be merged, and where its gradient lands in the model.

    `widths`: tensor -> its experts, where they are to be told apart.
    """

    def __init__(self, resident: "Resident", child: "Child", widths: Mapping[str, int]) -> None:
        self._resident = resident
        mother = align(
            child.father, child.mother, vocabulary=child.recipe.vocabulary, expert_order=child.recipe.expert_order
        )
        self._parameters: dict[str, torch.Tensor] = {}  # and buffers, where checkpoints hold them
        slots = resident.model.state_dict(keep_vars=True)
        self._pieces: list[tuple[Any, torch.Tensor, int]] = []
        self._columns: dict[str, slice] = {}
        start = 0
        for name, row in child.recipe.rows.items():
            place = resident.place(name) if row.component and name in mother.tensors else None
            if place is None:
                continue
            self._parameters[place.path] = slots[place.path]
            delta = mother.read(name).float() - child.father.read(name).float()
            width = widths.get(name, 1)
            self._pieces.append((place, delta.reshape(width, -1).to(resident.device), width))
            self._columns[name] = slice(start, start + width)
            start += width
        self._width = start
        self.names = tuple(self._columns)

    def probe(self, probe: str, texts: Sequence[str], max_tokens: int, tick: Tick) -> tuple[Floats, Floats, Floats]:
        """([n] tokens predicted, [n] NLL, [n, columns] dNLL/dr) of the texts of one probe, in nats a token."""
        resident = self._resident
        rows = encode_texts(resident.tokenizer, texts, probe, max_tokens, resident.context_length)
        losses, found = np.zeros(len(rows)), np.zeros((len(rows), self._width))
        with resident.lock, self._watched():
            for number, ids in enumerate(rows):
                tick(number / len(rows), f"gradients: {probe}, text {number + 1} of {len(rows)}")
                loss = self._loss(ids)
                losses[number] = float(loss.detach())
                if not np.isfinite(losses[number]):
                    raise LabError(f"probe {probe}, text {number + 1}: the child's loss is not finite; scan the child")
                loss.backward()  # type: ignore[no-untyped-call]
                found[number] = self._products()
        return np.asarray([len(ids) - 1 for ids in rows], dtype=np.float64), losses, found

    def by_tensor(self, values: Floats) -> list[float]:
        """[columns] summed to one number a tensor: all its experts move together."""
        return [float(values[columns].sum()) for columns in self._columns.values()]

    def column(self, rates: Mapping[str, Floats]) -> Floats:
        """[columns] the rates of a gene; a rate of [1] moves all experts of a tensor alike."""
        placed = np.zeros(self._width)
        for name, rate in rates.items():
            if name in self._columns:
                placed[self._columns[name]] = rate
        return placed

    def _loss(self, ids: list[int]) -> torch.Tensor:
        resident = self._resident
        tokens = torch.tensor([ids], device=resident.device)
        hidden = resident.hidden(tokens, torch.ones_like(tokens))
        return torch.nn.functional.cross_entropy(resident.logits(hidden)[0, :-1].float(), tokens[0, 1:])

    def _products(self) -> Floats:
        """[columns] <gradient, B - A>, and the gradients cleared."""
        found = []
        for place, delta, width in self._pieces:
            gradient = self._parameters[place.path].grad
            if gradient is None:
                found.append(delta.new_zeros(width))
            else:
                found.append((place.view(gradient).reshape(width, -1).float() * delta).sum(dim=1))
        for parameter in self._parameters.values():
            parameter.grad = None
        values: Floats = torch.cat(found).double().cpu().numpy()
        return values

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Within, the merged weights gather gradients; afterwards the model is as it was."""
        with torch.inference_mode(False), torch.enable_grad():
            try:
                for parameter in self._parameters.values():
                    parameter.requires_grad_(True)
                yield
            finally:
                for parameter in self._parameters.values():
                    parameter.requires_grad_(False)
                    parameter.grad = None


def _ratios(row: Row, other: Row) -> Floats:
    """[1] the row's ratio, or [E] as soon as the experts of one of the two differ."""
    if row.expert_ratios is not None:
        return np.asarray(row.expert_ratios, dtype=np.float64)
    return np.full(len(other.expert_ratios) if other.expert_ratios else 1, row.ratio)
