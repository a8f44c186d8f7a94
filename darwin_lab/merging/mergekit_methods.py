"""mergekit's merge methods in our words: which operator each is, and when its numbers say the same as a recipe's.

Takes the parameters that mergekit would resolve for every tensor, gives ratios, densities and options, and the reasons
where a recipe would give other bytes. Formulas: mergekit 0.1.5. Knows neither YAML nor files.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from darwin_lab.merging.operators import OPTIONS

Value = float | bool | None
_DIGITS = 6


@dataclass(frozen=True)
class Method:
    """One merge_method.

    base: "needed", or "optional" where it may be one of the two models. pair_of_base: it merges the base with one
    other model. normalize, rescale: mergekit's defaults. one_delta: the operator when the base is the father himself
    and only the mother has a delta; "" where a recipe cannot say that. parameters: those it uses.
    """

    name: str
    operator: str
    parameters: frozenset[str]
    base: str = "needed"
    pair_of_base: bool = False
    normalize: bool = False
    rescale: bool = False
    one_delta: str = ""
    notes: tuple[str, ...] = ()

    @property
    def needs_himself(self) -> bool:
        """Whether the one-delta form takes the father as ancestor too."""
        return self.one_delta not in ("", "lerp", "dare")


@dataclass(frozen=True)
class Said:
    """What is said of one tensor: shared parameters, and each parent's own (None: the parent has none there)."""

    shared: Mapping[str, Value]
    father: Mapping[str, Value] | None
    mother: Mapping[str, Value] | None


@dataclass(frozen=True)
class Share:
    """One row of a recipe; `factor` is the lambda this tensor would need."""

    ratio: float
    density_a: float = 1.0
    density_b: float = 1.0
    factor: float = 1.0


@dataclass
class Settled:
    """A whole recipe's worth: what is the same for all tensors, a share for each, and what cannot be said."""

    operator: str
    rows: dict[str, Share]
    rescale: str = "inverse"
    options: dict[str, float] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)


_MASKS = ("mergekit draws its masks without a key; the lab's come from --seed",)
_DELTA = frozenset({"weight", "density", "lambda", "normalize", "rescale"})
METHODS = {
    method.name: method
    for method in (
        Method("linear", "lerp", frozenset({"weight", "normalize"}), base="optional", normalize=True),
        Method("slerp", "slerp", frozenset({"t"}), pair_of_base=True),
        Method("nearswap", "nearswap", frozenset({"t"}), pair_of_base=True),
        Method("arcee_fusion", "arcee_fusion", frozenset(), pair_of_base=True,
               notes=("mergekit samples the quartiles of large tensors, here they are exact",)),
        Method("passthrough", "passthrough", frozenset({"scale"}), base="optional"),
        Method("task_arithmetic", "task_arithmetic", _DELTA - {"density", "rescale"}, one_delta="lerp"),
        Method("ties", "ties", _DELTA, normalize=True, one_delta="ties"),
        Method("dare_ties", "dare_ties", _DELTA, rescale=True, one_delta="dare", notes=_MASKS),
        Method("dare_linear", "dare_linear", _DELTA, rescale=True, one_delta="dare", notes=_MASKS),
        Method("breadcrumbs", "breadcrumbs", _DELTA | {"gamma"}, one_delta="breadcrumbs"),
        Method("breadcrumbs_ties", "breadcrumbs_ties", _DELTA | {"gamma"}, one_delta="breadcrumbs"),
        Method("della", "della", _DELTA | {"epsilon"}, normalize=True, rescale=True, one_delta="della", notes=_MASKS),
        Method("della_linear", "della_linear", _DELTA | {"epsilon"}, rescale=True, one_delta="della", notes=_MASKS),
        Method("sce", "sce", frozenset({"select_topk"})),
    )
}  # fmt: skip
_AT_DENSITY_1 = {"dare_linear": "task_arithmetic", "della_linear": "task_arithmetic", "breadcrumbs_ties": "dare_ties"}
"""What methods without an operator of ours come to where nothing is dropped."""
_AVERAGES = frozenset({"ties", "della"})
_SUMS = frozenset({"dare_ties"})
_DEFAULTS = {"gamma": 0.01, "epsilon": 0.15}


