"""A GGUF file opens as a checkpoint: its own numbers, its tokenizer, converted once and whole."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from darwin_lab.checkpoint.anatomy import read_anatomy
from darwin_lab.checkpoint.compare import require_compatible
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.errors import LabError

gguf = pytest.importorskip("gguf")

HEADS = {"q_proj": 4, "k_proj": 2}
LAYER_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
TOP_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
TOKENS = ["<pad>", "<eos>", "<unk>", *"abcdefghijklmnopqrstuvwxyz", "ab", *(f"<x{number}>" for number in range(34))]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DARWIN_LAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "gguf"


def their_name(name: str) -> str:
    module = name.removesuffix(".weight")
    if module in TOP_NAMES:
        return f"{TOP_NAMES[module]}.weight"
    _, _, layer, rest = module.split(".", 3)
    return f"blk.{layer}.{LAYER_NAMES[rest]}.weight"


def their_rows(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """llama.cpp stores the rotary halves of queries and keys interleaved."""
    heads = next((count for word, count in HEADS.items() if word in name), None)
    if heads is None:
        return tensor
    return tensor.reshape(heads, 2, -1, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape)


def write_gguf(
    path: Path, source: Path, kind: Any, architecture: str = "llama", extra: tuple[str, ...] = (), lost: str = ""
) -> Path:
    """The llama of `source` as llama.cpp writes it, its matrices in the given GGML type, with `extra` tensors."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] * 3 + [1] * 27 + [4] * 34)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(1)
    for name, tensor in load_file(source / "model.safetensors").items():
        values = their_rows(name, tensor.float()).numpy()
        if name == lost:
            continue
        if values.ndim == 1 or kind == gguf.GGMLQuantizationType.F32:
            writer.add_tensor(their_name(name), values)
            continue
        fits = values.shape[1] % gguf.GGML_QUANT_SIZES[kind][0] == 0
        stored = kind if fits else gguf.GGMLQuantizationType.F16
        writer.add_tensor(their_name(name), gguf.quantize(values, stored), raw_dtype=stored)
    for name in extra:
        writer.add_tensor(name, np.ones(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="session")
def source(family_pairs: Callable[[str, str], tuple[Path, Path, Path]]) -> Path:
    return family_pairs("smollm2", "saved")[0]


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_a_plain_gguf_reads_number_for_number(kind: str, source: Path, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", source, gguf.GGMLQuantizationType[kind])
    checkpoint = open_checkpoint(path)
    expected = load_file(source / "model.safetensors")
    assert checkpoint.name == "tiny (from GGUF)"
    assert set(checkpoint.names) == set(expected)
    dtype = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[kind]
    for name, tensor in expected.items():
        assert checkpoint.read(name).dtype == dtype
        assert torch.equal(checkpoint.read(name), tensor.float().to(dtype)), name


def test_a_quantised_gguf_reads_as_bfloat16_near_the_original(source: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_gguf(tmp_path / "q.gguf", source, gguf.GGMLQuantizationType.Q8_0))
    for name, tensor in load_file(source / "model.safetensors").items():
        got = checkpoint.read(name)
        assert got.dtype == torch.bfloat16
        assert (got.float() - tensor.float()).abs().max() <= 0.02 * tensor.float().abs().max()


def test_what_came_out_loads_in_transformers_with_config_and_tokenizer(source: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    checkpoint = open_checkpoint(write_gguf(tmp_path / "tiny.gguf", source, gguf.GGMLQuantizationType.BF16))
    model, report = AutoModelForCausalLM.from_pretrained(checkpoint.folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    original = AutoModelForCausalLM.from_pretrained(source)
    ids = torch.arange(3, 20)[None]
    assert torch.equal(model(ids).logits, original(ids).logits)
    assert checkpoint.config["rms_norm_eps"] == 1e-6
    assert checkpoint.config["architectures"] == ["LlamaForCausalLM"]
    assert "quantization_config" not in checkpoint.config
    assert AutoTokenizer.from_pretrained(checkpoint.folder)("abc")["input_ids"] == [
        TOKENS.index("ab"),
        TOKENS.index("c"),
    ]
    tokenizer = json.loads((checkpoint.folder / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_two_gguf_files_can_be_bred(source: Path, tmp_path: Path) -> None:
    for name, kind in (("father", "F16"), ("mother", "Q8_0")):
        (tmp_path / name).mkdir()
        write_gguf(tmp_path / name / f"{name}.gguf", source, gguf.GGMLQuantizationType[kind])
    father, mother = open_checkpoint(tmp_path / "father"), open_checkpoint(tmp_path / "mother")
    assert require_compatible(father, mother)
    assert read_anatomy(father).layers == 2


def test_it_is_converted_once_wherever_the_file_lies(source: Path, tmp_path: Path, home: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", source, gguf.GGMLQuantizationType.F16)
    first = open_checkpoint(path)
    made = (first.folder / "model.safetensors").stat().st_mtime_ns
    again = open_checkpoint(shutil.copy(path, tmp_path / "copy.gguf"))
    assert again.folder == first.folder
    assert again.fingerprint == first.fingerprint
    assert (first.folder / "model.safetensors").stat().st_mtime_ns == made
    assert list(home.iterdir()) == [first.folder]


def damage_text(path: Path, source: Path) -> None:
    path.write_text("GGUF? no, a text")


def damage_truncated_header(path: Path, source: Path) -> None:
    write_gguf(path, source, gguf.GGMLQuantizationType.F16)
    path.write_bytes(path.read_bytes()[:700])


def damage_truncated_data(path: Path, source: Path) -> None:
    write_gguf(path, source, gguf.GGMLQuantizationType.F16)
    path.write_bytes(path.read_bytes()[:-5000])


def damage_architecture(path: Path, source: Path) -> None:
    write_gguf(path, source, gguf.GGMLQuantizationType.F16, architecture="qwen2")


def damage_unread_tensor(path: Path, source: Path) -> None:
    write_gguf(path, source, gguf.GGMLQuantizationType.F16, extra=("rope_freqs.weight",))


def damage_lost_tensor(path: Path, source: Path) -> None:
    write_gguf(path, source, gguf.GGMLQuantizationType.F16, lost="model.layers.1.mlp.up_proj.weight")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_text, "GGUF"),
        (damage_truncated_header, "cannot be read as GGUF"),
        (damage_truncated_data, "cannot be read as GGUF"),
        (damage_architecture, "architecture qwen2; only llama is read"),
        (damage_unread_tensor, "rope_freqs.weight, which transformers does not read"),
        (damage_lost_tensor, "first model.layers.1.mlp.up_proj.weight"),
    ],
)
def test_what_cannot_be_read_is_refused_and_leaves_nothing(
    damage: Callable[[Path, Path], None], words: str, source: Path, tmp_path: Path, home: Path
) -> None:
    path = tmp_path / "bad.gguf"
    damage(path, source)
    before = path.read_bytes()
    with pytest.raises(LabError) as caught:
        open_checkpoint(path)
    assert words in str(caught.value)
    assert "safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert not home.exists() or not list(home.iterdir())


def test_a_folder_with_several_is_asked_for_one(source: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.gguf").write_bytes(b"GGUF")
    with pytest.raises(LabError, match=r"2 GGUF files \(a\.gguf, \.\.\.\); give one of them"):
        open_checkpoint(tmp_path)


def test_without_the_package_the_remedy_is_its_installation(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers.modeling_gguf_pytorch_utils as reader

    path = write_gguf(tmp_path / "tiny.gguf", source, gguf.GGMLQuantizationType.F16)
    monkeypatch.setattr(reader, "is_gguf_available", lambda *args: False)
    with pytest.raises(LabError, match=r"pip install gguf=="):
        open_checkpoint(path)
