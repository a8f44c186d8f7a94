"""The contrast of two parents that are not held whole: one layer of each in memory, the same numbers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine import sweep
from darwin_lab.engine.resident import Resident
from darwin_lab.engine.streamed import Streamed
from darwin_lab.errors import LabError
from darwin_lab.mri import contrast as contrasting
from darwin_lab.mri.contrast import Contrast, contrast
from darwin_lab.mri.probes import ProbeSet
from tests.families import KINDS

Trio = tuple[Path, Path, Path]
Pairs = Callable[[str, str], Trio]
PROBES = ProbeSet(
    {
        "MATH": ("1+1=2, 2+2=4", "question: 3+4? answer: 7.", "10+5=15"),
        "NEUTRAL": ("the cat sat on the mat", "it rained all day and we stayed in", "tea"),
    }
)


def weights_in_memory(model: Resident) -> int:
    """Decoder layers with any weight in memory."""
    return sum(any(not p.is_meta for p in layer.parameters()) for layer in model.decoder_layers)


@pytest.mark.parametrize("kind", KINDS)
def test_two_streamed_parents_swap_as_two_held_ones_reading_each_weight_once(
    kind: str, family_pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    father, mother = (open_checkpoint(folder) for folder in family_pairs(kind, "hub")[:2])
    held = contrast(Resident.load(father), Resident.load(mother), PROBES)
    models = Streamed.open(father), Streamed.open(mother)
    most: list[tuple[int, ...]] = []
    through = sweep._through

    def watched(*arguments: object, **options: object) -> object:
        most.append(tuple(map(weights_in_memory, models)))
        return through(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(sweep, "_through", watched)
    arrived: list[Contrast] = []
    found = contrast(*models, PROBES, on_probe=arrived.append)
    assert set(most) == {(1, 1)}
    assert [piece.probes for piece in arrived] == [("MATH",), ("MATH", "NEUTRAL")]
    for probe in PROBES.names:
        assert held.gain[probe].any()
        assert np.array_equal(found.gain[probe], held.gain[probe])
    for model, source in zip(models, (father, mother), strict=True):
        wanted = [name for name in source.names if model.place(name) is not None]
        assert model.bytes_read == sum(source.tensors[name].nbytes for name in wanted)


@pytest.mark.parametrize("ways", ["passes", "spill", "one held"])
def test_states_beyond_memory_go_in_passes_or_on_disk_and_one_parent_may_be_held(
    tiny_moe_pair: Trio, ways: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    father, mother = (open_checkpoint(folder) for folder in tiny_moe_pair[:2])
    monkeypatch.setattr(contrasting, "batch_tokens", lambda: 40)
    held = contrast(Resident.load(father), Resident.load(mother), PROBES)
    one: Resident = Streamed.open(father, overflow="spill" if ways == "spill" else "passes")
    other: Resident = Resident.load(mother) if ways == "one held" else Streamed.open(mother)
    if ways == "passes":
        one.state_bytes = 1
    found = contrast(one, other, PROBES)
    for probe in PROBES.names:
        assert np.array_equal(found.gain[probe], held.gain[probe])
    if ways == "passes":
        assert isinstance(one, Streamed)
        assert one.bytes_read > 2 * sum(info.nbytes for info in father.tensors.values()) > 0


def test_memory_that_runs_out_anywhere_halves_the_texts_and_changes_nothing(
    tiny_llama_pair: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    father, mother = (Resident.load(open_checkpoint(folder)) for folder in tiny_llama_pair[:2])
    plenty = contrast(father, mother, PROBES)
    tried: list[int] = []
    start = contrasting.start_sweep

    def scarce(model: Resident, batches: list[tuple[torch.Tensor, torch.Tensor]], *rest: object) -> object:
        tried.append(sum(len(ids) for ids, _ in batches))
        if tried[-1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return start(model, batches, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(contrasting, "start_sweep", scarce)
    found = contrast(father, mother, PROBES)
    assert tried[0] == 3
    assert tried[-1] == 1
    for probe in PROBES.names:
        assert found.gain[probe] == pytest.approx(plenty.gain[probe], abs=2e-5)


def test_memory_for_not_even_one_text_is_said_in_one_line(
    tiny_llama_pair: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    father, mother = (Resident.load(open_checkpoint(folder)) for folder in tiny_llama_pair[:2])

    def none(*arguments: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")

    monkeypatch.setattr(contrasting, "start_sweep", none)
    with pytest.raises(LabError, match="a single text of probe MATH; give shorter texts") as raised:
        contrast(father, mother, PROBES)
    assert "\n" not in str(raised.value)


def test_a_failure_that_is_not_for_memory_is_not_tried_again(
    tiny_llama_pair: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    father, mother = (Resident.load(open_checkpoint(folder)) for folder in tiny_llama_pair[:2])
    tried: list[int] = []

    def broken(*arguments: object) -> None:
        tried.append(1)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(contrasting, "start_sweep", broken)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        contrast(father, mother, PROBES)
    assert len(tried) == 1
