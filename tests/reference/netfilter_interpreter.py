"""One packet at a time, one rule at a time: what iptables rules do, slow and meant to be obviously right.

Reads the `Ruleset` itself, not the compiled program. Draws as docs/models/netfilter.md defines them: a run of rules
that
are `statistic --mode random` jumps and nothing else is a cascade; one 64-bit number decides it if the packet enters
at the
run's first rule; every other random match takes the upper 31 bits of a number of its own.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
from reference import nat_ranges

from simnet.model.iptables import ruleset as rs
from simnet.random_streams import bits

PURPOSE = "netfilter/statistic"
PS_PER_S = 10**12
STATES = {"NEW": 1, "ESTABLISHED": 2, "RELATED": 4, "INVALID": 8, "UNTRACKED": 16, "SNAT": 32, "DNAT": 64}


NAT_DONE = 128
HOOK_TABLES = {
    "PREROUTING": ["raw", "mangle", "nat"],
    "INPUT": ["mangle", "filter", "security", "nat"],
    "FORWARD": ["mangle", "filter", "security"],
    "OUTPUT": ["raw", "mangle", "nat", "filter", "security"],
    "POSTROUTING": ["mangle", "nat"],
}


def is_translated(out):
    return out.destination_port >= 0 or out.snat_kind > 0


class Interpreter:
    """All hosts' rules, and what they remember between packets."""

    def __init__(self, rulesets, addresses, interfaces=(), seed=0, recent_limit=100):
        self.rulesets, self.addresses, self.interfaces = rulesets, addresses, interfaces
        self.seed, self.recent_limit = seed, recent_limit
        self.nth = {}  # (host, table, chain, rule) -> packets seen
        self.recent = {}  # (memory, list) -> address -> stamps, in order of last update
        self.packets, self.bytes = Counter(), Counter()  # (host, table, chain, rule index or "policy")

    def run(self, table, chain, packet):
        """Return what the chain decides about a packet (a namespace with the columns of PacketColumns)."""
        self.table, self.packet = table, packet
        self.out = SimpleNamespace(
            verdict=2,
            mark=packet.mark,
            destination=-1,
            destination_port=-1,
            snat_kind=0,
            snat_source=-1,
            snat_port_first=-1,
            snat_port_last=-1,
            snat_random_fully=False,
            rules_scanned=0,
            endpoint_rules_scanned=0,
            rule=None,
            draw=packet.draw,
        )
        base = self.rulesets[packet.host].chain(table, chain)
        if base is None:
            return self.out
        ended = self._chain(base)
        if ended != "verdict":
            self._count((packet.host, table, chain, "policy"))
            self.out.verdict = 4 if base.policy == "DROP" else 2
            self.out.rule = (table, chain, len(base.rules))
        return self.out

    def hook(self, hook, packet, reroute=None):
        """Return what all tables of a hook decide; `reroute` gets the packet after nat OUTPUT rewrote it."""
        packet, total, verdict = SimpleNamespace(**vars(packet)), None, 2
        for table in HOOK_TABLES[hook]:
            if self.rulesets[packet.host].chain(table, hook) is None:
                continue
            if table == "nat" and (not packet.state & STATES["NEW"] or packet.state & NAT_DONE):
                continue
            out = self.run(table, hook, packet)
            verdict = out.verdict if out.verdict > 2 else min(verdict, out.verdict)
            packet.mark, packet.draw = out.mark, out.draw
            if total is None:
                total = out
            else:
                total.rules_scanned += out.rules_scanned
                total.endpoint_rules_scanned += out.endpoint_rules_scanned
                total.mark, total.draw = out.mark, out.draw
                if not (is_translated(total) and verdict <= 2):
                    total.rule = out.rule
                if out.destination_port >= 0:
                    total.destination, total.destination_port = out.destination, out.destination_port
                if out.snat_kind:
                    for name in ("snat_kind", "snat_source", "snat_port_first", "snat_port_last", "snat_random_fully"):
                        setattr(total, name, getattr(out, name))
            total.verdict = verdict
            if verdict > 2:
                break
            if table == "nat" and hook == "OUTPUT":
                if out.destination_port >= 0:
                    new = (packet.destination if out.destination == -2 else out.destination, out.destination_port)
                    if out.destination == -2 or new != (packet.destination, packet.destination_port):
                        packet.state |= STATES["DNAT"]
                    packet.destination, packet.destination_port = new
                if reroute is not None:
                    reroute(packet)
        return total

    def _count(self, key):
        self.packets[key] += self.packet.packets
        self.bytes[key] += self.packet.length_bytes

    def _draw(self):
        drawn = bits(self.seed, PURPOSE, np.array([self.packet.connection], np.uint64), self.out.draw)
        self.out.draw += 1
        return int(drawn[0])

    def _chain(self, chain):
        """Walk a chain: "verdict" if something decided, "return" if the walk left it otherwise."""
        rules, at = chain.rules, 0
        while at < len(rules):
            run = cascade_length(rules, at) if at == 0 or not is_random_jump(rules[at - 1]) else 0
            end = at + run
            if run > 1:
                chosen = at + choose([threshold_of(rule) for rule in rules[at : at + run]], self._draw())
                self.out.rules_scanned += min(chosen + 1, end) - at
                asked = [rule for rule in rules[at : min(chosen + 1, end)] if threshold_of(rule) < 1 << 31]
                self.out.endpoint_rules_scanned += len(asked)
                if chosen == end:  # none of them
                    at = chosen
                    continue
                hit = chosen
            else:
                self.out.rules_scanned += 1
                if not self._matches(chain, at):
                    at += 1
                    continue
                hit = at
            if self._act(chain, hit) == "verdict":
                return "verdict"
            target = rules[hit].target
            if isinstance(target, rs.Verdict) and target.name == "RETURN":
                return "return"
            if isinstance(target, rs.Jump) and target.goto:
                return "return"
            at = hit + 1
            # after a return into a cascade, its other rules are asked one by one
            while at < end and is_random_jump(rules[at]):
                self.out.rules_scanned += 1
                if self._matches(chain, at) and self._act(chain, at) == "verdict":
                    return "verdict"
                at += 1
        return "return"

    def _act(self, chain, at):
        rule, out, packet = chain.rules[at], self.out, self.packet
        self._count((packet.host, self.table, chain.name, at))
        target = rule.target
        match target:
            case None | rs.Verdict("RETURN") | rs.OpaqueTarget():
                return "go on"
            case rs.SetMark():
                out.mark = (out.mark & ~target.mask & 0xFFFFFFFF) ^ target.value
                return "go on"
            case rs.Jump():
                return self._chain(self.rulesets[packet.host].chain(self.table, target.chain))
            case rs.Verdict():
                out.verdict = {"ACCEPT": 1, "DROP": 3}[target.name]
            case rs.Reject():
                out.verdict = 5
            case rs.Dnat():
                out.verdict = 1
                out.destination = packet.destination if target.address is None else self.addresses.find(target.address)
                if target.redirect:
                    out.destination = -2
                if target.last_address not in (None, target.address):
                    out.destination = self._in_range(target, packet, True)
                out.destination_port = self._destination_port(target, packet)
            case rs.Masquerade():
                out.verdict, out.snat_kind, out.snat_random_fully = 1, 1, target.random_fully or target.random
                out.snat_port_first, out.snat_port_last = target.ports or (-1, -1)
            case rs.Snat():
                out.verdict, out.snat_kind = 1, 2
                out.snat_source = self.addresses.find(target.address)
                out.snat_random_fully = "--random-fully" in target.options or "--random" in target.options
                out.snat_port_first, out.snat_port_last = target.ports or (-1, -1)
                if target.last_address not in (None, target.address):
                    out.snat_source = self._in_range(target, packet, False)
        out.rule = (self.table, chain.name, at)
        return "verdict"

    def _in_range(self, target, packet, is_dnat):
        first, last = (ipaddress.ip_address(each) for each in (target.address, target.last_address))
        source, destination = (
            ipaddress.ip_address(self.addresses.text(n)) for n in (packet.source, packet.destination)
        )
        low, high = target.ports or (0, 65535)
        random = {"--random", "--random-fully"} & set(target.options)
        if not is_dnat and not random and first <= source <= last and low <= packet.source_port <= high:
            return packet.source
        chosen = nat_ranges.choose(source, destination, first, last, "--persistent" in target.options, is_dnat)
        return self.addresses.find(str(chosen))

    def _destination_port(self, target, packet):
        if not target.ports:
            return packet.destination_port
        first, last = target.ports
        if "--random" in target.options and first < last:
            connection = np.array([packet.connection], np.uint64)
            number = int(bits(self.seed, "netfilter/destination-port", connection, packet.host)[0]) >> 48
            return first + number % (last - first + 1)
        return packet.destination_port if first <= packet.destination_port <= last else first

    def _matches(self, chain, at):
        header = (rs.SourceAddress, rs.DestinationAddress, rs.InInterface, rs.OutInterface, rs.ProtocolMatch)
        matches = chain.rules[at].matches
        for match in [m for m in matches if isinstance(m, header)] + [m for m in matches if not isinstance(m, header)]:
            if not self._holds(match, (self.packet.host, self.table, chain.name, at)):
                return False
        return True

    def _holds(self, match, where):
        packet = self.packet
        source, destination = self.addresses.text(packet.source), self.addresses.text(packet.destination)
        match match:
            case rs.CommentMatch() | rs.NfacctMatch():
                return True
            case rs.SourceAddress():
                return (ipaddress.ip_address(source) in match.network) != match.negated
            case rs.DestinationAddress():
                return (ipaddress.ip_address(destination) in match.network) != match.negated
            case rs.InInterface():
                return self._is_interface(match.name, packet.in_interface) != match.negated
            case rs.OutInterface():
                return self._is_interface(match.name, packet.out_interface) != match.negated
            case rs.ProtocolMatch():
                return (match.number in (0, packet.protocol)) != match.negated
            case rs.PortMatch():
                if packet.protocol != {"tcp": 6, "udp": 17, "sctp": 132}[match.module]:
                    return False
                for ports, negated, port in (
                    (match.source_ports, match.source_negated, packet.source_port),
                    (match.destination_ports, match.destination_negated, packet.destination_port),
                ):
                    if ports is not None and (ports[0] <= port <= ports[1]) == negated:
                        return False
                return True
            case rs.TcpFlagsMatch():
                flags = {"SYN"} if packet.state & STATES["NEW"] else {"ACK"}
                return ({flag for flag in match.mask if flag in flags} == set(match.set_flags)) != match.negated
            case rs.MultiportMatch():
                ports = {"sports": [packet.source_port], "dports": [packet.destination_port],
                         "ports": [packet.source_port, packet.destination_port]}[match.which]  # fmt: skip
                return any(a <= port <= b for a, b in match.ranges for port in ports) != match.negated
            case rs.MarkMatch():
                return (self.out.mark & match.mask == match.value) != match.negated
            case rs.StatisticRandom():
                self.out.endpoint_rules_scanned += match.threshold < 1 << 31
                return (self._draw() >> 33 < match.threshold) != match.negated
            case rs.StatisticNth():
                self.out.endpoint_rules_scanned += 1
                seen = self.nth.get(where, 0)
                self.nth[where] = seen + 1
                return (seen % match.every == match.packet) != match.negated
            case rs.RecentMatch():
                return self._recent(match, source if match.side == "rsource" else destination)
            case rs.AddressTypeMatch():
                for wanted, negated, text, local in (
                    (match.source_type, match.source_negated, source, packet.source_is_local),
                    (match.destination_type, match.destination_negated, destination, packet.destination_is_local),
                ):
                    if wanted is not None and (address_type(text, local) in wanted.split(",")) == negated:
                        return False
                return True
            case rs.ConntrackStateMatch():
                return any(packet.state & STATES[state] for state in match.states) != match.negated
        raise AssertionError(match)

    def _is_interface(self, pattern, number):
        name = "" if number < 0 else self.interfaces[number]
        return name.startswith(pattern[:-1]) if pattern.endswith("+") else name == pattern

    def _recent(self, match, address):
        """xt_recent: recent_mt() of the kernel."""
        if match.mask is not None:
            address = str(ipaddress.ip_network(f"{address}/{match.mask}", strict=False).network_address)
        memory = getattr(self.packet, "memory", self.packet.host)
        entries = self.recent.setdefault((memory, match.name), OrderedDict())
        now = self.packet.time_ps
        if address not in entries:
            if match.action != "set":
                return match.negated
            if self.recent_limit is not None and len(entries) >= self.recent_limit:
                del entries[next(iter(entries))]
            entries[address] = [now]
            return not match.negated
        result = match.negated
        if match.action == "set":
            result = not result
        elif match.action == "remove":
            del entries[address]
            result = not result
        else:
            since = now - (match.seconds or 0) * PS_PER_S
            hits = [stamp for stamp in entries[address] if not match.seconds or stamp >= since]
            if len(hits) >= (match.hitcount or 1):
                result = not result
            if match.reap:
                head = next(iter(entries))
                updating = match.action == "update" and result and head == address
                if not updating and entries[head][-1] < since:
                    del entries[head]
        if match.action == "set" or (match.action == "update" and result):
            stamps = entries.pop(address)
            entries[address] = [*stamps, now][-20:]
        return result


