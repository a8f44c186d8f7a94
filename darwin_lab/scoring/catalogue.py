"""The benchmarks of the Hub the lab knows: where they are, under what licence, and how their rows become items.

Takes the rows of a data set's files, gives items by split. Each entry names its source, prompt, chance level and which
part selection and report items come from. Rows that cannot be items are left out and counted, never silently. Knows
no network: `hub` fetches the files. Data sets, file names and columns as on the Hub; prompts as in
lm-evaluation-harness where it has the task, differences said in `prompt`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from darwin_lab.errors import LabError
from darwin_lab.scoring import hub_rows
from darwin_lab.scoring.items import Item, split_items

Row = Mapping[str, Any]
Rows = Sequence[tuple[str, Row]]
"""(name of the file inside the data set, one row)"""
ToItem = Callable[[str, int, Row], Item]
OPEN_SEED = 0
SHOTS = 5


@dataclass(frozen=True)
class Entry:
    """One benchmark.

    repo, revision  the data set and the commit it is pinned to; None: the newest at the first download, kept then
    parts           "open" and "report" -> its files (a trailing * takes what begins so); items of "open" are dealt to
                    selection and validation 2 : 1, those of "report" are all report items; "all" is dealt 40 / 20 / 40
    sizes           rows published for each part
    chance          one over the choices its card names; the items' own once they are read
    to_item         (file, number of the row, row) -> item; LabError for a row that is none
    """

    name: str
    title: str
    repo: str
    parts: Mapping[str, tuple[str, ...]]
    sizes: Mapping[str, int]
    licence: str
    chance: float
    kind: str
    prompt: str
    to_item: ToItem = field(repr=False)
    revision: str | None = None
    gated: bool = False
    note: str = ""
    max_new_tokens: int = 64
    shots: int = 0

    @property
    def url(self) -> str:
        """The data set's page."""
        return f"https://huggingface.co/datasets/{self.repo}"

    @property
    def split_sizes(self) -> dict[str, int]:
        """Items each split will have, by the published sizes (passages may move a few)."""
        if "all" in self.sizes:
            n = self.sizes["all"]
            first, second = round(0.4 * n), round(0.6 * n)
            return {"selection": first, "validation": second - first, "report": n - second}
        n = self.sizes["open"] - self.shots
        first = round(n * 2 / 3)
        return {"selection": first, "validation": n - first, "report": self.sizes["report"]}


@dataclass(frozen=True)
class Loaded:
    """Items of a benchmark by split, and what was left out of it ("" when nothing was)."""

    items: dict[str, list[Item]]
    left_out: str


