from random import Random

import pytest

from darwin_lab.errors import LabError
from darwin_lab.scoring.choice import ChoicePlan, score_choices
from darwin_lab.scoring.items import Item
from darwin_lab.scoring.prompt import context_of
from darwin_lab.scoring.shots import with_shots
from tests.scoring.models import item, one_at_a_time, resident

POOL = [item(100 + n, f"what is {n}", [f"a {n}", f"b {n}"], n % 2) for n in range(8)]
ASKED = [item(n, f"and {n}", ["five", "far too many"]) for n in range(4)]


def test_shots_are_drawn_as_lm_eval_draws_them_one_generator_through_the_items() -> None:
    shot = with_shots(ASKED, POOL, 3, seed=9)
    rng = Random(9)
    for asked in shot:
        assert asked.meta["shots"] == [other.id for other in rng.sample(POOL, 3)]


def test_a_shot_is_its_prompt_and_its_right_answer() -> None:
    (asked,) = with_shots(ASKED[:1], POOL[3:4], 1)
    assert context_of(asked) == "Question: what is 3\nAnswer: b 3\n\nQuestion: and 0\nAnswer:"
    worked = Item("w", "t", "how many", None, "7", {"solution": "3 + 4 = 7"})
    assert context_of(with_shots(ASKED[:1], [worked], 1)[0]).startswith("Question: how many\nAnswer: 3 + 4 = 7\n\n")


def test_an_item_never_follows_itself_nor_its_own_question() -> None:
    for seed in range(20):
        for asked in with_shots(POOL, POOL, 5, seed=seed):
            assert asked.id not in asked.meta["shots"]
            assert len(set(asked.meta["shots"])) == 5
    copied = item(50, ASKED[0].question, ["five", "six"], 1)
    for seed in range(20):
        assert "i50" not in with_shots(ASKED[:1], [*POOL[:3], copied], 3, seed=seed)[0].meta["shots"]


def test_shots_come_from_the_items_own_task_where_it_has_some() -> None:
    other = [item(200 + n, f"other {n}", ["x", "y"], task="u") for n in range(8)]
    (asked,) = with_shots(ASKED[:1], [*other, *POOL], 5)
    assert all(name in {shot.id for shot in POOL} for name in asked.meta["shots"])


def test_the_same_seed_gives_the_same_shots_and_another_seed_others() -> None:
    assert with_shots(ASKED, POOL, 3) == with_shots(ASKED, POOL, 3)
    assert with_shots(ASKED, POOL, 3, seed=1) != with_shots(ASKED, POOL, 3, seed=2)
    assert with_shots(ASKED, POOL, 0) == ASKED


def test_same_shots_are_the_same_for_every_item() -> None:
    shot = with_shots(ASKED, POOL, 3, same=True)
    assert len({asked.meta["prefix"] for asked in shot}) == 1


def test_too_few_items_to_draw_from_are_refused() -> None:
    with pytest.raises(LabError, match="8 items to draw 9 shots from"):
        with_shots(ASKED, POOL, 9)
    with pytest.raises(LabError, match="8 items to draw 8 shots from"):
        with_shots(POOL, POOL, 8)
    with pytest.raises(LabError, match="0 or more"):
        with_shots(ASKED, POOL, -1)


@pytest.mark.parametrize("kind", ["llama", "moe", "sliding"])
def test_shots_shared_by_all_items_run_once_and_every_option_keeps_its_log_likelihood(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = resident(kind)
    asked = with_shots(
        [item(n, f"and {n}" + " or so" * (n % 3), ["five", "fifteen of"]) for n in range(24)], POOL, 7, same=True
    )
    tokens = 0
    forward = model.backbone.forward

    def watched(*args: object, **kwargs: object) -> object:
        nonlocal tokens
        tokens += kwargs["input_ids"].numel()
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.backbone, "forward", watched)
    score = score_choices(model, asked)
    monkeypatch.undo()
    contexts = [context.tokens for context in ChoicePlan(asked, model.tokenizer)._contexts]
    assert 2 * tokens < sum(map(len, contexts))
    for row, entry in enumerate(asked):
        assert score.loglik[row] == pytest.approx(one_at_a_time(model, entry), rel=1e-4, abs=1e-4)
