"""The plan counts what the headers say, says why, and reads no weight: the files of the big parents here are holes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.checkpoint.layout import LayerKind, Run, Stretch, fold, layout_words
from darwin_lab.engine import plan_words
from darwin_lab.engine.calibration import Calibration, calibrate, calibrated
from darwin_lab.engine.hardware import GIB, serving
from darwin_lab.engine.plan import COPIED, DROPPED, FATES, MERGED, STUCK, Plan, plan_model, plan_pair, timed
from darwin_lab.errors import LabError
from tests.conftest import WORDS, write_tokenizer
from tests.full_size import Shapes, write_full_size, write_hole

Trio = tuple[Path, Path, Path]
SPEED = Calibration("lerp", merge_ns=2.0, copy_ns=0.5, weights=1000, runs=3, threads=1)
A, B, C = LayerKind("attention", "FFN"), LayerKind("GatedDeltaNet", "MoE"), LayerKind("attention", "MoE")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Checkpoint]:
    """Two Qwen3.5-35B-A3B without weights."""
    root = tmp_path_factory.mktemp("qwen")
    father, mother = (Checkpoint(write_full_size(root / who, "Qwen3.5-35B-A3B")) for who in ("father", "mother"))
    return father, mother


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A Gemma4-31B without weights."""
    return Checkpoint(write_full_size(tmp_path_factory.mktemp("gemma") / "father", "Gemma4-31B"))


def tiny_plan(trio: Trio, **choices: object) -> Plan:
    return plan_pair(Checkpoint(trio[0]), Checkpoint(trio[1]), **choices)  # type: ignore[arg-type]


def rewritten(source: Path, target: Path, change: Shapes | None = None, drop: str = "", **config: object) -> Checkpoint:
    """A copy of a tiny checkpoint, without weights, with tensors added or dropped and config entries changed."""
    shutil.copytree(source, target)
    shapes = {info.name: (info.dtype, info.shape) for info in Checkpoint(source).tensors.values()}
    kept = {name: shape for name, shape in shapes.items() if not drop or drop not in name}
    write_hole(target / "model.safetensors", {**kept, **(change or {})})
    data = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**data, **config}))
    return Checkpoint(target)


def test_a_35b_pair_is_counted_to_the_tensor_and_byte(qwen: tuple[Checkpoint, Checkpoint]) -> None:
    plan = plan_pair(*qwen)
    assert (plan.father.tensors, plan.father.bytes) == (1811, 71_903_655_008)
    assert (plan.father.parameters, plan.father.text) == (35_951_822_704, 34_660_610_688)
    assert plan.compatible
    assert plan.total(MERGED)[0] == 693
    assert plan.total(COPIED)[0] == plan.total(DROPPED)[0] == 333 + 785
    left_out = plan_words.fate_words(plan)[-1]
    assert left_out.startswith("1,118 tensors of the mother are left out")
    assert left_out.endswith("; the child has the father's instead")
    assert plan.total(STUCK) == (0, 0, 0)
    assert sum(plan.total(fate)[2] for fate in (MERGED, COPIED)) == plan.father.bytes


def test_the_layers_of_a_hybrid_are_said_by_their_repeating_unit(qwen: tuple[Checkpoint, Checkpoint]) -> None:
    assert layout_words(plan_model(qwen[0]).layout) == (
        "10 x (3 x GatedDeltaNet -> MoE + 1 x attention -> MoE); MoE: 256 experts, top-8, and a shared expert"
    )


def test_sliding_and_full_attention_are_told_apart(gemma: Checkpoint) -> None:
    model = plan_model(gemma)
    assert (model.tensors, model.bytes) == (1188, 62_546_177_752)
    assert layout_words(model.layout) == "10 x (5 x sliding attention -> FFN + 1 x full attention -> FFN)"


def test_about_three_billion_of_a_35b_a3b_meet_a_token(qwen: tuple[Checkpoint, Checkpoint]) -> None:
    model = plan_model(qwen[0])
    experts = next(row for row in model.roles if row.role == "expert")
    assert experts.active == experts.parameters * 8 // 256
    assert model.active == model.text - experts.parameters + experts.active == 3_454_988_928
    assert all(row.active == 0 for row in model.roles if row.tower != "text")
    assert model.tables == 2 * 248_320 * 2048


def test_a_tied_head_is_counted_once(tmp_path: Path, tiny_llama_pair: Trio) -> None:
    tied = plan_model(Checkpoint(tiny_llama_pair[0]))
    head: Shapes = {"lm_head.weight": ("BF16", (64, 32))}
    both = rewritten(tiny_llama_pair[0], tmp_path / "both", head)
    own = rewritten(tiny_llama_pair[0], tmp_path / "own", head, tie_word_embeddings=False)
    assert plan_model(both).text == tied.text
    assert plan_model(own).text == tied.text + 64 * 32
    assert plan_model(both).parameters == tied.parameters + 64 * 32


