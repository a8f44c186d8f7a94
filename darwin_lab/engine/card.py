"""The model card of an exported child: README.md and the pictures in `assets/`.

Takes a child and the folder its weights were written to, writes the card there. States only what the recipe, the
parents' own files and the written headers say, and what the caller measured (`CardNotes`). But for the lines on time,
equal children get equal cards.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from darwin_lab import __version__
from darwin_lab.checkpoint.anatomy import COMPONENTS
from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.checkpoint.opening import HUB_ID
from darwin_lab.checkpoint.vocabulary import TOKENS_FILE, match_tokens
from darwin_lab.engine.card_charts import CardScore, block_chart, ratio_chart, scores_chart
from darwin_lab.engine.child import Child
from darwin_lab.engine.hardware import GIB
from darwin_lab.engine.licences import stricter
from darwin_lab.engine.plan import DROPPED, Group, ModelPlan, plan_model, plan_pair
from darwin_lab.engine.plan_words import active_words, layers_words, role_words, size_words
from darwin_lab.merging.operators import USES_ANCESTOR, USES_DENSITY_A, USES_DRAWS
from darwin_lab.merging.recipe import Recipe, Row
from darwin_lab.merging.recipe_file import RECIPE_FILE

CARD_FILE = "README.md"
ASSETS = "assets"
_MOST_BLOCKS = 24
_PARTS = {
    "mtp": "multi-token-prediction head", "vision": "vision tower", "audio": "audio tower", "lm_head": "output head",
    "norm": "norms", "scalar": "scalars", "router": "routers", "expert": "experts", "shared_expert": "shared experts",
    "ffn": "feed-forward", "other": "other parts",
}  # fmt: skip
_MULTIMODAL = "ForConditionalGeneration"


@dataclass(frozen=True)
class CardNotes:
    """What the card says beside the recipe: `results` and `inherited` are markdown, `scores` are drawn and listed."""

    results: str = ""
    inherited: str = ""
    scores: tuple[CardScore, ...] = ()


@dataclass(frozen=True)
class Block:
    """Layers first..last with one mother's share a component, what routes them and what merges them."""

    first: int
    last: int
    ratios: tuple[float | None, ...]
    operators: tuple[str, ...]


def people(child: Child) -> dict[str, Checkpoint]:
    """Role -> checkpoint of the child's parents and, where there is one, its ancestor."""
    found = {"father": child.father, "mother": child.mother, "ancestor": child.ancestor}
    return {role: parent for role, parent in found.items() if parent is not None}


def write_card(child: Child, folder: Path, seconds: float, notes: CardNotes | None = None) -> None:
    """Writes README.md and assets/*.png into the folder that holds the child's weights and config."""
    notes = notes or CardNotes()
    drawn = {
        "ratio_per_layer.png": ratio_chart(child.recipe, folder / ASSETS / "ratio_per_layer.png"),
        "block_strip.png": block_chart(child.recipe, folder / ASSETS / "block_strip.png"),
        "scores.png": scores_chart(notes.scores, folder / ASSETS / "scores.png"),
    }
    charts = {name for name, there in drawn.items() if there}
    written = plan_model(Checkpoint(folder, name=child.name))
    (folder / CARD_FILE).write_text(model_card(child, written, seconds, notes, charts), encoding="utf-8")


def model_card(child: Child, written: ModelPlan, seconds: float, notes: CardNotes, charts: set[str]) -> str:
    """The markdown, with the Hub's front matter. `written` is the plan of the files as they were written."""
    licence = stricter(people(child))
    sections = [
        "\n".join(_front(child, written, licence.name)),
        f"# {child.name}\n\nBred by Darwin Lab from two parents, tensor by tensor. Recipe `{child.recipe.hash}`: "
        f"[{RECIPE_FILE}]({RECIPE_FILE}) has one row a tensor and gives these bytes again.",
        "## Parents\n\n" + "\n".join(_parents(child)),
        "## Specifications\n\n" + "\n".join(_specifications(child, written)),
        "## Recipe\n\n" + "\n".join(_recipe_lines(child.recipe, charts)),
        "## Scores\n\n" + "\n\n".join(_scores(notes, charts)),
        "## What was inherited\n\n" + "\n\n".join(filter(None, (notes.inherited.strip(), *_kept(child)))),
        f"## Merge\n\nWritten in {_time(seconds)}, with Darwin Lab {__version__}. Arithmetic in float32, one rounding "
        "at the end; the bytes depend on the recipe and the parents alone.",
        "## Hardware\n\n" + "\n".join(_hardware(written)),
        "## Use\n\n" + "\n".join(_use(written, child)),
        "## Limitations\n\n" + "\n".join(_limitations(child, notes)),
        f"## Licence\n\n{licence.words}.",
        "## Citation\n\n" + "\n".join(_citation(child)),
    ]
    return "\n\n".join(sections) + "\n"


