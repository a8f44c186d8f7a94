"""A genome: genes of one layout, and how they are to be read. What a person edits and a search moves.

Takes JSON or numbers, gives a checked, hashable `Genome`. Knows nothing of tensors.
"""

import hashlib
import json
from dataclasses import dataclass, field, replace
from math import exp, isfinite, log
from typing import Any

from darwin_lab.errors import LabError
from darwin_lab.genome.layouts import Blocks, Layout, layout_for

VERSION = 1
READINGS = ("logit", "mean", "component")
GENOME_OPERATORS = (
    "lerp", "slerp", "dare", "mix", "nearswap", "arcee_fusion", "passthrough",
    "task_arithmetic", "ties", "dare_ties", "breadcrumbs", "della", "sce",
)  # fmt: skip
RESCALES = ("inverse", "l1", "none")
EXPERT_MODES = ("blend", "preserve", "usage")
ROUTER_SOURCES = ("blend", "A", "B")
TRANSPLANT_V6 = 0.15
_LOGIT_CLAMP = 1e-4
_KEYS = frozenset(
    {"version", "layout", "genes", "reading", "operator", "rescale", "seed", "prescription", "blocks", "transplant",
     "experts", "router", "options", "pinned", "hash", "name"}
)  # fmt: skip


@dataclass(frozen=True)
class Genome:
    """Every gene of `layout` with its value, and the choices that go with them.

    reading: how global, component and block genes combine. transplant: a final ratio below it becomes 0,
    one above 1 - it becomes 1 (card V6 .15; 0 = off). experts: "preserve" keeps the father's experts where
    the mother's are dead, "usage" leans each expert to the parent that uses it. router: whose router rows, "A",
    "B" or "blend", for all layers or one a block; "blend" follows the prescription. options: the operator's own
    numbers, those left out at their default. prescription: hash of the prescription it was made with, if any.
    blocks: how many, or [first, last] layer ranges; None is the layout's own choice. pinned: layer -> the mother's
    share of all its tensors, its router's too, whatever genes and advice say: how a layer is mended in any layout.
    """

    layout: str
    genes: dict[str, float]
    seed: int = 0
    operator: str = "lerp"
    reading: str = "logit"
    rescale: str = "inverse"
    transplant: float = 0.0
    experts: str = "blend"
    router: str | tuple[str, ...] = "blend"
    options: dict[str, float] = field(default_factory=dict)
    prescription: str | None = None
    blocks: Blocks = None
    pinned: dict[int, float] = field(default_factory=dict)

    @property
    def reads_advice(self) -> bool:
        """Whether a prescription changes what this genome does."""
        return self.genes.get("mri_trust", 0.0) > 0 or self.experts != "blend"

    @property
    def hash(self) -> str:
        """12 hex digits: SHA-256 of the canonical JSON, genes rounded to 1e-6."""
        canonical = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def to_json(self) -> dict[str, Any]:
        """The genome as a JSON object; router, options and pinned layers only where they say something."""
        said: dict[str, Any] = {}
        if self.router != "blend":
            said["router"] = self.router if isinstance(self.router, str) else list(self.router)
        if self.options:
            said["options"] = {name: round(value, 6) for name, value in sorted(self.options.items())}
        if self.pinned:
            said["pinned"] = {str(layer): round(share, 6) for layer, share in sorted(self.pinned.items())}
        return {
            "version": VERSION,
            "layout": self.layout,
            "genes": {name: round(value, 6) for name, value in self.genes.items()},
            "reading": self.reading,
            "operator": self.operator,
            "rescale": self.rescale,
            "seed": self.seed,
            "transplant": self.transplant,
            "experts": self.experts,
            "prescription": self.prescription,
            "blocks": [list(block) for block in self.blocks] if isinstance(self.blocks, tuple) else self.blocks,
            **said,
        }

    def layout_of(self, layers: int) -> Layout:
        return layout_for(self.layout, layers, self.blocks)

    def with_genes(self, **genes: float) -> "Genome":
        """A copy with some genes changed. Raises `LabError` for an unknown gene or a value that is no number."""
        for name, value in genes.items():
            if name not in self.genes:
                raise LabError(f"layout {self.layout} has no gene {name!r}; it has {', '.join(self.genes)}")
            if not isfinite(value):
                raise LabError(f"gene {name} is {value}; give a number")
        return replace(self, genes={**self.genes, **{name: float(value) for name, value in genes.items()}})


def operators_of(layout: str) -> tuple[str, ...]:
    """The operators a layout goes with: v7 interpolates and does nothing else."""
    return ("lerp",) if layout == "v7" else GENOME_OPERATORS


def neutral_genome(layout: str, layers: int, *, blocks: Blocks = None, **choices: Any) -> Genome:
    """Every gene at its neutral value; `choices` as in `Genome`. `v6` has the card's transplant thresholds."""
    choices.setdefault("transplant", TRANSPLANT_V6 if layout == "v6" else 0.0)
    return Genome(layout, layout_for(layout, layers, blocks).neutral(), blocks=blocks, **choices)


