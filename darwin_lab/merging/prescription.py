"""What two scans advise, as plain numbers; filled by the Model MRI, read by the recipe."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Prescription:
    """Advice on the mother's share.

    ratio: tensor name -> mri_ratio in [0, 1]. layer_ratio: size-weighted mean per layer.
    component_ratio: the same per component ("attn", "ffn", "embed", "global").
    blocks: inclusive layer ranges. golden: layers where the mother clearly leads.
    router: layer -> "A", "B" or "blend". preserve: layer -> experts dead in the mother, alive in the father.
    spread: smallest and largest ratio; `signal` is False when the scans carry no information for this pair.
    sources: hash of the scans it was made from.
    """

    mode: str
    ratio: dict[str, float]
    layer_ratio: tuple[float, ...]
    component_ratio: dict[str, float]
    blocks: tuple[tuple[int, int], ...]
    golden: tuple[int, ...] = ()
    router: dict[int, str] = field(default_factory=dict)
    preserve: dict[int, tuple[int, ...]] = field(default_factory=dict)
    spread: tuple[float, float] = (0.5, 0.5)
    signal: bool = True
    note: str = ""
    sources: str = ""

    @property
    def hash(self) -> str:
        """12 hex digits of the SHA-256 of everything that changes a recipe (ratios to 1e-6)."""
        decides = {
            "ratio": {name: round(value, 6) for name, value in sorted(self.ratio.items())},
            "router": sorted(self.router.items()),
            "preserve": sorted((layer, sorted(experts)) for layer, experts in self.preserve.items()),
        }
        return hashlib.sha256(json.dumps(decides, separators=(",", ":")).encode()).hexdigest()[:12]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> "Prescription":
        """The inverse of `to_json`, also after a round trip through a JSON file."""
        return Prescription(
            mode=data["mode"],
            ratio=dict(data["ratio"]),
            layer_ratio=tuple(data["layer_ratio"]),
            component_ratio=dict(data["component_ratio"]),
            blocks=tuple((int(first), int(last)) for first, last in data["blocks"]),
            golden=tuple(data["golden"]),
            router={int(layer): source for layer, source in data["router"].items()},
            preserve={int(layer): tuple(experts) for layer, experts in data["preserve"].items()},
            spread=(data["spread"][0], data["spread"][1]),
            signal=data["signal"],
            note=data["note"],
            sources=data["sources"],
        )
