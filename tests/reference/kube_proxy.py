"""Follow one new connection through a node's rules as kube-proxy's own tests do; slow and obvious.

The rules are those tests': nat PREROUTING whatever the source, then filter KUBE-SERVICES, KUBE-EXTERNAL-SERVICES,
KUBE-NODEPORTS and KUBE-PROXY-FIREWALL, all four, with the destination address (not the port) of the first DNAT.
A jump through a `statistic` rule does not end its chain, so all endpoints that some packet could reach are gathered.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from simnet.model.iptables.ruleset import (
    AddressTypeMatch,
    CommentMatch,
    ConntrackStateMatch,
    DestinationAddress,
    Dnat,
    InInterface,
    Jump,
    MarkMatch,
    Match,
    NfacctMatch,
    PortMatch,
    ProtocolMatch,
    RecentMatch,
    Reject,
    Rule,
    Ruleset,
    SourceAddress,
    StatisticRandom,
    Verdict,
)

FILTER_CHAINS = ("KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-PROXY-FIREWALL")


@dataclass
class Walk:
    """One new connection, and what was met on its way."""

    ruleset: Ruleset
    local_addresses: frozenset[str]
    source: str
    protocol: str  # tcp, udp, sctp
    destination: str
    port: int
    outputs: list[str] = field(default_factory=list)
    is_masqueraded: bool = False

    def run(self) -> tuple[list[str], bool]:
        """Return the endpoints, or the one verdict, and whether KUBE-MARK-MASQ was passed."""
        self.chain("nat", "PREROUTING")
        if self.outputs:
            self.destination = self.outputs[0].rpartition(":")[0].strip("[]")
        for name in FILTER_CHAINS:
            self.chain("filter", name)
        return self.outputs or ["none"], self.is_masqueraded

    def chain(self, table: str, name: str) -> bool:
        """Walk a chain; whether a terminal rule ended the walk."""
        chain = self.ruleset.chain(table, name)
        assert chain is not None, f"a rule jumps to {name}, which table {table} does not hold"
        for rule in chain.rules:
            if not all(self.holds(match) for match in rule.matches):
                continue
            match rule.target:
                case None:
                    continue
                case Jump("KUBE-MARK-MASQ"):
                    self.is_masqueraded = True
                case Jump(target):
                    ended = self.chain(table, target)
                    if ended and not _is_statistic(rule):
                        return True
                case Dnat(address, ports):
                    assert address is not None
                    assert ports is not None
                    self.outputs.append(f"[{address}]:{ports[0]}" if ":" in address else f"{address}:{ports[0]}")
                    return True
                case Reject():
                    self.outputs.append("REJECT")
                    return True
                case Verdict(verdict):
                    self.outputs.append(verdict)
                    return True
        return False

    def holds(self, match: Match) -> bool:
        """Whether a match holds for this connection."""
        match match:
            case SourceAddress(network, negated):
                return (ipaddress.ip_address(self.source) in network) != negated
            case DestinationAddress(network, negated):
                return (ipaddress.ip_address(self.destination) in network) != negated
            case ProtocolMatch(_, text):
                return text == self.protocol
            case PortMatch(_, _, ports):
                return ports is None or ports[0] <= self.port <= ports[1]
            case AddressTypeMatch("LOCAL", None):
                return self.source in self.local_addresses
            case AddressTypeMatch(None, "LOCAL"):
                return self.destination in self.local_addresses
            case RecentMatch("rcheck") | MarkMatch() | ConntrackStateMatch():
                return False
            case CommentMatch() | StatisticRandom() | NfacctMatch() | RecentMatch("set") | InInterface():
                return True
        raise AssertionError(f"no such match in these rules: {match}")


def _is_statistic(rule: Rule) -> bool:
    return any(isinstance(match, StatisticRandom) for match in rule.matches)
