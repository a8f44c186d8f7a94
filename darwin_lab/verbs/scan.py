"""The verb `scan`: one model scanned and the scan saved; a stopped one is taken up where it was."""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

from darwin_lab.checkpoint.anatomy import read_anatomy
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.export import check_target
from darwin_lab.engine.streamed import Streamed, load_model, weigh
from darwin_lab.engine.sweep import WITH_HALVES
from darwin_lab.errors import LabError
from darwin_lab.mri.experts import ExpertReport
from darwin_lab.mri.keeper import Keeper, kept_key
from darwin_lab.mri.record import Scan
from darwin_lab.mri.scan import MAX_TOKENS, room_for, scan_model, scan_settings
from darwin_lab.progress import Tick
from darwin_lab.verbs.common import Result, probes_for

NO_EXPERTS = "this model has no experts"


def run(arguments: argparse.Namespace, tick: Tick) -> Result:
    """Scan one model, whole in memory or one layer at a time, and save the scan."""
    import torch

    check_target(arguments.out, overwrite=None)
    limit = MAX_TOKENS if arguments.max_tokens is None else arguments.max_tokens
    if limit < 2:
        raise LabError(f"--max-tokens {limit} leaves nothing to predict; give 2 or more")
    if arguments.stream == "never" and arguments.overflow == "spill":
        raise LabError(
            "--overflow spill does nothing beside --stream never, which holds the model whole; leave one out"
        )
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[arguments.dtype]
    probes = probes_for(arguments.probes, arguments.model)
    source = open_checkpoint(arguments.model)
    read_anatomy(source)
    for_digest = source.unread_bytes
    memory = weigh(source, arguments.stream, arguments.device, dtype)
    tick(0.0, memory.sentence)
    model = load_model(source, memory, arguments.device, dtype, arguments.overflow)
    key: dict[str, Any] = {
        "fingerprint": source.fingerprint,
        "probes": probes.hash,
        "settings": scan_settings(limit, dtype),
    }
    if arguments.halves:
        key["halves"] = True
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    folder = arguments.out.parent / f".{arguments.out.name}.partial-{name}"
    if model.streamed:  # texts are grouped by this room, so a scan that goes on keeps the room it began with
        room = (kept_key(folder) or {}).get("room", 0)
        fits = 0 < room <= model.state_bytes
        key["room"] = room if fits else room_for(model, probes.texts, halves=arguments.halves, max_tokens=limit)
        model.state_bytes = key["room"]
    keeper = Keeper(folder, key)
    made = scan_model(model, source, probes, tick, max_tokens=limit, halves=arguments.halves, keeper=keeper)
    made.save(arguments.out)
    keeper.remove()
    how = memory.sentence
    data: dict[str, Any] = {"streamed": memory.streamed, "needed_bytes": memory.needed, "free_bytes": memory.free}
    if isinstance(model, Streamed):
        data["bytes_read"] = model.bytes_read
        passes = model.passes_words(sum(made.tokens.values()), len(WITH_HALVES) if arguments.halves else 1)
        data["digest_bytes"] = for_digest
        how = f"{how}\n{passes}; {model.bytes_read:,} bytes of weights read, after {for_digest:,} for their digest"
    return Result({**made.to_json(), "memory": data, "out": str(arguments.out)}, _scan_text(made, arguments.out, how))


def _scan_text(made: Scan, out: Path, how: str) -> str:
    lines = [f"{made.model}: {made.layers} layers, {sum(made.tokens.values()):,} probe tokens, saved in {out}", how]
    lines += [*filter(None, [made.cut_words]), ""]
    lines += _table(made, "rise in NLL when the layer is skipped")
    if made.has_halves:
        lines += ["", *_table(made, "when its attention alone adds nothing", "attn")]
        lines += ["", *_table(made, "when its FFN alone adds nothing", "ffn"), *filter(None, [made.halves_note])]
    report = made.expert_report()
    return "\n".join([*lines, "", *([NO_EXPERTS] if report is None else _experts_text(report))])


def _table(made: Scan, title: str, half: str | None = None) -> list[str]:
    loss = made.importance("loss", half)
    head = "layer " + " ".join(f"{probe[:9]:>9}" for probe in made.probes)
    rows = (
        f"{layer:>5} " + " ".join(f"{loss[probe][layer]:9.3f}" for probe in made.probes) for layer in range(made.layers)
    )
    return [title, head, *rows]


def _experts_text(report: ExpertReport) -> list[str]:
    if report.output_similarity is None:
        return [report.note]
    alike = f"similarity: mean cosine of the outputs of two experts, on {report.similarity_tokens} tokens a layer"
    lines = [report.note, alike, "layer similarity  least and most salient expert (mean gate x output norm)"]
    for layer, similarity, salient in zip(report.layers, report.output_similarity, report.saliency, strict=True):
        least, most = int(salient.argmin()), int(salient.argmax())
        lines.append(f"{layer:>5} {similarity:10.3f}  {least} ({salient[least]:.3g}), {most} ({salient[most]:.3g})")
    return lines
