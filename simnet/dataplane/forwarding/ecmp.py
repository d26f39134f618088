"""Which next hop of a group a packet takes.

Modelled: hash over addresses (Linux's default), over the five-tuple, or over the five-tuple with its ends
sorted, so that
both directions of a flow hash alike; a seed per box; modulo and hash-threshold choice. Left out: flow labels,
inner headers.
The hash is the splitmix64 finaliser, not Linux's jhash or a vendor's CRC: equal in law, not flow by flow.
Source: RFC 2991, 2992 (hash-threshold); Linux ip-sysctl, fib_multipath_hash_policy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.forwarding.tables import EcmpPolicy
from simnet.random_streams import GOLDEN, mix_in_place

HASHES = ("l3", "l4", "symmetric")
CHOICES = ("modulo", "hash-threshold")

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
    policy: EcmpPolicy, device: NDArray[np.intp], hashed: NDArray[np.uint64], size: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Return the position in its group that each packet takes, 0 <= position < size: int32[n].

    modulo: hash % size. hash-threshold: the hash space in `size` equal ranges, the range that the hash falls in.
    """
    upper = (hashed >> np.uint64(32)).astype(np.uint32)
    by_threshold = policy.choice.take(device) == 1
    if not by_threshold.any():
        return (upper % size.astype(np.uint32)).astype(np.int32)
    threshold = (upper.astype(np.uint64) * size.astype(np.uint64)) >> np.uint64(32)
    return np.where(by_threshold, threshold, upper % size.astype(np.uint32)).astype(np.int32)