def genome_from_json(data: dict[str, Any] | str, layers: int) -> Genome:
    """A checked genome; genes left out take their neutral value.

    Raises `LabError` for anything it does not know: key, layout, gene, value out of range, operator, reading.
    """
    if isinstance(data, str):
        try:
            data = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise LabError(f"the genome is not JSON ({str(error)[:100] or 'nested too deeply'})") from None
    if not isinstance(data, dict) or not isinstance(data.get("layout"), str):
        raise LabError('the genome has no layout; write {"layout": "v6", "genes": {"global_ratio": 0.5}}')
    unknown = sorted(set(data) - _KEYS)
    if unknown:
        raise LabError(f"the genome has an unknown key {unknown[0]!r}; known are {', '.join(sorted(_KEYS))}")
    if data.get("version", VERSION) != VERSION:
        raise LabError(f"the genome has version {data['version']!r}, this lab reads version {VERSION}; export it again")
    blocks = blocks_from_json(data.get("blocks"))
    layout = layout_for(data["layout"], layers, blocks)
    genes = data.get("genes", {})
    if not isinstance(genes, dict):
        raise LabError('genes is not an object; write {"genes": {"%s": 0.5}}' % layout.genes[0].name)
    values = {**layout.neutral(), **{name: _checked(layout, name, value) for name, value in genes.items()}}
    seed = data.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise LabError(f"seed is {seed!r}; give a whole number")
    transplant = data.get("transplant", TRANSPLANT_V6 if layout.name == "v6" else 0.0)
    if isinstance(transplant, bool) or not isinstance(transplant, int | float) or not 0 <= transplant < 0.5:
        raise LabError(f"transplant is {transplant!r}; give a number from 0 (off) to below .5")
    prescription = data.get("prescription")
    if prescription is not None and not isinstance(prescription, str):
        raise LabError("prescription is not a hash; leave it out or give the text the lab wrote")
    operator = _choice(data, "operator", GENOME_OPERATORS)
    if operator not in operators_of(layout.name):
        raise LabError(f"layout {layout.name} is linear only, operator is {operator}; choose lerp or another layout")
    return Genome(
        layout=layout.name,
        genes=values,
        seed=seed,
        operator=operator,
        reading=_choice(data, "reading", READINGS),
        rescale=_choice(data, "rescale", RESCALES),
        transplant=float(transplant),
        experts=_choice(data, "experts", EXPERT_MODES),
        router=_router(data.get("router", "blend"), layout),
        options=_options(data.get("options", {})),
        prescription=prescription,
        blocks=blocks,
        pinned=_pinned(data.get("pinned", {}), layers),
    )


def blocks_from_json(value: Any) -> Blocks:
    """A number of blocks, or their [first, last] layers. Raises `LabError` for anything else."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, list | tuple) and value:
        pairs = [tuple(pair) for pair in value if isinstance(pair, list | tuple) and len(pair) == 2]
        if len(pairs) == len(value) and all(type(layer) is int for pair in pairs for layer in pair):
            return tuple((first, last) for first, last in pairs)
    raise LabError(f"blocks is {str(value)[:60]}; give a whole number, [[0, 37], [38, 39]], or leave it out")


def combine(shares: list[float], reading: str) -> float:
    """One ratio from the global, component and block shares that own a tensor.

    `logit`: sigmoid of the summed log-odds, .5 neutral; an exact 0 or 1 decides, unless both
    occur. `mean`: the average. Without any share .5.
    """
    if not shares:
        return 0.5
    if reading == "mean":
        return sum(shares) / len(shares)
    low, high = 0.0 in shares, 1.0 in shares
    if low != high:
        return 1.0 if high else 0.0
    clamped = [min(max(share, _LOGIT_CLAMP), 1.0 - _LOGIT_CLAMP) for share in shares]
    return 1.0 / (1.0 + exp(-sum(log(share / (1.0 - share)) for share in clamped)))


def _checked(layout: Layout, name: str, value: Any) -> float:
    gene = layout.gene(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise LabError(f"gene {name} is {value!r}; give a number from {gene.low:g} to {gene.high:g}")
    if not gene.low <= value <= gene.high:
        raise LabError(f"gene {name} is {str(value)[:20]}, outside {gene.low:g} to {gene.high:g}")
    return float(value)


def _router(value: Any, layout: Layout) -> str | tuple[str, ...]:
    """One source for all layers, or a list with one for each block; a list of equals is that one."""
    sources = value if isinstance(value, list) else [value]
    if any(source not in ROUTER_SOURCES for source in sources):
        raise LabError(f"router is {value!r}; choose {', '.join(ROUTER_SOURCES)}, or a list with one of them a block")
    if isinstance(value, list) and len(value) != len(layout.blocks):
        raise LabError(f"router names {len(value)} blocks, layout {layout.name} has {len(layout.blocks)} here")
    return str(sources[0]) if len(set(sources)) == 1 else tuple(sources)


def _options(value: Any) -> dict[str, float]:
    """Names and numbers; which of them the operator knows is checked where the recipe is made."""
    if not isinstance(value, dict):
        raise LabError('options is not an object; write {"options": {"lambda": 1.2}}')
    for name, number in value.items():
        if isinstance(number, bool) or not isinstance(number, int | float) or not isfinite(number):
            raise LabError(f"option {name} is {number!r}; give a number")
    return {str(name): float(number) for name, number in value.items()}


def _pinned(value: Any, layers: int) -> dict[int, float]:
    """Layer -> share. JSON has the layers as texts."""
    if not isinstance(value, dict):
        raise LabError('pinned is not an object; write {"pinned": {"3": 0.25}}')
    found = {}
    for name, share in value.items():
        layer = int(name) if isinstance(name, str) and name.isascii() and name.isdigit() and len(name) < 6 else None
        if layer is None or layer >= layers:
            raise LabError(f"pinned names layer {str(name)[:20]!r}; this model has 0 to {layers - 1}")
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise LabError(f"layer {layer} is pinned at {str(share)[:20]}; give the mother's share, from 0 to 1")
        found[layer] = round(float(share), 6)
    return dict(sorted(found.items()))


def _choice(data: dict[str, Any], key: str, allowed: tuple[str, ...]) -> str:
    value = data.get(key, allowed[0])
    if value not in allowed:
        raise LabError(f"{key} is {value!r}; choose {', '.join(allowed)}")
    return str(value)
