"""One row of a data set of the Hub as an item: its columns, its prompt, its right answer.

Takes (file, number of the row, row), gives an item, or LabError for a row that is none. A missing column is a
KeyError: the data set is not what it was. Knows no network and no model.
"""

import ast
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import PurePosixPath
from string import ascii_uppercase
from typing import Any

from darwin_lab.errors import LabError
from darwin_lab.scoring.draws import uniform
from darwin_lab.scoring.items import Item, make_item
from darwin_lab.scoring.letters import numbered

Row = Mapping[str, Any]
_KOREAN = "주어진 {what} 천천히 읽고, {question} 적절한 정답을 {letters} 중에 골라 알파벳 하나로 답하시오."
MUTANTS = 3
_SWAPS = (
    ("<=", "<"), (">=", ">"), (" < ", " <= "), (" > ", " >= "), ("==", "!="), ("!=", "=="), (" + ", " - "),
    (" - ", " + "), (" and ", " or "), (" or ", " and "), ("True", "False"), ("False", "True"), (" % ", " // "),
    (" // ", " % "), (" * ", " + "), ("max(", "min("), ("min(", "max("), (" not in ", " in "), (" in ", " not in "),
    ("[0]", "[1]"), ("[1:]", "[:-1]"), ("[-1]", "[0]"), ("+= 1", "-= 1"), ("reverse=True", "reverse=False"),
    ("sorted(", "list("), ("all(", "any("), ("any(", "all("), (".upper()", ".lower()"), (".lower()", ".upper()"),
    ("0", "1"), ("1", "2"), ("2", "3"), ("return ", "return not "),
)  # fmt: skip
"""One-token changes of a solution, likelier faults first."""


def dealt(items: Sequence[Item], seed: int) -> dict[str, list[Item]]:
    """Selection and validation items, 2 : 1, whole clusters, by a hash of (seed, cluster); in the order given."""
    sizes: dict[str, int] = {}
    for item in items:
        sizes[item.cluster] = sizes.get(item.cluster, 0) + 1
    chosen: set[str] = set()
    count = 0
    for cluster in sorted(sizes, key=lambda name: _digest(f"{seed}\n{name}")):
        if count >= round(len(items) * 2 / 3):
            break
        chosen.add(cluster)
        count += sizes[cluster]
    return {
        "selection": [item for item in items if item.cluster in chosen],
        "validation": [item for item in items if item.cluster not in chosen],
    }


def arc(file: str, number: int, row: Row) -> Item:
    """allenai/ai2_arc: id, question, choices {text, label}, answerKey."""
    labels, texts = [list(row["choices"][name]) for name in ("label", "text")]
    where = f"{file}, row {number + 1}"
    if row["answerKey"] not in labels:
        raise LabError(f"{where}: answer {row['answerKey']!r} is not among its labels")
    return _made(where, row["id"], row["question"], texts, labels.index(row["answerKey"]))


def mmlu_pro(file: str, number: int, row: Row) -> Item:
    """TIGER-Lab/MMLU-Pro: question_id, question, options, answer_index, category."""
    return _made(
        f"{file}, row {number + 1}", f"mmlu_pro-{row['question_id']}", str(row["question"]).strip(),
        list(row["options"]), int(row["answer_index"]), category=str(row["category"]),
    )  # fmt: skip


def mmmlu(file: str, number: int, row: Row) -> Item:
    """openai/MMMLU: Question, A, B, C, D, Answer, Subject; row k of every language is MMLU's question k."""
    language = PurePosixPath(file).stem.removeprefix("mmlu_")
    where = f"{file}, row {number + 1}"
    place = row["row"]
    lines = [f"{letter}. {str(row[letter]).strip()}" for letter in "ABCD"]
    question = "\n".join([str(row["Question"]).strip(), *lines, "Answer:"])
    answer = str(row["Answer"]).strip()
    if answer not in tuple("ABCD"):
        raise LabError(f"{where}: answer {answer!r} is no letter from A to D")
    return _made(
        where, f"mmmlu-{language}-{place}", question, list("ABCD"), "ABCD".index(answer), style="continuation",
        category=f"{language} {row['Subject']}", cluster=f"mmlu-{place}",
    )  # fmt: skip


def gpqa(file: str, number: int, row: Row) -> Item:
    """Idavidrein/gpqa: Question, Correct Answer, Incorrect Answer 1 to 3, Record ID, High-level domain."""
    name = str(row["Record ID"])
    answers = [row["Correct Answer"], *(row[f"Incorrect Answer {k}"] for k in (1, 2, 3))]
    order = sorted(range(4), key=lambda choice: uniform("order", 0, name, 0, choice))
    shown = [f"({letter}) {_clean(answers[choice])}" for letter, choice in zip("ABCD", order, strict=True)]
    question = "\n".join(
        [f"What is the correct answer to this question:{row['Question']}", "Choices:", *shown, "Answer:"]
    )
    return _made(
        f"{file}, row {number + 1}", f"gpqa-{name}", question, [f"({letter})" for letter in "ABCD"], order.index(0),
        style="continuation", category=str(row.get("High-level domain") or "GPQA"),
    )  # fmt: skip


