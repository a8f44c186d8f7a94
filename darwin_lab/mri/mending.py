"""The prescription of the health check, measured: how far a flagged layer must move until its flag clears.

Takes a model that carries a child, the child with some layers pinned at a ratio, the advice of its health check and
both parents' scans; gives for each flagged layer the ratio nearest to the present one at which no probe flags it (and,
where that can be had, none reads worse than both parents), with everything that was tried. Layers are mended in their
order, each on top of those before. Must not know: genomes, stores, how a ratio becomes weights.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from darwin_lab.engine.resident import Resident
from darwin_lab.engine.source import Source
from darwin_lab.engine.variants import variant_sweep
from darwin_lab.errors import LabError
from darwin_lab.mri.health import flag_lines
from darwin_lab.mri.health_record import Advice, Health, Thresholds
from darwin_lab.mri.measures import batches_by_length, cosine_distance, encode_texts, next_token_losses
from darwin_lab.mri.probes import ProbeSet
from darwin_lab.mri.record import Scan, shared_probes
from darwin_lab.mri.scan import MAX_TOKENS, batch_tokens
from darwin_lab.progress import Tick, part, silent
from darwin_lab.statistics.bootstrap import bootstrap_mean

Floats = NDArray[np.float64]
FORMS = 8
"""Ratios one sweep tries at once. Two sweeps find the place within 1/64 of the way to the parent."""
CLEARED, NOT_CLEARED, CLEAR_ALREADY = "cleared", "not cleared", "clear already"
Pinned = Callable[[Mapping[int, float]], Source]


@dataclass(frozen=True)
class Tried:
    """One ratio of a layer, as measured: importance and NLL (nats a token) by probe, the probes that flag it, and those
    on which the child then reads worse than both parents, intervals included."""

    ratio: float
    importance: dict[str, float]
    nll: dict[str, float]
    flagged: tuple[str, ...]
    lost: tuple[str, ...]


@dataclass(frozen=True)
class LayerMend:
    """What became of a flagged layer. `after` is None where it is left as it was."""

    layer: int
    towards: str
    before: float
    """The mother's share of the layer now, mean over its tensors weighted by size."""
    after: float | None
    outcome: str
    """cleared; not cleared (not even as the parent's own layer); clear already (by mending one before it)."""
    was: Tried
    tried: tuple[Tried, ...]

    @property
    def sentence(self) -> str:
        """One sentence for people."""
        name = f"L{self.layer}"
        if self.outcome == CLEAR_ALREADY:
            return f"{name} is clear once the layers before it are mended."
        if self.after is None:
            return f"{name} does not clear, not even as the {self.towards}'s own layer; it is left as it was."
        where = f"as the {self.towards}'s own layer" if self.after in (0.0, 1.0) else f"at {self.after:.3f}"
        return f"{name} clears {where}, towards the {self.towards} from {self.before:.3f}."


@dataclass(frozen=True)
class NllChange:
    """One probe before and after: NLL in nats a token, after minus before with its paired 95 % interval over texts."""

    probe: str
    texts: int
    before: float
    after: float
    difference: tuple[float, float, float]
    """(mean, low, high); the interval is NaN for a single text."""


@dataclass(frozen=True, eq=False)
class Mending:
    """A child and what mending made of it. `after`, `nll` and `genome` are empty where no layer was moved."""

    child: str
    """The recipe hash of the child that was mended."""
    mended: str | None
    """The recipe hash of the new one."""
    genome: dict[str, Any] | None
    """The new genome: the old one with the mended layers pinned."""
    layers: tuple[LayerMend, ...]
    before: Health
    after: Health | None
    nll: tuple[NllChange, ...]

    @property
    def sentence(self) -> str:
        """What came of it, measured."""
        stuck = [one for one in self.layers if one.outcome == NOT_CLEARED]
        said = [one.sentence for one in self.layers if one not in stuck]
        if len(stuck) > 1:
            named = ", ".join(f"L{one.layer}" for one in stuck)
            said.append(f"{named} do not clear, not even as the advised parent's own; they stay as they were.")
        else:
            said += [one.sentence for one in stuck]
        told = " ".join(said)
        if self.after is None:
            return f"{told} Nothing was moved; the verdict stays {self.before.verdict}."
        left = self.after.flagged_layers
        still = f"flagged after it: {', '.join(f'L{layer}' for layer in left)}" if left else "no layer is flagged"
        return f"{told} Checked again: {self.before.verdict} before, {self.after.verdict} after; {still}."

    def to_json(self) -> dict[str, Any]:
        """Plain data; an unknown interval is null."""
        return {
            "version": 1,
            "child": self.child,
            "mended": self.mended,
            "sentence": self.sentence,
            "genome": self.genome,
            "layers": mends_to_json(self.layers),
            "nll": [{**asdict(one), "difference": _nullable(one.difference)} for one in self.nll],
            "before": self.before.to_json(),
            "after": None if self.after is None else self.after.to_json(),
        }


