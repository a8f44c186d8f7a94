"""What a health check finds, as plain data: rows by layer and probe, what becomes of the child, and the limits used.

Takes nothing but its own fields; gives JSON and reads it back. Must not know: scans, how anything is compared.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from darwin_lab.errors import LabError
from darwin_lab.mri.loops import LoopRow
from darwin_lab.mri.moe_health import MoeHealth, moe_from_json
from darwin_lab.mri.record import MEASURES


@dataclass(frozen=True)
class Thresholds:
    """Where health ends. Source: methods, section 6 (ours, adjustable)."""

    interference_factor: float = 1.25
    interference_margin: float = 0.02
    """Interference: I_child > factor x max(I_A, I_B) + margin."""
    loss_quantile: float = 0.75
    loss_factor: float = 0.5
    """Function loss: max(I_A, I_B) above its quantile over layers, and I_child below factor of it."""
    inherited_factor: float = 1.25
    """... and below min(I_A, I_B) / this: what works as in one parent is inherited, not lost. 0 leaves this out."""
    watch_layers: float = 0.0
    """Above this share of layers flagged, a child is at least to be watched."""
    unhealthy_layers: float = 0.25
    """Above this share of layers flagged, a child is unhealthy."""
    worse_nll: float = 0.0
    """A probe is lost when the child's NLL is above both parents' by more than this (nats), the interval included."""
    broken_nll: float = 0.5
    """A probe is broken, and the child unhealthy, when it is above both by more than this (nats)."""
    measure: str = "skip"
    """Importance that is compared."""

    def __post_init__(self) -> None:
        """Refuse what is no threshold (LabError, one line)."""
        for name, value in asdict(self).items():
            least = -np.inf if name == "interference_margin" else 0.0
            most = 1.0 if name in ("loss_quantile", "watch_layers", "unhealthy_layers") else np.inf
            if name != "measure" and not (
                isinstance(value, int | float) and least <= value <= most and abs(value) < np.inf
            ):
                span = "" if least < 0 else " from 0 to 1" if most == 1.0 else ", 0 or more"
                raise LabError(f"health threshold {name} is {value!r}; give a number{span}")
        if self.measure not in MEASURES:
            raise LabError(f"no measure named {self.measure}; choose one of {', '.join(MEASURES)}")


@dataclass(frozen=True)
class LayerRow:
    """One layer under one probe."""

    layer: int
    probe: str
    child: float
    father: float
    mother: float
    interference: bool
    function_loss: bool


@dataclass(frozen=True)
class NllRow:
    """One probe: NLL of the three (nats a token), child minus each parent with its paired 95 % interval over texts."""

    probe: str
    texts: int
    tokens: int
    child: float
    father: float
    mother: float
    child_minus_father: tuple[float, float, float]
    """(mean, low, high); the interval is NaN for a single text."""
    child_minus_mother: tuple[float, float, float]
    lost: bool
    """Worse than both parents, intervals included."""


@dataclass(frozen=True)
class Transplant:
    """A golden layer: does the child hold what the mother's layer does there?"""

    layer: int
    successful: bool
    probes: tuple[str, ...]
    """Probes on which the mother reads better than the father: those the layer was wanted for."""
    failed: tuple[str, ...]
    """Of these, where the child falls short of the mother's interval in importance or NLL."""


@dataclass(frozen=True)
class Advice:
    """What would mend a flagged layer."""

    layer: int
    towards: str
    """"father" or "mother": the one with the lower NLL on the probes where the layer fails."""
    gap: float
    """How much lower (nats a token)."""
    probes: tuple[str, ...]
    reason: str


@dataclass(frozen=True, eq=False)
class Health:
    """Of scans in `dtype`. `layer_importance[who]` is [L], weighted over skills; `rows` hold every layer x probe."""

    child: str
    father: str
    mother: str
    verdict: str
    """healthy, watch or unhealthy."""
    sentence: str
    rows: tuple[LayerRow, ...]
    nll: tuple[NllRow, ...]
    layer_importance: dict[str, tuple[float, ...]]
    dead_share: dict[str, tuple[float, ...] | None]
    """Per MoE layer; None where not certified or without experts."""
    moe_layers: tuple[int, ...]
    transplants: tuple[Transplant, ...]
    advice: tuple[Advice, ...]
    thresholds: Thresholds = field(default_factory=Thresholds)
    moe: MoeHealth | None = None
    """The experts; None for a dense model."""
    loops: tuple[LoopRow, ...] = ()
    """Texts that end in a loop, child, father and mother; empty where that was not measured."""
    dtype: str = "float32"

    @property
    def flagged_layers(self) -> tuple[int, ...]:
        """Layers with interference or function loss under any probe."""
        return tuple(sorted({row.layer for row in self.rows if row.interference or row.function_loss}))

    def to_json(self) -> dict[str, Any]:
        """Plain data; an unknown interval is null."""
        data: dict[str, Any] = _plain({"version": 1, **asdict(self), "flagged_layers": self.flagged_layers})
        return data

    @staticmethod
    def from_json(data: dict[str, Any]) -> "Health":
        """The inverse of `to_json`. Raises `LabError` for anything else."""
        try:
            return Health(
                child=data["child"],
                father=data["father"],
                mother=data["mother"],
                verdict=data["verdict"],
                sentence=data["sentence"],
                rows=tuple(LayerRow(**row) for row in data["rows"]),
                nll=tuple(
                    NllRow(
                        **{
                            **row,
                            "child_minus_father": _triple(row["child_minus_father"]),
                            "child_minus_mother": _triple(row["child_minus_mother"]),
                        }
                    )
                    for row in data["nll"]
                ),
                layer_importance={who: tuple(values) for who, values in data["layer_importance"].items()},
                dead_share={who: None if v is None else tuple(v) for who, v in data["dead_share"].items()},
                moe_layers=tuple(data["moe_layers"]),
                transplants=tuple(
                    Transplant(row["layer"], row["successful"], tuple(row["probes"]), tuple(row["failed"]))
                    for row in data["transplants"]
                ),
                advice=tuple(Advice(**{**row, "probes": tuple(row["probes"])}) for row in data["advice"]),
                thresholds=Thresholds(**data["thresholds"]),
                moe=moe_from_json(data.get("moe")),
                loops=tuple(LoopRow(**row) for row in data.get("loops", ())),
                dtype=data.get("dtype", "float32"),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise LabError(f"not a health check ({error}); run it again") from error


def _triple(values: Sequence[float | None]) -> tuple[float, float, float]:
    mean, low, high = (np.nan if value is None else float(value) for value in values)
    return mean, low, high


def _plain(value: Any) -> Any:
    """Tuples as lists and numbers that are not finite as null, all the way down."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
