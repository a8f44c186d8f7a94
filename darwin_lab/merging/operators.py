"""What merge operators there are, what each needs and which numbers of its own it takes.

Tables only, so that the shell and the page can list operators without torch; the arithmetic is in `arithmetic.py`.
Definitions: methods section 5; where mergekit 0.1.5 has the operator, its definition.
"""

from dataclasses import dataclass, field

NEEDS_ANCESTOR = {
    "lerp": False, "slerp": False, "dare": False, "mix": False,
    "task_arithmetic": True, "ties": True, "dare_ties": True,
    "breadcrumbs": True, "della": True, "sce": True,
    "arcee_fusion": False, "nearswap": False, "passthrough": False,
}  # fmt: skip
OPERATORS = tuple(name for name in NEEDS_ANCESTOR if name != "mix")
USES_ANCESTOR = frozenset(name for name, needs in NEEDS_ANCESTOR.items() if needs) | {"mix"}
"""Operators that read the ancestor where there is one."""
USES_DRAWS = frozenset({"dare", "dare_ties", "mix", "della"})
USES_DENSITY_A = frozenset({"ties", "dare_ties", "mix", "breadcrumbs", "della"})
USES_DENSITY_B = USES_DENSITY_A | {"dare", "sce"}
"""In `sce`, where both deltas share one selection, density_b is the share selected (mergekit's `select_topk`)."""
IGNORES_RATIO = frozenset({"arcee_fusion"})
"""Operators for which only the ratios 0 and 1 act, as copies; between them the ratio changes nothing."""


@dataclass(frozen=True)
class Option:
    """A number an operator takes beside ratio and densities. `default` None: worked out as `what` says."""

    default: float | None
    low: float
    high: float
    what: str


_LAMBDA = Option(1.0, 0.0, 2.0, "factor of the merged delta before it is added to the ancestor")
OPTIONS: dict[str, dict[str, Option]] = {
    "task_arithmetic": {"lambda": _LAMBDA},
    "ties": {"lambda": _LAMBDA},
    "dare_ties": {"lambda": _LAMBDA},
    "breadcrumbs": {
        "lambda": _LAMBDA,
        "gamma": Option(0.01, 0.0, 0.5, "share of the largest entries of each delta that is dropped"),
    },
    "della": {
        "lambda": _LAMBDA,
        "epsilon": Option(
            0.15, 0.0, 0.5, "keep probabilities span density - epsilon .. density + epsilon by rank in the row"
        ),
    },
    "sce": {"lambda": _LAMBDA},
    "nearswap": {
        "t": Option(
            None, 0.0, 1.0, "difference up to which the mother is taken whole; by default r / (1 - r) x mean |B - A|"
        ),
    },
    "passthrough": {"scale": Option(1.0, 0.0, 2.0, "factor of the parent that is passed through")},
}


@dataclass(frozen=True)
class How:
    """How one tensor is blended, but for the ratio. `rescale`: what the survivors of a random mask are multiplied by:
    "inverse" 1 / probability, "l1" the ratio of L1 norms before and after (the usual tool's way), "none" nothing."""

    operator: str
    density_a: float = 1.0
    density_b: float = 1.0
    rescale: str = "inverse"
    mix: float = 0.5
    seed: int = 0
    options: dict[str, float] = field(default_factory=dict)

    def option(self, name: str) -> float | None:
        """The option's value, its default, or None where this operator has neither."""
        known = OPTIONS.get(self.operator, {}).get(name)
        return None if known is None else self.options.get(name, known.default)
