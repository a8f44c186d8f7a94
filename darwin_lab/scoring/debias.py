"""Choices scored by their letters, in every rotation of a drawn order, so that no letter is favoured.

Takes items and a resident model, gives a score. Knows nothing about candidates or storage.
"""

from collections.abc import Sequence
from dataclasses import replace
from string import ascii_uppercase

import numpy as np

from darwin_lab.engine.resident import Resident
from darwin_lab.progress import Tick, silent
from darwin_lab.scoring.choice import ChoicePlan, to_score
from darwin_lab.scoring.items import Item
from darwin_lab.scoring.kept import Kept
from darwin_lab.scoring.letters import debiased, rotations
from darwin_lab.scoring.score import Score


def score_letters(
    resident: Resident,
    items: Sequence[Item],
    *,
    seed: int = 0,
    cut: bool = False,
    tick: Tick = silent,
    keep: Kept | None = None,
) -> Score:
    """Score items by the log-probability of their letters, averaged over as many showings as there are choices.

    Every choice stands once under every letter (`letters.rotations`); `loglik` is the mean log-probability of each
    choice among the letters. acc_norm equals acc: letters are of one length. The rows in `keep` are those of
    single showings. Raises LabError as `score_choices` does.
    """
    shown = [rotations(item, seed) for item in items]
    plan = ChoicePlan(
        [showing for entry in shown for _, showing in entry],
        resident.tokenizer,
        cut_to=resident.context_length if cut else None,
    )
    found = iter(plan.score(resident, tick=tick, keep=keep).loglik)
    logliks = [debiased([order for order, _ in entry], [next(found) for _ in entry]) for entry in shown]
    plain = [replace(item, choices=tuple(ascii_uppercase[: len(item.choices or ())])) for item in items]
    return to_score(plain, [np.asarray(loglik) for loglik in logliks])
