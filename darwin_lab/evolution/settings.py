"""What one evolution was asked to do: a frozen record that goes into the run store and comes back unchanged.

Takes and gives plain JSON. Knows nothing of models, items or time; a run is reproduced by these numbers, the parents
and the items.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from darwin_lab.errors import LabError
from darwin_lab.genome.genome import blocks_from_json
from darwin_lab.genome.layouts import Blocks
from darwin_lab.merging.prescription import MODES, V5_TRANSPLANT

STARTS = ("mri", "neutral", "random", "genome")
CONTROLS = ("lerp_sweep", "random", "placebo")


@dataclass(frozen=True)
class EvolutionSettings:
    """One evolution (methods.md section 7).

    layout          genome layout that is searched: v4, v5, v6, v7 or layerwise
    operator        merge operator of every candidate
    options         the operator's own numbers; those left out are at their default
    reading         how a tensor's ratio is read from the genes: logit, mean or component
    rescale         what a dropped delta is divided by: inverse, l1 or none
    transplant      ratios nearer to 0 or 1 than this are copies; None is the layout's own threshold
    experts         "preserve" keeps the father's experts where the mother's are dead, "usage" leans each expert to
                    the parent that uses it, "blend" does neither
    router          whose router rows: "A", "B" or "blend", for all layers or one a block
    blocks          blocks of a v5 or v6 genome: how many, or [first, last] layers; None is the layout's own choice
    pinned          layer -> the mother's share of all its tensors in every candidate: how a mended layer stays mended
    budget          candidates scored for real, controls and final pick not counted
    seed            of the search, of the item subsets and of the merge draws
    sigma0          first step size, in units of a gene's range
    popsize         candidates a generation; None is 4 + floor(3 ln n)
    start           where the search begins: the prescription (mri), the layout's neutral values, a draw from the
                    seed, or `start_genes`
    start_genes     genes of start "genome"; genes left out keep their neutral value
    items_per_task  selection items a task every candidate meets, redrawn each generation; 0 is all of them
    survivors       best candidates of a generation that also meet the rest of the selection items; None is a third
    final_top       best distinct candidates that are scored again on validation items for the final pick
    patience        generations without a paired improvement after which the search stops early
    frozen          names of genes that keep their starting value
    prescription    mode of the prescription that mri_trust and start "mri" read
    dtype           of the scans that advise; whoever starts the run sets it
    controls        opt-in controls on the same items and budget: lerp_sweep, random, placebo
    report          whether the pick and its parents are scored on report items at the end (one look)
    """

    layout: str = "v6"
    operator: str = "lerp"
    reading: str = "logit"
    rescale: str = "inverse"
    transplant: float | None = None
    experts: str = "blend"
    router: str | tuple[str, ...] = "blend"
    options: dict[str, float] = field(default_factory=dict)
    blocks: Blocks = None
    pinned: dict[int, float] = field(default_factory=dict)
    budget: int = 60
    seed: int = 0
    sigma0: float = 0.18
    popsize: int | None = None
    start: str = "mri"
    start_genes: dict[str, float] | None = None
    items_per_task: int = 40
    survivors: int | None = None
    final_top: int = 3
    patience: int = 5
    frozen: tuple[str, ...] = ()
    prescription: str = "contrastive"
    dtype: str = "float32"
    controls: tuple[str, ...] = ()
    report: bool = True

    def __post_init__(self) -> None:
        """Refuse settings under which no evolution can run (LabError, one line)."""
        whole = {"budget": 2, "final_top": 1, "patience": 1, "items_per_task": 0}
        for name, least in whole.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise LabError(f"evolution settings: {name} is {value!r}; give a whole number >= {least}")
        for name, least in {"popsize": 2, "survivors": 1}.items():
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise LabError(f"evolution settings: {name} is {value!r}; give a whole number >= {least} or null")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**32:
            raise LabError(f"evolution settings: seed is {self.seed!r}; give a whole number from 0 to {2**32 - 1}")
        if isinstance(self.sigma0, bool) or not isinstance(self.sigma0, int | float) or not 0 < self.sigma0 <= 1:
            raise LabError(f"evolution settings: sigma0 is {self.sigma0!r}; give a number in (0, 1]")
        if self.start not in STARTS:
            raise LabError(f"evolution settings: start is {self.start!r}; choose one of {', '.join(STARTS)}")
        if self.start == "genome" and not self.start_genes:
            raise LabError("evolution settings: start 'genome' needs start_genes; give them or choose start 'neutral'")
        if self.prescription not in MODES:
            raise LabError(
                f"evolution settings: prescription is {self.prescription!r}; choose one of {', '.join(MODES)}"
            )
        for name in self.controls:
            if name not in CONTROLS:
                raise LabError(f"evolution settings: unknown control {name!r}; choose from {', '.join(CONTROLS)}")

    def choices(self) -> dict[str, Any]:
        """The settings that every genome of the run carries, as keyword arguments of `neutral_genome`."""
        chosen: dict[str, Any] = {
            "seed": self.seed,
            "operator": self.operator,
            "reading": self.reading,
            "rescale": self.rescale,
            "experts": self.experts,
            "router": self.router,
            "options": self.options,
            "pinned": self.pinned,
        }
        if self.transplant is not None:
            return {**chosen, "transplant": self.transplant}
        by_v5 = self.prescription == "card_v5" and self.layout == "v6"
        return {**chosen, "transplant": V5_TRANSPLANT} if by_v5 else chosen

    def to_json(self) -> dict[str, Any]:
        """The settings as a JSON object; `settings_from_json` reads it back equal."""
        data = asdict(self)
        data["frozen"] = list(self.frozen)
        data["controls"] = list(self.controls)
        data["router"] = self.router if isinstance(self.router, str) else list(self.router)
        data["pinned"] = {str(layer): share for layer, share in self.pinned.items()}
        data["blocks"] = [list(block) for block in self.blocks] if isinstance(self.blocks, tuple) else self.blocks
        return data


def settings_from_json(data: Mapping[str, Any]) -> EvolutionSettings:
    """Read settings; fields left out keep their default. LabError names an unknown field or a bad value."""
    known = {one.name for one in fields(EvolutionSettings)}
    unknown = sorted(set(data) - known)
    if unknown:
        raise LabError(f"evolution settings: unknown field {unknown[0]!r}; known are {', '.join(sorted(known))}")
    values = dict(data)
    for name in ("frozen", "controls"):
        if name in values:
            values[name] = tuple(values[name])
    if isinstance(values.get("router"), list):
        values["router"] = tuple(values["router"])
    values["blocks"] = blocks_from_json(values.get("blocks"))
    values["pinned"] = {int(layer): share for layer, share in (values.get("pinned") or {}).items()}
    return EvolutionSettings(**values)
