"""Where a scan meets a limit: memory runs out and fewer texts are read at once; input that cannot be read is named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine import replay
from darwin_lab.engine.resident import Resident
from darwin_lab.engine.streamed import Streamed
from darwin_lab.errors import LabError
from darwin_lab.mri import scan as scanning
from darwin_lab.mri.keeper import Keeper
from darwin_lab.mri.measures import in_halves
from darwin_lab.mri.probes import ProbeSet
from darwin_lab.mri.record import MEASURES, Scan
from darwin_lab.mri.scan import scan_model, scan_probe, scan_settings
from tests.families import write_family_pair

Trio = tuple[Path, Path, Path]
PROBES = ProbeSet(
    {
        "MATH": ("1+1=2, 2+2=4", "question: 3+4? answer: 7.", "10+5=15"),
        "NEUTRAL": ("the cat sat on the mat", "it rained all day and we stayed in", "tea"),
    }
)


def alike(one: Scan, other: Scan) -> None:
    for probe in PROBES.names:
        assert np.array_equal(one.counts[probe], other.counts[probe])
        for measure in MEASURES:
            assert one.per_text[measure][probe] == pytest.approx(other.per_text[measure][probe], abs=2e-5)
        assert one.centroids[probe] == pytest.approx(other.centroids[probe], abs=1e-5)
        for name, values in one.router[probe].items():
            assert values == pytest.approx(other.router[probe][name], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("place", ["states", "losses"])
@pytest.mark.parametrize("streamed", [False, True], ids=["held", "streamed"])
def test_memory_that_runs_out_halves_the_texts_read_at_once_and_changes_nothing(
    tiny_moe_pair: Trio, monkeypatch: pytest.MonkeyPatch, streamed: bool, place: str, tmp_path: Path
) -> None:
    source = open_checkpoint(tiny_moe_pair[0])
    plenty = scan_model(Resident.load(source), source, PROBES)
    tried: list[int] = []
    start, losses = scanning.start_sweep, scanning.next_token_losses

    def little_for_states(model: Resident, batches: list[Any], *rest: Any) -> Any:
        tried.append(sum(len(ids) for ids, _ in batches))
        if place == "states" and tried[-1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return start(model, batches, *rest)

    def little_for_losses(logits_of: Any, states: Any, ids: torch.Tensor, mask: Any, **options: Any) -> Any:
        if place == "losses" and len(ids) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")
        return losses(logits_of, states, ids, mask, **options)

    monkeypatch.setattr(scanning, "start_sweep", little_for_states)
    monkeypatch.setattr(scanning, "next_token_losses", little_for_losses)
    model = Streamed.open(source) if streamed else Resident.load(source)
    key = {"fingerprint": source.fingerprint, "probes": PROBES.hash, "settings": scan_settings()}
    found = scan_model(model, source, PROBES, keeper=Keeper(tmp_path / "kept", key, 0.0))
    assert tried[0] == (6 if streamed else 3)
    assert min(tried) == 1
    alike(found, plenty)


def test_rows_that_do_not_fit_one_by_one_are_tried_with_fewer_texts_before_giving_up(
    tiny_moe_pair: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_checkpoint(tiny_moe_pair[0])
    resident = Resident.load(source)
    plenty = scan_model(resident, source, PROBES)
    run, limit = replay.Replay.run, [2]

    def scarce(self: Any, layer: Any, index: int, hidden: torch.Tensor, start: int) -> Any:
        if len(self.input_ids) >= limit[0]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, layer, index, hidden, start)

    monkeypatch.setattr(replay.Replay, "run", scarce)
    alike(scan_model(resident, source, PROBES), plenty)
    limit[0] = 1
    with pytest.raises(LabError, match="memory runs out in layer 0 with a single text of 7 tokens; give shorter texts"):
        scan_model(resident, source, PROBES)


@pytest.mark.parametrize("fits", [1, 2, 3, 5, 8])
def test_every_batch_is_read_once_in_pieces_that_fit(fits: int) -> None:
    group = [("A", [0, 1, 2, 3, 4]), ("A", [5]), ("B", [0, 1])]
    read: list[tuple[str, int]] = []

    def reading(piece: Any) -> None:
        if sum(len(chosen) for _, chosen in piece) > fits:
            raise MemoryError
        read.extend((probe, index) for probe, chosen in piece for index in chosen)

    in_halves(group, reading)
    assert read == [(probe, index) for probe, chosen in group for index in chosen]


def test_a_probe_without_text_is_named(tiny_llama_pair: Trio) -> None:
    source = open_checkpoint(tiny_llama_pair[0])
    resident = Resident.load(source)
    with pytest.raises(LabError, match="probe MATH has no text; give at least one text of two tokens or more"):
        scan_probe(resident, source, "MATH", (), probes_hash="none")
    with pytest.raises(LabError, match=r"probe NEUTRAL, text 1 \(''\) is 0 token long"):
        scan_probe(resident, source, "NEUTRAL", ("",), probes_hash="none")


def test_a_probe_of_one_text_is_scanned_and_has_no_interval(tiny_llama_pair: Trio) -> None:
    source = open_checkpoint(tiny_llama_pair[0])
    found = scan_model(Resident.load(source), source, ProbeSet({"MATH": ("1+1=2",)}))
    assert np.isfinite(found.importance("loss")["MATH"]).all()
    assert np.isnan(found.interval("loss", "MATH")).all()


def test_a_scan_needs_no_chat_template(tiny_llama_pair: Trio) -> None:
    source = open_checkpoint(tiny_llama_pair[0])
    resident = Resident.load(source)
    assert resident.tokenizer.chat_template is None
    assert scan_model(resident, source, PROBES).probes == PROBES.names


@pytest.mark.parametrize("open_it", [Resident.load, Streamed.open], ids=["held", "streamed"])
def test_activations_that_overflow_name_the_layer_where_they_start(
    tiny_llama_pair: Trio, open_it: Callable[..., Resident], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_checkpoint(tiny_llama_pair[0])
    read = source.read

    def damaged(name: str) -> torch.Tensor:
        tensor = read(name)
        return torch.full_like(tensor, 3e38) if name == "model.layers.2.input_layernorm.weight" else tensor

    monkeypatch.setattr(source, "read", damaged)
    with pytest.raises(
        LabError, match="father, probe MATH: activations stop being finite in layer 2; look for damaged"
    ):
        scan_model(open_it(source), source, PROBES)


@pytest.mark.parametrize("open_it", [Resident.load, Streamed.open], ids=["held", "streamed"])
def test_logits_that_overflow_name_the_output_matrix(
    tmp_path: Path, open_it: Callable[..., Resident], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_checkpoint(write_family_pair("llama", tmp_path)[0])
    read = source.read

    def damaged(name: str) -> torch.Tensor:
        tensor = read(name).clone()
        if name == "lm_head.weight":
            tensor[7] = torch.inf
        return tensor

    monkeypatch.setattr(source, "read", damaged)
    with pytest.raises(LabError, match="probe MATH: activations stop being finite in the output matrix; look for"):
        scan_model(open_it(source), source, PROBES)
