"""Forwarding tables: what a device does with a destination, by longest prefix.

Source: ip-route(8); facts of Calico's host routes are in docs/models/routing.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache

from simnet.model.iptables.ruleset import IPNetwork


class RouteKind(Enum):
    """The route types of ip-route(8) that occur here."""

    LOCAL = "local"  # the device's own address
    DIRECT = "direct"  # on-link: the destination itself answers on the interface (connected subnet, pod /32)
    VIA = "via"  # one or more gateways
    BLACKHOLE = "blackhole"  # silently discarded
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class NextHop:
    """Where a packet goes next: a gateway on an interface, or (`gateway` None) the destination itself on it."""

    interface: str
    gateway: str | None = None
    weight: int = 1  # its part of a group's flows


@dataclass(frozen=True, slots=True)
class Route:
    """One route, already resolved to interfaces."""

    prefix: IPNetwork
    kind: RouteKind
    next_hops: tuple[NextHop, ...] = ()
    protocol: str = "kernel"  # as `ip route` prints it: kernel, boot, static, bird
    metric: int | None = None
    source: str | None = None  # preferred source address (`src`)
    scope_link: bool = False
    why: str = field(default="", compare=False)  # the clause of the specification that put it here


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """Where a route over gateways leads, without its prefix: many prefixes of a device share one."""

    next_hops: tuple[NextHop, ...]
    protocol: str
    metric: int | None
    why: str
    _routes: dict[IPNetwork, Route] = field(init=False, repr=False, default_factory=dict)

    def to(self, prefix: IPNetwork) -> Route:
        """Return the route of a prefix, the same object each time."""
        route = self._routes.get(prefix)
        if route is None:
            route = Route(prefix, RouteKind.VIA, self.next_hops, self.protocol, self.metric, why=self.why)
            self._routes[prefix] = route
        return route


def lead_alike(one: Route | Way | None, other: Route | Way | None) -> bool:
    """Whether two routes of one prefix are equal; a Way stands for its route."""
    if one is other or one is None or other is None:
        return one is other
    if isinstance(one, Route) and isinstance(other, Route):
        return one == other
    for each in (one, other):
        if isinstance(each, Route) and (each.kind is not RouteKind.VIA or each.source or each.scope_link):
            return False
    return (one.next_hops, one.protocol, one.metric) == (other.next_hops, other.protocol, other.metric)


@dataclass(frozen=True, slots=True)
class Fib:
    """A device's routes; at most one per prefix, in the order in which `ip route` prints them."""

    device: str
    routes: tuple[Route, ...]


@lru_cache(maxsize=1 << 16)
def print_order(prefix: IPNetwork) -> tuple[int, int, int]:
    """Return the sort key by which `ip route` (a trie in order) and `ip -6 route` (leaves first) list prefixes."""
    if prefix.version == 4:
        return 4, int(prefix.network_address), -prefix.prefixlen if prefix.prefixlen else -33
    return 6, int(prefix.broadcast_address), -prefix.prefixlen