def entry(name: str) -> Entry:
    """The benchmark of this name. LabError that lists the names there are."""
    if name not in CATALOGUE:
        raise LabError(f"no benchmark {name!r}; choose one of {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


def to_splits(chosen: Entry, parts: Mapping[str, Rows]) -> Loaded:
    """The items of a benchmark from the rows of its parts. LabError when no row of a part is an item."""
    made: dict[str, list[Item]] = {}
    left: list[str] = []
    for part, rows in parts.items():
        made[part] = _items(chosen, rows, left)
        if not made[part]:
            raise LabError(
                f"{chosen.repo}: no row of its {part} part could be read; first: {left[0] if left else 'none'}"
            )
    words = f"{len(left)} rows left out, first: {left[0]}" if left else ""
    if "all" in made:
        return Loaded(split_items(made["all"], OPEN_SEED), words)
    report = made["report"]
    seen = {item.id for item in report}
    rest = [item for item in made["open"] if item.id not in seen]
    pool: list[Item] = []
    if chosen.shots:
        from darwin_lab.scoring.shots import with_shots

        pool, rest = rest[: chosen.shots], rest[chosen.shots :]
        rest = with_shots(rest, pool, chosen.shots, same=True)
        report = with_shots(report, pool, chosen.shots, same=True)
    dealt = hub_rows.dealt(rest, OPEN_SEED)
    return Loaded({**dealt, "report": report}, words)


def _items(chosen: Entry, rows: Rows, left: list[str]) -> list[Item]:
    items: list[Item] = []
    seen: set[str] = set()
    for number, (file, row) in enumerate(rows):
        try:
            item = chosen.to_item(file, number, row)
        except LabError as error:
            left.append(str(error))
            continue
        except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
            raise LabError(
                f"{chosen.repo}, {file}, row {number + 1}: not the columns expected ({type(error).__name__}: {error}); "
                "the data set has changed, pin an older revision"
            ) from error
        if item.id in seen:
            left.append(f"{file}, row {number + 1}: id {item.id!r} a second time")
            continue
        seen.add(item.id)
        items.append(item)
    return items


_ARC = "`Question: ...\\nAnswer:`, log-likelihood of each choice's text (lm-evaluation-harness)"
_DEALT = "one part only: 40 % selection, 20 % validation, 40 % report, dealt by a hash"
_GPQA_ACCESS = "gated: accept its conditions on its page with your account, then log in with `hf auth login`"
_MMLU = "question, choices under A to D, `Answer:`, log-likelihood of the letter (MMLU's own, without the subject line)"
_LANGUAGES = (
    "AR-XY", "BN-BD", "DE-DE", "ES-LA", "FR-FR", "HI-IN", "ID-ID", "IT-IT", "JA-JP", "KO-KR", "PT-BR", "SW-KE",
    "YO-NG", "ZH-CN",
)  # fmt: skip
_MUSR = (("murder_mysteries", "murder_mystery", 250, 2), ("object_placements", "object_placements", 256, 5),
         ("team_allocation", "team_allocation", 250, 3))  # fmt: skip


def _arc(name: str, title: str, config: str, open_rows: int, report_rows: int) -> Entry:
    return Entry(
        name, title, "allenai/ai2_arc",
        {"open": (f"{config}/validation-*",), "report": (f"{config}/test-*",)},
        {"open": open_rows, "report": report_rows},
        "CC BY-SA 4.0", 0.25, "choice", _ARC, hub_rows.arc, "210d026faf9955653af8916fad021475a3f00453",
        note="selection from its validation part, report is its test part",
    )  # fmt: skip


def _mmmlu(name: str, title: str, languages: Sequence[str]) -> Entry:
    return Entry(
        name, title, "openai/MMMLU", {"all": tuple(f"test/mmlu_{tag}.csv" for tag in languages)},
        {"all": 14042 * len(languages)}, "MIT", 0.25, "choice", _MMLU, hub_rows.mmmlu,
        note=f"{_DEALT}, translations of one question together",
    )  # fmt: skip


CATALOGUE: dict[str, Entry] = {
    made.name: made
    for made in (
        _arc("arc_easy", "ARC-Easy", "ARC-Easy", 570, 2376),
        _arc("arc_challenge", "ARC-Challenge", "ARC-Challenge", 299, 1172),
        Entry(
            "gpqa_diamond", "GPQA Diamond", "Idavidrein/gpqa",
            {"open": ("gpqa_main.csv",), "report": ("gpqa_diamond.csv",)}, {"open": 448 - 198, "report": 198},
            "CC BY 4.0; asks not to be published in plain text", 0.25, "choice",
            "`What is the correct answer to this question:` and choices (A) to (D) in an order drawn by the record's "
            "id, log-likelihood of the letter (lm-evaluation-harness, whose order is drawn anew)",
            hub_rows.gpqa, gated=True,
            note=f"selection from GPQA main without its diamond items; {_GPQA_ACCESS}",
        ),
        Entry(
            "mmlu_pro", "MMLU-Pro", "TIGER-Lab/MMLU-Pro", {"all": ("data/test-*",)}, {"all": 12032}, "MIT", 0.1,
            "choice", "`Question: ...\\nAnswer:`, log-likelihood of each choice's text (lm-evaluation-harness's "
            "continuation form, not the five-shot reasoning of its card)",
            hub_rows.mmlu_pro, note=_DEALT,
        ),
        _mmmlu("mmmlu", "MMMLU, 14 languages", _LANGUAGES),
        *(_mmmlu(f"mmmlu_{tag.lower().replace('-', '_')}", f"MMMLU {tag}", [tag]) for tag in _LANGUAGES),
        Entry(
            "click", "CLIcK", "EunsuKim/CLIcK", {"all": ("Dataset/*",)}, {"all": 1995}, "not stated on its card", 0.25,
            "choice", "Korean instruction, passage, question and choices under letters, log-likelihood of the letter "
            "(lm-evaluation-harness, which shows four choices where there are five; here all are shown)",
            hub_rows.click, note=f"{_DEALT}, questions on one passage together",
        ),
        *(
            Entry(
                f"musr_{name}", f"MuSR {name.replace('_', ' ')}", "TAUR-Lab/MuSR", {"all": (f"{file}.csv",)},
                {"all": n}, "CC BY 4.0", 1 / choices, "choice", "story, question, numbered choices, `Answer:`, "
                "log-likelihood of each choice's text, counted by acc_norm (Open LLM Leaderboard's)",
                hub_rows.musr, "7c365b439a222150f317764d4f16ae6c96d7d94a",
                note=f"{_DEALT}, questions on one story together",
            )
            for name, file, n, choices in _MUSR
        ),
        Entry(
            "gsm8k", "GSM8K", "openai/gsm8k", {"open": ("main/train-*",), "report": ("main/test-*",)},
            {"open": 7473, "report": 1319}, "MIT", 0.0, "generative",
            "five solved items of the training part (the same for all), `Question: ...\\nAnswer:`, the number after "
            "####, else the last number",
            hub_rows.gsm8k,
            note="selection from its training part, which many models have seen; report is its test part",
            max_new_tokens=320, shots=SHOTS,
        ),
        Entry(
            "humaneval_choice", "HumanEval as choice", "openai/openai_humaneval", {"all": ("openai_humaneval/test-*",)},
            {"all": 164}, "MIT", 0.25, "choice",
            "signature and docstring, log-likelihood of the reference solution against copies of it with one token "
            "changed (made here; nothing is run, and a changed copy may be right by chance)",
            hub_rows.humaneval, note=_DEALT,
        ),
    )
}  # fmt: skip
"""Every benchmark by name."""
