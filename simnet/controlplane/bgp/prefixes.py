"""Prefixes as BGP's tables hold them: one object for each, whose hash is worked out once.

A table of 5,000 prefixes in each of 5,000 boxes is asked some 10^8 times while it comes up; `ipaddress` works a
network's hash out anew each time.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from simnet.model.iptables.ruleset import IPNetwork


class _KnownHash:
    """Goes before a class of `ipaddress`."""

    def __init__(self, network: IPNetwork) -> None:
        super().__init__((int(network.network_address), network.prefixlen))  # type: ignore[call-arg]
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return repr(ipaddress.ip_network(str(self)))


class _Hashed4(_KnownHash, ipaddress.IPv4Network):
    pass


class _Hashed6(_KnownHash, ipaddress.IPv6Network):
    pass


@lru_cache(maxsize=1 << 16)
def prefix_of(text: str) -> IPNetwork:
    """Return the prefix that a text names: equal to what `ipaddress` makes of it, the same object for equal texts.

    Raises ValueError for a text that is no prefix.
    """
    network = ipaddress.ip_network(text)
    return _Hashed4(network) if network.version == 4 else _Hashed6(network)