def nll_changes(before: Scan, after: Scan) -> tuple[NllChange, ...]:
    """Probe by probe, paired over texts. Raises `LabError` for scans that cannot be compared."""
    rows = []
    for probe in shared_probes(before, after):
        gap = after.nll[probe].astype(np.float64) - before.nll[probe]
        mean, low, high, _ = bootstrap_mean(gap, before.weights("nll", probe))
        was, now = (scan.mean_nll()[probe] for scan in (before, after))
        rows.append(NllChange(probe, before.texts[probe], was, now, (float(mean), float(low), float(high))))
    return tuple(rows)


def mend(
    model: Resident,
    pinned: Pinned,
    ratios: Mapping[int, float],
    advice: Sequence[Advice],
    probes: ProbeSet,
    parents: tuple[Scan, Scan],
    limits: Thresholds | None = None,
    tick: Tick = silent,
    *,
    max_tokens: int = MAX_TOKENS,
) -> tuple[LayerMend, ...]:
    """Find for each advised layer, in order, the ratio nearest to its present one at which its flag clears.

    `pinned(shares)` is the child with those layers at those shares (none: the child itself), `ratios` the present
    share by layer, `parents` the scans of father and mother on these probes. A sweep tries `FORMS` ratios between the
    present one and the parent's; a second one refines between the last that is flagged and the first that is not.
    Where some ratio also leaves no probe worse than both parents, the nearest such one is taken.
    Raises `LabError` for an importance other than skip and loss, and as a scan does. Source: methods, section 6.
    """
    limits = limits or Thresholds()
    if limits.measure not in ("skip", "loss"):
        raise LabError(f"mending goes by skip or loss, not by {limits.measure}; choose one of them")
    names = [probe for probe in probes.names if all(probe in scan.probes for scan in parents)]
    found: list[LayerMend] = []
    pins: dict[int, float] = {}
    with model.lock:
        texts = {
            probe: encode_texts(model.tokenizer, probes.texts[probe], probe, max_tokens, model.context_length)
            for probe in names
        }
        lines = {probe: flag_lines(*parents, probe, limits) for probe in names}
        for place, item in enumerate(sorted(advice, key=lambda one: one.layer)):
            share = part(tick, place / len(advice), (place + 1) / len(advice))
            search = _Search(model, pinned, dict(pins), item.layer, texts, lines, parents, limits)
            mended = _mend_layer(search, item, ratios[item.layer], share)
            found.append(mended)
            if mended.after is not None:
                pins[item.layer] = mended.after
    tick(1.0, "mended")
    return tuple(found)


@dataclass(frozen=True)
class _Search:
    """What stays the same while one layer is searched."""

    model: Resident
    pinned: Pinned
    pins: dict[int, float]
    layer: int
    texts: Mapping[str, list[list[int]]]
    lines: Mapping[str, tuple[Floats, Floats]]
    parents: tuple[Scan, Scan]
    limits: Thresholds

    def measured(self, ratios: Sequence[float], before: float) -> list[Tried]:
        """The layer as it is (`before` names its ratio), then at each of `ratios`."""
        carried = self.pinned(self.pins)
        self.model.become(carried)
        forms = [self.pinned({**self.pins, self.layer: ratio}) for ratio in ratios]
        importance, nll = _measured(self.model, carried, self.layer, forms, self.texts, self.limits.measure)
        lost = {probe: self._lost(probe, losses) for probe, losses in nll.items()}
        weights = {probe: self.parents[0].weights("nll", probe) for probe in nll}
        return [
            Tried(
                ratio,
                {probe: float(importance[probe][row]) for probe in self.texts},
                {probe: float(np.average(nll[probe][row], weights=weights[probe])) for probe in self.texts},
                tuple(probe for probe in self.texts if self._flagged(probe, float(importance[probe][row]))),
                tuple(probe for probe in self.texts if lost[probe][row]),
            )
            for row, ratio in enumerate((before, *ratios))
        ]

    def _flagged(self, probe: str, importance: float) -> bool:
        ceiling, floor = self.lines[probe]
        return bool(importance > ceiling[self.layer] or importance < floor[self.layer])

    def _lost(self, probe: str, losses: Floats) -> NDArray[np.bool_]:
        """[1 + F] whether a probe reads worse than both parents, as the health check has it; `losses` [1 + F, n]."""
        beyond = [
            bootstrap_mean((losses - parent.nll[probe]).T, parent.weights("nll", probe))[1] > self.limits.worse_nll
            for parent in self.parents
        ]
        return np.logical_and(*beyond)


