"""A parent in another layout, order or vocabulary reads under the father's names, element for element."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from darwin_lab.checkpoint.alignment import Aligned, align
from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.checkpoint.vocabulary import match_tokens
from darwin_lab.errors import LabError

EXPERTS, INNER, HIDDEN, TOKENS = 4, 3, 2, 8
ORDER = (2, 0, 3, 1)


def numbered(*shape: int, start: int = 0) -> torch.Tensor:
    return torch.arange(start, start + torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)


def gate_up() -> torch.Tensor:
    return numbered(EXPERTS, 2 * INNER, HIDDEN)


def down() -> torch.Tensor:
    return numbered(EXPERTS, HIDDEN, INNER, start=1000)


def common() -> dict[str, torch.Tensor]:
    return {
        "model.embed_tokens.weight": numbered(TOKENS, HIDDEN, start=2000),
        "model.layers.0.self_attn.q_proj.weight": numbered(HIDDEN, HIDDEN, start=3000),
        "model.norm.weight": numbered(HIDDEN, start=5000),
    }


def fused() -> dict[str, torch.Tensor]:
    experts = {"gate_up_proj": gate_up(), "down_proj": down()}
    router = {"model.layers.0.mlp.gate.weight": numbered(EXPERTS, HIDDEN, start=4000)}
    return {**common(), **router, **{f"model.layers.0.mlp.experts.{half}": t for half, t in experts.items()}}


def single(block: str = "mlp", names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")) -> dict:
    tensors = {**common(), f"model.layers.0.{block}.gate.weight": numbered(EXPERTS, HIDDEN, start=4000)}
    for expert in range(EXPERTS):
        halves = (gate_up()[expert, :INNER], gate_up()[expert, INNER:], down()[expert])
        for name, tensor in zip(names, halves, strict=True):
            tensors[f"model.layers.0.{block}.experts.{expert}.{name}.weight"] = tensor
    return tensors


def wrapped() -> dict[str, torch.Tensor]:
    return {name.replace("model.", "model.language_model.", 1): tensor for name, tensor in fused().items()}


LAYOUTS = {
    "fused": fused,
    "single": single,
    "mixtral": lambda: single("block_sparse_moe", ("w1", "w3", "w2")),
    "wrapped": wrapped,
}


def write(folder: Path, tensors: Mapping[str, torch.Tensor], words: list[str] | None = None) -> Checkpoint:
    folder.mkdir(parents=True, exist_ok=True)
    rows = next(tensor.shape[0] for name, tensor in tensors.items() if "embed_tokens" in name)
    config = {"num_hidden_layers": 1, "num_experts": EXPERTS, "hidden_size": HIDDEN, "vocab_size": rows}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    if words is not None:
        vocabulary = {word: number for number, word in enumerate(words)}
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": []}))
    return Checkpoint(folder)


@pytest.mark.parametrize("mothers", LAYOUTS)
@pytest.mark.parametrize("fathers", LAYOUTS)
def test_the_mother_reads_as_the_father_is_laid_out(fathers: str, mothers: str, tmp_path: Path) -> None:
    father, mother = write(tmp_path / "a", LAYOUTS[fathers]()), write(tmp_path / "b", LAYOUTS[mothers]())
    aligned = align(father, mother)
    assert aligned.names == father.names
    for name in father.names:
        assert torch.equal(aligned.read(name), father.read(name)), name
        assert aligned.tensors[name].shape == father.tensors[name].shape


@pytest.mark.parametrize("mothers", ["fused", "single"])
@pytest.mark.parametrize("fathers", LAYOUTS)
def test_an_expert_order_moves_experts_and_their_router_rows_together(
    fathers: str, mothers: str, tmp_path: Path
) -> None:
    father, mother = write(tmp_path / "father", LAYOUTS[fathers]()), write(tmp_path / "mother", LAYOUTS[mothers]())
    aligned, straight = align(father, mother, expert_order={0: ORDER}), align(father, mother)
    for name in father.names:
        if "experts." not in name and not name.endswith("gate.weight"):
            assert torch.equal(aligned.read(name), straight.read(name)), name
        elif aligned.read(name).shape[0] == EXPERTS:
            assert torch.equal(aligned.read(name), straight.read(name)[list(ORDER)]), name
    if fathers == "single":
        name = "model.layers.0.mlp.experts.1.up_proj.weight"
        assert torch.equal(aligned.read(name), gate_up()[ORDER[1], INNER:])


def test_scales_of_experts_move_and_scales_of_the_hidden_state_stay(tmp_path: Path) -> None:
    """Gemma's router has both, and they may be of one length."""
    own, each = "model.layers.0.router.scale", "model.layers.0.router.per_expert_scale"
    father = write(tmp_path / "father", {**fused(), own: numbered(EXPERTS), each: numbered(EXPERTS)})
    aligned = align(father, father, expert_order={0: ORDER})
    assert aligned.read(own).tolist() == [0, 1, 2, 3]
    assert aligned.read(each).tolist() == list(ORDER)


