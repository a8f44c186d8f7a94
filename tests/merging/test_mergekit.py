"""mergekit's YAML: the recipe gives what mergekit would resolve, and what it cannot say is refused or listed."""

from pathlib import Path

import pytest
import yaml

from darwin_lab.checkpoint.anatomy import Anatomy, read_anatomy
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.errors import LabError
from darwin_lab.genome.genome import neutral_genome
from darwin_lab.merging.mergekit import MergekitFile, read_mergekit
from darwin_lab.merging.mergekit_yaml import recipe_to_mergekit
from darwin_lab.merging.recipe import Recipe, make_recipe, uniform_recipe

MODELS = {"father": "org/father", "mother": "org/mother", "ancestor": "org/ancestor"}
TWO = "models: [{model: F, parameters: {weight: .7}}, {model: M, parameters: {weight: .3}}]\n"
ON_BASE = "base_model: O\n" + TWO
RESCALED = "merge_method: ties\nparameters: {rescale: true}\n" + ON_BASE.replace(".7", "1, density: .5")
LAYERS = 4


@pytest.fixture(scope="module")
def anatomy(tiny_llama_pair: tuple[Path, Path, Path]) -> Anatomy:
    """Of a tiny Llama of four layers."""
    return read_anatomy(open_checkpoint(tiny_llama_pair[0]))


@pytest.fixture
def read(tmp_path: Path):
    def from_text(text: str) -> MergekitFile:
        path = tmp_path / "merge.yml"
        path.write_text(text)
        return read_mergekit(path)

    return from_text


def ratios(recipe: Recipe, word: str) -> list[float]:
    return [row.ratio for row in recipe.rows.values() if word in row.name]


def test_linear_weights_become_the_mothers_share(read, anatomy: Anatomy) -> None:
    file = read(
        "merge_method: linear\nmodels: [{model: F, parameters: {weight: 3}}, {model: M, parameters: {weight: 1}}]"
    )
    recipe = file.recipe(anatomy)
    assert (file.father, file.mother, file.ancestor) == ("F", "M", None)
    assert recipe.operators == {"lerp"}
    assert set(ratios(recipe, "")) == {0.25}


def test_a_gradient_runs_over_the_layers_and_what_is_outside_them_has_its_first_value(read, anatomy: Anatomy) -> None:
    recipe = read(
        "merge_method: slerp\nbase_model: F\nmodels: [{model: F}, {model: M}]\nparameters: {t: [0, .6, .9]}"
    ).recipe(anatomy)
    q = [recipe.rows[f"model.layers.{layer}.self_attn.q_proj.weight"].ratio for layer in range(LAYERS)]
    assert q == pytest.approx([0.0, 0.4, 0.7, 0.9], abs=1e-6)
    assert ratios(recipe, "embed_tokens") == ratios(recipe, "model.norm") == [0.0]
    assert recipe.rows["model.layers.0.self_attn.q_proj.weight"].action == "copy"


def test_the_first_filter_that_fits_decides(read, anatomy: Anatomy) -> None:
    recipe = read(
        "merge_method: slerp\nbase_model: F\nmodels: [{model: F}, {model: M}]\nparameters:\n  t:\n"
        "  - {filter: self_attn, value: [.1, .4]}\n  - {filter: mlp, value: .8}\n  - {value: 0.5}\n"
    ).recipe(anatomy)
    assert ratios(recipe, "self_attn.k_proj") == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=1e-6)
    assert set(ratios(recipe, "mlp")) == {0.8}
    assert set(ratios(recipe, "layernorm")) == {0.5}


def test_the_base_of_a_slerp_is_the_father_in_whatever_order_the_models_stand(read) -> None:
    file = read("merge_method: slerp\nbase_model: F\nmodels: [{model: M}, {model: F}]\nparameters: {t: .2}")
    assert (file.father, file.mother, file.ancestor) == ("F", "M", None)


