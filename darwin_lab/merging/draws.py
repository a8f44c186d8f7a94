"""Counter-based random draws: the same element of the same tensor always draws the same number.

Takes a key and element indices, gives keep-masks. No state, no generator; integer arithmetic only,
so every device, thread count and chunk size agrees.
"""

import hashlib

import torch

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_BITS = 24


def _signed(value: int) -> int:
    """The int64 with the same 64 bits."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def draw_key(seed: int, name: str, parent: str) -> int:
    """The 64-bit key of one tensor of one parent: first 8 bytes of SHA-256 of "seed|name|parent"."""
    digest = hashlib.sha256(f"{seed}|{name}|{parent}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def draw_bits(key: int, start: int, count: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """int64[count]: uniform 24-bit integers of elements start..start+count (splitmix64, Steele et al. 2014)."""
    z = torch.arange(start + 1, start + count + 1, dtype=torch.int64, device=device)
    z.mul_(_signed(_GOLDEN)).add_(_signed(key))
    z.bitwise_xor_((z >> 30).bitwise_and_((1 << 34) - 1)).mul_(_signed(_MIX_1))
    z.bitwise_xor_((z >> 27).bitwise_and_((1 << 37) - 1)).mul_(_signed(_MIX_2))
    z.bitwise_xor_((z >> 31).bitwise_and_((1 << 33) - 1))
    return (z >> (64 - _BITS)).bitwise_and_((1 << _BITS) - 1)


def keep_mask(key: int, density: float, start: int, count: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """bool[count]: True with probability `density`; density 1 keeps everything, exactly."""
    if density >= 1.0:
        return torch.ones(count, dtype=torch.bool, device=device)
    return draw_bits(key, start, count, device) < round(density * (1 << _BITS))
