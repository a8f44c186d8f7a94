"""What the Child tab shows of a child: report, block strip, what was inherited, languages, export and push.

Takes what the lab holds; gives values for components. Reads through the lab, wires nothing, measures nothing.
"""

from __future__ import annotations

import html
import importlib.util
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.lab.publishing import PushPlan, PushView
from darwin_lab.lab.views import ExportView
from darwin_lab.merging.recipe import Recipe
from darwin_lab.merging.recipe_file import RECIPE_FILE
from darwin_lab.mri.advantage import probe_weights
from darwin_lab.sizes import bytes_words
from darwin_lab.ui.components.data_table import Column, Row, mark, table_value
from darwin_lab.ui.components.download import served
from darwin_lab.ui.figures.block_strip import block_strip
from darwin_lab.ui.figures.score_bars import score_bars
from darwin_lab.ui.figures.style import NAME, Chart, nothing, plural
from darwin_lab.ui.session import facts, on_a_space, say, verdict

if TYPE_CHECKING:
    from darwin_lab.engine.inherited import Inheritance
    from darwin_lab.mri.languages import Interval, Languages
    from darwin_lab.mri.scan import Scan

ORDER = ("child", "father", "mother", "blend")
SIGNIFICANT = 0.05
NOT_YET = "Press “Score on report items”: child, father, mother and blend answer the same sealed items."
SCORING, SAME_ITEMS = "Scoring on report items.", "Child, father, mother and blend answer the same items."
BRING_ITEMS = "This pair came without benchmark items. Add JSONL files in Parents and open it again."
NOT_MEASURED = "Press “Measure”: towers, routers, embeddings and files of the child are laid beside both parents."
NOT_READ = "Press “Read a dozen languages”: child, father and mother read the same short texts."
READING = "One row a language appears here when all texts are read."
NOT_EXPORTED = "Not exported yet."
EXPORTING = "Writing the child, tensor by tensor."

# ---------------------------------------------------------------------------------------------------- report


def report_views(pair: Pair, report: dict[str, Any] | None, busy: bool) -> list[Any]:
    """Verdict, chart and table of a report."""
    if pair.items_by_split is None:
        return [
            verdict("plain", "No items to score on.", BRING_ITEMS),
            nothing(BRING_ITEMS).wire(),
            table_value((), (), empty=BRING_ITEMS),
        ]
    if report is None:
        head, words = (SCORING, SAME_ITEMS) if busy else ("Not scored on report items.", NOT_YET)
        return [verdict("plain", head, words), nothing(words).wire(), table_value((), (), empty=words)]
    tone = "ok" if report["surpasses_both"] else "plain"
    looks = report["looks"]
    note = f"n = {report['n']} report items; look number {looks} at them for this pair."
    return [verdict(tone, report["sentence"], note), report_chart(report).wire(), report_table(report)]


def report_chart(report: dict[str, Any]) -> Chart:
    """Accuracy per benchmark of the four models."""
    models = {who: report["models"][who] for who in ORDER if who in report["models"]}
    scores = {
        who: {task: (bench["acc"], *map(float, bench["interval"])) for task, bench in model["benchmarks"].items()}
        for who, model in models.items()
    }
    chance = {task: bench["chance"] for task, bench in next(iter(models.values()))["benchmarks"].items()}
    return score_bars(scores, n=report["n"], chance=chance)


def report_table(report: dict[str, Any]) -> dict[str, Any]:
    """Means with the paired tests, then every benchmark with n and interval."""
    models = report["models"]
    tasks = list(models["child"]["benchmarks"])
    rows = []
    for who in (who for who in ORDER if who in models):
        model, test = models[who], report["tests"].get(who)
        cells: list[Any] = [NAME[who], model["mean_acc"]]
        if test:
            cells += [f"{test['difference']:+.3f} [{test['low']:+.3f}, {test['high']:+.3f}]", _p(test["p"])]
            cells.append(_told_apart(test))
        else:
            cells += ["", "", ""]
        for task in tasks:
            bench = model["benchmarks"][task]
            low, high = bench["interval"]
            cells.append(f"{bench['acc']:.3f} [{low:.3f}, {high:.3f}]")
        rows.append(Row(who, tuple(cells), who))
    sizes = {task: models["child"]["benchmarks"][task]["n"] for task in tasks}
    columns = (
        Column("model"),
        Column("mean accuracy", "number", 3, "Unweighted mean over skills"),
        Column("child − model, 95 %", "number", title="Mean accuracy, paired over items"),
        Column("p", "number"),
        Column("verdict", "mark"),
        *(Column(f"{task.lower()} (n {sizes[task]})", "number") for task in tasks),
    )
    return table_value(columns, rows)


