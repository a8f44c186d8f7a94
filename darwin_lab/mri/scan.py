"""The Model MRI: read a probe's texts, skip every layer once, and keep what that does to each text.

Takes a model (resident or streamed), the source whose weights it shall carry, and texts; gives a `Scan`. Everything
comes from one sweep: skips from its branches, influence and experts from its plain pass. A resident model reads batch
by batch; a streamed one takes as many batches at once as its memory for states allows, so that each weight is read
once a pass. Must not know: parents, merging, what a probe is for.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from darwin_lab.engine.resident import Resident
from darwin_lab.engine.source import Source
from darwin_lab.engine.sweep import TOKENS_AT_ONCE, Front, Step, advance, finish, start_sweep
from darwin_lab.errors import LabError
from darwin_lab.mri.gathered import Gathered
from darwin_lab.mri.keeper import Keeper
from darwin_lab.mri.measures import batches_by_length, cosine_distance, encode_texts, next_token_losses
from darwin_lab.mri.probes import ProbeSet
from darwin_lab.mri.record import MEASURES, Scan, merged
from darwin_lab.progress import Tick, part, silent

__all__ = ["MEASURES", "Scan", "merged", "scan_model", "scan_probe", "scan_settings"]

MAX_TOKENS = 512
"""A text is cut to this many tokens."""
Batch = tuple[str, list[int]]
"""A probe and the indices of those of its texts that are read together."""


def scan_settings(max_tokens: int = MAX_TOKENS, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """The settings that decide a scan's numbers, beside the weights and the probes: part of its key."""
    settings: dict[str, Any] = {"version": 1, "max_tokens": max_tokens}
    return settings if dtype == torch.float32 else {**settings, "dtype": str(dtype).removeprefix("torch.")}


def scan_model(
    model: Resident,
    source: Source,
    probes: ProbeSet,
    tick: Tick = silent,
    on_probe: Callable[[Scan], None] | None = None,
    *,
    max_tokens: int = MAX_TOKENS,
    keeper: Keeper | None = None,
) -> Scan:
    """Scan `source` on every probe, in their order; `on_probe` gets the partial scan whenever a probe is done.

    The model is made to carry `source`. With a `keeper` a scan that was stopped goes on where it was. Raises
    `LabError` for a probe without usable text and for activations that are not finite (names the layer); `Cancelled`
    passes through.
    """
    if not probes.texts:
        raise LabError("no probe to scan; give a probes file with at least one line")
    if model.streamed:
        return merged(_scan(model, source, probes.texts, probes.hash, tick, on_probe, max_tokens, keeper))
    total = sum(len(texts) for texts in probes.texts.values())
    done, pieces = 0, list(keeper.scans()) if keeper is not None else []
    for name, texts in probes.texts.items():
        share = part(tick, done / total, (done + len(texts)) / total)
        done += len(texts)
        if any(name in piece.probes for piece in pieces):
            continue
        pieces.append(
            scan_probe(model, source, name, texts, probes_hash=probes.hash, tick=share, max_tokens=max_tokens)
        )
        if keeper is not None:
            keeper.keep_scan(merged(pieces))
        if on_probe is not None:
            on_probe(merged(pieces))
    return merged(pieces)


def scan_probe(
    model: Resident,
    source: Source,
    probe: str,
    texts: Sequence[str],
    *,
    probes_hash: str,
    tick: Tick = silent,
    max_tokens: int = MAX_TOKENS,
) -> Scan:
    """A partial scan of one probe: every measure per text, in the order of `texts`. Raises as `scan_model` does."""
    return _scan(model, source, {probe: texts}, probes_hash, tick, None, max_tokens, None)[0]


def batch_tokens() -> int:
    """Padded tokens of one batch: its plain branch alone fills what a layer computes on at once."""
    return TOKENS_AT_ONCE


