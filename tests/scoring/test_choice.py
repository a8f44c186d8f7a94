from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import normalizers
from transformers import AutoTokenizer

from darwin_lab.errors import Cancelled, LabError
from darwin_lab.scoring.batches import branch
from darwin_lab.scoring.choice import ChoicePlan, score_choices
from darwin_lab.scoring.items import Item
from darwin_lab.scoring.shots import with_shots
from tests.scoring.models import ITEMS, family_resident, item, one_at_a_time, resident, softmax


@pytest.mark.parametrize("kind", ["llama", "moe", "sliding"])
@pytest.mark.parametrize("begin", [False, True])
def test_every_option_gets_the_log_likelihood_it_has_alone(kind: str, begin: bool) -> None:
    model = resident(kind, begin)
    score = score_choices(model, ITEMS)
    for row, entry in enumerate(ITEMS):
        assert score.loglik[row] == pytest.approx(one_at_a_time(model, entry), rel=1e-4, abs=1e-4)


def test_acc_is_the_likeliest_choice_and_acc_norm_the_likeliest_per_character() -> None:
    model = resident()
    score = score_choices(model, ITEMS)
    for row, entry in enumerate(ITEMS):
        loglik = np.array(one_at_a_time(model, entry))
        per_character = loglik / [len(choice) for choice in entry.choices]
        assert score.predictions[row] == np.argmax(loglik)
        assert score.acc[row] == (np.argmax(loglik) == entry.answer)
        assert score.acc_norm[row] == (np.argmax(per_character) == entry.answer)


def test_p_gold_is_the_softmax_of_what_the_primary_metric_compares() -> None:
    score = score_choices(resident(), ITEMS)
    for row, entry in enumerate(ITEMS):
        loglik = np.array(score.loglik[row])
        length = np.array([len(choice) for choice in entry.choices])
        compared = loglik / length * length.mean() if entry.meta.get("primary") == "acc_norm" else loglik
        assert score.p_gold[row] == pytest.approx(softmax(compared)[entry.answer])
    assert score.p_gold.dtype == np.float64


@pytest.mark.parametrize("kind", ["llama", "moe"])
def test_an_item_scores_the_same_in_any_subset_and_with_any_batch_size(kind: str) -> None:
    model = resident(kind)
    whole = score_choices(model, ITEMS)
    plan = ChoicePlan(ITEMS, model.tokenizer)
    small = score_choices(model, ITEMS, batch_tokens=1)
    for row, entry in enumerate(ITEMS):
        alone = plan.score(model, [entry.id])
        assert alone.loglik[0] == pytest.approx(whole.loglik[row], rel=1e-4, abs=1e-4)
        assert small.loglik[row] == pytest.approx(whole.loglik[row], rel=1e-4, abs=1e-4)


def test_a_subset_comes_back_in_the_order_asked_for() -> None:
    model = resident()
    plan = ChoicePlan(ITEMS, model.tokenizer)
    assert plan.score(model, ["i3", "i0", "i7"]).ids == ("i3", "i0", "i7")
    assert plan.score(model).ids == tuple(entry.id for entry in ITEMS)


def test_scoring_twice_gives_the_very_same_numbers() -> None:
    model = resident("moe")
    plan = ChoicePlan(ITEMS, model.tokenizer)
    assert plan.score(model).loglik == plan.score(model).loglik


def test_what_is_equal_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = resident()
    seen: list[tuple[int, ...]] = []
    forward = model.backbone.forward

    def watched(*args: object, **kwargs: object) -> object:
        seen.append(tuple(kwargs["input_ids"].shape))
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.backbone, "forward", watched)
    same = [item(n, "what is one", ["a", "b", "c"], task=str(n)) for n in range(5)]
    score_choices(model, same)
    (tokens,) = {len(context.tokens) for context in ChoicePlan(same, model.tokenizer)._contexts}
    assert seen == [(1, tokens)], "five equal items with choices of one token are one row"


def test_positions_that_score_nothing_never_meet_the_output_head(monkeypatch: pytest.MonkeyPatch) -> None:
    model = resident()
    sizes: list[int] = []
    logits = model.logits
    monkeypatch.setattr(model, "logits", lambda hidden: sizes.append(len(hidden)) or logits(hidden))
    plan = ChoicePlan(ITEMS[:1], model.tokenizer)
    plan.score(model)
    scored = sum(len(context.reads) for context in plan._contexts)
    assert sum(sizes) <= scored