def test_graphics_memory_is_real_bytes_without_the_mtp_head(qwen: tuple[Checkpoint, Checkpoint]) -> None:
    model = plan_model(qwen[0])
    stored, q8, q4 = model.serving.formats
    mtp = next(row for row in model.roles if row.role == "mtp")
    assert stored.bytes == model.bytes - mtp.bytes
    assert [round(form.bytes / GIB, 1) for form in (stored, q8, q4)] == [65.4, 34.7, 18.4]


def test_two_24_gib_cards_do_not_hold_a_35b_in_bf16(qwen: tuple[Checkpoint, Checkpoint]) -> None:
    holds = {fit.card.name: fit.holds for fit in plan_model(qwen[0]).serving.fits}
    assert holds["2 x 24 GiB"] == ("Q8", "Q4_K_M")
    assert holds["24 GiB"] == ("Q4_K_M",)
    assert holds["16 GiB"] == ()
    assert "bf16, as stored" in holds["80 GiB"]


@given(st.integers(10**6, 10**12), st.integers(0, 10**9))
def test_a_card_that_holds_a_format_has_room_for_the_allowance_too(weights: int, cached: int) -> None:
    made = serving(weights, 2 * weights, "BF16", cached)
    for fit in made.fits:
        for form in made.formats:
            room = fit.card.gib * fit.card.count * GIB - form.bytes - 2 * cached - GIB * fit.card.count
            assert (form.name in fit.holds) == (room >= 0)


def test_files_in_float32_are_also_offered_in_bf16() -> None:
    names = [(form.name, form.bytes) for form in serving(1000, 4000, "F32", 0).formats]
    assert names[:2] == [("f32, as stored", 4000), ("bf16", 2000)]


def test_keys_and_values_follow_windows_and_shared_projections(
    gemma: Checkpoint, qwen: tuple[Checkpoint, Checkpoint]
) -> None:
    # Gemma4-31B: 50 sliding layers of 16 x 256 keys and values, 10 full ones of 4 x 512 keys that are the values too.
    assert plan_model(gemma).layout.cached_numbers(8192) == 50 * 2 * 4096 * 1024 + 10 * 2 * 2048 * 8192
    assert plan_model(qwen[0]).layout.cached_numbers(8192) == 10 * 2 * 512 * 8192


