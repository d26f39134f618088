"""IP and CIDR texts as kube-proxy reads them: leniently (leading zeros are decimal), printed back canonically.

Source: facts of kube-proxy's address handling (`ParseIPSloppy`, `ParseCIDRSloppy` of k8s.io/utils/net).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

from simnet.model.iptables.ruleset import Family, IPNetwork

_LEADING_ZEROS = re.compile(r"(?<![0-9A-Fa-f:])0+(?=\d)|(?<=:)0+(?=\d+\.)")
_VERSION = {Family.IPV4: 4, Family.IPV6: 6}


def parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address of a text, None if it is none; an IPv4-mapped IPv6 address is an IPv4 address."""
    try:
        address = ipaddress.ip_address(_without_leading_zeros(text))
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def parse_network(text: str) -> IPNetwork | None:
    """Return the network of a CIDR text with or without host bits, None if it is none or has no prefix length."""
    address, slash, length = text.strip().partition("/")
    if not slash or not length.isdecimal():
        return None
    try:
        return ipaddress.ip_network((ipaddress.ip_address(_without_leading_zeros(address)), int(length)), strict=False)
    except ValueError:
        return None


@lru_cache(maxsize=1 << 17)
def canonical_address(text: str, family: Family) -> str | None:
    """Return the canonical text of an address of this family, None for anything else."""
    address = parse_address(text)
    return str(address) if address is not None and address.version == _VERSION[family] else None


def addresses_of(texts: Iterable[str], family: Family) -> tuple[str, ...]:
    """Return the canonical texts of those that are addresses of the family, order kept."""
    return tuple(address for text in texts if (address := canonical_address(text, family)) is not None)


def networks_of(texts: Iterable[str], family: Family) -> tuple[IPNetwork, ...]:
    """Return the networks of those texts that are CIDRs of the family, order kept; blanks around them are trimmed."""
    networks = (parse_network(text) for text in texts)
    return tuple(network for network in networks if network is not None and network.version == _VERSION[family])


def host_network(address: str) -> IPNetwork:
    """Return the /32 or /128 that holds just a canonically written address."""
    if ":" in address:
        return ipaddress.IPv6Network((int(ipaddress.IPv6Address(address)), 128))
    first, second, third, fourth = address.split(".")
    return ipaddress.IPv4Network((int(first) << 24 | int(second) << 16 | int(third) << 8 | int(fourth), 32))


def _without_leading_zeros(text: str) -> str:
    return _LEADING_ZEROS.sub("", text) if "." in text else text
