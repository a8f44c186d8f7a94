"""Exports as lab work: a child written as a checkpoint folder, and packed as one file for a page to hand out."""

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darwin_lab.errors import LabError
from darwin_lab.lab import inheriting
from darwin_lab.lab.pairs import Pair
from darwin_lab.lab.recipes import genome_of
from darwin_lab.lab.views import ExportView
from darwin_lab.lab.workbench import Workbench
from darwin_lab.merging.recipe import Recipe
from darwin_lab.progress import Tick, part

if TYPE_CHECKING:
    from darwin_lab.engine.card import CardNotes


def request(
    bench: Workbench,
    pair: Pair,
    recipe: Recipe,
    out: Path | None,
    overwrite: bool,
    archive: bool,
    shard_size: int | None = None,
) -> str:
    """Queue an export; see `Lab.request_export`."""
    from darwin_lab.engine.export import check_target, export_child

    child = bench.child(pair, recipe)
    target = out if out is not None else bench.store.folder("exports", f"child-{recipe.hash}")
    replace = overwrite or out is None
    target.parent.mkdir(parents=True, exist_ok=True)
    check_target(target, overwrite=replace)

    def work(tick: Tick) -> dict[str, Any]:
        inherited = inheriting.measure(bench, pair, recipe, None, part(tick, 0.0, 0.1))
        written = part(tick, 0.1, 0.8 if archive else 1.0)
        genome = genome_of(bench, pair, recipe.hash)
        folder = export_child(
            child, target, overwrite=replace, tick=written, genome=genome.to_json() if genome else None,
            notes=_notes(bench, pair, recipe, inherited.to_markdown()), shard_size=shard_size,
        )  # fmt: skip
        packed = _pack(folder, bench.store.owner.id, part(tick, 0.8, 1.0)) if archive else None
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        export_id = bench.store.put_export(
            pair_key=pair.key, recipe_hash=recipe.hash, genome_hash=recipe.genome_hash, folder=str(folder.resolve()),
            archive=str(packed) if packed else None, bytes=size,
        )  # fmt: skip
        return {"export_id": export_id, "folder": str(folder), "archive": str(packed) if packed else None}

    key = f"export:{pair.key}:{recipe.hash}:{target}"
    return bench.jobs.submit("export", f"Export of child {recipe.hash}", work, key=key, interactive=True)


def newest(bench: Workbench, pair: Pair, recipe_hash: str) -> ExportView | None:
    """The newest export of a child whose folder (and zip, if it had one) are still there."""
    for row in bench.store.exports(pair.key, recipe_hash):
        if all(Path(path).exists() for path in (row["folder"], row["archive"]) if path):
            return ExportView(**row)
    return None


def _pack(folder: Path, owner: str, tick: Tick) -> Path:
    """A zip of the folder beside it, whole or not at all. Weights hardly compress, so nothing is compressed."""
    target = folder.with_name(f"{folder.name}.zip")
    partial = folder.with_name(f".{folder.name}.partial-{owner}.zip")
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for place, file in enumerate(files):
                tick(place / len(files), f"packing {file.name}")
                archive.write(file, Path(folder.name) / file.relative_to(folder))
        partial.replace(target)
    except OSError as error:
        raise LabError(f"cannot pack {target} ({error.strerror}); free some space and export again") from error
    finally:
        partial.unlink(missing_ok=True)
    return target


def _notes(bench: Workbench, pair: Pair, recipe: Recipe, inherited: str) -> "CardNotes":
    """What is known of the child, for its model card."""
    from darwin_lab.engine.card import CardNotes
    from darwin_lab.engine.card_charts import CardScore

    report = bench.store.report(pair.key, recipe.hash)
    if report is None:
        return CardNotes("This child has not been scored on report items.", inherited)
    rows = ["| model | mean accuracy |", "|---|---|"]
    rows += [f"| {name} | {model['mean_acc']:.3f} |" for name, model in report["models"].items()]
    looks = f"Report items of this pair were looked at {report['looks']} times."
    scores = tuple(
        CardScore(name, task, row["n"], row["acc"], (row["interval"][0], row["interval"][1]))
        for name, model in report["models"].items()
        for task, row in model["benchmarks"].items()
    )
    return CardNotes("\n".join([report["sentence"], "", *rows, "", looks]), inherited, scores)
