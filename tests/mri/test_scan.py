import json

import numpy as np
import pytest
import torch

from darwin_lab.checkpoint.anatomy import read_anatomy
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.resident import Resident
from darwin_lab.errors import LabError
from darwin_lab.mri import scan as scanning
from darwin_lab.mri.contrast import Contrast, contrast
from darwin_lab.mri.prescribe import advantage, prescribe
from darwin_lab.mri.probes import ProbeSet
from darwin_lab.mri.record import MEASURES, Scan
from darwin_lab.mri.scan import scan_model
from darwin_lab.progress import silent

PROBES = ProbeSet(
    {
        "MATH": ("1+1=2, 2+2=4", "question: 3+4? answer: 7.", "10+5=15"),
        "NEUTRAL": ("the cat sat on the mat", "it rained all day and we stayed in", "tea"),
    }
)


@pytest.fixture(scope="module", params=["tiny_llama_pair", "tiny_moe_pair"])
def pair(request):
    """(father, mother, father resident, mother resident)."""
    father, mother = (open_checkpoint(folder) for folder in request.getfixturevalue(request.param)[:2])
    return father, mother, Resident.load(father), Resident.load(mother)


def hidden_and_loss(resident, ids):
    """The usual way, one text: normed states and mean next-token loss."""
    rows, mask = resident.encode_batch([ids])
    with torch.inference_mode():
        hidden = resident.hidden(rows, mask)
        logp = torch.log_softmax(resident.logits(hidden), -1)[0, :-1]
    return hidden[0], logp, float(-logp.gather(-1, rows[0, 1:, None]).mean())


def skipped(resident, layer, ids):
    """The same with one layer's output replaced by its input."""
    box = []
    module = resident.decoder_layers[layer]
    hooks = [
        module.register_forward_pre_hook(lambda m, args, kwargs: box.append(args[0].clone()), with_kwargs=True),
        module.register_forward_hook(lambda m, args, output: box.pop()),
    ]
    try:
        return hidden_and_loss(resident, ids)
    finally:
        for hook in hooks:
            hook.remove()


def test_every_measure_equals_skipping_one_layer_of_one_text_at_a_time(pair):
    father, _, resident, _ = pair
    found = scan_model(resident, father, PROBES)
    for probe, texts in PROBES.texts.items():
        for index, text in enumerate(texts):
            ids = resident.tokenizer(text)["input_ids"]
            assert found.lengths[probe][index] == len(ids)
            plain, plain_logp, loss = hidden_and_loss(resident, ids)
            assert found.nll[probe][index] == pytest.approx(loss, abs=1e-5)
            for layer in range(found.layers):
                hidden, logp, without = skipped(resident, layer, ids)
                distance = 1 - torch.cosine_similarity(plain, hidden, dim=-1).mean()
                kl = (plain_logp.exp() * (plain_logp - logp)).sum(-1).mean()
                expected = {"skip": float(distance), "loss": without - loss, "kl": float(kl)}
                for measure, value in expected.items():
                    assert found.per_text[measure][probe][index, layer] == pytest.approx(value, abs=2e-5)


def test_influence_is_the_distance_between_a_layers_input_and_output(pair):
    father, _, resident, _ = pair
    found = scan_model(resident, father, PROBES)
    streams = []
    hooks = [
        layer.register_forward_hook(lambda m, args, out: streams.append((args[0], out)))
        for layer in resident.decoder_layers
    ]
    hidden_and_loss(resident, resident.tokenizer(PROBES.texts["MATH"][0])["input_ids"])
    for hook in hooks:
        hook.remove()
    expected = [float((1 - torch.cosine_similarity(a, b, dim=-1)).mean()) for a, b in streams]
    assert found.per_text["influence"]["MATH"][0] == pytest.approx(expected, abs=1e-5)


def test_a_centroid_is_the_mean_of_a_layers_output_over_the_real_tokens_of_a_probe(pair, tmp_path):
    father, _, resident, _ = pair
    found = scan_model(resident, father, PROBES)
    for probe, texts in PROBES.texts.items():
        streams = []
        hooks = [
            layer.register_forward_hook(lambda m, args, out, at=at, kept=streams: kept.append((at, out[0].double())))
            for at, layer in enumerate(resident.decoder_layers)
        ]
        for text in texts:
            hidden_and_loss(resident, resident.tokenizer(text)["input_ids"])
        for hook in hooks:
            hook.remove()
        for layer in range(found.layers):
            expected = torch.cat([states for at, states in streams if at == layer]).mean(0)
            assert found.centroids[probe][layer] == pytest.approx(expected.numpy(), abs=1e-5)
    kept = Scan.load(found.save(tmp_path / "scan"))
    assert all(np.array_equal(kept.centroids[probe], found.centroids[probe]) for probe in found.probes)