def address_type(text, is_local):
    if is_local:
        return "LOCAL"
    address = ipaddress.ip_address(text)
    if address.is_multicast:
        return "MULTICAST"
    return "BROADCAST" if text == "255.255.255.255" else "UNICAST"


def is_random_jump(rule):
    """Whether a rule can be part of a cascade: it jumps, and one random match is all that it asks."""
    asked = [m for m in rule.matches if not always_true(m)]
    return (
        len(asked) == 1
        and isinstance(asked[0], rs.StatisticRandom)
        and not asked[0].negated
        and isinstance(rule.target, rs.Jump)
        and not rule.target.goto
    )


def always_true(match):
    """Comments, nfacct, and tests that every packet passes."""
    if isinstance(match, (rs.SourceAddress, rs.DestinationAddress)):
        return match.network.prefixlen == 0 and not match.negated
    if isinstance(match, rs.ProtocolMatch):
        return match.number == 0 and not match.negated
    return isinstance(match, (rs.CommentMatch, rs.NfacctMatch))


def cascade_length(rules, at):
    end = at
    while end < len(rules) and is_random_jump(rules[end]):
        end += 1
    if end > at and end < len(rules):
        last = rules[end]
        if isinstance(last.target, rs.Jump) and not last.target.goto and all(map(always_true, last.matches)):
            end += 1
    return end - at


def threshold_of(rule):
    return next((m.threshold for m in rule.matches if isinstance(m, rs.StatisticRandom)), 2**31)


def choose(thresholds, drawn):
    """Which rule of a cascade a 64-bit number chooses, by exact fractions; len(thresholds): none."""
    missed = Fraction(1)
    for number, threshold in enumerate(thresholds):
        missed *= 1 - Fraction(threshold, 2**31)
        if drawn < int((1 - missed) * 2**64):
            return number
    return len(thresholds)
