"""Score a mixed set of items: those with choices by log-likelihood, the others by what the model writes.

Takes items and a resident model, gives one score in the items' order. Knows nothing else.
"""

from collections.abc import Sequence

from darwin_lab.engine.resident import Resident
from darwin_lab.progress import Tick, part, silent
from darwin_lab.scoring.asking import score_generation
from darwin_lab.scoring.choice import ChoicePlan, score_choices
from darwin_lab.scoring.debias import score_letters
from darwin_lab.scoring.items import Item, by_choice
from darwin_lab.scoring.kept import Kept
from darwin_lab.scoring.letters import rotations
from darwin_lab.scoring.score import Score, join_scores


def score_items(
    resident: Resident,
    items: Sequence[Item],
    max_new_tokens: int = 64,
    tick: Tick = silent,
    *,
    cut: bool = False,
    letters: bool = False,
    seed: int = 0,
    keep: Kept | None = None,
) -> Score:
    """One score of all items; see `score_choices`, `score_generation` and, with `letters` and its `seed`,
    `score_letters` for the rules and errors. What is made goes to `keep` and is not made again."""
    choice = [item for item in items if by_choice(item)]
    written = [item for item in items if not by_choice(item)]
    share = len(choice) / max(1, len(items))
    parts = []
    if choice:
        share_tick = part(tick, 0.0, share)
        parts.append(
            score_letters(resident, choice, seed=seed, cut=cut, tick=share_tick, keep=keep)
            if letters
            else score_choices(resident, choice, cut=cut, tick=share_tick, keep=keep)
        )
    if written:
        parts.append(score_generation(resident, written, max_new_tokens, tick=part(tick, share, 1.0), keep=keep))
    return join_scores(parts, [item.id for item in items])


def cut_prompts(
    resident: Resident, items: Sequence[Item], *, letters: bool = False, seed: int = 0
) -> tuple[tuple[str, ...], int]:
    """Ids of the prompts that `score_items` with `cut` shortens to the model's context, and how many prompts there are:
    one an item with choices, with `letters` one a showing (its id ends in #0, #1, ...)."""
    asked = [item for item in items if by_choice(item)]
    if letters:
        asked = [showing for item in asked for _, showing in rotations(item, seed)]
    if not asked:
        return (), 0
    return ChoicePlan(asked, resident.tokenizer, cut_to=resident.context_length).cut_ids, len(asked)