@pytest.mark.parametrize(
    ("method", "weights", "extra", "ratio", "factor"),
    [
        ("task_arithmetic", (0.6, 0.6), "", 0.5, 1.2),
        ("task_arithmetic", (0.6, 0.6), "lambda: .5", 0.5, 0.6),
        ("task_arithmetic", (3, 1), "normalize: true", 0.25, 1.0),
        ("ties", (0.5, 1.5), "", 0.75, 1.0),
        ("ties", (0.5, 1.5), "lambda: 1.1", 0.75, 1.1),
        ("dare_ties", (0.5, 0.7), "", 7 / 12, 1.2),
        ("breadcrumbs", (1, 1), "lambda: .9", 0.5, 1.8),
        ("della", (1, 1), "", 0.5, 1.0),
    ],
)
def test_weights_and_lambda_of_task_vectors_become_ratio_and_lambda(
    read, anatomy: Anatomy, method: str, weights: tuple[float, float], extra: str, ratio: float, factor: float
) -> None:
    models = [
        {"model": name, "parameters": {"weight": w, "density": 0.5}} for name, w in zip("FM", weights, strict=True)
    ]
    file = read(
        yaml.safe_dump({"merge_method": method, "base_model": "O", "models": models}) + f"parameters: {{{extra}}}\n"
    )
    recipe = file.recipe(anatomy)
    assert (file.father, file.mother, file.ancestor) == ("F", "M", "O")
    assert recipe.operators == {method}
    assert set(ratios(recipe, "")) == {round(ratio, 6)}
    assert recipe.options.get("lambda", 1.0) == pytest.approx(factor)
    row = recipe.rows["model.norm.weight"]
    assert (row.density_a, row.density_b) == ((1.0, 1.0) if method == "task_arithmetic" else (0.5, 0.5))


def test_a_single_dare_model_on_its_base_is_the_one_delta_form(read, anatomy: Anatomy) -> None:
    text = "base_model: F\nmodels: [{model: F}, {model: M, parameters: {weight: .4, density: .6}}]\n"
    for method in ("dare_ties", "dare_linear"):
        file = read(f"merge_method: {method}\n{text}")
        recipe = file.recipe(anatomy, seed=7)
        row = recipe.rows["model.norm.weight"]
        assert (row.operator, row.ratio, row.density_b, recipe.rescale) == ("dare", 0.4, 0.6, "l1")
        assert (file.father, file.mother, file.ancestor, recipe.seed) == ("F", "M", None, 7)
    assert read(f"merge_method: task_arithmetic\n{text}").recipe(anatomy).operators == {"lerp"}


def test_other_task_vectors_of_a_single_model_take_the_father_as_ancestor(read, anatomy: Anatomy) -> None:
    text = "base_model: F\nmodels: [{model: F}, {model: M, parameters: {weight: 1, density: .6}}]\n"
    file = read(f"merge_method: breadcrumbs\n{text}")
    recipe = file.recipe(anatomy)
    assert file.ancestor == file.father == "F"
    assert (recipe.rows["model.norm.weight"].ratio, recipe.options) == (0.5, {"lambda": 2.0, "gamma": 0.01})


def test_methods_without_an_operator_are_said_where_nothing_is_dropped(read, anatomy: Anatomy) -> None:
    text = "merge_method: METHOD\nbase_model: O\n" + TWO
    for method, operator in {
        "dare_linear": "task_arithmetic", "della_linear": "task_arithmetic", "breadcrumbs_ties": "dare_ties",
    }.items():  # fmt: skip
        assert read(text.replace("METHOD", method)).recipe(anatomy).operators == {operator}
        with pytest.raises(LabError, match=f"{method} of two deltas with density below 1"):
            read(text.replace("METHOD", method).replace("weight: .3", "weight: .3, density: .5")).recipe(anatomy)


def test_the_options_of_nearswap_sce_and_passthrough_are_kept(read, anatomy: Anatomy) -> None:
    near = read("merge_method: nearswap\nbase_model: F\nmodels: [{model: F}, {model: M}]\nparameters: {t: .001}")
    assert near.recipe(anatomy).options == {"t": 0.001}
    sce = read("merge_method: sce\nbase_model: O\nmodels: [{model: F}, {model: M}]\nparameters: {select_topk: .2}")
    row = sce.recipe(anatomy).rows["model.norm.weight"]
    assert (row.operator, row.ratio, row.density_b) == ("sce", 0.5, 0.2)
    fusion = read("merge_method: arcee_fusion\nbase_model: F\nmodels: [{model: F}, {model: M}]").recipe(anatomy)
    assert fusion.operators == {"arcee_fusion"}


