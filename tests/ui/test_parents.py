"""The Parents tab shows what the plan counted, never starts long work by itself, and says what to do next."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from darwin_lab.errors import LabError
from darwin_lab.lab import planning
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.memory import MemoryChoice
from darwin_lab.lab.planning import Look
from darwin_lab.merging.matching import MATCH_THEM
from darwin_lab.ui.tabs import parents, parents_views
from tests.full_size import write_full_size

Trio = tuple[Path, Path, Path]
REF = ("", "", "")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    lab = Lab(tmp_path_factory.mktemp("home"))
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def big(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Look:
    """A look at two Gemma4-31B without weights."""
    root = tmp_path_factory.mktemp("big")
    return lab.look(*(write_full_size(root / who, "Gemma4-31B") for who in ("father", "mother")))


@pytest.fixture(scope="module")
def small(lab: Lab, tiny_moe_pair: Trio) -> Look:
    return lab.look(*tiny_moe_pair)


def cells(table: dict, row: str) -> list:
    return next(line["cells"] for line in table["rows"] if line["id"].startswith(row))


def test_a_look_opens_nothing_and_says_so(lab: Lab, big: Look) -> None:
    words = parents_views.look_words(big)
    assert "Looked at, not opened: 116.5 GiB of weights were left unread" in words
    assert "832 tensors are merged, 356 copied" in words
    assert lab.store._rows("SELECT * FROM pairs") == []
    assert lab.active_jobs() == []


def test_layers_are_said_by_their_unit_with_the_sizes_that_matter(big: Look) -> None:
    words = parents_views.layers_html(big.plan)
    assert "10 × (5 × sliding attention → FFN + 1 × full attention → FFN)" in words
    assert "31.27 B" in words and "in 1,188 tensors" in words and "58.3 GiB" in words
    assert "The mother differs" not in words


def test_a_mother_of_another_layout_is_shown_beside(lab: Lab, small: Look, tiny_llama_pair: Trio) -> None:
    mixed = lab.look(small.father, tiny_llama_pair[1])
    words = parents_views.layers_html(mixed.plan)
    assert "The mother differs" in words and "4 × (attention → FFN)" in words
    assert "There is no time to estimate" in parents_views.cost_html(mixed.plan)
    assert "cannot be bred" in parents_views.look_words(mixed)


def test_the_table_of_tensors_holds_every_tensor_of_both_parents(big: Look) -> None:
    table = parents_views.tensors_table(big.plan)
    counted = [row["cells"][4] for row in table["rows"] if row["tone"] != "mother"]
    assert sum(counted) == 1188
    left = [row["cells"] for row in table["rows"] if row["tone"] == "mother"]
    assert sum(line[4] for line in left) == 356
    assert {line[0]["words"] for line in left} == {"dropped"}
    ids = [row["id"] for row in table["rows"]]
    assert len(ids) == len(set(ids))
    json.dumps(table)


def test_cards_are_listed_up_to_the_first_that_holds_everything(big: Look, small: Look) -> None:
    table = parents_views.cards_table(big.plan.father)
    assert [column["label"] for column in table["columns"]][1] == "bf16, as stored · 58.3 GiB"
    fits = {row["id"]: [cell["words"] for cell in row["cells"][1:4]] for row in table["rows"]}
    assert fits["24 GiB"] == ["–", "–", "✓ fits"]
    assert fits["48 GiB"] == ["–", "✓ fits", "✓ fits"]
    assert fits["2 x 32 GiB"] == ["✓ fits"] * 3
    assert list(fits)[-1] == "2 x 32 GiB"
    assert [row["id"] for row in parents_views.cards_table(small.plan.father)["rows"]] == ["8 GiB"]


def test_a_child_that_does_not_fit_on_the_disk_is_named_before_it_is_asked_for(big: Look) -> None:
    cost = big.plan.cost
    assert cost is not None
    full = replace(big.plan, cost=replace(cost, free=cost.disk - 1))
    roomy = replace(big.plan, cost=replace(cost, free=cost.disk))
    assert "The child does not fit" in parents_views.cost_html(full)
    assert "The child does not fit" not in parents_views.cost_html(roomy)


def test_fingerprints_are_blank_until_the_weights_were_read(small: Look) -> None:
    assert cells(parents_views.people_table(small.plan, {}), "father")[-1] is None
    assert cells(parents_views.people_table(small.plan, {"father": "ab12"}), "father")[-1] == "ab12"
    assert cells(parents_views.people_table(small.plan, {}), "ancestor")[1] == "ancestor"


def test_a_scan_that_does_not_fit_in_memory_is_offered_streamed() -> None:
    told = parents_views.scan_html(MemoryChoice("auto", True, 62 << 30, 12 << 30))
    assert "Streamed, one layer in memory at a time: held whole, a model takes 62.0 GiB of weights, 12.0" in told
    assert "has not been started" in told


def test_small_parents_are_told_from_large_ones(big: Look, small: Look) -> None:
    assert small.is_small
    assert not big.is_small


def test_large_parents_are_opened_by_a_job_and_not_scanned(
    lab: Lab, tiny_llama_pair: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "AT_ONCE_BYTES", 0)
    opened = lab.wait(lab.request_open(*tiny_llama_pair))
    pair = lab.open_pair(*tiny_llama_pair)
    assert opened == {"pair": pair.key}
    shown = parents.pair_updates(lab, pair, None)
    row, told, button = shown[-3:]
    assert row.visible and button.interactive and "has not been started" in told
    assert lab.active_jobs() == []
    assert lab.scan(pair, "father") is None


def test_small_parents_do_not_offer_a_scan_of_their_own(lab: Lab, tiny_llama_pair: Trio) -> None:
    shown = parents.pair_updates(lab, lab.open_pair(*tiny_llama_pair), None)
    assert not shown[-3].visible


def test_a_pair_by_token_is_planned_by_token(lab: Lab, tiny_llama_pair: Trio) -> None:
    pair = lab.open_pair(*tiny_llama_pair[:2], vocabulary="by-token")
    shown = parents.pair_updates(lab, pair, None)
    assert "tokens are matched by their text" in "".join(part for part in shown if isinstance(part, str))


def test_the_plan_is_for_the_operator_of_the_genome_at_hand() -> None:
    assert parents.operator_for({"operator": "ties"}, has_ancestor=True) == "ties"
    assert parents.operator_for({"operator": "ties"}, has_ancestor=False) == "lerp"
    assert parents.operator_for({"operator": "<script>"}, has_ancestor=True) == "lerp"
    assert parents.operator_for(None, has_ancestor=False) == "lerp"


def test_a_vocabulary_the_page_does_not_offer_is_read_as_the_same(lab: Lab, tiny_llama_pair: Trio) -> None:
    refs = (str(tiny_llama_pair[0]), str(tiny_llama_pair[1]), "")
    assert parents.looked_at(lab, parents.OWN, refs, "../../x", None).plan.vocabulary == "same"


def test_experts_are_matched_only_where_there_are_any_and_the_parents_fit(
    small: Look, lab: Lab, tiny_llama_pair: Trio
) -> None:
    dense, mixed = lab.look(*tiny_llama_pair), lab.look(small.father, tiny_llama_pair[1])
    assert parents.experts_for(small, parents.OWN, "matched") == "matched"
    assert parents.experts_for(small, parents.OWN, "../../x") == "numbered"
    assert parents.experts_for(small, parents.FAMILY, "matched") == "numbered"
    assert parents.experts_for(mixed, parents.OWN, "matched") == "numbered"
    with pytest.raises(LabError, match="is dense, it has no experts to match; choose Experts “By number”"):
        parents.experts_for(dense, parents.OWN, "matched")


def test_the_way_out_that_a_refused_export_names_is_a_choice_of_this_tab() -> None:
    assert any(f'"{words}"' in MATCH_THEM for words, _ in parents.EXPERTS)


def test_a_matched_pair_says_what_was_renumbered_and_is_scanned_when_it_is_small(
    lab: Lab, tiny_moe_pair: Trio, swapped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = lab.open_pair(tiny_moe_pair[0], swapped, experts="matched")
    assert "renumbered in 1 of 4 layers" in parents_views.pair_words(pair)
    shown = parents.pair_updates(lab, pair, None)
    assert shown[-3].visible and shown[-1].interactive, "a reloaded page offers the scan that was never started"
    asked = []
    monkeypatch.setattr(lab, "request_scan", lambda one: asked.append(one) or ["job"])
    assert parents.scan_small(lab, pair)
    monkeypatch.setattr(planning, "AT_ONCE_BYTES", 0)
    assert not parents.scan_small(lab, pair)
    assert asked == [pair]


def test_an_empty_reference_is_refused_before_anything_is_looked_at(lab: Lab) -> None:
    with pytest.raises(LabError, match="no father given"):
        parents.looked_at(lab, parents.OWN, REF, "same", None)


def test_names_are_never_read_as_html(lab: Lab, tiny_llama_pair: Trio, tmp_path: Path) -> None:
    odd = tmp_path / "<img src=x>"
    odd.symlink_to(tiny_llama_pair[0])
    found = lab.look(odd, tiny_llama_pair[1])
    shown = [parents_views.look_words(found), parents_views.reading_words(found), parents_views.layers_html(found.plan)]
    assert not any("<img" in words for words in shown)
