"""A model held in memory whose weights can become those of any source of the same architecture.

Takes sources, gives a transformers model and its tokenizer. transformers' own forward stays in charge;
this room only knows which parameter a tensor name on disk lands in.
"""

import re
import threading
from math import ceil
from typing import Any

import torch
from torch import nn

from darwin_lab.engine.child import Child
from darwin_lab.engine.source import Source
from darwin_lab.errors import LabError

_PER_EXPERT = re.compile(r"^(.*\.experts)\.(\d+)\.(gate_proj|up_proj|down_proj|w1|w2|w3)\.weight$")
_HALF = {"gate_proj": "gate", "w1": "gate", "up_proj": "up", "w3": "up", "down_proj": "down", "w2": "down"}
CHUNK = 16
"""Tokens a chunk of a gated delta net at most, on the CPU."""
_NOT_LOADED = re.compile(r"(?:^|\.)(?:mtp|visual|vision_tower|audio_tower)\.")


class Resident:
    """`model` (eval, no gradients), `tokenizer`, and `lock` for whoever hooks into it.

    `fingerprint` names the source whose weights it has now.
    """

    def __init__(self, model: Any, tokenizer: Any, source: Source, device: torch.device) -> None:
        self.model, self.tokenizer, self.device = model, tokenizer, device
        self.lock = threading.RLock()
        self.fingerprint = source.fingerprint
        self._source: Source = source
        state = model.state_dict(keep_vars=True)
        self._slots: dict[str, torch.Tensor] = dict(state)
        if device.type == "cpu":
            _fit_chunks(model)

    @staticmethod
    def load(source: Source, device: str = "cpu", dtype: torch.dtype = torch.float32) -> "Resident":
        """Loads all of `source`. Raises `LabError` when transformers cannot, or weights are missing or left over."""
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        quieten()
        try:
            config = AutoConfig.from_pretrained(source.folder, trust_remote_code=False)
            with torch.device("meta"):
                model_class = type(AutoModelForCausalLM.from_config(config))
            state = {name: source.read(name) for name in source.names}
            for name, tensor in state.items():
                if tensor.is_floating_point() and bool(torch.isnan(tensor).any()):
                    raise LabError(f"{name} of {source.name} holds NaN; mend or download that checkpoint again")
            model, report = model_class.from_pretrained(
                None, config=config, state_dict=state, dtype=dtype, output_loading_info=True
            )
        except (ValueError, OSError, KeyError, ImportError, RuntimeError) as error:
            words = str(error).strip().splitlines() or [""]
            raise LabError(f"transformers cannot load {source.name}: {words[0][:200]}") from error
        missing = sorted(report["missing_keys"])
        extra = sorted(name for name in report["unexpected_keys"] if not _NOT_LOADED.search(name))
        if missing or extra:
            what = f"{len(missing)} missing, {len(extra)} left over, first {(missing + extra)[0]}"
            raise LabError(
                f"the weights of {source.name} do not fit its config ({what}); is config.json the right one?"
            )
        try:
            tokenizer = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=False)
        except (ValueError, OSError, KeyError, ImportError) as error:
            raise LabError(
                f"{source.folder} has no tokenizer that loads; copy tokenizer.json beside the weights"
            ) from error
        where = torch.device(device)
        model = model.to(where).eval().requires_grad_(False)
        return Resident(model, tokenizer, source, where)

    def become(self, source: Source) -> None:
        """Rewrites the weights in place so that this is `source`; costs only what differs. Ties survive."""
        if source.fingerprint == self.fingerprint:
            return
        names = self._changed_names(source)
        self.fingerprint = ""
        with torch.no_grad():
            for name in names:
                slot = self.slot(name)
                if slot is not None:
                    slot.copy_(source.read(name))
        self._source, self.fingerprint = source, source.fingerprint

    def slot(self, name: str) -> torch.Tensor | None:
        """The part of a parameter that the tensor `name` of a checkpoint lands in; None when this model has none."""
        if _NOT_LOADED.search(name):
            return None
        name = name.replace(".block_sparse_moe.", ".mlp.")
        for candidate in (name, name.replace("model.language_model.", "model.", 1)):
            if candidate in self._slots:
                return self._slots[candidate].data
        match = _PER_EXPERT.match(name.replace("model.language_model.", "model.", 1))
        if match is None:
            return None
        experts, number, half = match.group(1), int(match.group(2)), _HALF[match.group(3)]
        fused = self._slots.get(f"{experts}.down_proj" if half == "down" else f"{experts}.gate_up_proj")
        if fused is None:
            return None
        if half == "down":
            return fused.data[number]
        width = fused.shape[1] // 2
        return fused.data[number, :width] if half == "gate" else fused.data[number, width:]

    @property
    def backbone(self) -> Any:
        """The module that owns the embedding, `layers` and the last norm."""
        decoder = self.model.get_decoder()
        for module in (decoder, getattr(decoder, "language_model", None), getattr(decoder, "model", None)):
            if isinstance(getattr(module, "layers", None), nn.ModuleList):
                return module
        raise LabError(
            f"no list of decoder layers found in {type(self.model).__name__}; this architecture is not scanned"
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
        config = self.model.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", 0) or 1 << 20)

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
