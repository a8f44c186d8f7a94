"""What measuring the experts' outputs costs a scan of a mixture of experts.

Builds a random 24-layer Qwen3-MoE (64 experts, 8 a token; no download) and scans two probes of twelve texts in two ways
that alternate: with nothing measured of what experts put out, and as every scan is (saliency of every expert, mean
cosine of their outputs on 8 tokens a probe). It runs the experts of the plain pass a second time, one part in
(L + 1) / 2 of the sweep: the deeper the model, the less it costs. Prints the ratio of this process's own processor
time; about two minutes on an idle core. Exits 1 above 10 %.

    python benchmarks/scan_experts.py [--rounds 3]
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from darwin_lab.checkpoint.opening import open_checkpoint
from darwin_lab.engine.resident import Resident, quieten
from darwin_lab.mri import gathered
from darwin_lab.mri.probes import ProbeSet
from darwin_lab.mri.scan import scan_model

LAYERS, EXPERTS, TOP_K, HIDDEN, INNER = 24, 64, 8, 256, 128
PROBES, TEXTS, WORDS = 2, 12, 40
TARGET = 1.10


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3, help="scans of each kind (default 3)")
    rounds = arguments.parse_args().rounds
    torch.set_num_threads(1)
    quieten()
    with tempfile.TemporaryDirectory() as folder:
        source = open_checkpoint(random_mixture(Path(folder)))
        resident, probes = Resident.load(source), random_probes()
        scan_model(resident, source, probes)  # warmed up
        seconds = dict.fromkeys(("without", "with"), 0.0)
        for turn in range(rounds):
            for way in list(seconds)[:: -1 if turn % 2 else 1]:
                start = time.process_time()
                if way == "without":
                    with mock.patch.multiple(gathered, routed_output=no_output, output_similarity=no_similarity):
                        scan_model(resident, source, probes)
                else:
                    scan_model(resident, source, probes)
                seconds[way] += time.process_time() - start
            print(
                f"round {turn + 1}: " + ", ".join(f"{way} {spent:.1f} s" for way, spent in seconds.items()), flush=True
            )
    cost = seconds["with"] / seconds["without"]
    print(f"with expert outputs / without  {cost:.2f}x  (target at most {TARGET:.2f}x)")
    return 0 if cost <= TARGET else 1


def no_output(routing: Any, mask: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(mask), routing.probabilities.shape[-1], dtype=torch.float64)


def no_similarity(routing: Any, rows: list[int], positions: list[int]) -> torch.Tensor:
    return torch.zeros(len(rows), dtype=torch.float64)


def random_mixture(folder: Path) -> Path:
    """A random Qwen3-MoE that reads words w2 .. w511."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=512, hidden_size=HIDDEN, intermediate_size=4 * HIDDEN, moe_intermediate_size=INNER,
        num_hidden_layers=LAYERS, num_attention_heads=8, num_key_value_heads=2, head_dim=32, num_experts=EXPERTS,
        num_experts_per_tok=TOP_K, pad_token_id=0, eos_token_id=1, bos_token_id=1,
    )  # fmt: skip
    Qwen3MoeForCausalLM(config).save_pretrained(folder)
    words = {"<pad>": 0, "<eos>": 1, **{f"w{number}": number for number in range(2, 512)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "<eos>"}'
    )
    return folder


def random_probes() -> ProbeSet:
    generator = torch.Generator().manual_seed(1)

    def text() -> str:
        return " ".join(f"w{number}" for number in torch.randint(2, 512, (WORDS,), generator=generator).tolist())

    return ProbeSet({f"P{number}": tuple(text() for _ in range(TEXTS)) for number in range(PROBES)})


if __name__ == "__main__":
    raise SystemExit(main())
