"""What `score` says: for people as lines of text, for --json as plain data."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from darwin_lab.scoring.endpoint import Said
from darwin_lab.scoring.items import Item
from darwin_lab.scoring.leaks import Leak
from darwin_lab.scoring.protocols import Outcome, why_upper_bound
from darwin_lab.scoring.score import Score


def gap_words(gaps: dict[str, float], items: Sequence[Item]) -> str:
    """What difference the items can show, before anything is scored."""
    shown = {task: f"{100 * gap:.0f}" if gap < 1 else "none" for task, gap in gaps.items()}
    told = ", ".join(f"{task} {points}" for task, points in list(shown.items())[:6])
    more = ", ..." if len(gaps) > 6 else ""
    return f"{len(items)} items; the smallest difference they show four times in five, in points: {told}{more}"


def leak_words(leaks: Sequence[Leak]) -> list[str]:
    """A line on items that are among the solved ones too."""
    if not leaks:
        return []
    first = leaks[0]
    return [
        f"{len(leaks)} items are among the solved ones too, or nearly: first {first.first} as {first.second} "
        f"({first.kind}, {first.similarity:.0%}); take shots of another source"
    ]


def protocol_data(outcome: Outcome) -> dict[str, Any]:
    """An outcome as --json has it."""
    return {
        "name": outcome.protocol,
        "label": outcome.label,
        "acc": outcome.acc,
        "interval": list(outcome.interval),
        "calls_per_item": outcome.calls_per_item,
        "invalid": outcome.invalid,
        "stages": [{"name": s.name, "items": s.items, "calls": s.calls, "right": s.right} for s in outcome.stages],
    }


def protocol_words(outcomes: Sequence[Outcome], items: Sequence[Item]) -> list[str]:
    """Lines on each outcome: accuracy, calls, items never answered, stages, and why an upper bound is one."""
    lines = []
    for outcome in outcomes:
        low, high = outcome.interval
        label = f" ({outcome.label})" if outcome.label else ""
        lines.append(
            f"{outcome.protocol}{label}: {outcome.acc:.3f} [{low:.3f}, {high:.3f}], {outcome.calls_per_item:.1f} calls "
            f"an item, {outcome.invalid} of {outcome.n} never answered"
        )
        if len(outcome.stages) > 1:
            lines.extend(
                f"  stage {stage.name}: {stage.items} items, {stage.calls} calls, {stage.right} right after it"
                for stage in outcome.stages
            )
        choices = [len(item.choices) for item in items if item.choices]
        if outcome.label and choices:
            lines.append(f"  {why_upper_bound(round(sum(choices) / len(choices)))}")
    return lines


def cut_words(ids: Sequence[str], prompts: int) -> str:
    """What --cut-long did."""
    first = f"; first {ids[0]}, which lost its beginning" if ids else ""
    return f"{len(ids)} of {prompts} prompts were cut to the context{first}"


def order_words(fixed: int, items: int) -> str:
    """Why orders of choices do not apply to some items."""
    return (
        f"{fixed} of {items} items have their letters in the question, so their options are shown in one order only: "
        "a model's liking for a letter does not average out there"
    )


def margin_words(outcome: Outcome) -> str:
    """What the confidence gate does without margins."""
    return f"the endpoint gave no probabilities, so the confidence gate sent all {outcome.n} items to stage 2"


def thinking_data(budget: int, continues: bool, said: Iterable[Said]) -> dict[str, Any]:
    """What a thinking budget did to an endpoint's answers, as --json has it."""
    answers = list(said)
    return {
        "budget": budget,
        "kept_by": "a second request" if continues else "max_tokens",
        "answers": len(answers),
        "closed": sum(answer.closed for answer in answers),
        "lost": sum(answer.lost for answer in answers),
    }


def thinking_words(data: Mapping[str, Any], answer: int) -> str:
    """A line on what a thinking budget did; `answer` is the tokens an answer may take."""
    budget, count = data["budget"], data["answers"]
    if data["kept_by"] == "max_tokens":
        return (
            f"the endpoint goes on with no message it is given, so {budget} + {answer} tokens bound thought and answer "
            f"together: {data['lost']} of {count} answers were all thought and count as never answered"
        )
    return (
        f"thinking budget {budget}: {data['closed']} of {count} thoughts were closed there and the answer asked for "
        "in a second request"
    )


def score_words(result: Score) -> str:
    """The table of benchmarks."""
    lines = [
        f"{'benchmark':<18} {'n':>5} {'acc':>7} {'95 % interval':>16} {'acc_norm':>9} {'p(gold)':>8} {'chance':>7} "
        f"{'above chance':>12} {'invalid':>7}"
    ]
    for task, bench in result.benchmarks().items():
        interval = f"{bench.interval[0]:.3f} - {bench.interval[1]:.3f}"
        gold = "-" if bench.p_gold is None else f"{bench.p_gold:.4f}"
        numbers = f"{bench.acc:>7.3f} {interval:>16} {bench.acc_norm:>9.3f} {gold:>8} {bench.chance:>7.2f}"
        lines.append(f"{task:<18} {bench.n:>5} {numbers} {bench.corrected:>12.3f} {bench.invalid:>7}")
    return "\n".join([*lines, f"{'mean':<18} {result.n:>5} {result.mean_acc:>7.3f}"])
