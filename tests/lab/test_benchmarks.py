"""The benchmark desk on tiny models: jobs that fill a table, rows that are never made twice, what may be claimed."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from darwin_lab.errors import Cancelled, LabError
from darwin_lab.genome.genome import neutral_genome
from darwin_lab.lab.lab import Lab
from darwin_lab.lab.pairs import Pair
from darwin_lab.scoring.choice import score_choices
from darwin_lab.scoring.kept import Kept
from tests.lab.conftest import ITEMS_A_TASK
from tests.scoring.fake_hub import FakeHub, install


def run(lab: Lab, pair: Pair, models: list[str], benchmarks: list[str], **options: Any) -> list[dict[str, Any]]:
    return [lab.wait(job) for job in lab.benchmarks.request(pair, models, benchmarks, **options)]


def cells(lab: Lab, pair: Pair, split: str = "selection") -> dict[tuple[str, str], Any]:
    return {(row.model, row.benchmark): row for row in lab.benchmarks.table(pair, split)}


def child_of(lab: Lab, pair: Pair, ratio: float = 0.3) -> str:
    genome = neutral_genome("v6", pair.anatomy.layers).with_genes(mri_trust=0.0, global_ratio=ratio)
    return lab.recipe(pair, genome).hash


def write_csv(path: Path, n: int = 20) -> Path:
    rows = [["question", "A", "B", "answer", "topic"]]
    rows += [[f"{k}+1", str(k + 1), str(k), "A", "even" if k % 2 == 0 else "odd"] for k in range(n)]
    with path.open("w", newline="") as out:
        csv.writer(out).writerows(rows)
    return path


def test_the_pairs_own_tasks_are_benchmarks_and_the_hubs_stand_beside_them(lab: Lab, pair: Pair) -> None:
    infos = {info.name: info for info in lab.benchmarks.catalogue(pair)}
    own = infos["ADD"]
    assert (own.source, own.kind, own.n, own.chance) == ("pair", "choice", 30, pytest.approx(1 / 3))
    assert own.splits == {"selection": 10, "validation": 10, "report": 10}
    assert infos["arc_easy"].source == "hub" and not infos["arc_easy"].cached
    assert infos["gpqa_diamond"].gated and not lab.benchmarks.shown(infos["gpqa_diamond"])
    assert lab.benchmarks.shown(own)
    assert [choice.key for choice in lab.benchmarks.models(pair)] == ["father", "mother", "blend"]


def test_nothing_is_known_before_a_request_and_everything_after_it(lab: Lab, pair: Pair) -> None:
    before = cells(lab, pair)
    assert set(before) == {(who, task) for who in ("father", "mother", "blend") for task in ("ADD", "TAKE")}
    assert all((row.state, row.done, row.n, row.acc) == ("none", 0, 10, None) for row in before.values())
    assert lab.benchmarks.score(pair, "father", "ADD") is None
    assert lab.benchmarks.vigour(pair, "blend") == [] and lab.benchmarks.complementarity(pair, "ADD") is None
    results = run(lab, pair, ["father", "mother"], ["ADD"])
    assert [(result["model"], result["asked"]) for result in results] == [("father", 10), ("mother", 10)]
    row = cells(lab, pair)["father", "ADD"]
    assert (row.state, row.done, row.note) == ("done", 10, "")
    assert row.interval[0] <= row.acc <= row.interval[1] and row.corrected == pytest.approx((row.acc - 1 / 3) / (2 / 3))
    assert cells(lab, pair)["blend", "ADD"].state == "none"


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A benchmark of ten items takes several batches."""
    defaults = {**score_choices.__kwdefaults__, "batch_tokens": 64}
    monkeypatch.setattr("darwin_lab.scoring.choice.score_choices.__kwdefaults__", defaults)


@pytest.mark.usefixtures("small_batches")
def test_rows_are_seen_while_a_job_makes_them(lab: Lab, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, str, str, int]] = []
    put = Kept.put

    def watched(self: Kept, entries: Any) -> None:
        put(self, entries)
        table, score = cells(lab, pair), lab.benchmarks.score(pair, "father", "ADD")
        row = table["father", "ADD"]
        seen.append((row.done, row.state, table["father", "TAKE"].state, 0 if score is None else score.n))

    monkeypatch.setattr(Kept, "put", watched)
    run(lab, pair, ["father"], ["ADD", "TAKE"])
    first = [entry for entry in seen if entry[2] == "queued"]
    assert len(first) > 1 and first[0][0] < 10
    assert all(state == ("done" if done == 10 else "running") and done == n for done, state, _, n in first)
    assert seen[-1][2] == "done"