def _mend_layer(search: _Search, item: Advice, before: float, tick: Tick) -> LayerMend:
    goal = 1.0 if item.towards == "mother" else 0.0
    way = [round(before + (goal - before) * step / FORMS, 6) for step in range(1, FORMS)] + [goal]
    tick(0.0, f"mending L{item.layer}: {len(way)} ratios towards the {item.towards}")
    was, *tried = search.measured(way, before)
    if not was.flagged:
        return LayerMend(item.layer, item.towards, before, None, CLEAR_ALREADY, was, ())
    held = any(not one.flagged and not one.lost for one in tried)
    clear = next((index for index, one in enumerate(tried) if _fits(one, held=held)), None)
    if clear is None:
        return LayerMend(item.layer, item.towards, before, None, NOT_CLEARED, was, tuple(tried))
    near, far = (before if clear == 0 else way[clear - 1]), way[clear]
    finer = [round(near + (far - near) * step / FORMS, 6) for step in range(1, FORMS)]
    tick(0.5, f"mending L{item.layer}: between {near:.3f} and {far:.3f}")
    closer = search.measured(finer, before)[1:] if abs(far - near) > 1e-5 else []
    after = next((one.ratio for one in closer if _fits(one, held=held)), far)
    tried = sorted([*tried, *closer], key=lambda one: abs(one.ratio - before))
    return LayerMend(item.layer, item.towards, before, after, CLEARED, was, tuple(tried))


def _fits(one: Tried, *, held: bool) -> bool:
    return not one.flagged and not (held and one.lost)


@torch.inference_mode()
def _measured(
    model: Resident,
    carried: Source,
    layer: int,
    forms: Sequence[Source],
    texts: Mapping[str, list[list[int]]],
    measure: str,
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Probe -> [1 + F] importance of the layer, mean as a scan takes it, and [1 + F, n] NLL of each text: as carried,
    then in each form."""
    branches = len(forms) + 2
    lengths = {probe: np.asarray([len(ids) for ids in rows], dtype=np.float64) for probe, rows in texts.items()}
    importance = {probe: np.zeros((branches - 1, len(rows))) for probe, rows in texts.items()}
    nll = {probe: np.zeros((branches - 1, len(rows))) for probe, rows in texts.items()}
    for group in _groups(model, texts, branches):
        batches = [model.encode_batch([texts[probe][index] for index in chosen]) for probe, chosen in group]
        swept = variant_sweep(model, carried, layer, forms, batches)
        with model.head():
            for (probe, chosen), (ids, mask), states in zip(group, batches, swept, strict=True):
                losses = next_token_losses(model.logits, states, ids, mask, divergence=False)[0].numpy()
                nll[probe][:, chosen] = losses[:-1]
                for row in range(branches - 1):
                    importance[probe][row, chosen] = (
                        cosine_distance(states[row], states[-1], mask).cpu().numpy()
                        if measure == "skip"
                        else losses[-1] - losses[row]
                    )
    means = {}
    for probe, tokens in lengths.items():
        weight = tokens if measure == "skip" else tokens - 1
        means[probe] = importance[probe] @ weight / weight.sum()
        if not (np.isfinite(means[probe]).all() and np.isfinite(nll[probe]).all()):
            raise LabError(f"probe {probe}: activations are not finite while L{layer} is mended; scan in float32")
    return means, nll


def _groups(model: Resident, texts: Mapping[str, list[list[int]]], branches: int) -> list[list[tuple[str, list[int]]]]:
    """What is swept together: one batch, or as many as the states of a streamed model may take."""
    per_token = model.state_bytes_per_token() * branches // (model.layers + 1)
    groups: list[list[tuple[str, list[int]]]] = []
    room = 0
    for probe, rows in texts.items():
        lengths = [len(ids) for ids in rows]
        for chosen in batches_by_length(lengths, batch_tokens()):
            size = len(chosen) * max(lengths[index] for index in chosen) * per_token
            if not groups or size > room:
                groups.append([])
                room = model.state_bytes
            groups[-1].append((probe, chosen))
            room -= size
    return groups


def mends_to_json(mends: Sequence[LayerMend]) -> list[dict[str, Any]]:
    """Plain data."""
    return [asdict(one) for one in mends]


def mends_from_json(rows: Sequence[Mapping[str, Any]]) -> tuple[LayerMend, ...]:
    """The inverse of `mends_to_json`, also after a file. Raises `LabError` for anything else."""
    try:
        return tuple(
            LayerMend(**{**row, "was": _tried(row["was"]), "tried": tuple(_tried(one) for one in row["tried"])})
            for row in rows
        )
    except (KeyError, TypeError) as error:
        raise LabError(f"not a mending ({error}); mend again") from error


def _nullable(values: Sequence[float]) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in values]


def _tried(row: Mapping[str, Any]) -> Tried:
    return Tried(row["ratio"], dict(row["importance"]), dict(row["nll"]), tuple(row["flagged"]), tuple(row["lost"]))
