"""One tensor, one name: the names under which checkpoints of one model may store the same weights.

Takes a tensor's name, gives the name every layout shares. Multimodal wrappers add a prefix, mixtures keep experts
fused or one by one, Mixtral has names of its own. Pure string rules; knows no shapes and no files.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

_PREFIXES = (
    (re.compile(r"^(?:model\.language_model\.|language_model\.model\.)"), "model."),
    (re.compile(r"^(?:model\.)?language_model\.(?=lm_head\.)"), ""),
    (re.compile(r"^(?=(?:visual|vision_tower|audio_tower|multi_modal_projector|embed_(?:vision|audio))\.)"), "model."),
    (re.compile(r"(?<=vision_tower\.)vision_model\."), ""),
)
_ONE = re.compile(r"^(.*\.experts)\.(\d+)\.(\w+?)(?:\.(weight|bias))?$")
_ALL = re.compile(r"^(.*\.experts)\.(gate_up_proj|gate_proj|up_proj|down_proj|w1|w2|w3)(?:\.weight|(\.bias|_bias))?$")
_HALVES = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}


class ExpertName(NamedTuple):
    """`module` is everything up to and with ".experts"; `expert` is None in a tensor of all experts; `bias` tells
    biases from weights; `half` is gate_proj, up_proj, down_proj or gate_up_proj."""

    module: str
    expert: int | None
    half: str
    bias: bool

    @property
    def halves(self) -> tuple[str, ...]:
        """What `half` is made of, in the order in which a fused tensor stacks it."""
        return ("gate_proj", "up_proj") if self.half == "gate_up_proj" else (self.half,)


def common_name(name: str) -> str:
    """`name` without what layouts change: wrapper prefixes, `block_sparse_moe`, w1/w2/w3, fused experts' `.weight`."""
    for pattern, plain in _PREFIXES:
        name = pattern.sub(plain, name, count=1)
    name = name.replace(".block_sparse_moe.", ".mlp.")
    found = expert_name(name)
    return name if found is None else joined(found)


def expert_name(name: str) -> ExpertName | None:
    """The parts of an expert tensor's name; None for every other tensor."""
    if match := _ONE.match(name):
        half = _HALVES.get(match[3], match[3])
        return ExpertName(match[1], int(match[2]), half, match[4] == "bias")
    if match := _ALL.match(name):
        return ExpertName(match[1], None, _HALVES.get(match[2], match[2]), match[3] is not None)
    return None


def joined(parts: ExpertName) -> str:
    """The name that `parts` were read from, in the common form."""
    if parts.expert is None:
        return f"{parts.module}.{parts.half}{'_bias' if parts.bias else ''}"
    return f"{parts.module}.{parts.expert}.{parts.half}.{'bias' if parts.bias else 'weight'}"


def atoms(name: str, shape: tuple[int, ...]) -> Iterator[str]:
    """What a tensor holds, in the names of the finest layout: equal for fused experts and for single ones."""
    key = common_name(name)
    named = expert_name(key)
    if named is None or not shape:
        yield key
        return
    module, halves, ending = named.module, named.halves, "bias" if named.bias else "weight"
    for expert in range(shape[0]) if named.expert is None else (named.expert,):
        for half in halves:
            yield f"{module}.{expert}.{half}.{ending}"
