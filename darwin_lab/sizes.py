"""Bytes in words, in one way everywhere: GiB is 2^30 bytes, as memory and graphics cards are sold.

Takes a number, gives text. Sizes that people type for shards are another thing (`engine.shards.parse_size`).
"""


def bytes_words(count: float) -> str:
    """`65.4 GiB`, `12.3 MiB`, `812 B`."""
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= scale:
            return f"{count / scale:,.1f} {unit}"
    return f"{count:.0f} B"
