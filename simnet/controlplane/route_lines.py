"""A forwarding table as text, line by line as `ip route` prints it.

Source: ip-route(8) and iproute2's printing order: type, prefix, gateway, device, protocol, scope, source, metric.
"""

from __future__ import annotations

from collections.abc import Iterator

from simnet.model.fabric import TUNNEL_INTERFACES
from simnet.model.fib import Fib, Route, RouteKind

_TUNNELS = frozenset(TUNNEL_INTERFACES.values())  # their gateways are on no subnet of theirs


def route_lines(fib: Fib, *, family: int = 4, local: bool = False, why: bool = False) -> list[str]:
    """Return the lines of `ip route` (`family` 6: `ip -6 route`) on a device.

    `local` lists the local table instead of the main one; `why` appends to each route the reason that it is there.
    A route with several next hops takes a line more for each, as there.
    """
    lines: list[str] = []
    for route in fib.routes:
        if route.prefix.version != family or (route.kind is RouteKind.LOCAL) != local:
            continue
        first, *rest = _lines_of(route)
        lines.append(f"{first}  # {route.why}" if why and route.why else first)
        lines.extend(rest)
    return lines


def _lines_of(route: Route) -> Iterator[str]:
    words = []
    if route.kind in (RouteKind.LOCAL, RouteKind.BLACKHOLE, RouteKind.UNREACHABLE):
        words.append(route.kind.value)
    words.append(_prefix_text(route))
    several = len(route.next_hops) > 1
    if not several:
        for hop in route.next_hops:
            words += ["via", hop.gateway] if hop.gateway else []
            words += ["dev", hop.interface]
    if route.protocol != "boot":  # printed only with -d
        words += ["proto", route.protocol]
    version = route.prefix.version
    if version == 4:
        if route.kind is RouteKind.LOCAL:
            words += ["scope", "host"]
        elif route.scope_link:
            words += ["scope", "link"]
        words += ["src", route.source] if route.source else []
        words += ["metric", str(route.metric)] if route.metric is not None else []
        words += ["onlink"] if any(hop.gateway and hop.interface in _TUNNELS for hop in route.next_hops) else []
    else:
        # IPv6 routes always have a metric: 256 for the kernel's own, 0 in the local table, else 1024
        implied = 0 if route.kind is RouteKind.LOCAL else 256 if route.protocol == "kernel" else 1024
        words += ["metric", str(implied if route.metric is None else route.metric), "pref", "medium"]
    yield " ".join(words)
    if several:
        for hop in route.next_hops:
            yield "\t" + " ".join(
                [
                    "nexthop",
                    *(["via", hop.gateway] if hop.gateway else []),
                    *("dev", hop.interface, "weight", str(hop.weight)),
                ]
            )


def _prefix_text(route: Route) -> str:
    if route.prefix.prefixlen == 0:
        return "default"
    if route.prefix.prefixlen == route.prefix.max_prefixlen:
        return str(route.prefix.network_address)
    return str(route.prefix)