def test_experts_are_counted_per_text_and_padding_is_not(pair):
    father, _, resident, _ = pair
    found = scan_model(resident, father, PROBES)
    if not read_anatomy(father).experts:
        assert found.expert_report() is None
        assert found.counts == {}
        return
    assert (found.experts, found.top_k, found.moe_layers) == (8, 2, (0, 1, 2, 3))
    for probe in found.probes:
        assert np.array_equal(found.counts[probe].sum(-1), np.tile(2 * found.lengths[probe][:, None], (1, 4)))
        assert found.router[probe]["mean_p"].sum(-1) == pytest.approx(np.ones(4), abs=1e-5)
    assert not found.expert_report().certified


def test_the_batch_plan_changes_nothing_but_rounding(pair, monkeypatch):
    father, _, resident, _ = pair
    whole = scan_model(resident, father, PROBES)
    monkeypatch.setattr(scanning, "batch_tokens", lambda: 1)
    single = scan_model(resident, father, PROBES)
    for measure in MEASURES:
        for probe in PROBES.names:
            assert single.per_text[measure][probe] == pytest.approx(whole.per_text[measure][probe], abs=2e-5)


def test_a_scan_repeats_exactly_and_arrives_probe_by_probe(pair):
    father, _, resident, _ = pair
    arrived, ticks = [], []
    first = scan_model(resident, father, PROBES, lambda fraction, words: ticks.append(fraction), arrived.append)
    again = scan_model(resident, father, PROBES)
    assert [scan.probes for scan in arrived] == [("MATH",), ("MATH", "NEUTRAL")]
    assert ticks == sorted(ticks)
    assert ticks[-1] == pytest.approx(1)
    for measure in MEASURES:
        for probe in PROBES.names:
            assert np.array_equal(first.per_text[measure][probe], again.per_text[measure][probe])
    assert first.fingerprint == father.fingerprint


def test_a_cancelled_scan_stops_and_leaves_the_resident_usable(pair):
    from darwin_lab.errors import Cancelled

    father, _, resident, _ = pair

    def stop(fraction, words):
        raise Cancelled

    with pytest.raises(Cancelled):
        scan_model(resident, father, PROBES, stop)
    assert scan_model(resident, father, PROBES, silent).probes == PROBES.names


def test_the_gain_of_a_swap_is_that_of_moving_the_layers_weights(pair):
    _, _, ra, rb = pair
    found = contrast(ra, rb, PROBES)
    ids = ra.tokenizer(PROBES.texts["MATH"][1])["input_ids"]
    father_loss, mother_loss = hidden_and_loss(ra, ids)[2], hidden_and_loss(rb, ids)[2]
    for layer in range(found.layers):
        swapped = []
        for host, guest in ((ra, rb), (rb, ra)):
            kept = host.backbone.layers[layer]
            host.backbone.layers[layer] = guest.backbone.layers[layer]
            swapped.append(hidden_and_loss(host, ids)[2])
            host.backbone.layers[layer] = kept
        expected = 0.5 * (father_loss - swapped[0]) + 0.5 * (swapped[1] - mother_loss)
        assert found.gain["MATH"][1, layer] == pytest.approx(expected, abs=2e-5)


def test_a_contrast_changes_sign_with_the_parents_and_a_model_gains_nothing_from_itself(pair):
    father, _, ra, rb = pair
    there, back = contrast(ra, rb, PROBES), contrast(rb, ra, PROBES)
    twin = Resident.load(father)
    itself = contrast(ra, twin, PROBES)
    for probe in PROBES.names:
        assert there.gain[probe] == pytest.approx(-back.gain[probe], abs=1e-5)
        assert not itself.gain[probe].any()


def test_identical_parents_show_no_advantage_and_get_no_advice(pair):
    father, _, ra, _ = pair
    scan = scan_model(ra, father, PROBES)
    itself = contrast(ra, Resident.load(father), PROBES)
    assert not advantage(scan, scan).values.any()
    advice = prescribe(scan, scan, read_anatomy(father), contrast=itself)
    assert set(advice.ratio.values()) == {0.5}
    assert "no difference" in advice.note


