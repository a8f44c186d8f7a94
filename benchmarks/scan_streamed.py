"""A model larger than its memory: a synthetic 3B checkpoint scanned with one layer in memory.

Writes 36 layers of a Llama's shape (hidden 2048, 2.9B weights, bf16, random numbers; every layer holds the same ones,
which no measured figure depends on) and scans 2,048 probe tokens in a process of its own. Prints the peak memory of
that process, what it read from disk (the system's count and the scan's own) beside the size of the weights, and what
more tokens would take in passes and spilled. The digest that names a model's content is made up here: the
shell reads real weights once more for it, the lab does so for a first scan and remembers it. The work is
2 x weights x tokens x (L + 1) / 2 = 2e14 operations: 20 minutes of an idle core that multiplies bf16. Fewer tokens or
layers make a smaller proof.

    python benchmarks/scan_streamed.py [--tokens 2048] [--layers 36] [--overflow passes|spill] [--keep DIR]
"""

import argparse
import json
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

HIDDEN, INNER, HEADS, KEYS, VOCABULARY = 2048, 11008, 16, 4, 32_000
TARGET_PEAK = 1_500_000_000
TEXT_TOKENS = 128


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--tokens", type=int, default=2048, help="probe tokens (default 2048)")
    arguments.add_argument("--layers", type=int, default=36, help="decoder layers (default 36)")
    arguments.add_argument("--overflow", choices=("passes", "spill"), default="passes", help="for more tokens")
    arguments.add_argument("--keep", type=Path, help="folder for the checkpoint, kept and used again")
    arguments.add_argument("--scan", type=Path, help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    if chosen.tokens < 2 * TEXT_TOKENS:
        arguments.error(f"--tokens {chosen.tokens} are too few: two texts of {TEXT_TOKENS} tokens are the least")
    if chosen.scan is not None:
        return scan(chosen.scan, chosen.tokens, chosen.overflow)
    with tempfile.TemporaryDirectory() as scratch:
        folder = chosen.keep or Path(scratch) / "model"
        if not (folder / "tokenizer.json").exists():
            write_checkpoint(folder, chosen.layers)
        command = [sys.executable, __file__, "--scan", str(folder), "--tokens", str(chosen.tokens)]
        return subprocess.run([*command, "--overflow", chosen.overflow], check=False).returncode


def scan(folder: Path, tokens: int, overflow: str) -> int:
    """Scans the checkpoint in this process and prints what that took."""
    import torch

    from darwin_lab.checkpoint.opening import open_checkpoint
    from darwin_lab.engine.streamed import Streamed, weigh
    from darwin_lab.mri.probes import ProbeSet
    from darwin_lab.mri.scan import scan_model

    torch.set_num_threads(1)
    source = open_checkpoint(folder)
    weights = source.total_bytes
    source.__dict__["fingerprint"] = "synthetic"
    print(f"weights {weights / 1e9:.2f} GB in {len(source.tensors)} tensors; {weigh(source).sentence}")
    model = Streamed.open(source, dtype=torch.bfloat16, overflow=overflow, memory=TARGET_PEAK)
    rows = tokens // TEXT_TOKENS
    texts = [" ".join(str((row * 131 + place * 7) % 500) for place in range(TEXT_TOKENS)) for row in range(rows)]
    probes = ProbeSet({"A": tuple(texts[: rows // 2]), "B": tuple(texts[rows // 2 :])})
    before, started = read_so_far(), time.perf_counter()
    shown = [-1.0]

    def tick(fraction: float, words: str) -> None:
        if fraction - shown[0] > 0.02:
            shown[0] = fraction
            seconds = time.perf_counter() - started
            print(f"{fraction:4.0%} {seconds:6.0f} s, peak {peak() / 1e9:.2f} GB: {words}", flush=True)

    print(model.passes_words(rows * TEXT_TOKENS), flush=True)
    made = scan_model(model, source, probes, tick)
    read = read_so_far() - before
    seconds = f"{time.perf_counter() - started:.0f} s, {time.process_time():.0f} s of CPU"
    print(f"{sum(made.tokens.values())} tokens, {made.layers} layers, {seconds}")
    print(f"peak memory {peak() / 1e9:.2f} GB (target below {TARGET_PEAK / 1e9:.1f} GB)")
    counts = f"{read / 1e9:.3f} GB by the system's count, {model.bytes_read / 1e9:.3f} GB by the scan's"
    print(f"read {counts}; weights {weights / 1e9:.3f} GB")
    return 0 if peak() < TARGET_PEAK and abs(model.bytes_read - weights) < 1e6 and read < 1.02 * weights else 1


def peak() -> int:
    """Most memory this process ever had, bytes: the program's own, as `ru_maxrss` is kept across its start."""
    rows = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(rows["VmHWM"].split()[0]) * 1024


def read_so_far() -> int:
    """Bytes this process has read through system calls."""
    rows = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(rows["rchar"])


def write_checkpoint(folder: Path, layers: int) -> None:
    """A Llama of `layers` layers in shards of one layer, tied, with a tokenizer of number words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": HIDDEN,
        "intermediate_size": INNER, "num_hidden_layers": layers, "num_attention_heads": HEADS, "hidden_act": "silu",
        "num_key_value_heads": KEYS, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "torch_dtype": "bfloat16",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    keys = HIDDEN // HEADS * KEYS
    shapes = {
        "self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (keys, HIDDEN), "self_attn.v_proj": (keys, HIDDEN),
        "self_attn.o_proj": (HIDDEN, HIDDEN), "mlp.gate_proj": (INNER, HIDDEN), "mlp.up_proj": (INNER, HIDDEN),
        "mlp.down_proj": (HIDDEN, INNER), "input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,),
    }  # fmt: skip
    generator = torch.Generator().manual_seed(0)

    def random(shape: tuple[int, ...]) -> bytes:
        values = torch.randn(shape, generator=generator) * 0.02 if len(shape) == 2 else torch.ones(shape)
        return bytes(values.to(torch.bfloat16).view(torch.uint8).numpy().data)

    layer = {name: random(shape) for name, shape in shapes.items()}
    table: dict[str, str] = {}
    for number in range(layers):
        tensors = {f"model.layers.{number}.{name}.weight": (shapes[name], data) for name, data in layer.items()}
        table |= write_shard(folder / f"layer-{number}.safetensors", tensors)
    outside: dict[str, tuple[tuple[int, ...], bytes]] = {
        "model.embed_tokens.weight": ((VOCABULARY, HIDDEN), random((VOCABULARY, HIDDEN))),
        "model.norm.weight": ((HIDDEN,), random((HIDDEN,))),
    }
    table |= write_shard(folder / "outside.safetensors", outside)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))
    vocabulary = {"<pad>": 0, "<eos>": 1} | {str(number): number + 2 for number in range(500)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "<eos>"}'
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def write_shard(path: Path, tensors: dict[str, tuple[tuple[int, ...], bytes]]) -> dict[str, str]:
    """A safetensors file; gives tensor -> file name."""
    header, start = {}, 0
    for name, (shape, data) in tensors.items():
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, start + len(data)]}
        start += len(data)
    words = json.dumps(header).encode()
    words += b" " * (-len(words) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(words)) + words)
        for _, data in tensors.values():
            file.write(data)
    return dict.fromkeys(tensors, path.name)


if __name__ == "__main__":
    raise SystemExit(main())
