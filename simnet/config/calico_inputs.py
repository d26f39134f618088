"""What Calico's resources say, where the simulation looks for it: pools, AS numbers, blocks, nodes, the wiring.

A field that the short form (`calico:`, `fabric:`) writes out counts before the resources, so that an experiment can
ask what if. Of BGPPeers only those are used that every node has with one address that is no node's: simnet's switch.
With the mesh on or off and the AS numbers they make one of the wirings S1 to S5; anything else is a warning.
Source: docs/models/routing.md; Calico's defaults as in `model.calico`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from simnet.config.calico_resources import NOT_MODELLED, node_of_annotations
from simnet.config.cluster_settings import encapsulations_of
from simnet.errors import Position, Problem
from simnet.model.calico import (
    BGPConfiguration,
    BGPFilter,
    BGPPeer,
    BlockAffinity,
    CalicoNode,
    CalicoSettings,
    FabricSettings,
    IPAMBlock,
    IPPool,
    Wiring,
)
from simnet.model.cluster import Block
from simnet.model.kubernetes import Objects
from simnet.model.scenario import ClusterSpec

Value = TypeVar("Value")


def pools_of(objects: Objects) -> tuple[str, ...]:
    """Return the CIDRs that pods take addresses from, as IPPools name them; none without such an object."""
    return tuple(dict.fromkeys(pool.cidr for pool in _all(objects, IPPool) if pool.is_for_pods))


def with_calico_resources(spec: ClusterSpec, explicit: Collection[str] = ()) -> ClusterSpec:
    """Return the spec with what its Calico resources say; `explicit` names the settings that count before them."""
    objects = spec.objects
    nodes = calico_nodes(objects)
    if not objects.calico and not nodes:
        return spec
    inputs = _Inputs(spec.calico, spec.fabric, frozenset(explicit))
    inputs.take_pools(_all(objects, IPPool))
    configuration = next((each for each in _all(objects, BGPConfiguration) if each.name == "default"), None)
    if configuration is not None:
        inputs.take_configuration(configuration)
    inputs.take_nodes(nodes)
    positions = {(each.kind, each.name): each.position for each in objects.calico}
    inputs.take_peers(
        _all(objects, BGPPeer), {each.name: each for each in _all(objects, BGPFilter)},
        True if configuration is None else configuration.node_to_node_mesh_enabled, nodes, positions, objects,
    )  # fmt: skip
    blocks, used = blocks_of(objects)
    return replace(
        spec,
        objects=replace(objects, warnings=(*objects.warnings, *inputs.warnings)),
        calico=inputs.calico,
        fabric=inputs.fabric,
        blocks=blocks,
        used_addresses=used,
        calico_nodes=nodes,
    )


def calico_nodes(objects: Objects) -> tuple[CalicoNode, ...]:
    """Return what is known of nodes: Calico's own Node objects, and annotations of v1 Nodes where there is none."""
    found = {node.name: node for node in _all(objects, CalicoNode)}
    for node in objects.nodes:
        noted = node_of_annotations(node.name, node.annotations)
        if noted is not None:
            found.setdefault(node.name, noted)
    return tuple(found.values())


def blocks_of(objects: Objects) -> tuple[tuple[Block, ...], tuple[tuple[str, str], ...]]:
    """Return the blocks that nodes hold, and the addresses in use as (address, node of its pod or empty)."""
    held: dict[str, str] = {}
    for affinity in _all(objects, BlockAffinity):
        if affinity.is_of_host and affinity.state == "confirmed" and not affinity.deleted:
            held.setdefault(affinity.cidr, affinity.node)
    not_confirmed = {each.cidr for each in _all(objects, BlockAffinity)} - held.keys()
    used: list[tuple[str, str]] = []
    for block in _all(objects, IPAMBlock):
        if not block.deleted:
            used += block.used
            if block.node and block.cidr not in not_confirmed:  # a pending affinity never reaches BIRD
                held.setdefault(block.cidr, block.node)
    return tuple(Block(cidr, node) for cidr, node in held.items()), tuple(used)


def _all(objects: Objects, kind: type[Value]) -> list[Value]:
    return [each.value for each in objects.calico if isinstance(each.value, kind)]


