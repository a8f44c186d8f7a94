"""Random numbers that belong to a key, not to the order of work.

Takes keys, gives uniform numbers. A sampled answer, a shown order, a simulated reply depend on what they are for
alone, so batches, resumes and subsets change nothing. Knows nothing about models.
"""

import hashlib

_SCALE = 2.0**-53


def uniform(*key: object) -> float:
    """A number in [0, 1): the same key, the same number, whatever was drawn before. Keys are told apart by `str`."""
    digest = hashlib.blake2b("\x1f".join(map(str, key)).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) * _SCALE