def test_slices_that_keep_every_layer_in_order_are_copies_of_their_parent(read, anatomy: Anatomy) -> None:
    slices = "- sources: [{model: F, layer_range: [0, %d]}]\n- sources: [{model: M, layer_range: [%d, 4]}]\n"
    text = "merge_method: passthrough\nslices:\n" + slices
    recipe = read(text % (3, 3)).recipe(anatomy)
    assert ratios(recipe, "layers.2.") == [0.0] * 9
    assert ratios(recipe, "layers.3.") == [1.0] * 9
    assert (ratios(recipe, "embed_tokens"), ratios(recipe, "model.norm")) == ([0.0], [1.0])
    assert recipe.operators == set()
    with pytest.raises(LabError, match="slice 2 starts at layer 2 where layer 3 is due"):
        read(text % (3, 2))
    with pytest.raises(LabError, match="has 4 layers, the parents 5"):
        read(text % (3, 3)).recipe(Anatomy(**{**vars(anatomy), "layers": 5}))


def test_a_gradient_starts_anew_in_every_slice(read, anatomy: Anatomy) -> None:
    source = "sources: [{{model: F, layer_range: [{0}, {1}]}}, {{model: M, layer_range: [{0}, {1}]}}]"
    slices = "\n".join(f"- {source.format(*edges)}" for edges in ((0, 2), (2, 4)))
    recipe = read(f"merge_method: slerp\nbase_model: F\nparameters: {{t: [.2, .4]}}\nslices:\n{slices}").recipe(anatomy)
    assert ratios(recipe, "k_proj") == pytest.approx([0.2, 0.4, 0.2, 0.4])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("3 models", "merge_method: linear\nmodels: [{model: F}, {model: M}, {model: X}]"),
        ("4 models", "merge_method: ties\nbase_model: O\nmodels: [{model: F}, {model: M}, {model: X}]"),
        ("3 models", "merge_method: slerp\nbase_model: O\nmodels: [{model: F}, {model: M}]\nparameters: {t: .5}"),
        ("ties without base_model", "merge_method: ties\n" + TWO),
        ("is none of ours", "merge_method: model_stock\n" + TWO),
        ("adds an adapter", "merge_method: linear\nmodels: [{model: F+lora}, {model: M}]"),
        ("names a revision", "merge_method: linear\nmodels: [{model: F@main}, {model: M}]"),
        ("ignore_mismatched is not known", "merge_method: linear\nignore_mismatched: true\n" + TWO),
        ("parameter sharpness is not known", "merge_method: linear\nparameters: {sharpness: 1}\n" + TWO),
        ("tokenizer source M", "merge_method: linear\ntokenizer_source: M\n" + TWO),
        ("pad_to_multiple_of", "merge_method: linear\ntokenizer: {source: base, pad_to_multiple_of: 64}\n" + TWO),
        ("chat_template", "merge_method: linear\nchat_template: chatml\n" + TWO),
        ("dtype float64", "merge_method: linear\ndtype: float64\n" + TWO),
        ("no merge_method", "models: []"),
        ("neither", "merge_method: linear"),
        ("is not YAML", "merge_method: [linear"),
    ],
)
def test_what_a_recipe_cannot_say_is_refused_by_name(read, words: str, text: str) -> None:
    with pytest.raises(LabError, match=words) as caught:
        read(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("without weight", "merge_method: linear\nmodels: [{model: F}, {model: M}]"),
        ("do not sum to 1", "merge_method: linear\nparameters: {normalize: false}\n" + TWO.replace(".7", ".9")),
        ("leaves the line", "merge_method: linear\n" + TWO.replace(".3", "-.3")),
        ("with normalize: false", "merge_method: ties\nbase_model: O\nparameters: {normalize: false}\n" + TWO),
        ("with normalize: true", "merge_method: dare_ties\nbase_model: O\nparameters: {normalize: true}\n" + TWO),
        ("lambda 3, outside 0 to 2", "merge_method: ties\nbase_model: O\nparameters: {lambda: 3}\n" + TWO),
        ("lambda that differs", "merge_method: dare_ties\n" + ON_BASE.replace(".3", "[.3, .5]")),
        ("weight 0 beside", "merge_method: dare_ties\n" + ON_BASE.replace(".3", "0").replace(".7", "1, density: .5")),
        ("with rescale: true", RESCALED),
        ("a number", "merge_method: linear\n" + TWO.replace(".3", "much")),
    ],
)  # fmt: skip
def test_numbers_that_would_give_other_bytes_are_refused(read, anatomy: Anatomy, words: str, text: str) -> None:
    with pytest.raises(LabError, match=words):
        read(text).recipe(anatomy)


