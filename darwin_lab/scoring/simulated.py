"""A model whose ability is known, to see what a protocol or an interval makes of it.

Takes abilities, gives an `Ask` as a real model would. Knows nothing about tokens.
"""

from collections.abc import Sequence

from darwin_lab.progress import Tick
from darwin_lab.scoring.draws import uniform
from darwin_lab.scoring.protocols import Ask, Call, Reply


def simulated(
    golds: Sequence[int], ability: Sequence[float], choices: int = 4, seed: int = 0, silent_share: float = 0.0
) -> Ask:
    """Each call on item i is right with probability ability[i], otherwise one of the wrong choices, all alike.

    Calls are independent given the item; `silent_share` of them give no answer. No margin is known, so the
    confidence gate judges by agreement. Replies depend on (seed, call) alone.
    """

    def ask(calls: Sequence[Call], tick: Tick) -> list[Reply]:
        tick(1.0, "answered")
        return [_reply(call, golds[call.item], ability[call.item]) for call in calls]

    def _reply(call: Call, gold: int, p: float) -> Reply:
        key = (seed, call.item, call.sample, call.temperature, call.disputed)
        if silent_share and uniform("silent", *key) < silent_share:
            return Reply(None)
        if uniform("right", *key) < p:
            return Reply(gold)
        other = int(uniform("which", *key) * (choices - 1))
        return Reply(other + (other >= gold))

    return ask
