"""Which experts work: utilisation, dead experts with a certificate, entropies, concentration.

Takes how often each expert of each MoE layer was chosen in each text, the router's mean probabilities, and what the
experts put out; gives arrays per layer and expert. Dead always means dead *on these probes*, and is claimed only when
the texts are long enough to show it. Must not know: models, tensors, torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, log, log1p
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from darwin_lab.merging.prescription import DEAD

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Router = Mapping[str, Mapping[str, NDArray[Any]]]

COLD = 0.2
"""An expert is cold when its utilisation is below this share of 1/E."""
PRESENCE = 0.05
"""The card's rule: an expert is dead when it fires in under this share of the samples."""
TOKENS_PER_EXPERT = 60.0
"""Dead can be certified with more than this many tokens x E/k: the rule of three (3/T) must pass below `DEAD` k/E."""
LEAST_TEXTS = 59
"""Below this many texts nothing is certified: an expert in 5 % of texts is missed by all n of them with .95^n."""


@dataclass(frozen=True, eq=False)
class ExpertReport:
    """Diagnostics of the M MoE layers with E experts each, over P probes; arrays are indexed by MoE layer in order."""

    layers: tuple[int, ...]
    """Decoder layer of each MoE layer."""
    probes: tuple[str, ...]
    tokens: int
    utilisation: Floats
    """[M, E] c_e / (k T) over all probes; each row sums to 1, uniform is 1/E."""
    by_probe: Floats
    """[P, M, E] the same, one probe at a time."""
    upper: Floats
    """[M, E] one-sided upper 95 % bound of the utilisation, texts as clusters."""
    dead: Mask
    """[M, E] upper bound below .05/E; all False unless `certified`."""
    cold: Mask
    """[M, E] upper bound below .2/E."""
    presence: Floats
    """[M, E] share of texts in which the expert is chosen at least once (the card's rule: dead below .05)."""
    dead_share: Floats
    """[M] share of dead experts; NaN unless `certified`."""
    certified: bool
    note: str
    load_entropy: Floats
    """[M] H(u) / ln E, in [0, 1]."""
    token_entropy: Floats
    """[M] E_t H(p_t) / ln E, in [0, 1]."""
    specialisation: Floats
    """[M] H(mean p) - E_t H(p_t), in nats: what knowing the token tells about the expert."""
    gini: Floats
    """[M] inequality of the load: 0 all alike, towards 1 one expert does all."""
    variation: Floats
    """[M] coefficient of variation of the load."""
    max_load: Floats
    """[M] max(u) x E: 1 is even."""
    saliency: Floats
    """[M, E] REAP (arXiv 2510.13999): mean over the tokens routed to the expert of gate x ||expert output||; 0 where
    it was never chosen, NaN in a scan made before it was measured."""
    saliency_by_probe: Floats
    """[P, M, E] the same, one probe at a time."""
    output_similarity: Floats | None
    """[M] mean cosine between the outputs of two experts on the same tokens; near zero is no sign of health. None in
    a scan made before it was measured."""
    similarity_tokens: int
    """Real input tokens of each layer on which every expert was run for that; 0 where there is none."""

    def to_json(self) -> dict[str, Any]:
        """Plain lists; what was not certified is null."""
        return {
            "layers": list(self.layers),
            "tokens": self.tokens,
            "certified": self.certified,
            "note": self.note,
            "dead": [np.flatnonzero(row).tolist() for row in self.dead] if self.certified else None,
            "dead_share": self.dead_share.tolist() if self.certified else None,
            "utilisation": self.utilisation.tolist(),
            "load_entropy": self.load_entropy.tolist(),
            "token_entropy": self.token_entropy.tolist(),
            "specialisation": self.specialisation.tolist(),
            "gini": self.gini.tolist(),
            "max_load": self.max_load.tolist(),
            "saliency": None if np.isnan(self.saliency).any() else self.saliency.tolist(),
            "output_similarity": None if self.output_similarity is None else self.output_similarity.tolist(),
            "similarity_tokens": self.similarity_tokens,
        }


