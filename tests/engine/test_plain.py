"""The plain pass gives transformers' own hidden states, with one layer in memory and as many batches as fit."""

from pathlib import Path

import pytest
import torch

from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.plain import plain_pass
from darwin_lab.engine.replay import Replay
from darwin_lab.engine.resident import Resident
from darwin_lab.engine.streamed import Streamed
from tests.engine.test_streamed import in_memory
from tests.families import write_family_pair

BATCHES = [torch.arange(3, 27).reshape(2, 12), torch.arange(30, 45).reshape(3, 5), torch.tensor([[7, 8, 9]])]


@pytest.mark.parametrize("kind", ["llama", "qwen3_5_moe", "gemma3", "gemma4_e", "gpt_oss"])
def test_hidden_states_are_transformers_own_with_one_layer_in_memory(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_checkpoint(write_family_pair(kind, tmp_path)[0])
    resident, model = Resident.load(source), Streamed.open(source)
    held: list[list[int]] = []
    run = Replay.run
    monkeypatch.setattr(Replay, "run", lambda *args: held.append(in_memory(model)) or run(*args))
    found: dict[int, torch.Tensor] = {}
    assert plain_pass(model, BATCHES, lambda number, hidden: found.update({number: hidden})) == 3
    for number, ids in enumerate(BATCHES):
        with torch.inference_mode():
            whole = resident.backbone(input_ids=ids, use_cache=False).last_hidden_state
        assert torch.allclose(found[number], whole, atol=1e-5)
    assert held == [[layer] for layer in range(model.layers) for _ in BATCHES]
    assert in_memory(model) == []


def test_a_pass_takes_what_fits_and_at_least_one_batch(tmp_path: Path) -> None:
    model = Streamed.open(open_checkpoint(write_family_pair("llama", tmp_path)[0]))
    model.state_bytes = 1
    assert plain_pass(model, BATCHES, lambda number, hidden: None) == 1
    model.state_bytes = 4 * sum(ids.numel() for ids in BATCHES[:2]) * 32 * 4
    assert plain_pass(model, BATCHES[:2], lambda number, hidden: None) == 2
