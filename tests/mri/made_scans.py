"""Scans, contrasts and anatomies made up by hand, for tests of arithmetic."""

from dataclasses import replace

import numpy as np

from darwin_lab.checkpoint.anatomy import Anatomy, Part
from darwin_lab.mri.contrast import Contrast
from darwin_lab.mri.record import MEASURES, Scan

PROBES = ("MATH", "CODE", "NEUTRAL")
LAYERS = 4
EXPERTS = 8
TEXTS = 20


def made_scan(seed=0, *, name="father", tokens=100, moe=True, importance=1.0, nll=2.0):
    """A scan of `TEXTS` texts a probe with random importances around `importance` and even expert use."""
    rng = np.random.default_rng(seed)
    counts = {}
    router = {}
    if moe:
        for probe in PROBES:
            even = np.full((TEXTS, LAYERS, EXPERTS), 2 * tokens // EXPERTS, dtype=np.int32)
            counts[probe] = even
            router[probe] = {
                "token_entropy": np.full(LAYERS, 1.0, dtype=np.float32),
                "mean_p": np.full((LAYERS, EXPERTS), 1 / EXPERTS, dtype=np.float32),
            }
    return Scan(
        model=name,
        fingerprint=f"{name}-{seed}",
        probes_hash="probes",
        settings={"version": 1, "max_tokens": 512},
        layers=LAYERS,
        experts=EXPERTS if moe else 0,
        top_k=2 if moe else 0,
        moe_layers=tuple(range(LAYERS)) if moe else (),
        probes=PROBES,
        lengths={probe: np.full(TEXTS, tokens, dtype=np.int32) for probe in PROBES},
        per_text={
            measure: {
                probe: (importance + 0.01 * rng.standard_normal((TEXTS, LAYERS))).astype(np.float32) for probe in PROBES
            }
            for measure in MEASURES
        },
        nll={probe: (nll + 0.01 * rng.standard_normal(TEXTS)).astype(np.float32) for probe in PROBES},
        counts=counts,
        router=router,
    )


def with_importance(scan, measure, probe, layer, value):
    """The same scan with one layer's importance set in every text of one probe."""
    changed = scan.per_text[measure][probe].copy()
    changed[:, layer] = value
    return replace(scan, per_text={**scan.per_text, measure: {**scan.per_text[measure], probe: changed}})


def with_dead(scan, layer, expert):
    """The same scan where `expert` of `layer` is never chosen (its neighbour takes its tokens)."""
    counts = {}
    for probe in scan.probes:
        changed = scan.counts[probe].copy()
        changed[:, layer, (expert + 1) % EXPERTS] += changed[:, layer, expert]
        changed[:, layer, expert] = 0
        counts[probe] = changed
    return replace(scan, counts=counts)


def made_contrast(level, scan_a, scan_b, *, noise=0.0, seed=0):
    """A contrast whose gains per text are `level` [L] plus noise, alike on every probe."""
    rng = np.random.default_rng(seed)
    return Contrast(
        father=scan_a.model,
        mother=scan_b.model,
        fingerprints=(scan_a.fingerprint, scan_b.fingerprint),
        probes_hash=scan_a.probes_hash,
        settings={"version": 1},
        layers=LAYERS,
        probes=PROBES,
        lengths={probe: np.full(TEXTS, 100, dtype=np.int32) for probe in PROBES},
        gain={
            probe: (np.asarray(level) + noise * rng.standard_normal((TEXTS, LAYERS))).astype(np.float32)
            for probe in PROBES
        },
    )


def made_anatomy():
    """Four layers of attention and fused experts with a router, an embedding and a final norm."""
    parts = {}

    def add(name, role, component, layer, shape, expert=None, mergeable=True):
        size = int(np.prod(shape))
        reason = "" if mergeable else "copied"
        parts[name] = Part(name, role, component, layer, expert, "text", "", mergeable, reason, shape, size)

    add("model.embed_tokens.weight", "embedding", "embed", None, (64, 8))
    for layer in range(LAYERS):
        add(f"model.layers.{layer}.self_attn.q_proj.weight", "attention", "attn", layer, (8, 8))
        add(f"model.layers.{layer}.mlp.gate.weight", "router", "ffn", layer, (EXPERTS, 8))
        add(f"model.layers.{layer}.mlp.experts.down_proj", "expert", "ffn", layer, (EXPERTS, 8, 4), expert=-1)
    add("model.norm.weight", "norm", "global", None, (8,))
    add("mtp.fc.weight", "mtp", "", None, (8, 8), mergeable=False)
    return Anatomy(parts, LAYERS, ("full_attention",) * LAYERS, 8, EXPERTS, 2, tuple(range(LAYERS)))