def expert_report(
    counts: Mapping[str, NDArray[Any]],
    lengths: Mapping[str, NDArray[Any]],
    router: Router,
    layers: tuple[int, ...],
    top_k: int,
) -> ExpertReport:
    """Diagnostics from `counts` (probe -> [texts, M, E] times chosen), `lengths` (probe -> [texts] real tokens) and
    `router` (probe -> {"token_entropy" [M] nats, "mean_p" [M, E]}, means over that probe's tokens; where measured also
    "saliency" [M, E], "output_similarity" [M] and the "similarity_tokens" [1] it was measured on).

    Source: methods, section 4.
    """
    probes = tuple(counts)
    pooled = np.concatenate([np.asarray(counts[probe], dtype=np.float64) for probe in probes])
    tokens_of = np.concatenate([np.asarray(lengths[probe], dtype=np.float64) for probe in probes])
    tokens, experts = float(tokens_of.sum()), pooled.shape[-1]
    share = np.asarray([np.asarray(lengths[probe], dtype=np.float64).sum() / tokens for probe in probes])
    entropy = np.tensordot(share, np.stack([router[p]["token_entropy"] for p in probes]).astype(np.float64), 1)
    mean_p = np.tensordot(share, np.stack([router[p]["mean_p"] for p in probes]).astype(np.float64), 1)
    use = pooled.sum(0) / (top_k * tokens)
    bound = upper_utilisation(pooled, tokens_of, top_k)
    needed, texts, least = tokens_needed(experts, top_k), len(tokens_of), texts_needed(pooled)
    certified = tokens > needed and texts >= least
    dead = (bound < DEAD / experts) & certified
    read = f"{tokens:,.0f} tokens in {texts:,} texts read"
    short = " and ".join(word for word, few in (("tokens", tokens <= needed), ("texts", texts < least)) if few)
    note = (
        f"dead on these probes: {read}, {needed:,.0f} in {least:,} needed"
        if certified
        else f"not enough {short}: {read}, more than {needed:,.0f} in at least {least:,} needed to call an expert dead"
    )
    most = np.log(max(experts, 2))
    salient, overall = _saliency(counts, router)
    similarity, sampled = _similarity(router)
    return ExpertReport(
        layers=layers,
        probes=probes,
        tokens=int(tokens),
        utilisation=use,
        by_probe=np.stack([utilisation(counts[probe], lengths[probe], top_k) for probe in probes]),
        upper=bound,
        dead=dead,
        cold=bound < COLD / experts,
        presence=(pooled > 0).mean(0),
        dead_share=dead.mean(-1) if certified else np.full(len(layers), np.nan),
        certified=certified,
        note=note,
        load_entropy=_entropy(use) / most,
        token_entropy=entropy / most,
        specialisation=np.maximum(_entropy(mean_p) - entropy, 0),
        gini=_gini(use),
        variation=use.std(-1) * experts,
        max_load=use.max(-1) * experts,
        saliency=overall,
        saliency_by_probe=salient,
        output_similarity=similarity,
        similarity_tokens=sampled,
    )


def _saliency(counts: Mapping[str, NDArray[Any]], router: Router) -> tuple[Floats, Floats]:
    """([P, M, E] by probe, [M, E] over the tokens of all probes that have it), NaN where it was not measured."""
    times = np.stack([np.asarray(counts[probe], dtype=np.float64).sum(0) for probe in counts])
    unknown = np.full(times.shape[1:], np.nan)
    by_probe = np.stack([np.asarray(router[p].get("saliency", unknown), dtype=np.float64) for p in counts])
    known = ["saliency" in router[probe] for probe in counts]
    if not any(known):
        return by_probe, unknown
    overall: Floats = (by_probe[known] * times[known]).sum(0) / np.maximum(times[known].sum(0), 1)
    return by_probe, overall


def _similarity(router: Router) -> tuple[Floats | None, int]:
    """([M] over the sampled tokens of all probes, how many those are)."""
    known = [found for found in router.values() if "output_similarity" in found]
    if not known:
        return None, 0
    sampled = np.asarray([int(found["similarity_tokens"][0]) for found in known])
    values = np.stack([np.asarray(found["output_similarity"], dtype=np.float64) for found in known])
    return np.average(values, axis=0, weights=sampled), int(sampled.sum())


