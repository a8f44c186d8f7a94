"""What experts put out: saliency and output similarity equal what each expert computes by hand, for every family."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.resident import Resident
from darwin_lab.engine.streamed import Streamed
from darwin_lab.mri import scan as scanning
from darwin_lab.mri.gathered import SIMILARITY_TOKENS, Gathered
from darwin_lab.mri.probes import ProbeSet
from darwin_lab.mri.record import Scan, merged
from darwin_lab.mri.scan import scan_model
from tests.families import EITHER_WAY, MIXTURES

Pairs = Callable[[str, str], tuple[Path, Path, Path]]
PROBES = ProbeSet(
    {
        "MATH": ("1+1=2, 2+2=4", "question: 3+4? answer: 7.", "10+5=15"),
        "NEUTRAL": ("the cat sat on the mat", "it rained all day and we stayed in", "tea"),
    }
)


def by_hand(module: torch.nn.Module, expert: int, x: torch.Tensor) -> torch.Tensor:
    """[N, H] of one expert, from its matrices: gated, as the published code of each family has it."""
    up, down = module.gate_up_proj[expert], module.down_proj[expert]
    if hasattr(module, "gate_up_proj_bias"):
        both = x @ up + module.gate_up_proj_bias[expert]
        gate, up = both[..., ::2].clamp(max=module.limit), both[..., 1::2].clamp(-module.limit, module.limit)
        return (up + 1) * gate * torch.sigmoid(gate * module.alpha) @ down + module.down_proj_bias[expert]
    gate, up = (x @ up.T).chunk(2, -1)
    return module.act_fn(gate) * up @ down.T


def called(resident: Resident, text: str) -> dict[int, tuple[torch.nn.Module, Any]]:
    """Layer -> (experts module, (inputs, chosen, weights)) of one text alone, without padding."""
    found, hooks = {}, []
    for index, layer in enumerate(resident.decoder_layers):
        for name, module in layer.named_modules():
            if name.split(".")[-1] == "experts":

                def note(module: Any, args: Any, kwargs: Any, index: int = index) -> None:
                    found[index] = (module, (*args, *kwargs.values()))

                hooks.append(module.register_forward_pre_hook(note, with_kwargs=True))
    resident.hidden(*resident.encode_batch([resident.tokenizer(text)["input_ids"]]))
    for hook in hooks:
        hook.remove()
    return found


@torch.no_grad()
@pytest.mark.parametrize("kind", sorted(MIXTURES))
def test_saliency_is_the_gate_times_the_norm_of_what_the_expert_puts_out(kind: str, family_pairs: Pairs) -> None:
    source = open_checkpoint(family_pairs(kind, "hub")[0])
    resident = Resident.load(source)
    report = scan_model(resident, source, PROBES).expert_report()
    assert report is not None
    for place, texts in enumerate(PROBES.texts.values()):
        summed, times = np.zeros(report.saliency.shape), np.zeros(report.saliency.shape)
        for text in texts:
            for layer, (module, (x, chosen, weights)) in called(resident, text).items():
                row = report.layers.index(layer)
                for expert in range(summed.shape[1]):
                    token, slot = torch.where(chosen == expert)
                    norms = by_hand(module, expert, x[token]).norm(dim=-1)
                    summed[row, expert] += float((weights[token, slot] * norms).sum())
                    times[row, expert] += len(token)
        expected = np.divide(summed, times, out=np.zeros_like(summed), where=times > 0)
        assert expected.any()
        assert report.saliency_by_probe[place] == pytest.approx(expected, rel=1e-4, abs=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("kind", sorted(MIXTURES))
def test_similarity_is_the_mean_cosine_of_every_two_experts_on_the_same_tokens(kind: str, family_pairs: Pairs) -> None:
    source = open_checkpoint(family_pairs(kind, "hub")[0])
    resident = Resident.load(source)
    probe = ProbeSet({"TEA": ("tea",)})
    tokens = resident.tokenizer("tea")["input_ids"]
    report = scan_model(resident, source, probe).expert_report()
    assert report is not None
    assert report.output_similarity is not None
    assert report.similarity_tokens == len(tokens) < SIMILARITY_TOKENS
    for layer, (module, (x, *_)) in called(resident, "tea").items():
        outputs = torch.stack([by_hand(module, expert, x) for expert in range(len(module.down_proj))])
        pairs = [
            float(torch.cosine_similarity(outputs[one], outputs[other], dim=-1).mean())
            for one in range(len(outputs))
            for other in range(one)
        ]
        assert report.output_similarity[report.layers.index(layer)] == pytest.approx(np.mean(pairs), abs=1e-5)


@pytest.mark.parametrize("kind", sorted(MIXTURES))
def test_a_streamed_model_and_other_batches_give_the_same_expert_outputs(
    kind: str, family_pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_checkpoint(family_pairs(kind, "hub")[0])
    resident = Resident.load(source)
    whole, streamed = scan_model(resident, source, PROBES), scan_model(Streamed.open(source), source, PROBES)
    monkeypatch.setattr(scanning, "batch_tokens", lambda: 1)
    single = scan_model(resident, source, PROBES)
    for probe in PROBES.names:
        for name, values in whole.router[probe].items():
            assert np.array_equal(streamed.router[probe][name], values)
            assert single.router[probe][name] == pytest.approx(values, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("kind", EITHER_WAY)
def test_experts_stored_one_by_one_put_out_what_stacked_ones_do(kind: str, family_pairs: Pairs) -> None:
    reports = []
    for layout in ("fused", "single"):
        source = open_checkpoint(family_pairs(kind, layout)[0])
        reports.append(scan_model(Resident.load(source), source, PROBES).expert_report())
    fused, single = reports
    assert fused is not None
    assert single is not None
    assert np.array_equal(fused.saliency, single.saliency)
    assert np.array_equal(fused.output_similarity, single.output_similarity)


def test_equal_experts_have_similarity_one_and_a_silent_one_no_saliency(family_pairs: Pairs) -> None:
    source = open_checkpoint(family_pairs("qwen3_moe", "hub")[0])
    resident = Resident.load(source)
    first, second = (layer.mlp.experts for layer in resident.decoder_layers)
    with torch.no_grad():
        for matrix in (first.gate_up_proj, first.down_proj):
            matrix.copy_(matrix[:1].expand_as(matrix))
        second.down_proj[2] = 0
    report = scan_model(resident, source, PROBES).expert_report()
    assert report is not None
    assert report.output_similarity is not None
    assert report.output_similarity[0] == pytest.approx(1, abs=1e-5)
    assert report.output_similarity[1] < 0.9
    assert report.utilisation[1, 2] > 0
    assert (report.saliency[1] == 0).tolist() == [False, False, True, False]


def test_the_sample_is_spread_evenly_over_the_texts_of_a_probe() -> None:
    lengths = [3, 50, 4, 43]
    sample = Gathered(lengths, 2).sample
    assert len(sample) == SIMILARITY_TOKENS
    assert all(0 <= position < lengths[text] for text, position in sample)
    flat = [sum(lengths[:text]) + position for text, position in sample]
    assert np.diff(flat).tolist() == pytest.approx([100 / SIMILARITY_TOKENS] * (SIMILARITY_TOKENS - 1), abs=1)
    assert Gathered([2, 3], 2).sample == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]


def test_expert_outputs_are_saved_merged_and_shown(family_pairs: Pairs, tmp_path: Path) -> None:
    source = open_checkpoint(family_pairs("mixtral", "hub")[0])
    resident, arrived = Resident.load(source), []
    whole = scan_model(resident, source, PROBES, on_probe=arrived.append)
    whole.save(tmp_path / "scan")
    loaded = Scan.load(tmp_path / "scan")
    one, other = (replace(whole, probes=(p,), router={p: whole.router[p]}) for p in PROBES.names)
    for found in (loaded, merged([one, other])):
        for probe in PROBES.names:
            assert set(found.router[probe]) == set(whole.router[probe])
            assert all(np.array_equal(values, found.router[probe][n]) for n, values in whole.router[probe].items())
    report = loaded.expert_report()
    assert report is not None
    times = {probe: whole.counts[probe].sum(0) for probe in PROBES.names}
    weighted = sum(report.saliency_by_probe[place] * times[probe] for place, probe in enumerate(PROBES.names))
    assert report.saliency == pytest.approx(weighted / np.maximum(sum(times.values()), 1))
    shown = whole.to_json()["experts"]
    assert np.shape(shown["saliency"]) == (2, 4)
    assert shown["similarity_tokens"] == 2 * SIMILARITY_TOKENS
    assert len(shown["output_similarity"]) == 2


def test_a_scan_from_before_expert_outputs_loads_and_says_nothing_of_them(family_pairs: Pairs, tmp_path: Path) -> None:
    source = open_checkpoint(family_pairs("mixtral", "hub")[0])
    made = scan_model(Resident.load(source), source, PROBES)
    known = ("token_entropy", "mean_p")
    replace(made, router={probe: {name: found[name] for name in known} for probe, found in made.router.items()}).save(
        tmp_path / "old"
    )
    report = Scan.load(tmp_path / "old").expert_report()
    assert report is not None
    assert np.isnan(report.saliency).all()
    assert np.isnan(report.saliency_by_probe).all()
    assert (report.output_similarity, report.similarity_tokens) == (None, 0)
    assert (report.to_json()["saliency"], report.to_json()["output_similarity"]) == (None, None)
    assert report.gini.shape == (2,)
