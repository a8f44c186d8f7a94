"""The gradient view against measurement: random small moves ranked, and the way from father to mother summed.

Takes the slopes of every gene at one child (one backward pass over the probe texts), moves all genes at once at random,
makes each moved child and measures its loss on the same texts: prints, per probe, the rank correlation of predicted and
measured change over the moves. Then the integral of the slope from father to mother beside the difference it must
explain. Children are real ones, rounded to the father's dtype.

    python benchmarks/gradient_view.py [--moves 30] [--size 0.05] [--texts 12] [--father F --mother M]
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from scipy.stats import spearmanr

from darwin_lab.engine.child import Child
from darwin_lab.engine.resident import Resident
from darwin_lab.errors import LabError
from darwin_lab.genome.genome import neutral_genome
from darwin_lab.lab.pairs import Pair, open_pair
from darwin_lab.merging.recipe import Recipe, make_recipe, uniform_recipe
from darwin_lab.mri.gradient import MOST_TOKENS, gene_effects, path_integral
from darwin_lab.mri.measures import encode_texts
from darwin_lab.mri.probes import ProbeSet


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--father", default="family:father")
    arguments.add_argument("--mother", default="family:mother")
    arguments.add_argument("--moves", type=int, default=30)
    arguments.add_argument("--size", type=float, default=0.05, help="standard deviation of each gene's move")
    arguments.add_argument("--texts", type=int, default=12, help="texts of every probe")
    arguments.add_argument("--seed", type=int, default=0)
    chosen = arguments.parse_args()
    try:
        pair = open_pair(chosen.father, chosen.mother)
        pair.require_mergeable()
        probes = ProbeSet({probe: lines[: chosen.texts] for probe, lines in pair.probes.texts.items()})
        resident = Resident.load(pair.father)
        moves(pair, resident, probes, chosen)
        path(pair, resident, probes)
    except LabError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def moves(pair: Pair, resident: Resident, probes: ProbeSet, chosen: argparse.Namespace) -> None:
    """Predicted against measured change of the loss."""
    genome = neutral_genome("v6", pair.anatomy.layers)
    child = made(pair, make_recipe(genome, pair.anatomy))
    resident.become(child)
    began = time.perf_counter()
    view = gene_effects(resident, child, probes, genome, pair.anatomy)
    seconds = time.perf_counter() - began
    tokens = sum(view.tokens.values())
    print(
        f"{pair.father.name} x {pair.mother.name}, v6 genome at .5: {len(view.tensors)} tensors, "
        f"{len(view.genes)} genes"
    )
    print(f"slopes from one backward pass over {tokens:,} tokens of {len(view.texts)} probes: {seconds:.1f} s\n")
    print(f"what +.1 of a gene is predicted to do, nats a token\n{'':14}" + "".join(f"{p[:9]:>11}" for p in view.texts))
    slope = {(effect.gene, effect.probe): effect for effect in view.effects}
    for gene in view.genes:
        cells = (slope[gene, probe] for probe in view.texts)
        print(
            f"{gene:14}"
            + "".join(f"{cell.slope / 10:+10.4f}{' ' if cell.low * cell.high > 0 else '~'}" for cell in cells)
        )
    print("(~: the 95 % interval over texts holds zero)\n")
    rng = np.random.default_rng(chosen.seed)
    before = losses(resident, probes)
    predicted, measured = [], []
    began = time.perf_counter()
    for _ in range(chosen.moves):
        step = dict(zip(view.genes, rng.normal(0, chosen.size, len(view.genes)), strict=True))
        moved = genome.with_genes(**{gene: genome.genes[gene] + move for gene, move in step.items()})
        resident.become(made(pair, make_recipe(moved, pair.anatomy)))
        after = losses(resident, probes)
        predicted.append([sum(move * slope[gene, probe].slope for gene, move in step.items()) for probe in view.texts])
        measured.append([after[probe] - before[probe] for probe in view.texts])
    told, real = np.asarray(predicted), np.asarray(measured)
    print(f"{chosen.moves} random moves, sd {chosen.size:g} in every gene ({time.perf_counter() - began:.0f} s)")
    print(f"{'probe':14}{'texts':>6}{'Spearman':>10}{'p':>10}{'sd predicted':>14}{'sd measured':>13}")
    columns = [(probe, view.texts[probe], told[:, place], real[:, place]) for place, probe in enumerate(view.texts)]
    columns.append(("mean", sum(view.texts.values()), told.mean(axis=1), real.mean(axis=1)))
    for name, texts, one, other in columns:
        found = spearmanr(one, other)
        print(f"{name:14}{texts:6}{found.statistic:+10.3f}{found.pvalue:10.1e}{one.std():14.5f}{other.std():13.5f}")


def path(pair: Pair, resident: Resident, probes: ProbeSet) -> None:
    """The integral and its residual."""
    began = time.perf_counter()
    rows = path_integral(resident, lambda ratio: made(pair, uniform_recipe(pair.anatomy, ratio)), probes)
    print(f"\nfrom father to mother, nats a token ({time.perf_counter() - began:.0f} s)")
    print(f"{'probe':14}{'integral':>10}{'measured':>10}{'residual':>10}   most of it")
    for row in rows:
        print(
            f"{row.probe:14}{row.integral:+10.4f}{row.difference:+10.4f}{row.residual:+10.4f}"
            f"   {row.left:+.4f} from {row.start:.2f} to {row.end:.2f}"
        )


def made(pair: Pair, recipe: Recipe) -> Child:
    """The child of a recipe."""
    return Child(pair.father, pair.mother, recipe)


@torch.inference_mode()
def losses(resident: Resident, probes: ProbeSet) -> dict[str, float]:
    """NLL per probe, nats a token, a text at a time."""
    found = {}
    for probe, texts in probes.texts.items():
        total = count = 0.0
        for ids in encode_texts(resident.tokenizer, texts, probe, MOST_TOKENS):
            tokens = torch.tensor([ids], device=resident.device)
            logits = resident.logits(resident.hidden(tokens, torch.ones_like(tokens)))[0, :-1].float()
            total += float(torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="sum"))
            count += len(ids) - 1
        found[probe] = total / count
    return found


if __name__ == "__main__":
    sys.exit(main())
