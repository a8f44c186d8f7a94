"""What runs together: contexts met once, the branches that follow them, prefixes shared by many contexts.

Takes token ids, gives batches of tensors and where in them log-probabilities are read. A prefix that many contexts
share runs once for all of them, a context once for all its options (unless it is so short that running it again is
cheaper than another forward), and options that begin one another are one branch. Contexts that branch have one length
in a batch, so no padding ever stands before a token that counts, and recurrent layers see what they would see alone.
Knows nothing about items, models or scores.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
from numpy.typing import NDArray

Tokens = tuple[int, ...]
FORWARD_COST = 256
"""What one more forward costs, in tokens: padding above it is cut into a batch of its own."""
SHORT = 32
"""Tokens a context may cost again, all its branches together, before it is run once and branched."""
KEPT_COST = 8
"""A token kept in a cache takes the memory of about one computed token in this many."""


@dataclass(frozen=True)
class Context:
    """One context, the branches that follow it, and what to read where.

    `reads`: (option number in the plan, branch or -1 for the context's last token, position, token predicted).
    """

    tokens: Tokens
    branches: tuple[Tokens, ...]
    reads: tuple[tuple[int, int, int, int], ...]

    @property
    def width(self) -> int:
        """The longest branch, in tokens."""
        return max(map(len, self.branches), default=0)


@dataclass(frozen=True)
class Reads:
    """Where log-probabilities are read: `positions` [P] of the flattened hidden states, then for each token to be
    scored its position's place in `positions`, its id, and the option it counts for."""

    positions: torch.Tensor
    place: torch.Tensor
    token: torch.Tensor
    option: NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Contexts without the `prefix` they share [C, T], of one length if they branch, otherwise padded on the right;
    branches [R, W] padded on the right, and the context each one follows."""

    prefix: Tokens
    context_ids: torch.Tensor
    context_reads: Reads
    branch_ids: torch.Tensor
    branch_parent: torch.Tensor
    branch_reads: Reads


def share_contexts(encoded: Sequence[Sequence[tuple[Tokens, Tokens]]]) -> tuple[list[Context], list[tuple[int, ...]]]:
    """Contexts met once each, and for every item the numbers of its contexts.

    `encoded`: per item and option (context, option), options numbered through.
    """
    numbers: dict[Tokens, int] = {}
    contexts_of: list[tuple[int, ...]] = []
    members: list[list[tuple[int, Tokens]]] = []
    option_number = 0
    for options in encoded:
        mine = []
        for context, option in options:
            number = numbers.setdefault(context, len(numbers))
            if number == len(members):
                members.append([])
            members[number].append((option_number, option))
            mine.append(number)
            option_number += 1
        contexts_of.append(tuple(dict.fromkeys(mine)))
    return [branch(context, members[number]) for context, number in numbers.items()], contexts_of


def branch(context: Tokens, options: Sequence[tuple[int, Tokens]]) -> Context:
    """The fewest branches that cover the (number, tokens) options: equal inputs once, none that begins another."""
    inputs = sorted({option[:-1] for _, option in options if len(option) > 1})
    branches = [
        tokens
        for tokens, following in zip_longest(inputs, inputs[1:], fillvalue=())
        if following[: len(tokens)] != tokens
    ]
    reads = []
    for number, option in options:
        reads.append((number, -1, len(context) - 1, option[0]))
        if len(option) > 1:
            holder = next(b for b, tokens in enumerate(branches) if tokens[: len(option) - 1] == option[:-1])
            reads.extend((number, holder, place, token) for place, token in enumerate(option[1:]))
    return Context(context, tuple(branches), tuple(reads))


def plan_batches(
    contexts: Sequence[Context], batch_tokens: int, batch_rows: int | None = None, *, whole: bool = False
) -> list[Batch]:
    """Every context in one batch, longest first, so that a batch that does not fit in memory fails at once.

    A batch computes at most `batch_tokens` tokens, of at most `batch_rows` contexts where that is given; a single
    context with more tokens is a batch of its own. With `whole` nothing is shared: every branch is a row of its own
    with all of its context, for a model that has no cache.
    """
    batches: list[Batch] = []
    for prefix, members in [((), list(contexts))] if whole else _families(contexts):
        rows = [row for context in members for row in _written_out(context, len(prefix), whole)]
        for some in ([row for row in rows if row.branches], [row for row in rows if not row.branches]):
            batches.extend(_cut_to_size(prefix, some, batch_tokens, batch_rows))
    return batches


def _written_out(context: Context, prefix: int, always: bool) -> list[Context]:
    """A short context once for every branch, as rows that do not branch; a longer one as it is, unless `always`."""
    repeated = (len(context.tokens) - prefix) * (len(context.branches) - 1)
    if not context.branches or (repeated > SHORT and not always):
        return [context]
    reads: list[list[tuple[int, int, int, int]]] = [[] for _ in context.branches]
    for option, holder, position, token in context.reads:
        offset = 0 if holder < 0 else len(context.tokens)
        reads[max(holder, 0)].append((option, -1, offset + position, token))
    return [
        Context(context.tokens + tokens, (), tuple(mine)) for tokens, mine in zip(context.branches, reads, strict=True)
    ]


def _families(contexts: Sequence[Context]) -> list[tuple[Tokens, list[Context]]]:
    """Contexts grouped by the prefix they share, where sharing saves more than its own forwards cost."""
    families: list[tuple[Tokens, list[Context]]] = []
    alone: list[Context] = []
    group: list[Context] = []
    common: Tokens = ()

    def close() -> None:
        if (len(group) - 1) * len(common) > 4 * FORWARD_COST:
            families.append((common, list(group)))
        else:
            alone.extend(group)
        group.clear()

    for context in sorted(contexts, key=lambda c: c.tokens):
        room = context.tokens[:-1]
        shared = _common(common, room) if group else 0
        if group and 2 * shared < len(common):
            close()
        common = common[:shared] if group else room
        group.append(context)
    close()
    families.sort(key=lambda family: -max(len(context.tokens) for context in family[1]))
    return [*families, *([((), alone)] if alone else [])]


def _common(one: Tokens, other: Tokens) -> int:
    length = min(len(one), len(other))
    return next((place for place in range(length) if one[place] != other[place]), length)


def _cut_to_size(
    prefix: Tokens, contexts: Sequence[Context], batch_tokens: int, batch_rows: int | None
) -> Iterator[Batch]:
    group: list[Context] = []
    padded = cost = 0
    for context in sorted(contexts, key=lambda c: (-len(c.tokens), -c.width, c.tokens)):
        added = len(context.tokens) - len(prefix) + len(prefix) // KEPT_COST
        if group:
            width = group[0].width
            shorter = len(group[0].tokens) - len(context.tokens)
            padding = shorter + sum(width - len(tokens) for tokens in context.branches)
            if (
                (shorter and width)
                or cost + added + width * len(context.branches) > batch_tokens
                or padded + padding > FORWARD_COST
                or len(group) == batch_rows
            ):
                yield _collate(prefix, group)
                group, padded, cost = [], 0, 0
            else:
                padded += padding
        group.append(context)
        added += len(group[0].tokens) - len(context.tokens)
        cost += added + group[0].width * len(context.branches)
    if group:
        yield _collate(prefix, group)


def _collate(prefix: Tokens, group: Sequence[Context]) -> Batch:
    width = max(context.width for context in group)
    length = len(group[0].tokens) - len(prefix)
    branch_ids: list[Tokens] = []
    parents: list[int] = []
    context_reads: list[tuple[int, int, int]] = []
    branch_reads: list[tuple[int, int, int]] = []
    for place, context in enumerate(group):
        first = len(branch_ids)
        for option, holder, position, token in context.reads:
            if holder < 0:
                context_reads.append((place * length + position - len(prefix), token, option))
            else:
                branch_reads.append(((first + holder) * width + position, token, option))
        for tokens in context.branches:
            branch_ids.append(_padded(tokens, width))
            parents.append(place)
    return Batch(
        prefix=prefix,
        context_ids=torch.tensor([_padded(context.tokens[len(prefix) :], length) for context in group]),
        context_reads=_reads(context_reads),
        branch_ids=torch.tensor(branch_ids, dtype=torch.long).reshape(len(branch_ids), width),
        branch_parent=torch.tensor(parents, dtype=torch.long),
        branch_reads=_reads(branch_reads),
    )


def _padded(tokens: Tokens, width: int) -> Tokens:
    return tokens + (tokens[-1],) * (width - len(tokens))


def _reads(wanted: Sequence[tuple[int, int, int]]) -> Reads:
    table = np.array(wanted, dtype=np.int64).reshape(-1, 3)
    positions, place = np.unique(table[:, 0], return_inverse=True)
    return Reads(torch.from_numpy(positions), torch.from_numpy(place), torch.from_numpy(table[:, 1]), table[:, 2])
