"""What comes from the browser is never trusted, and what goes to it is plain data."""

import json

import pytest

from darwin_lab.errors import LabError
from darwin_lab.genome.layouts import layout_for
from darwin_lab.lab.views import JobView
from darwin_lab.ui.components.data_table import Column, Row, mark, table_value
from darwin_lab.ui.components.genome_editor import editor_value, genes_from
from darwin_lab.ui.components.head import PLOTLY_JS
from darwin_lab.ui.components.menus import Choice, Menu, Ticks
from darwin_lab.ui.components.status_bar import status_value

V6 = layout_for("v6", 12)


def sent(**genes):
    return {"genes": [{"name": name, "value": value, "locked": name == "attn_ratio"} for name, value in genes.items()]}


def test_genes_left_out_are_neutral():
    genes, locked = genes_from({"genes": []}, V6)
    assert genes == V6.neutral()
    assert locked == ()


def test_values_are_clamped_to_the_range_of_their_gene():
    genes, _ = genes_from(sent(attn_ratio=9, density_b=-3), V6)
    assert genes["attn_ratio"] == 1.0
    assert genes["density_b"] == V6.gene("density_b").low


def test_unknown_genes_and_fields_are_dropped():
    payload = {
        "genes": [{"name": "evil", "value": 1}, {"name": "attn_ratio", "value": 0.2, "low": -9, "x": "<script>"}]
    }
    genes, _ = genes_from(payload, V6)
    assert set(genes) == set(V6.names)
    assert genes["attn_ratio"] == 0.2


@pytest.mark.parametrize("payload", [None, "text", {"genes": "text"}, {"genes": [None, 3, {"name": []}]}, []])
def test_nonsense_is_read_as_the_neutral_genome(payload):
    assert genes_from(payload, V6)[0] == V6.neutral()


@pytest.mark.parametrize("value", ["0.5", None, float("nan"), float("inf"), True])
def test_a_value_that_is_no_number_is_refused_by_name(value):
    with pytest.raises(LabError, match="attn_ratio"):
        genes_from(sent(attn_ratio=value), V6)


def test_locks_are_read_back():
    assert genes_from(sent(attn_ratio=0.4, ffn_ratio=0.6), V6)[1] == ("attn_ratio",)


def test_the_editor_shows_every_gene_with_advice_and_the_reason_it_is_idle():
    value = editor_value(
        V6, {"attn_ratio": 0.8}, stamp="s", advice={"attn_ratio": 0.7}, idle={"density_a": "needs an ancestor"}
    )
    rows = {row["name"]: row for row in value["genes"]}
    assert set(rows) == set(V6.names)
    assert (rows["attn_ratio"]["value"], rows["attn_ratio"]["mri"]) == (0.8, 0.7)
    assert rows["ffn_ratio"]["mri"] is None
    assert rows["density_a"]["idle"] == "needs an ancestor"
    assert rows["block_1"]["layers"] == (6, 11)
    json.dumps(value)


def test_a_genome_survives_the_way_to_the_browser_and_back():
    genes = {**V6.neutral(), "attn_ratio": 0.123456, "block_0": 1.0}
    value = json.loads(json.dumps(editor_value(V6, genes, stamp="s")))
    assert genes_from(value, V6)[0] == genes


def test_table_cells_are_plain_and_verdicts_do_not_depend_on_colour():
    value = table_value([Column("a"), Column("b", "number")], [Row("1", (mark(False, "differs"), float("nan")))])
    assert value["rows"][0]["cells"] == [{"tone": "bad", "words": "✕ differs"}, None]


def test_the_status_bar_shows_the_running_job_first_and_its_time_left():
    jobs = [
        JobView("a", "scan", "Scan of the father", "running", 0.25, "MATH", 31.4),
        JobView("b", "score", "Score", "queued"),
    ]
    value = status_value(jobs)
    assert [job["id"] for job in value["jobs"]] == ["a", "b"]
    assert value["jobs"][0]["eta"] == 31
    assert value["jobs"][1]["eta"] is None


def test_plotly_comes_from_the_installed_package():
    assert PLOTLY_JS.is_file()


def test_a_pick_that_is_no_longer_listed_counts_as_not_made():
    assert Menu([("A", "a"), ("B", "b")]).preprocess("a") == "a"
    assert Menu([("A", "a")]).preprocess("gone") is None
    assert Menu([("A", "a"), ("B", "b")], multiselect=True).preprocess(["gone", "b"]) == ["b"]
    assert Choice(["a"]).preprocess("gone") is None
    assert Ticks(["a", "b"]).preprocess(["b", "gone"]) == ["b"]
    assert {part.get_block_name() for part in (Menu([]), Choice([]), Ticks([]))} == {
        "dropdown",
        "radio",
        "checkboxgroup",
    }
