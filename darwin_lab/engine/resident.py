"""A model held in memory whose weights can become those of any source of the same architecture.

Takes sources, gives a transformers model and its tokenizer. transformers' own forward stays in charge;
this room only knows which parameter a tensor name on disk lands in.
"""

import re
import threading
from contextlib import AbstractContextManager, nullcontext
from math import ceil
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

import torch
from torch import nn

from darwin_lab.checkpoint.anatomy import classify, layer_of
from darwin_lab.checkpoint.checkpoint import read_json
from darwin_lab.checkpoint.naming import common_name, expert_name, joined
from darwin_lab.engine.child import Child
from darwin_lab.engine.source import Source
from darwin_lab.errors import LabError

CHUNK = 16
"""Tokens a chunk of a gated delta net at most, on the CPU."""


class Place(NamedTuple):
    """Where a tensor lands: the parameter at `path`, one `expert` of it, or the first or second `half` of that."""

    path: str
    expert: int | None = None
    half: int | None = None

    def view(self, whole: torch.Tensor) -> torch.Tensor:
        """That part of the parameter."""
        part = whole if self.expert is None else whole[self.expert]
        return part if self.half is None else part.chunk(2)[self.half]


class Resident:
    """`model` (eval, no gradients), `tokenizer`, and `lock` for whoever hooks into it.

    `fingerprint` names the source whose weights it has now, `dtype` is what it computes in, `end_ids` are the tokens
    that end a text.
    """

    streamed = False
    state_bytes = 0
    """What the states of all batches of a sweep may take; 0 = one batch a sweep."""
    held = 0
    """Bytes of weights in memory at once, where they are fetched by layer."""
    spill: Path | None = None
    """A folder for the states of a sweep, instead of memory."""

    def __init__(
        self, model: Any, tokenizer: Any, source: Source, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        self.model, self.tokenizer, self.device, self.dtype = model, tokenizer, device, dtype
        self.lock = threading.RLock()
        self.fingerprint = source.fingerprint
        self._source: Source = source
        self.end_ids = _end_ids(model, tokenizer, source.folder)
        state = model.state_dict(keep_vars=True)
        self.paths = {common_name(path): path for path in state if classify(path)[0] == "text"}
        self._slots: dict[str, torch.Tensor] = dict(state)
        if device.type == "cpu":
            _fit_chunks(model)

    @staticmethod
    def load(source: Source, device: str = "cpu", dtype: torch.dtype = torch.float32) -> "Resident":
        """Loads all of `source`. Raises `LabError` when transformers cannot, or weights are missing or left over."""
        model_class, config = text_model(source)
        try:
            state = {}
            for name in source.names:
                if is_loaded(name, config):
                    state[_in_text_model(name, source)] = source.read(name)
                    require_no_nan(name, state[_in_text_model(name, source)], source)
            model, report = model_class.from_pretrained(
                None, config=config, state_dict=state, dtype=dtype, output_loading_info=True
            )
        except (ValueError, OSError, KeyError, ImportError, RuntimeError) as error:
            raise cannot_load(source, error) from error
        require_all(source, sorted(report["missing_keys"]), sorted(report["unexpected_keys"]))
        where = torch.device(device)
        model = model.to(where).eval().requires_grad_(False)
        return Resident(model, text_tokenizer(source), source, where, dtype)

    def become(self, source: Source) -> None:
        """Rewrites the weights in place so that this is `source`; costs only what differs. Ties survive.

        Raises `LabError` for a tensor of the language model that this model has no place for.
        """
        if source.fingerprint == self.fingerprint:
            return
        names = self._changed_names(source)
        self.fingerprint = ""
        with torch.no_grad():
            for name in names:
                slot = self.slot(name)
                if slot is not None:
                    slot.copy_(source.read(name))
                elif not self.ignores(name):
                    raise LabError(f"{source.name} has {name}, this model does not; load {source.name} by itself")
        self._source, self.fingerprint = source, source.fingerprint

    def slot(self, name: str) -> torch.Tensor | None:
        """The part of a parameter that the tensor `name` of a checkpoint lands in; None when this model has none."""
        place = self.place(name)
        return None if place is None else place.view(self.tensor(place.path))

    def place(self, name: str) -> "Place | None":
        """Where the tensor `name` of a checkpoint lands; None when this model has no place for it."""
        if classify(name)[0] != "text":
            return None
        name = common_name(name)
        if name in self.paths:
            return Place(self.paths[name])
        parts = expert_name(name)
        if parts is None or parts.expert is None:
            return None
        whole = self.paths.get(joined(parts._replace(expert=None)))
        if whole is not None:
            return Place(whole, parts.expert)
        both = self.paths.get(joined(parts._replace(expert=None, half="gate_up_proj")))
        return None if both is None else Place(both, parts.expert, ("gate_proj", "up_proj").index(parts.half))

    def ignores(self, name: str) -> bool:
        """Whether `name` is none of the language model's weights: a tower, an MTP head, keys that are never read."""
        return not is_loaded(name, self.model.config) or any(
            re.search(pattern, known)
            for pattern in self.model._keys_to_ignore_on_load_unexpected or ()
            for known in (name, common_name(name))
        )

    def tensor(self, path: str) -> torch.Tensor:
        """The parameter or buffer at `path` of the model, as a view."""
        return self._slots[path].data

    def embedding(self) -> AbstractContextManager[None]:
        """Within, the embedding is in memory; a resident model always is."""
        return nullcontext()

    def layer(self, index: int) -> AbstractContextManager[nn.Module]:
        """Within, decoder layer `index` is in memory."""
        return nullcontext(self.decoder_layers[index])

    def head(self) -> AbstractContextManager[None]:
        """Within, the last norm and the output matrix are in memory."""
        return nullcontext()

    @property
    def backbone(self) -> Any:
        """The module that owns the embedding, `layers` and the last norm."""
        decoder = self.model.get_decoder()
        for module in (decoder, getattr(decoder, "language_model", None), getattr(decoder, "model", None)):
            if isinstance(getattr(module, "layers", None), nn.ModuleList):
                return module
        raise LabError(
            f"no list of decoder layers found in {type(self.model).__name__}, so its layers cannot be scanned; "
            "give a decoder-only language model"
        )

    @property
    def decoder_layers(self) -> list[nn.Module]:
        return list(self.backbone.layers)

    @property
    def layers(self) -> int:
        return len(self.decoder_layers)

    @property
    def context_length(self) -> int:
        """The longest input the config allows, in tokens."""
        return longest_input(self.model.config)

    def state_bytes_per_token(self, parts: int = 1) -> int:
        """What one padded token takes in a sweep that leaves out `parts` of every layer: a hidden state a branch."""
        hidden: int = self.model.config.get_text_config().hidden_size
        return (1 + parts * self.layers) * hidden * self.dtype.itemsize

    def hidden(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """[B, T, H]: hidden states after the last norm."""
        hidden: torch.Tensor = self.backbone(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        return hidden

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[..., V] from normed hidden states [..., H], with the model's own soft cap where it has one."""
        logits: torch.Tensor = self.model.get_output_embeddings()(hidden)
        cap = getattr(self.model.config.get_text_config(), "final_logit_softcapping", None)
        return torch.tanh(logits / cap) * cap if cap else logits

    def encode_batch(self, rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Right-padded (input_ids, attention_mask), both int64 [B, T], on the model's device."""
        pad = self.tokenizer.pad_token_id or self.tokenizer.eos_token_id or 0
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), pad, dtype=torch.int64)
        mask = torch.zeros((len(rows), width), dtype=torch.int64)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row, dtype=torch.int64)
            mask[index, : len(row)] = 1
        return ids.to(self.device), mask.to(self.device)

    def _changed_names(self, source: Source) -> list[str]:
        now = self._source
        if not (self.fingerprint and isinstance(source, Child) and isinstance(now, Child)):
            return list(source.names)
        if now.parents != source.parents or (now.recipe.seed, now.recipe.rescale) != (
            source.recipe.seed,
            source.recipe.rescale,
        ):
            return list(source.names)
        return [name for name, row in source.recipe.rows.items() if row.decision != now.recipe.rows[name].decision]


def text_model(source: Source) -> tuple[Any, Any]:
    """(class, config) of the model that reads text; of a multimodal wrapper the language model alone.

    Raises `LabError` when transformers does not know the architecture.
    """
    from transformers import AutoModelForCausalLM

    config = text_config(source)
    try:
        if not any(classify(name)[1] == "lm_head" for name in source.names):
            config.tie_word_embeddings = True
        with torch.device("meta"):
            return type(AutoModelForCausalLM.from_config(config)), config
    except (ValueError, OSError, KeyError, ImportError, RuntimeError, AttributeError) as error:
        raise cannot_load(source, error) from error


def text_config(source: Source) -> Any:
    """The transformers config of the language model. Raises `LabError` when transformers cannot read it."""
    from transformers import AutoConfig

    quieten()
    try:
        return AutoConfig.from_pretrained(source.folder, trust_remote_code=False).get_text_config()
    except (ValueError, OSError, KeyError, ImportError, RuntimeError, AttributeError) as error:
        raise cannot_load(source, error) from error


def longest_input(config: Any) -> int:
    """Tokens that a model of this transformers config reads at most."""
    return int(getattr(config.get_text_config(), "max_position_embeddings", 0) or 1 << 20)


def text_tokenizer(source: Source) -> Any:
    """The tokenizer beside the weights. Raises `LabError` when there is none that loads."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source.folder, trust_remote_code=False)
    except (ValueError, OSError, KeyError, ImportError) as error:
        raise LabError(
            f"{source.folder} has no tokenizer that loads; copy tokenizer.json beside the weights"
        ) from error


def require_no_nan(name: str, tensor: torch.Tensor, source: Source) -> None:
    """Raises `LabError` naming a weight that holds NaN."""
    if tensor.is_floating_point() and bool(torch.isnan(tensor).any()):
        raise LabError(f"{name} of {source.name} holds NaN; mend or download that checkpoint again")


def cannot_load(source: Source, error: Exception) -> LabError:
    """transformers' complaint in one sentence, with what to do."""
    first = (str(error).strip().splitlines() or [""])[0].split(". ")[0].rstrip(".")
    return LabError(
        f"transformers cannot load {source.name}: {shorten(first, 300, placeholder=' ...')}; install a transformers "
        "that knows this model, or get its folder again"
    )


def require_all(source: Source, missing: list[str], extra: list[str]) -> None:
    """Raises `LabError` unless every weight of the model was there and none was left over."""
    if missing or extra:
        what = f"{len(missing)} missing, {len(extra)} left over, first {(missing + extra)[0]}"
        raise LabError(f"the weights of {source.name} do not fit its config ({what}); is config.json the right one?")


def is_loaded(name: str, config: Any) -> bool:
    """False for towers, and for decoder layers beyond the config's, which are a multi-token-prediction head."""
    layer = layer_of(name)
    return classify(name)[0] == "text" and (layer is None or layer < config.num_hidden_layers)


def _in_text_model(name: str, source: Source) -> str:
    """`name` as the language model alone has it."""
    return common_name(name) if "text_config" in source.config else name


def _fit_chunks(model: nn.Module) -> None:
    """Sizes the chunks of gated delta nets to the input: transformers' own torch code pads every row to 64 tokens.

    The same mathematics to float rounding; on short texts it takes about a fifth of the time.
    """

    def fit(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        length = (args[0] if args else kwargs["hidden_states"]).shape[1]
        return args, {**kwargs, "chunk_size": ceil(length / ceil(length / CHUNK))}

    for module in model.modules():
        if type(module).__name__.endswith("GatedDeltaNet"):
            module.register_forward_pre_hook(fit, with_kwargs=True)


def quieten() -> None:
    """Library warnings and progress bars off; what matters is said by our own errors."""
    import warnings

    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module="transformers")


def _end_ids(model: Any, tokenizer: Any, folder: Path) -> frozenset[int]:
    """As generation_config.json, the model's own settings and the tokenizer name them: chat models often list the end
    of a turn in the first alone."""
    settings, file = getattr(model, "generation_config", None), folder / "generation_config.json"
    told = [getattr(settings, "eos_token_id", None), tokenizer.eos_token_id]
    if file.is_file():
        kept = read_json(file)
        told.append(kept.get("eos_token_id") if isinstance(kept, dict) else None)
    ends = [end for one in told for end in (one if isinstance(one, list) else [one])]
    return frozenset(end for end in ends if isinstance(end, int))