def child_words(pair: Pair, recipe: Recipe) -> str:
    """What the child at hand is."""
    mean = [ratio for ratio in recipe.layer_ratios() if ratio is not None]
    rows = [
        ("#child (recipe)", recipe.hash, ""),
        ("mother's share", f"{sum(mean) / len(mean):.3f}", f"mean of {len(mean)} layers"),
        ("parents", f"{pair.father.name} × {pair.mother.name}", ""),
    ]
    return facts(rows)


def looks_words(lab: Lab, pair: Pair) -> str:
    """How often the sealed items were used."""
    if pair.items_by_split is None:
        return ""
    return say(f"{plural(lab.report_looks(pair), 'look')} at the report items of this pair so far.")


# ---------------------------------------------------------------------------------------------------- blocks


def strip_chart(lab: Lab, pair: Pair, recipe: Recipe) -> Chart:
    """The block strip of a child: its shares, and what the stored scans say of the same layers."""
    people = {"father": "father", "mother": "mother", "child": recipe.hash}
    whole = {who: lab.scan(pair, name) for who, name in people.items() if lab.scan_is_complete(pair, name)}
    scans = {who: scan for who, scan in whole.items() if scan is not None}
    parents = {who: scan for who, scan in scans.items() if who != "child"}
    importance = {who: _importance(scan) for who, scan in parents.items()} if len(parents) == 2 else {}
    dead = {who: found for who, scan in scans.items() if importance and (found := _dead(scan))}
    remarks = [] if importance else ["scan both parents in MRI to see what their layers matter"]
    if importance:
        remarks.append("importance: rise in NLL without the layer, nats a token, mean over skills")
    if pair.anatomy.moe_layers and importance and not dead:
        remarks.append("too few tokens to call an expert dead")
    genome = lab.genome_of(pair, recipe.hash)
    blocks = genome.layout_of(pair.anatomy.layers).blocks if genome else ()
    ratios = {name: recipe.layer_ratios(name) for name in ("attn", "ffn")}
    known = {name: values for name, values in ratios.items() if any(value is not None for value in values)}
    return block_strip(
        known, layers=pair.anatomy.layers, blocks=blocks, importance=importance, dead=dead, remarks=remarks
    )


def _importance(scan: Scan) -> list[float]:
    found = scan.importance("loss")
    weighted = [weight * found[probe] for probe, weight in probe_weights(tuple(found)).items()]
    return [float(sum(column)) for column in zip(*weighted, strict=True)]


def _dead(scan: Scan) -> dict[int, float]:
    """Layer -> share of dead experts; empty for dense models and where too few tokens were read to say so."""
    report = scan.expert_report()
    if report is None or not report.certified:
        return {}
    return dict(zip(report.layers, report.dead_share.tolist(), strict=True))


# ---------------------------------------------------------------------------------------------------- inheritance


def inherited_words(found: Inheritance | None, kept: ExportView | None, busy: bool) -> str:
    """How it was measured, and what a later measurement would add."""
    if busy:
        return say("Comparing the child with both parents.")
    if found is None:
        return ""
    if found.exported:
        return say(f"Measured in the exported folder {Path(found.exported).name}, against both parents' files.")
    more = "The export can be measured now." if kept else "After an export the written folder is measured instead."
    return say(f"Measured on the virtual child. {more}")


def inherited_table(found: Inheritance | None) -> dict[str, Any]:
    """One row a thing."""
    if found is None:
        return table_value((), (), empty=NOT_MEASURED)
    from darwin_lab.engine.inherited import ABSENT, CHANGED, FATHERS

    rows = []
    for row in found.rows:
        tone = {FATHERS: True, CHANGED: False}.get(row.verdict)
        unit = row.unit if row.parts == 1 else f"{row.unit}s"
        parts = "" if row.verdict == ABSENT and not row.parts else f"{row.parts:,} {unit}"
        rows.append(Row(row.what, (row.what, mark(tone, row.verdict), parts, row.compared, row.note)))
    columns = (
        Column("what"),
        Column("inherited", "mark"),
        Column("parts", "number"),
        Column("compared", "long"),
        Column("remarks", "long"),
    )
    return table_value(columns, rows)


def language_words(found: Languages | None, busy: bool) -> str:
    """What the languages come to."""
    if busy:
        return say("Reading the languages.")
    return "" if found is None else say(found.sentence)