def tokens_needed(experts: int, top_k: int) -> float:
    """Tokens above which an expert never chosen can be called dead: 60 E/k (1,920 for 8 of 256)."""
    return TOKENS_PER_EXPERT * experts / top_k


def utilisation(counts: NDArray[Any], lengths: NDArray[Any], top_k: int) -> Floats:
    """[texts, M, E] counts and [texts] tokens -> [M, E] c_e / (k T)."""
    share: Floats = np.asarray(counts, dtype=np.float64).sum(0) / (top_k * float(np.sum(lengths)))
    return share


def texts_needed(counts: NDArray[Any]) -> int:
    """Texts from which an expert never chosen can be called dead in every layer, by the text bound of
    `upper_utilisation`: `LEAST_TEXTS` where experts are used in all texts, more where they keep to some of them."""
    share = DEAD * float(_typical_presence(np.asarray(counts, dtype=np.float64)).min())
    return max(LEAST_TEXTS, ceil(log(0.05) / log1p(-share))) if share > 0 else LEAST_TEXTS


def upper_utilisation(counts: NDArray[Any], lengths: NDArray[Any], top_k: int) -> Floats:
    """One-sided upper 95 % bound of the utilisation, [texts, M, E] counts and [texts] tokens -> [M, E].

    The larger of two; both are ours. By tokens: a token chooses an expert or not, so its chance k u has a
    Clopper-Pearson bound; counts and tokens are first divided by the design effect (variance between texts over
    binomial variance, never below 1). By texts, since an expert never chosen shows no variance: the Clopper-Pearson
    bound of the share of texts it is in (1 - .05^(1/n) when in none of n) times its share of the choices there; one
    never chosen is given an even share, gathered in as few texts as its layer's use typically is. So from
    `LEAST_TEXTS` on an expert that is in 5 % of texts goes unseen in under 5 % of scans, whatever its share there;
    one in fewer texts and far more concentrated than its layer can still be missed.
    """
    chosen = np.asarray(counts, dtype=np.float64)
    tokens_of = np.asarray(lengths, dtype=np.float64)
    texts, tokens = len(tokens_of), tokens_of.sum()
    total, present = chosen.sum(0), chosen > 0
    chance = total / tokens
    between = ((chosen - chance * tokens_of[:, None, None]) ** 2).sum(0) * texts / max(texts - 1, 1)
    binomial = tokens * chance * (1 - chance)
    effect = np.maximum(np.divide(between, binomial, out=np.ones_like(between), where=binomial > 0), 1)
    by_tokens = _upper(total / effect, tokens / effect) / top_k
    even = 1 / (chosen.shape[-1] * np.maximum(_typical_presence(chosen), 1 / texts))
    there = np.where(total > 0, total / top_k / np.maximum(np.tensordot(tokens_of, present, 1), 1), even[:, None])
    by_texts = _upper(present.sum(0), np.full(total.shape, float(texts))) * there
    bound: Floats = np.minimum(np.maximum(by_tokens, by_texts), 1 / top_k)
    return bound


def _typical_presence(chosen: Floats) -> Floats:
    """[texts, M, E] -> [M] share of the texts that hold the expert of a choice, on average over choices."""
    total = chosen.sum(0)
    presence: Floats = (total * (chosen > 0).mean(0)).sum(-1) / np.maximum(total.sum(-1), 1)
    return presence


def _upper(hits: NDArray[Any], trials: Floats) -> Floats:
    """One-sided upper 95 % Clopper-Pearson bound of a proportion."""
    bound: Floats = np.minimum(beta.ppf(0.95, hits + 1, np.maximum(trials - hits, 1e-9)), 1.0)
    return bound


def _entropy(p: Floats) -> Floats:
    """Nats, over the last axis."""
    entropy: Floats = -(p * np.log(np.where(p > 0, p, 1.0))).sum(-1)
    return entropy


def _gini(p: Floats) -> Floats:
    """Gini coefficient of shares that sum to 1, over the last axis."""
    n = p.shape[-1]
    ranks = np.arange(1, n + 1)
    gini: Floats = (2 * (np.sort(p, -1) * ranks).sum(-1) / np.maximum(p.sum(-1), 1e-12) - (n + 1)) / n
    return gini
