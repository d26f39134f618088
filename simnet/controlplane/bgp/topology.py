"""What the wires say about next hops: who is on whose segment, which gateway a node has, which switches lead where."""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Iterator

from simnet.controlplane.bgp.prefixes import prefix_of
from simnet.model.fabric import Attachment, DeviceKind, Fabric, Segment, Tunnel
from simnet.model.fib import NextHop, Route, RouteKind
from simnet.model.iptables.ruleset import IPNetwork

_DEFAULT = {4: prefix_of("0.0.0.0/0"), 6: prefix_of("::/0")}


class Topology:
    """Answers about one fabric, remembered; nothing here depends on BGP's settings."""

    def __init__(self, fabric: Fabric) -> None:
        self._devices = {device.name: device for device in fabric.devices}
        self._at: dict[str, list[tuple[Attachment, Segment]]] = {name: [] for name in self._devices}
        self._addresses_in: dict[str, dict[str, Attachment]] = {}  # by segment
        for segment in fabric.segments:
            held = self._addresses_in.setdefault(segment.name, {})
            for attachment in segment.attachments:
                self._at[attachment.device].append((attachment, segment))
                held.update(dict.fromkeys(attachment.addresses, attachment))
        self._switch_of: dict[str, str] = {}
        self._nodes_at: dict[str, set[str]] = {}
        self._neighbours: dict[str, list[tuple[str, int, NextHop]]] = {}  # of switches: (switch, family, hop)
        self._find_neighbours(fabric)
        self._gateway: dict[tuple[str, int], NextHop | None] = {}
        self._hop_to: dict[tuple[str, str], NextHop | None] = {}
        self._distance: dict[tuple[str, ...], dict[str, int]] = {}
        self._toward: dict[tuple[str, tuple[str, ...], int], tuple[NextHop, ...]] = {}
        self._underlay: list[tuple[str, IPNetwork]] | None = None

    def _find_neighbours(self, fabric: Fabric) -> None:
        for segment in fabric.segments:
            switches = [a for a in segment.attachments if self._is_switch(a.device)]
            for attachment in segment.attachments:
                if not self._is_switch(attachment.device) and switches:
                    self._switch_of.setdefault(attachment.device, switches[0].device)
                    if self._devices[attachment.device].kind is DeviceKind.NODE:
                        self._nodes_at.setdefault(switches[0].device, set()).add(attachment.device)
            for here in switches:
                for there in switches:
                    if here.device != there.device and here.network == there.network:
                        address = there.addresses[0]
                        hop = NextHop(here.interface, address)
                        self._neighbours.setdefault(here.device, []).append((there.device, _family(address), hop))

    def _is_switch(self, device: str) -> bool:
        return self._devices[device].kind is DeviceKind.SWITCH

    # --- routes that need no BGP

    def local_routes(self, device: str) -> list[Route]:
        """The device's own addresses, as in its local table."""
        interface = {a: end.interface for end, _ in self._at[device] for a in end.addresses}
        interface |= {tunnel.address: tunnel.interface for tunnel in self._devices[device].tunnels}
        return [
            Route(
                self._host(address), RouteKind.LOCAL, (NextHop(interface.get(address, "lo")),), "kernel",
                source=address, why="own address",
            )
            for address in self._devices[device].addresses
        ]  # fmt: skip

    def connected_routes(self, device: str) -> list[Route]:
        """Subnets of the interfaces; a peer's address where an interface has no subnet."""
        routes: dict[IPNetwork, Route] = {}
        for end, segment in self._at[device]:
            hops = (NextHop(end.interface),)
            if end.network is not None:
                networks = [(prefix_of(str(end.network)), next(iter(end.addresses), None), "connected subnet")]
            else:
                networks = [
                    (self._host(address), _same_family(end.addresses, address), f"peer of {end.interface}")
                    for other in segment.attachments
                    if other is not end
                    for address in other.addresses
                ]
            for network, source, why in networks:
                routes.setdefault(
                    network,
                    Route(network, RouteKind.DIRECT, hops, "kernel", source=source, scope_link=True, why=why),
                )
        return list(routes.values())

    def default_routes(self, device: str) -> list[Route]:
        """The default route of each family, by the gateway."""
        routes = []
        for family, network in _DEFAULT.items():
            hop = self.gateway(device, family)
            if hop is not None:
                routes.append(Route(network, RouteKind.VIA, (hop,), "boot", why="configured by the operator"))
        return routes

    def tunnel(self, device: str, kind: str) -> Tunnel | None:
        """A node's tunnel device of a kind."""
        return next((tunnel for tunnel in self._devices[device].tunnels if tunnel.kind == kind), None)

    # --- next hops

    def switch_of(self, device: str) -> str:
        """The switch that a node or client hangs on; empty without one."""
        return self._switch_of.get(device, "")

    def nodes_at(self, switch: str) -> set[str]:
        """The nodes that hang on a switch."""
        return self._nodes_at.get(switch, set())

    def gateway(self, device: str, family: int) -> NextHop | None:
        """The next hop of a device's default route: the address of its switch on their segment."""
        if (device, family) not in self._gateway:
            self._gateway[device, family] = self._find_gateway(device, family)
        return self._gateway[device, family]

    def _find_gateway(self, device: str, family: int) -> NextHop | None:
        for end, segment in self._at[device]:
            if not any(_family(address) == family for address in end.addresses):
                continue
            for other in segment.attachments:
                if other.network == end.network and self._is_switch(other.device):
                    for address in other.addresses:
                        if _family(address) == family:
                            return NextHop(end.interface, address)
        return None

    def on_link(self, device: str, other: str, family: int) -> NextHop | None:
        """The next hop to another device's primary address if both share a segment, None otherwise.

        Asked of the device itself, it answers for any device of the same role: routes are shared between those.
        """
        primary = _of_family(self._devices[other].addresses, family)
        if primary is None:
            return None
        for end, segment in self._at[device]:
            if device == other and segment.bridge is None:
                continue
            found = self._addresses_in[segment.name].get(primary)
            if found is not None and found.device == other and _same_family(end.addresses, primary):
                return NextHop(end.interface, primary)
        return None

    def hop_to(self, device: str, address: str) -> NextHop | None:
        """The next hop to an address: itself on a segment of the device, else the device's gateway."""
        if (device, address) not in self._hop_to:
            self._hop_to[device, address] = self._find_hop_to(device, address)
        return self._hop_to[device, address]

    def _find_hop_to(self, device: str, address: str) -> NextHop | None:
        for end, segment in self._at[device]:
            held = self._addresses_in[segment.name].get(address)
            if held is not None and held.device != device and _same_family(end.addresses, address):
                return NextHop(end.interface, address)
        return self.gateway(device, _family(address))

    def role_of(self, node: str) -> tuple[object, ...]:
        """What a node's next hops depend on: equal for nodes that hold the same routes to third parties."""
        bridged = tuple(segment.name for _, segment in self._at[node] if segment.bridge is not None)
        return self.switch_of(node), bridged, self.gateway(node, 4), self.gateway(node, 6)

    def addresses(self, device: str) -> tuple[str, ...]:
        """All addresses of a device."""
        return self._devices[device].addresses

    def address_of(self, device: str, family: int) -> str | None:
        """The primary address of a device."""
        return _of_family(self._devices[device].addresses, family)

    def router_id(self, node: str, family: int) -> int:
        """The address by which ties between nodes are broken."""
        address = _of_family(self._devices[node].addresses, family)
        return int(ipaddress.ip_address(address)) if address else 0

    def reaches_directly(self, device: str, address: str) -> bool:
        """Whether an address is held by another device on one of the device's segments."""
        return any(
            address in self._addresses_in[segment.name] and self._addresses_in[segment.name][address].device != device
            for _, segment in self._at[device]
        )

    def addresses_beside(self, device: str) -> frozenset[str]:
        """All addresses on the bridged segments of a device; without a bridge nobody but the peer is beside it."""
        bridged = [segment.name for _, segment in self._at[device] if segment.bridge is not None]
        return frozenset(address for name in bridged for address in self._addresses_in[name])

    def switch_links(self, family: int) -> Iterator[tuple[str, str, str, str]]:
        """(switch, neighbour, own address, its address) of every wire between switches, from both ends."""
        for here, neighbours in self._neighbours.items():
            for there, hop_family, hop in neighbours:
                if hop_family == family and hop.gateway is not None:
                    back = next(
                        other.gateway
                        for name, other_family, other in self._neighbours[there]
                        if name == here and other_family == family
                    )
                    yield here, there, back or "", hop.gateway

    def toward(self, switch: str, targets: tuple[str, ...], family: int) -> tuple[NextHop, ...]:
        """All next hops of a switch on shortest paths to any of the target switches, in order of the wires."""
        key = (switch, targets, family)
        if key not in self._toward:
            distance = self._distances(targets)
            here = distance.get(switch, 0)
            self._toward[key] = tuple(
                hop
                for neighbour, hop_family, hop in self._neighbours.get(switch, ())
                if hop_family == family and distance.get(neighbour, here) == here - 1
            )
        return self._toward[key]

    def _distances(self, targets: tuple[str, ...]) -> dict[str, int]:
        """Steps from every switch to the nearest target: the AS path's length, since every switch has its own AS."""
        if targets not in self._distance:
            distance = dict.fromkeys(targets, 0)
            queue = deque(targets)
            while queue:
                at = queue.popleft()
                for neighbour, _, _ in self._neighbours.get(at, ()):
                    if neighbour not in distance:
                        distance[neighbour] = distance[at] + 1
                        queue.append(neighbour)
            self._distance[targets] = distance
        return self._distance[targets]

    def underlay(self) -> list[tuple[str, IPNetwork]]:
        """(switch, prefix) of all that switches tell each other: loopbacks, subnets, addresses of nodes."""
        if self._underlay is None:
            self._underlay = [entry for name in self._devices if self._is_switch(name) for entry in self._told_by(name)]
        return self._underlay

    def _told_by(self, switch: str) -> Iterator[tuple[str, IPNetwork]]:
        between = {hop.interface for _, _, hop in self._neighbours.get(switch, ())}
        told = [route.prefix for route in self.connected_routes(switch) if route.next_hops[0].interface not in between]
        linked = [a for end, _ in self._at[switch] if end.interface in between for a in end.addresses]
        for address in self._devices[switch].addresses:
            parsed = ipaddress.ip_address(address)
            if address not in linked and not any(parsed in prefix for prefix in told):
                told.append(self._host(address))
        return ((switch, prefix) for prefix in told)

    def _host(self, address: str) -> IPNetwork:
        return prefix_of(address)


def _family(address: str) -> int:
    return 6 if ":" in address else 4


def _of_family(addresses: tuple[str, ...], family: int) -> str | None:
    return next((address for address in addresses if _family(address) == family), None)


def _same_family(addresses: tuple[str, ...], like: str) -> str | None:
    return _of_family(addresses, _family(like))
