"""What the batches of one probe gave, put back into the order of its texts.

Takes measures batch by batch and, layer by layer, what the plain pass did; gives a `Scan` of the probe. Its arrays can
be kept and put back while a scan is under way. Must not know: how the measures were made.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from darwin_lab.engine.routing import Routing
from darwin_lab.engine.source import Source
from darwin_lab.engine.sweep import Step
from darwin_lab.mri.measures import output_similarity, routed_output
from darwin_lab.mri.record import HALF_MEASURES, HALVES, MEASURES, Scan

Arrays = dict[str, NDArray[Any]]
SIMILARITY_TOKENS = 8
"""Tokens of a probe on which every expert of a layer is run, evenly spread over its texts."""


class Gathered:
    """`lengths` are the tokens of each text. Every array has a row for every text (or sampled token), and adding the
    same texts again changes nothing."""

    def __init__(self, lengths: Sequence[int], layers: int, halves: bool = False) -> None:
        self.lengths = np.asarray(lengths, dtype=np.int32)
        self.measures = {name: np.zeros((len(lengths), layers), np.float32) for name in MEASURES}
        if halves:
            names = [f"{half}.{measure}" for half in HALVES for measure in HALF_MEASURES]
            self.measures |= {name: np.full((len(lengths), layers), np.nan, np.float32) for name in names}
        self.nll = np.zeros(len(lengths), dtype=np.float32)
        self.tables: dict[str, dict[int, NDArray[Any]]] = {
            "counts": {},  # [n, E] times chosen
            "entropy": {},  # [n] token entropy, summed
            "mass": {},  # [n, E] probabilities, summed
            "felt": {},  # [n, E] gate x ||output||, summed
            "similarity": {},  # [S] of each sampled token
        }
        self.top_k = 0
        self.summed = np.zeros((len(lengths), layers), np.uint8)
        self.states: dict[int, NDArray[np.float64]] = {}  # layer -> [H] its output, summed
        ends, total = self.lengths.cumsum(), int(self.lengths.sum())
        size = min(SIMILARITY_TOKENS, total)
        places = ((np.arange(size) + 0.5) * total / max(size, 1)).astype(np.int64)
        owners = np.searchsorted(ends, places, side="right")
        self.sample = [(int(t), int(p - ends[t] + self.lengths[t])) for t, p in zip(owners, places, strict=True)]

    def add_layer(self, chosen: list[int], step: Step, influence: torch.Tensor, mask: torch.Tensor) -> None:
        """One layer of the plain pass of the texts `chosen`: `influence` [B], and what its experts did."""
        self.measures["influence"][chosen, step.layer] = influence.float().cpu().numpy()
        self._add_states(chosen, step, mask)
        for routing in step.routing:
            self._add_routing(chosen, routing, mask)

    def add(self, chosen: list[int], measures: Mapping[str, torch.Tensor], nll: torch.Tensor) -> None:
        """Measures [L, B] and NLL [B] of the texts `chosen`."""
        for measure, values in measures.items():
            self.measures[measure][chosen] = values.T.float().cpu().numpy()
        self.nll[chosen] = nll.float().cpu().numpy()

    def _add_states(self, chosen: list[int], step: Step, mask: torch.Tensor) -> None:
        """The layer's output summed over the real tokens of texts that were not summed yet."""
        fresh = torch.from_numpy(self.summed[chosen, step.layer] == 0).to(mask.device)
        counted = (mask.bool() & fresh[:, None]).float()
        total = (
            sum(each @ states.float() for each, states in zip(counted, step.after, strict=True)).double().cpu().numpy()
        )
        self.states[step.layer] = self.states.get(step.layer, 0.0) + total
        self.summed[chosen, step.layer] = 1

    def _add_routing(self, chosen: list[int], routing: Routing, mask: torch.Tensor) -> None:
        """What the real tokens of some texts were routed to, and what came of it."""
        real = mask.bool()[..., None]
        picked = torch.zeros(routing.probabilities.shape, dtype=torch.int32, device=mask.device)
        picked.scatter_(-1, routing.chosen, 1)
        p = torch.where(real, routing.probabilities.double(), 0.0)
        self.top_k = routing.chosen.shape[-1]
        self._put("counts", routing.layer, chosen, (picked * real).sum(1, dtype=torch.int32))
        self._put("entropy", routing.layer, chosen, -(p * p.clamp_min(1e-30).log()).sum((1, 2)))
        self._put("mass", routing.layer, chosen, p.sum(1))
        self._put("felt", routing.layer, chosen, routed_output(routing, mask))
        sampled = {place: at for place, at in enumerate(self.sample) if at[0] in chosen}
        if sampled:
            rows = [chosen.index(text) for text, _ in sampled.values()]
            alike = output_similarity(routing, rows, [position for _, position in sampled.values()])
            self._put("similarity", routing.layer, list(sampled), alike)

    def _put(self, table: str, layer: int, rows: list[int], values: torch.Tensor) -> None:
        found = values.cpu().numpy()
        size = len(self.sample) if table == "similarity" else len(self.nll)
        whole = self.tables[table].setdefault(layer, np.zeros((size, *found.shape[1:]), found.dtype))
        whole[rows] = found

    def arrays(self) -> Arrays:
        """Everything gathered so far, by name."""
        found: Arrays = {f"measure/{measure}": values for measure, values in self.measures.items()}
        found |= {"nll": self.nll, "top_k": np.asarray([self.top_k]), "summed": self.summed}
        found |= {f"states/{layer}": total for layer, total in self.states.items()}
        for word, table in self.tables.items():
            found |= {f"{word}/{layer}": values for layer, values in table.items()}
        return found

    def put_back(self, arrays: Arrays) -> None:
        """What `arrays` gave."""
        for name, values in arrays.items():
            word, _, rest = name.partition("/")
            if word == "measure":
                self.measures[rest] = values.copy()
            elif word == "states":
                self.states[int(rest)] = values.copy()
            elif word in self.tables:
                self.tables[word][int(rest)] = values.copy()
        self.nll, self.top_k, self.summed = arrays["nll"].copy(), int(arrays["top_k"][0]), arrays["summed"].copy()

    def scan(
        self, source: Source, probe: str, probes_hash: str, settings: dict[str, Any], halves_note: str = ""
    ) -> Scan:
        """The scan of this one probe."""
        moe = tuple(sorted(self.tables["counts"]))
        counts, router = {}, {}
        if moe:
            table = {
                name: np.stack([layers[layer] for layer in moe], axis=1).astype(np.float64)
                for name, layers in self.tables.items()
            }
            tokens = float(self.lengths.sum())
            counts[probe] = table["counts"].astype(np.int32)
            felt = table["felt"].sum(0) / np.maximum(table["counts"].sum(0), 1)
            router[probe] = {
                "token_entropy": (table["entropy"].sum(0) / tokens).astype(np.float32),
                "mean_p": (table["mass"].sum(0) / tokens).astype(np.float32),
                "saliency": felt.astype(np.float32),
                "output_similarity": table["similarity"].mean(0).astype(np.float32),
                "similarity_tokens": np.asarray([len(self.sample)], dtype=np.float32),
            }
        has_halves = f"{HALVES[0]}.{HALF_MEASURES[0]}" in self.measures
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
            per_text={measure: {probe: self.measures[measure]} for measure in MEASURES},
            nll={probe: self.nll},
            counts=counts,
            router=router,
            halves={
                half: {measure: {probe: self.measures[f"{half}.{measure}"]} for measure in HALF_MEASURES}
                for half in HALVES
            }
            if has_halves
            else {},
            halves_note=halves_note if has_halves else "",
            centroids={probe: self._centroid()},
        )

    def _centroid(self) -> NDArray[np.float32]:
        """[L, H] each layer's mean output."""
        total = np.stack([self.states[layer] for layer in sorted(self.states)])
        mean: NDArray[np.float32] = (total / self.lengths.sum()).astype(np.float32)
        return mean
