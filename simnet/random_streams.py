"""Random numbers as a pure function of (seed, purpose, flow, draw): asked twice, or in another order, they
repeat.

So a result does not depend on batches, windows, workers or the machine, a new purpose leaves all other
numbers as they were, and the variants of an experiment meet the same clients, arrivals and sizes (common
random numbers). Left out: security; whoever sees a few numbers can compute the rest.
Source: the splitmix64 finaliser (Steele, Lea, Flood, "Fast splittable pseudorandom number generators",
OOPSLA 2014), two rounds, since with one round the sum `flow + draw * GOLDEN` of two different pairs could
meet. Imports nothing of simnet.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

GOLDEN = 0x9E3779B97F4A7C15  # 2**64 divided by the golden ratio, made odd

_BLOCK = 1 << 15  # elements worked on at a time: 256 KiB a column stays in the second-level cache
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)
_SHIFT_1, _SHIFT_2, _SHIFT_3 = np.uint64(30), np.uint64(27), np.uint64(31)


def stream_key(seed: int, purpose: str) -> np.uint64:
    """Return the 64-bit key of one stream, such as seed 1 and purpose "workload/arrivals"."""
    digest = hashlib.blake2b(f"{seed:d}/{purpose}".encode(), digest_size=8, person=b"simnet").digest()
    return np.uint64(int.from_bytes(digest, "little"))


def flow_keys(seed: int, purpose: str, flow: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the first round, `mix(stream_key ^ flow)`: what all draws of one flow have in common.

    A caller that draws many numbers per flow asks once per flow here, and then `bits_of_keys` once per draw.
    uint64[n] in, uint64[n] out.
    """
    keys = flow ^ stream_key(seed, purpose)
    mix_in_place(keys)
    return keys


def bits_of_keys(key: NDArray[np.uint64], draw: NDArray[np.uint64] | int) -> NDArray[np.uint64]:
    """Return the second round, `mix(key + draw * GOLDEN)`, for keys from `flow_keys`.

    Uint64[n], all values equally likely.
    """
    if isinstance(draw, np.ndarray):
        mixed = draw * np.uint64(GOLDEN)
        mixed += key
    else:
        mixed = key + np.uint64(int(draw) * GOLDEN % 2**64)
    mix_in_place(mixed)
    return mixed


def bits(seed: int, purpose: str, flow: NDArray[np.uint64], draw: NDArray[np.uint64] | int = 0) -> NDArray[np.uint64]:
    """Return 64 random bits per (flow, draw) for one purpose.

    Parameters
    ----------
    seed : int
        Any integer; negative ones too.
    purpose : str
        What the numbers are for. Each purpose has numbers of its own.
    flow, draw : uint64[n]; `draw` may be one int for all flows
        Whose number it is, and which of its numbers. "Flow" may be any numbered thing: a client, a period.

    Returns
    -------
    uint64[n]
    """
    mixed = np.empty(flow.shape, np.uint64)
    key = stream_key(seed, purpose)
    for start in range(0, flow.size, _BLOCK):
        rows = slice(start, start + _BLOCK)
        block = mixed[rows]
        np.bitwise_xor(flow[rows], key, out=block)
        mix_in_place(block)
        if isinstance(draw, np.ndarray):
            block += draw[rows] * np.uint64(GOLDEN)
        else:
            block += np.uint64(int(draw) * GOLDEN % 2**64)
        mix_in_place(block)
    return mixed


def uniform(
    seed: int, purpose: str, flow: NDArray[np.uint64], draw: NDArray[np.uint64] | int = 0
) -> NDArray[np.float64]:
    """Return one number in [0, 1) per (flow, draw) for one purpose: a multiple of 2**-53, float64[n]."""
    return unit_interval(bits(seed, purpose, flow, draw))


def unit_interval(random_bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return bits as float64 in [0, 1).

    The upper 53 bits times 2**-53. Exact, hence equal on every machine.
    """
    # Through int64, since processors convert signed integers faster; the values are below 2**53.
    number = (random_bits >> np.uint64(11)).view(np.int64).astype(np.float64)
    number *= 2.0**-53
    return number


def open_unit_interval(random_bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return bits as float64 in (0, 1), neither end included.

    The upper 52 bits, plus one half, times 2**-52.
    """
    number = (random_bits >> np.uint64(12)).view(np.int64).astype(np.float64)
    number += 0.5
    number *= 2.0**-52
    return number


def mix_in_place(values: NDArray[np.uint64]) -> None:
    """Apply one round of the splitmix64 finaliser, a bijection of 64-bit integers, to every element."""
    flat = values.reshape(-1)  # a view: the arrays made in this package are contiguous
    scratch = np.empty(min(flat.size, _BLOCK), np.uint64)
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        shifted = scratch[: block.size]
        np.right_shift(block, _SHIFT_1, out=shifted)
        np.bitwise_xor(block, shifted, out=block)
        np.multiply(block, _MULTIPLIER_1, out=block)
        np.right_shift(block, _SHIFT_2, out=shifted)
        np.bitwise_xor(block, shifted, out=block)
        np.multiply(block, _MULTIPLIER_2, out=block)
        np.right_shift(block, _SHIFT_3, out=shifted)
        np.bitwise_xor(block, shifted, out=block)
