"""The words beside each chart: what it is, how to read it, the trap it hides. Text only."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Help:
    """What the "?" of a chart says."""

    definition: str
    reading: str
    trap: str


AWAITED = "Waiting for the pair; one is opened in Parents."
"""What a chart says while the page arrives, and as long as there is no pair."""
PROBE_MAP = Help(
    "How much a layer matters to a probe. Skip: 1 − cosine between the model's last hidden state with the layer "
    "left out and with it, averaged over real tokens. Loss: by how many nats a token the text gets harder without "
    "the layer. All layers come from one sweep; nothing is sampled.",
    "Bright: the model changes much without this layer. Compare cells down a column (one layer, several skills) "
    "and the two parents cell by cell: both maps share one colour range, spread by square root so that small "
    "values can be told apart. Click a cell, or move with the arrow keys, to open its layer. Attention and FFN show "
    "what leaving out one half alone does.",
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
ADVICE_WORDS = {
    "contrastive": "Layer swaps", "card_v5": "Card V5", "card_v6": "Card V6", "paper": "Paper",
}  # fmt: skip
"""What the ways to advise are called."""
ADVICE = Help(
    "The mother's share each way advises for a layer, mean over its tensors. Layer swaps: what her layer did in his "
    "place, and his in hers, to the loss of the probes. Card V5: entropy, spread and norm of the weights, hers over "
    "both. Card V6: those, and how far the output turns without the layer. Paper: those, and how far a layer's mean "
    "activation under reasoning lies from that under neutral text.",
    "Blue is the father, red the mother, grey one half. Under each name stands how far the ratios of single tensors "
    "reach. Which of them a genome follows is chosen in Genome, a run in Evolution; “Does the prescription help?” "
    "tries all four.",
    "The published formulas score each parent alone, so parents of one base look alike to them and the rows stay near "
    "one half: they carry no information for such a pair. Only the swaps compare what the layers do.",
)
EXPERT_MAP = Help(
    "Load: how many of the routed tokens each expert got, as a multiple of the even share 1/E. Saliency (REAP): the "
    "mean, over the tokens an expert got, of its gate times the length of its output. Both on a logarithmic scale, "
    "counted over every token of the probes, after top-k.",
    "Green is an even share, yellow is overworked, dark is rarely asked. Grey is a dead expert: the 95 % upper bound "
    "of its share is below a twentieth of the even share. Sorted by load, a column is the layer's ranking and steps "
    "down evenly in a healthy layer. Click a cell to open its layer.",
    "Dead means dead on these probes. Another language or skill may wake it, so read the number of tokens beside "
    "the map; one probe alone shows only what that probe asks for.",
)
EXPERT_DIFFERENCE = Help(
    "The father's load (or saliency) of an expert over the mother's, as a power of two.",
    "Blue: the father's expert works more, red: the mother's does. White is equal, grey is dead in both.",
    "It compares the same expert number. That is the same expert only while both parents descend from one model.",
)
ROUTER_ENTROPY = Help(
    "Load entropy: how evenly all tokens spread over the experts, H(u) / ln E. Token entropy: how undecided the router "
    "is about a single token, averaged over tokens, over ln E as well. Both lie between 0 and 1.",
    "Filled marks are load, open marks token entropy; father dashed, mother dotted. A drop in the filled line is a "
    "layer where few experts do the work.",
    "High token entropy is no sign that all experts work: a router can waver between a few and never ask the rest. "
    "And load entropy of 1 beside many dead experts is impossible, whoever publishes it.",
)
OUTPUT_SIMILARITY = Help(
    "Mean cosine between the outputs of two experts of a layer on the same tokens, over all pairs.",
    "Near one, the experts answer alike, and merging or dropping some costs little. Father dashed, mother dotted.",
    "Near zero is no sign of health: independent random vectors score about zero too.",
)
MOE_HEALTH = Help(
    "The expert diagnostics of each parent in one line a metric: its mean over the MoE layers, the worst layer, and "
    "whether it is beyond a limit.",
    "✓ is within the limit in every layer, ✕ is beyond it in at least one (for dead experts: on the mean). Lines "
    "without a sign have no good and bad.",
    "The limits are ours, not published ones, and all of it holds for these probes. A sign is a reason to look at "
    "the layer, not a verdict on skill.",
)
LAYER_TEXTS = Help(
    "The texts of one probe with the layer's importance on each of them, largest effect first.",
    "A layer that matters on two texts of forty is a specialist; one that matters alike on all is plumbing. The last "
    "column is father minus mother.",
    "One text is one measurement without an interval; the mean and its whiskers decide.",
)
TENSORS = Help(
    "Every tensor of the model with what its weights alone tell: the norm of mother minus father over the father's "
    "norm, their cosine, the share of entries whose sign differs, the stable rank of the difference, and each "
    "parent's entropy (nats) and standard deviation.",
    "Sort by “difference” to see where the parents were trained apart. A low stable rank is a change along few "
    "directions, such as an adapter's.",
    "A large difference is not an important one: weights can move far without changing what the model says. Entropy "
    "and standard deviation hardly differ between relatives, which is why the card's ratio built on them says little.",
)
DEAD_SHARE = Help(
    "The share of a layer's routed experts that are dead: upper 95 % bound of the load (texts as clusters) below "
    ".05 / E.",
    "Father plain, mother hatched. The dotted line marks one half. A parent with too few tokens shows no bar: "
    "fewer than 60 E / k tokens, or than 59 texts, cannot certify anything.",
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
    "The share of tokens each expert of this layer got, over all probes; hover for its saliency.",
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
    "generation. Level lines: father (blue, dashed), mother (vermilion, dotted), plain 0.5 blend (grey), each "
    "on the items of that generation. Candidates meet a share of the selection items, redrawn each generation, so "
    "the levels move too; the best then meet all.",
    "The best of many tries on the same items is flattered by luck. Only the report items in the Child tab tell "
    "whether the child is better.",
)
HEALTH = Help(
    "The child's importance per layer beside its parents'. Interference: child above 1.25 × the larger parent + "
    ".02. Function loss: a layer that matters in a parent (top quarter), less than half as much in the child, and less "
    "there than in either parent: what works as in one parent is inherited.",
    "Bars are the child, the dashed blue line the father, the dotted vermilion line the mother. A hatched bar "
    "under ▲ is flagged. Click a bar to open its layer.",
    "The thresholds are ours, not published ones. A flag is a reason to look at the probe's loss, not a verdict "
    "on skill. Damage spreads: in a trained model the layers around a damaged one, those before it most, are "
    "flagged with it.",
)
HEALTH_DEAD = Help(
    "Dead experts per layer in the child and its parents, on the same probes.",
    "Child in green, father blue, mother vermilion and hatched.",
    "Reviving an expert without its router row changes nothing; what counts is what the child routes, and that is"
    " measured.",
)
HEALTH_MEND = Help(
    "For each flagged layer the parent who reads better on the probes where it fails. “Mend” measures how far: the "
    "layer is moved towards that parent, eight ratios a sweep, until no probe flags it; then all is scanned again.",
    "Parents' gap: how much lower that parent reads there than the other, in nats a token. The mended layer is pinned "
    "in the genome: all its tensors take the ratio found, in any layout, and no other layer changes by a byte.",
    "A flag that clears is not a skill that came back: compare the loss before and after, and score both children.",
)
HEALTH_MENDED = Help(
    "The child as it was and the mended one, each from a whole scan on the same texts.",
    "Share: the mother's part of every tensor in the layer. The ratio nearest to the old one is taken at which no "
    "probe flags the layer and, where that can be had, none reads worse than both parents.",
    "The ratio was chosen on these very probes. Other texts, and benchmark items, are the test.",
)
HEALTH_LOSS = Help(
    "The child's mean next-token loss on each probe minus the father's (circle) and the mother's (square).",
    "Left of zero the child reads better than that parent. A probe is lost when both whiskers lie right of zero.",
    "Whiskers come from resampling the probe's own texts; a dozen short texts say little about a whole skill.",
)
HEALTH_MOE = Help(
    "What became of the routed experts, measured on the child: the same counts as in the MRI, over the same tokens.",
    "Means over the MoE layers. Watch: beyond both parents by a tenth; the lines are ours. Revived: dead in a parent "
    "and used in the child, each with the number of tokens that say so.",
    "Dead means dead on these probes. An expert without its router row stays uncalled, whatever weights it was given.",
)
SCORES = Help(
    "Accuracy of child, father, mother and the plain 0.5 blend on the same items.",
    "Whiskers are 95 % Wilson intervals of each bar alone. Whether two models differ is told by the paired test "
    "in the table: it compares them item by item and is far sharper.",
    "Report items are sealed. Each look at them is counted, because a number that was peeked at often is worth less.",
)
BLOCK_RECIPE = Help(
    "A child told block by block, as model cards print it: layers, t (the mother's share of all their tensors), and "
    "whose router rows they get.",
    "Blue is the father's, vermilion the mother's. A star is a golden layer: the mother leads there by more than three "
    "robust standard deviations, outside its interval. Click a block to select its middle layer.",
    "What lies in no layer (embedding, output head, final norm) follows the gene of the whole model, not the blocks.",
)
BLOCK_STRIP = Help(
    "Three views of one child over the same layers: the mother's share of attention and of FFN and experts, what each "
    "layer matters in both parents (rise in NLL when it is skipped, mean over the skills), and the share of routed "
    "experts that are dead. Dotted verticals are the genome's blocks.",
    "Blue cells are the father's, vermilion the mother's, grey an even mix. A layer that matters much in one parent "
    "and is taken from the other is worth a look: click it and open Health.",
    "A layer that matters more is not a better layer, and dead means dead on these probes.",
)
BENCH_PLAN = Help(
    "What a run will answer: the items of each benchmark on the chosen split, the accuracy of guessing, and the "
    "smallest gap between two models that so many items show four times in five (two-sided, p < .05, accuracy about "
    "one half).",
    "A gap below that number will most likely not be told apart from luck. More items shrink it with their square "
    "root: four times the items, half the gap.",
    "Two relatives are wrong on much the same items, so the paired test can see somewhat less or more than this; a "
    "benchmark chosen because one model looked good on it shows too much.",
)
BENCH_SCORES = Help(
    "Accuracy of each model on the same items. Above chance is accuracy minus guessing as a share of what there is "
    "above guessing; invalid items are those the model never answered, and they count as wrong.",
    "Bars are children, green, and the plain 0.5 blend, grey; the dashed line is the father, the dotted one the "
    "mother. Whiskers are 95 % Wilson intervals of one model alone. Click a row to read its items.",
    "Overlapping whiskers do not prove equality, and whiskers that miss each other are too strict a test: the paired "
    "comparison under “Hybrid vigour” goes item by item and is sharper.",
)
BENCH_VIGOUR = Help(
    "Hybrid vigour: the child against each parent on exactly the items all three answered. Differences in accuracy "
    "with 95 % paired intervals and exact McNemar p; “ahead of both” is as sure as the less sure of the two. Holm "
    "corrects that p for the number of benchmarks; relative is the gain as a share of the better parent's accuracy.",
    "“Surpasses both parents” is said only of report items, and only with p < .05 against each parent and after "
    "Holm's correction. On other splits a lead is a lead, not a result.",
    "Published reference rows are unpaired: other items, prompts or harnesses. They stand for orientation and are "
    "never tested against.",
)
BENCH_REFERENCES = Help(
    "Scores somebody published for a benchmark, as printed, with the 95 % Wilson interval that so many items allow. A "
    "score no count of right answers gives is marked.",
    "Read them as a landmark: roughly where models of this kind stand.",
    "Another prompt, another harness or another subset moves a score by more than most merges do. Without their "
    "answers item by item there is no paired test, and none is made.",
)
BENCH_OVERLAP = Help(
    "Which items only the father gets, only the mother, both, or neither. It needs no merge: two scored parents are "
    "enough. The barrier is the parents' mean accuracy minus that of the plain 0.5 blend.",
    "The end of “both” is the father's accuracy; the end of “only the mother” is a child that loses nothing. What lies "
    "between the better parent and that end is the headroom. The diamond is the plain blend.",
    "With guessing, even two copies of one ability disagree: part of the headroom is luck and cannot be inherited.",
)
BENCH_ITEMS = Help(
    "Every question with the options, the right one marked, and what each model answered with which probability: the "
    "softmax of the options' log-likelihoods.",
    "Filter for what the child gained (right where both parents are wrong) and for what it lost (the reverse). A "
    "gain that is luck looks like near-even probabilities.",
    "Reading report items one by one and mending the child for them makes them selection items. Items of gated "
    "benchmarks are hidden, because they must not be published or shown around.",
)
BENCH_CATEGORY = Help(
    "The same scores split by the items' own category (subject, language, kind).",
    "Brackets are 95 % Wilson intervals on the items of that category alone.",
    "Many small groups: the best and the worst of them are mostly luck. Nothing here is corrected for looking at many.",
)
BENCH_LIST = Help(
    "Benchmarks that can be run here: the pair's own, those of the Hub (fetched when first run, pinned to one "
    "revision), and your files.",
    "Chance is the accuracy of guessing. “To be fetched” needs the network once; gated ones also need your own access.",
    "A benchmark's licence is that of its items. Gated items never leave this machine and never appear in an export.",
)
BENCH_FIELDS = Help(
    "How your file is read: which column holds the question, the options and the answer. The guess is shown with the "
    "first three rows as a model would meet them.",
    "The right answer carries the tick. If it sits on the wrong option, change the answer column; nothing is added "
    "before you press “Add”.",
    "An answer may be a letter, a number counted from 0, or the option's own text; a column of 1 to 4 that is taken "
    "for 0 to 3 shifts every answer.",
)
BENCH_CLAIM = Help(
    "Whether any number of right answers out of n rounds to a published score, with the 95 % Wilson interval and the "
    "smallest difference n items can show.",
    "“Not possible” means no count gives it: the score is then a mean of several runs, of another n, or a slip.",
    "Possible is not the same as true, and a possible score may still have been chosen out of many.",
)
BENCH_LEAKS = Help(
    "Items of different splits that are the same or nearly so (five-letter pieces in common), questions that stand "
    "inside a probe text, and passages whose items fell into different splits.",
    "Whatever evolution or the MRI has already seen tells nothing new on the report: each line is a pair to remove "
    "from one side. Short texts are only compared whole.",
    "Only wording is compared. A translation or a paraphrase of an item passes unseen, and so does whatever the "
    "parents met in their own training.",
)
HELD = Help(
    "Whether a scan holds each model whole or streams it, one layer in memory at a time, and the precision it computes "
    "in. bfloat16 has the range of float32 with 8 bits of precision in place of 24, and its weights take half the "
    "memory.",
    "Streaming changes no result. bfloat16 does: single cells move by rounding, so small differences between "
    "models drown first, and the prescription moves with them. Father, mother, layer swaps and health are always in "
    "one precision, and scans of different precision are never compared.",
    "A processor without units for bfloat16 may scan slower in it than in float32, and small models gain nothing. "
    "Choose it where a model would otherwise not fit.",
)
SCAN_COMPARED = Help(
    "Where two scans of one probe set differ: the first minus the second, probe by probe and layer by layer, above "
    "what neutral text does. Any two may be compared: a parent then and now, a child and the scan somebody sent.",
    "A diamond marks a cell that is told apart from chance: the texts are paired, and the bound holds for all cells "
    "at once (max-T, 95 %). Veiled cells are inside the noise.",
    "Two scans compare only if they read the same probe texts with the same settings. A layer that matters more is "
    "not a better layer.",
)
TRIAL = Help(
    "Children made by the contrastive prescription, taken at its word, against the plain .5 blend, the best single "
    "ratio (chosen on selection items), and a placebo: the same advice given to the wrong layers. Ten probe draws "
    "resample the probe texts; each makes its own prescription and placebo. Below them the children that the published "
    "formulas advise, taken at their word too.",
    "Right of zero the prescription is ahead. Diamond: the mean over the draws, 95 % over items; open dots: single "
    "draws. It helps when it beats blend, lerp and placebo after Holm. Beating the blends but not the placebo means "
    "that the shares helped, not which layer got which.",
    "The draws share their texts, so ten dots on one side are not ten proofs: the test counts items. One pair shows "
    "nothing about other pairs.",
)
GRADIENT = Help(
    "The slope of each probe's loss along every tensor's ratio, <gradient, mother − father>, from one backward pass "
    "over its texts, carried to the genes through the recipe. A cell is the change predicted for moving that gene up "
    "by .1, in nats a token.",
    "Red: the loss falls, this skill wants more of the mother there; blue: it wants the father. A veil covers cells "
    "whose 95 % interval over texts holds zero. A row of both colours is a trade between skills.",
    "A slope holds for small moves only, one gene at a time, and knows no jump: a token that changes its experts, a "
    "ratio that a threshold turns into a copy. Lower loss on probe texts is not yet a higher score.",
)
GRADIENT_PATH = Help(
    "The slope of all tensors together, summed along the straight way from father to mother, beside the difference of "
    "their losses, which it must equal.",
    "A residual that is small beside the measured difference says that slopes can be trusted on this pair. The last "
    "column names the piece of the way that is explained least: outside it they may still hold.",
    "The way is taken at eight places. Where experts are switched, or die, on the way, the loss jumps: the residual "
    "shows what no slope can see.",
)
