"""The charts of a model card, as PNG: mother's share per layer and component, the strip of blocks, scores.

Takes a recipe or scores and a path, writes a picture; equal inputs give equal bytes. Draws with matplotlib, which is
imported when the first chart is drawn, and opens no window.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darwin_lab.merging.recipe import Recipe

FATHER, MOTHER, CHILD, BLEND, GREY = "#0072B2", "#D55E00", "#009E73", "#7D8590", "#8B949E"
_PURPLE = "#8A6FB0"
_COLOUR = {"father": FATHER, "mother": MOTHER, "child": CHILD, "blend": BLEND}
_COMPONENTS = (("attn", "attention", CHILD, "o"), ("ffn", "feed-forward and experts", _PURPLE, "s"))
_DPI = 110


@dataclass(frozen=True)
class CardScore:
    """Accuracy of one model ("child", "father", "mother", "blend") on one task; `interval` is its 95 % interval."""

    model: str
    task: str
    n: int
    acc: float
    interval: tuple[float, float]


def ratio_chart(recipe: Recipe, path: Path) -> bool:
    """Mother's share by layer, one line a component. False, and no file, when no layer is merged."""
    lines = [(label, colour, mark, recipe.layer_ratios(name)) for name, label, colour, mark in _COMPONENTS]
    if not any(ratio is not None for *_, ratios in lines for ratio in ratios):
        return False
    with _figure(path, 8.0, 3.2) as axes:
        for label, colour, mark, ratios in lines:
            points = [(layer, ratio) for layer, ratio in enumerate(ratios) if ratio is not None]
            if points:
                axes.plot(
                    *zip(*points, strict=True), color=colour, marker=mark, markersize=4, linewidth=1.4, label=label
                )
        axes.axhline(0.5, color=GREY, linewidth=0.8, linestyle=":")
        axes.set_ylim(-0.04, 1.04)
        _layer_axis(axes)
        axes.set_ylabel("mother's share")
        axes.legend(frameon=False, fontsize=8)
    return True


def block_chart(recipe: Recipe, path: Path) -> bool:
    """One cell a layer and component, blue the father's, orange the mother's. False when no layer is merged."""
    from matplotlib.colors import LinearSegmentedColormap

    rows = [(label, recipe.layer_ratios(name)) for name, label, *_ in _COMPONENTS]
    if not any(ratio is not None for _, ratios in rows for ratio in ratios):
        return False
    cells = [[float("nan") if ratio is None else ratio for ratio in ratios] for _, ratios in rows]
    with _figure(path, 8.0, 1.7) as axes:
        shades = LinearSegmentedColormap.from_list("share", [FATHER, "#F3F3F3", MOTHER])
        image = axes.imshow(cells, cmap=shades, vmin=0.0, vmax=1.0, aspect="auto", interpolation="nearest")
        axes.set_yticks(range(len(rows)), [label for label, _ in rows], fontsize=8)
        _layer_axis(axes)
        axes.figure.colorbar(image, ax=axes, label="mother's share", fraction=0.03, pad=0.02)
    return True


def scores_chart(scores: Sequence[CardScore], path: Path) -> bool:
    """Accuracy with its interval, child beside parents, one group a task. False without scores."""
    if not scores:
        return False
    tasks = list(dict.fromkeys(score.task for score in scores))
    models = list(dict.fromkeys(score.model for score in scores))
    with _figure(path, 8.0, 3.2) as axes:
        for place, model in enumerate(models):
            mine = [score for score in scores if score.model == model]
            x = [tasks.index(score.task) + (place - (len(models) - 1) / 2) * 0.16 for score in mine]
            below = [score.acc - score.interval[0] for score in mine]
            above = [score.interval[1] - score.acc for score in mine]
            axes.errorbar(
                x, [score.acc for score in mine], yerr=[below, above], fmt="o", markersize=4, capsize=2,
                color=_COLOUR.get(model, GREY), label=model,
            )  # fmt: skip
        sizes = {score.task: score.n for score in scores}
        axes.set_xticks(range(len(tasks)), [f"{task}\nn={sizes[task]}" for task in tasks], fontsize=8)
        axes.set_ylabel("accuracy, 95 % interval")
        axes.legend(frameon=False, fontsize=8)
    return True


def _layer_axis(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("layer")


@contextmanager
def _figure(path: Path, width: float, height: float) -> Iterator[Any]:
    """Axes to draw on; the picture is written when the block ends. The user's matplotlib settings do not matter."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "agg", "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        yield axes
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path, format="png", metadata={"Software": None})
