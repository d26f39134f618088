"""One device's routing decision for one packet: the longest prefix, then who answers on the wire.

Reads FIBs and the fabric themselves, one packet at a time, for addresses of anybody; the vectorised counterpart is
`dataplane.forwarding`. An ECMP group yields all of its next hops, each with its share.
Source: net/ipv4/fib_trie.c (longest prefix; the local table first).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Hashable, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from simnet.dataplane.forwarding.groups import bucket_table, member_shares
from simnet.engine.rule_walk import Header, Host, IPAddress
from simnet.model.fabric import Attachment, Fabric, Segment, Tunnel
from simnet.model.fib import Fib, NextHop, Route, RouteKind

LOCAL, FORWARD, NO_ROUTE, NO_NEIGHBOUR = "local", "forward", "no route", "no neighbour"


class Decision(NamedTuple):
    """What a device does with a destination."""

    kind: str  # LOCAL, FORWARD, "blackhole", "unreachable", NO_ROUTE, NO_NEIGHBOUR
    next_place: str = ""  # a device, or namespace/name of a pod
    interface: str = ""  # that it leaves by
    in_interface: str = ""  # that it arrives on, of a device
    wires: tuple[str, ...] = ()  # "a->b", through a bridge two
    route: str = ""  # as `ip route` shows it, shortened
    choices: int = 1  # next hops, of which this is one
    member: int = 0  # its position among them
    share: Fraction = Fraction(1)  # of random flows that take it
    tunnel: Tunnel | None = None  # FORWARD, but where to the outer header decides
    far_end: IPAddress | None = None  # the outer destination
    broken_wire: int | None = None  # position in `wires` of the first one that carries nothing; None: all do


class RouteWalker:
    """Answers for all devices of a fabric."""

    def __init__(
        self,
        fabric: Fabric,
        fibs: Mapping[str, Fib],
        *,
        broken_links: frozenset[int] = frozenset(),
        dead_devices: frozenset[str] = frozenset(),
    ) -> None:
        self.fabric, self.fibs, self.broken_links, self.dead_devices = fabric, fibs, broken_links, dead_devices
        self.kinds = {device.name: device.kind for device in fabric.devices}
        self.hosts = {device.name: Host(device.addresses, device.tunnels) for device in fabric.devices}
        self.rp_filters = {device.name: device.rp_filter for device in fabric.devices}
        self.pod_of = {pod.pod: pod for pod in fabric.pods}
        self._directions = fabric.direction_names()
        self._veths = {(pod.node, pod.interface): pod for pod in fabric.pods}
        self._attached: dict[tuple[str, str], list[tuple[Segment, Attachment]]] = {}
        self._answers: dict[tuple[str, IPAddress], Attachment] = {}  # (segment's name, address)
        self.interface_of: dict[str, str] = {}  # a device's first interface towards the fabric
        for segment in fabric.segments:
            for end in segment.attachments:
                self._attached.setdefault((end.device, end.interface), []).append((segment, end))
                self.interface_of.setdefault(end.device, end.interface)
                for address in end.addresses:
                    self._answers[segment.name, ipaddress.ip_address(address)] = end
        self.tunnels = {(device.name, end.interface): end for device in fabric.devices for end in device.tunnels}
        self._far_ends = {
            ipaddress.ip_address(end.address): ipaddress.ip_address(end.underlay) for end in self.tunnels.values()
        }
        self._tables: dict[str, dict[tuple[int, int], dict[int, Route]]] = {}
        self._known: dict[tuple[str, IPAddress], list[Decision]] = {}

    def decide(self, device: str, destination: IPAddress) -> list[Decision]:
        """Return the decision, or the members of an ECMP group in order."""
        known = self._known.get((device, destination))
        if known is None:
            known = self._known[device, destination] = self._decide(device, destination)
        return known

    def is_martian(self, node: str, in_interface: str, source: IPAddress) -> bool:
        """Whether a node drops a packet for its source: its own address, or one that rp_filter does not believe."""
        if source.version == 6:
            return False
        steps = self.decide(node, source)
        if steps[0].kind == LOCAL:
            return True
        mode = self.rp_filters[node]
        if mode == "loose":
            return steps[0].kind not in (FORWARD, NO_NEIGHBOUR)
        return mode == "strict" and all(step.interface != in_interface for step in steps)

    def hashes_addresses_alone(self, device: str) -> bool:
        """Whether an ECMP choice of the device looks at addresses only, so that a pair's packets stay together."""
        return self.fabric.ecmp_of(self.kinds[device]).hash == "l3"

    def ecmp_key(self, device: str, header: Header) -> Hashable:
        """Return what a device's ECMP choice is a function of: a packet that comes again takes the same next hop."""
        ecmp = self.fabric.ecmp_of(self.kinds[device])
        agree = ecmp.has_shared_seed and ecmp.choice != "hrw"  # that one ranks the next hops themselves
        box: Hashable = ecmp if agree else device
        if ecmp.hash == "l3":
            return (box, header.source, header.destination)
        if ecmp.hash == "symmetric":
            ends = frozenset([(header.source, header.source_port), (header.destination, header.destination_port)])
            return (box, ends, header.protocol)
        return (box, header)

    def wire_from_pod(self, pod: str) -> str:
        """Return the direction's name from a pod to its node."""
        held = self.pod_of[pod]
        return self._direction(held.link, pod)

    def _decide(self, device: str, destination: IPAddress) -> list[Decision]:
        if self.hosts[device].is_local(destination):
            return [Decision(LOCAL, route=f"local {destination}")]
        route = self._route(device, destination)
        if route is None:
            return [Decision(NO_ROUTE)]
        text = "default" if route.prefix.prefixlen == 0 else str(route.prefix)
        if route.kind is RouteKind.LOCAL:
            return [Decision(LOCAL, route=f"local {text}")]
        if route.kind not in (RouteKind.VIA, RouteKind.DIRECT):
            return [Decision(route.kind.value, route=f"{route.kind.value} {text}")]
        hops = route.next_hops if route.kind is RouteKind.VIA else route.next_hops[:1]
        found = [self._follow(device, destination, hop, text, len(hops)) for hop in hops]
        ecmp = self.fabric.ecmp_of(self.kinds[device])
        buckets = bucket_table((), hops, ecmp.buckets) if ecmp.choice == "resilient" else ()
        shares = member_shares(ecmp.choice, hops, buckets)
        return [step._replace(member=number, share=Fraction(*shares[number])) for number, step in enumerate(found)]

    def _follow(self, device: str, destination: IPAddress, hop: NextHop, text: str, choices: int) -> Decision:
        told = f"{text} via {hop.gateway} dev {hop.interface}" if hop.gateway else f"{text} dev {hop.interface}"
        answering = ipaddress.ip_address(hop.gateway) if hop.gateway else destination
        tunnel = self.tunnels.get((device, hop.interface))
        if tunnel is not None:
            far = answering if tunnel.kind == "ipip" else self._far_ends.get(answering)
            if far is not None:
                return Decision(
                    FORWARD, interface=hop.interface, route=told, choices=choices, tunnel=tunnel, far_end=far
                )
        pod = self._veths.get((device, hop.interface))
        if pod is not None and any(ipaddress.ip_address(each) == answering for each in pod.addresses):
            crossed = ((pod.link, device),)
            return self._over(Decision(FORWARD, pod.pod, hop.interface, "eth0", (), told, choices), crossed)
        for segment, mine in self._attached.get((device, hop.interface), ()):
            other = self._answers.get((segment.name, answering))
            if other is None:
                continue
            senders: list[tuple[int, str]] = []
            if mine.link is not None:
                senders.append((mine.link, device))
            if segment.bridge is not None and other.link is not None:
                senders.append((other.link, segment.bridge))
            arrives = self.interface_of[other.device]
            decision = Decision(FORWARD, other.device, hop.interface, arrives, (), told, choices)
            return self._over(decision, senders)
        return Decision(NO_NEIGHBOUR, interface=hop.interface, route=told, choices=choices)

    def _over(self, decision: Decision, crossed: Sequence[tuple[int, str]]) -> Decision:
        """Fill in the wires, (position in Fabric.links, sender) each. A bridge without power sends nothing."""
        broken = (
            number
            for number, (link, sender) in enumerate(crossed)
            if link in self.broken_links or (number > 0 and sender in self.dead_devices)
        )
        return decision._replace(
            wires=tuple(self._direction(link, sender) for link, sender in crossed), broken_wire=next(broken, None)
        )

    def _direction(self, link: int, sender: str) -> str:
        return self._directions[2 * link + (self.fabric.links[link].a != sender)]

    def _route(self, device: str, destination: IPAddress) -> Route | None:
        """The longest prefix: one look per prefix length that the table holds."""
        table = self._tables.get(device)
        if table is None:
            table = self._tables[device] = {}
            held = self.fibs.get(device)
            for route in held.routes if held else ():
                network = route.prefix
                bits = int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
                table.setdefault((network.version, network.prefixlen), {}).setdefault(bits, route)
            self._tables[device] = dict(sorted(table.items(), reverse=True))
        width, number = destination.max_prefixlen, int(destination)
        for (version, length), routes in self._tables[device].items():
            if version == destination.version and (found := routes.get(number >> (width - length))) is not None:
                return found
        return None
