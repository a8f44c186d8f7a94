"""The anatomy gives every tensor a role and an owner, and says which pairs can be bred."""

import json
import shutil
import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from darwin_lab.checkpoint.anatomy import FUSED, classify, read_anatomy
from darwin_lab.checkpoint.compare import compare, require_compatible
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.errors import LabError

Trio = tuple[Path, Path, Path]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.3.self_attn.q_proj.weight", ("text", "attention")),
        ("model.layers.3.self_attn.q_norm.weight", ("text", "norm")),
        ("model.layers.0.linear_attn.A_log", ("text", "linear_attention")),
        ("model.layers.0.linear_attn.norm.weight", ("text", "linear_attention")),
        ("model.layers.0.mlp.gate.weight", ("text", "router")),
        ("model.layers.0.mlp.gate_proj.weight", ("text", "ffn")),
        ("model.layers.0.mlp.experts.gate_up_proj", ("text", "expert")),
        ("model.layers.0.mlp.experts.7.down_proj.weight", ("text", "expert")),
        ("model.layers.0.block_sparse_moe.experts.7.w1.weight", ("text", "expert")),
        ("model.layers.0.mlp.shared_expert_gate.weight", ("text", "shared_expert")),
        ("model.layers.0.router.per_expert_scale", ("text", "router")),
        ("model.layers.0.layer_scalar", ("text", "scalar")),
        ("model.embed_tokens_per_layer.weight", ("text", "per_layer_embedding")),
        ("model.embed_tokens.weight", ("text", "embedding")),
        ("lm_head.weight", ("text", "lm_head")),
        ("model.norm.weight", ("text", "norm")),
        ("model.visual.blocks.0.attn.qkv.weight", ("vision", "vision")),
        ("model.visual.merger.linear_fc1.weight", ("vision", "projector")),
        ("mtp.layers.0.mlp.experts.3.up_proj.weight", ("mtp", "mtp")),
        ("model.something_new.weight", ("text", "other")),
    ],
)
def test_a_tensor_name_tells_its_role(name: str, expected: tuple[str, str]) -> None:
    assert classify(name) == expected


def test_each_component_owns_its_block_and_the_norm_before_it(tiny_moe_pair: Trio) -> None:
    anatomy = read_anatomy(open_checkpoint(tiny_moe_pair[0]))
    owner = {name: part.component for name, part in anatomy.parts.items()}
    assert owner["model.layers.0.input_layernorm.weight"] == "attn"
    assert owner["model.layers.0.post_attention_layernorm.weight"] == "ffn"
    assert owner["model.layers.3.self_attn.q_norm.weight"] == "attn"
    assert owner["model.layers.0.linear_attn.dt_bias"] == "attn"
    assert owner["model.layers.0.mlp.gate.weight"] == "ffn"
    assert owner["model.embed_tokens.weight"] == "embed"
    assert owner["model.norm.weight"] == "global"
    assert anatomy.parts["model.layers.1.mlp.experts.down_proj"].expert == FUSED


def test_the_anatomy_of_a_hybrid_names_its_layer_kinds_and_experts(tiny_moe_pair: Trio) -> None:
    anatomy = read_anatomy(open_checkpoint(tiny_moe_pair[0]))
    assert anatomy.layer_kinds == ("linear_attention",) * 3 + ("full_attention",)
    assert (anatomy.layers, anatomy.experts, anatomy.top_k, anatomy.moe_layers) == (4, 8, 2, (0, 1, 2, 3))


def test_fine_tunes_of_one_model_are_compatible(tiny_moe_pair: Trio) -> None:
    father, mother, ancestor = map(open_checkpoint, tiny_moe_pair)
    assert all(check.ok for check in require_compatible(father, mother, ancestor))


def test_another_architecture_is_refused(tiny_llama_pair: Trio, tiny_moe_pair: Trio) -> None:
    with pytest.raises(LabError, match="parents differ in architecture: LlamaForCausalLM against Qwen3_5Moe"):
        require_compatible(open_checkpoint(tiny_llama_pair[0]), open_checkpoint(tiny_moe_pair[0]))


def test_another_vocabulary_is_refused_and_counted(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    mother = Path(shutil.copytree(tiny_llama_pair[1], tmp_path / "mother"))
    tokenizer = json.loads((mother / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (mother / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(LabError, match=r"vocabulary: .* 2 tokens differ"):
        require_compatible(open_checkpoint(tiny_llama_pair[0]), open_checkpoint(mother))


def test_the_same_vocabulary_written_differently_is_accepted(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    mother = Path(shutil.copytree(tiny_llama_pair[1], tmp_path / "mother"))
    tokenizer = json.loads((mother / "tokenizer.json").read_text())
    (mother / "tokenizer.json").write_text(json.dumps(tokenizer, indent=4))
    assert all(check.ok for check in compare(open_checkpoint(tiny_llama_pair[0]), open_checkpoint(mother)))


def test_a_lacking_tensor_is_named(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    mother = Path(shutil.copytree(tiny_llama_pair[1], tmp_path / "mother"))
    tensors = load_file(mother / "model.safetensors")
    del tensors["model.layers.2.mlp.up_proj.weight"]
    save_file(tensors, mother / "model.safetensors")
    with pytest.raises(LabError, match=r"mother lacks model\.layers\.2\.mlp\.up_proj\.weight"):
        require_compatible(open_checkpoint(tiny_llama_pair[0]), open_checkpoint(mother))


def test_a_quantised_parent_is_refused(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_llama_pair[0], tmp_path / "quantised"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(LabError, match="quantised"):
        read_anatomy(open_checkpoint(folder))


def test_a_config_with_more_layers_than_the_files_is_refused(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_llama_pair[0], tmp_path / "short"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 9}))
    with pytest.raises(LabError, match=r"config\.json says 9 layers, the files hold 4"):
        read_anatomy(open_checkpoint(folder))


@pytest.mark.parametrize(
    ("config", "tensor", "words"),
    [
        (
            {"n_layer": 2},
            "model.layers.0.mlp.up_proj.weight",
            "config.json names no num_hidden_layers that the lab knows",
        ),
        (
            {"num_hidden_layers": 1},
            "model.stages.0.mlp.up_proj.weight",
            "no tensor is named as one of a layer that the",
        ),
    ],
)
def test_a_family_whose_layers_cannot_be_found_is_not_called_incomplete(
    config: dict[str, int], tensor: str, words: str, tmp_path: Path
) -> None:
    save_file({tensor: torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(LabError, match=words):
        read_anatomy(open_checkpoint(tmp_path))


@pytest.mark.parametrize("claimed", ["num_hidden_layers", "num_experts"])
def test_a_count_that_a_config_makes_up_is_refused_in_the_memory_of_the_files(claimed: str, tmp_path: Path) -> None:
    names = [f"model.layers.0.mlp.experts.{expert}.up_proj.weight" for expert in range(2)]
    save_file({name: torch.zeros(2, 2) for name in names}, tmp_path / "model.safetensors")
    config = {"num_hidden_layers": 1, "num_experts": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_anatomy(open_checkpoint(tmp_path)).experts == 2
    (tmp_path / "config.json").write_text(json.dumps({**config, claimed: 1_000_000}))
    checkpoint = open_checkpoint(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(LabError, match=r"config\.json says 1000000 .* holds? [12]; get it whole"):
            read_anatomy(checkpoint)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