def blocks(recipe: Recipe) -> tuple[Block, ...]:
    """Neighbouring layers that are treated alike, as ranges; more than two dozen are joined into equal stretches."""
    by_layer: dict[int, list[Row]] = {}
    for row in recipe.rows.values():
        if row.layer is not None and row.component:
            by_layer.setdefault(row.layer, []).append(row)
    alike: list[Block] = []
    for layer in sorted(by_layer):
        block = _block(layer, layer, by_layer[layer])
        if alike and alike[-1].ratios == block.ratios and alike[-1].operators == block.operators:
            alike[-1] = Block(alike[-1].first, layer, block.ratios, block.operators)
        else:
            alike.append(block)
    if len(alike) <= _MOST_BLOCKS:
        return tuple(alike)
    layers = sorted(by_layer)
    edges = [round(place * len(layers) / _MOST_BLOCKS) for place in range(_MOST_BLOCKS + 1)]
    spans = [layers[start:end] for start, end in pairwise(edges) if end > start]
    return tuple(_block(span[0], span[-1], [row for layer in span for row in by_layer[layer]]) for span in spans)


def _block(first: int, last: int, rows: Sequence[Row]) -> Block:
    groups = ([row for row in rows if row.component == "attn"],
              [row for row in rows if row.component == "ffn" and row.role != "router"],
              [row for row in rows if row.role == "router"])  # fmt: skip
    merged = {row.operator for row in rows if row.action == "merge"}
    return Block(first, last, tuple(_mean(group) for group in groups), tuple(sorted(merged)) or ("copy",))


def _mean(rows: Sequence[Row]) -> float | None:
    total = sum(row.numel for row in rows)
    return round(sum(row.ratio * row.numel for row in rows) / total, 4) if total else None


def _front(child: Child, written: ModelPlan, licence: str) -> list[str]:
    """The Hub's own lines. It refuses a base_model that is no Hub id, so local parents are named in the text alone."""
    named = [parent.name for parent in (child.father, child.mother) if HUB_ID.match(parent.name)]
    lineage = ["base_model:", *(f"- {name}" for name in dict.fromkeys(named)), "base_model_relation: merge"]
    pipeline = "image-text-to-text" if written.architecture.endswith(_MULTIMODAL) else "text-generation"
    return [
        "---",
        "library_name: transformers",
        f"pipeline_tag: {pipeline}",
        f"license: {licence}",
        *(["license_name: see-parents"] if licence == "other" else []),
        *(lineage if named else []),
        "tags:",
        "- merge",
        "- darwin-lab",
        *(f"- {operator.replace('_', '-')}" for operator in sorted(child.recipe.operators)),
        "---",
    ]


def _parents(child: Child) -> list[str]:
    roles = {"father": "ratio 0; tensor names, tokenizer and side files are his", "mother": "ratio 1",
             "ancestor": "the base both are seen from" if child.recipe.operators & USES_ANCESTOR
             else "named, but no operator of this recipe reads it"}  # fmt: skip
    lines = ["| role | model | what that means | fingerprint |", "| --- | --- | --- | --- |"]
    for role, parent in people(child).items():
        lines.append(f"| {role} | {_cell(parent.name)} | {roles[role]} | `{parent.fingerprint}` |")
    ancestry = [f"{role} {parent.name} is itself a child of {known}"
                for role, parent in people(child).items() if (known := _born_of(parent))]  # fmt: skip
    return [*lines, *(["", f"Lineage: {'; '.join(ancestry)}."] if ancestry else [])]


