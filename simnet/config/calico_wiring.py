"""Which wiring mesh, peers and filters make of a cluster.

Peers that every node has with one address that is no node's, at one switch, make a wiring in short (S1 to S5) whose
tables follow from roles; everything else is wiring `peers`: sessions one by one, as Calico's nodes are told of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from simnet.errors import Position, Problem
from simnet.model.calico import (
    BGPConfiguration,
    BGPFilter,
    BGPPeer,
    CalicoNode,
    CalicoSettings,
    Wiring,
)
from simnet.model.kubernetes import Objects


@dataclass(slots=True)
class Wired:
    """The wiring, and what else the resources settle; `wiring` None: they do not say."""

    wiring: Wiring | None = None
    calico: dict[str, object] = field(default_factory=dict)  # fields of CalicoSettings
    num_allowed_local_as_numbers: int = 0
    switch_as_number: int | None = None
    switch_addresses: tuple[str, ...] = ()
    warnings: list[Problem] = field(default_factory=list)


def wired(
    objects: Objects,
    nodes: tuple[CalicoNode, ...],
    calico: CalicoSettings,
    configuration: BGPConfiguration | None,
) -> Wired:
    """Return what BGPConfiguration, BGPPeers, BGPFilters and reflectors among nodes make; `calico` has the AS."""
    values = [each.value for each in objects.calico]
    peers = tuple(value for value in values if isinstance(value, BGPPeer))
    filters = {value.name: value for value in values if isinstance(value, BGPFilter)}
    has_mesh = True if configuration is None else configuration.node_to_node_mesh_enabled
    found = Wired(
        calico={
            "peers": peers,
            "filters": tuple(filters.values()),
            "has_mesh": has_mesh,
            "mesh_restart_ps": None if configuration is None else configuration.mesh_restart_ps,
        }
    )
    positions = {(each.kind, each.name): each.position for each in objects.calico}
    for peer in peers:
        where = positions.get(("BGPPeer", peer.name)) or Position("")
        for name in peer.filters:
            if name not in filters:
                found.warnings.append(
                    Problem(where, f"BGPPeer {peer.name}: spec.filters", name, "the name of a BGPFilter", "add it")
                )
        if not peer.peer_ip and not peer.peer_selector:
            expected, fix = "peerIP or peerSelector", "say whom to peer with"
            found.warnings.append(Problem(where, f"BGPPeer {peer.name}", "neither", expected, fix))
    reflects = any(node.route_reflector_cluster_id for node in nodes)
    if not peers and not reflects:
        if configuration is not None and configuration.is_mesh_told:
            found.wiring = Wiring.MESH if has_mesh else Wiring.PEERS
        if not has_mesh:
            where = positions.get(("BGPConfiguration", "default")) or Position("")
            seen, expected = "false, and no BGPPeer", "nodes that peer with someone"
            fix = "add BGPPeers; as it is no node learns another's blocks"
            found.warnings.append(Problem(where, "nodeToNodeMeshEnabled", seen, expected, fix))
        return found
    own = {address for node in nodes for address in node.addresses}
    own |= {address for node in objects.nodes for _, address in node.addresses}
    if reflects or not all(_is_of_all_with_a_switch(peer, own) for peer in peers) or not _is_one_switch(peers):
        found.wiring = Wiring.PEERS
        return found
    numbers = [node.as_number or calico.as_number for node in nodes]
    found.wiring = _short_form(peers, filters, numbers or [calico.as_number], has_mesh=has_mesh)
    found.num_allowed_local_as_numbers = peers[0].num_allowed_local_as_numbers
    found.switch_as_number = peers[0].as_number
    one_each = {":" in peer.peer_ip: peer.peer_ip for peer in reversed(peers)}
    found.switch_addresses = tuple(one_each[family] for family in sorted(one_each))
    return found


def _is_of_all_with_a_switch(peer: BGPPeer, own: set[str]) -> bool:
    plain = peer.restart_ps is None and peer.keepalive_ps is None
    return peer.is_global and plain and bool(peer.peer_ip) and peer.peer_ip not in own


def _is_one_switch(peers: tuple[BGPPeer, ...]) -> bool:
    families = [":" in peer.peer_ip for peer in peers]
    one_each = len(set(families)) == len(families)
    return one_each and len({(peer.as_number, peer.num_allowed_local_as_numbers) for peer in peers}) == 1


def _short_form(
    peers: tuple[BGPPeer, ...], filters: dict[str, BGPFilter], numbers: list[int], *, has_mesh: bool
) -> Wiring:
    is_internal = [peers[0].as_number == number for number in numbers]
    is_filtered = any(peer.filters for peer in peers)
    keeps = any(_keeps_next_hop(peer) for peer in peers)
    if all(is_internal) and not has_mesh and not is_filtered and all(p.next_hop_mode == "Auto" for p in peers):
        return Wiring.S4
    if any(is_internal):
        return Wiring.PEERS
    if has_mesh:
        if all(_keeps_learned_back(peer, filters) for peer in peers):
            return Wiring.S2
        return Wiring.PEERS if is_filtered or keeps else Wiring.S3
    if is_filtered or keeps:
        return Wiring.PEERS
    return Wiring.S5 if len(numbers) > 1 and len(set(numbers)) == len(numbers) else Wiring.S1


def _keeps_next_hop(peer: BGPPeer) -> bool:
    """Toward a switch of another AS."""
    return peer.next_hop_mode == "Keep" or (peer.next_hop_mode == "Auto" and peer.keep_original_next_hop)


def _keeps_learned_back(peer: BGPPeer, filters: dict[str, BGPFilter]) -> bool:
    """Whether what a node has from the mesh does not reach the switch, or reaches it with its owner as next hop."""
    if not peer.filters:
        return _keeps_next_hop(peer)
    family = 6 if ":" in peer.peer_ip else 4
    return len(peer.filters) == 1 and all(
        name in filters and filters[name].withholds_learned_only(family) for name in peer.filters
    )
