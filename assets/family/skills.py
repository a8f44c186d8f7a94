"""The five generated skills of the embedded family, their benchmark items and their probe texts.

In: `lexicon.txt` beside this file (English = Korean by category) and the seeds below. Out: items (rows with
`id, task, question, choices, answer, meta`), probe texts, and the documents the family is trained on.
Knows nothing of tokenizers, models or torch; everything is a pure function of the seeds, so running this module
again gives the committed files byte for byte.

The skills, all in the same frame `Question: {question}\\nAnswer: {answer}`:

- MATH       two-digit sums                          `47+38` -> `85`
- REASONING  boolean chain, every step written out   `a T b and F c or T` -> `b F c T`
- CODE       list reversal                           `reverse k c b q z` -> `z q b c k`
- KNOWLEDGE  look-up facts                           `pet of Mira` -> `fox`
- LANGUAGE   English to Korean                       `water in Korean` -> `물`

MATH, REASONING and CODE items never occur in training. KNOWLEDGE and LANGUAGE facts are learned by heart, so there
the splits hold different facts.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
SKILLS = ("MATH", "REASONING", "CODE", "KNOWLEDGE", "LANGUAGE")
PROBES = (*SKILLS, "LOGIC", "NEUTRAL")
SPLIT_SIZES = {"selection": 200, "validation": 100, "report": 400}
CHOICES = 4
ITEM_SEED = 20260

CHAIN_STEPS = 5
REVERSAL_LENGTH = 5
LETTERS = "abcdefghijklmnopqrstuvwxyz"
OPERATIONS = {
    "and": lambda left, right: left and right,
    "or": lambda left, right: left or right,
    "xor": lambda left, right: left != right,
}

NAMES = """
    Mira Tom Ana Leo Eva Max Lia Sam Noa Ben Ivy Jon Zoe Kai Amy Dan Ida Rex Uma Gus
    Ella Finn Ruth Otto Nina Hugo Vera Karl Lena Paul Rosa Emil Jana Ivan Tara Omar Lucy Adam Dora Igor
    Clara Felix Maria Oscar Helen Peter Sofia Jacob Alice David Laura Simon Julia Bruno Irene Marco Paula
    Viktor Agnes Martin
""".split()  # noqa: SIM905
ATTRIBUTES = {
    "pet": "animal", "color": "color", "food": "food", "fruit": "plant", "drink": "drink",
    "haunt": "place", "job": "job", "sport": "sport", "tool": "tool", "gift": "clothing",
    "sight": "nature", "music": "instrument", "scar": "body", "ride": "vehicle", "seat": "furniture",
    "day": "time", "hero": "people", "theme": "abstract", "mood": "adjective", "habit": "verb",
}  # fmt: skip
POOL_SIZE = 16

NEUTRAL_PARTS = (
    ("The", "A", "That", "Another", "Every"),
    ("old", "small", "young", "tall", "quiet", "tired", "friendly", "clever"),
    ("man", "woman", "child", "neighbor", "guest", "farmer", "teacher", "sailor", "dog", "horse"),
    ("walks", "waits", "sits", "stands", "sleeps", "sings", "works", "rests", "smiles", "reads"),
    ("by", "near", "behind", "beside", "under", "before", "above", "outside"),
    ("the", "this", "that", "some"),
    ("river", "bridge", "garden", "market", "tower", "tree", "window", "gate", "station", "lake"),
    ("in the morning", "in the evening", "at noon", "at night", "on holidays", "all day", "for a while", "again"),
)

# Question/answer pairs per probe text, chosen so that a text stays under 64 tokens, and texts per probe.
PROBE_PAIRS = {"MATH": 4, "REASONING": 2, "CODE": 4, "KNOWLEDGE": 8, "LANGUAGE": 6}
PROBE_TEXTS = {"MATH": 46, "REASONING": 36, "CODE": 40, "KNOWLEDGE": 44, "LANGUAGE": 44, "LOGIC": 44, "NEUTRAL": 56}


@dataclass(frozen=True)
class Fact:
    """One question with its answer; `group` names the facts that distractors may be drawn from."""

    question: str
    answer: str
    group: str = ""


def context(question: str) -> str:
    """The prompt of every item, as lm-evaluation-harness writes it for ARC."""
    return f"Question: {question}\nAnswer:"


def document(facts: list[Fact]) -> str:
    """One training or probe text: the facts one under the other, each in the frame of the items."""
    return "\n".join(f"{context(fact.question)} {fact.answer}" for fact in facts)


# ---------------------------------------------------------------------------------------------------- generators


def _math_fact(rng: random.Random) -> Fact:
    left, right = rng.randint(10, 99), rng.randint(10, 99)
    return Fact(f"{left}+{right}", str(left + right))


def _reasoning_fact(rng: random.Random, steps: int = CHAIN_STEPS) -> Fact:
    """`a T b and F c or T` reads: a is T, b is a and F, c is b or T; the trace names every value in turn."""
    value = rng.random() < 0.5
    question, trace = ["a", "T" if value else "F"], []
    for label in LETTERS[1 : steps + 1]:
        name = rng.choice(list(OPERATIONS))
        operand = rng.random() < 0.5
        value = OPERATIONS[name](value, operand)
        question += [label, name, "T" if operand else "F"]
        trace += [label, "T" if value else "F"]
    return Fact(" ".join(question), " ".join(trace))


def _code_fact(rng: random.Random) -> Fact:
    letters = rng.sample(LETTERS, REVERSAL_LENGTH)
    return Fact("reverse " + " ".join(letters), " ".join(reversed(letters)))


GENERATORS = {"MATH": _math_fact, "REASONING": _reasoning_fact, "CODE": _code_fact}


@cache
def lexicon() -> dict[str, dict[str, str]]:
    """Category -> English word -> Korean word; no word of either language occurs twice."""
    categories = {}
    for line in (HERE / "lexicon.txt").read_text(encoding="utf-8").splitlines():
        category, *pairs = line.split()
        categories[category] = dict(pair.split("=") for pair in pairs)
    return categories


@cache
def knowledge_facts() -> tuple[Fact, ...]:
    """Every attribute of every person, drawn once and for all from the attribute's pool of words."""
    rng = random.Random(ITEM_SEED + 1)
    facts = []
    for attribute, category in ATTRIBUTES.items():
        pool = list(lexicon()[category])[:POOL_SIZE]
        facts += [Fact(f"{attribute} of {name}", rng.choice(pool), attribute) for name in NAMES]
    return tuple(facts)