@dataclass(slots=True)
class _Inputs:
    """The settings as far as they are known."""

    calico: CalicoSettings
    fabric: FabricSettings
    explicit: frozenset[str]
    warnings: list[Problem] = field(default_factory=list)

    def _set(self, **fields: object) -> None:
        told = {name: value for name, value in fields.items() if name not in self.explicit}
        self.calico = replace(self.calico, **told)  # type: ignore[arg-type]

    def _set_fabric(self, **fields: object) -> None:
        told = {name: value for name, value in fields.items() if name not in self.explicit}
        self.fabric = replace(self.fabric, **told)  # type: ignore[arg-type]

    def _warn(self, where: Position | None, what: str, found: str, expected: str, fix: str = NOT_MODELLED) -> None:
        self.warnings.append(Problem(where or Position(""), what, found, expected, fix))

    def take_pools(self, pools: list[IPPool]) -> None:
        usable = [pool for pool in pools if pool.is_for_pods]
        if not usable or "ip_pools" in self.explicit:
            return
        translated = tuple(pool.cidr for pool in usable if pool.nat_outgoing)
        first = {":" in pool.cidr: pool.block_size for pool in reversed(usable)}
        self._set(
            ip_pools=tuple(pool.cidr for pool in usable),
            block_size=first.get(False, self.calico.block_size),
            block_size_ipv6=first.get(True, self.calico.block_size_ipv6),
            unexported_pools=tuple(pool.cidr for pool in usable if pool.disable_bgp_export),
        )
        if "block_size" not in self.explicit:
            self._set(pool_block_sizes=tuple((pool.cidr, pool.block_size) for pool in usable))
        if not {"ipip_mode", "vxlan_mode"} & self.explicit:
            modes = [(pool.cidr, pool.ipip_mode, pool.vxlan_mode) for pool in usable]
            wrapped = [
                each for cidr, ipip, vxlan in modes for each in encapsulations_of([cidr], ipip.value, vxlan.value)
            ]
            self._set(encapsulations=tuple(wrapped))
        if "nat_outgoing" not in self.explicit:
            self._set(
                nat_outgoing=bool(translated),
                nat_outgoing_pools=translated if len(translated) < len(usable) else None,
            )

    def take_configuration(self, told: BGPConfiguration) -> None:
        if told.as_number is not None:
            self._set(as_number=told.as_number)
        self._set(
            service_cluster_ips=told.service_cluster_ips,
            service_external_ips=told.service_external_ips,
            service_load_balancer_ips=told.service_load_balancer_ips,
            service_load_balancer_aggregation=told.service_load_balancer_aggregation,
        )

    def take_nodes(self, nodes: Iterable[CalicoNode]) -> None:
        networks = dict.fromkeys(network for node in nodes for network in node.networks)
        wide = [network for network in networks if not network.endswith(("/32", "/128"))]
        if wide and not self.fabric.node_networks:
            self._set_fabric(node_networks=tuple(wide))

    def take_peers(
        self,
        peers: list[BGPPeer],
        filters: dict[str, BGPFilter],
        has_mesh: bool,
        nodes: tuple[CalicoNode, ...],
        positions: dict[tuple[str, str], Position],
        objects: Objects,
    ) -> None:
        """Find the wiring that the peers make."""
        own = {address for node in nodes for address in node.addresses}
        own |= {address for node in objects.nodes for _, address in node.addresses}
        to_switch = [peer for peer in peers if peer.is_global and peer.peer_ip and peer.peer_ip not in own]
        for peer in peers:
            where = positions.get(("BGPPeer", peer.name))
            if peer not in to_switch:
                expected = "a peer of every node, by the peerIP of a switch"
                self._warn(where, f"BGPPeer {peer.name}", _peers_of(peer), expected)
            for name in peer.filters:
                if name not in filters:
                    self._warn(where, f"BGPPeer {peer.name}: spec.filters", name, "the name of a BGPFilter", "add it")
        if "wiring" in self.explicit:
            return
        if not to_switch:
            if not has_mesh:
                where = positions.get(("BGPConfiguration", "default"))
                found, expected = "false, and no BGPPeer of every node with a switch", "nodes that peer with someone"
                self._warn(
                    where, "nodeToNodeMeshEnabled", found, expected,
                    f"wiring {self.calico.wiring.value} is simulated; say which is meant under calico.wiring",
                )  # fmt: skip
            return
        first = to_switch[0]
        where = positions.get(("BGPPeer", first.name))
        number = first.as_number or 0
        for peer in to_switch[1:]:
            if (":" in peer.peer_ip) == (":" in first.peer_ip) or peer.as_number != number:
                found = f"{peer.peer_ip} AS {peer.as_number} beside {first.peer_ip} AS {number}"
                self._warn(positions.get(("BGPPeer", peer.name)), f"BGPPeer {peer.name}", found, "one switch of a node")
        of_nodes = [node.as_number or self.calico.as_number for node in nodes]
        is_internal = number == self.calico.as_number
        if is_internal and has_mesh:
            self._warn(where, f"BGPPeer {first.name}", "the node mesh beside iBGP to a switch", "one of the two")
        if is_internal:
            wiring = Wiring.S4
        elif has_mesh:
            wiring = Wiring.S2 if all(_keeps_learned_back(peer, filters) for peer in to_switch) else Wiring.S3
        else:
            wiring = Wiring.S5 if len(of_nodes) > 1 and len(set(of_nodes)) == len(of_nodes) else Wiring.S1
        self._set(wiring=wiring, num_allowed_local_as_numbers=max(p.num_allowed_local_as_numbers for p in to_switch))
        if not self.fabric.leaves:
            self._set_fabric(switch_as_number=number)
            if not self.fabric.router_addresses:
                one_each = {":" in peer.peer_ip: peer.peer_ip for peer in reversed(to_switch)}
                self._set_fabric(router_addresses=tuple(one_each[family] for family in sorted(one_each)))


def _keeps_learned_back(peer: BGPPeer, filters: dict[str, BGPFilter]) -> bool:
    """Whether what a node has from the mesh does not reach the switch, or reaches it with its owner as next hop."""
    named = [filters[name] for name in peer.filters if name in filters]
    keeps_next_hop = peer.next_hop_mode == "Keep" or peer.keep_original_next_hop
    return keeps_next_hop or any(each.withholds_learned_only for each in named)


def _peers_of(peer: BGPPeer) -> str:
    whose = f"node {peer.node}" if peer.node else f"nodes {peer.node_selector}" if peer.node_selector else "every node"
    with_whom = f"nodes {peer.peer_selector}" if peer.peer_selector else peer.peer_ip or "nobody"
    return f"{whose} with {with_whom}"
