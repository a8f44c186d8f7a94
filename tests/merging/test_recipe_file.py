"""`recipe.json`: what is written reads back as the very same recipe, and what cannot be trusted is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darwin_lab.checkpoint.anatomy import read_anatomy
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.errors import LabError
from darwin_lab.merging.operators import NEEDS_ANCESTOR, OPTIONS
from darwin_lab.merging.recipe import Recipe, Row, uniform_recipe
from darwin_lab.merging.recipe_file import read_recipe_file, recipe_from_json, recipe_text, recipe_to_json

SHARE = st.floats(0, 1).map(lambda number: round(number, 6))
DENSITY = st.floats(1e-6, 1).map(lambda number: round(number, 6))
TEXT = st.text(max_size=12)


@st.composite
def a_row(draw: st.DrawFn, name: str) -> Row:
    action = draw(st.sampled_from(["copy", "merge"]))
    role = draw(st.sampled_from(["expert", "router"]) | TEXT)
    by_expert = st.lists(SHARE, min_size=1, max_size=5).map(tuple)
    return Row(
        name=name,
        layer=draw(st.none() | st.integers(0, 200)),
        role=role,
        component=draw(st.sampled_from(["", "attn", "ffn", "embed", "global"])),
        action=action,
        ratio=draw(st.sampled_from([0.0, 1.0])) if action == "copy" else draw(SHARE),
        operator=draw(st.sampled_from(list(NEEDS_ANCESTOR))),
        density_a=draw(DENSITY),
        density_b=draw(DENSITY),
        mix=draw(SHARE),
        transplant=draw(st.sampled_from(["", "father", "mother"])),
        expert_ratios=draw(st.none() | by_expert) if action == "merge" and role in ("expert", "router") else None,
        why=draw(TEXT),
        numel=draw(st.integers(0, 1 << 40)),
    )


@st.composite
def a_recipe(draw: st.DrawFn) -> Recipe:
    names = draw(st.lists(TEXT, unique=True, max_size=6))
    rows = {name: draw(a_row(name)) for name in names}
    has = sorted({option for row in rows.values() for option in OPTIONS.get(row.operator, {})})
    return Recipe(
        rows=rows,
        seed=draw(st.integers(-(1 << 70), 1 << 70)),
        rescale=draw(st.sampled_from(["inverse", "l1", "none"])),
        genome_hash=draw(TEXT),
        prescription_hash=draw(TEXT),
        advised_by=draw(TEXT),
        vocabulary=draw(st.sampled_from(["same", "by-token"])),
        expert_order=draw(st.dictionaries(st.integers(0, 99), st.permutations(range(4)).map(tuple), max_size=3)),
        options={name: draw(SHARE) / 2 for name in has if draw(st.booleans())},
        warnings=tuple(draw(st.lists(TEXT, max_size=2))),
    )


@given(a_recipe())
def test_any_recipe_comes_back_the_same_through_the_text_of_its_file(recipe: Recipe) -> None:
    back = recipe_from_json(json.loads(recipe_text(recipe_to_json(recipe, {}))))
    assert back == recipe
    assert back.hash == recipe.hash


@pytest.fixture
def written(tiny_llama_pair: tuple[Path, Path, Path], tmp_path: Path) -> Path:
    """The recipe.json of a dare_ties child with an ancestor."""
    father, mother, ancestor = map(open_checkpoint, tiny_llama_pair)
    recipe = uniform_recipe(read_anatomy(father), 0.4, "dare_ties", 0.5, seed=2)
    data = recipe_to_json(recipe, {"father": father, "mother": mother, "ancestor": ancestor}, dtype="float32")
    path = tmp_path / "recipe.json"
    path.write_text(recipe_text(data))
    return path


def test_the_file_says_everything_the_bytes_depend_on_one_line_a_tensor(written: Path) -> None:
    data = json.loads(written.read_text())
    assert set(data) >= {"version", "recipe", "genome", "prescription", "advised_by", "parents", "seed", "rescale",
                         "options", "vocabulary", "expert_order", "dtype", "versions", "rows"}  # fmt: skip
    assert set(data["versions"]) == {"lab", "python", "torch", "transformers"}
    lines = written.read_text().splitlines()
    assert sum(line.startswith('  {"name": ') for line in lines) == len(data["rows"])


def test_the_parents_of_a_file_are_found_and_proved(written: Path) -> None:
    file = read_recipe_file(written)
    parents = {role: open_checkpoint(parent.ref) for role, parent in file.parents.items()}
    assert {role: parent.fingerprint for role, parent in parents.items()} == {
        role: parent.fingerprint for role, parent in file.parents.items()
    }
    file.check_parents(parents)
    with pytest.raises(LabError, match="mother is not the father of this recipe: its fingerprint is"):
        file.check_parents({**parents, "father": parents["mother"]})
    with pytest.raises(LabError, match="needs its ancestor ancestor; give --ancestor"):
        file.check_parents({**parents, "ancestor": None})
    assert read_recipe_file(written.parent).recipe == file.recipe


def test_other_versions_of_what_bytes_depend_on_are_named(written: Path) -> None:
    file = read_recipe_file(written)
    assert file.other_versions() == {}
    older = replace(file, versions={**file.versions, "torch": "1.0"})
    assert list(older.other_versions()) == ["torch"]


def change(path: Path, **changes: object) -> None:
    data = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in {**data, **changes}.items() if value is not ...}))


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("version 1, this lab reads version 2", {"version": 1}),
        ("version None", {"version": ...}),
        ("has no rows", {"rows": ...}),
        ("the file was changed", {"seed": 3}),
        ("the file was changed", {"recipe": "0123456789ab"}),
        ("seed is '3'", {"seed": "3"}),
        ("seed is '1.5'.* write a whole number", {"seed": 1.5}),
        ("vocabulary is 'union'.* write same or by-token", {"vocabulary": "union"}),
        ("rescale is 'foo'.* write inverse or l1 or none", {"rescale": "foo"}),
        ("options is", {"options": {"lambda": "NaN"}}),
        ("dare_ties has no option 'gamma'; it has lambda", {"options": {"gamma": 0.1}}),
        ("option lambda of dare_ties is 9, outside 0 to 2", {"options": {"lambda": 9}}),
        ("expert_order names layer '²'", {"expert_order": {"²": [0]}}),
        ("expert_order is .*every expert's number once", {"expert_order": {"0": [0, 0]}}),
        ("expert_order is", {"expert_order": {"0": [1.0, 0]}}),
        ("expert_order names layer 'x'", {"expert_order": {"x": [0]}}),
        ("expert_order is", {"expert_order": {"0": ["a"]}}),
        ("dtype is 'int8'", {"dtype": "int8"}),
        ("does not name its father and mother", {"parents": {}}),
        ("parents is", {"parents": {"father": 1}}),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_by_name(written: Path, words: str, changes: dict) -> None:
    change(written, **changes)
    with pytest.raises(LabError, match=words) as caught:
        read_recipe_file(written)
    assert str(written) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("ratio is 'half'", {"ratio": "half"}),
        ("ratio is 'nan'", {"ratio": float("nan")}),
        ("unknown key 'sharpness'", {"sharpness": 1}),
        ("role is missing", {"role": ...}),
        ("copy at ratio 0.4 makes no sense", {"action": "copy"}),
        ("ratio is '7', .* write the mother's share, from 0 to 1", {"ratio": 7}),
        ("ratio is '-0.1'", {"ratio": -0.1}),
        ("ratio is '1000", {"ratio": 10**400}),
        ("operator is 'foo', .* write lerp, ", {"operator": "foo"}),
        (r"operator is \"\['lerp'\]\"", {"operator": ["lerp"]}),
        ("density_a is '0', .* write a number above 0", {"density_a": 0}),
        ("density_b is '1.1'", {"density_b": 1.1}),
        ("mix is '2'", {"mix": 2}),
        ("action is 'blend', .* write copy or merge", {"action": "blend"}),
        ("transplant is 'foo'", {"transplant": "foo"}),
        ("numel is '-1'", {"numel": -1}),
        ("expert_ratios is", {"expert_ratios": [0.1, None]}),
        ("expert_ratios is", {"expert_ratios": [0.1, 1.5]}),
        ("expert_ratios is", {"expert_ratios": []}),
        (
            "expert_ratios does nothing in a tensor that is copied whole; write null",
            {"expert_ratios": [0.1, 0.2], "role": "expert", "action": "copy", "ratio": 1.0},
        ),
        (
            r"expert_ratios does nothing in a tensor that has no experts \(role ffn\)",
            {"expert_ratios": [0.1, 0.2], "role": "ffn"},
        ),
        ("layer is '1.5'", {"layer": 1.5}),
    ],
)
def test_a_row_that_makes_no_sense_is_refused_by_name(written: Path, words: str, changes: dict) -> None:
    data = json.loads(written.read_text())
    row = {key: value for key, value in {**data["rows"][3], **changes}.items() if value is not ...}
    change(written, rows=[*data["rows"][:3], row, *data["rows"][4:]], recipe=...)
    with pytest.raises(LabError, match=words) as caught:
        read_recipe_file(written)
    assert row["name"] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_edited_by_hand_are_taken_once_the_hash_is_out(written: Path) -> None:
    change(written, seed=77, recipe=...)
    assert read_recipe_file(written).recipe.seed == 77


def test_no_file_and_no_json_are_bad_input(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no recipe"):
        read_recipe_file(tmp_path / "recipe.json")
    (tmp_path / "recipe.json").write_text("{")
    with pytest.raises(LabError, match="is not JSON"):
        read_recipe_file(tmp_path)
