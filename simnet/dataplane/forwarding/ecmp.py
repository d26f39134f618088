"""Which next hop of a group a packet takes.

Modelled: hash over addresses (Linux's default), over the five-tuple, or over the five-tuple with its ends
sorted, so that
both directions of a flow hash alike; a seed per box, or one for all; modulo, hash-threshold, resilient buckets and
highest random weight (`groups.py` lays out their members). Left out: flow labels, inner headers.
The hash is the splitmix64 finaliser, not Linux's jhash or a vendor's CRC: equal in law, not flow by flow.
Source: RFC 2991, 2992; Linux ip-sysctl (fib_multipath_hash_policy), net/ipv4/fib_semantics.c (fib_select_multipath);
D. Thaler, C. Ravishankar, "Using name-based mappings to increase hit rates", 1998 (highest random weight).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.forwarding.tables import EcmpGroups, EcmpPolicy
from simnet.random_streams import GOLDEN, mix_in_place

HASHES = ("l3", "l4", "symmetric")
CHOICES = ("modulo", "hash-threshold", "resilient", "hrw")
HASH_BITS = 31  # of the hash that thresholds are compared with, as in Linux

_THRESHOLD, _HRW = CHOICES.index("hash-threshold"), CHOICES.index("hrw")
_PORT = np.uint64(0xD1B54A32D192ED03)  # odd; spreads a port over 64 bits


def flow_hash(
    policy: EcmpPolicy,
    device: NDArray[np.intp],
    source_key: NDArray[np.uint64],
    destination_key: NDArray[np.uint64],
    source_port: NDArray[np.int32],
    destination_port: NDArray[np.int32],
    protocol: NDArray[np.uint8],
    seed: int,
) -> NDArray[np.uint64]:
    """Return each packet's hash at its device: uint64[n], all values equally likely over random flows.

    The keys are hashes of addresses (`ForwardingTables.address_key`); a device whose policy is l3 leaves ports
    and protocol out.
    """
    fields = policy.hash.take(device)
    mixed, other = source_key.copy(), destination_key
    if fields.any():
        # 0 for a device that hashes addresses only, so that what follows adds nothing there
        spread = np.where(fields > 0, _PORT, np.uint64(0))
        mixed += (source_port.astype(np.uint64) + np.uint64(1)) * spread
        other = other + (destination_port.astype(np.uint64) + np.uint64(1)) * spread
        sorts = fields == 2
        if sorts.any():
            low, high = np.minimum(mixed, other), np.maximum(mixed, other)
            mixed, other = np.where(sorts, low, mixed), np.where(sorts, high, other)
    mix_in_place(mixed)
    mixed += other
    if fields.any():
        mixed += np.where(fields > 0, protocol.astype(np.uint64) * np.uint64(GOLDEN), np.uint64(0))
    box = policy.device_key ^ np.uint64(seed % 2**64)
    mix_in_place(box)
    mixed ^= box.take(device)
    mix_in_place(mixed)
    return mixed


def choose(
    choice: NDArray[np.uint8],
    hashed: NDArray[np.uint64],
    start: NDArray[np.int32],
    size: NDArray[np.int32],
    groups: EcmpGroups,
) -> NDArray[np.intp]:
    """Return the member that each packet takes, a position in the columns of `groups`: intp[n].

    Parameters
    ----------
    choice : uint8[n], position in CHOICES, of each packet's box
    hashed : uint64[n], from `flow_hash`
    start, size : int32[n], where the members of each packet's group begin, and how many there are

    Notes
    -----
    modulo, resilient: member hash % size (a resilient group's members are its buckets). hash-threshold: the first
    whose bound is not below the 31-bit hash. hrw: the one whose key, mixed with the hash, is the greatest number.
    """
    upper = (hashed >> np.uint64(32)).astype(np.uint32)
    member: NDArray[np.intp] = start.astype(np.intp) + (upper % size.astype(np.uint32))
    by_threshold = np.flatnonzero(choice == _THRESHOLD)
    if by_threshold.size:
        short = (hashed[by_threshold] >> np.uint64(64 - HASH_BITS)).astype(np.int64)
        member[by_threshold] = np.searchsorted(
            groups.bound, (start[by_threshold].astype(np.int64) << HASH_BITS) + short
        )
    by_weight = np.flatnonzero(choice == _HRW)
    if by_weight.size:
        member[by_weight] = _highest(hashed[by_weight], start[by_weight], size[by_weight], groups.key)
    return member


def _highest(
    hashed: NDArray[np.uint64], start: NDArray[np.int32], size: NDArray[np.int32], key: NDArray[np.uint64]
) -> NDArray[np.intp]:
    """The member of the greatest weight; of equal ones the first."""
    best = start.astype(np.intp)
    greatest = np.zeros(len(hashed), dtype=np.uint64)
    for place in range(int(size.max())):
        rows = np.flatnonzero(place < size)
        at = start[rows].astype(np.intp) + place
        weight = hashed[rows] ^ key.take(at)
        mix_in_place(weight)
        higher = weight > greatest[rows] if place else np.ones(len(rows), dtype=np.bool_)
        best[rows[higher]] = at[higher]
        greatest[rows[higher]] = weight[higher]
    return best
