"""`merge` from a recipe, a mergekit file or a ratio, and `recipe`: the same bytes again, and nothing heavy imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.cli import main

Trio = tuple[Path, Path, Path]
ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "transformers", "gradio", "scipy", "plotly", "pandas", "matplotlib", "yaml", "cma")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def run_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    code, out, err = run(capsys, *arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


@pytest.fixture
def child(capsys, tiny_moe_pair: Trio, tmp_path: Path) -> Path:
    """An export with masks, an ancestor and another dtype."""
    father, mother, ancestor = tiny_moe_pair
    command = ["merge", father, mother, "--ancestor", ancestor, "--out", tmp_path / "child", "--ratio", 0.4]
    run_json(capsys, *command, "--operator", "dare_ties", "--density", 0.6, "--seed", 5, "--dtype", "float32")
    return tmp_path / "child"


def test_a_recipe_run_again_gives_the_same_bytes_with_the_parents_it_names_or_those_given(
    capsys, child: Path, tiny_moe_pair: Trio, tmp_path: Path
) -> None:
    data = run_json(capsys, "merge", "--recipe", child / "recipe.json", "--out", tmp_path / "again")
    assert data["notes"] == []
    assert weights(tmp_path / "again") == weights(child)
    assert (tmp_path / "again" / "recipe.json").read_bytes() == (child / "recipe.json").read_bytes()
    father, mother, ancestor = tiny_moe_pair
    command = ["merge", father, mother, "--ancestor", ancestor, "--recipe", child, "--out", tmp_path / "given"]
    run_json(capsys, *command, "--shard-size", "40KB", "--devices", "cpu,cpu")
    assert len(weights(tmp_path / "given")) > 2
    whole, sharded = open_checkpoint(child), open_checkpoint(tmp_path / "given")
    assert all((whole.read(name) == sharded.read(name)).all() for name in whole.names)


def test_a_role_that_is_not_the_fathers_is_refused(capsys, child: Path, tmp_path: Path) -> None:
    told = json.loads((child / "recipe.json").read_text())
    row = next(row for row in told["rows"] if row["role"] == "router")
    row["role"] = "expert"
    (tmp_path / "edited.json").write_text(json.dumps(told))
    code, _, err = run(capsys, "merge", "--recipe", tmp_path / "edited.json", "--out", tmp_path / "again")
    assert code == 2
    assert f"{row['name']} is 'router {row['component']}' in the father, the recipe says 'expert " in err
    assert not (tmp_path / "again").exists()


def test_a_genome_travels_in_the_recipe_of_its_child(capsys, tiny_llama_pair: Trio, tmp_path: Path) -> None:
    genome = {"version": 1, "layout": "v4", "genes": {"ratio": 0.3, "ffn": 0.9}}
    (tmp_path / "genome.json").write_text(json.dumps(genome))
    out = tmp_path / "child"
    run_json(capsys, "merge", *tiny_llama_pair[:2], "--genome", tmp_path / "genome.json", "--out", out)
    kept = json.loads((out / "recipe.json").read_text())["genome"]
    assert kept["genes"] == {"ratio": 0.3, "attn": 0.5, "ffn": 0.9, "density_a": 1.0, "density_b": 1.0}
    run_json(capsys, "merge", "--recipe", out, "--out", tmp_path / "again")
    assert weights(tmp_path / "again") == weights(out)


def test_an_option_changes_the_child_and_its_name(capsys, tiny_llama_pair: Trio, tmp_path: Path) -> None:
    father, mother, ancestor = tiny_llama_pair
    hashes = []
    for factor in (1, 1.5):
        command = ["merge", father, mother, "--ancestor", ancestor, "--ratio", 0.5, "--operator", "task_arithmetic"]
        out = tmp_path / str(factor)
        hashes.append(run_json(capsys, *command, "--option", f"lambda={factor}", "--out", out)["recipe"])
    assert hashes[0] != hashes[1]
    assert weights(tmp_path / "1") != weights(tmp_path / "1.5")


def test_a_mergekit_file_makes_the_child_of_the_models_it_names(capsys, tiny_llama_pair: Trio, tmp_path: Path) -> None:
    father, mother, _ = tiny_llama_pair
    models = [{"model": str(father)}, {"model": str(mother)}]
    config = {"merge_method": "slerp", "base_model": str(father), "models": models, "parameters": {"t": 0.3}}
    (tmp_path / "merge.yml").write_text(yaml.safe_dump({**config, "dtype": "bfloat16"}))
    data = run_json(capsys, "merge", "--mergekit", tmp_path / "merge.yml", "--out", tmp_path / "child")
    assert data["notes"] == ["dtype bfloat16: arithmetic is in float32 here, rounded once at the end"]
    run_json(capsys, "merge", father, mother, "--ratio", 0.3, "--operator", "slerp", "--out", tmp_path / "plain")
    assert weights(tmp_path / "child") == weights(tmp_path / "plain")
    swapped = ["merge", mother, father, "--mergekit", tmp_path / "merge.yml", "--out", tmp_path / "swapped"]
    run_json(capsys, *swapped)
    assert weights(tmp_path / "swapped") != weights(tmp_path / "child")


def test_a_recipe_is_shown_and_written_as_yaml_that_makes_the_same_child(
    capsys, tiny_llama_pair: Trio, tmp_path: Path
) -> None:
    command = ["merge", *tiny_llama_pair[:2], "--preset", "darwin-v4", "--operator", "dare", "--out", tmp_path / "dare"]
    code, _, err = run(capsys, *command)
    assert code == 0, err
    out = tmp_path / "lerp"
    made = run_json(capsys, "merge", *tiny_llama_pair[:2], "--ratio", 0.25, "--out", out)
    shown = run_json(capsys, "recipe", out, "--mergekit", tmp_path / "lerp.yml")
    assert shown["recipe"] == made["recipe"]
    assert set(shown["component_ratio"].values()) == {0.25}
    assert shown["unsaid"] == []
    back = run_json(capsys, "merge", "--mergekit", tmp_path / "lerp.yml", "--out", tmp_path / "back")
    assert back["recipe"] == made["recipe"]
    assert weights(tmp_path / "back") == weights(out)
    code, text, _ = run(capsys, "recipe", tmp_path / "dare", "--mergekit", tmp_path / "dare.yml")
    assert code == 0
    assert "written; mergekit cannot say" in text and "the masks of seed 0" in text
    code, text, _ = run(capsys, "recipe", out, "--mergekit", tmp_path / "again.yml")
    assert (code, text.splitlines()[-1]) == (0, f"{tmp_path / 'again.yml'}: written; it says all that the recipe does")


def test_what_contradicts_a_file_is_bad_input_in_one_line(
    capsys, child: Path, tiny_moe_pair: Trio, tiny_llama_pair: Trio, tmp_path: Path
) -> None:
    father, mother, ancestor = tiny_moe_pair
    out = tmp_path / "out"
    merge = ["merge", "--out", out, "--recipe", child]
    old = tmp_path / "old.json"
    old.write_text(json.dumps({**json.loads((child / "recipe.json").read_text()), "version": 1}))
    moved = tmp_path / "moved.json"
    data = json.loads((child / "recipe.json").read_text())
    data["parents"]["father"]["ref"] = str(tmp_path / "gone")
    moved.write_text(json.dumps(data))
    franken = tmp_path / "franken.yml"
    franken.write_text("merge_method: linear\nmodels: [{model: a}, {model: b}, {model: c}]\n")
    plain = ["merge", father, mother, "--out", out]
    for words, command in {
        "version 1, this lab reads version 2": ["merge", "--out", out, "--recipe", old],
        "is not the father of this recipe": [*merge[:1], mother, father, "--ancestor", ancestor, *merge[1:]],
        "only one of FATHER and MOTHER": [*merge[:1], father, *merge[1:]],
        "--seed does nothing beside --recipe": [*merge, "--seed", 1],
        "--operator does nothing beside --recipe": [*merge, "--operator", "lerp"],
        "--dtype bfloat16 contradicts the recipe": [*merge, "--dtype", "bfloat16"],
        "father that the file names cannot be opened: no folder": ["merge", "--out", out, "--recipe", moved],
        "no recipe": ["merge", "--out", out, "--recipe", tmp_path / "none.json"],
        "3 models": ["merge", "--out", out, "--mergekit", franken],
        "no mergekit file": ["merge", "--out", out, "--mergekit", tmp_path / "none.yml"],
        "not allowed with argument": [*merge, "--ratio", 0.5],
        "give FATHER and MOTHER": ["merge", "--out", out, "--ratio", 0.5],
        "no size of a shard": [*plain, "--ratio", 0.5, "--shard-size", "lots"],
        "no device": [*plain, "--ratio", 0.5, "--devices", "cpu,tpu"],
        "no NAME=VALUE": [*plain, "--ratio", 0.5, "--option", "lambda"],
        "exists; give a new file": ["recipe", child, "--mergekit", franken],
    }.items():
        code, stdout, err = run(capsys, *command)
        assert (code, stdout) == (2, ""), command
        assert words in err, err
        assert err.count("\n") == 1, err
        assert not out.exists(), command


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ("--density does nothing beside lerp", ["--density", 0.5]),
        ("--seed does nothing beside lerp", ["--seed", 3]),
        ("--seed does nothing beside dare, which draws only with", ["--operator", "dare", "--seed", 3]),
        ("--ancestor does nothing beside slerp", ["--operator", "slerp", "--ancestor", "ANCESTOR"]),
        ("--option scale is given twice", ["--operator", "passthrough", "--option=scale=1", "--option= scale =2"]),
    ],
)
def test_a_flag_that_would_change_nothing_is_refused_in_one_line(
    capsys, tiny_llama_pair: Trio, tmp_path: Path, words: str, flags: list[object]
) -> None:
    father, mother, ancestor = tiny_llama_pair
    given = [ancestor if flag == "ANCESTOR" else flag for flag in flags]
    code, stdout, err = run(capsys, "merge", father, mother, "--ratio", 0.5, *given, "--out", tmp_path / "out")
    assert (code, stdout, err.count("\n")) == (2, "", 1)
    assert words in err
    assert not (tmp_path / "out").exists()


def test_flags_at_their_default_may_be_said(capsys, tiny_llama_pair: Trio, tmp_path: Path) -> None:
    plain = ["--ratio", 0.5, "--seed", 0, "--density", 1, "--router", "blend", "--experts", "blend"]
    run_json(capsys, "merge", *tiny_llama_pair[:2], *plain, "--out", tmp_path / "out")


def test_mergekit_yaml_names_folders_where_the_lab_has_names_of_its_own(capsys, tmp_path: Path) -> None:
    out, yml = tmp_path / "child", tmp_path / "child.yml"
    run_json(capsys, "merge", "family:father", "family:mother", "--ratio", 0.5, "--out", out)
    run_json(capsys, "recipe", out, "--mergekit", yml)
    models = [Path(one["model"]) for one in yaml.safe_load(yml.read_text())["models"]]
    assert [folder.name for folder in models] == ["father", "mother"]
    assert all((folder / "config.json").is_file() for folder in models)


def modules_after(tmp_path: Path, *arguments: object) -> set[str]:
    """The heavy modules that one run of the shell leaves imported."""
    script = (
        "import sys; from darwin_lab.cli import main\n"
        "try: code = main(sys.argv[1:])\n"
        "except SystemExit as end: code = end.code\n"
        f"print('#', code, *(name for name in {HEAVY!r} if name in sys.modules))"
    )
    environment = {**os.environ, "DARWIN_LAB_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    code, *found = done.stdout.splitlines()[-1].removeprefix("#").split()
    assert code == "0", done.stderr
    return set(found)


@pytest.mark.parametrize("verb", ["merge", "recipe", "evolve"])
def test_help_imports_nothing_heavy(tmp_path: Path, verb: str) -> None:
    assert modules_after(tmp_path, verb, "--help") == set()


def test_a_plain_merge_imports_torch_and_what_draws_the_card_and_no_more(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    command = ["merge", *tiny_llama_pair[:2], "--ratio", 0.5, "--out", tmp_path / "child"]
    assert modules_after(tmp_path, *command) <= {"torch", "matplotlib"}
