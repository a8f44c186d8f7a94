"""The shell: one JSON object on stdout, one line on stderr, the promised exit codes, nothing written on bad input."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.cli import main
from darwin_lab.merging.prescription import MODES

Trio = tuple[Path, Path, Path]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a store of its own."""
    monkeypatch.setenv("DARWIN_LAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def items(tmp_path: Path) -> Path:
    """Sixty small sums with four options each, as a user would bring them."""
    rows = []
    for number in range(60):
        a, b = number % 7, number // 7 % 7
        options = [str(a + b + shift) for shift in (0, 1, 2, 3)]
        question = f"{a}+{b}={number}?"
        row = {"id": f"s{number}", "task": "SUM", "question": question, "choices": options, "answer": number % 4}
        rows.append(row)
    path = tmp_path / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def probes(tmp_path: Path) -> Path:
    """Two probes of a few short texts."""
    rows = [
        {"probe": probe, "text": f"{word} {number} plus {number * 7 % 11} equals {number + 3}"}
        for probe, word in (("SUMS", "sum"), ("NEUTRAL", "note"))
        for number in range(8)
    ]
    path = tmp_path / "probes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def run_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    code, out, err = run(capsys, *arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_merge_writes_a_child_that_opens_and_says_what_it_did(capsys, tiny_moe_pair: Trio, tmp_path: Path) -> None:
    father, mother, ancestor = tiny_moe_pair
    out = tmp_path / "child"
    command = ["merge", father, mother, "--ancestor", ancestor, "--out", out, "--ratio", 0.4]
    data = run_json(capsys, *command, "--operator", "dare_ties", "--density", 0.7, "--seed", 3)
    assert data["recipe"] == json.loads((out / "recipe.json").read_text())["recipe"]
    assert data["tensors"]["merged"] + data["tensors"]["copied"] == len(open_checkpoint(out).names)


def test_the_same_command_gives_the_same_bytes(capsys, tiny_moe_pair: Trio, tmp_path: Path) -> None:
    prints = []
    for name in ("one", "two"):
        command = ["merge", *tiny_moe_pair[:2], "--out", tmp_path / name, "--ratio", 0.3, "--operator", "dare"]
        assert run(capsys, *command, "--density", 0.5)[0] == 0
        prints.append((tmp_path / name / "model.safetensors").read_bytes())
    assert prints[0] == prints[1]


def test_a_genome_that_trusts_the_mri_scans_first_and_says_so(
    capsys, tiny_llama_pair: Trio, probes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darwin_lab.lab.pairs.GENERIC_PROBES", probes)  # fewer texts than are built in
    genome = tmp_path / "genome.json"
    genome.write_text('{"layout": "v6", "genes": {"mri_trust": 0.5}}')
    data = run_json(capsys, "merge", *tiny_llama_pair[:2], "--out", tmp_path / "a", "--genome", genome)
    assert data["prescription"]
    assert "contrastive advice from new scans" in data["notes"][0]
    assert "mother's layer is better in" in data["notes"][1] or "no signal" in data["notes"][1]
    again = run_json(capsys, "merge", *tiny_llama_pair[:2], "--out", tmp_path / "b", "--genome", genome)
    assert "stored scans" in again["notes"][0]
    assert again["recipe"] == data["recipe"]


def test_scans_can_be_given_to_a_merge_and_must_be_the_parents(
    capsys, tiny_llama_pair: Trio, probes: Path, tmp_path: Path
) -> None:
    father, mother, _ = tiny_llama_pair
    for name, model in (("a", father), ("b", mother)):
        assert run(capsys, "scan", model, "--probes", probes, "--out", tmp_path / name)[0] == 0
    genome = tmp_path / "genome.json"
    genome.write_text('{"layout": "v6", "genes": {"mri_trust": 1.0}}')
    command = ["merge", father, mother, "--genome", genome, "--scans"]
    data = run_json(capsys, *command, tmp_path / "a", tmp_path / "b", "--out", tmp_path / "child")
    assert data["prescription"]
    code, _, err = run(capsys, *command, tmp_path / "b", tmp_path / "a", "--out", tmp_path / "swapped")
    assert code == 2
    assert "the father's scan is of" in err


def test_a_merge_goes_by_the_advice_that_is_asked_for(
    capsys, tiny_llama_pair: Trio, probes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darwin_lab.lab.pairs.GENERIC_PROBES", probes)
    father, mother, _ = tiny_llama_pair
    for name, model in (("a", father), ("b", mother)):
        assert run(capsys, "scan", model, "--probes", probes, "--out", tmp_path / name)[0] == 0
    genome = tmp_path / "genome.json"
    genome.write_text('{"layout": "v6", "genes": {"mri_trust": 1.0}}')
    command, scans = ["merge", father, mother, "--genome", genome], ("--scans", tmp_path / "a", tmp_path / "b")
    found = {}
    for mode in MODES[1:]:
        given = run_json(capsys, *command, *scans, "--advice", mode, "--out", tmp_path / f"given-{mode}")
        stored = run_json(capsys, *command, "--advice", mode, "--out", tmp_path / f"stored-{mode}")
        assert given["prescription"] == stored["prescription"]
        found[mode] = given["prescription"]
    swaps = run_json(capsys, *command, "--out", tmp_path / "swaps")["prescription"]
    assert len({swaps, *found.values()}) == 4
    for words, asked in {
        "contrastive advice swaps layers between the parents": (*command, *scans, "--advice", "contrastive"),
        "--advice does nothing beside this": ("merge", father, mother, "--ratio", 0.5, "--advice", "paper"),
    }.items():
        code, _, err = run(capsys, *asked, "--out", tmp_path / "no")
        assert (code, err.count("\n")) == (2, 1) and words in err


def test_scan_gives_importance_per_probe_and_layer(capsys, tiny_moe_pair: Trio, probes: Path, tmp_path: Path) -> None:
    data = run_json(capsys, "scan", tiny_moe_pair[0], "--probes", probes, "--out", tmp_path / "scan")
    assert data["layers"] == 4
    assert set(data["importance"]) >= {"skip", "influence", "loss"}
    assert {len(values) for values in data["importance"]["skip"].values()} == {4}
    assert set(data["importance"]["skip"]) == {"SUMS", "NEUTRAL"} == set(data["tokens"])
    assert data["experts"] is not None
    assert (tmp_path / "scan" / "scan.json").is_file()


def test_score_gives_n_accuracies_p_gold_and_an_interval(
    capsys, tiny_llama_pair: Trio, items: Path, tmp_path: Path
) -> None:
    samples = tmp_path / "samples.jsonl"
    data = run_json(capsys, "score", tiny_llama_pair[0], "--items", items, "--limit", 30, "--samples", samples)
    bench = data["benchmarks"]["SUM"]
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    assert bench["n"] == len(rows) == 30
    assert bench["acc"] == sum(row["acc"] for row in rows) / 30
    assert bench["interval"][0] < bench["acc"] < bench["interval"][1]
    assert 0 < bench["p_gold"] < 1


def test_evolve_leaves_the_run_and_a_child_that_opens_and_resume_finds_it(
    capsys, tiny_llama_pair: Trio, items: Path, probes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = ["evolve", *tiny_llama_pair[:2], "--items", items, "--probes", probes, "--budget", 4, "--out", out]
    data = run_json(capsys, *command, "--layout", "v4", "--seed", 1)
    record = json.loads((out / "run.json").read_text())
    assert record["run"] == data["run"]
    assert len(record["candidates"]) == data["evaluated"] == 4
    assert data["pick"]["recipe_hash"] in {row["recipe_hash"] for row in record["candidates"]}
    child = open_checkpoint(out / "child")
    assert json.loads((child.folder / "recipe.json").read_text())["recipe"] == data["pick"]["recipe_hash"]
    assert set(data["report"]["models"]) >= {"child", "father", "mother"}
    code, _, err = run(capsys, *command)
    assert code == 2
    assert "--resume" in err
    shutil.rmtree(out / "child")
    again = run_json(capsys, *command, "--resume")
    assert again["pick"] == data["pick"]
    assert open_checkpoint(out / "child").fingerprint == child.fingerprint


def test_health_names_a_verdict(capsys, tiny_llama_pair: Trio, probes: Path, tmp_path: Path) -> None:
    father, mother, _ = tiny_llama_pair
    run(capsys, "merge", father, mother, "--out", tmp_path / "child", "--ratio", 0.5)
    data = run_json(capsys, "health", tmp_path / "child", "--father", father, "--mother", mother, "--probes", probes)
    assert data["verdict"] in ("healthy", "watch", "unhealthy")
    assert {row["probe"] for row in data["nll"]} == {"SUMS", "NEUTRAL"}


def test_health_of_a_genome_is_the_health_of_its_exported_child(
    capsys, tiny_llama_pair: Trio, probes: Path, tmp_path: Path
) -> None:
    father, mother, _ = tiny_llama_pair
    genome = tmp_path / "genome.json"
    genome.write_text('{"layout": "layerwise", "genes": {"layer_0": 0.2, "layer_2": 0.9}}')
    run(capsys, "merge", father, mother, "--out", tmp_path / "child", "--genome", genome)
    beside = ("--father", father, "--mother", mother, "--probes", probes, "--max-tokens", 8)
    folder = run_json(capsys, "health", tmp_path / "child", *beside)
    virtual = run_json(capsys, "health", "--genome", genome, *beside)
    assert [row["child"] for row in virtual["nll"]] == [row["child"] for row in folder["nll"]]
    assert {row["tokens"] for row in virtual["nll"]} == {8 * row["texts"] for row in virtual["nll"]}


def test_a_genome_that_trusts_the_mri_is_advised_on_the_probes_of_its_health_check(
    capsys, tiny_llama_pair: Trio, probes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darwin_lab.lab.pairs.GENERIC_PROBES", tmp_path / "nowhere.jsonl")
    father, mother, _ = tiny_llama_pair
    genome = tmp_path / "genome.json"
    genome.write_text('{"layout": "v6", "genes": {"mri_trust": 0.5}}')
    found = run_json(capsys, "health", "--genome", genome, "--father", father, "--mother", mother, "--probes", probes)
    assert {row["probe"] for row in found["nll"]} == {"SUMS", "NEUTRAL"}


def test_a_flagged_child_is_mended_in_the_shell_into_a_genome_that_is_clear(capsys, tmp_path: Path) -> None:
    from tests.mri.planted import PLANTED, PROBES, write_parent

    for who in ("father", "mother"):
        write_parent(tmp_path / who, who)
    capsys.readouterr()
    lines = [{"probe": probe, "text": text} for probe, texts in PROBES.texts.items() for text in texts]
    (tmp_path / "probes.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "genome.json").write_text('{"layout": "layerwise"}')
    beside = ("--father", tmp_path / "father", "--mother", tmp_path / "mother", "--probes", tmp_path / "probes.jsonl")
    found = run_json(
        capsys, "health", "--genome", tmp_path / "genome.json", *beside, "--mend", tmp_path / "mended.json"
    )
    assert found["flagged_layers"] == [PLANTED]
    assert found["mending"]["after"]["flagged_layers"] == []
    genome = json.loads((tmp_path / "mended.json").read_text())
    assert list(genome["pinned"]) == [str(PLANTED)]
    again = run_json(capsys, "health", "--genome", tmp_path / "mended.json", *beside)
    assert again["flagged_layers"] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "either CHILD"),
        (("family:father", "--mend", "out.json"), "--mend needs --genome"),
        (("family:father", "--max-tokens", "1"), "nothing to predict"),
        (("--genome", "nowhere.json"), "no genome file nowhere.json"),
    ],
)
def test_health_says_in_one_line_what_it_cannot_do(capsys, arguments: tuple[str, ...], words: str) -> None:
    code, out, err = run(capsys, "health", *arguments, "--father", "family:father", "--mother", "family:mother")
    assert (code, out, err.count("\n")) == (2, "", 1) and words in err


def test_a_child_is_merged_from_a_line_of_blocks(capsys, tiny_moe_pair: Trio, tmp_path: Path) -> None:
    father, mother, _ = tiny_moe_pair
    blocks = "L0-L1 t .6 router B; L2 t .9; L3 t .5336 router A"
    made = run_json(capsys, "merge", father, mother, "--out", tmp_path / "child", "--blocks", blocks)
    rows = {row["name"]: row for row in json.loads((tmp_path / "child" / "recipe.json").read_text())["rows"]}
    of_layer = lambda layer, role: {r["ratio"] for r in rows.values() if r["layer"] == layer and r["role"] == role}  # noqa: E731
    assert of_layer(0, "router") == {1.0} and of_layer(3, "router") == {0.0} and of_layer(2, "router") == {0.9}
    assert of_layer(1, "expert") == {0.6} and of_layer(3, "expert") == {0.5336}
    assert any("half and half" in note for note in made["notes"])
    code, _, err = run(capsys, "merge", father, mother, "--out", tmp_path / "no", "--blocks", "L0-L1 t .6; L2-L9 t .9")
    assert code == 2 and "block 2 ('L2-L9 t .9'): this model has L0 to L3" in err


def test_plan_says_what_a_merge_would_do_and_cost(capsys, tiny_moe_pair: Trio) -> None:
    data = run_json(capsys, "plan", *tiny_moe_pair[:2], "--ancestor", tiny_moe_pair[2], "--operator", "ties")
    assert data["compatible"] and data["operator"] == "ties"
    assert data["fates"]["merged"]["tensors"] == len(open_checkpoint(tiny_moe_pair[0]).names)
    assert data["cost"]["seconds"] > 0 and data["cost"]["calibration"]["operator"] == "ties"
    code, out, err = run(capsys, "plan", *tiny_moe_pair[:2])
    assert (code, err) == (0, "")
    assert "3 x (GatedDeltaNet -> MoE) + 1 x (attention -> MoE)" in out
    assert "an estimate: lerp measured at" in out and "smallest card that holds it" in out


def test_plan_of_parents_that_do_not_fit_says_why_and_exits_0(
    capsys, tiny_moe_pair: Trio, tiny_llama_pair: Trio
) -> None:
    code, out, _ = run(capsys, "plan", tiny_llama_pair[0], tiny_moe_pair[1])
    assert code == 0
    assert "They cannot be merged as asked" in out and "cannot be merged with the mother" in out
    data = run_json(capsys, "plan", tiny_llama_pair[0], tiny_moe_pair[1])
    assert data["compatible"] is False and data["cost"]["seconds"] is None


def test_plan_looks_at_one_model_alone_without_torch(tiny_llama_pair: Trio) -> None:
    script = (
        "import sys; from darwin_lab.cli import main; code = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "plan", str(tiny_llama_pair[0])], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "4 x (attention -> FFN)" in done.stdout


def test_bad_input_exits_2_with_one_line_and_writes_nothing(
    capsys, tiny_llama_pair: Trio, tiny_moe_pair: Trio, items: Path, tmp_path: Path
) -> None:
    father, mother, _ = tiny_llama_pair
    out = tmp_path / "out"
    broken = tmp_path / "broken.jsonl"
    broken.write_text(items.read_text().splitlines()[0] + "\n{oops\n")
    genome = tmp_path / "genome.json"
    genome.write_text('{"layout": "v6", "genes": {"glob": 1}}')
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("x")
    merge = ["merge", father, mother, "--out"]
    for words, command in {
        "no folder": ["merge", tmp_path / "none", mother, "--out", out, "--ratio", 0.5],
        "differ in architecture": ["merge", father, tiny_moe_pair[0], "--out", out, "--ratio", 0.5],
        "ratio is 2": [*merge, out, "--ratio", 2],
        "ties needs a common ancestor": [*merge, out, "--ratio", 0.5, "--operator", "ties"],
        "no gene 'glob'": [*merge, out, "--genome", genome],
        "no genome file": [*merge, out, "--genome", tmp_path / "none.json"],
        "unknown preset": [*merge, out, "--preset", "nothing"],
        "contradicts the genome": [*merge, out, "--preset", "blend", "--operator", "slerp"],
        "unknown dtype": [*merge, out, "--ratio", 0.5, "--dtype", "int8"],
        "is not empty": [*merge, full, "--ratio", 0.5],
        "one of the arguments --ratio": [*merge, out],
        "broken.jsonl:2": ["score", father, "--items", broken],
        "no items": ["score", father],
        "no items to select on": ["evolve", father, mother, "--out", out],
        "holds no run": ["evolve", father, mother, "--items", items, "--out", out, "--resume"],
        "no model given": ["plan", ""],
        "no model given; give a folder": ["plan", father, ""],
        "--operator needs two parents": ["plan", father, "--operator", "ties"],
        "--vocab needs two parents": ["plan", father, "--vocab", "by-token"],
        "--out needs two parents": ["plan", father, "--out", out],
        "config.json is a file, so nothing can be put into it": [
            "plan",
            father,
            mother,
            "--out",
            Path(father) / "config.json" / "child",
        ],
        "no benchmark has more than 1,000,000,000 items": ["claim", "90", 10**12],
        "'1e1' has an exponent": ["claim", "1e1", 10],
        "invalid choice": ["dance"],
    }.items():
        code, stdout, err = run(capsys, *command)
        assert (code, stdout) == (2, ""), command
        assert words in err, err
        assert err.count("\n") == 1, err
        assert not out.exists(), command


def test_the_runs_whose_mean_a_score_could_be_are_said_to_be_the_fewest(capsys) -> None:
    said = run(capsys, "claim", "50.0", 3)[1]
    assert "the mean of 2 runs on the same items, the fewest that give it" in said and "or more" not in said


def test_one_right_answer_is_said_as_one(capsys) -> None:
    assert "possible: 1 right answer." in run(capsys, "claim", "10", 10)[1]
    assert "possible: 2 right answers." in run(capsys, "claim", "20", 10)[1]


def test_control_c_exits_130(capsys, tiny_llama_pair: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("darwin_lab.verbs.merge.export_child", interrupted)
    code, _, err = run(capsys, "merge", *tiny_llama_pair[:2], "--out", tmp_path / "child", "--ratio", 0.5)
    assert (code, err) == (130, "cancelled\n")


def test_nothing_heavy_is_imported_for_help() -> None:
    script = "import sys; from darwin_lab.cli import build_parser; build_parser(); print('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