def _born_of(parent: Checkpoint) -> str:
    """The parents that a parent's own recipe.json names; "" for a model the lab did not breed."""
    path = parent.folder / RECIPE_FILE
    try:
        named = json.loads(path.read_text(encoding="utf-8"))["parents"]
        return " and ".join(str(named[role]["name"]) for role in ("father", "mother"))
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _specifications(child: Child, written: ModelPlan) -> list[str]:
    config = child.father.text_config
    context = config.get("max_position_embeddings")
    rows = {
        "architecture": _cell(written.architecture),
        "layers": layers_words(written),
        "size": size_words(written),
        "active": active_words(written),
        "context": f"{context:,} tokens" if isinstance(context, int) else "not in the config",
        "vocabulary": f"{config['vocab_size']:,} rows" if isinstance(config.get("vocab_size"), int) else "-",
    }
    return ["| | |", "| --- | --- |", *(f"| {what} | {words} |" for what, words in rows.items())]


def _recipe_lines(recipe: Recipe, charts: set[str]) -> list[str]:
    rows = list(recipe.rows.values())
    merged = sum(row.action == "merge" for row in rows)
    options = "".join(f", {name} {value:g}" for name, value in sorted(recipe.options.items()))
    told = f" Advised by {recipe.advised_by} (prescription `{recipe.prescription_hash}`)." if recipe.advised_by else ""
    masks = f"Mask seed {recipe.seed}, rescale {recipe.rescale}. " if _draws_masks(recipe) else ""
    lines = [
        f"{merged:,} tensors merged, {len(rows) - merged:,} copied. Operators: "
        f"{', '.join(sorted(recipe.operators)) or 'copy'}{options}. {masks}Ratios are the mother's share.{told}",
        "",
        "| component | mean ratio |",
        "| --- | --- |",
    ]
    for component in COMPONENTS:
        share = recipe.component_ratio(component)
        lines += [f"| {component} | {share:.4f} |"] if share is not None else []
    lines += ["", "| layers | attention | feed-forward | router | operator |", "| --- | --- | --- | --- | --- |"]
    for block in blocks(recipe):
        span = f"{block.first}" if block.first == block.last else f"{block.first} to {block.last}"
        cells = ["-" if ratio is None else f"{ratio:.4f}" for ratio in block.ratios]
        lines.append(f"| {' | '.join([span, *cells, ', '.join(block.operators)])} |")
    if "ratio_per_layer.png" in charts:
        lines += ["", f"![Mother's share by layer, attention and feed-forward]({ASSETS}/ratio_per_layer.png)"]
    if "block_strip.png" in charts:
        lines += ["", f"![The same as a strip: blue is the father, orange the mother]({ASSETS}/block_strip.png)"]
    return [*lines, *(line for warning in recipe.warnings for line in ("", f"Note: {warning}"))]


def _draws_masks(recipe: Recipe) -> bool:
    return any(
        row.density_b < 1.0 or (row.density_a < 1.0 and row.operator in USES_DENSITY_A)
        for row in recipe.rows.values()
        if row.action == "merge" and row.operator in USES_DRAWS
    )


def _scores(notes: CardNotes, charts: set[str]) -> Iterable[str]:
    if not notes.results.strip() and not notes.scores:
        return ["This child has not been scored."]
    table = ["| task | model | n | accuracy | 95 % interval |", "| --- | --- | --- | --- | --- |"]
    table += [
        f"| {_cell(score.task)} | {_cell(score.model)} | {score.n} | {score.acc:.3f} | {score.interval[0]:.3f} to "
        f"{score.interval[1]:.3f} |"
        for score in notes.scores
    ]
    picture = f"![Accuracy with 95 % intervals, child beside its parents]({ASSETS}/scores.png)"
    return filter(None, (notes.results.strip(), "\n".join(table) if notes.scores else "",
                         picture if "scores.png" in charts else ""))  # fmt: skip


def _kept(child: Child) -> list[str]:
    """What was copied and what was left out, with the reasons."""
    rows = child.recipe.rows.values()
    copied = Counter(row.why for row in rows if row.action == "copy" and not row.component)
    chosen = Counter("mother" if row.ratio else "father" for row in rows if row.action == "copy" and row.component)
    plan = plan_pair(child.father, child.mother, vocabulary=child.recipe.vocabulary)
    lines = [f"- copied from the father, {count:,}: {why}" for why, count in copied.items()]
    lines += [f"- copied from the {who} because the ratio says so, {count:,}" for who, count in chosen.items()]
    lines += _left_out(plan.of(DROPPED))
    if plan.tokens is not None:
        tokens = plan.tokens
        lines.append(
            f"- tokens: {tokens.shared:,} matched by their text, {tokens.only_father:,} the father's alone (his rows), "
            f"{tokens.only_mother:,} the mother's alone (left out)"
        )
    return ["Copied or left out, in tensors:\n\n" + "\n".join(lines)] if lines else ["Every tensor was merged."]