def test_no_byte_of_a_weight_is_read_for_a_plan(
    tiny_moe_pair: Trio, monkeypatch: pytest.MonkeyPatch, qwen: tuple[Checkpoint, Checkpoint]
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr(Checkpoint, "read", refuse)
    monkeypatch.setattr(Checkpoint, "read_flat", refuse)
    monkeypatch.setattr("darwin_lab.checkpoint.checkpoint.blake3", refuse)
    assert tiny_plan(tiny_moe_pair).compatible
    assert plan_pair(*qwen).compatible


def test_every_tensor_of_both_parents_has_one_fate(tiny_moe_pair: Trio, tmp_path: Path) -> None:
    vision: Shapes = {f"model.visual.blocks.{n}.attn.qkv.weight": ("BF16", (4, 4)) for n in range(3)}
    mother = rewritten(tiny_moe_pair[1], tmp_path / "mother", vision)
    father = Checkpoint(tiny_moe_pair[0])
    plan = plan_pair(father, mother)
    assert sum(plan.total(fate)[0] for fate in (MERGED, COPIED, STUCK)) == len(father.tensors)
    assert plan.total(DROPPED)[0] == 3
    assert plan_words.fate_words(plan)[-1].endswith("; the child has no place for them")
    assert "father has no such tensor" in plan.of(DROPPED)[0].reason
    assert plan.of(DROPPED)[0].pattern == "model.visual.blocks.*.attn.qkv.weight"


def test_parents_that_cannot_be_merged_are_planned_with_the_reason(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    mother = rewritten(tiny_llama_pair[1], tmp_path / "mother", drop="layers.2.mlp.up_proj")
    plan = timed(plan_pair(Checkpoint(tiny_llama_pair[0]), mother), SPEED)
    assert not plan.compatible
    assert [(group.pattern, group.reason) for group in plan.of(STUCK)] == [
        ("model.layers.2.mlp.up_proj.weight", "the mother has no such tensor")
    ]
    assert plan.cost is not None and plan.cost.seconds is None
    wide = rewritten(tiny_llama_pair[1], tmp_path / "wide", {"model.norm.weight": ("BF16", (48,))})
    stuck = plan_pair(Checkpoint(tiny_llama_pair[0]), wide)
    assert [group.reason for group in stuck.of(STUCK)] == ["the mother has it in another shape"]
    assert [group.reason for group in stuck.of(DROPPED)] == ["the father's has another shape"]


def test_one_parent_alone_has_a_plan(tiny_llama_pair: Trio) -> None:
    plan = plan_pair(Checkpoint(tiny_llama_pair[0]))
    assert plan.mother is None and plan.cost is None and plan.groups == ()
    assert plan.father.tensors == len(Checkpoint(tiny_llama_pair[0]).tensors)
    assert plan.to_json()["compatible"] is None


def test_matching_by_token_is_counted_and_named(tiny_llama_pair: Trio, tmp_path: Path) -> None:
    mother = shutil.copytree(tiny_llama_pair[1], tmp_path / "mother")
    write_tokenizer(mother, [word for word in WORDS if word not in "xyz"] + ["new"])
    plan = plan_pair(Checkpoint(tiny_llama_pair[0]), Checkpoint(mother), vocabulary="by-token")
    assert plan.compatible and plan.tokens is not None
    assert (plan.tokens.shared, plan.tokens.only_father, plan.tokens.only_mother) == (len(WORDS) + 2 - 3, 3, 1)
    assert {group.reason for group in plan.of(MERGED)} == {"", "rows matched by token"}
    assert "keep his rows" in plan_words.fate_words(plan)[-1]


def test_vocabularies_that_cannot_be_matched_fail_a_check_and_are_planned(
    tiny_llama_pair: Trio, tmp_path: Path
) -> None:
    mother = shutil.copytree(tiny_llama_pair[1], tmp_path / "mother")
    (mother / "tokenizer.json").unlink()
    plan = plan_pair(Checkpoint(tiny_llama_pair[0]), Checkpoint(mother), vocabulary="by-token")
    assert not plan.compatible and plan.tokens is None
    assert plan.total(MERGED)[0] == len(Checkpoint(mother).tensors)


def test_an_operator_that_needs_an_ancestor_is_refused_without_one(tiny_llama_pair: Trio) -> None:
    with pytest.raises(LabError, match="ties needs a common ancestor"):
        tiny_plan(tiny_llama_pair, operator="ties")
    plan = tiny_plan(tiny_llama_pair, operator="ties", ancestor=Checkpoint(tiny_llama_pair[2]))
    lerp = tiny_plan(tiny_llama_pair)
    assert plan.cost is not None and lerp.cost is not None
    assert plan.cost.read == lerp.cost.read * 3 // 2
    assert plan.cost.memory > lerp.cost.memory


def test_the_time_is_that_of_merged_weights_and_copied_bytes(qwen: tuple[Checkpoint, Checkpoint]) -> None:
    plan = timed(plan_pair(*qwen), SPEED)
    assert plan.cost is not None and plan.cost.seconds is not None
    assert plan.cost.seconds == pytest.approx(2e-9 * 34_660_610_688 + 0.5e-9 * plan.total(COPIED)[2])
    assert "an estimate: lerp measured at 2.0 ns a weight" in plan_words.time_estimate_words(plan.cost)


def test_the_calibration_measures_the_operator_it_names() -> None:
    made = calibrate("slerp", seconds=0.01)
    assert made.operator == "slerp" and made.merge_ns > 0 and made.copy_ns > 0 and made.runs >= 2
    again = calibrate("slerp", seconds=0.01)
    assert again.merge_ns <= made.merge_ns and again.runs > made.runs
    assert calibrated("slerp") == again and calibrated("dare") is None
    with pytest.raises(LabError, match="unknown operator"):
        calibrate("alchemy")


def test_a_plan_is_plain_json(qwen: tuple[Checkpoint, Checkpoint]) -> None:
    data = json.loads(json.dumps(timed(plan_pair(*qwen), SPEED).to_json()))
    assert set(data["fates"]) == set(FATES)
    assert data["father"]["layout"].startswith("10 x (3 x GatedDeltaNet -> MoE")
    assert data["father"]["vram"]["formats"][0]["gib"] == 65.39
    assert data["cost"]["calibration"]["merge_ns"] == 2.0


def test_a_disk_that_is_too_small_is_named(tiny_llama_pair: Trio) -> None:
    cost = tiny_plan(tiny_llama_pair).cost
    assert cost is not None and "not enough" not in plan_words.disk_words(cost)
    assert "not enough" in plan_words.disk_words(replace(cost, free=cost.disk - 1))


def test_a_few_dense_layers_before_the_mixtures_are_said_apart() -> None:
    assert fold([A] * 3 + [C] * 58) == (Stretch(1, (Run(3, A),)), Stretch(1, (Run(58, C),)))


def test_a_tail_that_breaks_the_unit_is_said_apart() -> None:
    unit = (Run(5, A), Run(1, C))
    assert fold(([A] * 5 + [C]) * 4 + [A] * 2) == (Stretch(4, unit), Stretch(1, (Run(2, A),)))


@given(st.lists(st.sampled_from([A, B, C]), max_size=40))
def test_a_folded_layout_unfolds_to_the_same_layers(kinds: list[LayerKind]) -> None:
    unfolded = []
    for stretch in fold(kinds):
        unfolded += [run.kind for run in stretch.runs for _ in range(run.count)] * stretch.times
    assert unfolded == kinds


@given(st.integers(2, 12), st.lists(st.sampled_from([A, B, C]), min_size=2, max_size=8))
def test_what_repeats_is_never_said_longer_than_its_unit(times: int, unit: list[LayerKind]) -> None:
    said = sum(len(stretch.runs) for stretch in fold(unit * times))
    assert said <= len(unit) + 1
