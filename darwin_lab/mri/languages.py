"""Languages: how well a child reads each of a dozen languages, beside both parents.

Takes a resident model and short texts labelled "LANG:ko" and the like; gives the NLL of every text, and, from the
readings of three models, one row a language with intervals over texts. A language that the tokenizer only spells, in
lone letters or bytes, gets the share of such tokens and no loss: a loss over spelling says nothing about a language.
Neither does one that no parent reads better than a guess over the whole vocabulary.
Must not know: recipes, files of a checkpoint, what the texts say.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from darwin_lab.engine.resident import Resident
from darwin_lab.engine.source import Source
from darwin_lab.errors import LabError
from darwin_lab.mri.measures import batches_by_length, encode_texts, next_token_losses
from darwin_lab.mri.probes import ProbeSet
from darwin_lab.progress import Tick, silent
from darwin_lab.statistics.bootstrap import bootstrap_mean

LANGUAGE_PROBES = Path(__file__).resolve().parents[2] / "assets" / "languages.jsonl"
PREFIX = "LANG:"
NAMES = {
    "en": "English", "ko": "Korean", "zh": "Chinese", "ja": "Japanese", "es": "Spanish", "fr": "French",
    "de": "German", "pt": "Portuguese", "ru": "Russian", "ar": "Arabic", "hi": "Hindi", "vi": "Vietnamese",
}  # fmt: skip
SPELLED = 0.5
"""From this share of unknown tokens on a language counts as spelled (ours: a current multilingual vocabulary stays
below .1 on all twelve, GPT-2's is above it on all that are not written in Latin letters)."""
MAX_TOKENS, BATCH_TOKENS = 512, 4096
HELD, WORSE, BETTER = "held", "worse than both", "better than both"
SPELLED_ONLY, GUESSED = "not in the vocabulary", "no parent better than guessing"
Interval = tuple[float, float, float]


@dataclass(frozen=True)
class Reading:
    """One model: `nll[probe]` [n] nats a token per text, `tokens[probe]` [n], `unknown[probe]` share of tokens.

    A language that is only spelled has no `nll`. `guess` is the NLL of a guess over the whole vocabulary.
    """

    model: str
    fingerprint: str
    probes_hash: str
    guess: float
    tokens: dict[str, tuple[int, ...]]
    unknown: dict[str, float]
    nll: dict[str, tuple[float, ...]]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"version": 1, **asdict(self)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Reading":
        """The inverse of `to_json`. Raises `LabError` for anything else."""
        try:
            return Reading(
                model=data["model"],
                fingerprint=data["fingerprint"],
                probes_hash=data["probes_hash"],
                guess=float(data["guess"]),
                tokens={probe: tuple(values) for probe, values in data["tokens"].items()},
                unknown=dict(data["unknown"]),
                nll={probe: tuple(values) for probe, values in data["nll"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LabError(f"that is no reading of languages ({error}); measure it again") from error


@dataclass(frozen=True)
class LanguageRow:
    """One language. NLL in nats a token as (mean, low, high), 95 % bootstrap over texts.

    `child_minus_father` and `child_minus_mother` are paired over texts. `verdict` is `HELD` unless both paired
    intervals leave zero out on the same side. Under `SPELLED_ONLY` and `GUESSED` there are no numbers.
    """

    language: str
    name: str
    texts: int
    tokens: int
    unknown: float
    child: Interval | None
    father: Interval | None
    mother: Interval | None
    child_minus_father: Interval | None
    child_minus_mother: Interval | None
    verdict: str


@dataclass(frozen=True)
class Languages:
    """One row a language, in the order of the texts."""

    child: str
    father: str
    mother: str
    rows: tuple[LanguageRow, ...]

    @property
    def sentence(self) -> str:
        """What it comes to."""
        named: dict[str, list[str]] = {}
        for row in self.rows:
            named.setdefault(row.verdict, []).append(row.name)
        read = sum(row.child is not None for row in self.rows)
        words = [f"{read} of {len(self.rows)} languages can be compared"]
        words += [
            f"{told}: {', '.join(named[told])}" for told in (WORSE, BETTER, GUESSED, SPELLED_ONLY) if told in named
        ]
        return "; ".join(words) + "."

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        rows = [{key: _plain(value) for key, value in asdict(row).items()} for row in self.rows]
        names = {"child": self.child, "father": self.father, "mother": self.mother}
        return {"version": 1, **names, "sentence": self.sentence, "rows": rows}


def read_languages(resident: Resident, source: Source, probes: ProbeSet, tick: Tick = silent) -> Reading:
    """The NLL of every text under `source`, whose weights the resident is made to carry.

    Raises `LabError` for unusable texts and for losses that are not finite.
    """
    tokens, unknown, nll = {}, {}, {}
    guess = math.log(resident.model.get_output_embeddings().weight.shape[0])
    with resident.lock:
        resident.become(source)
        for number, (probe, texts) in enumerate(probes.texts.items()):
            tick(number / len(probes.texts), f"{source.name} reads {language_name(probe)}")
            unknown[probe] = unknown_share(resident.tokenizer, texts)
            if unknown[probe] < SPELLED:
                encoded = encode_texts(resident.tokenizer, texts, probe, MAX_TOKENS)
                tokens[probe] = tuple(len(ids) for ids in encoded)
                nll[probe] = _losses(resident, encoded, f"{source.name}, {probe}")
            else:
                tokens[probe] = tuple(len(resident.tokenizer(text)["input_ids"]) for text in texts)
    tick(1.0, f"{source.name} read {len(probes.texts)} languages")
    return Reading(source.name, source.fingerprint, probes.hash, guess, tokens, unknown, nll)


def compare_languages(child: Reading, father: Reading, mother: Reading) -> Languages:
    """The child beside its parents. Raises `LabError` for readings of different texts or tokens."""
    for other in (father, mother):
        if (other.probes_hash, other.tokens) != (child.probes_hash, child.tokens):
            raise LabError(
                f"{other.model} and {child.model} read other texts or tokens, so their losses cannot be compared; "
                "read the languages again with parents of one tokenizer"
            )
    rows = tuple(_row(probe, child, father, mother) for probe in child.tokens)
    return Languages(child.model, father.model, mother.model, rows)


def language_name(probe: str) -> str:
    """ "LANG:ko" -> "Korean"; the label itself where it is not known."""
    code = probe.removeprefix(PREFIX)
    return NAMES.get(code, code)


def unknown_share(tokenizer: Any, texts: tuple[str, ...]) -> float:
    """Share of tokens that stand for less than the tokenizer could know: the unknown token, a byte of a character,
    or a single letter cut out of a longer word of an alphabet with upper and lower case; and of characters that it
    drops without a token.

    Without offsets (slow tokenizers) only the unknown token is counted.
    """
    unknown = total = 0
    special = set(getattr(tokenizer, "all_special_ids", ())) - {tokenizer.unk_token_id}
    for text in texts:
        ids, spans = _tokens(tokenizer, text)
        owners = Counter(place for low, high in spans or () for place in range(low, high))
        lost = [not letter.isspace() and not owners[place] for place, letter in enumerate(text)]
        dropped = 0 if spans is None else sum(lost)
        counted = [place for place, token in enumerate(ids) if token not in special]
        total += len(counted) + dropped
        unknown += dropped
        for place in counted:
            low, high = spans[place] if spans else (0, 0)
            shared = any(owners[at] > 1 for at in range(low, high))
            unknown += ids[place] == tokenizer.unk_token_id or shared or _lone_letter(text, low, high)
    return unknown / total if total else 1.0


def _tokens(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]] | None]:
    """Token ids and the characters each stands for; None where the tokenizer cannot say."""
    if not getattr(tokenizer, "is_fast", False):
        return list(tokenizer(text)["input_ids"]), None
    encoded = tokenizer(text, return_offsets_mapping=True)
    return list(encoded["input_ids"]), [(int(low), int(high)) for low, high in encoded["offset_mapping"]]


def _lone_letter(text: str, low: int, high: int) -> bool:
    """Whether these characters are one letter, blanks aside, with another letter right beside it."""
    while low < high and text[low].isspace():
        low += 1
    if high - low != 1 or text[low].lower() == text[low].upper():
        return False
    return text[low - 1 : low].isalpha() or text[high : high + 1].isalpha()


@torch.inference_mode()
def _losses(resident: Resident, encoded: list[list[int]], where: str) -> tuple[float, ...]:
    """Mean next-token NLL of each text, in their order."""
    found: NDArray[np.float64] = np.zeros(len(encoded))
    for chosen in batches_by_length([len(ids) for ids in encoded], BATCH_TOKENS):
        ids, mask = resident.encode_batch([encoded[index] for index in chosen])
        states = resident.hidden(ids, mask)[None]
        found[chosen] = next_token_losses(resident.logits, states, ids, mask, divergence=False)[0][0].numpy()
    if not np.isfinite(found).all():
        raise LabError(f"{where}: losses are not finite; look for damaged weights or scan the model")
    return tuple(round(float(value), 6) for value in found)


def _row(probe: str, child: Reading, father: Reading, mother: Reading) -> LanguageRow:
    tokens = np.asarray(child.tokens[probe], dtype=np.float64)
    people = {"child": child, "father": father, "mother": mother}
    code, unknown = probe.removeprefix(PREFIX), child.unknown[probe]
    shape = (code, language_name(probe), len(tokens), int(tokens.sum()), unknown)
    if any(probe not in one.nll for one in people.values()):
        return LanguageRow(*shape, None, None, None, None, None, SPELLED_ONLY)
    nll = {who: np.asarray(one.nll[probe]) for who, one in people.items()}
    mean = {who: _interval(values, tokens) for who, values in nll.items()}
    if min(mean["father"][0], mean["mother"][0]) >= child.guess:
        return LanguageRow(*shape, None, None, None, None, None, GUESSED)
    gaps = {who: _interval(nll["child"] - nll[who], tokens) for who in ("father", "mother")}
    worse, better = all(gap[1] > 0 for gap in gaps.values()), all(gap[2] < 0 for gap in gaps.values())
    verdict = WORSE if worse else BETTER if better else HELD
    return LanguageRow(
        *shape, mean["child"], mean["father"], mean["mother"], gaps["father"], gaps["mother"], verdict
    )  # fmt: skip


def _interval(values: NDArray[np.float64], tokens: NDArray[np.float64]) -> Interval:
    """(mean, low, high), texts weighted by the tokens they predict."""
    mean, low, high, _ = bootstrap_mean(values, tokens - 1)
    return round(float(mean), 6), round(float(low), 6), round(float(high), 6)


def _plain(value: Any) -> Any:
    """Intervals as lists with null for what is unknown."""
    return [None if number != number else number for number in value] if isinstance(value, tuple) else value
