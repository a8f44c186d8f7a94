"""A virtual child is scored as the folder it is exported to, item for item and bit for bit."""

from collections.abc import Callable
from pathlib import Path

import pytest

from darwin_lab.checkpoint.anatomy import read_anatomy
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.child import Child
from darwin_lab.engine.export import export_child
from darwin_lab.engine.resident import Resident
from darwin_lab.engine.streamed import Streamed
from darwin_lab.lab.pairs import FAMILY_ITEMS
from darwin_lab.merging.recipe import uniform_recipe
from darwin_lab.scoring.choice import score_choices
from darwin_lab.scoring.evaluate import score_items
from darwin_lab.scoring.items import Item, load_items
from tests.scoring.test_streamed_scores import ASKED

ITEMS = [*ASKED, *(Item(f"g{n}", "w", f"what is {n}", None, "x") for n in range(3))]


@pytest.mark.parametrize("kind", ["llama", "qwen3_moe", "qwen3_5_moe", "gemma4_e"])
def test_the_child_of_a_family_scores_as_its_export(
    kind: str, family_pairs: Callable[[str, str], tuple[Path, Path, Path]], tmp_path: Path
) -> None:
    father, mother = (open_checkpoint(folder) for folder in family_pairs(kind, "hub")[:2])
    child = Child(father, mother, uniform_recipe(read_anatomy(father), 0.37))
    exported = open_checkpoint(export_child(child, tmp_path / "child"))
    virtual = Resident.load(father)
    virtual.become(child)
    written = score_items(Resident.load(exported), ITEMS, 6)
    assert score_items(virtual, ITEMS, 6).to_rows() == written.to_rows()
    assert written.to_rows() != score_items(Resident.load(father), ITEMS, 6).to_rows()
    assert (
        score_choices(Streamed.open(child), ASKED).to_rows() == score_choices(Streamed.open(exported), ASKED).to_rows()
    )


def test_the_embedded_familys_child_scores_as_its_export(tmp_path: Path) -> None:
    father, mother = (open_checkpoint(f"family:{who}") for who in ("father", "mother"))
    child = Child(father, mother, uniform_recipe(read_anatomy(father), 0.5))
    items = load_items(FAMILY_ITEMS / "selection.jsonl")[::9]
    exported = Resident.load(open_checkpoint(export_child(child, tmp_path / "child")))
    virtual = Resident.load(mother)
    virtual.become(child)
    assert score_choices(virtual, items).to_rows() == score_choices(exported, items).to_rows()
