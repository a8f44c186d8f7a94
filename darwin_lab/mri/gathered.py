"""What the batches of one probe gave, put back into the order of its texts.

Takes measures batch by batch and, layer by layer, what the plain pass did; gives a `Scan` of the probe. Its arrays can
be kept and put back while a scan is under way. Must not know: how the measures were made.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from darwin_lab.engine.source import Source
from darwin_lab.engine.sweep import Routing, Step
from darwin_lab.mri.record import MEASURES, Scan

Arrays = dict[str, NDArray[Any]]


class Gathered:
    """`lengths` are the tokens of each text. Every array has a row for every text."""

    def __init__(self, lengths: Sequence[int], layers: int) -> None:
        self.lengths = np.asarray(lengths, dtype=np.int32)
        self.measures = {measure: np.zeros((len(lengths), layers), dtype=np.float32) for measure in MEASURES}
        self.nll = np.zeros(len(lengths), dtype=np.float32)
        self.counts: dict[int, NDArray[np.int32]] = {}
        self.entropy: dict[int, NDArray[np.float64]] = {}
        self.mass: dict[int, NDArray[np.float64]] = {}
        self.top_k = 0

    def add_layer(self, chosen: list[int], step: Step, influence: torch.Tensor, mask: torch.Tensor) -> None:
        """One layer of the plain pass of the texts `chosen`: `influence` [B], and what its experts did."""
        self.measures["influence"][chosen, step.layer] = influence.float().cpu().numpy()
        for routing in step.routing:
            self._add_routing(chosen, routing, mask)

    def add(self, chosen: list[int], measures: Mapping[str, torch.Tensor], nll: torch.Tensor) -> None:
        """Measures [L, B] and NLL [B] of the texts `chosen`."""
        for measure, values in measures.items():
            self.measures[measure][chosen] = values.T.float().cpu().numpy()
        self.nll[chosen] = nll.float().cpu().numpy()

    def _add_routing(self, chosen: list[int], routing: Routing, mask: torch.Tensor) -> None:
        """Times chosen [B, E], summed token entropy [1] and summed probabilities [E] of the real tokens."""
        real = mask.bool()
        picked = torch.zeros(routing.probabilities.shape, dtype=torch.int32, device=mask.device)
        picked.scatter_(-1, routing.chosen, 1)
        p = routing.probabilities[real].double()
        if routing.layer not in self.counts:
            experts = p.shape[-1]
            self.counts[routing.layer] = np.zeros((len(self.nll), experts), dtype=np.int32)
            self.entropy[routing.layer], self.mass[routing.layer] = np.zeros(1), np.zeros(experts)
        self.top_k = routing.chosen.shape[-1]
        self.counts[routing.layer][chosen] = (picked * real[..., None]).sum(1, dtype=torch.int32).cpu().numpy()
        self.entropy[routing.layer] += float(-(p * p.clamp_min(1e-30).log()).sum())
        self.mass[routing.layer] += p.sum(0).cpu().numpy()

    def arrays(self) -> Arrays:
        """Everything gathered so far, by name."""
        found: Arrays = {f"measure/{measure}": values for measure, values in self.measures.items()}
        found |= {"nll": self.nll, "top_k": np.asarray([self.top_k])}
        for word, table in (("counts", self.counts), ("entropy", self.entropy), ("mass", self.mass)):
            found |= {f"{word}/{layer}": values for layer, values in table.items()}
        return found

    def put_back(self, arrays: Arrays) -> None:
        """What `arrays` gave."""
        tables: dict[str, dict[int, Any]] = {"counts": self.counts, "entropy": self.entropy, "mass": self.mass}
        for name, values in arrays.items():
            word, _, rest = name.partition("/")
            if word == "measure":
                self.measures[rest] = values.copy()
            elif word in tables:
                tables[word][int(rest)] = values.copy()
        self.nll, self.top_k = arrays["nll"].copy(), int(arrays["top_k"][0])

    def scan(self, source: Source, probe: str, probes_hash: str, settings: dict[str, Any]) -> Scan:
        """The scan of this one probe."""
        moe = tuple(sorted(self.counts))
        tokens = float(self.lengths.sum())
        counts, router = {}, {}
        if moe:
            counts[probe] = np.stack([self.counts[layer] for layer in moe], axis=1)
            router[probe] = {
                "token_entropy": np.asarray([self.entropy[layer][0] / tokens for layer in moe], dtype=np.float32),
                "mean_p": np.stack([self.mass[layer] / tokens for layer in moe]).astype(np.float32),
            }
        return Scan(
            model=source.name,
            fingerprint=source.fingerprint,
            probes_hash=probes_hash,
            settings=settings,
            layers=self.measures["skip"].shape[1],
            experts=counts[probe].shape[-1] if moe else 0,
            top_k=self.top_k,
            moe_layers=moe,
            probes=(probe,),
            lengths={probe: self.lengths},
            per_text={measure: {probe: values} for measure, values in self.measures.items()},
            nll={probe: self.nll},
            counts=counts,
            router=router,
        )
