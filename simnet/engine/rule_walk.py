"""What a host's rules do to one packet, rule by rule, every branch with its exact probability.

Reads the `Ruleset` itself, as a person with `iptables-save` in hand would: it tells which rules a packet met, takes
any address without compiling anything, and is an implementation apart from the vector machine of
`dataplane.netfilter`, with which it must agree.
Modelled: what the machine models; `statistic --mode nth` counts as chance 1 in `every`, `recent` lists are empty, as
for a client's first connection. Left out: counters.
Source: iptables(8), iptables-extensions(8); xt_statistic keeps a probability as q / 2**31.
"""

from __future__ import annotations

import ipaddress
import itertools
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from simnet import random_streams
from simnet.dataplane.netfilter.executor import HOOK_TABLES
from simnet.dataplane.netfilter.nat_ranges import (
    RANDOM_NUMBERS,
    address_in_range,
    numbers_by_remainder,
    numbers_of_each,
)
from simnet.dataplane.netfilter.packets import STATE_BITS, STATE_DNAT, STATE_NEW
from simnet.dataplane.netfilter.translation import address_range, is_port_random
from simnet.errors import InputError, Position, Problem
from simnet.model.fabric import Tunnel
from simnet.model.iptables.modelled import PORT_PROTOCOLS, could_change_verdict, unmodelled_part
from simnet.model.iptables.ruleset import (
    PROBABILITY_ONE,
    AddressTypeMatch,
    Chain,
    CommentMatch,
    ConntrackStateMatch,
    DestinationAddress,
    Dnat,
    InInterface,
    IPNetwork,
    Jump,
    MarkMatch,
    Masquerade,
    Match,
    MultiportMatch,
    NfacctMatch,
    OpaqueTarget,
    OutInterface,
    PortMatch,
    ProtocolMatch,
    RecentMatch,
    Reject,
    Rule,
    Ruleset,
    SetMark,
    Snat,
    SourceAddress,
    StatisticNth,
    StatisticRandom,
    Target,
    TcpFlagsMatch,
    Verdict,
)

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
ONE = Fraction(1)
_INDEXED = 16  # rules from which on a chain is looked up by destination

ACCEPTED, DROPPED, REJECTED = "accepted", "dropped", "rejected"


class Header(NamedTuple):
    """The addresses and ports that a packet carries."""

    source: IPAddress
    source_port: int
    destination: IPAddress
    destination_port: int
    protocol: int

    def reversed(self) -> Header:
        """Return the header of the answer."""
        return Header(self.destination, self.destination_port, self.source, self.source_port, self.protocol)

    def __str__(self) -> str:
        return (
            f"{endpoint_text(self.source, self.source_port)} > {endpoint_text(self.destination, self.destination_port)}"
        )


