"""What attention or FFN of a layer alone adds: equal to silencing it by hand; saved, merged, streamed, or refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine import halves as engine_halves
from darwin_lab.engine import sweep
from darwin_lab.engine.resident import Resident
from darwin_lab.engine.streamed import Streamed
from darwin_lab.errors import Cancelled, LabError
from darwin_lab.mri.keeper import Keeper
from darwin_lab.mri.probes import ProbeSet
from darwin_lab.mri.record import HALF_MEASURES, HALVES, MEASURES, Scan, merged
from darwin_lab.mri.scan import scan_model, scan_probe, scan_settings
from tests.families import KINDS

Trio = tuple[Path, Path, Path]
Pairs = Callable[[str, str], Trio]
PROBES = ProbeSet(
    {
        "MATH": ("1+1=2, 2+2=4", "question: 3+4? answer: 7.", "10+5=15"),
        "NEUTRAL": ("the cat sat on the mat", "it rained all day and we stayed in", "tea"),
    }
)


def same(one: Scan, other: Scan) -> None:
    for half in HALVES:
        for measure in HALF_MEASURES:
            for probe in PROBES.names:
                values = one.halves[half][measure][probe]
                assert np.array_equal(values, other.halves[half][measure][probe], equal_nan=True)


@torch.no_grad()
def test_each_half_is_measured_as_by_silencing_it_in_one_text_at_a_time(tiny_llama_pair: Trio) -> None:
    source = open_checkpoint(tiny_llama_pair[0])
    resident = Resident.load(source)
    found = scan_model(resident, source, PROBES, halves=True)
    ids, mask = resident.encode_batch([resident.tokenizer(PROBES.texts["MATH"][1])["input_ids"]])

    def read() -> tuple[torch.Tensor, torch.Tensor, float]:
        hidden = resident.hidden(ids, mask)
        logp = torch.log_softmax(resident.logits(hidden), -1)[0, :-1]
        return hidden[0], logp, float(-logp.gather(-1, ids[0, 1:, None]).mean())

    plain, plain_logp, loss = read()
    for index, layer in enumerate(resident.decoder_layers):
        for half, weight in (("attn", layer.self_attn.o_proj.weight), ("ffn", layer.mlp.down_proj.weight)):
            kept = weight.data.clone()
            weight.data.zero_()
            hidden, logp, without = read()
            weight.data.copy_(kept)
            expected = {
                "skip": float(1 - torch.cosine_similarity(plain, hidden, dim=-1).mean()),
                "loss": without - loss,
                "kl": float((plain_logp.exp() * (plain_logp - logp)).sum(-1).mean()),
            }
            for measure, value in expected.items():
                assert found.halves[half][measure]["MATH"][1, index] == pytest.approx(value, abs=2e-5)
                low, high = found.interval(measure, "MATH", half)[index]
                assert low <= found.importance(measure, half)["MATH"][index] <= high


@pytest.mark.parametrize("kind", KINDS)
def test_halves_leave_the_scan_as_it_is_and_stream_as_they_are_held(kind: str, family_pairs: Pairs) -> None:
    source = open_checkpoint(family_pairs(kind, "hub")[0])
    resident = Resident.load(source)
    plain, found = scan_model(resident, source, PROBES), scan_model(resident, source, PROBES, halves=True)
    assert (plain.has_halves, found.has_halves, found.halves_note) == (False, True, "")
    assert found.settings == plain.settings
    for measure in MEASURES:
        for probe in PROBES.names:
            assert found.per_text[measure][probe] == pytest.approx(plain.per_text[measure][probe], abs=2e-5)
    for half in HALVES:
        assert all(np.abs(values).max() > 1e-6 for values in found.importance("loss", half).values())
    model = Streamed.open(source)
    same(scan_model(model, source, PROBES, halves=True), found)
    wanted = [name for name in source.names if model.place(name) is not None]
    assert model.bytes_read == sum(source.tensors[name].nbytes for name in wanted)


def test_halves_are_saved_merged_and_printed_as_plain_json(tiny_moe_pair: Trio, tmp_path: Path) -> None:
    source = open_checkpoint(tiny_moe_pair[0])
    resident = Resident.load(source)
    found = scan_model(resident, source, PROBES, halves=True)
    same(Scan.load(found.save(tmp_path / "scan")), found)
    pieces = [
        scan_probe(resident, source, probe, texts, probes_hash=PROBES.hash, halves=True)
        for probe, texts in PROBES.texts.items()
    ]
    same(merged(pieces), found)
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert np.shape(data["halves"]["attn"]["importance"]["loss"]["MATH"]) == (found.layers,)
    assert np.shape(data["halves"]["ffn"]["interval"]["kl"]["NEUTRAL"]) == (found.layers, 2)
    assert scan_model(resident, source, PROBES).to_json()["halves"] is None


def test_a_probe_without_halves_is_named_and_gets_them_when_it_is_scanned_again(tiny_llama_pair: Trio) -> None:
    source = open_checkpoint(tiny_llama_pair[0])
    resident = Resident.load(source)
    plain = scan_model(resident, source, PROBES)
    math = scan_probe(resident, source, "MATH", PROBES.texts["MATH"], probes_hash=PROBES.hash, halves=True)
    some = merged([plain, math])
    assert not some.has_halves
    assert some.interval("loss", "MATH", "attn").shape == (some.layers, 2)
    with pytest.raises(LabError, match="holds no halves of probe NEUTRAL; scan it again with halves"):
        some.importance("loss", "attn")
    with pytest.raises(LabError, match="no half named middle"):
        some.interval("loss", "MATH", "middle")
    with pytest.raises(LabError, match="no measure named influence; choose one of skip, loss, kl"):
        some.interval("influence", "MATH", "ffn")
    assert merged([some, scan_model(resident, source, PROBES, halves=True)]).has_halves


def test_a_layer_without_one_half_is_nan_there_and_said(
    tiny_llama_pair: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_checkpoint(tiny_llama_pair[0])
    resident = Resident.load(source)
    alone = resident.decoder_layers[2]

    def told_apart(layer: torch.nn.Module, half: str) -> list[Any]:
        return [] if (layer, half) == (alone, "ffn") else engine_halves.half_modules(layer, half)

    monkeypatch.setattr(sweep, "half_modules", told_apart)
    found = scan_model(resident, source, PROBES, halves=True)
    assert found.halves_note == "no FFN half is told apart in layer 2"
    assert found.has_halves
    for measure in HALF_MEASURES:
        assert np.isnan(found.importance(measure, "ffn")["MATH"]).tolist() == [False, False, True, False]
        assert np.isfinite(found.importance(measure, "attn")["MATH"]).all()
    assert Scan.load(found.save(tmp_path / "scan")).halves_note == found.halves_note
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["halves"]["note"] == found.halves_note


def test_a_stopped_streamed_scan_with_halves_goes_on_at_its_layer(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    source = open_checkpoint(tiny_llama_pair[0])
    whole = scan_model(Resident.load(source), source, PROBES, halves=True)
    key = {"fingerprint": source.fingerprint, "probes": PROBES.hash, "settings": scan_settings(), "halves": True}
    words: list[str] = []

    def stop(fraction: float, word: str) -> None:
        if "layer 2" in word:
            raise Cancelled

    def begin(tick: Any) -> Scan:
        keeper = Keeper(tmp_path / "kept", key, 0.0)
        return scan_model(Streamed.open(source), source, PROBES, tick, keeper=keeper, halves=True)

    with pytest.raises(Cancelled):
        begin(stop)
    same(begin(lambda fraction, word: words.append(word)), whole)
    assert not any("layer 0 of" in word for word in words)


def test_a_resident_scan_without_halves_is_not_taken_up_as_one_with(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    source = open_checkpoint(tiny_llama_pair[0])
    resident = Resident.load(source)
    key = {"fingerprint": source.fingerprint, "probes": PROBES.hash, "settings": scan_settings()}
    Keeper(tmp_path / "kept", key).keep_scan(replace(scan_model(resident, source, PROBES)))
    assert len(list(Keeper(tmp_path / "kept", key).scans())) == 1
    assert not list(Keeper(tmp_path / "kept", {**key, "halves": True}).scans())
