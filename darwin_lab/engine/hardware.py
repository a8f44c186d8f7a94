"""What it takes to run a model: graphics memory by weight format, and which cards hold it.

Takes numbers of weights and bytes, gives a `Serving`. Cards are listed by the GiB they are sold with (their drivers
report up to half a GiB less, which the allowance covers); nothing is measured and no card is asked. Knows nothing of
checkpoints.
"""

from dataclasses import dataclass
from typing import Any

GIB = 1 << 30
CONTEXT = 8192
"""Tokens of the one text whose keys and values are allowed for."""
RUNTIME_BYTES = GIB
"""Per card: the driver's context, the kernels' workspace and the activations of one batch."""
Q8_BITS, Q4_BITS = 8.5, 4.5
"""Bits a weight of GGUF's Q8_0 (32 weights and one 16-bit scale) and, rounded as is usual, of Q4_K_M."""
_BF16_BITS = 16.0
_CACHE_BYTES = 2
"""Keys and values are cached in 16 bits."""


@dataclass(frozen=True)
class Card:
    """`count` cards of `gib` GiB each."""

    gib: int
    example: str
    count: int = 1

    @property
    def name(self) -> str:
        """`24 GiB`, `2 x 24 GiB`."""
        return f"{self.count} x {self.gib} GiB" if self.count > 1 else f"{self.gib} GiB"


CARDS = (
    Card(8, "RTX 4060"), Card(12, "RTX 4070"), Card(16, "RTX 4080"), Card(24, "RTX 3090, RTX 4090"),
    Card(32, "RTX 5090"), Card(40, "A100 40 GB"), Card(24, "two RTX 4090", 2), Card(48, "RTX A6000, RTX 6000 Ada"),
    Card(32, "two RTX 5090", 2), Card(80, "A100 80 GB, H100"), Card(96, "RTX PRO 6000"), Card(48, "two RTX A6000", 2),
    Card(141, "H200"), Card(80, "two H100", 2), Card(192, "MI300X"), Card(141, "two H200", 2),
    Card(80, "eight H100", 8), Card(141, "eight H200", 8),
)  # fmt: skip


@dataclass(frozen=True)
class Format:
    """The weights in one format; `stored` marks the real bytes of the files."""

    name: str
    bits: float
    bytes: int
    stored: bool = False


@dataclass(frozen=True)
class Fit:
    """Which formats (by name) a card holds, with its allowance."""

    card: Card
    holds: tuple[str, ...]


@dataclass(frozen=True)
class Serving:
    """Memory to serve one model: its weights, the cache of one text of `context` tokens, `runtime_bytes` a card."""

    weights: int
    formats: tuple[Format, ...]
    context: int
    cache_bytes: int
    runtime_bytes: int
    fits: tuple[Fit, ...]

    def needed(self, form: Format, cards: int = 1) -> int:
        """Bytes over all cards together."""
        return form.bytes + self.cache_bytes + self.runtime_bytes * cards

    def smallest(self, form: Format) -> Card | None:
        """The first card of the table that holds a format, None when none does."""
        return next((fit.card for fit in self.fits if form.name in fit.holds), None)

    @property
    def telling_fits(self) -> tuple[Fit, ...]:
        """The cards up to the first that holds every format: those after it hold every format too, or are smaller."""
        last = next((place for place, fit in enumerate(self.fits) if len(fit.holds) == len(self.formats)), None)
        return self.fits if last is None else self.fits[: last + 1]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "weights": self.weights,
            "context_tokens": self.context,
            "cache_bytes": self.cache_bytes,
            "runtime_bytes_per_card": self.runtime_bytes,
            "formats": [
                {
                    "name": form.name,
                    "bits_per_weight": round(form.bits, 3),
                    "bytes": form.bytes,
                    "gib": round(form.bytes / GIB, 2),
                    "as_stored": form.stored,
                }
                for form in self.formats
            ],
            "cards": [
                {"name": fit.card.name, "example": fit.card.example, "gib": fit.card.gib, "count": fit.card.count,
                 "holds": list(fit.holds)}
                for fit in self.fits
            ],
        }  # fmt: skip


def serving(weights: int, stored_bytes: int, stored_as: str, cached_numbers: int) -> Serving:
    """The formats and cards of a model of `weights` weights in `stored_bytes` bytes of dtype `stored_as` ("BF16").

    `cached_numbers` are the keys and values of one text of `CONTEXT` tokens. Wider files also get a row in bf16.
    Over several cards the weights are divided evenly (tensor or pipeline parallel), the allowance is not.
    """
    bits = 8 * stored_bytes / max(weights, 1)
    formats = [Format(f"{stored_as.lower()}, as stored", bits, stored_bytes, stored=True)]
    if bits > 1.5 * _BF16_BITS:
        formats.append(_at("bf16", _BF16_BITS, weights))
    formats += [_at("Q8", Q8_BITS, weights), _at("Q4_K_M", Q4_BITS, weights)]
    made = Serving(weights, tuple(formats), CONTEXT, cached_numbers * _CACHE_BYTES, RUNTIME_BYTES, ())
    fits = tuple(
        Fit(card, tuple(f.name for f in formats if made.needed(f, card.count) <= card.gib * card.count * GIB))
        for card in CARDS
    )
    return Serving(made.weights, made.formats, made.context, made.cache_bytes, made.runtime_bytes, fits)


def _at(name: str, bits: float, weights: int) -> Format:
    return Format(name, bits, round(weights * bits / 8))
