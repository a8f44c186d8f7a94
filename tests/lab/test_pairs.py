"""Opening parents: what makes a pair the same pair, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from darwin_lab.errors import LabError
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair, open_pair


def test_a_pair_brings_its_items_by_split_and_its_probes(pair: Pair) -> None:
    assert {split: len(items) for split, items in pair.items_by_split.items()} == {
        "selection": 20, "validation": 20, "report": 20,
    }  # fmt: skip
    assert pair.ids["report"]["ADD"][0] == "ADD-report-0"
    assert pair.probes.names == ("MATH", "NEUTRAL")
    assert pair.compatible and pair.ancestor is not None


def test_the_key_follows_content_and_not_place(
    tiny_llama_pair: tuple[Path, Path, Path], measures: dict[str, Any], tmp_path: Path
) -> None:
    father, mother, ancestor = tiny_llama_pair
    moved = shutil.copytree(father, tmp_path / "elsewhere")
    key = open_pair(father, mother, ancestor, **measures).key
    assert open_pair(moved, mother, ancestor, **measures).key == key
    assert open_pair(mother, father, ancestor, **measures).key != key
    assert open_pair(father, mother, None, **measures).key != key
    assert open_pair(father, mother, ancestor, **{**measures, "items": []}).key != key


def test_other_parents_without_items_open_but_cannot_be_scored(
    lab: Lab, tiny_llama_pair: tuple, measures: dict[str, Any]
) -> None:
    pair = lab.open_pair(*tiny_llama_pair[:2], probes=measures["probes"])
    assert pair.items_by_split is None
    with pytest.raises(LabError, match="no items"):
        lab.request_score(pair, "father")
    with pytest.raises(LabError, match="no items"):
        lab.start_evolution(pair)
    assert lab.score(pair, "father") is None


def test_parents_that_do_not_fit_open_with_the_reason_and_refuse_a_child(
    lab: Lab, tiny_llama_pair: tuple, tiny_moe_pair: tuple, measures: dict[str, Any]
) -> None:
    pair = lab.open_pair(tiny_llama_pair[0], tiny_moe_pair[1], **measures)
    assert not pair.compatible
    with pytest.raises(LabError, match="parents differ in architecture"):
        lab.request_score(pair, "blend")
    with pytest.raises(LabError, match="parents differ in architecture"):
        lab.start_evolution(pair)


def test_a_missing_folder_is_named(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="nowhere"):
        lab.open_pair(tmp_path / "nowhere", tmp_path / "nowhere")


def test_a_pair_is_opened_again_by_its_key_in_a_new_lab(
    new_lab: Any, tiny_llama_pair: tuple, measures: dict[str, Any]
) -> None:
    first = new_lab()
    pair = first.open_pair(*tiny_llama_pair, **measures)
    assert first.open_pair(*tiny_llama_pair, **measures) is pair
    again = new_lab().pair(pair.key)
    assert again is not pair and again.key == pair.key
    with pytest.raises(LabError, match="no such parents"):
        first.pair("../" + pair.key)


def test_a_pair_whose_items_changed_is_not_taken_for_the_old_one(
    new_lab: Any, tiny_llama_pair: tuple, measures: dict[str, Any], tmp_path: Path
) -> None:
    items = tmp_path / "items.jsonl"
    shutil.copy(measures["items"][0], items)
    key = new_lab().open_pair(*tiny_llama_pair, items=[items], probes=measures["probes"]).key
    rows = [json.loads(line) for line in items.read_text().splitlines()]
    rows[0]["answer"] = (rows[0]["answer"] + 1) % 3
    items.write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(LabError, match="changed"):
        new_lab().pair(key)


EMBEDDING = "model.embed_tokens.weight"


def renumbered(source: Path, target: Path, father: Path, *, turned: bool = True) -> Path:
    """The same model with its tokens (but the first 3) numbered the other way round, tokenizer and embedding alike.

    Rows that belong to no token are the father's, as matching by token takes them to be.
    """
    folder = Path(shutil.copytree(source, target))
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    words = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    order = [*range(3), *range(len(words) - 1, 2, -1)] if turned else [*range(len(words))]
    tokenizer["model"]["vocab"] = {words[old]: new for new, old in enumerate(order)}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    tensors = load_file(folder / "model.safetensors")
    padding = load_file(father / "model.safetensors")[EMBEDDING][len(words) :]
    tensors[EMBEDDING] = torch.cat([tensors[EMBEDDING][order], padding])
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_unlike_vocabularies_make_a_pair_by_token_and_another_one(
    new_lab: Any, tiny_llama_pair: tuple, measures: dict[str, Any], tmp_path: Path
) -> None:
    father, mother = tiny_llama_pair[0], renumbered(tiny_llama_pair[1], tmp_path / "mother", tiny_llama_pair[0])
    lab = new_lab()
    refused = lab.open_pair(father, mother, **measures)
    assert [check.what for check in refused.checks if not check.ok] == ["vocabulary"]
    pair = lab.open_pair(father, mother, **measures, vocabulary="by-token")
    assert pair.compatible and pair.key != refused.key
    again = new_lab().pair(pair.key)
    assert again.vocabulary == "by-token" and again.key == pair.key


def test_by_token_the_mother_measures_as_if_she_had_his_numbers(
    new_lab: Any, tiny_llama_pair: tuple, measures: dict[str, Any], tmp_path: Path
) -> None:
    lab, father = new_lab(), tiny_llama_pair[0]
    mothers = [
        renumbered(tiny_llama_pair[1], tmp_path / name, father, turned=turned)
        for name, turned in (("plain", False), ("turned", True))
    ]
    pairs = [
        lab.open_pair(father, mother, probes=measures["probes"], vocabulary=vocabulary)
        for mother, vocabulary in zip(mothers, ("same", "by-token"), strict=True)
    ]
    for pair in pairs:
        for job in lab.request_scan(pair):
            lab.wait(job)
    plain, matched = (lab.contrast(pair) for pair in pairs)
    scans = [lab.scan(pair, "mother") for pair in pairs]
    for probe in ("MATH", "NEUTRAL"):
        np.testing.assert_array_equal(plain.gain[probe], matched.gain[probe])
        np.testing.assert_array_equal(scans[0].nll[probe], scans[1].nll[probe])
    rows = [{row.name: row for row in lab.static(pair).rows} for pair in pairs]
    assert rows[0] == rows[1]
    assert lab.prescription(pairs[1]) is not None
