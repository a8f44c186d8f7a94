"""The gradient view against what it claims: finite differences, random moves, and the way from father to mother."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from darwin_lab.checkpoint.anatomy import read_anatomy
from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.child import Child
from darwin_lab.engine.resident import Resident
from darwin_lab.errors import LabError
from darwin_lab.genome.genome import Genome, neutral_genome
from darwin_lab.merging.prescription import Prescription
from darwin_lab.merging.recipe import Recipe, make_recipe, uniform_recipe
from darwin_lab.mri.gradient import Gradients, gene_directions, gene_effects, path_integral, require_resident
from darwin_lab.mri.measures import encode_texts
from darwin_lab.mri.probes import ProbeSet
from tests.families import KINDS, write_family_pair

Pair = tuple[Path, Path, Path]
PROBES = ProbeSet(
    {"MATH": ("1+2=3. 2+2=4", "Question 7+1 Answer 8", "9+9=18"), "NEUTRAL": ("a quiet day, a walk", "hm")}
)

STEP = 0.01
"""How far a gene is moved to measure its slope."""


class Sharp(Child):
    """A child before its one rounding, so that small moves can be measured."""

    def read(self, name: str) -> torch.Tensor:
        pieces = list(self.chunks(name, dtype=torch.float32))
        return torch.cat(pieces).reshape(self.father.tensors[name].shape)


class Bench:
    """Parents, one model, and the losses of any recipe."""

    def __init__(self, folders: Pair, of: type[Child] = Sharp) -> None:
        self.father, self.mother = (Checkpoint(folder) for folder in folders[:2])
        self.anatomy, self.of = read_anatomy(self.father), of
        self.resident = Resident.load(self.father, dtype=torch.float64)
        self.resident.model.set_experts_implementation("eager")  # grouped matrices know no float64
        for module in self.resident.model.modules():
            if hasattr(module, "top_k"):
                module.top_k = self.anatomy.experts  # every token reads every expert: no jumps, which no slope knows

    def child(self, recipe: Recipe) -> Child:
        return self.of(self.father, self.mother, recipe)

    def at(self, genome: Genome, advice: Prescription | None = None) -> Gradients:
        child = self.child(make_recipe(genome, self.anatomy, advice))
        self.resident.become(child)
        return gene_effects(self.resident, child, PROBES, genome, self.anatomy, advice)

    def losses(self, recipe: Recipe) -> dict[str, float]:
        """NLL per probe, token by token, written out."""
        self.resident.become(self.child(recipe))
        found = {}
        for probe, texts in PROBES.texts.items():
            total = count = 0.0
            for ids in encode_texts(self.resident.tokenizer, texts, probe, 512):
                with torch.inference_mode():
                    tokens = torch.tensor([ids])
                    logits = self.resident.logits(self.resident.hidden(tokens, torch.ones_like(tokens)))[0]
                    total -= float(logits.log_softmax(-1)[range(len(ids) - 1), ids[1:]].sum())
                count += len(ids) - 1
            found[probe] = total / count
        return found


@pytest.fixture(scope="module")
def dense(tiny_llama_pair: Pair) -> Bench:
    return Bench(tiny_llama_pair)


@pytest.fixture(scope="module")
def sparse(tiny_moe_pair: Pair) -> Bench:
    return Bench(tiny_moe_pair)


GENES = {"global_ratio": 0.45, "attn_ratio": 0.6, "block_0": 0.4}


def v6(bench: Bench, **genes: float) -> Genome:
    return neutral_genome("v6", bench.anatomy.layers, transplant=0.0).with_genes(**{**GENES, **genes})


def measured(bench: Bench, up: Recipe, down: Recipe, apart: float) -> dict[str, float]:
    above, below = bench.losses(up), bench.losses(down)
    return {probe: (above[probe] - below[probe]) / apart for probe in above}


def test_the_slope_of_every_tensor_is_what_moving_its_ratio_does(dense: Bench) -> None:
    genome = v6(dense)
    view = dense.at(genome)
    recipe = make_recipe(genome, dense.anatomy)
    assert set(view.tensors) == {part.name for part in dense.anatomy.mergeable}
    for name in (view.tensors[0], view.tensors[1], view.tensors[-1]):
        up, down = (
            replace(
                recipe, rows={**recipe.rows, name: replace(recipe.rows[name], ratio=recipe.rows[name].ratio + step)}
            )
            for step in (0.05, -0.05)
        )
        for probe, slope in measured(dense, up, down, 0.1).items():
            assert view.slopes[probe][view.tensors.index(name)] == pytest.approx(slope, rel=0.02, abs=2e-6), name


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_the_slope_of_every_gene_is_what_moving_it_does(kind: str, request: pytest.FixtureRequest) -> None:
    bench: Bench = request.getfixturevalue(kind)
    view = bench.at(v6(bench))
    assert set(view.genes) == {"global_ratio", "attn_ratio", "ffn_ratio", "embed_ratio", "block_0"}
    for gene in view.genes:
        value = v6(bench).genes[gene]
        up, down = (make_recipe(v6(bench, **{gene: value + step}), bench.anatomy) for step in (STEP, -STEP))
        for probe, slope in measured(bench, up, down, 2 * STEP).items():
            found = next(effect for effect in view.effects if (effect.gene, effect.probe) == (gene, probe))
            assert found.slope == pytest.approx(slope, rel=0.03, abs=2e-5), (gene, probe)
            assert found.low <= found.slope <= found.high


def test_experts_that_lean_to_their_own_parent_are_told_apart(sparse: Bench) -> None:
    rng = np.random.default_rng(0)
    use = {
        layer: tuple(tuple(map(float, rng.dirichlet(np.full(sparse.anatomy.experts, 0.5)))) for _ in range(2))
        for layer in sparse.anatomy.moe_layers
    }
    advice = Prescription(
        "contrastive", {part.name: 0.5 for part in sparse.anatomy.mergeable}, (0.5,) * sparse.anatomy.layers, {},
        ((0, sparse.anatomy.layers - 1),), utilisation=use,  # type: ignore[arg-type]
    )  # fmt: skip
    genome = replace(v6(sparse), experts="usage")
    view = sparse.at(genome, advice)
    up, down = (make_recipe(genome.with_genes(ffn_ratio=0.5 + step), sparse.anatomy, advice) for step in (STEP, -STEP))
    assert any(row.expert_ratios for row in up.rows.values())
    for probe, slope in measured(sparse, up, down, 2 * STEP).items():
        found = next(effect for effect in view.effects if (effect.gene, effect.probe) == ("ffn_ratio", probe))
        assert found.slope == pytest.approx(slope, rel=0.03, abs=2e-5)


def test_thirty_random_small_moves_are_ranked_as_predicted(dense: Bench) -> None:
    genome, rng = v6(dense), np.random.default_rng(0)
    view = dense.at(genome)
    slope = {(effect.gene, effect.probe): effect.slope for effect in view.effects}
    before = dense.losses(make_recipe(genome, dense.anatomy))
    predicted, real = [], []
    for _ in range(30):
        move = dict(zip(view.genes, rng.normal(0, 0.03, len(view.genes)), strict=True))
        moved = genome.with_genes(**{gene: genome.genes[gene] + step for gene, step in move.items()})
        after = dense.losses(make_recipe(moved, dense.anatomy))
        predicted.append(sum(step * slope[gene, "MATH"] for gene, step in move.items()))
        real.append(after["MATH"] - before["MATH"])
    assert spearmanr(predicted, real).statistic > 0.9


def test_the_integral_from_father_to_mother_is_the_difference_of_their_losses(dense: Bench) -> None:
    def child_of(ratio: float) -> Child:
        return dense.child(uniform_recipe(dense.anatomy, ratio))

    rows = path_integral(dense.resident, child_of, PROBES)
    father, mother = (dense.losses(uniform_recipe(dense.anatomy, ratio)) for ratio in (0.0, 1.0))
    for row in rows:
        assert row.difference == pytest.approx(mother[row.probe] - father[row.probe], abs=1e-6)
        assert abs(row.residual) < 0.01 * abs(row.difference) + 1e-6


def test_a_jump_on_the_way_is_left_over_and_its_place_is_named(dense: Bench) -> None:
    def child_of(ratio: float) -> Child:
        return dense.child(uniform_recipe(dense.anatomy, ratio if ratio < 0.7 else 0.0))

    smooth = path_integral(dense.resident, lambda ratio: dense.child(uniform_recipe(dense.anatomy, ratio)), PROBES)
    broken = path_integral(dense.resident, child_of, PROBES)
    for before, after in zip(smooth, broken, strict=True):
        assert abs(after.left) > 10 * abs(before.left)
        assert after.start < 0.7 <= after.end


def test_between_equal_parents_nothing_is_predicted(tiny_llama_pair: Pair) -> None:
    father = tiny_llama_pair[0]
    view = Bench((father, father, father)).at(v6(Bench((father, father, father))))
    assert {slope for slopes in view.slopes.values() for slope in slopes} == {0.0}
    assert {effect.slope for effect in view.effects} == {0.0}


def test_a_tensor_that_a_threshold_copies_within_the_step_is_counted_and_left_out(dense: Bench) -> None:
    genome = replace(v6(dense, global_ratio=0.151, attn_ratio=0.5, block_0=0.5), transplant=0.15)
    direction = gene_directions(genome, dense.anatomy, None, make_recipe(genome, dense.anatomy))["global_ratio"]
    assert direction.jumps == len(dense.anatomy.mergeable)
    assert direction.rates == {}


def test_the_model_is_left_as_it_was(dense: Bench) -> None:
    before = dense.losses(make_recipe(v6(dense), dense.anatomy))
    dense.at(v6(dense))
    assert not any(p.requires_grad or p.grad is not None for p in dense.resident.model.parameters())
    assert dense.losses(make_recipe(v6(dense), dense.anatomy)) == before


def test_a_streamed_model_is_refused_in_one_line(dense: Bench) -> None:
    streamed = type("Streamed", (), {"streamed": True})()
    with pytest.raises(LabError, match="whole model in memory") as raised:
        require_resident(streamed)
    assert "\n" not in str(raised.value)


def test_another_operator_is_said_to_be_inexact_and_the_view_survives_a_file(dense: Bench) -> None:
    exact = dense.at(v6(dense))
    assert exact.exact
    assert not dense.at(replace(v6(dense), operator="slerp")).exact
    assert Gradients.from_json(json.loads(json.dumps(exact.to_json()))) == exact
    with pytest.raises(LabError, match="measure it again"):
        Gradients.from_json({"tensors": []})


def test_progress_reaches_the_end_and_names_the_probe(dense: Bench) -> None:
    seen: list[tuple[float, str]] = []
    child = dense.child(make_recipe(v6(dense), dense.anatomy))
    dense.resident.become(child)
    tick: Callable[[float, str], None] = lambda fraction, words: seen.append((fraction, words))  # noqa: E731
    gene_effects(dense.resident, child, PROBES, v6(dense), dense.anatomy, tick=tick)
    assert [fraction for fraction, _ in seen] == sorted(fraction for fraction, _ in seen)
    assert {"MATH", "NEUTRAL"} <= {words.split(":")[1].split(",")[0].strip() for _, words in seen}


def written_out(resident: Resident, text: str) -> float:
    """NLL of a text, token by token."""
    (ids,) = encode_texts(resident.tokenizer, (text,), "P", 512)
    with torch.inference_mode():
        tokens = torch.tensor([ids])
        logits = resident.logits(resident.hidden(tokens, torch.ones_like(tokens)))[0]
        return -float(logits.log_softmax(-1)[range(len(ids) - 1), ids[1:]].mean())


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_has_slopes_and_those_of_buffers_are_not_lost(kind: str, tmp_path: Path) -> None:
    father, mother = (open_checkpoint(folder) for folder in write_family_pair(kind, tmp_path)[:2])
    anatomy, probes = read_anatomy(father), ProbeSet({"P": ("1+2=3. a quiet day",)})
    resident, genome = Resident.load(father, dtype=torch.float64), neutral_genome("v6", anatomy.layers, transplant=0.0)
    resident.model.set_experts_implementation("eager")
    child = Child(father, mother, make_recipe(genome, anatomy))
    resident.become(child)
    view = gene_effects(resident, child, probes, genome, anatomy)
    slopes = dict(zip(view.tensors, view.slopes["P"], strict=True))
    assert np.isfinite(list(slopes.values())).all()
    assert sum(slope != 0 for slope in slopes.values()) > len(slopes) // 2
    assert not any(tensor.requires_grad for tensor in resident.model.state_dict(keep_vars=True).values())
    assert {slope for name, slope in slopes.items() if name.endswith("e_score_correction_bias")} <= {0.0}
    scalars = [name for name in slopes if name.endswith("layer_scalar")]
    assert bool(scalars) is kind.startswith("gemma4")
    for name in scalars[:2]:
        slot = resident.slot(name)
        assert slot is not None
        delta, now, losses = mother.read(name).double() - father.read(name).double(), slot.clone(), []
        for step in (0.1, -0.1):
            slot.copy_(now + step * delta)
            losses.append(written_out(resident, probes.texts["P"][0]))
        slot.copy_(now)
        assert slopes[name] == pytest.approx((losses[0] - losses[1]) / 0.2, rel=0.02, abs=2e-6)