def endpoint_text(address: IPAddress, port: int) -> str:
    """Return `ip:port`, `[ip]:port` for IPv6."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


class RuleStep(NamedTuple):
    """A rule that a packet matched."""

    table: str
    chain: str
    number: int  # in its chain, from 1, as `--line-numbers` counts
    rule: Rule
    probability: Fraction  # of matching it, for a packet that was asked; 1 unless it is left to chance
    draw: int | None  # the 31-bit number drawn, where one was


class HookPacket(NamedTuple):
    """A packet at a hook."""

    header: Header
    mark: int = 0
    state: int = STATE_NEW  # STATE_* bits of conntrack
    in_interface: str = ""
    out_interface: str = ""
    nat_done: bool = False  # it was here before, as in a loop: nat is asked once a connection


class Linked(NamedTuple):
    """A list that grows at its end and shares its beginning with other branches."""

    before: Linked | None
    last: object


def unlinked(steps: Linked | None) -> list[object]:
    """Return the elements, first one first."""
    found = []
    while steps is not None:
        found.append(steps.last)
        steps = steps.before
    return found[::-1]


class HookResult(NamedTuple):
    """One way through a hook."""

    probability: Fraction
    packet: HookPacket  # as it leaves: header translated, mark set
    verdict: str = ""  # "" by policy, "accepted" by a rule, "dropped", "rejected"
    chain: str = ""  # of the rule that decided
    rule: Rule | None = None  # that decided; None: a policy
    dnat: bool = False
    snat: bool = False
    steps: Linked | None = None  # of RuleStep
    draws: int = 0  # numbers drawn so far
    scanned: int = 0  # rules that the kernel would have evaluated

    @property
    def passes(self) -> bool:
        """Whether the packet goes on."""
        return self.verdict not in (DROPPED, REJECTED)


class Chance:
    """Takes every branch; with a seed the one that is drawn."""

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed

    def bits(self, purpose: str, draw: int) -> int:
        """Return 64 random bits of the one packet."""
        return int(random_streams.bits(self.seed or 0, purpose, np.zeros(1, np.uint64), draw)[0])

    def split(self, chance: Fraction, draw: int) -> list[tuple[bool, Fraction, int | None]]:
        """Return (does it match, probability, number drawn) of each branch taken."""
        if self.seed is None:
            return [(True, chance, None), (False, 1 - chance, None)]
        drawn = self.bits("trace/statistic", draw) >> 33
        hit = Fraction(drawn, PROBABILITY_ONE) < chance
        return [(hit, chance if hit else 1 - chance, drawn)]

    def pick(self, shares: Sequence[Fraction], draw: int) -> list[int]:
        """Return the numbers of the choices taken, of which each has its share; those without one are left out."""
        if self.seed is None:
            return [number for number, share in enumerate(shares) if share]
        drawn = Fraction(self.bits("trace/ecmp", draw), 1 << 64)
        ends = list(itertools.accumulate(shares))
        return [next(number for number, end in enumerate(ends) if drawn < end)]


class RuleWalker:
    """Walks packets through rule sets; remembers how to find a chain's rules by destination."""

    def __init__(
        self, chance: Chance | None = None, *, record: bool = True, skip_unknown: bool = False, any_client: bool = False
    ) -> None:
        """`any_client`: the packet's source stands for many clients, whom a target spreads over its range."""
        self.chance, self.any_client = chance or Chance(), any_client
        self.record, self.skip_unknown = record, skip_unknown
        self.asked_sources: set[IPNetwork] = set()  # networks that some packet's source was compared with
        self.asked_history = False  # a rule was met whose answer depends on packets before
        self._candidates: dict[tuple[int, IPAddress], list[int]] = {}
        self._unknown: dict[int, tuple[Chain, dict[int, str]]] = {}  # by id of a chain: rules not modelled, and why
        self._indexes: dict[int, tuple[Chain, dict[IPAddress, list[int]], list[int]]] = {}

    def hook(
        self, ruleset: Ruleset | None, hook: str, packet: HookPacket, own: Host, draws: int = 0
    ) -> Iterator[HookResult]:
        """Yield every way through a hook's tables in the kernel's order; nat only for state NEW."""
        start = HookResult(ONE, packet, draws=draws)
        if ruleset is None:
            yield start
            return
        yield from self._tables(ruleset, HOOK_TABLES[hook], hook, start, own)

    def _tables(
        self, ruleset: Ruleset, tables: tuple[str, ...], hook: str, now: HookResult, own: Host
    ) -> Iterator[HookResult]:
        if not tables or not now.passes:
            yield now
            return
        chain = ruleset.chain(tables[0], hook)
        if chain is None or (tables[0] == "nat" and (now.packet.nat_done or not now.packet.state & STATE_NEW)):
            yield from self._tables(ruleset, tables[1:], hook, now, own)
            return
        for result in self._chain(ruleset, tables[0], chain, now, own):
            yield from self._tables(ruleset, tables[1:], hook, result, own)

    def _chain(self, ruleset: Ruleset, table: str, base: Chain, now: HookResult, own: Host) -> Iterator[HookResult]:
        """Yield every way through a built-in chain and all that it leads to."""
        header = now.packet.header
        # (probability, chain, next rule, callers, mark, steps, draws, scanned); callers: linked (chain, next rule)
        ways: list[_Way] = [_Way(now.probability, base, 0, None, now.packet.mark, now.steps, now.draws, now.scanned)]
        while ways:
            probability, chain, at, callers, mark, steps, draws, scanned = ways.pop()
            found = self._next(chain, header.destination, at)
            if found < 0:  # the end of the chain
                scanned += len(chain.rules) - at
                if callers is not None:
                    back = callers.before
                    resumed = _Way(probability, callers.chain, callers.at, back, mark, steps, draws, scanned)
                    ways.append(resumed)
                    continue
                packet = now.packet._replace(mark=mark)
                verdict = DROPPED if chain.policy == "DROP" else now.verdict
                yield now._replace(
                    probability=probability, packet=packet, verdict=verdict, chain=now.chain or chain.name,
                    rule=None if verdict == DROPPED else now.rule, steps=steps, draws=draws, scanned=scanned,
                )  # fmt: skip
                continue
            rule = chain.rules[found]
            scanned += found - at + 1
            unknown = self._unmodelled(ruleset, chain).get(found) if ruleset.source else None
            if unknown is not None:
                if could_change_verdict(rule) and not self.skip_unknown:
                    raise InputError([_unmodelled_problem(ruleset, table, chain, found, unknown)])
                ways.append(_Way(probability, chain, found + 1, callers, mark, steps, draws, scanned))
                continue
            chance = self._matches(chain, found, now.packet, mark, own)
            options: list[tuple[bool, Fraction, int | None]]
            if 0 < chance < 1:
                options, draws = self.chance.split(chance, draws), draws + 1
            else:
                options = [(chance == 1, ONE, None)]
            for hit, share, drawn in reversed(options):
                part = probability if share == 1 else probability * share
                if not hit:
                    ways.append(_Way(part, chain, found + 1, callers, mark, steps, draws, scanned))
                    continue
                met = steps
                if self.record:
                    met = Linked(steps, RuleStep(table, chain.name, found + 1, rule, chance, drawn))
                target = rule.target
                following = _Way(part, chain, found + 1, callers, mark, met, draws, scanned)
                if isinstance(target, SetMark):
                    ways.append(following._replace(mark=(mark & ~target.mask & 0xFFFFFFFF) ^ target.value))
                elif isinstance(target, Jump):
                    caller = callers if target.goto else _Caller(callers, chain, found + 1)
                    callee = ruleset.chain(table, target.chain)
                    if callee is None:
                        raise InputError([_no_chain(ruleset, table, chain, rule)])
                    ways.append(following._replace(chain=callee, at=0, callers=caller))
                elif isinstance(target, Verdict) and target.name == "RETURN":
                    ways.append(following._replace(at=len(chain.rules)))
                elif target is None or isinstance(target, OpaqueTarget):
                    ways.append(following)
                else:
                    packet = now.packet._replace(mark=mark)
                    yield from self._decided(
                        now._replace(probability=part, packet=packet, steps=met, draws=draws, scanned=scanned),
                        table, chain, rule, target, own,
                    )  # fmt: skip

    def _decided(
        self, now: HookResult, table: str, chain: Chain, rule: Rule, target: Target, own: Host
    ) -> Iterator[HookResult]:
        header = now.packet.header
        now = now._replace(chain=chain.name, rule=rule)
        match target:
            case Verdict("DROP"):
                yield now._replace(verdict=DROPPED)
            case Reject():
                yield now._replace(verdict=REJECTED)
            case Verdict():
                yield now._replace(verdict=now.verdict or ACCEPTED)
            case Dnat():
                for share, address, port, draws in self._destinations(target, header, own, now.draws):
                    changed = header._replace(destination=address, destination_port=port)
                    state = now.packet.state | (STATE_DNAT if changed != header else 0)
                    moved = now.packet._replace(header=changed, state=state)
                    yield now._replace(packet=moved, dnat=True, probability=now.probability * share, draws=draws)
            case Snat() | Masquerade():
                drawn = is_port_random(target) if isinstance(target, Snat) else target.random_fully or target.random
                first, last = target.ports or (1024, 65535)
                port = header.source_port
                if drawn or (not first <= port <= last and target.ports):
                    port = first + self.chance.bits("trace/masquerade-port", now.draws) % (last - first + 1)
                    drawn = True
                for share, source in self._sources(target, now.packet, own, keeps_port=not drawn):
                    moved = now.packet._replace(header=header._replace(source=source, source_port=port))
                    yield now._replace(packet=moved, snat=True, probability=now.probability * share)

    def _destinations(
        self, target: Dnat, header: Header, own: Host, draws: int
    ) -> Iterator[tuple[Fraction, IPAddress, int, int]]:
        """Yield (probability, address, port, numbers drawn) of each way that a DNAT may go."""
        ports = [(ONE, header.destination_port)]
        if target.ports is not None:
            first, last = target.ports
            ports = [(ONE, header.destination_port if first <= header.destination_port <= last else first)]
            if is_port_random(target) and first < last:
                shares = [Fraction(count, RANDOM_NUMBERS) for count in numbers_by_remainder(last - first + 1)]
                chosen = self.chance.pick(shares, draws)
                draws += 1
                ports = [(shares[place] if self.chance.seed is None else ONE, first + place) for place in chosen]
        to: list[tuple[Fraction, IPAddress]] = [(ONE, header.destination)]
        if target.redirect:
            to = [(ONE, own.primary(header.destination.version) or header.destination)]
        elif target.address is not None:
            to = list(self._addresses(target, header))
        for share, address in to:
            for part, port in ports:
                yield share * part, address, port, draws

    def _sources(
        self, target: Snat | Masquerade, packet: HookPacket, own: Host, *, keeps_port: bool
    ) -> Iterator[tuple[Fraction, IPAddress]]:
        """Yield (probability, address) of each source that a packet may leave with."""
        header = packet.header
        if isinstance(target, Masquerade):
            yield ONE, own.tunnels.get(packet.out_interface) or own.primary(header.source.version) or header.source
            return
        if target.last_address is not None and keeps_port:
            first, last = (ipaddress.ip_address(end) for end in (target.address, target.last_address))
            if int(first) <= int(header.source) <= int(last):
                self.asked_sources.add(ipaddress.ip_network(header.source))
                yield ONE, header.source
                return
        yield from self._addresses(target, header)

    def _addresses(self, target: Dnat | Snat, header: Header) -> Iterator[tuple[Fraction, IPAddress]]:
        """Yield (probability, address) of each address of a target: one, unless any client is meant."""
        assert target.address is not None
        if target.last_address in (None, target.address):
            yield ONE, ipaddress.ip_address(target.address)
            return
        chosen_from = address_range(target)
        if self.any_client:
            for place, numbers in enumerate(numbers_of_each(chosen_from.size, 1 << 32)):
                yield Fraction(numbers, 1 << 32), chosen_from.first + place
            return
        self.asked_sources.add(ipaddress.ip_network(header.source))  # the choice is by each single source
        yield ONE, address_in_range(header.source, header.destination, chosen_from)

    # --- which rules are asked -----------------------------------------------------------------------

    def _next(self, chain: Chain, destination: IPAddress, at: int) -> int:
        """Return the next rule from `at` on that could match the destination; -1: none."""
        if len(chain.rules) < _INDEXED:
            return at if at < len(chain.rules) else -1
        key = (id(chain), destination)
        candidates = self._candidates.get(key)
        if candidates is None:
            candidates = self._candidates[key] = self._of_destination(chain, destination)
        place = bisect_left(candidates, at)
        return candidates[place] if place < len(candidates) else -1

    def _of_destination(self, chain: Chain, destination: IPAddress) -> list[int]:
        index = self._indexes.get(id(chain))
        if index is None:
            by_host: dict[IPAddress, list[int]] = {}
            others: list[int] = []
            for number, rule in enumerate(chain.rules):
                host = _host_of(rule)
                (others if host is None else by_host.setdefault(host, [])).append(number)
            index = self._indexes[id(chain)] = (chain, by_host, others)  # holds the chain, so that its id stays its own
        _, by_host, others = index
        own = by_host.get(destination)
        return sorted(own + others) if own else others

    def _unmodelled(self, ruleset: Ruleset, chain: Chain) -> dict[int, str]:
        """Return which rules of a chain simnet cannot follow, with what of them; looked up once a chain."""
        known = self._unknown.get(id(chain))
        if known is None:
            parts = {at: unmodelled_part(rule) for at, rule in enumerate(chain.rules)}
            known = (chain, {at: part for at, part in parts.items() if part is not None})
            self._unknown[id(chain)] = known  # holds the chain, so that its id stays its own
        return known[1]

    def _matches(self, chain: Chain, at: int, packet: HookPacket, mark: int, own: Host) -> Fraction:
        """Return how likely a rule matches: 0 or 1 where nothing is left to chance."""
        chance = ONE
        for match in chain.rules[at].matches:
            holds = self._holds(match, packet, mark, own)
            if holds is False:
                return Fraction(0)
            if holds is not True:
                chance = holds if chance is ONE else chance * holds
        return chance

    def _holds(self, match: Match, packet: HookPacket, mark: int, own: Host) -> bool | Fraction:
        """Whether a match holds, or its probability."""
        header = packet.header
        match match:
            case CommentMatch() | NfacctMatch():
                return True
            case DestinationAddress(network, negated):
                return (header.destination in network) != negated
            case SourceAddress(network, negated):
                self.asked_sources.add(network)
                return (header.source in network) != negated
            case ProtocolMatch(number, _, negated):
                return (number in (0, header.protocol)) != negated
            case PortMatch(module, sources, destinations, source_negated, destination_negated):
                if PORT_PROTOCOLS.get(module) != header.protocol:
                    return False
                if sources is not None and (sources[0] <= header.source_port <= sources[1]) == source_negated:
                    return False
                if destinations is None:
                    return True
                return (destinations[0] <= header.destination_port <= destinations[1]) != destination_negated
            case TcpFlagsMatch(mask, set_flags, negated):  # a new connection's packet is a SYN, any other an ACK
                carried = {"SYN" if packet.state & STATE_NEW else "ACK"}
                return (carried & set(mask) == set(set_flags)) != negated
            case MultiportMatch(ranges, which, negated):
                ports = {"sports": (header.source_port,), "dports": (header.destination_port,)}.get(
                    which, (header.source_port, header.destination_port)
                )
                return any(first <= port <= last for first, last in ranges for port in ports) != negated
            case MarkMatch(value, mask, negated):
                return (mark & mask == value) != negated
            case ConntrackStateMatch(states, negated):
                return any(packet.state & STATE_BITS[state] for state in states) != negated
            case StatisticRandom(threshold, negated):
                chance = Fraction(threshold, PROBABILITY_ONE)
                return 1 - chance if negated else chance
            case StatisticNth(every, _, negated):
                self.asked_history = True
                return 1 - Fraction(1, every) if negated else Fraction(1, every)
            case RecentMatch(action=action, negated=negated):
                self.asked_history = True
                return (action == "set") != negated
            case InInterface(name, negated):
                return _is_interface(name, packet.in_interface) != negated
            case OutInterface(name, negated):
                return _is_interface(name, packet.out_interface) != negated
            case AddressTypeMatch():
                self.asked_sources.update(own.networks if match.source_type else ())
                return all(
                    wanted is None or (own.type_of(address) in wanted.split(",")) != negated
                    for wanted, negated, address in (
                        (match.source_type, match.source_negated, header.source),
                        (match.destination_type, match.destination_negated, header.destination),
                    )
                )
        raise AssertionError(match)  # OpaqueMatch: the rule was left out, or an error


