"""The virtual child: its tensors are merged when read, in the father's names, shapes and dtypes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from darwin_lab.checkpoint.anatomy import read_anatomy
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.child import Child
from darwin_lab.engine.resident import Resident
from darwin_lab.errors import LabError
from darwin_lab.genome.genome import neutral_genome
from darwin_lab.merging.prescription import Prescription
from darwin_lab.merging.recipe import Recipe, make_recipe, uniform_recipe

Trio = tuple[Path, Path, Path]


def child_of(trio: Trio, ratio: float = 0.4, operator: str = "lerp", density: float = 1.0, seed: int = 0) -> Child:
    father, mother, ancestor = map(open_checkpoint, trio)
    return Child(father, mother, uniform_recipe(read_anatomy(father), ratio, operator, density, seed), ancestor)


def test_changing_an_attention_gene_leaves_all_other_bytes_alone(tiny_moe_pair: Trio) -> None:
    father, mother, ancestor = map(open_checkpoint, tiny_moe_pair)
    anatomy = read_anatomy(father)
    genome = neutral_genome("v6", anatomy.layers, operator="dare_ties").with_genes(density_a=0.5, density_b=0.5)
    before = Child(father, mother, make_recipe(genome, anatomy), ancestor)
    after = Child(father, mother, make_recipe(genome.with_genes(attn_ratio=0.7), anatomy), ancestor)
    differing = {name for name in father.names if not torch.equal(before.read(name), after.read(name))}
    assert differing <= {part.name for part in anatomy.mergeable if part.component == "attn"}
    assert len(differing) > len(anatomy.parts) // 4


def test_a_resident_becomes_every_child_as_if_loaded_anew(tiny_moe_pair: Trio) -> None:
    father = open_checkpoint(tiny_moe_pair[0])
    resident = Resident.load(father)
    ids, mask = resident.encode_batch([[3, 4, 5, 6, 7]])
    for source in (child_of(tiny_moe_pair, 0.3), child_of(tiny_moe_pair, 0.8, "dare", 0.5), father):
        resident.become(source)
        with torch.no_grad():
            assert torch.equal(resident.hidden(ids, mask), Resident.load(source).hidden(ids, mask))


def test_becoming_a_child_never_touches_the_parents(tiny_moe_pair: Trio) -> None:
    prints = [open_checkpoint(folder).fingerprint for folder in tiny_moe_pair]
    resident = Resident.load(open_checkpoint(tiny_moe_pair[0]))
    resident.become(child_of(tiny_moe_pair, 0.9))
    assert [open_checkpoint(folder).fingerprint for folder in tiny_moe_pair] == prints


def test_a_preserved_expert_is_the_fathers_and_its_router_row_has_the_childs_scale(tiny_moe_pair: Trio) -> None:
    father, mother, ancestor = map(open_checkpoint, tiny_moe_pair)
    anatomy = read_anatomy(father)
    ratio = {part.name: 0.5 for part in anatomy.mergeable}
    advice = Prescription("test", ratio, (0.5,) * 4, {}, ((0, 3),), preserve={1: (2,)}, router={1: "B"})
    genome = neutral_genome("v6", anatomy.layers, experts="preserve")
    child = Child(father, mother, make_recipe(genome, anatomy, advice), ancestor)
    experts = "model.layers.1.mlp.experts.down_proj"
    assert torch.equal(child.read(experts)[2], father.read(experts)[2])
    assert not torch.equal(child.read(experts)[3], father.read(experts)[3])
    gate = "model.layers.1.mlp.gate.weight"
    rows, old, new = child.read(gate).float(), father.read(gate).float(), mother.read(gate).float()
    others = [expert for expert in range(8) if expert != 2]
    assert torch.equal(rows[others], new[others])
    scale = (new - new.mean(0)).norm() / (old - old.mean(0)).norm()
    assert torch.allclose(rows[2], new.mean(0) + (old - old.mean(0))[2] * scale, atol=1e-3)


def test_an_operator_that_needs_an_ancestor_is_refused_at_once_without_one(tiny_llama_pair: Trio) -> None:
    father, mother, _ = map(open_checkpoint, tiny_llama_pair)
    recipe = uniform_recipe(read_anatomy(father), 0.4, "ties")
    with pytest.raises(LabError, match="ties needs a common ancestor"):
        Child(father, mother, recipe)


def test_a_recipe_of_another_model_is_refused(tiny_llama_pair: Trio) -> None:
    father, mother, _ = map(open_checkpoint, tiny_llama_pair)
    with pytest.raises(LabError, match="another model"):
        Child(father, mother, Recipe({}))


def test_a_model_with_a_nan_weight_is_not_loaded(poisoned: Trio) -> None:
    with pytest.raises(LabError, match=r"model\.layers\.2\.mlp\.up_proj\.weight of mother holds NaN"):
        Resident.load(open_checkpoint(poisoned[1]))


@pytest.mark.parametrize("who", [0, 1])
def test_a_parent_whose_head_breaks_its_tie_makes_no_child(who: int, tiny_llama_pair: Trio, tmp_path: Path) -> None:
    folders = [Path(shutil.copytree(folder, tmp_path / str(i))) for i, folder in enumerate(tiny_llama_pair[:2])]
    for number, folder in enumerate(folders):
        tensors = load_file(folder / "model.safetensors")
        head = tensors["model.embed_tokens.weight"] + (number == who)
        save_file({**tensors, "lm_head.weight": head}, folder / "model.safetensors")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    father, mother = map(open_checkpoint, folders)
    child = Child(father, mother, uniform_recipe(read_anatomy(father), 0.5))
    with pytest.raises(
        LabError, match=rf"^{who}: its config\.json ties the head to the embedding, but lm_head\.weight"
    ):
        child.read("model.norm.weight")
