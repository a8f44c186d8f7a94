"""The model card of an exported child: lineage, recipe summary, how to load it.

Takes a child, gives markdown. States only what the recipe and the parents' own files say.
"""

import json
import re
from pathlib import Path

from darwin_lab.checkpoint.anatomy import COMPONENTS, describe_layers, read_anatomy
from darwin_lab.checkpoint.checkpoint import Checkpoint
from darwin_lab.engine.child import Child

_LICENCE = re.compile(r"^license:\s*(\S+)\s*$", re.MULTILINE)
_PERMISSIVE = ("mit", "bsd-2-clause", "bsd-3-clause", "apache-2.0")


def model_card(child: Child, notes: str = "") -> str:
    """Markdown with the Hub's front matter; `notes` (scores, say) go before the loading instructions."""
    anatomy = read_anatomy(child.father)
    people = [("Father", child.father), ("Mother", child.mother)] + (
        [("Ancestor", child.ancestor)] if child.ancestor is not None else []
    )
    lines = [
        "---",
        "library_name: transformers",
        f"license: {_strictest([parent for _, parent in people])}",
        "base_model:",
        *(f"- {parent.name}" for _, parent in people[:2]),
        "tags:",
        "- merge",
        "- darwin-lab",
        "---",
        "",
        f"# {child.name}",
        "",
        f"Bred by Darwin Lab. Recipe `{child.recipe.hash}`; `recipe.json` has one row a tensor.",
        "",
        "| role | model | fingerprint |",
        "| --- | --- | --- |",
        *(f"| {role} | {parent.name} | `{parent.fingerprint}` |" for role, parent in people),
        "",
        f"{child.father.parameters:,} parameters; {anatomy.layers} layers ({describe_layers(anatomy)}).",
        "",
        "## Mother's share",
        "",
        "| component | mean ratio |",
        "| --- | --- |",
        *_component_rows(child),
        "",
        *([notes.strip(), ""] if notes.strip() else []),
        "## Use",
        "",
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'model = AutoModelForCausalLM.from_pretrained("path/to/this/folder", dtype="auto")',
        'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")',
        "```",
        "",
        "`vllm serve path/to/this/folder` or `python -m sglang.launch_server --model-path path/to/this/folder`",
        "load the same folder where they support the father's architecture.",
        "",
    ]
    return "\n".join(lines)


def _component_rows(child: Child) -> list[str]:
    shares = [(component, child.recipe.component_ratio(component)) for component in COMPONENTS]
    operators = ", ".join(sorted(child.recipe.operators)) or "copy"
    rows = [f"| {component} | {share:.4f} |" for component, share in shares if share is not None]
    return [*rows, "", f"Operators: {operators}. Mask seed {child.recipe.seed}."]


def _strictest(parents: list[Checkpoint]) -> str:
    """The one licence all name, the least permissive of the common permissive ones, or "other" (look for yourself)."""
    found = {_licence(parent.folder) for parent in parents}
    if len(found) == 1:
        return found.pop()
    return max(found, key=_PERMISSIVE.index) if found <= set(_PERMISSIVE) else "other"


def _licence(folder: Path) -> str:
    for path in (folder / "README.md", folder / "config.json"):
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            match = _LICENCE.search(text) if path.suffix == ".md" else None
            named = match.group(1) if match else json.loads(text).get("license") if path.suffix == ".json" else None
            if named:
                return str(named)
    return "other"
