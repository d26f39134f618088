"""Which predicates a rule's matches become: operands are interned here, one pool for the whole program.

A match that is always true (a comment, nfacct, `-s 0.0.0.0/0`) becomes none; one that simnet does not model raises
`Unknown`, which the compiler turns into an error naming the line. Source: iptables-extensions(8).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray

from simnet.dataplane.netfilter.packets import STATE_BITS
from simnet.dataplane.netfilter.program import (
    TYPE_BROADCAST,
    TYPE_LOCAL,
    TYPE_MULTICAST,
    TYPE_UNICAST,
    NthCounter,
    Predicate,
    RecentTest,
)
from simnet.model.addresses import AddressTable
from simnet.model.iptables.modelled import PORT_PROTOCOLS
from simnet.model.iptables.ruleset import (
    AddressTypeMatch,
    CommentMatch,
    ConntrackStateMatch,
    DestinationAddress,
    InInterface,
    IPNetwork,
    MarkMatch,
    Match,
    MultiportMatch,
    NfacctMatch,
    OutInterface,
    PortMatch,
    ProtocolMatch,
    RecentMatch,
    SourceAddress,
    StatisticNth,
    StatisticRandom,
    TcpFlagsMatch,
)
from simnet.units import PS_PER_S

_TYPES = {"UNICAST": TYPE_UNICAST, "LOCAL": TYPE_LOCAL, "MULTICAST": TYPE_MULTICAST, "BROADCAST": TYPE_BROADCAST}

Test = tuple[Predicate, bool, int]  # predicate, negated, operand


class Unknown(Exception):
    """A match or target that could change a verdict and is not modelled; the text says which."""


class Pool:
    """Numbers equal values once: `number(value)` is the value's place in `values`."""

    def __init__(self) -> None:
        self.values: list[Hashable] = []
        self._numbers: dict[Hashable, int] = {}

    def number(self, value: Hashable) -> int:
        """Return the number of a value, new or known."""
        found = self._numbers.get(value)
        if found is None:
            found = self._numbers[value] = len(self.values)
            self.values.append(value)
        return found


