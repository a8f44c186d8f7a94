"""Scans of the size of the largest models, made up by hand: 64 layers of 256 experts."""

from dataclasses import replace

import numpy as np

from darwin_lab.mri.record import HALF_MEASURES, HALVES, MEASURES
from tests.mri.made_scans import made_scan

LAYERS, EXPERTS, TOP_K, TEXTS = 64, 256, 8, 10
PROBES = ("MATH", "CODE", "REASONING", "KNOWLEDGE", "LANGUAGE", "LOGIC", "KOREAN", "MULTILINGUAL", "NEUTRAL")


def big_scan(seed=0, *, name="father", tokens=400, dead=0.2):
    """Random importances, uneven routing, a share `dead` of the experts never chosen, saliency, similarity, halves."""
    rng = np.random.default_rng(seed)
    alive = rng.random((LAYERS, EXPERTS)) >= dead
    share = rng.gamma(2.0, size=(LAYERS, EXPERTS)) * alive
    share /= share.sum(1, keepdims=True)
    noise = lambda: rng.gamma(1.0, 0.2, (TEXTS, LAYERS)).astype(np.float32)  # noqa: E731
    counts = np.stack([rng.multinomial(TOP_K * tokens, row, size=TEXTS) for row in share], axis=1).astype(np.int32)
    router = {
        "token_entropy": np.full(LAYERS, 3.0, np.float32),
        "mean_p": share.astype(np.float32),
        "saliency": (rng.gamma(2.0, 0.1, (LAYERS, EXPERTS)) * alive).astype(np.float32),
        "output_similarity": np.full(LAYERS, 0.02, np.float32),
        "similarity_tokens": np.asarray([8]),
    }
    return replace(
        made_scan(seed, name=name),
        layers=LAYERS,
        experts=EXPERTS,
        top_k=TOP_K,
        moe_layers=tuple(range(LAYERS)),
        probes=PROBES,
        lengths={probe: np.full(TEXTS, tokens, np.int32) for probe in PROBES},
        per_text={measure: {probe: noise() for probe in PROBES} for measure in MEASURES},
        nll={probe: np.full(TEXTS, 2.0, np.float32) for probe in PROBES},
        counts=dict.fromkeys(PROBES, counts),
        router=dict.fromkeys(PROBES, router),
        halves={half: {m: {probe: noise() for probe in PROBES} for m in HALF_MEASURES} for half in HALVES},
    )