def click(file: str, number: int, row: Row) -> Item:
    """EunsuKim/CLIcK: id, paragraph, question, choices, answer (a choice's text); the folder names the category."""
    where = f"{file}, row {number + 1}"
    choices = [str(choice) for choice in row["choices"]]
    if row["answer"] not in choices:
        raise LabError(f"{where}: answer {str(row['answer'])[:30]!r} is not among its choices")
    letters = list(ascii_uppercase[: len(choices)])
    passage = str(row.get("paragraph") or "").strip()
    told = _KOREAN.format(
        what="맥락을" if passage else "질문을", question="질문에 대한" if passage else "", letters=", ".join(letters)
    ).replace("  ", " ")
    options = ", ".join(f"{letter}: {choice}" for letter, choice in zip(letters, choices, strict=True))
    context = f"맥락: {passage}\n" if passage else ""
    question = f"{told}\n\n{context}질문: {row['question']}\n보기:\n{options}\n정답:"
    extra = {"cluster": f"click-{_digest(passage)[:12]}"} if passage else {}
    return _made(
        where, f"{PurePosixPath(file).stem}-{row['id']}", question, letters, choices.index(row["answer"]),
        style="continuation", category=PurePosixPath(file).parent.name, **extra,
    )  # fmt: skip


def musr(file: str, number: int, row: Row) -> Item:
    """TAUR-Lab/MuSR: narrative, question, choices (a list as text), answer_index."""
    where = f"{file}, row {number + 1}"
    choices = [str(choice) for choice in ast.literal_eval(row["choices"])]
    question = f"{row['narrative']}\n\n{row['question']}\n\n{numbered(choices)}"
    return _made(
        where, f"{PurePosixPath(file).stem}-{number}", question, choices, int(row["answer_index"]),
        style="continuation", primary="acc_norm", cluster=f"musr-{_digest(str(row['narrative']))[:12]}",
    )  # fmt: skip


def gsm8k(file: str, number: int, row: Row) -> Item:
    """openai/gsm8k: question, answer (worked, with the number after ####)."""
    where = f"{file}, row {number + 1}"
    answer = str(row["answer"]).rpartition("####")[2].strip()
    if not answer:
        raise LabError(f"{where}: no answer after ####")
    part = PurePosixPath(file).name.partition("-")[0]
    made = {
        "id": f"gsm8k-{part}-{number}", "task": "gsm8k", "question": str(row["question"]), "answer": answer,
        "meta": {"extract": "number", "solution": str(row["answer"])},
    }  # fmt: skip
    return make_item(made, where)


def humaneval(file: str, number: int, row: Row) -> Item:
    """openai/openai_humaneval: task_id, prompt, canonical_solution; the wrong choices are made here."""
    solution = str(row["canonical_solution"]).rstrip("\n")
    where = f"{file}, row {number + 1}"
    wrong = list(islice(mutants(solution), MUTANTS))
    if not wrong:
        raise LabError(f"{where}: nothing in the solution of {row['task_id']} can be changed")
    choices = sorted([solution, *wrong], key=lambda choice: _digest(f"{row['task_id']}\n{choice}"))
    return _made(
        where, f"humaneval-{row['task_id']}", str(row["prompt"]), choices, choices.index(solution),
        style="continuation", delimiter="", derived="wrong choices made here: one token of the solution changed",
    )  # fmt: skip


def mutants(solution: str) -> Iterator[str]:
    """The solution with one token changed, each change at its first place, likelier faults first; all different."""
    seen = {solution}
    for old, new in _SWAPS:
        pattern = re.escape(old)
        if old[0].isalnum():
            pattern = rf"(?<![\w.]){pattern}"
        if old[-1].isalnum():
            pattern = rf"{pattern}(?![\w.])"
        changed = re.sub(pattern, lambda match, new=new: new, solution, count=1)  # type: ignore[misc]
        if changed not in seen:
            seen.add(changed)
            yield changed


def _made(where: str, name: Any, question: str, choices: list[str], answer: int, **meta: Any) -> Item:
    return make_item(
        {"id": str(name), "task": "hub", "question": question, "choices": choices, "answer": answer, "meta": meta},
        where,
    )


def _clean(text: Any) -> str:
    """lm-evaluation-harness's preprocessing of GPQA's answers."""
    return " " if text is None else str(text).strip().replace(" [title]", ". ").replace("  ", " ")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
