"""The card of scan settings and kept scans over a real lab: its handlers read, queue, and refuse in words."""

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from darwin_lab.errors import Cancelled, LabError
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.memory import MemoryChoice
from darwin_lab.lab.pairs import Pair
from darwin_lab.mri.health_record import Thresholds
from darwin_lab.ui.page import build, child_stamp, scan_stamp
from darwin_lab.ui.tabs import health_views, mri_views
from darwin_lab.ui.tabs import mri_expert_views as expert_views
from darwin_lab.ui.tabs import scan_card_views as views
from tests.lab.conftest import write_probes

Handler = Callable[..., Any]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("home"), cpus=1)
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def pair(lab: Lab, tiny_moe_pair: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Pair:
    probes = write_probes(tmp_path_factory.mktemp("probes") / "probes.jsonl")
    pair = lab.open_pair(*tiny_moe_pair, probes=probes)
    for job in lab.request_scan(pair):
        lab.wait(job)
    return pair


@pytest.fixture(scope="module")
def page(lab: Lab, pair: Pair) -> gr.Blocks:
    return build(lab, pair)


@pytest.fixture(autouse=True)
def nothing_kept(lab: Lab) -> Iterator[None]:
    yield
    for about in lab.saved.list():
        lab.saved.forget(about.id)


@pytest.fixture
def toasts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the page says in toasts."""
    said: list[str] = []
    for kind in ("Warning", "Info"):
        monkeypatch.setattr(gr, kind, lambda words, *rest, **named: said.append(words))
    return said


def handler(page: gr.Blocks, elem_id: str, event: str) -> Handler:
    """What the page does on an event of a component."""
    wanted = next(key for key, block in page.blocks.items() if getattr(block, "elem_id", None) == elem_id)
    (found,) = (fn for fn in page.fns.values() if (wanted, event) in fn.targets)
    return found.fn


def rows(table: dict[str, Any]) -> dict[str, list[Any]]:
    return {row["id"]: row["cells"] for row in table["rows"]}


def test_the_card_is_on_the_page_and_shut(page: gr.Blocks) -> None:
    (card,) = (block for block in page.blocks.values() if getattr(block, "elem_id", None) == "scan_card")
    assert isinstance(card, gr.Accordion)
    assert card.open is False


def test_how_the_models_are_held_is_said_and_chosen(lab: Lab, pair: Pair, page: gr.Blocks) -> None:
    choose = handler(page, "scan_way", "input")
    assert "Streamed, one layer in memory at a time, as you chose" in choose(pair.key, "always")
    assert lab.memory(pair).way == "always"
    assert "Held in memory: a model takes" in choose(pair.key, "auto")
    assert lab.memory(pair).way == "auto"


def test_a_way_nobody_offered_becomes_a_toast(pair: Pair, page: gr.Blocks, toasts: list[str]) -> None:
    choose = handler(page, "scan_way", "input")
    assert choose(pair.key, "sometimes") == gr.skip()
    assert toasts == ["unknown way to hold a model &#x27;sometimes&#x27;; choose auto, always, never"]


def test_of_several_jobs_one_that_cannot_be_stopped_here_keeps_none_of_the_others(
    lab: Lab, page: gr.Blocks, toasts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = []

    def cancel(job: str) -> None:
        if job == "foreign":
            raise LabError("that job belongs to another process of Darwin Lab; stop it there")
        stopped.append(job)

    monkeypatch.setattr(lab, "cancel", cancel)
    stop = handler(page, "status_bar", "select")
    assert stop({}, SimpleNamespace(_data={"cancel": ["one", "foreign", "two"]})) == gr.skip()
    assert stopped == ["one", "two"]
    assert toasts == ["that job belongs to another process of Darwin Lab; stop it there"]
    assert stop({"notice": "failed"}, SimpleNamespace(_data={"cancel": []})) == {"notice": ""}


@pytest.fixture
def in_float32(lab: Lab, pair: Pair) -> Iterator[None]:
    """Afterwards the pair is scanned in float32 again, and nothing else is under way."""
    yield
    for job in lab.active_jobs():
        lab.cancel(job.id)
        with suppress(Cancelled):
            lab.wait(job.id)
    lab.set_dtype(pair, "float32")


def test_another_precision_is_said_and_chosen_and_a_small_pair_is_scanned_at_once(
    lab: Lab, pair: Pair, page: gr.Blocks, in_float32: None
) -> None:
    choose = handler(page, "scan_dtype", "input")
    assert "of weights in bfloat16" in choose(pair.key, "bfloat16")
    assert lab.dtype(pair) == "bfloat16"
    jobs = lab.active_jobs()
    assert jobs
    assert all(job.title.endswith(" in bfloat16") for job in jobs)
    assert "bfloat16" not in choose(pair.key, "float32")
    kept = len(lab.active_jobs()) + len(lab.ended_jobs())
    choose(pair.key, "float32")
    assert len(lab.active_jobs()) + len(lab.ended_jobs()) == kept, "those of float32 are there already"


def test_another_precision_of_a_large_pair_is_scanned_when_somebody_asks(
    lab: Lab, pair: Pair, page: gr.Blocks, in_float32: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darwin_lab.ui.tabs.scan_card.SMALL_BYTES", 0)
    handler(page, "scan_dtype", "input")(pair.key, "bfloat16")
    assert lab.dtype(pair) == "bfloat16"
    assert lab.active_jobs() == []


def test_a_precision_nobody_offered_becomes_a_toast(lab: Lab, pair: Pair, page: gr.Blocks, toasts: list[str]) -> None:
    assert handler(page, "scan_dtype", "input")(pair.key, "int4") == gr.skip()
    assert toasts == ["unknown dtype &#x27;int4&#x27; to scan in; choose float32 or bfloat16"]
    assert lab.dtype(pair) == "float32"


def test_another_pair_brings_its_way_and_its_precision(lab: Lab, pair: Pair, page: gr.Blocks, in_float32: None) -> None:
    ids = ["scan_memory", "scan_way", "scan_dtype"]
    outputs = [next(k for k, b in page.blocks.items() if getattr(b, "elem_id", None) == name) for name in ids]
    (follow,) = (fn for fn in page.fns.values() if [block._id for block in fn.outputs] == outputs)
    lab.set_dtype(pair, "bfloat16")
    assert follow.fn(pair.key)[1:] == ["auto", "bfloat16"]
    assert follow.fn("")[1:] == [gr.skip(), gr.skip()]


def test_the_mri_says_its_precision_and_never_shows_results_of_the_other_dtype(
    lab: Lab, pair: Pair, in_float32: None
) -> None:
    def shown() -> list[Any]:
        scans = mri_views.both_scans(lab, pair)
        charts = [
            *mri_views.probe_charts(pair, scans, "loss"),
            *(mri_views.difference(lab, pair, scans, "loss", view) for view in ("importance", "gain")),
            *expert_views.expert_charts(scans, "index"),
            expert_views.entropy_chart(scans),
            expert_views.similarity_chart(scans),
        ]
        assert all(chart.figure is not None for chart in charts)
        return charts

    def stamps() -> list[str]:
        return [scan_stamp(lab, pair, []), child_stamp(lab, pair, None, [], 0)]

    wide, before = shown(), stamps()
    words = mri_views.progress_words(lab, pair, mri_views.both_scans(lab, pair))
    assert "float" not in "".join(chart.note for chart in wide) + words
    lab.set_dtype(pair, "bfloat16")
    assert not set(before) & set(stamps()), "the page draws anew"
    for job in lab.request_scan(pair):
        lab.wait(job)
    narrow = shown()
    assert all(chart.note.endswith(" · scanned in bfloat16") for chart in narrow)
    assert "bfloat16" in mri_views.progress_words(lab, pair, mri_views.both_scans(lab, pair))
    assert "scanned in bfloat16" in expert_views.health_note(mri_views.both_scans(lab, pair))
    for one, other in zip(wide[:4], narrow[:4], strict=True):
        assert one.rows != other.rows
    lab.set_dtype(pair, "float32")
    assert [chart.rows for chart in shown()] == [chart.rows for chart in wide]


def test_a_health_says_its_precision_where_that_is_not_the_default() -> None:
    for dtype, said in (("float32", False), ("bfloat16", True)):
        health = SimpleNamespace(thresholds=Thresholds(), dtype=dtype)
        assert health_views.threshold_words(health).endswith("All three were scanned in bfloat16.") is said  # type: ignore[arg-type]


def test_without_a_pair_every_button_says_so(page: gr.Blocks, toasts: list[str]) -> None:
    for elem_id, event, rest in (
        ("scan_way", "input", ("auto",)),
        ("scan_dtype", "input", ("bfloat16",)),
        ("scan_halves", "click", ()),
        ("probes_use", "click", ("MATH: 1",)),
        ("probes_built_in", "click", ()),
        ("keep_go", "click", (None, "father", "x")),
    ):
        handler(page, elem_id, event)("", *rest)
        assert toasts.pop() == "no pair is open; open one in Parents"


def test_the_button_queues_the_halves_and_the_card_says_when_they_are_there(
    lab: Lab, pair: Pair, page: gr.Blocks, toasts: list[str]
) -> None:
    assert not views.has_halves(lab, pair)
    button = handler(page, "scan_halves", "click")(pair.key)
    assert button.interactive is False
    jobs = [job for job in lab.active_jobs() if job.kind == "scan"]
    assert {job.title for job in jobs} <= {"Scan of the father, halves too", "Scan of the mother, halves too"}
    for job in jobs:
        lab.wait(job.id)
    assert views.has_halves(lab, pair)


def test_pasted_probes_become_the_pair_of_the_page_and_are_scanned(lab: Lab, pair: Pair, page: gr.Blocks) -> None:
    rng = random.Random(2)
    text = "\n".join(f"TEA: {''.join(rng.choice('abc ') for _ in range(12))}." for _ in range(3))
    key, cleared = handler(page, "probes_use", "click")(pair.key, text)
    other = lab.pair(key)
    assert cleared == ""
    assert other.probes.names == ("TEA",)
    assert "1 probe, 3 texts, your own" in views.probe_words(other)
    assert any(job.kind == "scan" for job in lab.active_jobs())
    for job in lab.active_jobs():
        lab.cancel(job.id)


def test_an_uploaded_file_of_probes_is_used_and_the_built_in_ones_come_back(
    lab: Lab, pair: Pair, page: gr.Blocks, tmp_path: Path
) -> None:
    upload = tmp_path / "mine.jsonl"
    upload.write_text('{"probe": "TEA", "text": "at four"}\n{"probe": "TEA", "text": "at five"}\n')
    key, _ = handler(page, "probes_upload", "upload")(pair.key, str(upload))
    upload.unlink()
    assert lab.pair(key).probes.texts == {"TEA": ("at four", "at five")}
    built_in, _ = handler(page, "probes_built_in", "click")(key)
    assert lab.pair(built_in).refs["probes"] is None
    assert "built in" in views.probe_words(lab.pair(built_in))
    for job in lab.active_jobs():
        lab.cancel(job.id)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "nothing was pasted"),
        ("MATH: 1\nno label", "line 2 of the pasted probes has no label"),
        ("/etc/passwd", "line 1"),
    ],
)
def test_bad_probes_become_a_toast_and_the_pair_stays(
    pair: Pair, page: gr.Blocks, toasts: list[str], text: str, words: str
) -> None:
    assert handler(page, "probes_use", "click")(pair.key, text) == gr.skip()
    assert words in toasts[0]
    assert "root:" not in toasts[0]


def test_a_scan_is_kept_listed_renamed_shared_and_deleted(lab: Lab, pair: Pair, page: gr.Blocks) -> None:
    _, chosen, table, *picked = handler(page, "keep_go", "click")(pair.key, None, "father", "first")
    assert rows(table)[chosen][:3] == ["first", "father", 4]
    assert table["chosen"] == chosen
    about, more, name, download, _ = picked
    assert (about, more.visible, name) == ("", True, "first")
    assert Path(download.value["path"] if isinstance(download.value, dict) else download.value).name == "first.scan.zip"
    table, *_ = handler(page, "kept_rename", "click")(chosen, "second")
    assert rows(table)[chosen][0] == "second"
    again = handler(page, "keep_load", "upload")(str(lab.saved.share(chosen)))
    assert [cells[0] for cells in rows(again[1]).values()] == ["second (2)", "second"]
    gone = handler(page, "kept_delete", "click")(chosen)
    assert gone[0] == ""
    assert chosen not in rows(gone[1])
    assert handler(page, "kept_delete", "click")("") == gr.skip()


def test_what_cannot_be_kept_or_loaded_becomes_a_toast(
    lab: Lab, pair: Pair, page: gr.Blocks, toasts: list[str], tmp_path: Path
) -> None:
    handler(page, "keep_go", "click")(pair.key, None, "child", "child")
    assert "is not finished; scan it, then keep it" in toasts[-1]
    (tmp_path / "x.zip").write_text("no zip")
    handler(page, "keep_load", "upload")(str(tmp_path / "x.zip"))
    assert "x.zip is no zip file" in toasts[-1]
    handler(page, "kept_rename", "click")("../../etc", "x")
    assert "not the id of a kept scan" in toasts[-1]
    assert lab.saved.list() == []


def test_a_kept_scan_is_compared_with_a_parent_and_with_itself(lab: Lab, pair: Pair) -> None:
    kept = lab.saved.keep(pair, "father", "father <b>then</b>")
    words, wire = views.compared(lab, pair, ("mother", kept.id), ("Mother now", kept.name), "loss")
    assert "cells" in words
    assert "<b>" not in words
    assert "father bthen/b" in wire
    assert "PuOr" not in wire
    same, _ = views.compared(lab, pair, ("father", kept.id), ("Father now", kept.name), "loss")
    assert "are the same in every cell" in same
    refused, empty = views.compared(lab, pair, ("child", kept.id), ("Child at hand", kept.name), "loss")
    assert "there is no scan of" in refused
    assert "there is no scan of" in empty


def test_the_largest_difference_is_named_with_the_side_it_favours(lab: Lab, pair: Pair) -> None:
    import numpy as np

    from darwin_lab.mri.advantage import AdvantageMap

    values = np.array([[0.0, 0.1, 0.0], [0.0, 0.0, -0.4]])
    found = AdvantageMap("loss", None, ("MATH", "TEA"), values, np.full((2, 3), 0.01), 3.0, np.abs(values) > 0.05)
    assert "2 of 6 cells are told apart" in views.comparison_words(found, "now", "then")
    assert "layer 2 on TEA matters more in then" in views.comparison_words(found, "now", "then")
    chart = views.comparison_chart(found, "now", "then")
    assert chart.note.startswith("now − then")
    assert not any("father" in str(column) for column in chart.columns)


def test_figures_of_memory_are_words_people_use() -> None:
    told = views.memory_words(MemoryChoice("auto", True, 188 << 30, 21 << 30))
    assert "held whole, a model takes 188.0 GiB of weights, 21.0 GiB are free" in told
