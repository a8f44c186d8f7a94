"""Layer-skip scan: one sweep against its floor and against skipping one layer at a time.

Builds a random 30-layer Llama of 135M parameters' shape (no download) and measures the final hidden states with each
layer skipped, for eight short probe batches, in three ways that alternate:
  (a) the usual way: one forward per skipped layer and text; the skipped layer is identity and costs nothing
  (b) the same, one forward per skipped layer and whole batch
  (c) one sweep per batch
Each way also makes its plain pass. The floor is the arithmetic that a sweep cannot avoid, L (L + 1) / 2 layer passes a
batch, timed beside every batch as plain forwards, (L + 1) / 2 of them: of that batch alone and of all probes as one
batch, whichever is faster a token. Prints the ratios and the largest difference. With one thread the seconds are this
process's own processor time, so that a busy machine does not spoil them; a few minutes on an idle core.

    python benchmarks/scan_speed.py [--threads 1] [--batches 8] [--texts 4]
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.resident import Resident
from darwin_lab.engine.sweep import skip_sweep

LAYERS = 30
BATCHES, TEXTS, TOKENS = 8, 4, (10, 16)
TARGET_FLOOR, TARGET_USUAL, TARGET_BATCHED = 1.3, 2.5, 1.5
Way = Callable[[Resident, torch.Tensor, torch.Tensor], torch.Tensor]


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
    arguments.add_argument("--batches", type=int, default=BATCHES, help=f"probe batches (default {BATCHES})")
    arguments.add_argument("--texts", type=int, default=TEXTS, help=f"texts of a batch (default {TEXTS})")
    chosen = arguments.parse_args()
    torch.set_num_threads(chosen.threads)
    with tempfile.TemporaryDirectory() as folder:
        resident = random_llama(Path(folder))
    batches = probe_batches(resident, chosen.batches, chosen.texts)
    skip_sweep(resident, *batches[0])
    usual_way(resident, *batches[0], layers=1)  # both ways warmed up
    clock = time.process_time if chosen.threads == 1 else time.perf_counter
    everything = resident.encode_batch([row[: int(real.sum())].tolist() for ids, mask in batches
                                        for row, real in zip(ids, mask, strict=True)])  # fmt: skip
    seconds = dict.fromkeys("abcf", 0.0)
    difference = 0.0
    for turn, (ids, mask) in enumerate(batches):
        ways: dict[str, Way] = {"a": usual_way, "b": batched_way, "c": skip_sweep}
        order = "abc" if turn % 2 == 0 else "cba"
        results = {}
        for way in order:
            start = clock()
            results[way] = ways[way](resident, ids, mask)
            seconds[way] += clock() - start
        plain = [
            plain_seconds(resident, rows, real, clock) / int(real.sum()) for rows, real in (everything, (ids, mask))
        ]
        seconds["f"] += (LAYERS + 1) / 2 * min(plain) * int(mask.sum())
        real = mask.bool()
        for other in "ab":
            difference = max(difference, float((results["c"][:, real] - results[other][:, real]).abs().max()))
        print(f"batch {turn + 1}: " + ", ".join(f"{WORDS[way]} {seconds[way]:.1f} s" for way in "abcf"), flush=True)
    floor, usual, batched = (seconds["c"] / seconds["f"], seconds["a"] / seconds["c"], seconds["b"] / seconds["c"])
    ceiling = 2 * LAYERS / (LAYERS + 1)
    print(f"sweep / floor                {floor:.2f}x  (target at most {TARGET_FLOOR}x)")
    print(f"one text at a time / sweep   {usual:.2f}x  (target {TARGET_USUAL}x)")
    print(f"the same batches / sweep     {batched:.2f}x  (target {TARGET_BATCHED}x, 2L/(L+1) = {ceiling:.2f}x)")
    print(f"largest difference of a normed hidden state: {difference:.1e}")
    met = floor <= TARGET_FLOOR and usual >= TARGET_USUAL and batched >= TARGET_BATCHED
    return 0 if met and difference < 1e-3 else 1


WORDS = {"a": "text by text", "b": "batch by batch", "c": "sweep", "f": "floor"}


@torch.inference_mode()
def plain_seconds(resident: Resident, ids: torch.Tensor, mask: torch.Tensor, clock: Callable[[], float]) -> float:
    """The faster of two plain forwards."""
    found = []
    for _ in range(2):
        start = clock()
        resident.hidden(ids, mask)
        found.append(clock() - start)
    return min(found)


def random_llama(folder: Path) -> Resident:
    """A resident random Llama of SmolLM2-135M's shape, with a small vocabulary (the head is not timed)."""
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=576, intermediate_size=1536, num_hidden_layers=LAYERS, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True, pad_token_id=0, eos_token_id=1, bos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder, save_original_format=False)
    Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>")).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "<eos>"}'
    )
    return Resident.load(open_checkpoint(folder))


def probe_batches(resident: Resident, count: int, texts: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Right-padded batches of short texts of unequal length."""
    generator = torch.Generator().manual_seed(1)
    batches = []
    for _ in range(count):
        lengths = torch.randint(*TOKENS, (texts,), generator=generator).tolist()
        rows = [torch.randint(2, 512, (length,), generator=generator).tolist() for length in lengths]
        batches.append(resident.encode_batch(rows))
    return batches


@torch.inference_mode()
def batched_way(resident: Resident, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[L + 1, B, T, H]: the plain pass, then one forward per skipped layer, on the whole batch."""
    skipped = [skipping(resident, layer, ids, mask) for layer in resident.decoder_layers]
    return torch.stack([resident.hidden(ids, mask), *skipped])


@torch.inference_mode()
def usual_way(resident: Resident, ids: torch.Tensor, mask: torch.Tensor, layers: int = LAYERS) -> torch.Tensor:
    """[L + 1, B, T, H]: the same, one forward per layer and text; a text runs at its own length, without padding."""
    states = torch.zeros(layers + 1, *ids.shape, resident.model.config.hidden_size)
    for text, length in enumerate(mask.sum(-1).tolist()):
        row, ones = ids[text : text + 1, :length], mask[text : text + 1, :length]
        states[0, text, :length] = resident.hidden(row, ones)[0]
        for index, layer in enumerate(resident.decoder_layers[:layers]):
            states[1 + index, text, :length] = skipping(resident, layer, row, ones)[0]
    return states


def skipping(resident: Resident, layer: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Final hidden states with `layer` replaced by identity: it is not even computed."""
    forward = layer.forward

    def identity(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return hidden_states

    layer.forward = identity  # type: ignore[method-assign]
    try:
        return resident.hidden(ids, mask)
    finally:
        layer.forward = forward  # type: ignore[method-assign]


if __name__ == "__main__":
    raise SystemExit(main())