def test_a_large_vocabulary_is_read_in_blocks_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    model = resident()
    whole = score_choices(model, ITEMS).loglik
    monkeypatch.setattr("darwin_lab.scoring.choice.LOGIT_ELEMENTS", 700)
    for one, other in zip(score_choices(model, ITEMS).loglik, whole, strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_choices_that_begin_one_another_share_a_branch() -> None:
    context = branch((1, 2), [(0, (5,)), (1, (5, 6)), (2, (5, 6, 7)), (3, (8, 9)), (4, (8, 4))])
    assert context.branches == ((5, 6), (8,))
    assert sorted(context.reads) == [
        (0, -1, 1, 5), (1, -1, 1, 5), (1, 0, 0, 6), (2, -1, 1, 5), (2, 0, 0, 6), (2, 0, 1, 7),
        (3, -1, 1, 8), (3, 1, 0, 9), (4, -1, 1, 8), (4, 1, 0, 4),
    ]  # fmt: skip


def test_an_item_longer_than_the_models_context_is_named() -> None:
    model = resident()
    long = item(9, "many " * 600, ["a", "b"])
    with pytest.raises(LabError, match=r"'i9' takes \d+ tokens, but the model reads 512"):
        score_choices(model, [*ITEMS, long])


def test_an_item_without_choices_and_an_unknown_id_are_named() -> None:
    model = resident()
    with pytest.raises(LabError, match="'w' has no choices"):
        score_choices(model, [Item("w", "t", "q", None, "text")])
    with pytest.raises(LabError, match="'nobody' is not among the 8 items"):
        ChoicePlan(ITEMS, model.tokenizer).score(model, ["nobody"])


def test_a_choice_that_melts_into_its_context_is_named() -> None:
    melting = item(5, "of cour", ["se", "ten"], style="continuation", delimiter="")
    with pytest.raises(LabError, match="'i5': choice 0 adds no token"):
        ChoicePlan([melting], resident().tokenizer)


def test_a_model_that_gives_no_number_is_wrong_everywhere() -> None:
    model = resident()
    with torch.no_grad():
        next(iter(model.model.parameters())).fill_(float("nan"))
    score = score_choices(model, ITEMS)
    assert not score.acc.any()
    assert not score.acc_norm.any()
    assert score.p_gold.tolist() == [0.0] * len(ITEMS)


def test_a_tick_at_every_batch_can_stop_the_work_and_the_plan_stays_usable() -> None:
    model = resident()
    plan = ChoicePlan(ITEMS, model.tokenizer, batch_tokens=1)
    fractions: list[float] = []

    def stop(fraction: float, words: str) -> None:
        fractions.append(fraction)
        if len(fractions) == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        plan.score(model, tick=stop)
    assert fractions == sorted(fractions)
    assert plan.score(model).n == len(ITEMS)


def test_a_prompt_cut_to_the_context_keeps_its_end_and_every_choice_whole() -> None:
    model = resident()
    long = [item(9, "many " * 600 + "two and two", ["five", "fifteen of course"]), ITEMS[0]]
    plan = ChoicePlan(long, model.tokenizer, cut_to=512)
    assert plan.cut_ids == ("i9",)
    score = plan.score(model)
    context = model.tokenizer.encode(f"Question: {long[0].question}\nAnswer:")
    for place, choice in enumerate(long[0].choices):
        follow = model.tokenizer.encode(f"Question: {long[0].question}\nAnswer: {choice}")[len(context) :]
        ids = torch.tensor([(context + follow)[-513:]])
        steps = torch.log_softmax(model.model(ids[:, :-1]).logits[0, -len(follow) :], dim=-1)
        assert score.loglik[0][place] == pytest.approx(float(steps[range(len(follow)), follow].sum()), rel=1e-4)
    assert score.loglik[1] == pytest.approx(score_choices(model, ITEMS[:1]).loglik[0], rel=1e-5)


def test_a_choice_longer_than_the_context_cannot_be_cut() -> None:
    with pytest.raises(LabError, match="'i9' has a choice of"):
        ChoicePlan([item(9, "q", ["many " * 600, "b"])], resident().tokenizer, cut_to=512)


@pytest.mark.parametrize("kind", ["llama", "moe"])
def test_a_bound_on_rows_bounds_every_forward_and_changes_no_number(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = resident(kind)
    long = [
        item(20 + n, f"{n} is a longer question about the sum", ["five", "far too", "x y z", "z"]) for n in range(5)
    ]
    whole = score_choices(model, [*ITEMS, *long]).loglik
    rows: list[int] = []
    forward = model.backbone.forward

    def watched(*args: object, **kwargs: object) -> object:
        rows.append(len(kwargs["input_ids"]))
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.backbone, "forward", watched)
    bounded = score_choices(model, [*ITEMS, *long], batch_rows=3).loglik
    assert max(rows) == 3
    for one, other in zip(bounded, whole, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-4)


def test_characters_the_tokenizer_lacks_are_named_with_their_item(tiny_llama_pair: tuple[Path, Path, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_pair[0])
    with pytest.raises(LabError, match="'i1': the model's tokenizer has no token for '물이'"):
        ChoicePlan([item(0, "q", ["a", "b"]), item(1, "q", ["물이물", "b"])], tokenizer)


def test_choices_that_are_the_same_tokens_are_named() -> None:
    tokenizer = resident().tokenizer
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(LabError, match="'i0': choices 0 and 1 are the same tokens"):
        ChoicePlan([item(0, "q", ["True", "true"])], tokenizer)


@pytest.mark.parametrize("kind", ["qwen3_5_moe", "gemma3", "gemma4_e", "deepseek_v3", "gpt_oss"])
def test_the_cache_of_every_kind_of_layer_is_branched_exactly(kind: str, tmp_path: Path) -> None:
    model = family_resident(kind, tmp_path)
    asked = [item(n, f"{n}+{n}=? and so on {n}", [f"{n}", f"{2 * n} or a", "b c d"]) for n in range(6)]
    shots = [item(50 + n, f"a longer question {n} of some letters", [f"yes {n}", "no"]) for n in range(8)]
    few = with_shots(asked, shots, 7, same=True)
    for entry, loglik in zip(
        [*asked, *few], [*score_choices(model, asked).loglik, *score_choices(model, few).loglik], strict=True
    ):
        assert loglik == pytest.approx(one_at_a_time(model, entry), rel=1e-3, abs=1e-3)