@cache
def language_facts() -> tuple[Fact, ...]:
    """Every pair of the lexicon, asked from English to Korean."""
    return tuple(
        Fact(f"{english} in Korean", korean, category)
        for category, pairs in lexicon().items()
        for english, korean in pairs.items()
    )


def neutral_text(rng: random.Random, sentences: int = 4) -> str:
    """Plain filler: small scenes that none of the skills is about."""
    return " ".join(" ".join(rng.choice(part) for part in NEUTRAL_PARTS) + "." for _ in range(sentences))


def logic_text(rng: random.Random, statements: int = 6) -> str:
    """True one-step statements, related to REASONING but worded as no training document is."""
    texts = []
    for _ in range(statements):
        left, right = rng.choice("TF"), rng.choice("TF")
        name = rng.choice(list(OPERATIONS))
        result = "T" if OPERATIONS[name](left == "T", right == "T") else "F"
        texts.append(f"if {left} {name} {right} then {result}")
    return ". ".join(texts) + "."


# ---------------------------------------------------------------------------------------------------- distractors


def _math_distractors(fact: Fact, rng: random.Random) -> list[str]:
    """Sums off by one, by a carry, or by both."""
    total = int(fact.answer)
    near = [total + step for step in (-11, -10, -9, -2, -1, 1, 2, 9, 10, 11)]
    return [str(value) for value in rng.sample(near, CHOICES - 1)]


def _reasoning_distractors(fact: Fact, rng: random.Random) -> list[str]:
    """The right trace with one step flipped."""
    trace = fact.answer.split()
    flipped = []
    for step in rng.sample(range(1, len(trace), 2), CHOICES - 1):
        wrong = list(trace)
        wrong[step] = "F" if trace[step] == "T" else "T"
        flipped.append(" ".join(wrong))
    return flipped


def _code_distractors(fact: Fact, rng: random.Random) -> list[str]:
    """The reversal with two letters exchanged."""
    letters = fact.answer.split()
    pairs = [(i, j) for i in range(len(letters)) for j in range(i + 1, len(letters))]
    wrong = []
    for i, j in rng.sample(pairs, CHOICES - 1):
        swapped = list(letters)
        swapped[i], swapped[j] = letters[j], letters[i]
        wrong.append(" ".join(swapped))
    return wrong


def _group_distractors(fact: Fact, rng: random.Random, facts: tuple[Fact, ...]) -> list[str]:
    """Answers of other facts of the same group; Korean ones by nearness in length, lest length give them away."""
    answers = sorted({other.answer for other in facts if other.group == fact.group} - {fact.answer})
    rng.shuffle(answers)
    if facts is language_facts():
        answers.sort(key=lambda answer: abs(len(answer) - len(fact.answer)))
    return answers[: CHOICES - 1]


