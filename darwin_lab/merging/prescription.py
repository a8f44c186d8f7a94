"""What two scans advise, as plain numbers; filled by the Model MRI, read by the recipe."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

DEAD = 0.05
"""An expert is dead when its utilisation is below this share of 1/E (methods, section 4)."""

MODES = ("contrastive", "card_v5", "card_v6", "paper")
"""What advice goes by: measured layer swaps (the default), or a published formula (methods, section 2)."""

V5_TRUST, V5_TRANSPLANT = 0.7, 0.05
"""What the V5 card does with its ratio: final = .7 mri + .3 genome, and below .05 or above .95 a transplant."""


@dataclass(frozen=True)
class Prescription:
    """Advice on the mother's share; `mode` is one of `MODES`.

    ratio: tensor name -> mri_ratio in [0, 1]. layer_ratio: size-weighted mean per layer.
    component_ratio: the same per component ("attn", "ffn", "embed", "global").
    blocks: inclusive layer ranges. golden: layers where the mother clearly leads.
    router: layer -> "A", "B" or "blend". preserve: layer -> experts dead in the mother, alive in the father.
    utilisation: layer -> what share of the routed tokens each expert gets, in the father and in the mother.
    dead: layer -> experts certified dead in the mother. Experts go by their number in the parent named.
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
    utilisation: dict[int, tuple[tuple[float, ...], tuple[float, ...]]] = field(default_factory=dict)
    dead: dict[int, tuple[int, ...]] = field(default_factory=dict)
    spread: tuple[float, float] = (0.5, 0.5)
    signal: bool = True
    note: str = ""
    sources: str = ""

    @property
    def hash(self) -> str:
        """12 hex digits of the SHA-256 of everything that changes a recipe (ratios to 1e-6)."""
        decides: dict[str, Any] = {
            "ratio": {name: round(value, 6) for name, value in sorted(self.ratio.items())},
            "router": sorted(self.router.items()),
            "preserve": sorted((layer, sorted(experts)) for layer, experts in self.preserve.items()),
        }
        if self.utilisation:
            use = [(layer, [[round(u, 6) for u in one] for one in both]) for layer, both in self.utilisation.items()]
            decides |= {"utilisation": sorted(use), "dead": sorted(self.dead.items())}
        return hashlib.sha256(json.dumps(decides, separators=(",", ":")).encode()).hexdigest()[:12]

    def reordered(self, expert_order: Mapping[int, tuple[int, ...]]) -> "Prescription":
        """The same advice where the father's expert e is matched with the mother's `expert_order[layer][e]`.

        Her utilisation and her dead experts move to the father's numbers; the ratios stay.
        """
        utilisation, preserve = dict(self.utilisation), dict(self.preserve)
        for layer, order in expert_order.items():
            if layer not in utilisation:
                continue
            father, mother = utilisation[layer]
            utilisation[layer] = father, tuple(mother[expert] for expert in order)
            dead = self.dead.get(layer, ())
            preserve[layer] = tuple(
                e for e, expert in enumerate(order) if expert in dead and father[e] >= DEAD / len(father)
            )
        kept = {layer: experts for layer, experts in preserve.items() if experts}
        return replace(self, utilisation=utilisation, preserve=kept)

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
            utilisation={
                int(layer): (tuple(both[0]), tuple(both[1])) for layer, both in data.get("utilisation", {}).items()
            },
            dead={int(layer): tuple(experts) for layer, experts in data.get("dead", {}).items()},
            spread=(data["spread"][0], data["spread"][1]),
            signal=data["signal"],
            note=data["note"],
            sources=data["sources"],
        )
