"""Forwarding tables: what a device does with a destination, by longest prefix.

Source: ip-route(8); facts of Calico's host routes are in docs/models/routing.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

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


@dataclass(frozen=True, slots=True)
class Fib:
    """A device's routes; at most one per prefix, in the order in which `ip route` prints them."""

    device: str
    routes: tuple[Route, ...]
