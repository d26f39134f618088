"""Addresses in play, each with a dense id, so that IPv4 and IPv6 take the same path through the kernels.

A prefix test becomes one boolean column over ids (`members`), and a table per address is a plain gather.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from simnet.model.iptables.ruleset import IPNetwork

_LOW_64 = (1 << 64) - 1


class AddressTable:
    """Interned addresses: `intern` gives a text its id (int, dense from 0), `text` gives it back. Grows, never
    shrinks.
    """

    def __init__(self, addresses: Iterable[str] = ()) -> None:
        self._ids: dict[str, int] = {}
        self._texts: list[str] = []
        self._version: list[int] = []
        self._high: list[int] = []
        self._low: list[int] = []
        self._columns: tuple[NDArray[np.int8], NDArray[np.uint64], NDArray[np.uint64]] | None = None
        for address in addresses:
            self.intern(address)

    def __len__(self) -> int:
        return len(self._texts)

    def intern(self, address: str) -> int:
        """Return the id of an address given in any valid spelling; ValueError if it is none."""
        known = self._ids.get(address)
        if known is not None:
            return known
        parsed = ipaddress.ip_address(address)
        canonical = str(parsed)
        number = self._ids.get(canonical)
        if number is None:
            number = len(self._texts)
            self._ids[canonical] = number
            self._texts.append(canonical)
            value = int(parsed)
            self._version.append(parsed.version)
            self._high.append(value >> 64)
            self._low.append(value & _LOW_64)
            self._columns = None
        self._ids[address] = number
        return number

    def find(self, address: str) -> int | None:
        """Return the id of a canonically spelled address, None if it is not in play."""
        return self._ids.get(address)

    def text(self, number: int) -> str:
        """Return the canonical text of an id."""
        return self._texts[number]

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts; position i is id i."""
        return tuple(self._texts)

    def columns(self) -> tuple[NDArray[np.int8], NDArray[np.uint64], NDArray[np.uint64]]:
        """Return (version, high 64 bits, low 64 bits), one entry an id: int8[n], uint64[n], uint64[n]."""
        if self._columns is None:
            self._columns = (
                np.array(self._version, dtype=np.int8),
                np.array(self._high, dtype=np.uint64),
                np.array(self._low, dtype=np.uint64),
            )
        return self._columns

    def members(self, network: IPNetwork) -> NDArray[np.bool_]:
        """Return bool[n]: which ids lie in the network."""
        version, high, low = self.columns()
        first, mask = int(network.network_address), int(network.netmask)
        in_network: NDArray[np.bool_] = version == network.version
        in_network &= (high & np.uint64(mask >> 64)) == np.uint64(first >> 64)
        in_network &= (low & np.uint64(mask & _LOW_64)) == np.uint64(first & _LOW_64)
        return in_network
