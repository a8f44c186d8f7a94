"""Fixtures every room's tests may use: tiny random parents of a few families, and the embedded family."""

import json
import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

FAMILY = Path(__file__).resolve().parents[1] / "assets" / "family"
WORDS = ["<pad>", "<eos>", "<unk>", *"abcdefghijklmnopqrstuvwxyz0123456789+=?.,:", "Question", "Answer"]


def write_tokenizer(folder: Path, words: list[str] | None = None) -> None:
    """A character-level tokenizer (spaces kept as tokens) that AutoTokenizer loads."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {word: number for number, word in enumerate([*(words or WORDS), " ", "\n"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("Question|Answer|[\\s\\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "eos_token": "<eos>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def tiny_config(kind: str) -> object:
    """The config of a tiny random model: "llama" (dense), "moe" (hybrid Qwen3.5-MoE)."""
    from transformers import LlamaConfig, Qwen3_5MoeTextConfig

    if kind == "llama":
        return LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True, pad_token_id=0,
            eos_token_id=1,
        )  # fmt: skip
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 0], "mrope_interleaved": True,
            "partial_rotary_factor": 0.25}  # fmt: skip
    return Qwen3_5MoeTextConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        linear_num_key_heads=2, linear_num_value_heads=2, linear_key_head_dim=8, linear_value_head_dim=8,
        max_position_embeddings=512, moe_intermediate_size=16, shared_expert_intermediate_size=16, num_experts=8,
        num_experts_per_tok=2, tie_word_embeddings=True, rope_parameters=rope, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip


def write_model(folder: Path, kind: str = "llama", seed: int = 0, shift_of: Path | None = None) -> Path:
    """A tiny random bf16 checkpoint with tokenizer; `shift_of` makes it a small move away from another one."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(kind))
    if shift_of is not None:
        base = AutoModelForCausalLM.from_pretrained(shift_of, dtype=torch.float32).state_dict()
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                tensor.copy_(base[name] + 0.3 * (tensor - base[name]))
    model.to(torch.bfloat16).save_pretrained(folder, save_original_format=False)
    write_tokenizer(folder)
    return folder


def _trio(root: Path, kind: str) -> tuple[Path, Path, Path]:
    ancestor = write_model(root / "ancestor", kind, seed=0)
    father = write_model(root / "father", kind, seed=1, shift_of=ancestor)
    mother = write_model(root / "mother", kind, seed=2, shift_of=ancestor)
    return father, mother, ancestor


@pytest.fixture(scope="session")
def tiny_llama_pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """(father, mother, ancestor) folders of tiny dense Llamas. Read only: copy before you damage one."""
    return _trio(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture(scope="session")
def tiny_moe_pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """(father, mother, ancestor) folders of tiny hybrid mixture-of-experts models. Read only."""
    return _trio(tmp_path_factory.mktemp("moe"), "moe")


@pytest.fixture
def swapped(tiny_moe_pair: tuple[Path, Path, Path], tmp_path: Path) -> Path:
    """The mother of `tiny_moe_pair` with the experts 0 and 1 of layer 1 swapped, router rows included."""
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny_moe_pair[1], tmp_path / "swapped"))
    tensors = load_file(folder / "model.safetensors")
    for end in ("experts.gate_up_proj", "experts.down_proj", "gate.weight"):
        name = f"model.layers.1.mlp.{end}"
        tensors[name] = tensors[name][[1, 0, *range(2, len(tensors[name]))]].contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def family_pairs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[Path, Path, Path]]:
    """(kind, layout) -> (father, mother, ancestor) folders of `tests.families`, written when first asked for."""
    from tests.families import write_family_pair

    root = tmp_path_factory.mktemp("families")
    return lru_cache(maxsize=None)(lambda kind, layout: write_family_pair(kind, root, layout))


@pytest.fixture(scope="session")
def family() -> Path:
    """The folder of the embedded family."""
    return FAMILY
