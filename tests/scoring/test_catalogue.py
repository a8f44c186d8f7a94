"""The Hub's benchmarks on rows of their true columns: prompts, right answers, splits, pins, and a Hub that refuses."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from darwin_lab.errors import LabError
from darwin_lab.scoring import hub
from darwin_lab.scoring.catalogue import CATALOGUE, entry
from darwin_lab.scoring.hub_rows import mutants
from darwin_lab.scoring.items import Item, by_choice
from darwin_lab.scoring.prompt import context_of
from darwin_lab.scoring.protocols import Call
from darwin_lab.scoring.questions import answer_in, golds_of, order_of, turns_of
from tests.scoring.fake_hub import FILES, SHA, FakeHub, install

pytest.importorskip("pyarrow")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeHub:
    return install(monkeypatch, tmp_path / "hub")


def items_of(name: str, folder: Path) -> dict[str, list[Item]]:
    return hub.load(entry(name), folder / "pins")[0].items


def told(item: Item) -> str:
    """The right choice of an item."""
    assert item.choices is not None
    return item.choices[int(item.answer)]


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_benchmark_is_read_from_its_true_columns(fake: FakeHub, tmp_path: Path, name: str) -> None:
    found = items_of(name, tmp_path)
    every = [item for items in found.values() for item in items]
    assert all(found.values()), {split: len(items) for split, items in found.items()}
    assert len({item.id for item in every}) == len(every)
    chosen = entry(name)
    assert all(by_choice(item) == (chosen.kind == "choice") for item in every)
    assert not {item.cluster for item in found["report"]} & {item.cluster for item in found["selection"]}


def test_arc_is_asked_as_lm_eval_asks_it_and_reads_letters_and_numbers(fake: FakeHub, tmp_path: Path) -> None:
    report = items_of("arc_easy", tmp_path)["report"]
    assert [told(item) for item in report] == ["iron", "fire", "sea"]
    assert context_of(report[0]) == "Question: Which is a metal?\nAnswer:"
    assert {len(item.choices or ()) for item in report} == {2, 3, 4}
    assert {revision for _, _, revision in fake.asked} == {entry("arc_easy").revision}
    assert {name for _, name, _ in fake.asked} == {
        f"ARC-Easy/{part}-00000-of-00001.parquet" for part in ("validation", "test")
    }


def test_gpqa_reports_on_diamond_selects_from_the_rest_and_stores_its_order(fake: FakeHub, tmp_path: Path) -> None:
    found = items_of("gpqa_diamond", tmp_path)
    assert [item.id for item in found["report"]] == [f"gpqa-rec{k}" for k in range(4)]
    assert {item.id for item in found["selection"] + found["validation"]} == {f"gpqa-rec{k}" for k in range(4, 12)}
    for item in found["report"]:
        lines = item.question.split("\n")
        assert lines[0].startswith("What is the correct answer to this question:What is rec")
        assert lines[2:6][int(item.answer)] == f"({'ABCD'[int(item.answer)]}) right {item.id.removeprefix('gpqa-')}"
        assert any("w. x" in line for line in lines) and any("two spaces" in line for line in lines)
    assert len({int(item.answer) for items in found.values() for item in items}) > 1
    assert items_of("gpqa_diamond", tmp_path)["report"] == found["report"]
    assert entry("gpqa_diamond").gated


def test_translations_of_one_question_are_one_cluster_and_never_torn(fake: FakeHub, tmp_path: Path) -> None:
    found = items_of("mmmlu", tmp_path)
    assert sum(map(len, found.values())) == 140
    for split, items in found.items():
        here = {item.cluster for item in items}
        assert all(here.isdisjoint({item.cluster for item in other}) for name, other in found.items() if name != split)
    one = items_of("mmmlu_ko_kr", tmp_path)["report"][0]
    assert one.question.startswith("KO-KR ") and one.question.endswith("D. four\nAnswer:")
    assert one.choices == ("A", "B", "C", "D") and one.category == "KO-KR anatomy"


def test_click_keeps_five_choices_passages_together_and_says_what_it_left_out(fake: FakeHub, tmp_path: Path) -> None:
    loaded, _ = hub.load(entry("click"), tmp_path / "pins")
    every = [item for items in loaded.items.values() for item in items]
    assert len(every) == 18 and loaded.left_out.startswith("1 rows left out, first: Dataset/Language/Textual")
    five = [item for item in every if len(item.choices or ()) == 5]
    assert len(five) == 6 and len({item.cluster for item in five}) == 1
    assert "E: 마" in five[0].question and "맥락: 긴 글" in five[0].question
    plain = next(item for item in every if item.category == "Korean Law")
    assert plain.question.startswith("주어진 질문을 천천히 읽고, 적절한 정답을 A, B, C, D 중에 골라")


def test_musr_lists_its_choices_and_counts_by_acc_norm(fake: FakeHub, tmp_path: Path) -> None:
    items = [item for part in items_of("musr_team_allocation", tmp_path).values() for item in part]
    first = next(item for item in items if item.id == "team_allocation-0")
    assert first.question.endswith("1 - A: x, B: y\n2 - A: y, B: x\n3 - A: x, y\n\nAnswer:")
    assert (told(first), first.meta["primary"]) == ("A: x, B: y", "acc_norm")


def test_gsm8k_follows_five_solved_training_items_and_reads_the_number(fake: FakeHub, tmp_path: Path) -> None:
    found = items_of("gsm8k", tmp_path)
    assert [item.answer for item in found["report"]] == ["0", "2", "4", "6", "8", "10"]
    assert len(found["selection"]) + len(found["validation"]) == 15
    prefix = found["report"][0].meta["prefix"]
    assert prefix.count("Question: train:") == 5 and prefix.count("####") == 5
    assert all(item.meta["prefix"] == prefix for items in found.values() for item in items)
    assert not set(found["report"][0].meta["shots"]) & {item.id for items in found.values() for item in items}


def test_humaneval_choices_are_the_solution_and_copies_with_one_token_changed(fake: FakeHub, tmp_path: Path) -> None:
    items = [item for part in items_of("humaneval_choice", tmp_path).values() for item in part]
    solution = "    if x > 0 and x <= 9:\n        return x + 1\n    return x - 1"
    assert all(told(item) == solution and len(item.choices or ()) == 4 for item in items)
    wrong = list(mutants(solution))
    assert len(wrong) == len(set(wrong)) and solution not in wrong
    assert "    if x > 0 and x < 9:\n        return x + 1\n    return x - 1" in wrong
    assert len({int(item.answer) for item in items}) > 1


def test_an_unpinned_benchmark_is_pinned_at_its_first_download_and_read_again_without_the_hub(
    fake: FakeHub, tmp_path: Path
) -> None:
    assert hub.pinned(entry("gsm8k"), tmp_path / "pins") is None
    first, revision = hub.load(entry("gsm8k"), tmp_path / "pins")
    assert revision == SHA and {asked[2] for asked in fake.asked} == {SHA}
    fake.error = lambda repo: AssertionError("the Hub was asked again")
    again, later = hub.load(entry("gsm8k"), tmp_path / "pins")
    assert (again.items, later) == (first.items, SHA)
    for _, path in hub.pinned(entry("gsm8k"), tmp_path / "pins").files["report"]:
        Path(path).unlink()
    assert hub.pinned(entry("gsm8k"), tmp_path / "pins") is None


def test_a_pin_that_is_damaged_or_of_another_revision_is_fetched_anew(fake: FakeHub, tmp_path: Path) -> None:
    pins = tmp_path / "pins"
    hub.load(entry("arc_easy"), pins)
    (pins / "arc_easy.json").write_text((pins / "arc_easy.json").read_text().replace("210d026f", "ffffffff"))
    assert hub.pinned(entry("arc_easy"), pins) is None
    (pins / "arc_easy.json").write_text("[]")
    assert hub.pinned(entry("arc_easy"), pins) is None
    assert hub.load(entry("arc_easy"), pins)[1] == entry("arc_easy").revision


def refusals() -> list[tuple[str, Exception, str]]:
    import httpx2
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    def answer(code: int) -> httpx2.Response:
        return httpx2.Response(code, request=httpx2.Request("GET", "https://huggingface.co"))

    return [
        (
            "gpqa_diamond",
            GatedRepoError("x", response=answer(401)),
            r"accept its conditions at https://.*gpqa .*hf auth",
        ),
        ("gpqa_diamond", HfHubHTTPError("x", response=answer(403)), "is gated: accept"),
        ("arc_easy", RepositoryNotFoundError("x", response=answer(404)), "not on the Hub under that name"),
        ("arc_easy", HfHubHTTPError("x", response=answer(503)), "the Hub answered 503"),
        ("arc_easy", httpx2.ConnectError("no route"), "is not on this machine and the Hub cannot be reached"),
        ("arc_easy", OfflineModeIsEnabled("x"), "connect once and ask again, or use a local file of its items$"),
        (
            "gpqa_diamond",
            OfflineModeIsEnabled("x"),
            r"connect once .* gated: accept its conditions at https://.*hf auth",
        ),
    ]


@pytest.mark.parametrize("case", range(7))
def test_a_hub_that_refuses_or_is_away_is_one_line_that_says_what_to_do(
    fake: FakeHub, tmp_path: Path, case: int
) -> None:
    name, error, words = refusals()[case]
    fake.error = lambda repo: error
    with pytest.raises(LabError, match=words) as found:
        hub.load(entry(name), tmp_path / "pins")
    assert "\n" not in str(found.value)
    assert not (tmp_path / "pins").exists()


def test_a_data_set_with_other_columns_or_files_is_named(
    fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        FILES, "openai/gsm8k", {"main/train-0.parquet": [{"q": "?"}], "main/test-0.parquet": [{"q": "?"}]}
    )
    with pytest.raises(LabError, match=r"openai/gsm8k, main/train-0.parquet, row 1: not the columns expected"):
        hub.load(entry("gsm8k"), tmp_path / "pins")
    monkeypatch.setitem(FILES, "openai/gsm8k", {"other.txt": []})
    with pytest.raises(LabError, match="has no file main/train"):
        hub.load(entry("gsm8k"), tmp_path / "other")


def test_an_unknown_benchmark_lists_those_there_are() -> None:
    with pytest.raises(LabError, match="no benchmark 'arc'; choose one of arc_easy"):
        entry("arc")


def test_published_sizes_are_what_the_splits_add_up_to() -> None:
    for chosen in CATALOGUE.values():
        sizes = chosen.split_sizes
        assert sum(sizes.values()) == sum(chosen.sizes.values()) - chosen.shots and min(sizes.values()) > 0
        assert chosen.licence and chosen.prompt and 0 <= chosen.chance < 1
    assert entry("gpqa_diamond").split_sizes["report"] == 198 and entry("arc_easy").split_sizes["report"] == 2376


@pytest.mark.parametrize("name", ["gpqa_diamond", "mmmlu_ko_kr", "click"])
def test_a_written_letter_is_the_option_the_question_shows_under_it(fake: FakeHub, tmp_path: Path, name: str) -> None:
    for item in (replace(item, meta={**item.meta, "extract": "letter"}) for item in items_of(name, tmp_path)["report"]):
        choices = item.choices or ()
        for showing in (0, 1, 5):
            call = Call(0, showing, 0.7, showing)
            order = order_of(item, call, 3)
            (asked,) = turns_of(item, call, order)
            body, cue = item.question.rsplit("\n", 1)
            letters = "ABCDE"[: len(choices)]
            ending = f'End with a line "ANSWER: LETTER", the letter one of {letters}.'
            assert asked == f"{body}\n{ending}\n{cue}", "the question as it is, and no second list"
            right = told(item).strip("()")
            assert [answer_in(item, order, f"so\nANSWER: {right}")] == golds_of([item]) == [item.answer]
            assert answer_in(item, order, "ANSWER: Z") is None


def test_a_gpqa_answer_found_in_the_prompt_alone_is_right(fake: FakeHub, tmp_path: Path) -> None:
    for item in (
        replace(item, meta={**item.meta, "extract": "letter"}) for item in items_of("gpqa_diamond", tmp_path)["report"]
    ):
        order = order_of(item, Call(0, 0, 0.0), 0)
        (asked,) = turns_of(item, Call(0, 0, 0.0), order)
        (letter,) = re.findall(r"^\W*([A-Z])\W+right rec\d", asked, re.MULTILINE)
        assert answer_in(item, order, f"ANSWER: {letter}") == item.answer


def test_musr_asked_by_letter_lists_its_options_once(fake: FakeHub, tmp_path: Path) -> None:
    item = items_of("musr_murder_mysteries", tmp_path)["report"][0]
    item = replace(item, meta={**item.meta, "extract": "letter"})
    (asked,) = turns_of(item, Call(0, 0, 0.0), order_of(item, Call(0, 0, 0.0), 0))
    assert (asked.count("Ann"), asked.count("Bob"), asked.count("Answer:")) == (1, 1, 1)
