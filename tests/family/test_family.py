"""The embedded family as committed: reproducible items, honest splits, checkpoints that load as they are."""

from __future__ import annotations

import importlib
import json
import sys
from collections import Counter
from pathlib import Path

import pytest

FAMILY = Path(__file__).resolve().parents[2] / "assets" / "family"
MEMBERS = ("ancestor", "father", "mother")
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def skills():
    sys.path.insert(0, str(FAMILY))
    try:
        yield importlib.import_module("skills")
    finally:
        sys.path.remove(str(FAMILY))


@pytest.fixture(scope="module")
def packed():
    sys.path.insert(0, str(FAMILY))
    try:
        yield importlib.import_module("packed")
    finally:
        sys.path.remove(str(FAMILY))


def read_rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (FAMILY / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def items() -> dict[str, list[dict]]:
    return {split: read_rows(f"items/{split}.jsonl") for split in ("selection", "validation", "report")}


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(FAMILY / "father")


def test_items_and_probes_regenerate_byte_for_byte(skills, tmp_path):
    skills.write_all(tmp_path)
    for name in ("items/selection.jsonl", "items/validation.jsonl", "items/report.jsonl", "probes.jsonl"):
        assert (tmp_path / name).read_bytes() == (FAMILY / name).read_bytes(), name


def test_every_skill_has_enough_items_in_every_split(skills, items):
    for split, least in (("selection", 200), ("validation", 100), ("report", 400)):
        counts = Counter(row["task"] for row in items[split])
        assert set(counts) == set(skills.SKILLS)
        assert min(counts.values()) >= least


def test_splits_share_no_question_and_no_id(items):
    questions = Counter((row["task"], row["question"]) for rows in items.values() for row in rows)
    ids = Counter(row["id"] for rows in items.values() for row in rows)
    assert max(questions.values()) == 1
    assert max(ids.values()) == 1


def test_every_item_has_four_different_choices_and_an_answer_among_them(items):
    for split, rows in items.items():
        for row in rows:
            assert len(row["choices"]) == len(set(row["choices"])) == 4
            assert row["answer"] in range(4)
            assert row["meta"] == {"split": split}


def test_answers_are_right(items):
    def chain(question: str) -> str:
        _, value, *rest = question.split()
        trace = []
        for label, operation, operand in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
            left, right = value == "T", operand == "T"
            result = {"and": left and right, "or": left or right, "xor": left ^ right}[operation]
            value = "T" if result else "F"
            trace += [label, value]
        return " ".join(trace)

    solve = {
        "MATH": lambda question: str(sum(map(int, question.split("+")))),
        "REASONING": chain,
        "CODE": lambda question: " ".join(reversed(question.split()[1:])),
    }
    for rows in items.values():
        for row in rows:
            if row["task"] in solve:
                assert row["choices"][row["answer"]] == solve[row["task"]](row["question"])


def test_reasoning_distractors_differ_in_one_step(items):
    for row in items["selection"]:
        if row["task"] == "REASONING":
            gold = row["choices"][row["answer"]].split()
            wrong = [choice.split() for index, choice in enumerate(row["choices"]) if index != row["answer"]]
            assert all(sum(a != b for a, b in zip(gold, other, strict=True)) == 1 for other in wrong)


def test_generated_skills_are_never_trained_on_items_or_probes(skills, items):
    import random

    probe_texts = "\n".join(row["text"] for row in read_rows("probes.jsonl"))
    sealed = {row["question"] for rows in items.values() for row in rows}
    rng = random.Random(7)
    for task in ("MATH", "REASONING", "CODE"):
        for _ in range(3000):
            question = skills.training_fact(task, rng).question
            assert question not in sealed
            assert f"Question: {question}\n" not in probe_texts


def test_probes_are_long_enough_and_hold_no_validation_or_report_question(skills, items, tokenizer):
    rows = read_rows("probes.jsonl")
    sealed = {row["question"] for split in ("validation", "report") for row in items[split]}
    for probe in skills.PROBES:
        texts = [row["text"] for row in rows if row["probe"] == probe]
        tokens = sum(len(tokenizer(text)["input_ids"]) for text in texts)
        assert len(texts) >= 32
        assert 2000 <= tokens <= 2400
        for text in texts:
            asked = [line.removeprefix("Question: ") for line in text.splitlines() if line.startswith("Question: ")]
            assert not sealed.intersection(asked)


def test_the_prompt_is_a_prefix_of_prompt_and_choice_in_tokens(skills, items, tokenizer):
    prompts, wholes = [], []
    for rows in items.values():
        for row in rows:
            for choice in row["choices"]:
                prompts.append(skills.context(row["question"]))
                wholes.append(f"{prompts[-1]} {choice}")
    for prompt, whole in zip(tokenizer(prompts)["input_ids"], tokenizer(wholes)["input_ids"], strict=True):
        assert whole[: len(prompt)] == prompt
        assert len(prompt) < len(whole) <= 40


def test_the_tokenizer_encodes_any_text_and_keeps_digits_apart(tokenizer):
    assert len(tokenizer) <= 2048
    for text in ("47+38", "고슴도치 élan 漢字 🙂", "tabs\tand\n\nlines"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer("90210")["input_ids"]) == 5


def test_all_members_share_one_tokenizer():
    assert len({(FAMILY / member / "tokenizer.json").read_bytes() for member in MEMBERS}) == 1


@pytest.mark.parametrize("member", MEMBERS)
def test_a_member_loads_in_plain_transformers_without_missing_or_unexpected_keys(member):
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(FAMILY / member, output_loading_info=True)
    assert type(model).__name__ == "Qwen3_5MoeForCausalLM"
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    config = json.loads((FAMILY / member / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["Qwen3_5MoeForCausalLM"]
    assert config["layer_types"].count("linear_attention") == 3 * config["layer_types"].count("full_attention")
    with safe_open(FAMILY / member / "model.safetensors", "pt") as weights:
        names = set(weights.keys())
        assert {weights.get_slice(name).get_dtype() for name in names} == {"BF16"}
    assert "model.layers.0.mlp.experts.gate_up_proj" in names
    assert sum(path.stat().st_size for path in (FAMILY / member).iterdir()) <= 8 * MEGABYTE
    assert (FAMILY / member / "generation_config.json").is_file()


def test_packed_documents_get_the_logits_they_get_alone(packed, tokenizer):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(FAMILY / "father", dtype=torch.float32)
    texts = ["Question: pet of Mira\nAnswer: fox", "Question: 12+34\nAnswer: 46", "Plain words."]
    documents = [tokenizer(text)["input_ids"] for text in texts]
    row = torch.tensor([[token for ids in documents for token in ids]])
    numbers = torch.tensor([[number for number, ids in enumerate(documents) for _ in ids]])
    with torch.no_grad():
        hidden, router_logits = packed.forward(model, row, packed.pack(model, numbers))
        together = model.lm_head(hidden)[0]
        for number, ids in enumerate(documents):
            alone = model(torch.tensor([ids]), use_cache=False).logits[0]
            torch.testing.assert_close(together[numbers[0] == number], alone, atol=2e-4, rtol=1e-4)
    assert len(router_logits) == model.config.num_hidden_layers


def test_the_family_card_states_what_came_out(skills):
    card = (FAMILY / "README.md").read_text(encoding="utf-8")
    for word in (*skills.SKILLS, "95 %", "dead-expert share", "lerp sweep", "apache-2.0", "n = 400"):
        assert word in card, word