class _Caller(NamedTuple):
    """Where a jump came from: the chain, and the rule that is next there."""

    before: _Caller | None
    chain: Chain
    at: int


class _Way(NamedTuple):
    """A packet inside a chain."""

    probability: Fraction
    chain: Chain
    at: int
    callers: _Caller | None
    mark: int
    steps: Linked | None
    draws: int
    scanned: int


class Host:
    """Which addresses a host has, as `addrtype` and MASQUERADE ask."""

    def __init__(self, addresses: tuple[str, ...], tunnels: Iterable[Tunnel] = ()) -> None:
        self.tunnels = {tunnel.interface: ipaddress.ip_address(tunnel.address) for tunnel in tunnels}
        self.addresses = [ipaddress.ip_address(address) for address in addresses]
        self._own = frozenset(self.addresses)
        self.networks = [ipaddress.ip_network(address) for address in self.addresses]

    def is_local(self, address: IPAddress) -> bool:
        """Whether the address is one of the host's, all of 127.0.0.0/8 included."""
        return address in self._own or address.is_loopback

    def primary(self, version: int) -> IPAddress | None:
        """Return the first address of a family that leaves the host."""
        return next((each for each in self.addresses if each.version == version and not each.is_loopback), None)

    def type_of(self, address: IPAddress) -> str:
        """Return what `addrtype` calls it: LOCAL, MULTICAST, BROADCAST or UNICAST."""
        if self.is_local(address):
            return "LOCAL"
        if address.is_multicast:
            return "MULTICAST"
        return "BROADCAST" if str(address) == "255.255.255.255" else "UNICAST"


def _host_of(rule: Rule) -> IPAddress | None:
    """The one destination that a rule can match."""
    for match in rule.matches:
        if isinstance(match, DestinationAddress) and not match.negated:
            network = match.network
            return network.network_address if network.prefixlen == network.max_prefixlen else None
    return None


def _is_interface(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("+") else name == pattern


def _unmodelled_problem(ruleset: Ruleset, table: str, chain: Chain, at: int, part: str) -> Problem:
    return Problem(
        Position(ruleset.source or "generated rules", chain.rules[at].line),
        f"{table} {chain.name} rule {at + 1}",
        f"{part}, which a packet meets here",
        "a match or target that simnet models",
        "remove the rule, or leave it out with --skip-unknown",
    )


def _no_chain(ruleset: Ruleset, table: str, chain: Chain, rule: Rule) -> Problem:
    assert isinstance(rule.target, Jump)
    return Problem(
        Position(ruleset.source or "generated rules", rule.line),
        f"{table} {chain.name}",
        f"a jump to {rule.target.chain}, which is not in the table",
        "a chain of the same table",
        "declare the chain or remove the jump",
    )
