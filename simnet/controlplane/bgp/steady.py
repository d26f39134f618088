"""Every box's forwarding table once BGP has converged.

Wirings S1 to S5, mesh and reflectors of one AS are computed by role - what a node learns of a block depends on whose it
is and who peers with whom, not on which of a thousand nodes asks - and Route objects are shared between boxes; tests
hold them to what speakers arrive at by exchanging paths. Where BGPPeers say who peers with whom, speakers are asked.

Modelled: one switch and leaf-spine; own blocks as blackholes, borrowed addresses, service prefixes, next hops resolved
over the connected segment or the gateway, tunnels. Left out: subnets of spine links in other switches' tables.
Source: projectcalico/calico, confd templates bird.cfg, bird_aggr.cfg, bird_ipam.cfg; RFC 4271, 4456;
docs/models/routing.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from simnet.controlplane.bgp.network import bgp_network
from simnet.controlplane.bgp.origins import Origin, originated_by, origins_of, speaker_as_numbers
from simnet.controlplane.bgp.path import Path
from simnet.controlplane.bgp.prefixes import prefix_of
from simnet.controlplane.bgp.role_routes import LearnedRoutes, in_print_order
from simnet.controlplane.bgp.sessions import MESHED
from simnet.controlplane.bgp.settled import settled
from simnet.controlplane.bgp.topology import Topology
from simnet.controlplane.calico.advertisement import service_advertisements
from simnet.controlplane.calico.encapsulation import Wrapping
from simnet.model.calico import AdvertisedService, CalicoSettings, Encapsulation, FabricSettings, Wiring
from simnet.model.cluster import Block, ClusterNode, ClusterPod
from simnet.model.fabric import TUNNEL_INTERFACES, DeviceKind, Fabric
from simnet.model.fib import Fib, NextHop, Route, RouteKind, Way
from simnet.model.iptables.ruleset import IPNetwork

_METRIC_IBGP = 1024  # 2147483647 - LOCAL_PREF, and LOCAL_PREF is 2147483647 - 1024 (buildExportFilter)
_METRIC_EBGP = 2147483547  # LOCAL_PREF 100 where the path brings none
_METRIC_POD = 1024
_FELIX = "80"  # routing protocol number, as `ip route` prints it


def steady_fibs(
    fabric: Fabric,
    nodes: Sequence[ClusterNode],
    pods: Sequence[ClusterPod],
    blocks: Sequence[Block],
    services: Sequence[AdvertisedService],
    calico: CalicoSettings,
    fabric_settings: FabricSettings,
) -> Mapping[str, Fib]:
    """Return the FIB of every device of the fabric, by its name.

    Parameters
    ----------
    blocks : the confirmed affinities; a borrowed address is told by the node that holds the pod
    services : what may be advertised, see `service_advertisements`

    Returns
    -------
    Mapping[str, Fib]
        Routes in the order in which `ip route` prints them. A client site has its subnet and a default route only.
    """
    plan = RoutePlan(fabric, nodes, pods, blocks, services, calico, fabric_settings)
    fibs: dict[str, Fib] = {}
    for device in fabric.devices:
        if device.kind is DeviceKind.NODE:
            routes = plan.node_table(device.name)
        elif device.kind is DeviceKind.SWITCH:
            routes = in_print_order(plan.switch_routes(device.name))
        else:
            routes = in_print_order(plan.client_routes(device.name))
        fibs[device.name] = Fib(device.name, tuple(routes))
    return fibs


@dataclass(frozen=True, slots=True)
class Treatment:
    """What a device does with routes to some prefixes."""

    is_kept_out: bool = False  # of the kernel, by BIRD's filter
    encapsulation: Encapsulation | None = None


_PLAIN = Treatment()


class RoutePlan:
    """What all boxes have in common, computed once."""

    def __init__(
        self,
        fabric: Fabric,
        nodes: Sequence[ClusterNode],
        pods: Sequence[ClusterPod],
        blocks: Sequence[Block],
        services: Sequence[AdvertisedService],
        calico: CalicoSettings,
        settings: FabricSettings,
    ) -> None:
        self.calico, self.settings = calico, settings
        self.topology = Topology(fabric)
        self.nodes = {node.name: node for node in nodes}
        self.as_number = speaker_as_numbers(nodes, fabric, calico.wiring)
        self.told = service_advertisements(services, nodes, calico)
        self.service_prefixes = {each.prefix for each in self.told}
        self.origins = origins_of(nodes, blocks, self.told, calico)
        self.pods_on: dict[str, list[Route]] = {}
        metric = _METRIC_POD if calico.has_route_metrics else None
        for pod in fabric.pods:
            hops = (NextHop(pod.interface),)
            for address in pod.addresses:
                self.pods_on.setdefault(pod.node, []).append(
                    Route(
                        prefix_of(address),
                        RouteKind.DIRECT,
                        hops,
                        "boot",
                        metric,
                        scope_link=True,
                        why=f"pod {pod.pod}: its veth (CNI, then Felix)",
                    )
                )
        self.blocks_of: dict[str, list[IPNetwork]] = {}
        for block in blocks:
            self.blocks_of.setdefault(block.node, []).append(prefix_of(block.cidr))
        self.is_by_role = self._is_by_role(fabric)
        self._fabric, self._blocks = fabric, tuple(blocks)
        reflectors = [node.name for node in nodes if node.route_reflector_cluster_id]
        self._mesh = f"reflectors {', '.join(reflectors)}" if reflectors else "the node mesh"
        self._chosen: dict[str, dict[IPNetwork, tuple[Path, ...]]] | None = None
        self._learned: dict[tuple[object, ...], Route] = {}
        self._blackholes: dict[IPNetwork, Route] = {}
        self._remote: dict[tuple[object, ...], LearnedRoutes] = {}  # by AS and role
        self.wrapping = Wrapping.of(calico, settings)
        self._treatments: dict[IPNetwork, Treatment] = {}
        self._alike: dict[Treatment, Treatment] = {}
        self._ways: dict[tuple[str, int, int], tuple[Treatment, tuple[Path, ...], Way]] = {}  # by id; both kept alive
        self._tellers_of: dict[tuple[tuple[str, ...], str], tuple[tuple[str, ...], ...]] = {}

    def _is_by_role(self, fabric: Fabric) -> bool:
        """Whether tables follow from roles: a wiring in short, every switch of its own AS, reflectors of one AS."""
        switches = [device.as_number for device in fabric.devices if device.kind is DeviceKind.SWITCH]
        if self.calico.wiring is Wiring.PEERS or len(set(switches)) < len(switches):
            return False
        if not any(node.route_reflector_cluster_id for node in self.nodes.values()):
            return True
        families = {frozenset(":" in address for address in node.addresses) for node in self.nodes.values()}
        lends = any(
            self.nodes[origin.block_of].route_reflector_cluster_id
            for origin in self.origins
            if origin.block_of in self.nodes
        )
        is_plain = len(families) == 1 and len(set(self.as_number.values())) == 1 and not lends
        return self.calico.wiring in MESHED and is_plain

    def _by_speakers(self, device: str) -> Iterator[tuple[str, Route]]:
        """(owner, route) of what a device's speakers choose."""
        if self._chosen is None:
            nodes = tuple(self.nodes.values())
            self._chosen = {}
            for family in (4, 6):
                network = bgp_network(self._fabric, nodes, self.calico, self.settings, family, self._blocks)
                told = originated_by(self.origins, self.topology, family)
                for name, loc_rib in settled(network, told).items():
                    self._chosen.setdefault(name, {}).update(loc_rib)
        for prefix, paths in self._chosen.get(device, {}).items():
            for treatment, _ in self.treatments(device, [prefix]):
                way = self.way_of_paths(device, treatment, paths)
                if way is not None:
                    yield paths[0].peer, way.to(prefix)

    # --- nodes

    def node_table(self, name: str) -> list[Route]:
        """Return a node's routes in print order."""
        routes = self.topology.local_routes(name) + self.topology.connected_routes(name)
        routes += self.topology.default_routes(name)
        own = {route.prefix for route in self.pods_on.get(name, ())}
        routes += self.pods_on.get(name, ())
        blackholes = []
        for cidr in self.blocks_of.get(name, ()):
            if cidr.prefixlen < cidr.max_prefixlen:  # a /32 block's blackhole would collide with the pod's route
                felix = self._is_felix(cidr)
                why = f"own block of {name}: addresses without a pod are discarded"
                blackholes.append(self._blackhole(cidr, why, _FELIX if felix else "bird"))
        for told in self.told:
            if told.in_kernel and name in told.nodes:
                blackholes.append(self.advertised_blackhole(told.prefix))
        routes += blackholes
        own.update(route.prefix for route in blackholes)
        return self._remote_routes(name).beside(in_print_order(routes), name, own)

    def advertised_blackhole(self, prefix: IPNetwork) -> Route:
        """Return the route behind a service address that a node tells of as it is listed."""
        return self._blackhole(prefix, "advertised single address: not in the kernel reject list")

    def _blackhole(self, prefix: IPNetwork, why: str, protocol: str = "bird") -> Route:
        if prefix not in self._blackholes:
            self._blackholes[prefix] = Route(prefix, RouteKind.BLACKHOLE, (), protocol, why=why)
        return self._blackholes[prefix]

    def _is_felix(self, prefix: IPNetwork) -> bool:
        """Whether Felix writes the routes of a prefix: of VXLAN pools. BIRD keeps those out of the kernel."""
        each = self.wrapping.kind(prefix)
        return each is not None and each.kind == "vxlan"

    def _remote_routes(self, name: str) -> LearnedRoutes:
        """Every block and borrowed address, as a node on this leaf and of this AS learns it."""
        if not self.is_by_role:
            felix = [
                (each.nodes[0], self._felix_route(name, each)) for each in self.origins if self._is_felix(each.prefix)
            ]
            told = [*self._by_speakers(name), *((owner, route) for owner, route in felix if route is not None)]
            return LearnedRoutes(told)
        key: tuple[object, ...] = (self.as_number[name], *self.topology.role_of(name))
        if self.wrapping.encapsulations:
            key = (name,)  # whether a packet is wrapped depends on the node's own subnet
        if key not in self._remote:
            learned = []
            for origin in self.origins:
                if not origin.is_service:  # service prefixes are kept out of a node's kernel
                    route = self._learn(name, origin)
                    if route is not None:
                        learned.append((origin.nodes[0], route))
            self._remote[key] = LearnedRoutes(learned)
        return self._remote[key]

    def _learn(self, name: str, origin: Origin) -> Route | None:
        """The route by which a node reaches another node's prefix; None if BGP gives it none."""
        wiring, calico = self.calico.wiring, self.calico
        owner, family = origin.nodes[0], origin.prefix.version
        topology = self.topology
        if self._is_felix(origin.prefix):
            return self._felix_route(name, origin)
        same_as = self.as_number[owner] == self.as_number[name]
        if wiring in (Wiring.S1, Wiring.S5):
            if same_as and calico.num_allowed_local_as_numbers < 1:
                return None  # own AS in AS_PATH (RFC 4271, 9.1.2)
            hop = topology.on_link(name, owner, family) if self.settings.third_party_next_hop else None
            hop = hop or topology.gateway(name, family)
            internal = False
            why = f"{origin.why}; eBGP from {topology.switch_of(name)}"
        else:
            hop = topology.on_link(name, owner, family) or topology.gateway(name, family)
            internal = same_as
            reflected = f"reflected by {topology.switch_of(name)}"
            via = reflected if wiring is Wiring.S4 else f"from {self._mesh}, next hop {owner}"
            why = f"{origin.why}; {via}"
        if hop is None:
            return None  # the next hop cannot be resolved
        encapsulation = self.wrapping.kind(origin.prefix)
        if encapsulation is not None:  # IPIP: BIRD writes the BGP next hop, resolved or not, as the tunnel's far end
            is_kept = wiring not in (Wiring.S1, Wiring.S5)
            next_hop = topology.address_of(owner, family) if is_kept else hop.gateway
            here, there = topology.switch_of(name), topology.switch_of(owner)
            if wiring is Wiring.S4 and here != there:  # a reflector leaves what a switch told it: that switch's address
                next_hop = next((hop.gateway for hop in topology.toward(here, (there,), family)), None)
            own = topology.address_of(name, family)
            if own and next_hop and self.wrapping.applies(encapsulation, own, next_hop):
                hop = NextHop(TUNNEL_INTERFACES[encapsulation.kind], next_hop)
                why = f"{why}; ipipMode {encapsulation.mode.value}"
        metric = (_METRIC_IBGP if internal else _METRIC_EBGP) if calico.has_route_metrics else None
        return self._share(origin.prefix, (hop,), metric, why)

    def _felix_route(self, name: str, origin: Origin) -> Route | None:
        """The route to a block of a VXLAN pool: from the datastore, whoever peers with whom."""
        topology, owner = self.topology, origin.nodes[0]
        encapsulation = self.wrapping.kind(origin.prefix)
        own, other, far_end = (
            topology.address_of(name, 4),
            topology.address_of(owner, 4),
            topology.tunnel(owner, "vxlan"),
        )
        if encapsulation is None or own is None or other is None:
            return None
        why = f"{origin.why}; Felix, vxlanMode {encapsulation.mode.value}"
        if far_end is not None and self.wrapping.applies(encapsulation, own, other):
            hop: NextHop | None = NextHop(TUNNEL_INTERFACES["vxlan"], far_end.address)
        else:
            hop = topology.on_link(name, owner, 4) or topology.gateway(name, 4)
        return None if hop is None else self._share(origin.prefix, (hop,), None, why, _FELIX)

    def _share(
        self, prefix: IPNetwork, hops: tuple[NextHop, ...], metric: int | None, why: str, protocol: str = "bird"
    ) -> Route:
        key = (prefix, hops, metric, why)
        if key not in self._learned:
            self._learned[key] = Route(prefix, RouteKind.VIA, hops, protocol, metric, why=why)
        return self._learned[key]

    # --- what a speaker's choice makes of a prefix

    def add_service_prefix(self, prefix: IPNetwork) -> None:
        """Let a prefix be a service's: nodes keep it out of their kernel."""
        self.service_prefixes.add(prefix)
        self._treatments.pop(prefix, None)

    def treatments(self, device: str, prefixes: Sequence[IPNetwork]) -> Iterable[tuple[Treatment, Sequence[IPNetwork]]]:
        """Return what a device does with routes to some prefixes, whatever their paths are."""
        if device not in self.nodes or not (self.service_prefixes or self.wrapping.encapsulations):
            return [(_PLAIN, prefixes)]
        found: dict[Treatment, list[IPNetwork]] = {}
        for prefix in prefixes:
            if prefix not in self._treatments:
                is_kept_out = prefix in self.service_prefixes or self._is_felix(prefix)
                treatment = Treatment(is_kept_out, self.wrapping.kind(prefix))
                self._treatments[prefix] = self._alike.setdefault(treatment, treatment)
            found.setdefault(self._treatments[prefix], []).append(prefix)
        return found.items()

    def way_of_paths(self, device: str, treatment: Treatment, chosen: tuple[Path, ...]) -> Way | None:
        """Return where BIRD's route over the best path and those merged with it leads; None if it writes none.

        The steady tables by role say the same of converged paths; a test holds the two together.
        """
        if not chosen or not chosen[0].peer or treatment.is_kept_out:
            return None  # its own; kept out of the kernel; Felix's
        key = device, id(treatment), id(chosen)
        known = self._ways.get(key)
        if known is None:
            hops = dict.fromkeys(self._hop_of_path(device, treatment.encapsulation, path) for path in chosen)
            metric = None
            if device in self.nodes and self.calico.has_route_metrics:
                metric = 2147483647 - (100 if chosen[0].local_pref is None else chosen[0].local_pref)
            why = f"told by {', '.join(path.peer for path in chosen)}"
            way = Way(tuple(hop for hop in hops if hop is not None), "bird", metric, why)
            known = self._ways[key] = treatment, chosen, way
        return known[2]

    def _hop_of_path(self, device: str, encapsulation: Encapsulation | None, path: Path) -> NextHop | None:
        if encapsulation is not None:
            own = self.topology.address_of(device, 4)
            if own and self.wrapping.applies(encapsulation, own, path.next_hop):
                return NextHop(TUNNEL_INTERFACES[encapsulation.kind], path.next_hop)
        return self.topology.hop_to(device, path.next_hop)

    # --- switches

    def switch_routes(self, name: str) -> list[Route]:
        topology = self.topology
        routes = topology.local_routes(name) + topology.connected_routes(name)
        connected = {route.prefix for route in routes}
        if not self.is_by_role:
            return routes + [route for _, route in self._by_speakers(name) if route.prefix not in connected]
        groups: dict[tuple[object, ...], tuple[NextHop, ...]] = {}
        for origin in self.origins:
            tellers = self._tellers(origin)
            key = (tellers, origin.prefix.version)
            if key not in groups:
                groups[key] = self._switch_hops(name, tellers, origin.prefix.version)
            if groups[key] and origin.prefix not in connected:
                routes.append(self._share(origin.prefix, groups[key], None, self._switch_why(origin, tellers)))
        for owner, prefix in topology.underlay():
            if owner != name and prefix not in connected:
                width = self.settings.ecmp_width if self.settings.multipath_relax else 1
                hops = topology.toward(name, (owner,), prefix.version)[:width]
                if hops:
                    connected.add(prefix)
                    routes.append(self._share(prefix, hops, None, f"connected at {owner}, eBGP between switches"))
        return routes

    def _switch_why(self, origin: Origin, tellers: tuple[tuple[str, ...], ...]) -> str:
        if sum(len(tier) for tier in tellers) > len(origin.nodes):
            return f"{origin.why}; told again by every node, which has it from the mesh (no export filter)"
        return origin.why

    def _tellers(self, origin: Origin) -> tuple[tuple[str, ...], ...]:
        """The nodes that tell their switch of the prefix, itself as next hop, by length of the AS path: 1, 2."""
        if self.calico.wiring is Wiring.MESH:
            return ()
        if self.calico.wiring is not Wiring.S3:
            return (origin.nodes,)
        key = origin.nodes, origin.block_of
        if key not in self._tellers_of:
            ases = {self.as_number[node] for node in origin.nodes}
            tellers = [name for name in self.nodes if name != origin.block_of]
            same = tuple(name for name in tellers if self.as_number[name] in ases)
            others = tuple(name for name in tellers if self.as_number[name] not in ases)
            self._tellers_of[key] = (same, others)
        return self._tellers_of[key]

    def _switch_hops(self, name: str, tellers: tuple[tuple[str, ...], ...], family: int) -> tuple[NextHop, ...]:
        """Next hops: the tellers on this switch, else the switches toward them; best first, at most the ECMP width."""
        topology = self.topology
        here = topology.nodes_at(name)
        for tier in tellers:  # a path through another leaf is longer than any told by a node of this one
            local = [node for node in tier if node in here and topology.on_link(name, node, family) is not None]
            if local:
                local.sort(key=lambda node: topology.router_id(node, family))  # lowest router id first
                if not self.settings.multipath_relax:
                    local = [node for node in local if self.as_number[node] == self.as_number[local[0]]]
                hops = (topology.on_link(name, node, family) for node in local[: self.settings.ecmp_width])
                return tuple(hop for hop in hops if hop is not None)
        width = self.settings.ecmp_width if self.settings.multipath_relax else 1  # every switch has its own AS
        nearest = next((tier for tier in tellers if tier), ())
        leaves = tuple(dict.fromkeys(topology.switch_of(node) for node in nearest))
        return topology.toward(name, leaves, family)[:width]

    # --- clients and order

    def client_routes(self, name: str) -> list[Route]:
        return self.topology.connected_routes(name) + self.topology.default_routes(name)
