"""The words beside each chart: what it is, how to read it, the trap it hides. Text only."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Help:
    """What the "?" of a chart says."""

    definition: str
    reading: str
    trap: str


PROBE_MAP = Help(
    "How much a layer matters to a probe. Skip: 1 − cosine between the model's last hidden state with the layer "
    "left out and with it, averaged over real tokens. Loss: by how many nats a token the text gets harder without "
    "the layer. All layers come from one sweep; nothing is sampled.",
    "Bright: the model changes much without this layer. Compare cells down a column (one layer, several skills) "
    "and the two parents cell by cell: both maps share one colour range, spread by square root so that small "
    "values can be told apart. Click a cell to open its layer.",
    "First and last layers score high in every model and for every text, so a bright edge says little. Cosine "
    "saturates; decisions use the loss.",
)
ADVANTAGE = Help(
    "Father minus mother: the loss a layer prevents on a probe, above what it prevents on neutral text. Above "
    "zero (blue) the father's layer does more for that skill, below zero (red) the mother's. "
    "Swap gain shows instead what the other parent's layer does in place: the loss saved by keeping the father's, "
    "averaged over both directions; the MRI's advice is made of it.",
    "Only cells with a diamond are told apart from chance: the bound is taken over all cells at once (max-T, 95 "
    "%), so a map of many cells does not find something by luck. Veiled cells are inside the noise.",
    "A layer that matters more is not a layer that is better: it may only be harder to do without. The "
    "prescription therefore swaps layers between the parents and measures the gain.",
)
EXPERT_MAP = Help(
    "How many of the routed tokens each expert got, as a multiple of the even share 1/E, on a logarithmic scale. "
    "Counted over every token of the probes, after top-k.",
    "Green is an even share, yellow is overworked, dark is rarely asked. A grey cross is a dead expert: the 95 % "
    "upper bound of its share is below a twentieth of the even share.",
    "Dead means dead on these probes. Another language or skill may wake it, so read the number of tokens beside "
    "the map.",
)
DEAD_SHARE = Help(
    "The share of a layer's routed experts that are dead: upper 95 % bound of the load (texts as clusters) below "
    ".05 / E.",
    "Father plain, mother hatched. The dotted line marks one half. A parent with too few tokens shows no bar: "
    "fewer than 60 E / k tokens cannot certify anything.",
    "A dead expert still has weights, and merging them drags a live expert of the other parent down. Preserve "
    "keeps the father's expert and his router row where the mother's is dead.",
)
LAYER_PROBES = Help(
    "The importance of the chosen layer on each probe, in both parents.",
    "Circle father, square mother; whiskers are 95 % bootstrap intervals over the probe's texts.",
    "Whiskers that overlap do not prove equality, and ones that do not overlap were not corrected for looking at "
    "many layers: the advantage map is.",
)
LAYER_EXPERTS = Help(
    "The share of tokens each expert of this layer got, over all probes.",
    "The dotted line is the even share. A cross marks a dead expert.",
    "Expert 3 of the father and expert 3 of the mother are the same expert only while the parents descend from "
    "one model.",
)
RATIO = Help(
    "The mother's share in each layer after the genome is resolved: genes, reading, the MRI's advice weighted by "
    "mri_trust, and transplants (below .15 becomes 0, above .85 becomes 1 when the MRI is trusted). Means over a "
    "layer are weighted by tensor size.",
    "Bars grow from one half: up to the mother, down to the father. The amber tick is what the MRI advises for "
    "the layer. Dotted verticals are block borders.",
    "FFN and experts hold most of the weights, so the whole layer follows them; attention can be very different "
    "and hardly move the mean.",
)
EVOLUTION = Help(
    "Fitness is the mean over skills of p(gold), the probability the child gives to the right option, on "
    "selection items. σ is the step size of CMA-ES.",
    "Points are candidates: click one to look at it. Thick line: best so far. Band: best to worst of a "
    "generation. Level lines: father (blue, dashed), mother (vermilion, dotted), plain 0.5 blend (grey) on all "
    "selection items. Candidates meet a share of them, redrawn each generation; the best then meet all.",
    "The best of many tries on the same items is flattered by luck. Only the report items in the Child tab tell "
    "whether the child is better.",
)
HEALTH = Help(
    "The child's importance per layer beside its parents'. Interference: child above 1.25 × the larger parent + "
    ".02. Function loss: a layer that matters in a parent (top quarter) and less than half as much in the child.",
    "Bars are the child, the dashed blue line the father, the dotted vermilion line the mother. A hatched bar "
    "under ▲ is flagged. Click a bar to open its layer.",
    "The thresholds are ours, not published ones. A flag is a reason to look at the probe's loss, not a verdict "
    "on skill.",
)
HEALTH_DEAD = Help(
    "Dead experts per layer in the child and its parents, on the same probes.",
    "Child in green, father blue, mother vermilion and hatched.",
    "Reviving an expert without its router row changes nothing; what counts is what the child routes, and that is"
    " measured.",
)
SCORES = Help(
    "Accuracy of child, father, mother and the plain 0.5 blend on the same items.",
    "Whiskers are 95 % Wilson intervals of each bar alone. Whether two models differ is told by the paired test "
    "in the table: it compares them item by item and is far sharper.",
    "Report items are sealed. Each look at them is counted, because a number that was peeked at often is worth less.",
)
BLOCK_STRIP = Help(
    "Three views of one child over the same layers: the mother's share of attention and of FFN and experts, what each "
    "layer matters in both parents (rise in NLL when it is skipped, mean over the skills), and the share of routed "
    "experts that are dead. Dotted verticals are the genome's blocks.",
    "Blue cells are the father's, vermilion the mother's, grey an even mix. A layer that matters much in one parent "
    "and is taken from the other is worth a look: click it and open Health.",
    "A layer that matters more is not a better layer, and dead means dead on these probes.",
)
