"""Every family in every layout: each tensor has its role, layouts line up, and what has no place is listed."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from darwin_lab.checkpoint.alignment import align
from darwin_lab.checkpoint.anatomy import Anatomy, read_anatomy
from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.checkpoint.compare import compare, dropped, require_compatible
from darwin_lab.errors import LabError
from tests.families import CONFIGS, EITHER_WAY, EXPERTS, KINDS, LAYOUTS, MIXTURES, TIED, WITH_MTP, WITH_VISION

Pairs = Callable[[str, str], tuple[Path, Path, Path]]
EVERY = [(kind, layout) for kind in KINDS for layout in LAYOUTS[kind]]

# What each layer of a family holds, counted by hand from the family's modules; experts as single tensors.
LAYERS = {
    "llama": {"attention": 8, "norm": 4, "ffn": 6},
    "qwen2": {"attention": 14, "norm": 4, "ffn": 6},
    "qwen3": {"attention": 8, "norm": 8, "ffn": 6},
    "phi3": {"attention": 4, "norm": 4, "ffn": 4},
    "qwen3_moe": {"attention": 8, "norm": 8, "router": 2, "expert": 24},
    "mixtral": {"attention": 8, "norm": 4, "router": 2, "expert": 24},
    "qwen3_5_text": {"attention": 4, "linear_attention": 27, "norm": 10, "ffn": 12},
    "qwen3_5_moe_text": {
        "attention": 4, "linear_attention": 27, "norm": 10, "router": 4, "shared_expert": 16, "expert": 48,
    },
    "gemma3_text": {"attention": 8, "norm": 12, "ffn": 6},
    "gemma4": {"attention": 14, "norm": 24, "ffn": 12, "scalar": 4},
    "gemma4_moe": {"attention": 14, "norm": 36, "ffn": 12, "scalar": 4, "router": 12, "expert": 8},
    "gemma4_e": {"attention": 12, "norm": 22, "ffn": 12, "scalar": 4, "per_layer_embedding": 12},
    "glm4_moe": {"attention": 12, "norm": 12, "ffn": 3, "router": 4, "shared_expert": 6, "expert": 24},
    "deepseek_v3": {"attention": 15, "norm": 12, "ffn": 3, "router": 4, "shared_expert": 6, "expert": 24},
    "gpt_oss": {"attention": 18, "norm": 4, "router": 4, "expert": 8},
}  # fmt: skip
LAYERS |= {
    "smollm2": LAYERS["llama"], "smollm3": LAYERS["llama"], "mistral": LAYERS["llama"],
    "qwen3_5": LAYERS["qwen3_5_text"], "qwen3_5_moe": LAYERS["qwen3_5_moe_text"], "gemma3": LAYERS["gemma3_text"],
}  # fmt: skip
FUSED_EXPERTS = {"qwen3_moe": 4, "mixtral": 4, "qwen3_5_moe_text": 8, "qwen3_5_moe": 8, "glm4_moe": 4, "deepseek_v3": 4}


def anatomy_of(folder: Path) -> Anatomy:
    return read_anatomy(Checkpoint(folder))


def has_fused_experts(kind: str, layout: str) -> bool:
    return layout == "fused" or (layout == "hub" and kind.startswith("qwen3_5_moe"))


@pytest.mark.parametrize(("kind", "layout"), EVERY)
def test_each_tensor_of_each_family_has_its_role(kind: str, layout: str, family_pairs: Pairs) -> None:
    anatomy = anatomy_of(family_pairs(kind, layout)[0])
    counted = Counter(part.role for part in anatomy.mergeable)
    expected = Counter(LAYERS[kind]) + Counter(norm=1, embedding=1, lm_head=int(kind not in TIED))
    if has_fused_experts(kind, layout):
        expected["expert"] = FUSED_EXPERTS[kind]
    if kind == "gemma4_e":
        expected["per_layer_embedding"] += 3
    assert counted == expected
    copied = {part.role for part in anatomy.parts.values() if not part.mergeable}
    assert ("mtp" in copied) == (kind in WITH_MTP and layout != "saved")
    assert ("vision" in copied) == (kind in WITH_VISION)
    assert {part.layer for part in anatomy.parts.values() if part.role == "mtp"} <= {0, None}
    assert all(part.reason for part in anatomy.parts.values() if not part.mergeable)


@pytest.mark.parametrize("kind", KINDS)
def test_the_anatomy_counts_layers_and_experts_as_the_config_does(kind: str, family_pairs: Pairs) -> None:
    anatomy = anatomy_of(family_pairs(kind, "hub")[0])
    options = CONFIGS[kind][1]
    text = options.get("text_config", options)
    assert anatomy.layers == len(anatomy.layer_kinds) == text["num_hidden_layers"]
    assert (anatomy.experts, anatomy.top_k) == ((EXPERTS, 2) if kind in MIXTURES else (0, 0))
    dense_first = text.get("first_k_dense_replace", 0)
    assert anatomy.moe_layers == (tuple(range(dense_first, anatomy.layers)) if kind in MIXTURES else ())


@pytest.mark.parametrize(("kind", "layout"), EVERY)
def test_the_members_of_each_family_are_compatible(kind: str, layout: str, family_pairs: Pairs) -> None:
    father, mother, ancestor = map(Checkpoint, family_pairs(kind, layout))
    assert require_compatible(father, mother, ancestor)
    assert dropped(father, mother) == ()


@pytest.mark.parametrize("kind", EITHER_WAY)
def test_any_layout_reads_as_any_other(kind: str, family_pairs: Pairs) -> None:
    for fathers in LAYOUTS[kind]:
        father = Checkpoint(family_pairs(kind, fathers)[0])
        straight = align(father, Checkpoint(family_pairs(kind, fathers)[1]))
        for mothers in LAYOUTS[kind]:
            mother = Checkpoint(family_pairs(kind, mothers)[1])
            require_compatible(father, mother)
            aligned = align(father, mother)
            assert aligned.names == tuple(part.name for part in read_anatomy(father).mergeable)
            for name in aligned.names:
                assert torch.equal(aligned.read(name).float(), straight.read(name).float()), (fathers, mothers, name)


@pytest.mark.parametrize("kind", ["qwen3_5", "qwen3_5_moe"])
def test_the_wrapped_model_and_the_text_model_can_be_bred(kind: str, family_pairs: Pairs) -> None:
    text, wrapped = (Checkpoint(family_pairs(name, "hub")[0]) for name in (f"{kind}_text", kind))
    for father, mother in ((text, wrapped), (wrapped, text)):
        assert all(check.ok for check in compare(father, mother))
        assert set(align(father, mother).names) == {part.name for part in read_anatomy(father).mergeable}
    lost = dict(dropped(text, wrapped))
    assert lost
    assert all(
        ".visual." in name and reason.startswith(("vision tower: ", "projector: ")) for name, reason in lost.items()
    )
    assert dropped(wrapped, text) == ()


@pytest.mark.parametrize("kind", sorted(WITH_MTP))
def test_a_head_only_the_mother_has_is_listed_as_dropped(kind: str, family_pairs: Pairs) -> None:
    father, mother = Checkpoint(family_pairs(kind, "saved")[0]), Checkpoint(family_pairs(kind, "hub")[1])
    heads = {part.name for part in read_anatomy(mother).parts.values() if part.role == "mtp"}
    lost = dict(dropped(father, mother))
    assert heads
    assert lost.keys() == heads
    assert all("multi-token-prediction head" in reason for reason in lost.values())
    checks = compare(father, mother)
    assert all(check.ok for check in checks)
    assert any(f"{len(heads)} x multi-token-prediction head" in check.mother for check in checks)


def test_the_mtp_of_either_layout_counts_as_the_same_head(family_pairs: Pairs) -> None:
    father, mother = (Checkpoint(family_pairs("qwen3_5_moe", layout)[0]) for layout in ("hub", "fused"))
    assert dropped(father, mother) == dropped(mother, father) == ()


def test_redundant_keys_and_values_are_copied_and_may_be_missing(family_pairs: Pairs) -> None:
    hub, saved = (Checkpoint(family_pairs("gemma4_e", layout)[0]) for layout in ("hub", "saved"))
    shared = [part for part in read_anatomy(hub).parts.values() if "uses another's" in part.reason]
    assert {part.layer for part in shared} == {2, 3}
    assert {part.sub for part in shared} == {"k_proj", "v_proj", "k_norm"}
    assert all(check.ok for check in (*compare(hub, saved), *compare(saved, hub)))
    assert {name for name, _ in dropped(saved, hub)} == {part.name for part in shared}


def test_an_unknown_tensor_is_copied_and_listed(family_pairs: Pairs, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(family_pairs("llama", "saved")[0], tmp_path / "odd"))
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "model.layers.0.novelty.weight": torch.ones(3)}, folder / "model.safetensors")
    odd, plain = Checkpoint(folder), Checkpoint(family_pairs("llama", "saved")[1])
    part = read_anatomy(odd).parts["model.layers.0.novelty.weight"]
    assert (part.role, part.mergeable, part.reason) == ("other", False, "role not recognised: the father's")
    assert dropped(plain, odd) == ((part.name, f"role not recognised: {plain.name} has none"),)
    assert all(check.ok for check in compare(odd, plain))


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> Checkpoint:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file)
    return Checkpoint(folder)


QUERY = "model.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("kind", "name", "dtype"),
    [
        ("llama", QUERY, torch.int8),
        ("llama", QUERY, torch.float8_e4m3fn),
        ("llama", "model.layers.0.self_attn.q_proj.weight_scale_inv", torch.float32),
        ("gpt_oss", "model.layers.0.mlp.experts.gate_up_proj_blocks", torch.uint8),
        ("gpt_oss", "model.layers.0.mlp.experts.gate_up_proj", torch.uint8),
        ("qwen3_5_moe", "model.language_model.layers.0.mlp.experts.0.up_proj.weight", torch.int32),
    ],
)
def test_quantised_tensors_are_refused_without_a_word_in_the_config(
    kind: str, name: str, dtype: torch.dtype, family_pairs: Pairs, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(family_pairs(kind, "saved")[0], tmp_path / "packed"))
    checkpoint = change(folder, lambda tensors: tensors.update({name: torch.ones(2, 2).to(dtype)}))
    with pytest.raises(LabError) as caught:
        read_anatomy(checkpoint)
    assert name in str(caught.value)
    assert "merging needs its bf16, f16 or f32 original" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_expert_is_refused(family_pairs: Pairs, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(family_pairs("mixtral", "saved")[0], tmp_path / "short"))

    def lose(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if ".layers.1." in name and ".experts.3." in name]:
            del tensors[name]

    with pytest.raises(LabError, match=r"config\.json says 4 experts, layer 1 holds 3; get it whole"):
        read_anatomy(change(folder, lose))


def test_layers_beyond_the_config_are_refused_unless_they_are_a_head(family_pairs: Pairs, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(family_pairs("llama", "saved")[0], tmp_path / "long"))
    longer = "model.layers.2.self_attn.q_proj.weight"
    with pytest.raises(LabError, match=r"config\.json says 2 layers, the files hold 3"):
        read_anatomy(change(folder, lambda tensors: tensors.update({longer: torch.ones(2)})))


def test_tied_against_untied_heads_is_refused_either_way(family_pairs: Pairs) -> None:
    tied, untied = (Checkpoint(family_pairs(kind, "hub")[0]) for kind in ("smollm2", "llama"))
    with pytest.raises(LabError, match="parents differ in head: tied to the embedding against its own; untie the one"):
        require_compatible(tied, untied)
    with pytest.raises(LabError, match="parents differ in head: its own against tied to the embedding"):
        require_compatible(untied, tied)


def test_a_head_stored_beside_its_tie_is_refused_with_the_way_to_drop_the_copy(
    family_pairs: Pairs, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    plain = Checkpoint(family_pairs("smollm2", "saved")[1])
    folder = Path(shutil.copytree(family_pairs("smollm2", "saved")[0], tmp_path / "twice"))
    embedding = "model.embed_tokens.weight"
    twice = change(folder, lambda tensors: tensors.update({"lm_head.weight": tensors[embedding].clone()}))
    told = "stored, though its config ties it to the embedding"
    with pytest.raises(LabError, match=f"head: {told} against tied .* load it in transformers and save it again"):
        require_compatible(twice, plain)
    with pytest.raises(LabError, match=f"head: tied to the embedding against {told}; the stored head of twice"):
        require_compatible(plain, twice)
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, save_original_format=False)
    require_compatible(Checkpoint(folder), plain)


def test_parents_without_tokenizers_are_said_to_be_compared_by_size(family_pairs: Pairs, tmp_path: Path) -> None:
    folders = [Path(shutil.copytree(path, tmp_path / path.name)) for path in family_pairs("llama", "hub")[:2]]
    for folder in folders:
        (folder / "tokenizer.json").unlink()
    check = next(check for check in compare(*map(Checkpoint, folders)) if check.what == "vocabulary")
    assert check.ok
    assert "no tokenizer.json" in check.father
    assert "compared by size only" in check.mother


def permuted(source: Path, target: Path, rows: int = 64) -> Checkpoint:
    """The model with two tokens exchanged and one renamed, in a table of `rows`."""
    folder = Path(shutil.copytree(source, target))
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    vocabulary["@"] = vocabulary.pop("c")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": rows}))

    def resize(tensors: dict[str, torch.Tensor]) -> None:
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            tensors[name] = tensors[name][:rows].clone()

    return change(folder, resize)


@pytest.mark.parametrize("rows", [64, 56])
def test_another_vocabulary_is_bred_by_token_alone(rows: int, family_pairs: Pairs, tmp_path: Path) -> None:
    folders = family_pairs("llama", "saved")
    father, mother = Checkpoint(folders[0]), permuted(folders[1], tmp_path / "mother", rows)
    with pytest.raises(LabError, match=r"parents differ in vocabulary: .*--vocab by-token"):
        require_compatible(father, mother)
    checks = require_compatible(father, mother, Checkpoint(folders[2]), vocabulary="by-token")
    words = next(check for check in checks if check.what == "vocabulary")
    assert "1 of them his alone (kept)" in words.father
    assert "1 hers alone (dropped)" in words.mother


def test_by_token_every_table_of_tokens_moves_and_nothing_else(family_pairs: Pairs, tmp_path: Path) -> None:
    """Gemma4-E has a second table, one row a token: the embedding of every layer."""
    folders = family_pairs("gemma4_e", "saved")
    folder = Path(shutil.copytree(folders[1], tmp_path / "mother"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    first, second = vocabulary["a"], vocabulary["b"]
    vocabulary["a"], vocabulary["b"] = second, first
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    father, mother = Checkpoint(folders[0]), Checkpoint(folder)
    by_number, by_token = align(father, mother), align(father, mother, vocabulary="by-token")
    swapped = [*range(64)]
    swapped[first], swapped[second] = second, first
    moved = []
    for name in by_number.names:
        rows = by_number.read(name)
        if torch.equal(by_token.read(name), rows):
            continue
        moved.append(name.removeprefix("model.language_model."))
        known = ~by_token.fathers_rows(name)
        assert torch.equal(by_token.read(name)[known], rows[swapped][known])
    assert moved == ["embed_tokens.weight", "embed_tokens_per_layer.weight"]


def test_vocabularies_that_share_nothing_are_refused_by_token_too(family_pairs: Pairs, tmp_path: Path) -> None:
    father = Checkpoint(family_pairs("llama", "saved")[0])
    folder = Path(shutil.copytree(father.folder, tmp_path / "mother"))
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"#": 0}}}))
    with pytest.raises(LabError, match="share no token"):
        require_compatible(father, Checkpoint(folder), vocabulary="by-token")


def test_an_unknown_way_of_matching_is_refused(family_pairs: Pairs) -> None:
    father = Checkpoint(family_pairs("llama", "saved")[0])
    with pytest.raises(LabError, match="same or by-token"):
        compare(father, father, vocabulary="by-luck")
