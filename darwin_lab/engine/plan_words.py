"""A plan in sentences, for the shell and the page alike.

Takes the numbers of a `Plan`, gives plain text: no markup, no tables. Units: GiB is 2^30 bytes, B is 10^9 weights.
"""

from darwin_lab.checkpoint.layout import layout_words
from darwin_lab.engine.hardware import Format, Serving
from darwin_lab.engine.plan import COPIED, DROPPED, MERGED, NO_PLACE, STUCK, Cost, ModelPlan, Plan
from darwin_lab.sizes import bytes_words

_NOT_COUNTED = {"mtp": "the multi-token-prediction head", "vision": "the vision tower", "audio": "the audio tower"}


def count_words(number: int) -> str:
    """`35.95 B`, `446.57 M`, `2.10 k`, `693`."""
    for unit, scale in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{number / scale:.2f} {unit}"
    return str(number)


def time_words(seconds: float) -> str:
    """`under a second`, `about 12 s`, `about 4 min`, `about 1 h 40 min`."""
    if seconds < 1:
        return "under a second"
    if seconds < 90:
        return f"about {seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 90 else f"about {minutes // 60} h {minutes % 60} min"


def role_words(role: str) -> str:
    """`linear attention`, `MTP head`."""
    return {"mtp": "MTP head", "lm_head": "head", "ffn": "FFN"}.get(role, role.replace("_", " "))


def size_words(model: ModelPlan) -> str:
    """All there is in the files: "35.95 B parameters in 1,811 tensors, 67.0 GiB (bf16, f32)"."""
    dtypes = ", ".join(dtype.lower() for dtype in model.dtypes)
    size = bytes_words(model.bytes)
    return f"{count_words(model.parameters)} parameters in {model.tensors:,} tensors, {size} ({dtypes})"


def active_words(model: ModelPlan) -> str:
    """How many parameters meet one token, and what that counts."""
    outside = {row.tower for row in model.roles if row.tower != "text"}
    counted = "the whole language model"
    if model.layout.experts and model.layout.top_k:
        share = f"{model.layout.top_k} of {model.layout.experts}"
        counted = f"of the language model ({count_words(model.text)}) the experts by {share}, all else whole"
    words = (
        f"{count_words(model.active)} active per token: {counted}; {count_words(model.tables)} of it are embedding "
        "tables and head"
    )
    missing = [said for tower, said in _NOT_COUNTED.items() if tower in outside]
    return f"{words}. Not counted: {', '.join(missing)}" if missing else words


def layers_words(model: ModelPlan) -> str:
    """`40 layers of width 2,048: 10 x (...)`."""
    return f"{model.layers} layers of width {model.hidden_size:,}: {layout_words(model.layout)}"


def fate_words(plan: Plan) -> tuple[str, ...]:
    """One sentence for each thing that happens to tensors; nothing is left out."""
    whose = {
        MERGED: "merged from both parents",
        COPIED: "copied from the father",
        STUCK: "of the father cannot be merged with the mother",
        DROPPED: "of the mother are left out",
    }
    sentences = []
    for fate, words in whose.items():
        tensors, weights, size = plan.total(fate)
        if tensors:
            noun = "tensor" if tensors == 1 else "tensors"
            sentence = f"{tensors:,} {noun} {words}: {count_words(weights)} weights, {bytes_words(size)}"
            sentences.append(sentence + (_instead_words(plan, tensors) if fate == DROPPED else ""))
    if plan.tokens is not None:
        sentences.append(
            f"{plan.tokens.shared:,} tokens are matched by their text; {plan.tokens.only_father:,} only the father has "
            f"keep his rows, {plan.tokens.only_mother:,} only the mother has are left out"
        )
    return tuple(sentences)


def _instead_words(plan: Plan, dropped: int) -> str:
    """Of how many of the mother's dropped tensors the child has the father's."""
    kept = dropped - sum(group.tensors for group in plan.of(DROPPED) if group.reason == NO_PLACE)
    if not kept:
        return "; the child has no place for them"
    return "; the child has the father's instead" + (
        "" if kept == dropped else f" of {kept:,} and no place for the rest"
    )


def memory_words(cost: Cost, operator: str) -> str:
    """What the export holds in memory at once."""
    return (
        f"at most about {bytes_words(cost.memory)} beside Python and torch themselves: the buffers of {operator}, "
        "the same for a model of any size"
    )


def disk_words(cost: Cost) -> str:
    """What the child takes on disk, and whether it fits."""
    verdict = "free" if cost.free >= cost.disk else "free: not enough"
    return f"{bytes_words(cost.disk)} needed, {bytes_words(cost.free)} {verdict}"


def time_estimate_words(cost: Cost) -> str:
    """The estimate with what was measured for it; empty without a calibration or for parents that cannot be merged."""
    if cost.seconds is None or cost.calibration is None:
        return ""
    made = cost.calibration
    threads = "1 thread" if made.threads == 1 else f"{made.threads} threads"
    pace = bytes_words(round(cost.read / max(cost.seconds, 1e-9)))
    return (
        f"{time_words(cost.seconds)}, an estimate: {made.operator} measured at {made.merge_ns:.1f} ns a weight "
        f"and copying at {made.copy_ns:.2f} ns a byte on {threads} here, from files already in memory; "
        f"{bytes_words(cost.read)} are read, so with a disk of less than {pace} a second it is longer"
    )


def format_words(serving: Serving, form: Format) -> str:
    """Weights and the whole need of one format: "65.4 GiB of weights, 66.5 GiB with the allowance"."""
    return f"{bytes_words(form.bytes)} of weights, {bytes_words(serving.needed(form))} with the allowance"


def card_words(serving: Serving) -> str:
    """What the cards after the last telling one hold."""
    left = len(serving.fits) - len(serving.telling_fits)
    return "Every card or set of cards with more memory than the last holds all of them." if left else ""


def allowance_words(model: ModelPlan) -> str:
    """What is added to the weights before a card is said to hold them, and what is not in them."""
    serving = model.serving
    mtp = sum(row.bytes for row in model.roles if row.tower == "mtp")
    head = f" The multi-token-prediction head ({bytes_words(mtp)} as stored) is not loaded by default." if mtp else ""
    return (
        f"A card must hold the weights, {bytes_words(serving.cache_bytes)} of keys and values in 16 bits for one text "
        f"of {serving.context:,} tokens, and {bytes_words(serving.runtime_bytes)} a card for runtime and activations; "
        "longer or more texts need more. Over several cards the weights are divided evenly. Q8 counts 8.5 and Q4_K_M "
        f"4.5 bits a weight.{head}"
    )
