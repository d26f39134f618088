"""Which rules simnet can follow: the one place that says what of a rule is not modelled, and whether that matters.

A rule matters if it could change what happens to a packet that simnet sends (TCP, UDP, SCTP). It cannot if it has no
target, if the packet goes on after its target whatever happens (LOG, CONNMARK --save-mark), or if it is for another
protocol (icmp, ipencap).
Source: iptables-extensions(8).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from simnet.model.iptables.extensions import PASSING_TARGETS
from simnet.model.iptables.parser_text import ParsedRules
from simnet.model.iptables.printer import rule_text
from simnet.model.iptables.ruleset import (
    AddressTypeMatch,
    Chain,
    ConntrackStateMatch,
    Dnat,
    OpaqueMatch,
    OpaqueTarget,
    PortMatch,
    ProtocolMatch,
    RecentMatch,
    Rule,
    Snat,
    Target,
    Verdict,
)

PORT_PROTOCOLS = {"tcp": 6, "udp": 17, "dccp": 33, "sctp": 132, "udplite": 136}  # `-m MODULE` -> the protocol it asks
ADDRESS_TYPES = ("UNICAST", "LOCAL", "MULTICAST", "BROADCAST")
CONNTRACK_STATES = ("NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED", "SNAT", "DNAT")
SENT_PROTOCOLS = frozenset({6, 17, 132})  # of the packets that simnet sends
LARGEST_RANGE = 1 << 16  # addresses that one DNAT or SNAT may choose from
LARGEST_RANDOM_PORTS = 1 << 10  # ports that one DNAT may draw from: `trace --all` tells each


@dataclass(frozen=True, slots=True)
class LeftOutRule:
    """A rule, or a chain that rules jump to, that simnet does not model and that could have changed a verdict."""

    file: str
    line: int
    table: str
    rule: str  # as iptables-save prints it
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.table} {self.rule}  ({self.reason})"

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return {name: getattr(self, name) for name in self.__slots__}


def left_out_rules(parsed: ParsedRules) -> tuple[LeftOutRule, ...]:
    """Return what of a text simnet cannot follow and could change a verdict, in the order of its lines."""
    ruleset = parsed.ruleset
    found: dict[tuple[int, str], LeftOutRule] = {}
    of_line: dict[int, list[Rule]] = {}
    for table, chain in _chains(parsed):
        for rule in chain.rules:
            of_line.setdefault(rule.line, []).append(rule)
            reason = unmodelled_part(rule)
            if reason is not None and could_change_verdict(rule):
                text = f"-A {chain.name} {rule_text(rule, ruleset.family)}"
                found[rule.line, text] = LeftOutRule(ruleset.source, rule.line, table, text, reason)
    told = {line for line, _ in found}
    for item in parsed.not_understood:  # a chain that is not in the text, interfaces that a listing does not show
        rules = of_line.get(item.line, [])
        if item.line in told or not item.could_change_verdict or any(unmodelled_part(rule) for rule in rules):
            continue
        text = f"-A {item.chain} {rule_text(rules[0], ruleset.family)}" if rules else f"chain {item.chain}"
        found.setdefault((item.line, item.what), LeftOutRule(ruleset.source, item.line, item.table, text, item.what))
    return tuple(sorted(found.values(), key=lambda each: each.line))


def _chains(parsed: ParsedRules) -> Iterator[tuple[str, Chain]]:
    for name, table in parsed.ruleset.tables.items():
        for chain in table.chains.values():
            yield name, chain


def could_change_verdict(rule: Rule) -> bool:
    """Whether a rule, were it followed, could change what happens to a TCP, UDP or SCTP packet."""
    if rule.target is None or passes_on(rule.target):
        return False
    return not any(
        isinstance(match, ProtocolMatch) and not match.negated and match.number not in (0, *SENT_PROTOCOLS)
        for match in rule.matches
    )


def passes_on(target: Target) -> bool:
    """Whether a target that is not modelled lets every packet go on to the next rule, unchanged in what rules read."""
    if not isinstance(target, OpaqueTarget):
        return False
    return target.name in PASSING_TARGETS or (target.name == "CONNMARK" and "--restore-mark" not in target.arguments)


def unmodelled_part(rule: Rule) -> str | None:
    """Return the first part of a rule that simnet does not model, in words; None if it models all of it."""
    for match in rule.matches:
        match match:
            case OpaqueMatch():
                return f"match {match.module}" if match.module else f"option {' '.join(match.arguments)}"
            case AddressTypeMatch():
                if match.limit_interface is not None:
                    return f"addrtype --limit-iface-{match.limit_interface}"
                for text in (match.source_type, match.destination_type):
                    for name in text.split(",") if text else ():
                        if name.strip() not in ADDRESS_TYPES:
                            return f"addrtype {name.strip()}"
            case ConntrackStateMatch():
                for state in match.states:
                    if state not in CONNTRACK_STATES:
                        return f"conntrack state {state}"
            case RecentMatch(rttl=True):
                return "recent --rttl"
            case PortMatch() if match.module not in PORT_PROTOCOLS:
                return f"port match of module {match.module}"
    return unmodelled_target(rule.target)


def unmodelled_target(target: Target | None) -> str | None:
    """Return what of a target simnet does not model; None if all of it."""
    match target:
        case OpaqueTarget():
            return None if passes_on(target) else f"target {target.name}"
        case Verdict() if target.name not in ("ACCEPT", "DROP", "RETURN"):
            return f"target {target.name}"
        case Dnat() | Snat() if target.last_address not in (None, target.address):
            return _unmodelled_range(type(target).__name__.upper(), str(target.address), str(target.last_address))
        case Dnat() if target.ports and "--random" in target.options:
            if target.ports[1] - target.ports[0] >= LARGEST_RANDOM_PORTS:
                return f"DNAT --random to more than {LARGEST_RANDOM_PORTS} ports"
    return None


def _unmodelled_range(name: str, first_text: str, last_text: str) -> str | None:
    first, last = ipaddress.ip_address(first_text), ipaddress.ip_address(last_text)
    size = int(last) - int(first) + 1
    if size < 1:
        return f"{name} to a range that ends before it begins"
    if size > LARGEST_RANGE:
        return f"{name} to a range of more than {LARGEST_RANGE} addresses"
    if int(first) >> 32 != int(last) >> 32:
        return f"{name} to a range that crosses a /96"
    return None