def settle(method: Method, said: Mapping[str, Said], *, has_ancestor: bool) -> Settled:
    """The shares of all tensors (by name). `refused` is empty when a recipe says the same."""
    if method.name == "passthrough":
        return _passed(said)
    if method.name == "linear":
        return _blended("lerp", said, lambda one: _linear_ratio(one, method))
    if method.name == "slerp":
        return _blended("slerp", said, lambda one: _required(one.shared.get("t"), "t"))
    if method.pair_of_base:
        settled = Settled(method.operator, dict.fromkeys(said, Share(0.5)))
        if method.name == "nearswap":
            _one_option(settled, "t", [_required(one.shared.get("t"), "t") for one in said.values()])
        return settled
    if method.name == "sce":
        tops = {name: _number(one.shared.get("select_topk"), 1.0) for name, one in said.items()}
        return Settled("sce", {name: Share(0.5, 1.0, min(max(top, 0.0), 1.0)) for name, top in tops.items()})
    return _deltas(method, said, one_delta=any(one.father is None or not _weighs(one.father) for one in said.values()))


def _weighs(parent: Mapping[str, Value]) -> bool:
    return parent.get("weight") is not None


def _blended(operator: str, said: Mapping[str, Said], ratio: Callable[[Said], float]) -> Settled:
    settled = Settled(operator, {})
    for name, one in said.items():
        try:
            settled.rows[name] = Share(round(ratio(one), _DIGITS))
        except ValueError as error:
            settled.refused.append(str(error))
    if any(not 0.0 <= row.ratio <= 1.0 for row in settled.rows.values()):
        settled.refused.append("a weight or t that leaves the line between the two models (ratio below 0 or above 1)")
    return settled


def _linear_ratio(one: Said, method: Method) -> float:
    weights = [_required((parent or {}).get("weight"), "weight") for parent in (one.father, one.mother)]
    total = sum(weights)
    normalized = _flag(one.shared.get("normalize"), method.normalize)
    if abs(total) < 1e-8 or (not normalized and abs(total - 1.0) > 1e-6):
        raise ValueError("weights that do not sum to 1 and are not normalised")
    return weights[1] / total


def _passed(said: Mapping[str, Said]) -> Settled:
    """Each layer from one parent: a copy, or all of them times one scale."""
    settled = Settled("passthrough", {})
    scales = []
    for name, one in said.items():
        if (one.father is None) == (one.mother is None):
            settled.refused.append("passthrough of two models in one slice")
        scales.append(_number((one.father or one.mother or {}).get("scale"), 1.0))
        settled.rows[name] = Share(0.0 if one.father is not None else 1.0)
    _one_option(settled, "scale", scales)
    if settled.options.pop("scale", 1.0) != 1.0:
        settled.options["scale"] = scales[0]
        settled.rows = {name: Share(0.25 if row.ratio == 0.0 else 0.75) for name, row in settled.rows.items()}
    return settled


def _deltas(method: Method, said: Mapping[str, Said], *, one_delta: bool) -> Settled:
    """The task-vector methods: base + lambda (w_a dA + w_b dB), thinned out, elected or averaged."""
    settled = Settled(method.one_delta if one_delta else method.operator, {})
    densities = [_density(parent) for one in said.values() for parent in (one.father, one.mother) if parent is not None]
    thinned = method.name != "task_arithmetic" and min(densities, default=1.0) < 1.0
    if not thinned and not one_delta:
        settled.operator = _AT_DENSITY_1.get(method.name, method.operator)
    if settled.operator not in OPTIONS and settled.operator not in ("lerp", "dare"):
        settled.refused.append(f"{method.name} of two deltas with density below 1")
        return settled
    if min(densities, default=1.0) <= 0.0:
        settled.refused.append("density 0")
    for name, one in said.items():
        try:
            settled.rows[name] = _delta_share(method, settled.operator, one, one_delta)
        except ValueError as error:
            settled.refused.append(str(error))
    if settled.refused:
        return settled
    if thinned:
        _rescaled(settled, method, said)
        for option in _DEFAULTS.keys() & OPTIONS.get(settled.operator, {}).keys():
            used = [parent for one in said.values() for parent in (one.father, one.mother) if parent is not None]
            numbers = [_number(parent.get(option), _DEFAULTS[option]) for parent in used if _density(parent) < 1.0]
            _one_option(settled, option, numbers)
    _one_factor(settled, one_delta)
    return settled


