"""A Hub in a folder: data sets with the files, columns and types of the real ones, and made-up rows."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

SHA = "0123456789abcdef0123456789abcdef01234567"


def arc_row(name: str, question: str, texts: list[str], labels: str, answer: str) -> dict[str, Any]:
    return {"id": name, "question": question, "choices": {"text": texts, "label": list(labels)}, "answerKey": answer}


ARC = [
    arc_row("M1", "Which is a metal?", ["iron", "wood", "air"], "ABC", "A"),
    arc_row("M2", "Which is hot?", ["ice", "fire", "snow", "rain"], "1234", "2"),
    arc_row("M3", "Which is wet?", ["sea", "sand"], "AB", "A"),
]


def gpqa_row(name: str) -> dict[str, str]:
    return {
        "Record ID": name, "Question": f"What is {name}?", "Correct Answer": f" right {name} ",
        "Incorrect Answer 1": "w [title]x", "Incorrect Answer 2": "two  spaces", "Incorrect Answer 3": "",
        "Explanation": "because", "High-level domain": "Physics", "Subdomain": "Optics",
    }  # fmt: skip


def mmmlu_rows(language: str) -> list[dict[str, str]]:
    return [
        {"": str(k), "Question": f"{language} {k}?", "A": "one", "B": "two", "C": "three", "D": "four",
         "Answer": "ABCD"[k % 4], "Subject": "anatomy"}
        for k in range(10)
    ]  # fmt: skip


def click_rows(name: str, passage: str = "") -> list[dict[str, Any]]:
    many = ["가", "나", "다", "라", "마"] if "CSAT" in name else ["가", "나", "다", "라"]
    return [
        {"id": f"{name}_{k}", "paragraph": passage, "question": f"질문 {k}?", "choices": many, "answer": many[k % 4]}
        for k in range(6)
    ]


def musr_rows(kind: str, choices: list[str]) -> list[dict[str, str]]:
    return [
        {"narrative": f"{kind} story {k // 2}", "question": f"Who {k}?", "choices": repr(choices),
         "answer_index": str(k % len(choices)), "answer_choice": choices[k % len(choices)]}
        for k in range(10)
    ]  # fmt: skip


def gsm8k_rows(part: str, n: int) -> list[dict[str, str]]:
    return [
        {"question": f"{part}: {k} and {k}?", "answer": f"{k}+{k}=<<{k}+{k}={2 * k}>>{2 * k}\n#### {2 * k}"}
        for k in range(n)
    ]


HUMANEVAL = [
    {"task_id": f"HumanEval/{k}", "prompt": f'def f{k}(x):\n    """Do it."""\n', "entry_point": f"f{k}", "test": "pass",
     "canonical_solution": "    if x > 0 and x <= 9:\n        return x + 1\n    return x - 1\n"}
    for k in range(10)
]  # fmt: skip

FILES: dict[str, dict[str, list[dict[str, Any]]]] = {
    "allenai/ai2_arc": {
        f"{config}/{part}-00000-of-00001.parquet": [{**row, "id": f"{part}{row['id']}"} for row in ARC]
        for config in ("ARC-Easy", "ARC-Challenge")
        for part in ("train", "validation", "test")
    },
    "Idavidrein/gpqa": {
        "gpqa_main.csv": [gpqa_row(f"rec{k}") for k in range(12)],
        "gpqa_diamond.csv": [gpqa_row(f"rec{k}") for k in range(4)],
    },
    "TIGER-Lab/MMLU-Pro": {
        "data/test-00000-of-00001.parquet": [
            {"question_id": k, "question": f" Q{k}? ", "options": [f"o{j}" for j in range(3 + k % 7)], "answer": "B",
             "answer_index": 1, "cot_content": "", "category": "law", "src": "x"}
            for k in range(20)
        ],
    },
    "openai/MMMLU": {f"test/mmlu_{tag}.csv": mmmlu_rows(tag) for tag in (
        "AR-XY", "BN-BD", "DE-DE", "ES-LA", "FR-FR", "HI-IN", "ID-ID", "IT-IT", "JA-JP", "KO-KR", "PT-BR", "SW-KE",
        "YO-NG", "ZH-CN",
    )},
    "EunsuKim/CLIcK": {
        "Dataset/Culture/Korean Law/Law_KIIP.json": click_rows("KIIP_law"),
        "Dataset/Language/Grammar/Grammar_CSAT.json": click_rows("CSAT_korean_22", "긴 글"),
        "Dataset/Language/Textual/Textual_TOPIK.json": [
            *click_rows("TK"),
            {"id": "TK_bad", "paragraph": "", "question": "?", "choices": ["가", "나"], "answer": "하"},
        ],
    },
    "TAUR-Lab/MuSR": {
        "murder_mystery.csv": musr_rows("murder", ["Ann", "Bob"]),
        "object_placements.csv": musr_rows("object", ["bag", "box", "desk", "floor"]),
        "team_allocation.csv": musr_rows("team", ["A: x, B: y", "A: y, B: x", "A: x, y"]),
    },
    "openai/gsm8k": {
        "main/train-00000-of-00001.parquet": gsm8k_rows("train", 20),
        "main/test-00000-of-00001.parquet": gsm8k_rows("test", 6),
    },
    "openai/openai_humaneval": {"openai_humaneval/test-00000-of-00001.parquet": HUMANEVAL},
}  # fmt: skip


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        from pyarrow import Table, parquet

        parquet.write_table(Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


class FakeHub:
    """`asked` lists the files handed out, with the revision each was asked at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, str, str]] = []
        self.error: Callable[[str], Exception | None] = lambda repo: None

    def _meet(self, repo: str) -> None:
        error = self.error(repo)
        if error is not None:
            raise error

    def dataset_info(self, repo: str, *, revision: str | None = None) -> Any:
        self._meet(repo)
        names = [*FILES[repo], "README.md", ".gitattributes"]
        return SimpleNamespace(sha=revision or SHA, siblings=[SimpleNamespace(rfilename=name) for name in names])

    def download(self, repo: str, name: str, *, repo_type: str, revision: str) -> str:
        self._meet(repo)
        self.asked.append((repo, name, revision))
        path = self.folder / repo.replace("/", "--") / revision / name
        write(path, FILES[repo][name])
        return str(path)


def install(monkeypatch: pytest.MonkeyPatch, folder: Path) -> FakeHub:
    """huggingface_hub answers from `folder` from now on."""
    import huggingface_hub

    hub = FakeHub(folder)
    # a type, because transformers writes `HfApi | None` when it is first imported
    monkeypatch.setattr(huggingface_hub, "HfApi", type("HfApi", (), {"__new__": lambda cls: hub}))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.download)
    return hub
