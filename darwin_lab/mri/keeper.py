"""A scan under way, kept on disk: finished probes, and of a streamed scan the front between two layers.

Takes a folder and what the scan depends on (`key`); an equal scan takes up there what a stopped one left. Nothing half
written is ever taken up. Must not know: what is measured.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from darwin_lab.engine.sweep import Front
from darwin_lab.errors import LabError
from darwin_lab.mri.gathered import Arrays, Gathered
from darwin_lab.mri.record import Scan
from darwin_lab.mri.saved import read_folder, write_folder

EVERY = 30.0
"""Seconds between two keepings of a front, at least."""
SHARE = 10.0
"""Keeping takes at most about one part in this many of the time."""

VERSION = 3
"""Of what is kept of a sweep; another version's is not taken up."""
Begun = tuple[int, Callable[[Front], None] | None]


def kept_key(folder: Path) -> dict[str, Any] | None:
    """What the sweep that was kept in `folder` depends on; None when there is none."""
    try:
        key: dict[str, Any] = dict(json.loads((folder / "sweep" / "sweep.json").read_text(encoding="utf-8"))["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return key


class Keeper:
    """`folder` is this scan's own. `key` is plain data: weights, probes, settings, and "halves" if those are read."""

    def __init__(self, folder: Path, key: dict[str, Any], every: float | None = None) -> None:
        self.folder, self.key, self.every = folder, key, EVERY if every is None else every
        self._due = time.monotonic() + self.every

    def scans(self) -> Iterator[Scan]:
        """The finished probes of an earlier, equal scan."""
        try:
            scan = Scan.load(self.folder / "scan")
        except LabError:
            return
        found = {"fingerprint": scan.fingerprint, "probes": scan.probes_hash, "settings": scan.settings}
        if found | ({"halves": True} if scan.has_halves else {}) == self.key:
            yield scan

    def keep_scan(self, scan: Scan) -> None:
        """Keeps the probes that are done."""
        scan.save(self.folder / "scan")

    def offer(self, group: int, front: Front, gathered: Mapping[str, Gathered]) -> None:
        """Keeps the front and everything gathered, if that is due."""
        started = time.monotonic()
        if started < self._due:
            return
        arrays: Arrays = {f"{probe}//{name}": v for probe, one in gathered.items() for name, v in one.arrays().items()}
        keys = []
        for number, (replay, states) in enumerate(zip(front.replays, front.states, strict=True)):
            arrays[f"//states/{number}"] = _plain(states[: front.filled])
            keys.append(list(replay.shared))
            for place, tensors in enumerate(replay.shared.values()):
                for which, tensor in enumerate(tensors):
                    arrays[f"//shared/{number}/{place}/{which}"] = _plain(tensor)
        words = {
            "version": VERSION,
            "key": self.key,
            "group": group,
            "layer": front.layer,
            "lacking": [list(place) for place in front.lacking],
            "shared": keys,
        }
        try:
            write_folder(self.folder / "sweep", "sweep", words, arrays)
        except LabError:  # no room to keep a scan is no reason to stop it
            self._due = float("inf")
            return
        now = time.monotonic()
        self._due = now + max(self.every, SHARE * (now - started))

    def take_up(self, gathered: Mapping[str, Gathered]) -> Begun:
        """(group of batches to go on with, what puts its front back); fills `gathered`. (0, None) to begin anew."""
        try:
            words, arrays = read_folder(self.folder / "sweep", "sweep")
        except LabError:
            return 0, None
        if (words.get("version"), words.get("key")) != (VERSION, self.key):
            return 0, None
        for probe, one in gathered.items():
            one.put_back({n.removeprefix(f"{probe}//"): v for n, v in arrays.items() if n.startswith(f"{probe}//")})

        def put_back(front: Front) -> None:
            front.layer = words["layer"]
            front.lacking = {(layer, half) for layer, half in words["lacking"]}
            for number, (replay, states) in enumerate(zip(front.replays, front.states, strict=True)):
                states[: front.filled] = _tensor(arrays[f"//states/{number}"], states)
                for place, key in enumerate(words["shared"][number]):
                    names = sorted(name for name in arrays if name.startswith(f"//shared/{number}/{place}/"))
                    replay.shared[key] = tuple(_tensor(arrays[name], states) for name in names)

        return words["group"], put_back

    def remove(self) -> None:
        """The scan is done: nothing of it stays."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _plain(tensor: torch.Tensor) -> Any:
    """As numpy; bfloat16, which numpy does not have, as its bits."""
    tensor = tensor.detach().cpu().contiguous()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _tensor(values: Any, like: torch.Tensor) -> torch.Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return (tensor.view(like.dtype) if tensor.dtype == torch.int16 else tensor).to(like.device)
