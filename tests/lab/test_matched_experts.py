"""A pair whose experts are matched by their weights: the shell's children, whatever the lab does to them."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from darwin_lab.cli import main
from darwin_lab.errors import LabError
from darwin_lab.evolution.settings import EvolutionSettings
from darwin_lab.genome.genome import neutral_genome
from darwin_lab.lab import pairs
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.merging import matching
from darwin_lab.merging.recipe_file import read_recipe_file

Trio = tuple[Path, Path, Path]
ORDER = (1, 0, *range(2, 8))


@pytest.fixture
def refs(tiny_moe_pair: Trio, swapped: Path, measures: dict[str, Any]) -> dict[str, Any]:
    """Father, a mother whose experts 0 and 1 of layer 1 are swapped, and what they are measured with."""
    return {"father": tiny_moe_pair[0], "mother": swapped, **measures}


@pytest.fixture
def matched(lab: Lab, refs: dict[str, Any]) -> Pair:
    return lab.open_pair(**refs, experts="matched")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_matched_experts_make_another_pair_that_says_so(lab: Lab, refs: dict[str, Any], matched: Pair) -> None:
    assert matched.key != lab.open_pair(**refs).key
    assert matched.expert_order == {1: ORDER}
    assert matched.experts_words == "Experts are matched by their weights: renumbered in 1 of 4 layers."
    assert lab.open_pair(**refs).experts_words == ""


def test_the_export_of_a_matched_pair_is_the_shells_child_byte_for_byte(
    lab: Lab, refs: dict[str, Any], matched: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.wait(lab.request_export(matched, "blend", tmp_path / "ours"))
    merge = ["merge", str(refs["father"]), str(refs["mother"]), "--ratio", "0.5", "--match-experts"]
    assert main([*merge, "--out", str(tmp_path / "shells")]) == 0
    ours, shells = (tmp_path / who / "model.safetensors" for who in ("ours", "shells"))
    assert ours.read_bytes() == shells.read_bytes()
    files = [read_recipe_file(tmp_path / who) for who in ("ours", "shells")]
    assert files[0].recipe.hash == files[1].recipe.hash == lab.recipe_of(matched, "blend").hash
    assert files[0].recipe.expert_order == {1: ORDER}
    assert main(["merge", "--recipe", str(tmp_path / "ours"), "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == ours.read_bytes()


def test_the_virtual_child_of_a_genome_has_the_experts_of_the_mother_before_they_were_swapped(
    lab: Lab, tiny_moe_pair: Trio, measures: dict[str, Any], matched: Pair
) -> None:
    straight = lab.open_pair(*tiny_moe_pair[:2], **measures)
    genome = neutral_genome("v4", 4).with_genes(ratio=0.3)
    ours, theirs = (lab.bench.child(pair, lab.recipe(pair, genome)) for pair in (matched, straight))
    assert all(torch.equal(ours.read(name), theirs.read(name)) for name in theirs.names)


@pytest.mark.parametrize("work", ["export", "score", "health", "report", "inherit", "trial", "evolution"])
def test_no_work_of_the_lab_blends_experts_that_do_not_correspond_and_all_name_the_way_out(
    lab: Lab, refs: dict[str, Any], tmp_path: Path, work: str
) -> None:
    pair = lab.open_pair(**refs)
    with pytest.raises(LabError, match=r'only 75% of the experts in layer 1 .*"Matched by weights" in the Parents tab'):
        if work == "export":
            lab.wait(lab.request_export(pair, "blend", tmp_path / "child"))
        elif work == "score":
            lab.wait(lab.request_score(pair, "blend"))
        elif work == "health":
            lab.wait(lab.request_health(pair, "blend"))
        elif work == "report":
            lab.wait(lab.request_report(pair, "blend"))
        elif work == "inherit":
            lab.wait(lab.request_inheritance(pair, "blend"))
        elif work == "trial":
            lab.wait(lab.trials.request_trial(pair, draws=2))
        else:
            run = lab.start_evolution(pair, EvolutionSettings(layout="v4", budget=4, start="random"))
            lab.wait(lab.run(run).job_id)
    assert not (tmp_path / "child").exists()
    assert lab.score(pair, "blend") is None
    assert work == "health" or lab.scan(pair, "father") is None, "refused before it was scanned"


def test_one_parent_alone_is_scored_whatever_the_numbers_of_the_experts(lab: Lab, refs: dict[str, Any]) -> None:
    pair = lab.open_pair(**refs)
    for who in ("father", "mother"):
        lab.wait(lab.request_score(pair, who))
        assert lab.score(pair, who) is not None


def test_experts_are_compared_once_for_all_children_of_a_pair(
    lab: Lab, tiny_moe_pair: Trio, measures: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []
    compare = matching.expert_identity
    monkeypatch.setattr(matching, "expert_identity", lambda *a: compared.append(a) or compare(*a))
    pair = lab.open_pair(*tiny_moe_pair[:2], **measures)
    for ratio in (0.3, 0.5, 0.6):
        lab.bench.child(pair, pair.uniform(ratio)).require_sound()
    assert len(compared) == 1


def test_a_pair_opened_again_by_its_key_keeps_its_order_without_comparing_experts(
    new_lab: Any, refs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = new_lab()
    pair = first.open_pair(**refs, experts="matched")
    name = first.recipe(pair, neutral_genome("v4", 4)).hash
    monkeypatch.setattr(matching, "expert_identity", lambda *_: pytest.fail("compared again"))
    later = new_lab()
    again = later.pair(pair.key)
    assert again is not pair
    assert (again.key, again.experts, again.expert_order) == (pair.key, "matched", {1: ORDER})
    assert later.recipe_of(again, name).expert_order == {1: ORDER}
    assert new_lab().open_pair(**refs, experts="matched").expert_order == {1: ORDER}
    other = later.with_probes(again, "MATH: 1+1=2 and 2+2=4\nNEUTRAL: some words in a row")
    assert other.key != again.key and other.expert_order == {1: ORDER}
    assert later.bench.pair(other.key).experts == "matched"


def test_a_job_opens_a_pair_and_matches_its_experts(lab: Lab, refs: dict[str, Any]) -> None:
    plain = {key: value for key, value in refs.items() if key != "probes"}
    found = lab.wait(lab.request_open(**plain, experts="matched"))
    assert lab.pair(found["pair"]).expert_order == {1: ORDER}


def test_the_static_profile_compares_experts_that_were_matched(
    lab: Lab, tiny_moe_pair: Trio, measures: dict[str, Any], refs: dict[str, Any], matched: Pair
) -> None:
    profiles, shares = [], []
    for pair in (matched, lab.open_pair(*tiny_moe_pair[:2], **measures), lab.open_pair(**refs)):
        for job in lab.request_scan(pair):
            lab.wait(job)
        profile = lab.static(pair)
        shares.append((profile.same_experts[1], profile.experts_correspond))
        profiles.append({name: row.cosine for name, row in lab.static(pair).by_name.items()})
    name = "model.layers.1.mlp.experts.down_proj"
    assert profiles[0][name] == pytest.approx(profiles[1][name], abs=1e-9)
    assert abs(profiles[2][name] - profiles[1][name]) > 0.01
    assert shares == [(1.0, True), (1.0, True), (0.75, False)]


def test_dense_parents_have_no_experts_to_match(lab: Lab, tiny_llama_pair: Trio) -> None:
    with pytest.raises(LabError, match="father has no experts to match; open this pair with its experts by number"):
        lab.open_pair(*tiny_llama_pair[:2], experts="matched")
    with pytest.raises(LabError, match="unknown way to pair experts 'mixed'; choose numbered or matched"):
        lab.open_pair(*tiny_llama_pair[:2], experts="mixed")


def test_parents_that_cannot_be_bred_open_with_the_reason_and_are_not_read(
    lab: Lab, tiny_moe_pair: Trio, tiny_llama_pair: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "expert_identity", lambda *_: pytest.fail("compared"))
    pair = lab.open_pair(tiny_moe_pair[0], tiny_llama_pair[1], experts="matched")
    assert not pair.compatible and pair.experts_words == ""


def test_every_recipe_of_the_lab_is_made_by_its_pair() -> None:
    """Else a child could forget the order of its experts. A mother read by token keeps her own numbers."""
    folder = Path(pairs.__file__).parent
    makers = {path.name for path in folder.glob("*.py") if re.search(r"\b(uniform|make)_recipe\(", path.read_text())}
    assert makers == {"pairs.py", "scan_places.py"}