def test_every_reason_is_listed_at_once(read) -> None:
    with pytest.raises(LabError) as caught:
        read("merge_method: linear\nchat_template: chatml\nsurprise: 1\ndtype: int8\n" + TWO)
    assert all(word in str(caught.value) for word in ("chat_template", "surprise", "int8"))


def test_what_does_not_change_bytes_is_noted(read) -> None:
    text = "merge_method: dare_ties\nbase_model: O\ndtype: bfloat16\ntokenizer_source: base\nrandom_seed: 4\n"
    notes = " | ".join(read(text + "parameters: {int8_mask: true, t: 1}\n" + TWO).said)
    for word in (
        "int8_mask",
        "random_seed",
        "arithmetic is in float32",
        "tokenizer source base",
        "t: dare_ties",
        "masks",
    ):
        assert word in notes


def test_the_childs_dtype_is_asked_for_only_where_it_is_another(read, tiny_llama_pair) -> None:
    father = open_checkpoint(tiny_llama_pair[0])
    for dtype, expected in {"bfloat16": None, "float32": "float32"}.items():
        assert read(f"merge_method: linear\ndtype: {dtype}\n{TWO}").child_dtype(father) == expected
    assert read(f"merge_method: linear\ndtype: bfloat16\nout_dtype: float16\n{TWO}").child_dtype(father) == "float16"


def rough_genome(anatomy: Anatomy, operator: str) -> Recipe:
    """A recipe whose ratios differ between layers and components."""
    genome = neutral_genome("layerwise", anatomy.layers, operator=operator, rescale="l1", seed=3)
    genes = {f"layer_{layer}": 0.1 + 0.2 * layer for layer in range(anatomy.layers)}
    return make_recipe(genome.with_genes(attn_ratio=0.3, embed_ratio=0.9, **genes), anatomy)


@pytest.mark.parametrize(
    "operator",
    ["lerp", "slerp", "task_arithmetic", "ties", "dare_ties", "breadcrumbs", "della", "dare"],
)
def test_a_recipe_written_as_yaml_comes_back_the_same(read, anatomy: Anatomy, operator: str) -> None:
    recipe = rough_genome(anatomy, operator)
    written = recipe_to_mergekit(recipe, MODELS)
    file = read(written.text)
    assert (file.father, file.mother) == ("org/father", "org/mother")
    back = file.recipe(anatomy, seed=3)
    assert {name: row.ratio for name, row in back.rows.items()} == pytest.approx(
        {name: row.ratio for name, row in recipe.rows.items()}, abs=2e-6
    )
    assert back.operators == recipe.operators


def test_a_uniform_recipe_with_densities_comes_back_with_its_hash(read, anatomy: Anatomy) -> None:
    for operator in ("ties", "dare_ties", "breadcrumbs", "della"):
        recipe = uniform_recipe(anatomy, 0.35, operator, 0.6, seed=3, rescale="l1")
        back = read(recipe_to_mergekit(recipe, MODELS).text).recipe(anatomy, seed=3)
        back_rows = [row.decision for row in back.rows.values()]
        assert back_rows == [row.decision for row in recipe.rows.values()], operator


def test_a_moe_recipe_comes_back_through_filters(read, tiny_moe_pair) -> None:
    anatomy = read_anatomy(open_checkpoint(tiny_moe_pair[0]))
    genome = neutral_genome("v6", anatomy.layers).with_genes(attn_ratio=0.2, ffn_ratio=0.8, mri_trust=0)
    recipe = make_recipe(genome, anatomy)
    written = recipe_to_mergekit(recipe, MODELS)
    back = read(written.text).recipe(anatomy)
    assert {row.ratio for row in recipe.rows.values()} > {0.5}
    assert [row.ratio for row in back.rows.values()] == pytest.approx(
        [row.ratio for row in recipe.rows.values()], abs=2e-6
    )
    assert not any("tell apart" in one for one in written.unsaid)


def test_what_yaml_cannot_say_is_listed(anatomy: Anatomy) -> None:
    recipe = uniform_recipe(anatomy, 0.35, "dare_ties", 0.6, seed=11)
    unsaid = " | ".join(recipe_to_mergekit(recipe, MODELS).unsaid)
    assert "masks of seed 11" in unsaid
    assert "1 / density" in unsaid
    assert recipe_to_mergekit(uniform_recipe(anatomy, 0.35), MODELS).unsaid == ()
    with pytest.raises(LabError, match="no merge_method for mix"):
        recipe_to_mergekit(uniform_recipe(anatomy, 0.35, "mix"), MODELS)
