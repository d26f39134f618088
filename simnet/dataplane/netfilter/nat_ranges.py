"""Which address of a range a DNAT or SNAT takes, and which port of a range a DNAT takes.

Modelled: the address is a hash of the source address and, unless `--persistent`, of the destination address; neither
ports nor chance play a part, so all connections of a client to an address go one way. A source that lies in an SNAT's
range, and whose port may stay, stays. A DNAT keeps a port that is in its range, else takes the first; with `--random`
any. Left out: a mapping of the same source address and port that is still alive, which SNAT would take again; a port
that another connection's translation occupies, where the kernel takes the next one (SNAT: another one at random).
Source: net/netfilter/nf_nat_core.c (get_unique_tuple, find_best_ips_proto, nf_nat_l4proto_unique_tuple) and
include/linux/jhash.h of Linux 6, on a little-endian machine and in conntrack zone 0; held against a kernel's answers.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from simnet.model.addresses import AddressTable

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
RANDOM_NUMBERS = 1 << 16  # get_random_u16()
_INITIAL = 0xDEADBEEF
_WORD = (1 << 32) - 1


@dataclass(frozen=True, slots=True, eq=False)
class AddressRange:
    """What one target's `FIRST-LAST` stands for; an IPv6 range differs in its last 32 bits only."""

    first: IPAddress
    last: IPAddress
    is_persistent: bool
    is_destination: bool  # of a DNAT
    ids: NDArray[np.int32]  # [size] address id of each, first to last

    @property
    def size(self) -> int:
        """How many addresses there are to choose from."""
        return int(self.last) - int(self.first) + 1


def words(version: NDArray[np.int8], high: NDArray[np.uint64], low: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """Return uint32[n, 4]: addresses as the kernel reads them, an IPv4 address in the first word and zeros after it.

    `version`, `high`, `low`: columns of an AddressTable.
    """
    is_ipv6 = version == 6
    big = np.zeros((len(version), 4), np.uint32)
    shift, mask = np.uint64(32), np.uint64(_WORD)
    big[:, 0] = np.where(is_ipv6, high >> shift, low & mask)
    big[:, 1] = np.where(is_ipv6, high & mask, 0)
    big[:, 2] = np.where(is_ipv6, low >> shift, 0)
    big[:, 3] = np.where(is_ipv6, low & mask, 0)
    return big.byteswap()


def jhash2_of_four(key: NDArray[np.uint32], initial: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return the kernel's jhash2() of keys of four words: uint32[n, 4], uint32[n] -> uint32[n]."""
    start = np.uint32((_INITIAL + (4 << 2)) & _WORD)
    a, b, c = (key[:, place] + start + initial for place in range(3))
    a, c = (a - c) ^ _rotated(c, 4), c + b  # __jhash_mix
    b, a = (b - a) ^ _rotated(a, 6), a + c
    c, b = (c - b) ^ _rotated(b, 8), b + a
    a, c = (a - c) ^ _rotated(c, 16), c + b
    b, a = (b - a) ^ _rotated(a, 19), a + c
    c, b = (c - b) ^ _rotated(b, 4), b + a
    a = a + key[:, 3]
    c = (c ^ b) - _rotated(b, 14)  # __jhash_final
    a = (a ^ c) - _rotated(c, 11)
    b = (b ^ a) - _rotated(a, 25)
    c = (c ^ b) - _rotated(b, 16)
    a = (a ^ c) - _rotated(c, 4)
    b = (b ^ a) - _rotated(a, 14)
    return (c ^ b) - _rotated(b, 24)


def _rotated(value: NDArray[np.uint32], by: int) -> NDArray[np.uint32]:
    return (value << np.uint32(by)) | (value >> np.uint32(32 - by))


def place_in_range(
    source: NDArray[np.uint32], destination: NDArray[np.uint32], chosen_from: AddressRange
) -> NDArray[np.int64]:
    """Return which address of a range each packet gets, 0 for the first: int64[n].

    `source`, `destination`: uint32[n, 4], as `words` returns them, before this translation.
    """
    last_word = 3 if chosen_from.first.version == 6 else 0
    seed = np.zeros(len(source), np.uint32) if chosen_from.is_persistent else destination[:, last_word]
    number = jhash2_of_four(source, seed)
    if last_word and not chosen_from.is_persistent:
        # each word that is settled is mixed in; DNAT has by then written its own over the destination's
        packed = np.frombuffer(chosen_from.first.packed, "<u4").astype(np.uint32)
        for word in range(last_word):
            number = number ^ (packed[word] if chosen_from.is_destination else destination[:, word])
    return ((number.astype(np.uint64) * np.uint64(chosen_from.size)) >> np.uint64(32)).astype(np.int64)


def ids_in_range(
    addresses: AddressTable, source: NDArray[np.int32], destination: NDArray[np.int32], chosen_from: AddressRange
) -> NDArray[np.int32]:
    """Return the address id that each packet gets: int32[n] from int32[n] address ids."""
    version, high, low = addresses.columns()
    ends = [words(version[ids], high[ids], low[ids]) for ids in (source, destination)]
    return chosen_from.ids[place_in_range(ends[0], ends[1], chosen_from)]


def address_in_range(source: IPAddress, destination: IPAddress, chosen_from: AddressRange) -> IPAddress:
    """Return the same for one packet, as an address."""
    ends = []
    for address in (source, destination):
        columns = np.zeros((1, 4), np.uint32)
        columns[0, : len(address.packed) // 4] = np.frombuffer(address.packed, "<u4")
        ends.append(columns)
    return chosen_from.first + int(place_in_range(ends[0], ends[1], chosen_from)[0])


def numbers_of_each(size: int, of: int) -> list[int]:
    """Return for each of `size` places how many of the numbers 0 .. of-1 the kernel's scaling puts there."""
    edges = [-(-place * of // size) for place in range(size + 1)]
    return [end - start for start, end in pairwise(edges)]


def numbers_by_remainder(size: int) -> list[int]:
    """Return for each remainder of a division by `size` how many 16-bit numbers have it."""
    return [len(range(remainder, RANDOM_NUMBERS, size)) for remainder in range(size)]


def ports_after(
    port: NDArray[np.int32], first: NDArray[np.int32], last: NDArray[np.int32], is_random: NDArray[np.bool_],
    number: NDArray[np.uint64],
) -> NDArray[np.int32]:  # fmt: skip
    """Return the destination port after DNAT: int32[n].

    `first` -1: the target names no port. `number`: 16 random bits a packet, of use where `is_random`.
    """
    size = np.maximum(last - first + 1, 1).astype(np.uint64)
    drawn = first + (number % size).astype(np.int32)
    kept = np.where((first <= port) & (port <= last), port, first)
    return np.where(first < 0, port, np.where(is_random, drawn, kept)).astype(np.int32)
