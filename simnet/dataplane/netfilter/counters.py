"""Packet and byte counters per host, rule and policy, as `iptables -v -L` and `iptables-save -c` show them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.netfilter.program import Program

_DENSE_LIMIT = 1 << 24  # counters kept as a plain column; beyond, only those that are not zero
_BUFFER = 1 << 19  # logged matches that are added up at a time


class CounterJournal:
    """Matches of a block that may have to be done again; `replay` enters them in the counters."""

    def __init__(self) -> None:
        self._logged: list[tuple[NDArray[np.int64], NDArray[np.int64] | int, NDArray[np.int64] | int]] = []
        self._counted: dict[int, tuple[int, int]] = {}

    def log(
        self, keys: NDArray[np.int64], packets: NDArray[np.int64] | int, length_bytes: NDArray[np.int64] | int
    ) -> None:
        """As `Counters.log`."""
        self._logged.append((keys, packets, length_bytes))

    def count(self, key: int, packets: int, length_bytes: int) -> None:
        """As `Counters.count`."""
        before = self._counted.get(key, (0, 0))
        self._counted[key] = (before[0] + packets, before[1] + length_bytes)

    def replay(self, counters: Counters) -> None:
        """Enter everything in the counters."""
        for row in self._logged:
            counters.log(*row)
        for key, (packets, length_bytes) in self._counted.items():
            counters.count(key, packets, length_bytes)


class Counters:
    """Counters of one program; a rule counts a packet if all its matches hold, a policy if it decides.

    Two of the same program can be added. A match is logged first and added up in large portions, exactly: sums of a
    portion stay below 2**53.
    """

    def __init__(self, program: Program) -> None:
        self.rule_count, self.hosts = program.rule_count, program.hosts
        size = self.rule_count * self.hosts
        self._is_dense = size <= _DENSE_LIMIT
        self._keys = np.zeros(0, np.int64)
        self._packets = np.zeros(size if self._is_dense else 0, np.int64)
        self._bytes = np.zeros(size if self._is_dense else 0, np.int64)
        self._logged: list[tuple[NDArray[np.int64], NDArray[np.int64] | int, NDArray[np.int64] | int]] = []
        self._waiting = 0

    def log(
        self, keys: NDArray[np.int64], packets: NDArray[np.int64] | int, length_bytes: NDArray[np.int64] | int
    ) -> None:
        """Count matches: `keys` is host * rule_count + rule, int64[n]; weights per row, or one for all."""
        self._logged.append((keys, packets, length_bytes))
        self._waiting += len(keys)
        if self._waiting > max(_BUFFER, 2 * len(self._packets)):
            self._flush()

    def count(self, key: int, packets: int, length_bytes: int) -> None:
        """Count so many packets and bytes for one key."""
        if self._is_dense:
            self._packets[key] += packets
            self._bytes[key] += length_bytes
        else:
            self.log(np.array([key], np.int64), np.array([packets]), np.array([length_bytes]))

    def _flush(self) -> None:
        logged, self._logged, self._waiting = self._logged, [], 0
        by_weight: dict[tuple[int, int], list[NDArray[np.int64]]] = {}
        weighted: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = []
        for keys, packets, length_bytes in logged:
            if isinstance(packets, int) and isinstance(length_bytes, int):
                by_weight.setdefault((packets, length_bytes), []).append(keys)
            else:
                weighted.append((keys, np.broadcast_to(packets, keys.shape), np.broadcast_to(length_bytes, keys.shape)))
        for (packets, length_bytes), parts in by_weight.items():
            unique, times = self._tally(np.concatenate(parts))
            self._add(unique, times * packets, times * length_bytes)
        if weighted:
            keys = np.concatenate([row[0] for row in weighted])
            unique, inverse = np.unique(keys, return_inverse=True)
            totals = np.zeros((2, len(unique)), np.int64)
            np.add.at(totals[0], inverse, np.concatenate([row[1] for row in weighted]))
            np.add.at(totals[1], inverse, np.concatenate([row[2] for row in weighted]))
            self._add(unique, totals[0], totals[1])

    def _tally(self, keys: NDArray[np.int64]) -> tuple[NDArray[np.int64] | slice, NDArray[np.int64]]:
        if self._is_dense:
            return slice(None), np.bincount(keys, minlength=len(self._packets))
        return np.unique(keys, return_counts=True)

    def _add(
        self, keys: NDArray[np.int64] | slice, packets: NDArray[np.int64], length_bytes: NDArray[np.int64]
    ) -> None:
        if self._is_dense:
            self._packets[keys] += packets
            self._bytes[keys] += length_bytes
            return
        assert not isinstance(keys, slice)
        merged, inverse = np.unique(np.concatenate([self._keys, keys]), return_inverse=True)
        totals = np.zeros((2, len(merged)), np.int64)
        np.add.at(totals[0], inverse, np.concatenate([self._packets, packets]))
        np.add.at(totals[1], inverse, np.concatenate([self._bytes, length_bytes]))
        self._keys, self._packets, self._bytes = merged, totals[0], totals[1]

    def __iadd__(self, other: Counters) -> Counters:
        """Add the counters of another run of the same program."""
        if (other.rule_count, other.hosts) != (self.rule_count, self.hosts):
            raise ValueError("counters of different programs cannot be added")
        other._flush()
        self._flush()
        self._add(slice(None) if self._is_dense else other._keys, other._packets, other._bytes)
        return self

    def of_rules(self, host: int, first_rule: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (packets, bytes) of `count` consecutive rule ids on one host: int64[count] each."""
        self._flush()
        start = host * self.rule_count + first_rule
        if self._is_dense:
            return self._packets[start : start + count].copy(), self._bytes[start : start + count].copy()
        low, high = np.searchsorted(self._keys, [start, start + count])
        packets, length_bytes = np.zeros(count, np.int64), np.zeros(count, np.int64)
        packets[self._keys[low:high] - start] = self._packets[low:high]
        length_bytes[self._keys[low:high] - start] = self._bytes[low:high]
        return packets, length_bytes

    def of_chain(
        self, program: Program, host: int, table: str, chain: str
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (packets, bytes) of a chain's rules in order; a built-in chain's policy is one more, last.

        KeyError if the host has no such chain.
        """
        unit = program.unit(host, table, chain)
        if unit is None:
            raise KeyError((table, chain))
        return self.of_rules(host, unit.first_rule, len(unit.chain.rules) + (unit.policy_pc >= 0))