@pytest.mark.usefixtures("small_batches")
def test_a_stopped_job_goes_on_to_the_very_same_rows(
    new_lab: Callable[..., Lab], lab: Lab, pair: Pair, measures: dict[str, Any],
    tiny_llama_pair: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    batches: list[str] = []
    put = Kept.put

    def stopping(self: Kept, entries: Any) -> None:
        put(self, entries)
        batches.append(str(self.path))
        if len(batches) == 2:
            lab.cancel(lab.active_jobs()[0].id)

    monkeypatch.setattr(Kept, "put", stopping)
    with pytest.raises(Cancelled):
        run(lab, pair, ["father"], ["ADD"])
    stopped = cells(lab, pair)["father", "ADD"]
    assert 0 < stopped.done < 10 and stopped.state == "done" and stopped.note == f"{stopped.done} of 10 items"
    run(lab, pair, ["father"], ["ADD"])
    in_two_goes = len(batches)
    other = new_lab(tmp_path / "other")
    run(other, whole := other.open_pair(*tiny_llama_pair, **measures), ["father"], ["ADD"])
    resumed, fresh = lab.benchmarks.score(pair, "father", "ADD"), other.benchmarks.score(whole, "father", "ADD")
    assert resumed.to_rows() == fresh.to_rows()
    assert len(batches) == 2 * in_two_goes and not list((lab.store.home / "kept").rglob("*.jsonl"))


def test_what_was_answered_is_not_asked_again_here_or_after_an_evolutions_score(lab: Lab, pair: Pair) -> None:
    lab.wait(lab.request_score(pair, "father"))
    assert run(lab, pair, ["father"], ["ADD", "TAKE"])[0]["asked"] == 0
    assert cells(lab, pair)["father", "ADD"].done == 10
    assert run(lab, pair, ["mother"], ["ADD"], limit=4)[0]["asked"] == 4
    few = cells(lab, pair)["mother", "ADD"]
    assert (few.done, few.state, few.note) == (4, "done", "4 of 10 items")
    assert run(lab, pair, ["mother"], ["ADD"])[0]["asked"] == 6
    whole = lab.score(pair, "father").select(list(lab.benchmarks.score(pair, "father", "ADD").ids))
    np.testing.assert_array_equal(whole.p_gold, lab.benchmarks.score(pair, "father", "ADD").p_gold)


def test_a_limit_takes_the_same_items_for_every_model(lab: Lab, pair: Pair) -> None:
    run(lab, pair, ["father", "mother"], ["ADD"], limit=3)
    father, mother = (lab.benchmarks.score(pair, who, "ADD") for who in ("father", "mother"))
    assert father.ids == mother.ids and father.n == 3


def test_a_child_is_compared_with_both_parents_and_only_report_items_may_claim(lab: Lab, pair: Pair) -> None:
    child = child_of(lab, pair)
    run(lab, pair, ["father", "mother", child], ["ADD", "TAKE"])
    rows = lab.benchmarks.vigour(pair, child)
    assert [row.benchmark for row in rows] == ["ADD", "TAKE"] and all(row.n == ITEMS_A_TASK for row in rows)
    assert all("surpasses" not in row.verdict for row in rows)
    assert cells(lab, pair)[child, "ADD"].done == 10
    found = lab.benchmarks.complementarity(pair, "ADD")
    assert found.n == 10 and found.blend is None
    run(lab, pair, ["blend"], ["ADD"])
    assert lab.benchmarks.complementarity(pair, "ADD").blend is not None


def test_two_models_are_called_alike_only_when_tost_shows_it(lab: Lab, pair: Pair) -> None:
    ask = lab.benchmarks.equivalence
    run(lab, pair, ["father", "mother"], ["ADD"])
    assert ask(pair, "father", "blend", "ADD") is None
    few = ask(pair, "father", "mother", "ADD")
    assert few.n == 10 and not few.equivalent and few.low <= few.difference <= few.high
    assert (
        not ask(pair, "father", "father", "ADD").equivalent
        and ask(pair, "father", "father", "ADD", margin=0.3).equivalent
    )


def test_report_items_are_sealed_and_every_request_counts_a_look(lab: Lab, pair: Pair) -> None:
    with pytest.raises(LabError, match="sealed until a model is scored"):
        lab.benchmarks.items(pair, "ADD", "report")
    run(lab, pair, ["father", "mother"], ["ADD"], split="report")
    assert (lab.benchmarks.looks(pair, "ADD"), lab.benchmarks.looks(pair, "TAKE")) == (1, 0)
    assert run(lab, pair, ["father"], ["ADD"], split="report")[0]["asked"] == 0
    assert lab.benchmarks.looks(pair, "ADD") == 2
    assert len(lab.benchmarks.items(pair, "ADD", "report")) == 10
    lab.wait(lab.request_report(pair, "blend"))
    assert (lab.benchmarks.looks(pair, "ADD"), lab.benchmarks.looks(pair, "TAKE")) == (3, 1)
    run(lab, pair, ["father"], ["ADD"])
    assert lab.benchmarks.looks(pair, "ADD") == 3


def test_an_exported_child_and_a_folder_answer_item_for_item_as_the_virtual_child(
    lab: Lab, pair: Pair, tmp_path: Path
) -> None:
    child = child_of(lab, pair)
    lab.wait(lab.request_export(pair, child, tmp_path / "child"))
    folder = lab.benchmarks.add_folder(pair, tmp_path / "child")
    keys = {choice.kind: choice.key for choice in lab.benchmarks.models(pair, at_hand=child)}
    assert keys["folder"] == folder.key and keys["child"] == child and keys["export"].startswith("export:")
    run(lab, pair, [child, keys["export"], folder.key], ["ADD"])
    virtual, exported, beside = (lab.benchmarks.score(pair, key, "ADD") for key in (child, keys["export"], folder.key))
    assert virtual.predictions == exported.predictions == beside.predictions
    np.testing.assert_allclose(virtual.p_gold, exported.p_gold, atol=1e-6)


def test_an_export_and_the_same_folder_share_their_rows(lab: Lab, pair: Pair, tmp_path: Path) -> None:
    child = child_of(lab, pair)
    lab.wait(lab.request_export(pair, child, tmp_path / "child"))
    folder = lab.benchmarks.add_folder(pair, tmp_path / "child")
    export = next(choice.key for choice in lab.benchmarks.models(pair) if choice.kind == "export")
    assert [result["asked"] for result in run(lab, pair, [export, folder.key], ["ADD"])] == [10, 0]


def test_a_folder_that_is_gone_leaves_the_table_and_is_named_when_asked(lab: Lab, pair: Pair, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(pair.mother.folder, tmp_path / "copy")
    folder = lab.benchmarks.add_folder(pair, tmp_path / "copy")
    run(lab, pair, [folder.key], ["ADD"])
    assert (folder.key, "ADD") in cells(lab, pair)
    shutil.rmtree(tmp_path / "copy")
    assert (folder.key, "ADD") not in cells(lab, pair)
    with pytest.raises(LabError, match="copy"):
        lab.benchmarks.request(pair, [folder.key], ["ADD"])


def test_parents_that_cannot_be_merged_are_still_scored(
    lab: Lab, tiny_llama_pair: tuple[Path, Path, Path], tiny_moe_pair: tuple[Path, Path, Path], measures: dict[str, Any]
) -> None:
    pair = lab.open_pair(tiny_llama_pair[0], tiny_moe_pair[1], **measures)
    assert not pair.compatible
    assert [choice.key for choice in lab.benchmarks.models(pair)] == ["father", "mother"]
    run(lab, pair, ["father", "mother"], ["ADD"])
    assert {key for key, row in cells(lab, pair).items() if row.done == 10} == {("father", "ADD"), ("mother", "ADD")}
    assert lab.benchmarks.complementarity(pair, "ADD").n == 10
    with pytest.raises(LabError, match="parents differ"):
        lab.benchmarks.request(pair, ["blend"], ["ADD"])


def test_a_file_becomes_a_benchmark_with_splits_and_categories_and_is_kept(
    new_lab: Callable[..., Lab], lab: Lab, pair: Pair, tmp_path: Path, measures: dict[str, Any],
    tiny_llama_pair: tuple[Path, Path, Path],
) -> None:  # fmt: skip
    path = write_csv(tmp_path / "sums.csv")
    assert lab.benchmarks.guess_fields(path).fields["choices"] == ["A", "B"]
    info = lab.benchmarks.add_file(path)
    assert (info.name, info.source, info.n, info.chance) == ("sums", "file", 20, 0.5)
    assert info.splits == {"selection": 8, "validation": 4, "report": 8}
    path.unlink()
    run(lab, pair, ["father"], ["sums"])
    rows = lab.benchmarks.categories(pair, "father", "sums")
    assert sum(row.n for row in rows) == 8 and {row.category for row in rows} == {"even", "odd"}
    lab.close()
    other = new_lab(lab.store.home)
    again = other.open_pair(*tiny_llama_pair, **measures)
    assert cells(other, again)["father", "sums"].done == 8
    other.benchmarks.forget_file("sums")
    assert "sums" not in {info.name for info in other.benchmarks.catalogue(again)}
    with pytest.raises(LabError, match="no added file"):
        other.benchmarks.forget_file("sums")


def test_what_is_wrong_with_a_request_is_said_at_once(lab: Lab, pair: Pair, tmp_path: Path) -> None:
    ask = lab.benchmarks.request
    for arguments, options, words in (
        (([], ["ADD"]), {}, "at least one model"),
        ((["father"], []), {}, "at least one model"),
        ((["father"], ["NOPE"]), {}, "no benchmark is called 'NOPE'"),
        ((["nobody"], ["ADD"]), {}, "no child 'nobody'"),
        ((["folder:abc"], ["ADD"]), {}, "no model 'folder:abc'"),
        ((["father"], ["ADD"]), {"split": "all"}, "unknown split 'all'"),
        ((["father"], ["ADD"]), {"limit": 0}, "0 items of each benchmark"),
    ):
        with pytest.raises(LabError, match=words):
            ask(pair, *arguments, **options)
    with pytest.raises(LabError, match=r"no folder .* on this machine"):
        lab.benchmarks.add_folder(pair, tmp_path / "nothing")
    with pytest.raises(LabError, match="Hub's catalogue"):
        lab.benchmarks.add_file(write_csv(tmp_path / "x.csv"), name="arc_easy")
    with pytest.raises(LabError, match="cannot name a benchmark"):
        lab.benchmarks.add_file(write_csv(tmp_path / "x.csv"), name="../x")
    assert lab.benchmarks.looks(pair, "ADD") == 0 and lab.active_jobs() == []


def test_a_benchmark_a_model_cannot_read_leaves_the_others_and_says_why_in_its_row(
    lab: Lab, pair: Pair, tmp_path: Path
) -> None:
    rows = [{"question": f"{k}?", "choices": ["Ä", "1"], "answer": 0} for k in range(10)]
    path = tmp_path / "umlauts.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    lab.benchmarks.add_file(path)
    with pytest.raises(LabError, match=r"umlauts: .*no token for 'Ä'"):
        run(lab, pair, ["father"], ["umlauts", "ADD"])
    table = cells(lab, pair)
    assert "no token for 'Ä'" in table["father", "umlauts"].note and table["father", "umlauts"].state == "none"
    assert table["father", "ADD"].done == 10


def test_published_rows_are_unpaired_and_impossible_counts_are_flagged(lab: Lab, pair: Pair) -> None:
    good = lab.benchmarks.add_reference("ADD", "Card", "88.9", 198, "its model card")
    assert (good.possible, good.acc) == (True, pytest.approx(0.889)) and "unpaired" in good.note
    bad = lab.benchmarks.add_reference("ADD", "Other", "90.0", 198, "its model card")
    assert not bad.possible and "90.0 % of 198 is no possible count: 89.9 % (178) or 90.4 % (179)" in bad.note
    assert lab.benchmarks.references("ADD") == [good, bad] and lab.benchmarks.references("TAKE") == []
    for row in (("", "90.0", 198, "s"), ("x", "ninety", 198, "s"), ("x", "90.0", 0, "s"), ("x", "90.0", 198, " ")):
        with pytest.raises(LabError):
            lab.benchmarks.add_reference("ADD", *row)
    lab.benchmarks.forget_reference("ADD", "Card")
    assert [row.name for row in lab.benchmarks.references("ADD")] == ["Other"]
    assert lab.benchmarks.smallest_gap(198) < lab.benchmarks.smallest_gap(50)


def test_the_table_is_exported_without_any_item(lab: Lab, pair: Pair) -> None:
    with pytest.raises(LabError, match="no model has answered"):
        lab.benchmarks.export(pair, "selection", "csv")
    run(lab, pair, ["father", "mother"], ["ADD"])
    lab.benchmarks.add_reference("ADD", "A | pipe", "90.0", 198, "a card")
    made = {form: lab.benchmarks.export(pair, "selection", form) for form in ("csv", "json", "markdown")}
    rows = list(csv.DictReader(io.StringIO(made["csv"])))
    assert [(row["model"], row["done"]) for row in rows] == [("father", "10"), ("mother", "10")]
    told = json.loads(made["json"])
    assert told["rows"][0]["label"].startswith("Father") and not told["references"]["ADD"][0]["possible"]
    lines = made["markdown"].splitlines()
    assert lines[4].startswith("| ADD | A \\| pipe (a card; published, unpaired, not a possible count) | 198 | 90.0 %")
    questions = {item.question for item in lab.benchmarks.items(pair, "ADD")}
    assert not any(question in text for question in questions for text in made.values())
    with pytest.raises(LabError, match="no export 'xml'"):
        lab.benchmarks.export(pair, "selection", "xml")


def test_leaks_of_the_pairs_items_are_found_and_kept(
    lab: Lab, tiny_llama_pair: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    text = "which of these numbers is the larger one of them all"
    rows = [
        {"id": f"{split}{k}", "task": "T", "question": text if k == 0 else f"{split} {k}", "choices": ["1", "2"],
         "answer": 0, "meta": {"split": split}}
        for split in ("selection", "validation", "report") for k in range(2)
    ]  # fmt: skip
    items, probes = tmp_path / "items.jsonl", tmp_path / "probes.jsonl"
    items.write_text("\n".join(json.dumps(row) for row in rows))
    probes.write_text("\n".join(json.dumps({"probe": "MATH", "text": f"ask {text} now"}) for _ in range(1)))
    pair = lab.open_pair(*tiny_llama_pair, items=[items], probes=probes)
    found = lab.benchmarks.leaks(pair)
    assert {(leak.kind, leak.first_set, leak.second_set) for leak in found} == {
        ("exact", "selection", "validation"), ("exact", "selection", "report"), ("exact", "validation", "report"),
        ("inside", "selection", "MATH"), ("inside", "validation", "MATH"), ("inside", "report", "MATH"),
    }  # fmt: skip
    assert lab.benchmarks.leaks(pair) == found
    same = tmp_path / "same.jsonl"
    same.write_text("\n".join(json.dumps({"question": text, "options": ["1", "2"], "answer": 0}) for _ in range(10)))
    lab.benchmarks.add_file(same)
    in_file = lab.benchmarks.leaks(pair, "same")
    assert {leak.kind for leak in in_file} == {"exact", "inside"} and len(in_file) == 4 * 2 + 4 * 4 + 2 * 4 + 10
    with pytest.raises(LabError, match="not on this machine"):
        lab.benchmarks.leaks(pair, "arc_easy")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeHub:
    return install(monkeypatch, tmp_path / "fake")


def test_a_hub_benchmark_is_downloaded_by_its_job_and_its_gated_items_stay_hidden(
    fake: FakeHub, lab: Lab, family_pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not next(info for info in lab.benchmarks.catalogue(family_pair) if info.name == "gpqa_diamond").cached
    with pytest.raises(LabError, match="run it once"):
        lab.benchmarks.items(family_pair, "gpqa_diamond")
    run(lab, family_pair, ["father"], ["gpqa_diamond"], limit=2)
    info = next(info for info in lab.benchmarks.catalogue(family_pair) if info.name == "gpqa_diamond")
    assert info.cached and "at 0123456789ab" in info.note and not lab.benchmarks.shown(info)
    row = cells(lab, family_pair)["father", "gpqa_diamond"]
    assert (row.done, row.n, row.note) == (2, 5, "2 of 5 items")
    texts = [lab.benchmarks.export(family_pair, "selection", form) for form in ("csv", "json", "markdown")]
    for item in lab.benchmarks.items(family_pair, "gpqa_diamond"):
        assert not any(part in text for text in texts for part in (item.question, item.id))
    monkeypatch.setenv("SPACE_ID", "someone/space")
    with pytest.raises(LabError, match="not shown on a Space"):
        lab.benchmarks.items(family_pair, "gpqa_diamond")


def test_a_hub_that_is_away_fails_the_job_in_one_line(fake: FakeHub, lab: Lab, pair: Pair) -> None:
    from huggingface_hub.errors import OfflineModeIsEnabled

    fake.error = lambda repo: OfflineModeIsEnabled("x")
    with pytest.raises(LabError, match=r"arc_easy: arc_easy \(allenai/ai2_arc\) is not on this machine"):
        run(lab, pair, ["father"], ["arc_easy"])
    row = cells(lab, pair)["father", "arc_easy"]
    assert row.state == "none" and "cannot be reached" in row.note and row.n == 380


@pytest.fixture
def family_pair(lab: Lab) -> Pair:
    return lab.family_pair()