@pytest.mark.parametrize("order", [{0: (0, 1)}, {0: (0, 1, 2, 9)}, {3: ORDER}])
def test_an_order_that_does_not_fit_is_refused(order: dict[int, tuple[int, ...]], tmp_path: Path) -> None:
    father = write(tmp_path / "a", fused())
    with pytest.raises(LabError, match="match the experts again"):
        align(father, father, expert_order=order)


FATHERS_WORDS = ["a", "b", "c", "d", "e", "f"]
MOTHERS_WORDS = ["x", "c", "d", "b", "f", "y", "a"]


def by_token(root: Path) -> tuple[Checkpoint, Checkpoint, Aligned]:
    """The father has 6 tokens in 8 rows, the mother 7 in 9; his "e" and two rows of padding are his alone."""
    table = numbered(9, HIDDEN, start=7000)
    father = write(root / "father", {**fused(), "lm_head.weight": numbered(TOKENS, HIDDEN)}, FATHERS_WORDS)
    mother = {**fused(), "model.embed_tokens.weight": table, "lm_head.weight": table + 100}
    other = write(root / "mother", mother, MOTHERS_WORDS)
    return father, other, align(father, other, vocabulary="by-token")


def test_by_token_each_row_is_the_row_of_the_same_token(tmp_path: Path) -> None:
    father, mother, aligned = by_token(tmp_path)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        rows, mine, theirs = aligned.read(name), father.read(name), mother.read(name)
        assert rows.shape == mine.shape
        for number in range(TOKENS):
            word = FATHERS_WORDS[number] if number < len(FATHERS_WORDS) else None
            has = word in MOTHERS_WORDS
            assert torch.equal(rows[number], theirs[MOTHERS_WORDS.index(word)] if has else mine[number])
        missing = aligned.fathers_rows(name)
        assert missing is not None
        assert missing.tolist() == [False, False, False, False, True, False, True, True]
    assert aligned.fathers_rows("model.norm.weight") is None


def test_rows_beyond_the_vocabulary_of_the_config_are_nobodys_tokens(tmp_path: Path) -> None:
    for folder in (checkpoint.folder for checkpoint in by_token(tmp_path)[:2]):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 5}))
    father, mother = Checkpoint(tmp_path / "father"), Checkpoint(tmp_path / "mother")
    aligned = align(father, mother, vocabulary="by-token")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        rows, mine, theirs = aligned.read(name), father.read(name), mother.read(name)
        assert torch.equal(rows[:4], theirs[[MOTHERS_WORDS.index(word) for word in "abcd"]])
        assert torch.equal(rows[5], theirs[MOTHERS_WORDS.index("f")])
        assert torch.equal(rows[[4, 6, 7]], mine[[4, 6, 7]])