def language_table(found: Languages | None, busy: bool = False) -> dict[str, Any]:
    """One row a language; a language that is only spelled shows why there is no loss."""
    if found is None:
        return table_value((), (), empty=READING if busy else NOT_READ)
    rows = []
    for row in found.rows:
        worse = {"worse than both": False, "better than both": True}.get(row.verdict)
        cells = (
            row.name, mark(worse, row.verdict), row.texts, row.tokens, row.unknown, _mean(row.child), _mean(row.father),
            _mean(row.mother), _gap(row.child_minus_father), _gap(row.child_minus_mother),
        )  # fmt: skip
        rows.append(Row(row.language, cells))
    columns = (
        Column("language"),
        Column("verdict", "mark"),
        Column("texts", "number"),
        Column("tokens", "number"),
        Column(
            "unknown tokens", "share", 0, "Lone letters, bytes and the unknown token: from half on no loss is shown"
        ),
        Column("child", "number", 3, "NLL, nats a token"),
        Column("father", "number", 3, "NLL, nats a token"),
        Column("mother", "number", 3, "NLL, nats a token"),
        Column("child − father, 95 %", "number", title="Paired over texts"),
        Column("child − mother, 95 %", "number", title="Paired over texts"),
    )
    return table_value(columns, rows)


# ---------------------------------------------------------------------------------------------------- export, push


def export_words(kept: ExportView | None, busy: bool) -> str:
    """Where the export lies, and the command that gives the same bytes again."""
    if busy:
        return say(EXPORTING)
    if kept is None:
        return say(f"{NOT_EXPORTED} The folder brings its recipe.json: running it again gives the same bytes.")
    folder = Path(kept.folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    place = folder.name if on_a_space() else str(folder)
    recipe = shlex.quote(f"{place}/{RECIPE_FILE}")
    again = f"python -m darwin_lab merge \\\n  --recipe {recipe} \\\n  --out again"
    return (
        f"<div class='dl-hint'>{bytes_words(kept.bytes)} in {plural(len(files), 'file')}: "
        f"<code id='child_folder'>{html.escape(place)}</code>"
        "<p class='dl-note'>The same bytes again, from the shell:</p>"
        f"<pre class='dl-command' id='child_again' tabindex='0'>{html.escape(again)}</pre></div>"
    )


def download_of(kept: ExportView | None) -> Any:
    """The download button, holding the zip of the newest export (a link in the temporary folder gradio may serve)."""
    if kept is None or kept.archive is None or not Path(kept.archive).is_file():
        return gr.DownloadButton(visible=False)
    return gr.DownloadButton(value=served(Path(kept.archive), kept.id, f"{Path(kept.folder).name}.zip"), visible=True)


def push_words(done: PushView | None, kept: ExportView | None, busy: bool) -> str:
    """What became of the push."""
    if busy:
        return say("Uploading the export.")
    if done is not None:
        address = html.escape(done.url, quote=True)
        link = f"<a href='{address}' target='_blank' rel='noreferrer'>{html.escape(done.repo)}</a>"
        seen = "private" if done.private else "public"
        return f"<div class='dl-hint'>{bytes_words(done.bytes)} pushed to {link}, {seen}.</div>"
    return say("" if kept else "Export the child first; what is pushed is the finished folder.")


def plan_words(plan: PushPlan) -> str:
    """What a push would upload, as a short table."""
    rows = "".join(
        f"<tr><td class='code'>{html.escape(name)}</td><td class='num'>{bytes_words(size)}</td></tr>"
        for name, size in plan.files
    )
    seen = "private" if plan.private else "public"
    what = f"{plural(len(plan.files), 'file')}, {bytes_words(plan.total)}"
    head = f"Would upload {what}, to the {seen} repository {plan.repo}."
    return (
        f"<div class='dl-hint'>{html.escape(head)} Nothing was sent.</div>"
        f"<div class='dl-table-body' tabindex='0' id='push_plan'><table><tbody>{rows}</tbody></table></div>"
    )


def can_sign_in() -> bool:
    """Whether visitors can sign in with Hugging Face: the Space offers it, and what gradio needs for it is here."""
    needed = ("authlib", "itsdangerous")
    return bool(os.environ.get("OAUTH_CLIENT_ID")) and all(importlib.util.find_spec(name) for name in needed)


def _mean(interval: Interval | None) -> float | None:
    return None if interval is None else interval[0]


def _gap(interval: Interval | None) -> str | None:
    if interval is None:
        return None
    mean, low, high = interval
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def _told_apart(test: dict[str, Any]) -> dict[str, str]:
    if test["p"] >= SIGNIFICANT:
        return mark(None, "no difference shown")
    better = test["difference"] > 0
    return mark(better, "child better" if better else "child worse")


def _p(value: float) -> str:
    return "< .001" if value < 0.001 else f"{value:.3f}"
