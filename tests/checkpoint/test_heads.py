"""What a config says of the head is held against what is stored, by header first and by numbers before a merge."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.checkpoint.compare import Check, compare, require_compatible
from darwin_lab.checkpoint.heads import require_true_tie
from darwin_lab.errors import LabError

Trio = tuple[Path, Path, Path]
COPY = "stored, though its config ties it to the embedding (its values are checked before a merge)"


def with_head(source: Path, target: Path, tied: bool | None, head: str = "copy", **config: object) -> Checkpoint:
    """The tied model with a `head` stored ("copy", "own" or "none"); the config says `tied`, or is silent."""
    folder = Path(shutil.copytree(source, target))
    said = json.loads((folder / "config.json").read_text()) | config
    said.pop("tie_word_embeddings", None)
    (folder / "config.json").write_text(json.dumps(said if tied is None else {**said, "tie_word_embeddings": tied}))
    tensors = load_file(folder / "model.safetensors")
    if head != "none":
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    if head == "own":
        tensors["lm_head.weight"][-1, -1] += 1
    save_file(tensors, folder / "model.safetensors")
    return Checkpoint(folder)


def head_check(father: Checkpoint, mother: Checkpoint) -> Check:
    return next(check for check in compare(father, mother) if check.what == "head")


@pytest.mark.parametrize(("tied", "head"), [(True, "copy"), (False, "own"), (None, "own"), (True, "none")])
def test_a_head_that_is_what_the_config_says_passes(
    tied: bool | None, head: str, tiny_llama_pair: Trio, tmp_path: Path
) -> None:
    require_true_tie(with_head(tiny_llama_pair[0], tmp_path / "model", tied, head))


def test_a_tied_config_beside_another_head_is_refused_with_both_remedies(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    model = with_head(tiny_llama_pair[0], tmp_path / "model", True, "own")
    with pytest.raises(
        LabError, match=r"lm_head.weight differs .* set tie_word_embeddings to false, else load"
    ) as told:
        require_true_tie(model)
    assert str(told.value).startswith("model: its config.json ties the head")


def test_a_head_in_another_dtype_is_another_head(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    folder = with_head(tiny_llama_pair[0], tmp_path / "model", True).folder
    tensors = load_file(folder / "model.safetensors")
    wide = torch.float64 if tensors["lm_head.weight"].dtype == torch.float32 else torch.float32
    save_file({**tensors, "lm_head.weight": tensors["lm_head.weight"].to(wide)}, folder / "model.safetensors")
    with pytest.raises(LabError, match=r"lm_head\.weight differs"):
        require_true_tie(Checkpoint(folder))


def test_two_stored_copies_are_said_and_their_values_left_to_the_merge(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    father, mother = (with_head(tiny_llama_pair[i], tmp_path / str(i), True) for i in (0, 1))
    assert head_check(father, mother) == Check("head", COPY, COPY, True)


def test_a_tied_father_would_drop_the_head_of_an_untied_mother(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    tied = with_head(tiny_llama_pair[0], tmp_path / "tied", True)
    untied = with_head(tiny_llama_pair[1], tmp_path / "untied", False, "own")
    with pytest.raises(LabError, match=r"would drop the head; set tie_word_embeddings to false in .* of tied$"):
        require_compatible(tied, untied)
    assert head_check(untied, tied) == Check("head", "its own", COPY, True)


def test_an_untied_config_without_a_head_is_refused_in_either_parent(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    whole = with_head(tiny_llama_pair[0], tmp_path / "whole", True, "none")
    bare = with_head(tiny_llama_pair[1], tmp_path / "bare", False, "none")
    for pair in ((whole, bare), (bare, whole)):
        check = head_check(*pair)
        assert not check.ok
        assert {check.father, check.mother} == {"none stored, though its config unties it", "tied to the embedding"}
        assert check.remedy.startswith("get bare whole, or set tie_word_embeddings to true")


def test_a_silent_config_and_a_model_without_any_head_are_not_accused(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    silent = with_head(tiny_llama_pair[0], tmp_path / "silent", None, "none")
    headless = with_head(tiny_llama_pair[0], tmp_path / "base", False, "none", architectures=["LlamaModel"])
    for model in (silent, headless):
        assert head_check(model, model).ok
