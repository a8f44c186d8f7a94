"""Score a mixed set of items: those with choices by log-likelihood, the others by what the model writes.

Takes items and a resident model, gives one score in the items' order. Knows nothing else.
"""

from collections.abc import Sequence

from darwin_lab.engine.resident import Resident
from darwin_lab.progress import Tick, part, silent
from darwin_lab.scoring.choice import score_choices
from darwin_lab.scoring.generation import score_generation
from darwin_lab.scoring.items import Item
from darwin_lab.scoring.score import Score, join_scores


def score_items(resident: Resident, items: Sequence[Item], max_new_tokens: int = 64, tick: Tick = silent) -> Score:
    """One score of all items; see `score_choices` and `score_generation` for the rules and errors."""
    choice = [item for item in items if item.choices is not None]
    written = [item for item in items if item.choices is None]
    share = len(choice) / max(1, len(items))
    parts = []
    if choice:
        parts.append(score_choices(resident, choice, tick=part(tick, 0.0, share)))
    if written:
        parts.append(score_generation(resident, written, max_new_tokens, tick=part(tick, share, 1.0)))
    return join_scores(parts, [item.id for item in items])
