"""A GGUF file made into a folder of safetensors, once: transformers reads it, the lab keeps what came out.

Takes the path of a GGUF file of the llama family, gives a folder with config, tokenizer and plain weights. The folder
is named by the file's content, under `$DARWIN_LAB_HOME/gguf` or the user's cache, and is written whole or not at all.
"""

import contextlib
import io
import json
import os
import re
import shutil
import struct
import tempfile
from pathlib import Path
from typing import Any

from darwin_lab.checkpoint.checkpoint import file_digest
from darwin_lab.errors import LabError

ARCHITECTURES = ("llama",)
SUFFIX = ".gguf"
_REMEDY = "give the model's safetensors folder or Hub id instead"
_PORTABLE_TOKENIZER = "PreTrainedTokenizerFast"
_KNOWN = re.compile(r"(?:blk\.\d+\.(?:attn|ffn)_\w+|token_embd|output|output_norm)\.(?:weight|bias)$")
_UNREADABLE = (ValueError, KeyError, IndexError, TypeError, AttributeError, struct.error, UnicodeDecodeError)


def from_gguf(path: Path) -> Path:
    """The safetensors folder of a GGUF file; converts it (in memory, whole) when it has not been before.

    Quantised tensors become bfloat16; a file in one plain float type keeps that type. Raises `LabError` for what is no
    GGUF file, other architectures, tensors that transformers would leave out, and without the `gguf` package.
    """
    cache = _cache()
    stat = path.stat()
    folder = cache / file_digest(str(path), stat.st_size, stat.st_mtime_ns).hex()
    if folder.is_dir():
        return folder
    try:
        header = _header(path)
        cache.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=cache, prefix=f".{folder.name}.partial-"))
        try:
            _convert(path, header, partial)
            partial.chmod(0o755)
            if not folder.is_dir():
                partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except ImportError as error:
        raise LabError("reading GGUF needs the gguf package; pip install gguf==0.19.0, then try again") from error
    except (OSError, *_UNREADABLE) as error:
        words = str(error).strip().splitlines() or [type(error).__name__]
        raise LabError(f"{path} cannot be read as GGUF ({words[0][:160]}); {_REMEDY}") from error
    return folder


def _cache() -> Path:
    home = os.environ.get("DARWIN_LAB_HOME")
    if home:
        return Path(home).expanduser() / "gguf"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "darwin-lab" / "gguf"


def _header(path: Path) -> Any:
    """transformers' table of the file's tensors. Raises `LabError` for an architecture that is not read."""
    from transformers.integrations.gguf import read_gguf_metadata
    from transformers.integrations.gguf.reader import GgufHeader

    architecture = read_gguf_metadata(str(path))[0]["general.architecture"]
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise LabError(f"{path} is a GGUF of architecture {architecture}; only {known} is read, so {_REMEDY}")
    return GgufHeader.from_file(str(path))


def _convert(path: Path, header: Any, folder: Path) -> None:
    """Writes config, generation config, tokenizer and one safetensors file. A tied head is not written."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    dtype = header.dtype or torch.bfloat16
    with contextlib.redirect_stderr(io.StringIO()):  # tqdm and warnings; what matters is said by our own errors
        config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        read = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model, torch_dtype=dtype)["tensors"]
        tokenizer.save_pretrained(folder)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        wanted.pop("lm_head.weight", None)
    found = {name: tuple(tensor.shape) for name, tensor in read.items()}
    odd = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if odd:
        words = f"{len(odd)} tensors missing, left over or of another shape, first {odd[0]}"
        raise LabError(f"{path} does not hold the model its header describes ({words}); {_REMEDY}")
    if len(read) != len(header.tensors):
        extra = next((info.name for info in header.tensors if not _KNOWN.match(info.name)), header.tensors[0].name)
        raise LabError(f"{path} holds {extra}, which transformers does not read from GGUF; {_REMEDY}")
    weights = {name: read[name].to(dtype).contiguous() for name in wanted}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config.architectures, config.dtype = [type(model).__name__], dtype
    config.save_pretrained(folder)
    ids = {f"{which}_token_id": getattr(tokenizer, f"{which}_token_id") for which in ("bos", "eos", "pad")}
    GenerationConfig(**ids).save_pretrained(folder)
    _edit(folder / "config.json", _shortest)
    _edit(folder / "tokenizer_config.json", lambda data: {**data, "tokenizer_class": _PORTABLE_TOKENIZER})


def _edit(path: Path, change: Any) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(change(data), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _shortest(value: Any) -> Any:
    """Float32 numbers as a person wrote them: 9.999999747378752e-06 is 1e-05."""
    import numpy as np

    if isinstance(value, dict):
        return {key: _shortest(entry) for key, entry in value.items()}
    if isinstance(value, float) and float(np.float32(value)) == value:
        return float(str(np.float32(value)))
    return value