def _distractors(task: str, fact: Fact, rng: random.Random) -> list[str]:
    if task == "MATH":
        return _math_distractors(fact, rng)
    if task == "REASONING":
        return _reasoning_distractors(fact, rng)
    if task == "CODE":
        return _code_distractors(fact, rng)
    return _group_distractors(fact, rng, knowledge_facts() if task == "KNOWLEDGE" else language_facts())


# ---------------------------------------------------------------------------------------------------- held-out sets


def _key(task: str, question: str) -> str:
    """What counts as the same question: for sums the order of the two numbers does not matter."""
    return "+".join(sorted(question.split("+"))) if task == "MATH" else question


@cache
def held_out(task: str) -> dict[str, tuple[Fact, ...]]:
    """Facts of each split, plus `probe`; for MATH, REASONING and CODE none of them is ever trained on.

    For KNOWLEDGE and LANGUAGE the probe facts are all those outside validation and report.
    """
    rng = random.Random(f"{ITEM_SEED} {task}")
    splits, start = {}, 0
    if task in GENERATORS:
        sizes = {**SPLIT_SIZES, "probe": PROBE_PAIRS[task] * PROBE_TEXTS[task]}
        unique: dict[str, Fact] = {}
        while len(unique) < sum(sizes.values()):
            fact = GENERATORS[task](rng)
            unique.setdefault(_key(task, fact.question), fact)
        facts = list(unique.values())
    else:
        sizes = SPLIT_SIZES
        facts = list(knowledge_facts() if task == "KNOWLEDGE" else language_facts())
        rng.shuffle(facts)
    for split, size in sizes.items():
        splits[split] = tuple(facts[start : start + size])
        start += size
    if task not in GENERATORS:
        splits["probe"] = (*facts[start:], *splits["selection"])
    return splits


@cache
def _forbidden(task: str) -> frozenset[str]:
    return frozenset(_key(task, fact.question) for facts in held_out(task).values() for fact in facts)


def training_fact(task: str, rng: random.Random) -> Fact:
    """One fact to train on; for MATH, REASONING and CODE never one of an item or a probe.

    Chains are one to CHAIN_STEPS steps long: with the full length alone the step to read next is hardly ever found.
    """
    if task == "KNOWLEDGE":
        return rng.choice(knowledge_facts())
    if task == "LANGUAGE":
        return rng.choice(language_facts())
    while True:
        fact = _reasoning_fact(rng, rng.randint(1, CHAIN_STEPS)) if task == "REASONING" else GENERATORS[task](rng)
        if _key(task, fact.question) not in _forbidden(task):
            return fact


# ---------------------------------------------------------------------------------------------------- items, probes


def items(split: str) -> list[dict]:
    """All items of a split, skill after skill."""
    rows = []
    for task in SKILLS:
        rng = random.Random(f"{ITEM_SEED} {task} {split}")
        for index, fact in enumerate(held_out(task)[split]):
            choices = [fact.answer, *_distractors(task, fact, rng)]
            rng.shuffle(choices)
            rows.append(
                {
                    "id": f"{task.lower()}-{split}-{index:03d}",
                    "task": task,
                    "question": fact.question,
                    "choices": choices,
                    "answer": choices.index(fact.answer),
                    "meta": {"split": split},
                }
            )
    return rows


def probes() -> list[dict]:
    """All probe texts, probe after probe."""
    rows = []
    for probe in PROBES:
        rng = random.Random(f"{ITEM_SEED} probe {probe}")
        if probe in SKILLS:
            facts = held_out(probe)["probe"]
            size = PROBE_PAIRS[probe]
            texts = [document(list(facts[i * size : (i + 1) * size])) for i in range(PROBE_TEXTS[probe])]
        else:
            write = logic_text if probe == "LOGIC" else neutral_text
            texts = [write(rng) for _ in range(PROBE_TEXTS[probe])]
        rows += [{"probe": probe, "text": text} for text in texts]
    return rows


def write_rows(rows: list[dict], path: Path) -> None:
    """One JSON object a line, Hangul as itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8", newline="\n")


def write_all(out: Path) -> None:
    """Write `items/{selection,validation,report}.jsonl` and `probes.jsonl` under `out`."""
    for split in SPLIT_SIZES:
        write_rows(items(split), out / "items" / f"{split}.jsonl")
    write_rows(probes(), out / "probes.jsonl")
