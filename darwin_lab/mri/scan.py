"""The Model MRI: read a probe's texts, skip every layer once, and keep what that does to each text.

Takes a model (resident or streamed), the source whose weights it shall carry, and texts; gives a `Scan`. Everything
comes from one sweep: skips (and halves) from its branches, influence and experts from its plain pass. A resident model
reads batch by batch; a streamed one takes as many batches at once as its memory for states allows, so that each weight
is read once a pass. Where memory runs out, fewer texts are read at once. Must not know: parents, merging, what a probe
is for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from darwin_lab.engine.resident import Resident
from darwin_lab.engine.source import Source
from darwin_lab.engine.sweep import TOKENS_AT_ONCE, WHOLE, WITH_HALVES, Front, Step, advance, finish, start_sweep
from darwin_lab.errors import LabError
from darwin_lab.mri.gathered import Gathered
from darwin_lab.mri.keeper import Keeper
from darwin_lab.mri.measures import (
    Batch,
    batches_by_length,
    cosine_distance,
    encode_texts,
    group_batches,
    in_halves,
    next_token_losses,
)
from darwin_lab.mri.probes import ProbeSet
from darwin_lab.mri.record import HALF_MEASURES, MEASURES, Scan, merged
from darwin_lab.progress import Tick, part, silent

__all__ = ["MEASURES", "Scan", "merged", "scan_model", "scan_probe", "scan_settings"]

MAX_TOKENS = 512
"""A text is cut to this many tokens."""
SHARE_OF_ROOM = 0.75
"""Of the room for states a streamed scan that needs more uses this share."""


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
    halves: bool = False,
    keeper: Keeper | None = None,
) -> Scan:
    """Scan `source` on every probe, in their order; `on_probe` gets the partial scan whenever a probe is done.

    With `halves` also what is lost when only attention, or only the FFN, of a layer adds nothing: three branches a
    layer, about three times the work.

    The model is made to carry `source`. With a `keeper` a scan that was stopped goes on where it was. Raises
    `LabError` for a probe without usable text and for activations that are not finite (names the layer); `Cancelled`
    passes through.
    """
    if not probes.texts:
        raise LabError("no probe to scan; give a probes file with at least one line")
    if model.streamed:
        return merged(_scan(model, source, probes.texts, probes.hash, tick, on_probe, max_tokens, halves, keeper))
    for name, texts in probes.texts.items():  # a bad text is told before anything is measured and kept
        encode_texts(model.tokenizer, texts, name, max_tokens, model.context_length)
    total = sum(len(texts) for texts in probes.texts.values())
    done, pieces = 0, list(keeper.scans()) if keeper is not None else []
    for name, texts in probes.texts.items():
        share = part(tick, done / total, (done + len(texts)) / total)
        done += len(texts)
        if any(name in piece.probes for piece in pieces):
            continue
        pieces.append(
            scan_probe(
                model, source, name, texts, probes_hash=probes.hash, tick=share, max_tokens=max_tokens, halves=halves
            )
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
    halves: bool = False,
) -> Scan:
    """A partial scan of one probe: every measure per text, in the order of `texts`. Raises as `scan_model` does."""
    return _scan(model, source, {probe: texts}, probes_hash, tick, None, max_tokens, halves, None)[0]


def batch_tokens() -> int:
    """Padded tokens of one batch: its plain branch alone fills what a layer computes on at once."""
    return TOKENS_AT_ONCE


def room_for(
    model: Resident, texts: Mapping[str, Sequence[str]], *, halves: bool = False, max_tokens: int = MAX_TOKENS
) -> int:
    """Bytes for the states of one pass of a streamed scan: what all texts take, or a share of what there is, so that
    the scan can go on where somewhat less is free."""
    padded = 0
    for probe, lines in texts.items():
        lengths = [len(ids) for ids in encode_texts(model.tokenizer, lines, probe, max_tokens, model.context_length)]
        for chosen in batches_by_length(lengths, batch_tokens()):
            padded += len(chosen) * max(lengths[index] for index in chosen)
    needed = padded * model.state_bytes_per_token(len(WITH_HALVES if halves else WHOLE))
    return needed if needed <= model.state_bytes else int(SHARE_OF_ROOM * model.state_bytes)


def _scan(
    model: Resident,
    source: Source,
    texts: Mapping[str, Sequence[str]],
    probes_hash: str,
    tick: Tick,
    on_probe: Callable[[Scan], None] | None,
    max_tokens: int,
    halves: bool,
    keeper: Keeper | None,
) -> list[Scan]:
    parts = WITH_HALVES if halves else WHOLE
    with model.lock:
        model.become(source)
        encoded = {
            probe: encode_texts(model.tokenizer, lines, probe, max_tokens, model.context_length)
            for probe, lines in texts.items()
        }
        gathered = {probe: Gathered(list(map(len, rows)), model.layers, halves) for probe, rows in encoded.items()}
        groups = group_batches(encoded, batch_tokens(), model.state_bytes_per_token(len(parts)), model.state_bytes)
        settings = scan_settings(max_tokens, model.dtype)
        begun = keeper.take_up(gathered) if keeper is not None else (0, None)
        lacking: set[tuple[int, str]] = set()
        scans: dict[str, Scan] = {}
        for number, group in enumerate(groups):
            share = part(tick, number / len(groups), (number + 1) / len(groups))
            if number >= begun[0]:
                reading = _Reading(model, source.name, parts, encoded, gathered, share, lacking)
                reading.keeper, reading.number = keeper, number
                reading.kept = begun[1] if number == begun[0] else None
                in_halves(group, reading)
            later = {probe for group in groups[number + 1 :] for probe, _ in group}
            for probe in encoded:
                if probe not in later and probe not in scans:
                    note = lacking_words(lacking)
                    scans[probe] = gathered[probe].scan(source, probe, probes_hash, settings, note)
                    if on_probe is not None:
                        on_probe(merged(list(scans.values())))
        tick(1.0, f"scanned {source.name}")
    return [scans[probe] for probe in texts]


def lacking_words(lacking: set[tuple[int, str]]) -> str:
    """Which layers have no attention or no FFN of their own to leave out; "" when all have both."""
    words = {"attn": "attention", "ffn": "FFN"}
    lines = []
    for half, name in words.items():
        layers = sorted(layer for layer, which in lacking if which == half)
        if layers:
            lines.append(f"no {name} half is told apart in layer {', '.join(map(str, layers))}")
    return "; ".join(lines)


@dataclass
class _Reading:
    """One sweep over some batches, its measures put into `gathered`; called again with fewer when memory runs out."""

    model: Resident
    name: str
    parts: tuple[str, ...]
    encoded: Mapping[str, list[list[int]]]
    gathered: Mapping[str, Gathered]
    tick: Tick
    lacking: set[tuple[int, str]]
    keeper: Keeper | None = None
    number: int = 0
    kept: Callable[[Front], None] | None = None

    @torch.inference_mode()
    def __call__(self, group: Sequence[Batch]) -> None:
        model, gathered = self.model, self.gathered
        batches = [model.encode_batch([self.encoded[probe][index] for index in chosen]) for probe, chosen in group]
        words = f"scanning {self.name}: {', '.join(dict.fromkeys(probe for probe, _ in group))}"

        def watch(step: Step) -> None:
            probe, chosen = group[step.batch]
            mask = batches[step.batch][1]
            if step.layer == 0:
                self._require_finite(step.before, mask, probe, "the embedding")
            self._require_finite(step.after, mask, probe, f"layer {step.layer}")
            gathered[probe].add_layer(chosen, step, cosine_distance(step.before, step.after, mask), mask)

        keeper, kept, self.keeper, self.kept = self.keeper, self.kept, None, None  # they know whole groups only
        front = start_sweep(model, batches, model.spill, self.parts)
        if kept is not None:
            kept(front)
        while front.layer < model.layers:
            self.tick(front.done, f"{words}, layer {front.layer} of {model.layers}")
            advance(model, front, watch)
            if keeper is not None and model.streamed:
                keeper.offer(self.number, front, gathered)
        self.lacking |= front.lacking
        self.tick(front.done, f"{words}, next tokens")
        with model.head():
            for batch, (probe, chosen) in enumerate(group):
                gathered[probe].add(chosen, *self._measures(front, batch, batches[batch], probe))

    def _measures(
        self, front: Front, batch: int, tokens: tuple[torch.Tensor, torch.Tensor], probe: str
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Measures [L, B] by name, those of a half behind its name and a dot, and the plain NLL [B]."""
        ids, mask = tokens
        swept, count = finish(front, batch), len(front.parts)
        self._require_finite(swept[0], mask, probe, "the final norm")
        for branch in range(1, len(swept)):
            if not bool(torch.isfinite(swept[branch][mask.bool()]).all()):
                layer, place = divmod(branch - 1, count)
                what = {"layer": "layer", "attn": "attention of layer", "ffn": "FFN of layer"}[front.parts[place]]
                raise LabError(
                    f"{self.name}, probe {probe}: activations are not finite when {what} {layer} is skipped; "
                    + self._remedy
                )
        skip = torch.stack([cosine_distance(swept[0], states, mask) for states in swept[1:]])
        nll, kl = next_token_losses(self.model.logits, swept, ids, mask, divergence=True)
        if not bool(torch.isfinite(nll).all() and torch.isfinite(kl).all()):
            raise LabError(self._not_finite(probe, "the output matrix"))
        found = {}
        for place, left_out in enumerate(front.parts):
            rows = slice(place, None, count)
            prefix = "" if left_out == "layer" else f"{left_out}."
            for measure, values in (("skip", skip), ("loss", nll[1:] - nll[0]), ("kl", kl[1:])):
                found[prefix + measure] = values[rows].clone()
        for layer, half in front.lacking:
            for measure in HALF_MEASURES:
                found[f"{half}.{measure}"][layer] = torch.nan
        return found, nll[0]

    def _require_finite(self, states: torch.Tensor, mask: torch.Tensor, probe: str, what: str) -> None:
        """Raises `LabError` naming the place where the real tokens' activations stop being finite."""
        if not bool(torch.isfinite(states[mask.bool()]).all()):
            raise LabError(self._not_finite(probe, what))

    def _not_finite(self, probe: str, what: str) -> str:
        return f"{self.name}, probe {probe}: activations stop being finite in {what}; {self._remedy}"

    @property
    def _remedy(self) -> str:
        narrow = self.model.dtype != torch.float32
        return "look for damaged weights there" + (" or scan in float32" if narrow else "")
