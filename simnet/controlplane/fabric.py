"""The wires of a cluster: which device hangs on which switch, with which addresses.

Modelled: one switch, or leaf-spine (every leaf wired to every spine); a switch either routes to each node over a link
of its own, both ends being each other's /32 peer, or bridges its nodes' subnet and has an address in it; outside
clients on a routed subnet of their switch, or, inside a bridged node subnet, on that segment. Left out: nodes with two
uplinks.
Source: the wiring that `ip address add A peer B` and a bridge make on Linux, ip-address(8); veth names as
Calico's CNI gives them.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from simnet.controlplane.racks import nodes_by_switch
from simnet.errors import InputError, Position, Problem
from simnet.model.calico import FabricMode, FabricSettings
from simnet.model.cluster import ClusterNode, ClusterPod
from simnet.model.fabric import Attachment, Device, DeviceKind, Ecmp, Fabric, Link, PodAttachment, Segment, Tunnel
from simnet.model.iptables.ruleset import IPNetwork
from simnet.model.queues import LinkQueue

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_LONGEST_NAME = 15  # of a Linux interface
_SPINE_LINKS = {4: ipaddress.ip_network("100.64.0.0/16"), 6: ipaddress.ip_network("fd64::/112")}
_SPINE_ADDRESSES = {4: ipaddress.ip_network("100.65.0.0/16"), 6: ipaddress.ip_network("fd65::/112")}


def build_fabric(
    nodes: Sequence[ClusterNode],
    pods: Sequence[ClusterPod],
    clients: Sequence[str],
    settings: FabricSettings,
    tunnels: Mapping[str, tuple[Tunnel, ...]] | None = None,
) -> Fabric:
    """Return the fabric of these nodes, pods and addresses of outside clients; `tunnels` by node.

    Devices come in this order: nodes, switches, sites of clients. Pods on the host's network have no attachment.
    Raises InputError with every contradiction found: equal names or addresses, a subnet on two leaves, no such node.
    """
    builder = _Builder(settings, tunnels or {})
    builder.check(nodes, pods, clients)
    plans = builder.plan_switches(nodes)
    builder.wire_nodes(plans)
    if settings.leaves:
        builder.wire_spines(plans)
    builder.wire_clients(plans[-1] if settings.leaves and settings.border_leaf else plans[0], clients)
    builder.wire_pods(pods)
    return builder.fabric(plans, nodes)


def veth_name(namespace: str, pod: str) -> str:
    """Return the host end's name of a pod's veth: `cali` and 11 hex digits of SHA-1 of `namespace.pod`."""
    return "cali" + hashlib.sha1(f"{namespace}.{pod}".encode(), usedforsecurity=False).hexdigest()[:11]


def interface_names(hosts: Iterable[str]) -> Iterator[str]:
    """Yield `p-HOST` for each host, a digest in its place where that is too long for Linux."""
    for host in hosts:
        name = f"p-{host}"
        yield (
            name
            if len(name) <= _LONGEST_NAME
            else "p-" + hashlib.sha1(host.encode(), usedforsecurity=False).hexdigest()[:11]
        )


def family_of(address: str) -> int:
    """Return 4 or 6; a colon tells."""
    return 6 if ":" in address else 4


@dataclass
class _SwitchPlan:
    """A switch under construction; `addresses` its own, primary first."""

    name: str
    role: str
    as_number: int
    mode: FabricMode
    nodes: list[ClusterNode] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    networks: list[IPNetwork] = field(default_factory=list)  # that it bridges
    bridges: dict[IPNetwork, str] = field(default_factory=dict)  # interface of each


class _Builder:
    """Collects links, segments and devices; the order of its calls is the order of ids."""

    def __init__(self, settings: FabricSettings, tunnels: Mapping[str, tuple[Tunnel, ...]]) -> None:
        self.settings, self.tunnels = settings, tunnels
        self.links: list[Link] = []
        self.segments: dict[str, tuple[str | None, list[Attachment]]] = {}  # by name: (bridge, attachments)
        self.pods: list[PodAttachment] = []
        self.sites: list[Device] = []
        self.spines: list[_SwitchPlan] = []
        self.taken: set[str] = set()  # addresses of nodes, clients and switches
        self.node_networks = [ipaddress.ip_network(text) for text in settings.node_networks]
        self.client_networks = [ipaddress.ip_network(text) for text in settings.client_networks]

    # --- checks

    def check(self, nodes: Sequence[ClusterNode], pods: Sequence[ClusterPod], clients: Sequence[str]) -> None:
        problems: list[Problem] = []
        owner: dict[str, str] = {}
        names = {node.name for node in nodes}
        if len(names) < len(nodes):
            twice = sorted({node.name for node in nodes if sum(other.name == node.name for other in nodes) > 1})
            problems.append(_problem("nodes", ", ".join(twice), "one name a node", "rename the others"))
        for pod in pods:
            if pod.node not in names:
                problems.append(
                    _problem(f"pod {pod.key}", f"node {pod.node!r}", "a node of this cluster", "add the node")
                )
        holders = [(f"node {node.name}", node.addresses) for node in nodes]
        holders += [(f"pod {pod.key}", pod.addresses) for pod in pods if not pod.host_network]
        holders += [(f"client {client}", (client,)) for client in clients]
        for who, addresses in holders:
            for address in addresses:
                if address in owner:
                    problems.append(
                        _problem(
                            who, address, f"an address of its own ({owner[address]} has it)", "choose another address"
                        )
                    )
                owner.setdefault(address, who)
        settings = self.settings
        if settings.leaves and not settings.spines and settings.leaves + settings.border_leaf > 1:
            problems.append(_problem("fabric.spines", "0", "at least one spine between leaves", "set fabric.spines: 1"))
        if settings.leaf_modes and len(settings.leaf_modes) != settings.leaves:
            problems.append(
                _problem(
                    "fabric.leafModes", str(len(settings.leaf_modes)), f"{settings.leaves} modes", "give one a leaf"
                )
            )
        if problems:
            raise InputError(problems)
        self.taken = {address for node in nodes for address in node.addresses} | set(clients)
        self.taken.update(settings.router_addresses)
        self.taken.update(address for _, held in settings.switch_addresses for address in held)

    # --- switches

    def plan_switches(self, nodes: Sequence[ClusterNode]) -> list[_SwitchPlan]:
        settings = self.settings
        if not settings.leaves:
            plans = [_SwitchPlan(settings.switch_name, "tor", settings.switch_as_number, settings.mode)]
        else:
            modes = settings.leaf_modes or (settings.mode,) * settings.leaves
            plans = [
                _SwitchPlan(f"leaf{i + 1}", "leaf", settings.switch_as_number + i, mode) for i, mode in enumerate(modes)
            ]
            if settings.border_leaf:
                number = settings.switch_as_number + len(plans)
                plans.append(_SwitchPlan("border", "leaf", number, FabricMode.ROUTED))
            first = settings.switch_as_number + len(plans)
            self.spines = [
                _SwitchPlan(f"spine{i + 1}", "spine", first + i, FabricMode.ROUTED) for i in range(settings.spines)
            ]
        homes, numbers = nodes_by_switch(nodes, settings), dict(settings.switch_as_numbers)
        for plan in (*plans, *self.spines):
            plan.nodes, plan.as_number = homes.get(plan.name, []), numbers.get(plan.name, plan.as_number)
        clash = sorted({node.name for node in nodes} & {plan.name for plan in (*plans, *self.spines)})
        if clash:
            raise InputError(
                [_problem("nodes", name, "a name that no switch has", "rename the node") for name in clash]
            )
        families = sorted({family_of(address) for node in nodes for address in node.addresses}) or [4]
        for plan in plans:
            plan.networks = self._bridged_networks(plan)
        self._check_networks_are_apart(plans)
        given = iter(settings.router_addresses)
        per_plan = settings.router_addresses if not settings.leaves else ()
        for i, plan in enumerate(plans):
            mine = list(dict(settings.switch_addresses).get(plan.name, ())) or list(per_plan)
            if not mine and (address := next(given, None)):
                mine = [address]
            for family in families:
                chosen = next((a for a in mine if family_of(a) == family), None)
                plan.addresses.append(chosen or self._router_address(plan, family, i))
            for network in plan.networks:
                if not any(ipaddress.ip_address(a) in network for a in plan.addresses):
                    plan.addresses.append(self._first_free(network))
        for i, spine in enumerate(self.spines):
            spine.addresses = [str(_SPINE_ADDRESSES[family][1 + i]) for family in families]
        return plans

    def _bridged_networks(self, plan: _SwitchPlan) -> list[IPNetwork]:
        if plan.mode is not FabricMode.BRIDGED:
            return []
        return sorted(
            {self._node_network(address) for node in plan.nodes for address in node.addresses},
            key=lambda network: (network.version, int(network.network_address)),
        )

    def _node_network(self, address: str) -> IPNetwork:
        return _network_around(address, self.node_networks)

    def _check_networks_are_apart(self, plans: list[_SwitchPlan]) -> None:
        seen: dict[IPNetwork, str] = {}
        problems = []
        for plan in plans:
            for network in plan.networks:
                if network in seen:
                    fix = "give each leaf a subnet of its own, place nodes by fabric.leafLabel, or use mode: routed"
                    found = f"{network} on {seen[network]} and {plan.name}"
                    problems.append(_problem("fabric.mode", found, "a bridged subnet on one leaf only", fix))
                seen.setdefault(network, plan.name)
        if problems:
            raise InputError(problems)

    def _router_address(self, plan: _SwitchPlan, family: int, index: int) -> str:
        """The first free address of the subnet of its first node; a switch without nodes takes one of its own."""
        for node in plan.nodes:
            for address in node.addresses:
                if family_of(address) == family:
                    return self._first_free(self._node_network(address))
        return str(_SPINE_ADDRESSES[family][0x1000 + index])

    def _first_free(self, network: IPNetwork) -> str:
        number = int(network.network_address) + (1 if network.num_addresses > 2 else 0)
        while True:
            address = str(type(network.network_address)(number))
            if ipaddress.ip_address(address) not in network:
                raise InputError(
                    [_problem("fabric", str(network), "a free address for the switch", "widen the subnet")]
                )
            if address not in self.taken:
                self.taken.add(address)
                return address
            number += 1

    # --- wires

    def _link(self, a: str, b: str, rate_bps: int, delay_ps: int, queue: LinkQueue | None) -> int:
        self.links.append(Link(a, b, rate_bps, delay_ps, queue or LinkQueue()))
        return len(self.links) - 1

    def _segment(self, name: str, bridge: str | None, attachments: list[Attachment]) -> list[Attachment]:
        self.segments[name] = (bridge, attachments)
        return attachments

    def wire_nodes(self, plans: Sequence[_SwitchPlan]) -> None:
        settings = self.settings
        for plan in plans:
            bridged: dict[IPNetwork, list[Attachment]] = {}
            for i, network in enumerate(plan.networks):
                own = tuple(a for a in plan.addresses if ipaddress.ip_address(a) in network)[:1]
                plan.bridges[network] = f"br{i}"
                switch_end = Attachment(plan.name, f"br{i}", own, network, None)
                bridged[network] = self._segment(f"{plan.name}:br{i}", plan.name, [switch_end])
            for node, port in zip(plan.nodes, interface_names(node.name for node in plan.nodes), strict=True):
                link = self._link(
                    node.name, plan.name, settings.link_rate_bps, settings.link_delay_ps, settings.link_queue
                )
                if plan.mode is FabricMode.BRIDGED:
                    for network in bridged:
                        own = tuple(a for a in node.addresses if self._node_network(a) == network)
                        if own:
                            bridged[network].append(Attachment(node.name, "eth0", own, network, link))
                    continue
                families = {family_of(address) for address in node.addresses}
                gateways = tuple(_first_of_each_family(plan.addresses, families))
                self._segment(
                    f"{plan.name}:{port}",
                    None,
                    [
                        Attachment(node.name, "eth0", node.addresses, None, link),
                        Attachment(plan.name, port, gateways, None, link),
                    ],
                )

    def wire_spines(self, leaves: Sequence[_SwitchPlan]) -> None:
        settings = self.settings
        pairs = [(leaf, spine) for leaf in leaves for spine in self.spines]
        families = sorted({family_of(address) for leaf in leaves for address in leaf.addresses})
        for i, (leaf, spine) in enumerate(pairs):
            link = self._link(
                leaf.name, spine.name, settings.spine_link_rate_bps, settings.spine_link_delay_ps,
                settings.spine_link_queue,
            )  # fmt: skip
            (leaf_port,), (spine_port,) = interface_names([spine.name]), interface_names([leaf.name])
            ends: list[Attachment] = []
            for family in families:
                length = 31 if family == 4 else 127
                low, high = _SPINE_LINKS[family][2 * i], _SPINE_LINKS[family][2 * i + 1]
                network = ipaddress.ip_network(f"{low}/{length}")
                ends.append(Attachment(leaf.name, leaf_port, (str(low),), network, link))
                ends.append(Attachment(spine.name, spine_port, (str(high),), network, link))
                leaf.addresses.append(str(low))
                spine.addresses.append(str(high))
            self._segment(f"{leaf.name}:{leaf_port}", None, ends)

    def wire_clients(self, plan: _SwitchPlan, clients: Sequence[str]) -> None:
        groups: dict[tuple[bool, IPNetwork | None], list[str]] = {}
        for client in clients:
            address = ipaddress.ip_address(client)
            bridged = next((held for held in plan.networks if address in held), None)
            if bridged is not None:
                groups.setdefault((True, bridged), []).append(client)
                continue
            network = _network_around(client, self.client_networks)
            # inside a subnet of nodes, or where the switch finds no free address, host routes take the subnet's place
            shared = any(ipaddress.ip_address(a) in network for a in self.taken - set(clients))
            groups.setdefault((False, None if shared or network.num_addresses < 4 else network), []).append(client)
        settings = self.settings
        for i, ((is_bridged, subnet), members) in enumerate(groups.items()):
            site = "clients" if i == 0 else f"clients-{i + 1}"
            link = self._link(
                site, plan.name, settings.client_link_rate_bps, settings.client_link_delay_ps,
                settings.client_link_queue,
            )  # fmt: skip
            end = Attachment(site, "eth0", tuple(members), subnet, link)
            self.sites.append(Device(site, DeviceKind.CLIENTS, tuple(members)))
            if is_bridged and subnet is not None:
                name = f"{plan.name}:{plan.bridges[subnet]}"
                self.segments[name][1].append(end)
                continue
            if subnet is not None:
                gateways: tuple[str, ...] = (self._first_free(subnet),)
                plan.addresses.extend(gateways)
            else:
                gateways = tuple(self._client_peers(plan, {family_of(member) for member in members}))
            self._segment(
                f"{plan.name}:p-{site}", None, [end, Attachment(plan.name, f"p-{site}", gateways, subnet, link)]
            )

    def _client_peers(self, plan: _SwitchPlan, families: set[int]) -> Iterator[str]:
        """The switch's address of each family as the clients' peer; a family that it lacks gets one."""
        for family in sorted(families):
            if not any(family_of(address) == family for address in plan.addresses):
                plan.addresses.append(str(_SPINE_ADDRESSES[family][0x2000]))
            yield next(address for address in plan.addresses if family_of(address) == family)

    def wire_pods(self, pods: Sequence[ClusterPod]) -> None:
        settings = self.settings
        for pod in pods:
            if pod.host_network:
                continue
            link = self._link(pod.node, pod.key, settings.veth_rate_bps, settings.veth_delay_ps, settings.veth_queue)
            self.pods.append(PodAttachment(pod.key, pod.node, veth_name(pod.namespace, pod.name), pod.addresses, link))

    # --- the result

    def fabric(self, plans: Sequence[_SwitchPlan], nodes: Sequence[ClusterNode]) -> Fabric:
        settings = self.settings
        devices = [
            Device(
                node.name,
                DeviceKind.NODE,
                (*node.addresses, *node.tunnel_addresses),
                node.as_number,
                rp_filter=node.rp_filter,
                tunnels=self.tunnels.get(node.name, ()),
            )
            for node in nodes
        ]
        for plan in (*plans, *self.spines):
            devices.append(Device(plan.name, DeviceKind.SWITCH, tuple(plan.addresses), plan.as_number, plan.role))
        devices.extend(self.sites)
        segments = tuple(Segment(name, bridge, tuple(ends)) for name, (bridge, ends) in self.segments.items())
        return Fabric(
            tuple(devices),
            tuple(self.links),
            segments,
            tuple(self.pods),
            Ecmp(settings.ecmp_hash, settings.ecmp_choice, settings.ecmp_has_shared_seed, settings.ecmp_buckets),
            settings.node_ecmp,
            settings.mtu,
            settings.mtu - max((tunnel.extra_bytes for each in self.tunnels.values() for tunnel in each), default=0),
        )


def _first_of_each_family(addresses: Iterable[str], families: set[int]) -> Iterator[str]:
    for address in addresses:
        if family_of(address) in families:
            families = families - {family_of(address)}
            yield address


def _network_around(address: str, networks: Sequence[IPNetwork]) -> IPNetwork:
    """The given network that holds the address, else the /24 or /64 around it."""
    parsed = ipaddress.ip_address(address)
    for network in networks:
        if parsed in network:
            return network
    return ipaddress.ip_network(f"{address}/{24 if parsed.version == 4 else 64}", strict=False)


def _problem(field_name: str, found: str, expected: str, fix: str) -> Problem:
    return Problem(Position("cluster"), field_name, found, expected, fix)
