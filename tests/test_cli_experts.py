"""The shell and experts: routers of one parent, experts by use, and experts that are numbered differently."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from darwin_lab.cli import main
from darwin_lab.mri.health import check_health
from darwin_lab.verbs import health as health_verb

Trio = tuple[Path, Path, Path]
LAYER = "model.layers.1.mlp"


def merge(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `merge ...`."""
    code = main(["merge", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_experts_that_are_numbered_differently_stop_a_merge_with_the_remedy(
    capsys: pytest.CaptureFixture[str], tiny_moe_pair: Trio, swapped: Path, tmp_path: Path
) -> None:
    code, _, error = merge(capsys, tiny_moe_pair[0], swapped, "--ratio", 0.4, "--out", tmp_path / "child")
    assert code == 2
    assert "only 75% of the experts in layer 1" in error
    assert "--match-experts" in error
    assert not (tmp_path / "child").exists()


def test_a_mergekit_file_over_experts_that_are_numbered_differently_makes_the_matched_child(
    capsys: pytest.CaptureFixture[str], tiny_moe_pair: Trio, swapped: Path, tmp_path: Path
) -> None:
    models = [{"model": str(path), "parameters": {"weight": 0.5}} for path in (tiny_moe_pair[0], swapped)]
    (tmp_path / "merge.yml").write_text(json.dumps({"merge_method": "linear", "models": models}))
    asked = ("--mergekit", tmp_path / "merge.yml", "--out", tmp_path / "child")
    code, _, error = merge(capsys, *asked)
    assert (code, error.count("\n")) == (2, 1)
    assert "--match-experts in the shell" in error
    assert not (tmp_path / "child").exists()
    assert merge(capsys, *asked, "--match-experts")[0] == 0
    assert merge(capsys, *tiny_moe_pair[:2], "--ratio", 0.5, "--out", tmp_path / "plain")[0] == 0
    ours, theirs = weights(tmp_path / "child"), weights(tmp_path / "plain")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("how", [("--ratio", "0.4", "--experts", "usage"), ("--genome", "genome.json")])
def test_experts_that_do_not_correspond_are_told_before_anything_is_scanned(
    capsys: pytest.CaptureFixture[str], tiny_moe_pair: Trio, swapped: Path, tmp_path: Path, how: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("darwin_lab.verbs.merge.lab_advice", lambda *_, **__: pytest.fail("scanned"))
    monkeypatch.setattr("darwin_lab.verbs.health.lab_advice", lambda *_, **__: pytest.fail("scanned"))
    (tmp_path / "genome.json").write_text('{"layout": "v6", "genes": {"mri_trust": 0.5}}')
    code, _, error = merge(capsys, tiny_moe_pair[0], swapped, *how, "--out", tmp_path / "child")
    assert (code, error.count("\n")) == (2, 1)
    assert "only 75% of the experts in layer 1" in error
    if "--genome" in how:
        code = main(["health", *how, "--father", str(tiny_moe_pair[0]), "--mother", str(swapped)])
        assert code == 2
        assert "only 75% of the experts in layer 1" in capsys.readouterr().err


def test_matched_experts_make_the_child_of_the_mother_before_they_were_swapped(
    capsys: pytest.CaptureFixture[str], tiny_moe_pair: Trio, swapped: Path, tmp_path: Path
) -> None:
    father, mother, _ = tiny_moe_pair
    matched = ("--match-experts", "--json", "--out", tmp_path / "matched")
    code, said, _ = merge(capsys, father, swapped, "--ratio", 0.4, *matched)
    assert code == 0
    assert "matched anew in 1 of 4 layers" in json.loads(said)["notes"][0]
    assert merge(capsys, father, mother, "--ratio", 0.4, "--out", tmp_path / "plain")[0] == 0
    ours, theirs = weights(tmp_path / "matched"), weights(tmp_path / "plain")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_health_refuses_a_genome_over_experts_that_do_not_correspond_and_knows_the_order_of_a_matched_child(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny_moe_pair: Trio, swapped: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    father = tiny_moe_pair[0]
    genome, probes = tmp_path / "genome.json", tmp_path / "probes.jsonl"
    genome.write_text(json.dumps({"version": 1, "layout": "v4", "genes": {"ratio": 0.4}}))
    lines = ({"probe": "MATH", "text": f"{n}+{n}={2 * n} and {n}+1={n + 1}"} for n in range(12, 16))
    probes.write_text("\n".join(map(json.dumps, lines)))

    def health(*arguments: object) -> tuple[int, str, str]:
        code = main(["health", *map(str, arguments), "--probes", str(probes), "--json"])
        said = capsys.readouterr()
        return code, said.out, said.err

    code, _, error = health("--genome", genome, "--father", father, "--mother", swapped)
    assert code == 2
    assert "only 75% of the experts in layer 1" in error
    assert "--match-experts" in error

    merge(capsys, father, swapped, "--ratio", 0.4, "--match-experts", "--out", tmp_path / "matched")
    orders = []
    monkeypatch.setattr(
        health_verb, "check_health", lambda *a, **k: orders.append(k["expert_order"]) or check_health(*a, **k)
    )
    code, folder, _ = health(tmp_path / "matched", "--father", father, "--mother", swapped)
    assert code == 0
    told = json.loads((tmp_path / "matched" / "recipe.json").read_text())["expert_order"]
    assert told
    code, virtual, _ = health("--genome", genome, "--match-experts", "--father", father, "--mother", swapped)
    assert code == 0
    assert json.loads(virtual)["nll"] == json.loads(folder)["nll"]
    assert [{str(layer): list(order) for layer, order in one.items()} for one in orders] == [told, told]

    code, _, error = health(tmp_path / "matched", "--match-experts", "--father", father, "--mother", swapped)
    assert (code, error.count("\n")) == (2, 1)
    assert "--match-experts does nothing beside CHILD" in error


def test_evolution_of_parents_whose_experts_are_numbered_differently_needs_them_matched(
    capsys: pytest.CaptureFixture[str], tiny_moe_pair: Trio, swapped: Path, tmp_path: Path
) -> None:
    sums = [f"{one} + {other} =" for one in range(2, 8) for other in range(2, 8)]
    items = [{"id": sum_, "question": sum_, "choices": ["7", "9", "12"], "answer": 0, "task": "SUM"} for sum_ in sums]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    texts = [{"probe": "MATH", "text": f"{n} + {n} = {2 * n} and {n} + 1 = {n + 1}"} for n in (2, 3)]
    (tmp_path / "probes.jsonl").write_text("\n".join(map(json.dumps, texts)))
    given = ("--items", tmp_path / "items.jsonl", "--probes", tmp_path / "probes.jsonl", "--budget", 4)

    def evolve(out: str, *more: str) -> tuple[int, str]:
        command = ["evolve", tiny_moe_pair[0], swapped, *given, "--layout", "v4", "--out", tmp_path / out, *more]
        code = main(list(map(str, command)))
        return code, capsys.readouterr().err

    code, error = evolve("numbered")
    assert (code, error.count("\n")) == (2, 1)
    assert "only 75% of the experts in layer 1" in error
    assert evolve("matched", "--match-experts") == (0, "")
    child = json.loads((tmp_path / "matched" / "child" / "recipe.json").read_text())
    assert child["expert_order"] == {"1": [1, 0, *range(2, 8)]}
    code, error = evolve("numbered", "--match-experts", "--resume")
    assert code == 2
    assert "--match-experts matched contradicts the run" in error


def test_a_copy_of_one_parent_needs_no_matching(
    capsys: pytest.CaptureFixture[str], tiny_moe_pair: Trio, swapped: Path, tmp_path: Path
) -> None:
    assert merge(capsys, tiny_moe_pair[0], swapped, "--ratio", 1, "--out", tmp_path / "child")[0] == 0
    ours, hers = weights(tmp_path / "child"), weights(swapped)
    assert all(torch.equal(ours[name], hers[name]) for name in hers)


def test_the_router_of_one_parent_can_be_asked_for(
    capsys: pytest.CaptureFixture[str], tiny_moe_pair: Trio, tmp_path: Path
) -> None:
    father, mother, _ = tiny_moe_pair
    assert merge(capsys, father, mother, "--ratio", 0.4, "--router", "B", "--out", tmp_path / "child")[0] == 0
    ours, hers = weights(tmp_path / "child"), weights(mother)
    assert torch.equal(ours[f"{LAYER}.gate.weight"], hers[f"{LAYER}.gate.weight"])
    assert not torch.equal(ours[f"{LAYER}.experts.down_proj"], hers[f"{LAYER}.experts.down_proj"])


@pytest.mark.parametrize(("flag", "value"), [("--router", "A"), ("--experts", "preserve")])
def test_a_flag_that_contradicts_the_genome_is_refused(
    capsys: pytest.CaptureFixture[str], tiny_moe_pair: Trio, tmp_path: Path, flag: str, value: str
) -> None:
    genome = tmp_path / "genome.json"
    genome.write_text('{"layout": "v4"}')
    father, mother, _ = tiny_moe_pair
    code, _, error = merge(capsys, father, mother, "--genome", genome, flag, value, "--out", tmp_path / "child")
    assert code == 2
    assert f"{flag} {value} contradicts the genome, which says blend" in error


def test_a_dense_model_has_nothing_to_match(
    capsys: pytest.CaptureFixture[str], tiny_llama_pair: Trio, tmp_path: Path
) -> None:
    father, mother, _ = tiny_llama_pair
    code, _, error = merge(capsys, father, mother, "--ratio", 0.4, "--match-experts", "--out", tmp_path / "child")
    assert code == 2
    assert "has no experts to match" in error


@pytest.mark.parametrize("flag", ["--experts=usage", "--experts=preserve", "--router=A", "--router=B"])
def test_a_dense_model_has_no_experts_to_go_by_and_is_not_scanned_for_them(
    capsys: pytest.CaptureFixture[str],
    tiny_llama_pair: Trio,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flag: str,
) -> None:
    monkeypatch.setattr("darwin_lab.verbs.merge._advice", lambda *_: pytest.fail("scanned"))
    father, mother, _ = tiny_llama_pair
    code, _, error = merge(capsys, father, mother, "--ratio", 0.4, flag, "--out", tmp_path / "child")
    assert (code, error.count("\n")) == (2, 1)
    assert f"has no experts, so {flag.replace('=', ' ')} does nothing" in error
    assert not (tmp_path / "child").exists()


def test_texts_too_long_for_a_scan_inside_a_merge_name_what_merge_takes(
    capsys: pytest.CaptureFixture[str], tiny_moe_pair: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARWIN_LAB_HOME", str(tmp_path / "home"))
    parents = []
    for name, source in zip(("father", "mother"), tiny_moe_pair, strict=False):
        parents.append(Path(shutil.copytree(source, tmp_path / name)))
        config = json.loads((tmp_path / name / "config.json").read_text())
        config.get("text_config", config)["max_position_embeddings"] = 8
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    code, _, error = merge(capsys, *parents, "--ratio", 0.4, "--experts", "usage", "--out", tmp_path / "child")
    assert (code, error.count("\n")) == (2, 1)
    assert "reads at most 8; give shorter ones with --probes FILE" in error
    (tmp_path / "probes.jsonl").write_text('{"probe": "MATH", "text": "1+1=2"}\n{"probe": "MATH", "text": "2+2=4"}\n')
    asked = ("--probes", tmp_path / "probes.jsonl", "--experts", "usage", "--out", tmp_path / "child")
    assert merge(capsys, *parents, "--ratio", 0.4, *asked)[0] == 0


def test_a_preset_of_another_depth_says_that_it_was_stretched(
    capsys: pytest.CaptureFixture[str], tiny_moe_pair: Trio, tmp_path: Path
) -> None:
    father, mother, _ = tiny_moe_pair
    preset = ("--preset", "darwin-35b-opus", "--json", "--out", tmp_path / "child")
    code, said, _ = merge(capsys, father, mother, *preset)
    assert code == 0
    assert "published for 40 layers; its blocks are stretched to these 4" in json.loads(said)["notes"][0]
