"""Log-likelihoods added up batch by batch, in the batches' order, with what was kept of an earlier run.

Takes items, their batches and what was read in each, gives the log-likelihood of every option. Knows no models.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from darwin_lab.scoring.batches import Batch
from darwin_lab.scoring.items import Item
from darwin_lab.scoring.kept import Entry, Kept
from darwin_lab.scoring.score import Score

Found = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Option numbers, and what a batch adds to the log-likelihood (nats) of each; an option may appear more than once."""
Finish = Callable[[Item, NDArray[np.float64]], Score]
"""The score of one item whose options have these log-likelihoods."""


class Tally:
    """`loglik()` float64[options] once every batch was added. `ends` [items + 1] are the items' first options.

    An option's sum is the same number whether its batches were run now or kept: they are added in their order. Rows
    are kept of the items at `places`, when their last batch is done.
    """

    def __init__(
        self,
        items: Sequence[Item],
        places: Sequence[int],
        ends: NDArray[np.int64],
        batches: Sequence[Batch],
        finish: Finish,
        keep: Kept | None,
    ) -> None:
        self._items, self._ends, self._finish, self._keep = items, ends, finish, keep
        self._touched = [np.unique(np.concatenate([b.context_reads.option, b.branch_reads.option])) for b in batches]
        self._found: list[Found | None] = [None] * len(batches)
        self._names: list[str] = []
        self._batches_of: dict[int, list[int]] = {place: [] for place in places}
        if keep is None:
            return
        self._names = [_name(batch) for batch in batches]
        for number, (name, touched) in enumerate(zip(self._names, self._touched, strict=True)):
            for place in self._wanted(touched):
                self._batches_of[place].append(number)
            value = keep.get(name)
            if value is not None:
                self._found[number] = np.array(value[0], dtype=np.int64), np.array(value[1], dtype=np.float64)

    @property
    def todo(self) -> list[int]:
        """Numbers of the batches that nobody has run."""
        return [number for number, found in enumerate(self._found) if found is None]

    def add(self, number: int, found: Found) -> None:
        """What batch `number` gave; kept at once, with the items that it completes."""
        touched = self._touched[number]
        sums = np.zeros(len(touched))
        np.add.at(sums, np.searchsorted(touched, found[0]), found[1])
        self._found[number] = touched, sums
        if self._keep is not None:
            rows = tuple(row for place in self._wanted(touched) for row in self._rows(place))
            self._keep.put([Entry(self._names[number], [touched.tolist(), sums.tolist()], rows)])

    def loglik(self) -> NDArray[np.float64]:
        """float64[options]; 0 for an option that no batch reads."""
        return self._sum(range(len(self._found)))

    def _rows(self, place: int) -> list[dict[str, Any]]:
        """The item's row, once all of its batches are done."""
        batches = self._batches_of[place]
        if any(self._found[number] is None for number in batches):
            return []
        return self._finish(self._items[place], self._sum(batches)[self._ends[place] : self._ends[place + 1]]).to_rows()

    def _sum(self, batches: Iterable[int]) -> NDArray[np.float64]:
        whole = np.zeros(int(self._ends[-1]))
        for number in batches:
            found = self._found[number]
            if found is not None:
                whole[found[0]] += found[1]
        return whole

    def _wanted(self, options: NDArray[np.int64]) -> list[int]:
        """The items wanted that these options belong to."""
        places = np.unique(np.searchsorted(self._ends, options, side="right") - 1)
        return [place for place in places.tolist() if place in self._batches_of]


def _name(batch: Batch) -> str:
    """A digest of all that a batch computes and reads."""
    digest = hashlib.blake2b(repr(batch.prefix).encode(), digest_size=16)
    for tensor in (batch.context_ids, batch.branch_ids, batch.branch_parent):
        digest.update(repr(tuple(tensor.shape)).encode() + tensor.numpy().tobytes())
    for reads in (batch.context_reads, batch.branch_reads):
        for values in (reads.positions.numpy(), reads.place.numpy(), reads.token.numpy(), reads.option):
            digest.update(len(values).to_bytes(8, "big") + values.tobytes())
    return digest.hexdigest()
