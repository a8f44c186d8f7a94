"""Blocks as a line of text, the way model cards print them: "L0-L37 t .5988 router B; L38 t .9 router B".

Takes the text and a number of layers, gives a `v5` genome, and back; moves the blocks of a genome to other layers.
Knows no weights and no scans. Source: methods section 1 (the published V5 genome).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from darwin_lab.errors import LabError
from darwin_lab.genome.genome import Genome, genome_from_json, neutral_genome
from darwin_lab.genome.layouts import Blocks

EXAMPLE = "L0-L37 t .5988 router B; L38 t .9 router B; L39 t .5336 router A"
SOURCES = {"A": "A", "FATHER": "A", "B": "B", "MOTHER": "B", "BLEND": "blend"}
_RANGE = re.compile(r"^L?\s*(\d{1,5})(?:\s*(?:-|–|—|to)\s*L?\s*(\d{1,5}))?$", re.IGNORECASE)
_PART = re.compile(r"^(?P<layers>.*?)[\s,:]*\bt\b\s*[=:]?\s*(?P<t>[^\s,]+)(?P<rest>.*)$", re.IGNORECASE)
_ROUTER = re.compile(r"^[\s,]+router\s*[=:]?\s*(\S+)$", re.IGNORECASE)


@dataclass(frozen=True)
class Block:
    """Layers `first` to `last`, the mother's share `t` of all their tensors, and whose router rows: A, B or blend."""

    first: int
    last: int
    t: float
    router: str = "blend"

    @property
    def layers(self) -> str:
        """`L0-L37`, `L38`."""
        return f"L{self.first}" if self.first == self.last else f"L{self.first}-L{self.last}"


def read_blocks(text: str, layers: int) -> tuple[Block, ...]:
    """The blocks of a text, parted by semicolons or lines, for a model of `layers` layers.

    Every layer must be in exactly one block. Raises `LabError` that names the part and says what to write instead.
    """
    parts = [piece.strip() for piece in re.split(r"[;\n]", text) if piece.strip()]
    if not parts:
        raise LabError(f"there are no blocks; write them like {EXAMPLE}")
    blocks: list[Block] = []
    for number, piece in enumerate(parts, start=1):
        where = f"block {number} ({piece[:60]!r})"
        block = _block(piece, where, layers)
        expected = blocks[-1].last + 1 if blocks else 0
        if block.first > expected:
            left = f"L{expected}" if block.first == expected + 1 else f"L{expected} to L{block.first - 1}"
            raise LabError(f"{where}: nothing covers {left}; begin it at L{expected}")
        if expected == layers:
            raise LabError(f"{where}: all layers are in earlier blocks already; leave this block out")
        if block.first < expected:
            raise LabError(f"{where}: L{block.first} is in an earlier block already; begin it at L{expected}")
        blocks.append(block)
    if blocks[-1].last != layers - 1:
        raise LabError(f"block {len(blocks)} ({parts[-1][:60]!r}): it ends at L{blocks[-1].last}, this model at "
                       f"L{layers - 1}; go on to the last layer")  # fmt: skip
    return tuple(blocks)


def genome_of_blocks(text: str, layers: int, **choices: Any) -> Genome:
    """The `v5` genome of a text of blocks; `choices` as in `neutral_genome`. Raises `LabError` as `read_blocks`."""
    blocks = read_blocks(text, layers)
    made = neutral_genome("v5", layers, blocks=tuple((block.first, block.last) for block in blocks), **choices)
    shares = {f"block_{number}": block.t for number, block in enumerate(blocks)}
    data = {**made.with_genes(**shares).to_json(), "router": [block.router for block in blocks]}
    return genome_from_json(data, layers)


def text_of_blocks(genome: Genome, layers: int) -> str:
    """The blocks of a genome as such a text; empty for a layout without a ratio a block."""
    if genome.layout not in ("v5", "v6"):
        return ""
    layout = genome.layout_of(layers)
    routers = [genome.router] * len(layout.blocks) if isinstance(genome.router, str) else list(genome.router)
    parts = []
    for (first, last), name, router in zip(layout.blocks, layout.block_names, routers, strict=True):
        share = f"{genome.genes[name] + 0.0:.6f}".rstrip("0").rstrip(".")
        said = Block(first, last, genome.genes[name], router)
        parts.append(f"{said.layers} t {share}" + ("" if router == "blend" else f" router {router}"))
    return "; ".join(parts)


def with_blocks(genome: Genome, blocks: Blocks, layers: int) -> Genome:
    """The genome with other blocks: each takes the mean of the shares its layers had, and their router where they
    agree. Raises `LabError` for blocks that do not fit, and for a layout that has none."""
    made = neutral_genome(genome.layout, layers, blocks=blocks)
    old, new = genome.layout_of(layers), made.layout_of(layers)
    routers = [genome.router] * len(old.blocks) if isinstance(genome.router, str) else list(genome.router)
    genes = {name: genome.genes.get(name, value) for name, value in made.genes.items() if name not in new.block_names}
    sources = []
    for name, (first, last) in zip(new.block_names, new.blocks, strict=True):
        covered = [index for layer in range(first, last + 1) if (index := old.block_of(layer)) is not None]
        shares = [genome.genes[old.block_names[index]] for index in covered]
        genes[name] = round(sum(shares) / len(shares), 6) if shares else new.gene(name).neutral
        sources.append(_agreed([routers[index] for index in covered]))
    return replace(genome, genes={name: genes[name] for name in new.names}, blocks=blocks, router=_router(sources))


def _block(piece: str, where: str, layers: int) -> Block:
    found = _PART.match(piece)
    if found is None:
        raise LabError(f"{where}: no share; write the layers, t and a number, such as L0-L{layers - 1} t .6 router B")
    span = _RANGE.match(found["layers"].strip())
    if span is None:
        raise LabError(f"{where}: {found['layers'].strip()[:30]!r} is no range of layers; write L0-L{layers - 1} or L0")
    first, last = int(span[1]), int(span[2] or span[1])
    if last < first:
        raise LabError(f"{where}: it runs backwards; write L{last}-L{first}")
    if last >= layers:
        raise LabError(f"{where}: this model has L0 to L{layers - 1}; end the block there")
    try:
        share = float(found["t"].replace("_", "?")) + 0.0  # Python reads 0_1 as 1; -0 becomes 0
    except ValueError:
        raise LabError(f"{where}: t is {found['t'][:20]!r}; give the mother's share, from 0 to 1") from None
    if not 0.0 <= share <= 1.0:
        raise LabError(f"{where}: t is {share:g}; give the mother's share, from 0 to 1")
    rest = found["rest"].rstrip(" ,")
    named = _ROUTER.match(rest)
    if rest and named is None:
        raise LabError(f"{where}: {rest.strip()[:30]!r} makes no sense after t; write router A, B or blend, or nothing")
    router = SOURCES.get((named[1] if named else "blend").upper())
    if router is None:
        raise LabError(f"{where}: router is {rest.split()[-1][:20]!r}; choose A (father), B (mother) or blend")
    return Block(first, last, round(share, 6), router)


def _agreed(sources: Sequence[str]) -> str:
    return sources[0] if sources and len(set(sources)) == 1 else "blend"


def _router(sources: Sequence[str]) -> str | tuple[str, ...]:
    return sources[0] if len(set(sources)) == 1 else tuple(sources)