def _delta_share(method: Method, operator: str, one: Said, one_delta: bool) -> Share:
    """One tensor. Raises `ValueError` with the reason where no ratio and lambda say the same."""
    factor = _number(one.shared.get("lambda"), 1.0)
    normalized = _flag(one.shared.get("normalize"), method.normalize)
    thins = method.name != "task_arithmetic"
    density_b = _density(one.mother) if thins else 1.0
    weight_b = _required((one.mother or {}).get("weight"), "weight")
    if one_delta:
        strength = factor if normalized else factor * weight_b
        return Share(0.5 if operator in _AVERAGES else round(strength, _DIGITS), 1.0, density_b, strength)
    weight_a = _required((one.father or {}).get("weight"), "weight")
    total = weight_a + weight_b
    if min(weight_a, weight_b) < 0.0 or total < 1e-8:
        raise ValueError("negative weights, or none but 0")
    if (operator in _AVERAGES and not normalized) or (operator in _SUMS and normalized):
        raise ValueError(f"{method.name} with normalize: {str(normalized).lower()}")
    factor = factor if normalized else factor * total
    return Share(round(weight_b / total, _DIGITS), _density(one.father) if thins else 1.0, density_b, factor)


def _one_factor(settled: Settled, one_delta: bool) -> None:
    """Lambda is one number for the whole recipe; and a ratio of 0 or 1 is a copy, whatever else is said."""
    if one_delta:
        _one_strength(settled)
    for row in settled.rows.values():
        density = row.density_a if row.ratio == 0.0 else row.density_b
        if row.ratio in (0.0, 1.0) and (density < 1.0 or abs(row.factor - 1.0) > 1e-6):
            settled.refused.append("weight 0 beside a density below 1 or a lambda: a plain copy here")
        if not 0.0 <= row.ratio <= 1.0:
            settled.refused.append("a weight that leaves the line between the two models")
    factors = [row.factor for row in settled.rows.values() if 0.0 < row.ratio < 1.0]
    if settled.operator in ("lerp", "dare"):
        if any(abs(factor - 1.0) > 1e-6 for factor in factors):
            settled.refused.append(f"lambda other than 1 with {settled.operator}")
        return
    _one_option(settled, "lambda", factors)
    if settled.options.get("lambda") == 1.0:
        del settled.options["lambda"]


def _one_strength(settled: Settled) -> None:
    """A + s dB is ratio s at lambda 1; where s reaches 1 it is ratio 1/2 at lambda 2 s, if all have the same s."""
    strengths = {name: row.factor for name, row in settled.rows.items()}
    together = settled.operator in _AVERAGES
    whole = max(strengths.values(), default=0.0) >= 1.0 and settled.operator not in ("lerp", "dare") and not together
    for name, row in settled.rows.items():
        strength = strengths[name]
        ratio = 0.5 if together or whole else row.ratio
        factor = strength if together else 2.0 * strength if whole else 1.0
        settled.rows[name] = Share(ratio, row.density_a, row.density_b, factor)


def _rescaled(settled: Settled, method: Method, said: Mapping[str, Said]) -> None:
    flags = {_flag(one.shared.get("rescale"), method.rescale) for one in said.values()}
    if len(flags) > 1:
        settled.refused.append("rescale that differs between tensors")
    if settled.operator in ("dare", "dare_ties", "della"):
        settled.rescale = "l1" if True in flags else "none"
    elif True in flags:
        settled.refused.append(f"{method.name} with rescale: true")


def _one_option(settled: Settled, name: str, numbers: Sequence[float]) -> None:
    """An option of the whole recipe; refused where the file has several values or one out of range."""
    values = {round(number, _DIGITS) for number in numbers}
    if len(values) > 1:
        settled.refused.append(f"{name} that differs between tensors or models ({_few(values)}); a recipe has one")
    elif values:
        option, value = OPTIONS[settled.operator][name], values.pop()
        if not option.low <= value <= option.high:
            settled.refused.append(f"{name} {value:g}, outside {option.low:g} to {option.high:g}")
        settled.options[name] = value


def _few(values: set[float]) -> str:
    return ", ".join(f"{value:g}" for value in sorted(values)[:4])


def _density(parent: Mapping[str, Value] | None) -> float:
    return round(min(_number((parent or {}).get("density"), 1.0), 1.0), _DIGITS)


def _number(value: Value, default: float) -> float:
    return default if value is None else float(value)


def _flag(value: Value, default: bool) -> bool:
    return default if value is None else bool(value)


def _required(value: Value, name: str) -> float:
    if value is None:
        raise ValueError(f"a tensor without {name}")
    return float(value)