def test_a_contrast_reads_no_more_texts_than_asked_and_loads_equal(pair, tmp_path):
    _, _, ra, rb = pair
    arrived = []
    found = contrast(ra, rb, PROBES, on_probe=arrived.append, max_texts=2, names=("f", "m"))
    assert {len(gain) for gain in found.gain.values()} == {2}
    assert [piece.probes for piece in arrived] == [("MATH",), ("MATH", "NEUTRAL")]
    loaded = Contrast.load(found.save(tmp_path / "contrast"))
    assert loaded.settings == found.settings
    assert loaded.fingerprints == found.fingerprints
    for probe in PROBES.names:
        assert np.array_equal(loaded.gain[probe], found.gain[probe])
        assert np.array_equal(loaded.mean[probe], found.mean[probe])


def test_a_short_or_missing_text_is_refused_before_anything_runs(pair):
    father, _, resident, _ = pair
    with pytest.raises(LabError, match="text 2"):
        scan_model(resident, father, ProbeSet({"MATH": ("1+1", "7")}))
    with pytest.raises(LabError, match="no probe to scan"):
        scan_model(resident, father, ProbeSet({}))


def test_activations_that_are_not_finite_name_the_layer_where_they_start(pair):
    father, _, resident, _ = pair
    broken = resident.decoder_layers[2].input_layernorm.weight
    kept = broken.data.clone()
    broken.data[3] = float("nan")
    try:
        with pytest.raises(LabError, match="stop being finite in layer 2"):
            scan_model(resident, father, PROBES)
    finally:
        broken.data.copy_(kept)


def test_a_bad_text_is_named_before_any_probe_is_read(pair):
    father, _, resident, _ = pair
    probes, read = ProbeSet({"GOOD": ("1+1=2",), "BAD": ("1",)}), []
    with pytest.raises(LabError, match="BAD, text 1"):
        scan_model(resident, father, probes, on_probe=read.append)
    assert read == []


def test_a_text_longer_than_the_context_is_named_with_the_remedy(pair):
    father, _, resident, _ = pair
    long = "a" * (resident.context_length + 8)
    probes = ProbeSet({"MATH": ("1+1=2", long)})
    with pytest.raises(
        LabError, match=r"MATH, text 2 .* 520 tokens long, the model reads at most 512.*--max-tokens 512"
    ):
        scan_model(resident, father, probes, max_tokens=4096)
    cut = scan_model(resident, father, probes, max_tokens=64)
    assert cut.lengths["MATH"].tolist() == [5, 64]
    assert cut.cut_words == "texts that reach 64 tokens, beyond which nothing is read: MATH 1"
    assert scan_model(resident, father, ProbeSet({"MATH": ("1+1=2",)})).cut_words == ""


def test_infinite_activations_are_named_where_they_start_even_in_a_padded_batch(pair):
    father, _, resident, _ = pair
    table = resident.model.get_input_embeddings().weight
    kept = table.data.clone()
    table.data[resident.tokenizer("t")["input_ids"][0]] = float("inf")
    try:
        with pytest.raises(LabError, match="probe NEUTRAL: activations stop being finite in the embedding"):
            scan_model(resident, father, PROBES.only("NEUTRAL"))
    finally:
        table.data.copy_(kept)


def test_a_model_whose_layers_cannot_be_found_is_refused_by_name(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    from tests.conftest import write_tokenizer

    GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2)).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    source = open_checkpoint(tmp_path)
    with pytest.raises(LabError, match="no list of decoder layers found in GPT2LMHeadModel"):
        scan_model(Resident.load(source), source, PROBES)


def test_an_unknown_model_type_is_told_in_a_whole_sentence_with_a_remedy(tmp_path):
    from tests.conftest import write_model

    folder = write_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "no_such_model"}))
    with pytest.raises(LabError, match=r"model type `no_such_model`.*; install a transformers that knows this model"):
        Resident.load(open_checkpoint(folder))


def test_a_dense_model_has_no_expert_report(pair):
    father, _, resident, _ = pair
    scan = scan_model(resident, father, PROBES)
    assert (scan.expert_report() is None) is (read_anatomy(father).experts == 0)
    assert (scan.to_json()["experts"] is None) is (read_anatomy(father).experts == 0)