def _scan(
    model: Resident,
    source: Source,
    texts: Mapping[str, Sequence[str]],
    probes_hash: str,
    tick: Tick,
    on_probe: Callable[[Scan], None] | None,
    max_tokens: int,
    keeper: Keeper | None,
) -> list[Scan]:
    with model.lock:
        model.become(source)
        encoded = {
            probe: encode_texts(model.tokenizer, lines, probe, max_tokens, model.context_length)
            for probe, lines in texts.items()
        }
        gathered = {probe: Gathered(list(map(len, rows)), model.layers) for probe, rows in encoded.items()}
        groups = _groups(model, encoded)
        settings = scan_settings(max_tokens, model.dtype)
        begun = keeper.take_up(gathered) if keeper is not None else (0, None)
        scans: dict[str, Scan] = {}
        for number, group in enumerate(groups):
            share = part(tick, number / len(groups), (number + 1) / len(groups))
            if number >= begun[0]:
                kept = begun[1] if number == begun[0] else None
                _read_group(model, source.name, encoded, group, gathered, share, keeper, number, kept)
            later = {probe for group in groups[number + 1 :] for probe, _ in group}
            for probe in encoded:
                if probe not in later and probe not in scans:
                    scans[probe] = gathered[probe].scan(source, probe, probes_hash, settings)
                    if on_probe is not None:
                        on_probe(merged(list(scans.values())))
        tick(1.0, f"scanned {source.name}")
    return [scans[probe] for probe in texts]


def _groups(model: Resident, encoded: Mapping[str, list[list[int]]]) -> list[list[Batch]]:
    """What is swept together: one batch, or as many as the states of a streamed model may take."""
    groups: list[list[Batch]] = []
    room = 0
    for probe, rows in encoded.items():
        lengths = [len(ids) for ids in rows]
        for chosen in batches_by_length(lengths, batch_tokens()):
            size = len(chosen) * max(lengths[index] for index in chosen) * model.state_bytes_per_token
            if not groups or size > room:
                groups.append([])
                room = model.state_bytes
            groups[-1].append((probe, chosen))
            room -= size
    return groups


@torch.inference_mode()
def _read_group(
    model: Resident,
    name: str,
    encoded: Mapping[str, list[list[int]]],
    group: Sequence[Batch],
    gathered: Mapping[str, Gathered],
    tick: Tick,
    keeper: Keeper | None,
    number: int,
    kept: Callable[[Front], None] | None,
) -> None:
    """One sweep over some batches, its measures put into `gathered`."""
    batches = [model.encode_batch([encoded[probe][index] for index in chosen]) for probe, chosen in group]
    words = ", ".join(dict.fromkeys(probe for probe, _ in group))

    def watch(step: Step) -> None:
        probe, chosen = group[step.batch]
        mask = batches[step.batch][1]
        where = f"layer {step.layer}"
        if step.layer == 0:
            _require_finite(step.before, mask, f"{name}, probe {probe}", "the embedding")
        _require_finite(step.after, mask, f"{name}, probe {probe}", where)
        gathered[probe].add_layer(chosen, step, cosine_distance(step.before, step.after, mask), mask)

    front = start_sweep(model, batches, model.spill)
    if kept is not None:
        kept(front)
    while front.layer < model.layers:
        tick(front.layer / (model.layers + 1), f"scanning {name}: {words}, layer {front.layer} of {model.layers}")
        advance(model, front, watch)
        if keeper is not None and model.streamed:
            keeper.offer(number, front, gathered)
    tick(model.layers / (model.layers + 1), f"scanning {name}: {words}, next tokens")
    with model.head():
        for batch, (probe, chosen) in enumerate(group):
            ids, mask = batches[batch]
            swept = finish(front, batch)
            _require_finite(swept[0], mask, f"{name}, probe {probe}", "the final norm")
            for layer in range(model.layers):
                if not bool(torch.isfinite(swept[1 + layer][mask.bool()]).all()):
                    raise LabError(
                        f"{name}, probe {probe}: activations are not finite when layer {layer} is skipped; "
                        "scan in float32"
                    )
            skip = torch.stack([cosine_distance(swept[0], swept[1 + layer], mask) for layer in range(model.layers)])
            nll, kl = next_token_losses(model.logits, swept, ids, mask, divergence=True)
            gathered[probe].add(chosen, {"skip": skip, "loss": nll[1:] - nll[0], "kl": kl[1:]}, nll[0])


def _require_finite(states: torch.Tensor, mask: torch.Tensor, where: str, what: str) -> None:
    """Raises `LabError` naming the place where the real tokens' activations stop being finite."""
    if not bool(torch.isfinite(states[mask.bool()]).all()):
        raise LabError(
            f"{where}: activations stop being finite in {what}; look for damaged weights there or scan in float32"
        )