class PredicateCompiler:
    """Turns matches into tests and collects the constants that their operands name."""

    def __init__(self, addresses: AddressTable) -> None:
        self.addresses = addresses
        self.networks, self.interfaces, self.port_sets, self.marks = Pool(), Pool(), Pool(), Pool()
        self.recent, self.recent_lists = Pool(), Pool()
        self.nth: list[NthCounter] = []  # each rule counts for itself, so equal ones stay apart
        self._networks: dict[IPNetwork, tuple[str, int]] = {}

    def tests(self, matches: tuple[Match, ...]) -> list[Test]:
        """Return the tests of a rule in the order in which the kernel makes them (header first)."""
        header: list[Test] = []
        others: list[Test] = []
        protocols = {m.number for m in matches if isinstance(m, ProtocolMatch) and not m.negated}
        for match in matches:
            match match:
                case CommentMatch() | NfacctMatch():
                    pass
                case SourceAddress():
                    self._address(header, match.network, match.negated, Predicate.SOURCE_HOST)
                case DestinationAddress():
                    self._address(header, match.network, match.negated, Predicate.DESTINATION_HOST)
                case InInterface():
                    header.append((Predicate.IN_INTERFACE, match.negated, self.interfaces.number(match.name)))
                case OutInterface():
                    header.append((Predicate.OUT_INTERFACE, match.negated, self.interfaces.number(match.name)))
                case ProtocolMatch():
                    if match.number:  # 0 is "all"
                        header.append((Predicate.PROTOCOL, match.negated, match.number))
                case PortMatch():
                    self._ports(others, match, protocols)
                case TcpFlagsMatch():
                    holds = [set(match.set_flags) == {flag} & set(match.mask) for flag in ("SYN", "ACK")]
                    bits = holds[0] | holds[1] << 1
                    others.append((Predicate.TCP_FLAGS, match.negated, bits))
                case MultiportMatch():
                    which = {"sports": Predicate.SOURCE_PORT_SET, "dports": Predicate.DESTINATION_PORT_SET,
                             "ports": Predicate.EITHER_PORT_SET}[match.which]  # fmt: skip
                    others.append((which, match.negated, self.port_sets.number(match.ranges)))
                case MarkMatch():
                    others.append((Predicate.MARK, match.negated, self.marks.number((match.value, match.mask))))
                case StatisticRandom():
                    others.append((Predicate.RANDOM, match.negated, match.threshold))
                case StatisticNth():
                    self.nth.append(NthCounter(match.every, match.packet))
                    others.append((Predicate.NTH, match.negated, len(self.nth) - 1))
                case RecentMatch():
                    others.append((Predicate.RECENT, match.negated, self._recent(match)))
                case AddressTypeMatch():
                    self._address_types(others, match)
                case ConntrackStateMatch():
                    unknown = [state for state in match.states if state not in STATE_BITS]
                    if unknown:
                        raise Unknown(f"conntrack state {unknown[0]}")
                    bits = 0
                    for state in match.states:
                        bits |= STATE_BITS[state]
                    others.append((Predicate.STATE, match.negated, bits))
                case _:
                    raise Unknown(f"match {getattr(match, 'module', type(match).__name__)}")
        return header + others

    def _address(self, tests: list[Test], network: IPNetwork, negated: bool, host: Predicate) -> None:
        known = self._networks.get(network)
        if known is None:
            if network.prefixlen == network.max_prefixlen:
                known = ("host", self.addresses.intern(str(network.network_address)))
            elif network.prefixlen == 0:
                known = ("all", 0)
            else:
                known = ("network", self.networks.number(network))
            self._networks[network] = known
        kind, operand = known
        if kind == "host":
            tests.append((host, negated, operand))
        elif kind == "network" or negated:  # "not all addresses" is never true: the all-network's complement
            if kind == "all":
                operand = self.networks.number(network)
            tests.append((Predicate(host + 1), negated, operand))

    def _ports(self, tests: list[Test], match: PortMatch, protocols: set[int]) -> None:
        number = PORT_PROTOCOLS.get(match.module)
        if number is None:
            raise Unknown(f"port match of module {match.module}")
        if number not in protocols:
            tests.append((Predicate.PROTOCOL, False, number))
        for ports, negated, single, several in (
            (match.source_ports, match.source_negated, Predicate.SOURCE_PORT, Predicate.SOURCE_PORT_SET),
            (match.destination_ports, match.destination_negated, Predicate.DESTINATION_PORT,
             Predicate.DESTINATION_PORT_SET),
        ):  # fmt: skip
            if ports is None:
                continue
            if ports[0] == ports[1]:
                tests.append((single, negated, ports[0]))
            elif ports != (0, 65535) or negated:
                tests.append((several, negated, self.port_sets.number((ports,))))

    def _recent(self, match: RecentMatch) -> int:
        if match.rttl:
            raise Unknown("recent --rttl")
        mask = None
        if match.mask is not None:
            address = ipaddress.ip_address(match.mask)
            if int(address) != (1 << address.max_prefixlen) - 1:
                mask = int(address)
        return self.recent.number(
            RecentTest(
                list=self.recent_lists.number(match.name), action=match.action, reap=match.reap, mask=mask,
                window_ps=(match.seconds or 0) * PS_PER_S, hitcount=match.hitcount or 0,
                by_source=match.side == "rsource",
            )
        )  # fmt: skip

    def _address_types(self, tests: list[Test], match: AddressTypeMatch) -> None:
        if match.limit_interface is not None:
            raise Unknown(f"addrtype --limit-iface-{match.limit_interface}")
        for text, negated, predicate in (
            (match.source_type, match.source_negated, Predicate.SOURCE_TYPE),
            (match.destination_type, match.destination_negated, Predicate.DESTINATION_TYPE),
        ):
            if text is None:
                continue
            bits = 0
            for name in text.split(","):
                if name.strip() not in _TYPES:
                    raise Unknown(f"addrtype {name.strip()}")
                bits |= _TYPES[name.strip()]
            tests.append((predicate, negated, bits))

    def port_set_columns(self) -> NDArray[np.bool_]:
        """Return bool[set, 65536]."""
        columns = np.zeros((len(self.port_sets.values), 65536), np.bool_)
        for row, ranges in enumerate(self.port_sets.values):
            for first, last in ranges:  # type: ignore[attr-defined]
                columns[row, first : last + 1] = True
        return columns
