"""A forwarding table read from text: `ip route`, `route -n` or /proc/net/route.

The form is told by its header line; without one it is that of `ip route`. Taken as found in mails and notes: indented
lines, double blanks, shell prompts, comments. Read, and kept beside the table: the other tables of `ip route show table
all`, routes of types that carry no packets here (broadcast, multicast, anycast, throw), cached exceptions, and routes
that another one to the same prefix hides by its smaller metric. Left out: encapsulation, `dev` groups, `nhid` objects.
Source: ip-route(8), route(8), proc(5).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from simnet.errors import InputError, Position, Problem
from simnet.model.fib import Fib, NextHop, Route, RouteKind
from simnet.model.iptables.ruleset import IPNetwork

_KINDS = {kind.value: kind for kind in (RouteKind.LOCAL, RouteKind.BLACKHOLE, RouteKind.UNREACHABLE)}
_UNREACHABLE_KINDS = {"prohibit": RouteKind.UNREACHABLE}  # as unreachable, with another ICMP code
_PASSED_OVER = frozenset(["broadcast", "multicast", "anycast", "throw", "nat"])
_FLAGS = frozenset(["linkdown", "onlink", "dead", "pervasive", "offload", "trap", "rt_offload", "rt_trap", "notify"])
# Words of `ip route` that take one value; those without an entry in _taken() change no forwarding.
_VALUED = frozenset(
    [
        "dev", "via", "proto", "scope", "src", "metric", "table", "pref", "mtu", "advmss", "hoplimit", "expires",
        "error", "tos", "dsfield", "weight", "nhid", "realm", "realms", "rtt", "rttvar", "rto_min", "cwnd", "initcwnd",
        "initrwnd", "window", "ssthresh", "features", "quickack", "congctl", "age", "users", "used", "from", "iif",
    ]
)  # fmt: skip
_PROMPT = re.compile(r"^\s*(\[?[\w.@:~/ -]*\]?\s*[#$%>])\s+(sudo\s+)?(ip|route|cat|netstat)\b")
_ADVICE = "give the output of `ip route`, `route -n` or /proc/net/route alone"


@dataclass(frozen=True, slots=True)
class RouteText:
    """What a text says: the table that decides, and what stands beside it."""

    fib: Fib  # the main table and the device's own addresses, one route a prefix, in the order of the text
    hidden: tuple[Route, ...] = ()  # another route to the same prefix has a smaller metric
    other_tables: tuple[tuple[str, Route], ...] = ()  # (table, route): used only where a rule says so
    passed_over: tuple[tuple[int, str], ...] = ()  # (line, text): types and cache entries without a meaning here
    flags: tuple[tuple[IPNetwork, str], ...] = ()  # (prefix, linkdown | onlink | ...), as printed


def parse_routes(text: str, *, device: str = "", file: str = "", family: int = 4) -> RouteText:
    """Return the table that a text shows.

    Parameters
    ----------
    family : 4 or 6
        Of a `default` whose gateway does not tell, and of the text where it names no address.

    Raises InputError with every line that is none of a route table's, each with what to do.
    """
    reader = _Reader(file, family)
    lines = text.splitlines()
    form: Callable[[int, str], None] = reader.ip_route
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#") or _PROMPT.match(line) or line.startswith("Kernel IP"):
            continue
        if words[:3] == ["Destination", "Gateway", "Genmask"]:
            form = reader.route_n
        elif words[:4] == ["Iface", "Destination", "Gateway", "Flags"]:
            form = reader.proc_net_route
        else:
            form(number, line)
    reader.check_groups()
    if not reader.read and not reader.problems and not reader.passed_over:
        reader.refuse(max(len(lines), 1), "no route", "at least one line of a route table")
    if reader.problems:
        raise InputError(reader.problems)
    return reader.result(device)


@dataclass(slots=True)
class _Line:
    """A route of `ip route` while its continuation lines are read."""

    number: int
    text: str
    route: Route
    table: str
    flags: tuple[str, ...]
    is_group: bool  # next hops follow, a line each


@dataclass(slots=True)
class _Reader:
    file: str
    family: int
    read: list[_Line] = field(default_factory=list)
    passed_over: list[tuple[int, str]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def refuse(self, line: int, found: str, expected: str, fix: str = _ADVICE) -> None:
        self.problems.append(Problem(Position(self.file, line), "", found, expected, fix))

    # --- ip route

    def ip_route(self, number: int, line: str) -> None:
        words = line.split()
        if words[0] == "nexthop":
            self._next_hop(number, words)
        elif words[0] == "cache":  # the line before is an exception that the kernel remembers, not a route
            if self.read:
                gone = self.read.pop()
                self.passed_over.append((gone.number, gone.text))
        elif words[0] in _PASSED_OVER:
            self.passed_over.append((number, line.strip()))
        else:
            self._route(number, line, words)

    def _route(self, number: int, line: str, words: list[str]) -> None:
        kind = _KINDS.get(words[0]) or _UNREACHABLE_KINDS.get(words[0])
        rest = words[1:] if kind or words[0] == "unicast" else words
        if not rest or not re.fullmatch(r"default|[\da-fA-F:.]+(/\d+)?", rest[0]):
            self.refuse(number, _shortened(line), "a line of a route table: a prefix, `default` or a route type first")
            return
        values = self._values(number, rest[1:])
        if values is None:
            return
        told, flags = values
        gateway = told.get("via")
        prefix = self._prefix(number, rest[0], gateway or told.get("src"))
        metric = self._number(number, told.get("metric"), "metric")
        if prefix is None or metric == -1:
            return
        is_group = kind is None and "dev" not in told and gateway is None
        hops: tuple[NextHop, ...] = ()
        if kind is None and not is_group:
            if "dev" not in told:
                self.refuse(number, f"{rest[0]} via {gateway} without dev", "the interface, `dev NAME`")
                return
            kind = RouteKind.VIA if gateway else RouteKind.DIRECT
        if kind in (RouteKind.VIA, RouteKind.DIRECT, RouteKind.LOCAL) and "dev" in told:
            hops = (NextHop(told["dev"], gateway),)
        route = Route(
            prefix, kind or RouteKind.VIA, hops, told.get("proto", "boot"), metric, told.get("src"),
            told.get("scope") == "link", why=f"line {number} of {self.file or 'the text'}",
        )  # fmt: skip
        table = told.get("table", "local" if kind is RouteKind.LOCAL else "main")
        self.read.append(_Line(number, line.strip(), route, table, flags, is_group))

    def _next_hop(self, number: int, words: list[str]) -> None:
        values = self._values(number, words[1:])
        if values is None:
            return
        told, flags = values
        if not self.read or not self.read[-1].is_group or "dev" not in told:
            self.refuse(
                number, _shortened(" ".join(words)), "`nexthop via GATEWAY dev NAME` after the route's own line"
            )
            return
        group = self.read[-1]
        text = told.get("weight", "1")
        if not text.isdecimal() or not 1 <= int(text) <= 256:
            self.refuse(number, f"weight {text}", "a weight from 1 to 256", "mend the line")
            return
        hop = NextHop(told["dev"], told.get("via"), int(text))
        group.route = replace(group.route, next_hops=(*group.route.next_hops, hop))
        group.flags += flags

    def _values(self, number: int, words: list[str]) -> tuple[dict[str, str], tuple[str, ...]] | None:
        told: dict[str, str] = {}
        flags = []
        rest = iter(words)
        for word in rest:
            if word in _FLAGS:
                flags.append(word)
            elif word in _VALUED:
                value = next(rest, None)
                if value == "inet6" and word == "via":  # an IPv4 route over an IPv6 gateway
                    value = next(rest, None)
                if value == "lock":
                    value = next(rest, None)
                if value is None:
                    self.refuse(number, f"`{word}` at the end of the line", f"a value after `{word}`", "mend the line")
                    return None
                told[word] = value
            else:
                self.refuse(number, f"the word {word!r}", "the words of ip-route(8)")
                return None
        return told, tuple(flags)

    def _prefix(self, number: int, text: str, beside: str | None) -> IPNetwork | None:
        if text == "default":
            family = self.family if beside is None else 6 if ":" in beside else 4
            return ipaddress.ip_network("::/0" if family == 6 else "0.0.0.0/0")
        try:
            return ipaddress.ip_network(text)
        except ValueError as error:
            self.refuse(number, text, "a network in CIDR notation or an address", f"mend it: {error}")
            return None

    def _number(self, number: int, text: str | None, what: str) -> int | None:
        """The value; -1 with a problem reported."""
        if text is None:
            return None
        if text.isdecimal():
            return int(text)
        self.refuse(number, f"{what} {text}", f"a whole number as {what}", "mend the line")
        return -1

    # --- route -n: Destination Gateway Genmask Flags Metric Ref Use Iface

    def route_n(self, number: int, line: str) -> None:
        words = line.split()
        if len(words) != 8:
            self.refuse(number, _shortened(line), "the eight columns of `route -n`, Destination to Iface")
            return
        destination, gateway, mask, flags, metric, _, _, interface = words
        try:
            prefix: IPNetwork = ipaddress.ip_network(f"{destination}/{mask}")
            ipaddress.ip_address("0.0.0.0" if gateway == "-" else gateway)
        except ValueError as error:
            fix = "print addresses, not names: `route -n`" if "octet" in str(error) else f"mend it: {error}"
            self.refuse(number, f"{destination} {gateway} {mask}", "addresses of a network, a gateway and a mask", fix)
            return
        value = self._number(number, metric, "metric")
        if value != -1:
            self._take(number, line, prefix, gateway, "U" in flags, "G" in flags, "!" in flags, value, interface)

    # --- /proc/net/route: Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT, little endian

    def proc_net_route(self, number: int, line: str) -> None:
        words = line.split()
        if len(words) != 11:
            self.refuse(number, _shortened(line), "the eleven columns of /proc/net/route, Iface to IRTT")
            return
        try:
            destination, gateway, mask = (
                ipaddress.IPv4Address(int(words[i], 16).to_bytes(4, "little")) for i in (1, 2, 7)
            )
            prefix = ipaddress.ip_network(f"{destination}/{mask}")
            flags = int(words[3], 16)
        except (ValueError, OverflowError) as error:
            self.refuse(number, _shortened(line), "hexadecimal addresses of 8 digits", f"mend it: {error}")
            return
        value = self._number(number, words[6], "metric")
        if value != -1:  # RTF_UP 1, RTF_GATEWAY 2, RTF_REJECT 0x200 of linux/route.h
            is_reject = bool(flags & 0x200)
            self._take(number, line, prefix, str(gateway), bool(flags & 1), bool(flags & 2), is_reject, value, words[0])

    def _take(
        self,
        number: int,
        line: str,
        prefix: IPNetwork,
        gateway: str,
        is_up: bool,
        is_via: bool,
        is_reject: bool,
        metric: int | None,
        interface: str,
    ) -> None:
        if not is_up and not is_reject:
            self.passed_over.append((number, line.strip()))
            return
        kind = RouteKind.UNREACHABLE if is_reject else RouteKind.VIA if is_via else RouteKind.DIRECT
        hops = () if is_reject else (NextHop(interface, gateway if is_via else None),)
        route = Route(
            prefix, kind, hops, "boot", metric or None, scope_link=kind is RouteKind.DIRECT,
            why=f"line {number} of {self.file or 'the text'}",
        )  # fmt: skip
        self.read.append(_Line(number, line.strip(), route, "main", (), False))

    # --- the result

    def check_groups(self) -> None:
        """Refuse every route that leads nowhere."""
        for each in self.read:
            if each.is_group and not each.route.next_hops:
                self.refuse(
                    each.number, each.text, "a gateway, an interface, or `nexthop` lines after it", "complete the route"
                )

    def result(self, device: str) -> RouteText:
        best: dict[IPNetwork, Route] = {}
        hidden: list[Route] = []
        others: list[tuple[str, Route]] = []
        for each in self.read:
            if each.table not in ("main", "local"):
                others.append((each.table, each.route))
                continue
            prefix = each.route.prefix
            known = best.get(prefix)
            if known is None:
                best[prefix] = each.route
            elif (each.route.metric or 0) < (known.metric or 0) and known.kind is not RouteKind.LOCAL:
                hidden.append(known)
                best[prefix] = each.route
            else:  # the first of equal ones counts
                hidden.append(each.route)
        flags = tuple((each.route.prefix, flag) for each in self.read for flag in each.flags)
        return RouteText(
            Fib(device, tuple(best.values())), tuple(hidden), tuple(others), tuple(self.passed_over), flags
        )


def _shortened(line: str) -> str:
    text = " ".join(line.split())
    return text if len(text) <= 80 else text[:77] + "..."


def routes_in(fib: Fib, *, family: int | None = None) -> Iterator[tuple[IPNetwork, RouteKind, frozenset[NextHop]]]:
    """Yield what two tables are compared by: prefix, kind and set of next hops, own addresses left out."""
    for route in fib.routes:
        if route.kind is not RouteKind.LOCAL and (family is None or route.prefix.version == family):
            yield route.prefix, route.kind, frozenset(route.next_hops)
