"""The Child tab over a real lab and tiny parents: strip, recipe, what was inherited, languages, export and push."""

import json
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from darwin_lab.engine.inherited import FATHERS, Inheritance, Inherited
from darwin_lab.errors import LabError
from darwin_lab.genome.genome import neutral_genome
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.lab.publishing import PushView
from darwin_lab.merging.recipe import Recipe, Row
from darwin_lab.mri.languages import HELD, SPELLED_ONLY, LanguageRow, Languages
from darwin_lab.ui.figures.block_strip import block_strip
from darwin_lab.ui.page import build
from darwin_lab.ui.tabs import child, child_views
from darwin_lab.ui.tabs.recipe_views import FACETS, recipe_rows

RATIOS = {"attn": [0.1, 0.5, None, 0.9], "ffn": [0.2, 0.5, 0.6, 1.0]}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("home"), cpus=1)
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def pair(lab: Lab, tiny_moe_pair: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Pair:
    rng, probes = random.Random(0), tmp_path_factory.mktemp("probes") / "probes.jsonl"
    texts = ["".join(rng.choice("abc123 ") for _ in range(20)) for _ in range(8)]
    rows = [{"probe": ("MATH", "NEUTRAL")[place % 2], "text": text} for place, text in enumerate(texts)]
    probes.write_text("\n".join(map(json.dumps, rows)))
    return lab.open_pair(*tiny_moe_pair, probes=probes)


@pytest.fixture(scope="module")
def recipe(lab: Lab, pair: Pair) -> Recipe:
    return lab.recipe(pair, neutral_genome("layerwise", pair.anatomy.layers).with_genes(layer_0=0.1, layer_1=0.8))


def test_the_strip_shows_every_share_and_says_what_it_lacks() -> None:
    chart = block_strip(RATIOS, layers=4, blocks=((0, 1), (2, 3)), remarks=["scan both parents"])
    cells = chart.figure.data[0]
    assert [list(row) for row in cells.z] == [RATIOS["ffn"], RATIOS["attn"]]
    assert (cells.zmin, cells.zmax) == (0, 1)
    assert len(chart.figure.layout.shapes) == 1
    assert "scan both parents" in chart.note
    assert [row[1:] for row in chart.rows] == [tuple(pair) for pair in zip(RATIOS["attn"], RATIOS["ffn"], strict=True)]


def test_all_strips_share_one_axis_of_layers_and_do_not_overlap() -> None:
    chart = block_strip(
        RATIOS,
        layers=4,
        importance={"father": [1, 2, 3, 4], "mother": [4, 3, 2, 1]},
        dead={"mother": {1: 0.25, 3: 0.5}},
    )
    figure = chart.figure
    assert {trace.xaxis or "x" for trace in figure.data} == {"x"}
    assert list(figure.layout.xaxis.range) == [-0.5, 3.5]
    domains = sorted([figure.layout[axis].domain for axis in ("yaxis", "yaxis2", "yaxis3")])
    assert domains[0][0] >= -1e-9
    assert all(low[1] < high[0] for low, high in pairwise(domains))
    assert list(figure.data[-1].x) == [1, 3]
    assert "dead experts, mother" in chart.columns


def test_the_strip_of_a_pair_grows_with_its_scans(lab: Lab, pair: Pair, recipe: Recipe) -> None:
    before = child_views.strip_chart(lab, pair, recipe)
    assert "scan both parents" in before.note
    for job in lab.request_scan(pair):
        lab.wait(job)
    after = child_views.strip_chart(lab, pair, recipe)
    lines = {trace.name: trace.y for trace in after.figure.data if trace.type == "scatter"}
    for who in ("father", "mother"):
        importance = lab.scan(pair, who).importance("loss")
        assert list(lines[who.capitalize()]) == pytest.approx(np.asarray(importance["MATH"]).tolist())


def test_the_recipe_table_has_a_row_a_tensor_and_the_columns_it_filters_by(recipe: Recipe) -> None:
    table = recipe_rows(recipe)
    assert [row["id"] for row in table["rows"]] == list(recipe.rows)
    labels = [column["label"] for column in table["columns"]]
    assert set(FACETS) <= set(labels)
    share, why = labels.index("mother's share"), labels.index("why")
    for row in table["rows"]:
        assert row["cells"][share] == recipe.rows[row["id"]].ratio
        assert row["cells"][why] == recipe.rows[row["id"]].why


def test_experts_that_are_treated_alike_share_a_row() -> None:
    def row(expert: int, ratio: float) -> Row:
        name = f"model.layers.0.mlp.experts.{expert}.up_proj.weight"
        return Row(name, 0, "expert", "ffn", "merge", ratio, why="ratio", numel=10)

    rows = [row(expert, 0.5) for expert in range(4)] + [row(expert, 0.25) for expert in (4, 6)]
    table = recipe_rows(Recipe({one.name: one for one in rows}))
    assert [one["cells"][0] for one in table["rows"]] == [
        "model.layers.0.mlp.experts.0…3.up_proj.weight",
        "model.layers.0.mlp.experts.{2 experts}.up_proj.weight",
    ]
    assert [one["cells"][7] for one in table["rows"]] == [40, 20]


def test_what_was_inherited_is_told_in_words_and_signs() -> None:
    rows = (
        Inherited("vision tower", FATHERS, "tensor", fathers=24, compared="24 tensors byte by byte", note="equal"),
        Inherited("tokenizer", "changed", "file", changed=1, note="tokenizer.json: 5 bytes"),
        Inherited("projector", "absent", "tensor"),
    )
    found = Inheritance("child", "f", "a", "b", "/exports/child-1", rows)
    cells = [row["cells"] for row in child_views.inherited_table(found)["rows"]]
    assert [cell[1]["words"][0] for cell in cells] == ["✓", "✕", "a"]
    assert [cell[2] for cell in cells] == ["24 tensors", "1 file", ""]
    assert "exported folder child-1" in child_views.inherited_words(found, None, False)
    assert child_views.inherited_table(None)["empty"] == child_views.NOT_MEASURED


def test_a_language_without_a_loss_shows_a_blank_and_the_reason() -> None:
    number = (1.5, 1.25, 1.75)
    rows = (
        LanguageRow("en", "English", 12, 400, 0.0, number, number, number, number, number, HELD),
        LanguageRow("ko", "Korean", 12, 900, 0.77, None, None, None, None, None, SPELLED_ONLY),
    )
    cells = [row["cells"] for row in child_views.language_table(Languages("c", "f", "m", rows))["rows"]]
    assert cells[0][5:9] == [1.5, 1.5, 1.5, "+1.500 [+1.250, +1.750]"]
    assert cells[1][4:10] == [0.77, None, None, None, None, None]
    assert cells[1][1]["words"] == SPELLED_ONLY


def test_the_export_shows_its_size_and_how_to_make_it_again(lab: Lab, pair: Pair, recipe: Recipe) -> None:
    lab.wait(lab.request_export(pair, recipe.hash, shard_size=20_000))
    kept = lab.export(pair, recipe.hash)
    words = child_views.export_words(kept, False)
    assert "merge" in words
    assert f"{kept.folder}/recipe.json" in words
    assert len(list(Path(kept.folder).glob("*.safetensors"))) > 1
    plan = lab.push_plan(pair, recipe.hash, "me/child")
    listed = child_views.plan_words(plan)
    assert listed.count("<tr>") == len(plan.files)
    assert "Nothing was sent" in listed


def test_on_a_space_no_path_of_the_machine_is_shown(
    lab: Lab, pair: Pair, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.wait(lab.request_export(pair, recipe.hash))
    monkeypatch.setenv("SPACE_ID", "somebody/lab")
    kept = lab.export(pair, recipe.hash)
    assert str(Path(kept.folder).parent) not in child_views.export_words(kept, False)


def test_the_address_of_a_push_is_text_and_a_link() -> None:
    done = PushView('me/"><img>', 'https://huggingface.co/me/"><img>', True, 10, 0.0)
    words = child_views.push_words(done, None, False)
    assert "<img>" not in words
    assert "private" in words


def test_every_shard_size_on_offer_is_one_the_export_takes() -> None:
    from darwin_lab.engine.shards import parse_size

    sizes = [parse_size(size.replace(" ", "")) for size in child.SHARD_SIZES if size != child.LIKE_FATHER]
    assert sizes == sorted(sizes)
    assert min(sizes) >= 1_000_000_000


def test_the_page_opens_on_a_space_without_sign_in_and_push_then_says_why(
    lab: Lab, pair: Pair, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPACE_ID", "somebody/lab")
    monkeypatch.setenv("OAUTH_CLIENT_ID", "id")
    monkeypatch.setattr(child_views.importlib.util, "find_spec", lambda name: None)
    ids = {part["props"].get("elem_id") for part in build(lab, pair).get_config_file()["components"]}
    assert "push_go" in ids
    assert "push_login" not in ids
    with pytest.raises(LabError, match="sign in"):
        lab.request_push(pair, recipe.hash, "me/child")