def test_a_token_that_the_mother_names_without_a_row_is_the_fathers_alone(tmp_path: Path) -> None:
    father, mother, _ = by_token(tmp_path)
    words = {word: number for number, word in enumerate(MOTHERS_WORDS)} | {"e": 9}
    (mother.folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": words}}))
    listed = match_tokens(father, Checkpoint(mother.folder)).to_json()
    assert listed == {"merged": 5, "fathers_alone": ["e"], "mothers_lost": ["x", "y"]}
    missing = align(father, Checkpoint(mother.folder), vocabulary="by-token").fathers_rows("lm_head.weight")
    assert missing is not None and [number for number, alone in enumerate(missing) if alone] == [4, 6, 7]


def test_rows_of_the_father_keep_their_precision_beside_a_narrower_mother(tmp_path: Path) -> None:
    father, mother, _ = by_token(tmp_path)
    narrow = {name: mother.read(name).half() for name in mother.names}
    other = write(tmp_path / "narrow", narrow, MOTHERS_WORDS)
    rows = align(father, other, vocabulary="by-token").read("model.embed_tokens.weight")
    mine = father.read("model.embed_tokens.weight")
    assert rows.dtype == torch.float32 and torch.equal(rows[4], mine[4].float())


def test_a_vocabulary_of_another_size_is_supplied_only_by_token(tmp_path: Path) -> None:
    father, mother, aligned = by_token(tmp_path)
    assert set(father.names) - set(align(father, mother).names) == {"model.embed_tokens.weight", "lm_head.weight"}
    assert aligned.names == father.names


def test_equal_vocabularies_leave_no_row_to_the_father(tmp_path: Path) -> None:
    words = [*FATHERS_WORDS, "g", "h"]
    father, mother = write(tmp_path / "a", fused(), words), write(tmp_path / "b", wrapped(), words)
    aligned = align(father, mother, vocabulary="by-token")
    assert aligned.fathers_rows("model.embed_tokens.weight") is None


def test_by_token_without_a_tokenizer_says_what_to_copy(tmp_path: Path) -> None:
    father, mother = write(tmp_path / "a", fused(), FATHERS_WORDS), write(tmp_path / "b", fused())
    with pytest.raises(LabError, match=r"no tokenizer\.json to match tokens by; copy it"):
        align(father, mother, vocabulary="by-token")


def test_an_unknown_vocabulary_is_refused(tmp_path: Path) -> None:
    father = write(tmp_path / "a", fused())
    with pytest.raises(LabError, match="same or by-token"):
        align(father, father, vocabulary="by-luck")


def test_a_lacking_expert_leaves_its_tensor_out_and_reading_it_names_both(tmp_path: Path) -> None:
    theirs = single()
    del theirs["model.layers.0.mlp.experts.2.up_proj.weight"]
    aligned = align(write(tmp_path / "father", fused()), write(tmp_path / "mother", theirs))
    lost = "model.layers.0.mlp.experts.gate_up_proj"
    assert lost not in aligned.names
    assert "model.layers.0.mlp.experts.down_proj" in aligned.names
    with pytest.raises(LabError, match=r"mother has nothing that fits model\.layers\.0\.mlp\.experts\.gate_up_proj"):
        aligned.read(lost)


def test_pieces_of_two_dtypes_read_in_float32(tmp_path: Path) -> None:
    theirs = single()
    theirs["model.layers.0.mlp.experts.0.gate_proj.weight"] = gate_up()[0, :INNER].to(torch.bfloat16)
    aligned = align(write(tmp_path / "father", fused()), write(tmp_path / "mother", theirs))
    name = "model.layers.0.mlp.experts.gate_up_proj"
    assert aligned.tensors[name].dtype == "F32"
    assert torch.equal(aligned.read(name), gate_up())


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Aligned]:
    """Every way in which a tensor can be put together."""
    root = tmp_path_factory.mktemp("aligned")
    made = {layout: write(root / layout, build()) for layout, build in LAYOUTS.items()}
    pairs = [align(a, b, expert_order={0: ORDER}) for a in made.values() for b in made.values()]
    return [*pairs, by_token(root / "tokens")[2]]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_stretch_is_that_stretch_of_the_whole(sources: list[Aligned], data: st.DataObject) -> None:
    aligned = data.draw(st.sampled_from(sources))
    name = data.draw(st.sampled_from(aligned.names))
    whole = aligned.read(name).flatten()
    start = data.draw(st.integers(0, len(whole)))
    count = data.draw(st.integers(0, len(whole) - start))
    assert torch.equal(aligned.read_flat(name, start, count), whole[start : start + count])


def test_a_stretch_reads_no_more_than_itself(sources: list[Aligned], monkeypatch: pytest.MonkeyPatch) -> None:
    read = Checkpoint.read_flat
    counts: list[int] = []

    def counting(self: Checkpoint, name: str, start: int, count: int) -> torch.Tensor:
        counts.append(count)
        return read(self, name, start, count)

    monkeypatch.setattr(Checkpoint, "read_flat", counting)
    for aligned in sources:
        for name in aligned.names:
            counts.clear()
            aligned.read_flat(name, 1, 1)
            assert sum(counts) == 1


def test_a_stretch_beyond_the_tensor_is_refused(sources: list[Aligned]) -> None:
    with pytest.raises(LabError, match="elements"):
        sources[0].read_flat(sources[0].names[0], 10, 100)