def _left_out(groups: Sequence[Group]) -> list[str]:
    """One line a role, however many names, shapes and reasons there are."""
    lines = []
    for role in dict.fromkeys(group.role for group in groups):
        found = [group for group in groups if group.role == role]
        count = sum(group.tensors for group in found)
        reasons = "; ".join(dict.fromkeys(group.reason for group in found))
        tensors = f"{count:,} tensor{'' if count == 1 else 's'}"
        lines.append(f"- left out: {tensors} of the mother's {_PARTS.get(role, role_words(role))}: {reasons}")
    return lines


def _hardware(written: ModelPlan) -> list[str]:
    serving = written.serving
    lines = [
        f"Weights, and memory with the cache of one text of {serving.context:,} tokens and the runtime's own share; "
        "computed, not measured.",
        "",
        "| format | weights | memory needed | smallest card that holds it |",
        "| --- | --- | --- | --- |",
    ]
    for form in serving.formats:
        card = serving.smallest(form)
        needed = serving.needed(form, card.count if card else 1)
        holder = f"{card.name} ({card.example})" if card else "none in the table"
        lines.append(f"| {form.name} | {form.bytes / GIB:.2f} GiB | {needed / GIB:.2f} GiB | {holder} |")
    return lines


def _use(written: ModelPlan, child: Child) -> list[str]:
    several = written.architecture.endswith(_MULTIMODAL)
    model, reader = (
        ("AutoModelForImageTextToText", "AutoProcessor") if several else ("AutoModelForCausalLM", "AutoTokenizer")
    )
    drafts = any(row.role == "mtp" for row in child.recipe.rows.values())
    mtp = ["", "The multi-token-prediction head is there for servers that draft with it (vLLM: "
           "`--speculative-config '{\"method\": \"mtp\", \"num_speculative_tokens\": 1}'`)."]  # fmt: skip
    return [
        "```python",
        f"from transformers import {model}, {reader}",
        "",
        f'model = {model}.from_pretrained("path/to/this/folder", dtype="auto")',
        f'{reader.removeprefix("Auto").lower()} = {reader}.from_pretrained("path/to/this/folder")',
        "```",
        "",
        "```bash",
        "vllm serve path/to/this/folder",
        "python -m sglang.launch_server --model-path path/to/this/folder",
        "```",
        "",
        "vLLM and SGLang load it where they support the father's architecture; the lab has run neither.",
        *(mtp if drafts else []),
    ]


def _limitations(child: Child, notes: CardNotes) -> list[str]:
    unscored = "- Not scored: whether it is better than either parent is not known."
    scored = "- The scores are of the tasks named and of no others."
    lines = [
        "- A merge inherits the faults and biases of its parents and can add its own; nobody has checked its safety.",
        scored if notes.results.strip() or notes.scores else unscored,
        "- No weight was trained on the result of the merge.",
    ]
    if child.recipe.vocabulary != "same":
        match = match_tokens(child.father, child.mother)
        lines.append(
            f"- Tokens only the mother knows ({len(match.only_other):,}) are lost; those only the father knows "
            f"({len(match.only_father):,}) did not meet the mother: [{TOKENS_FILE}]({TOKENS_FILE}) lists both."
        )
    return lines


def _citation(child: Child) -> list[str]:
    key = "".join(letter for letter in child.name if letter.isalnum()) or "child"
    parents = " and ".join(people(child)[role].name for role in ("father", "mother"))
    return [
        "```bibtex",
        f"@misc{{{key}{child.recipe.hash},",
        f"  title = {{{child.name}: bred from {parents}}},",
        f"  note = {{Darwin Lab, recipe {child.recipe.hash}}}",
        "}",
        "```",
    ]


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def _cell(text: str) -> str:
    """`text` as it stands in a cell of a markdown table."""
    return text.replace("|", "\\|")
