"""Both ends of every session: of a wiring in short, or of BGPPeers, mesh and reflectors as Calico's nodes take them.

Modelled: confd's way from BGPPeers to neighbours (those of all nodes first, then those of some, then the reverse of
what nodes name of each other, none of which replaces an earlier one); the mesh of nodes that are no reflectors; a
reflector's clients; who waits for whom. A switch has a neighbour for every node on it that names it.
Left out: a switch that a node does not hang on, localASNumber, two switches of one node.
What a BGPPeer says of a session between two nodes holds for both of its ends (assumed for the end that is generated).
Source: projectcalico/calico, confd/pkg/backends/calico/client.go updatePeersV1, bgp_processor.go processMeshPeers,
buildPeerFromData; docs/models/routing.md for the wirings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from simnet.controlplane.bgp.path import Peering
from simnet.controlplane.bgp.topology import Topology
from simnet.model.calico import BGPFilter, BGPPeer, CalicoSettings, FabricSettings, Wiring
from simnet.model.cluster import ClusterNode
from simnet.model.selectors import selector

MESHED = (Wiring.S2, Wiring.S3, Wiring.MESH)  # nodes peer with nodes
AT_SWITCH = (Wiring.S1, Wiring.S2, Wiring.S3, Wiring.S4, Wiring.S5)  # nodes peer with their switch


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A neighbour that a node is told to have, and with which it gets no session."""

    peer: str  # the BGPPeer's name
    node: str
    address: str
    why: str


@dataclass(frozen=True, slots=True)
class _Neighbour:
    """What a node is told of one neighbour."""

    address: str
    as_number: int
    peer: BGPPeer
    cluster_id: str  # of a node that reflects
    is_passive: bool = False


class Sessions:
    """The sessions of one family; `numbers` the AS of every node and switch."""

    def __init__(
        self,
        topology: Topology,
        nodes: Sequence[ClusterNode],
        numbers: Mapping[str, int],
        calico: CalicoSettings,
        settings: FabricSettings,
        family: int,
    ) -> None:
        self.topology, self.nodes, self.numbers = topology, nodes, numbers
        self.calico, self.settings, self.family = calico, settings, family
        self.address = {
            node.name: next((a for a in node.addresses if (6 if ":" in a else 4) == family), None) for node in nodes
        }
        self.holder = {address: name for name, address in self.address.items() if address is not None}
        self.cluster_id = {node.name: node.route_reflector_cluster_id for node in nodes}
        self.filters: dict[str, BGPFilter] = {each.name: each for each in calico.filters}
        self.unanswered: list[Unanswered] = []

    def all(self, extra: Sequence[BGPPeer | tuple[str, str]] = ()) -> list[Peering]:
        """Return both ends of every session; `extra` BGPPeers, and pairs that get a plain session, in every wiring."""
        added = tuple(each for each in extra if isinstance(each, BGPPeer))
        if self.calico.wiring is Wiring.PEERS:
            found = self._of_peers((*self.calico.peers, *added))
            if self.calico.has_mesh:
                found += self._mesh({(each.local, each.remote) for each in found})
        else:
            found = self._of_wiring()
            known = {(each.local, each.remote) for each in found}
            found += [each for each in self._of_peers(added) if (each.local, each.remote) not in known]
        known = {(each.local, each.remote) for each in found}
        for pair in extra:
            if not isinstance(pair, BGPPeer):
                found += [each for each in self._between(*pair) if (each.local, each.remote) not in known]
        for here, there, local, remote in self.topology.switch_links(self.family):
            found.append(Peering(here, there, local, remote, self.numbers[there], False, is_single_hop=True))
        return found

    def _between(self, one: str, other: str) -> list[Peering]:
        """Both ends of a session as a BGPPeer that says nothing else would make it; none if it cannot."""
        ends = [name for name in (one, other) if name in self.address]
        if len(ends) == 2:
            address = self.address[other]
            if address is None:
                return []
            peer = BGPPeer("", address, self.numbers[other], node=one)
            return self._of_peers((peer,))
        if len(ends) == 1:
            switch = other if ends[0] == one else one
            gateway = self.topology.gateway(ends[0], self.family)
            if gateway is not None and gateway.gateway and self.topology.switch_of(ends[0]) == switch:
                return self._of_peers((BGPPeer("", gateway.gateway, self.numbers[switch], node=ends[0]),))
        return []

    # --- wirings

    def _of_wiring(self) -> list[Peering]:
        wiring, found = self.calico.wiring, list[Peering]()
        meshed = wiring in MESHED
        reflectors = {name for name, cluster in self.cluster_id.items() if cluster}
        for node in self.nodes:
            own, gateway = self.address[node.name], self.topology.gateway(node.name, self.family)
            if own is None or gateway is None or gateway.gateway is None:
                continue
            if wiring in AT_SWITCH:
                found += self._with_switch(
                    node.name, gateway.gateway, self.topology.switch_of(node.name),
                    exports_learned=wiring is not Wiring.S2, allowed_own_as=self.calico.num_allowed_local_as_numbers,
                )  # fmt: skip
            if meshed and not reflectors:
                found += self._mesh_of(node.name, own)
            elif meshed:
                found += self._with_reflectors(node.name, own, reflectors)
        return found

    def _with_switch(
        self, node: str, address: str, switch: str, *, exports_learned: bool = True, allowed_own_as: int = 0
    ) -> list[Peering]:
        own = self.address[node]
        assert own is not None
        internal = self.numbers[node] == self.numbers[switch]
        is_client = internal and bool(self.cluster_id[node])
        return [
            Peering(
                node, switch, own, address, self.numbers[switch], internal, remote_is_client=is_client,
                exports_learned=exports_learned, allowed_own_as=allowed_own_as,
            ),
            Peering(
                switch, node, address, own, self.numbers[node], internal, remote_is_client=internal,
                keeps_third_party=self.settings.third_party_next_hop, shared=self.topology.addresses_beside(node),
                is_single_hop=True,
            ),
        ]  # fmt: skip

    def _mesh_of(self, node: str, own: str) -> Iterator[Peering]:
        number, restart_ps = self.numbers[node], self.calico.mesh_restart_ps
        for other in self.nodes:
            theirs = self.address[other.name]
            if other.name != node and theirs is not None and not self.cluster_id[other.name]:
                there = self.numbers[other.name]
                passive = own < theirs  # Calico: the smaller as a string waits
                yield Peering(
                    node, other.name, own, theirs, there, there == number, is_passive=passive, restart_ps=restart_ps
                )

    def _mesh(self, known: set[tuple[str, str]]) -> Iterator[Peering]:
        """The mesh of nodes that are no reflectors; a BGPPeer between two of them takes its place."""
        for node in self.nodes:
            own = self.address[node.name]
            if own is not None and not self.cluster_id[node.name]:
                yield from (each for each in self._mesh_of(node.name, own) if (each.local, each.remote) not in known)

    def _with_reflectors(self, node: str, own: str, reflectors: set[str]) -> Iterator[Peering]:
        for other in self.nodes:
            theirs = self.address[other.name]
            if other.name == node or theirs is None or not reflectors & {node, other.name}:
                continue
            there = self.numbers[other.name]
            internal = there == self.numbers[node]
            yield Peering(
                node, other.name, own, theirs, there, internal, is_passive=own < theirs,
                remote_is_client=self._is_client(node, internal, self.cluster_id[other.name]),
            )  # fmt: skip

    def _is_client(self, node: str, is_internal: bool, cluster_id: str) -> bool:
        """Whether a reflector has a peer as client: an internal one without its cluster id."""
        own = self.cluster_id[node]
        return is_internal and bool(own) and cluster_id != own

    # --- BGPPeers

    def _of_peers(self, peers: Sequence[BGPPeer]) -> list[Peering]:
        if not peers:
            return []
        told = self._neighbours(peers)
        found: list[Peering] = []
        for node, neighbours in told.items():
            for each in neighbours.values():
                other = self.holder.get(each.address)
                why = self._why_not(node, each, other, told)
                if why:
                    self.unanswered.append(Unanswered(each.peer.name, node, each.address, why))
                elif other is not None:
                    found.append(self._end(node, other, each))
                else:
                    switch = self.topology.switch_of(node)
                    found += [self._end(node, switch, each), self._with_switch(node, each.address, switch)[1]]
        return found

    def _neighbours(self, peers: Sequence[BGPPeer]) -> dict[str, dict[str, _Neighbour]]:
        """What each node is told of its neighbours, by address."""
        told: dict[str, dict[str, _Neighbour]] = {node.name: {} for node in self.nodes}

        def tell(node: str, each: _Neighbour) -> None:
            own = self.address[node]
            if own is not None and each.address != own:
                told[node].setdefault(each.address, each)

        is_of_all = [not peer.node and not peer.node_selector for peer in peers]
        ordered = [peer for peer, of_all in zip(peers, is_of_all, strict=True) if of_all]
        ordered += [peer for peer, of_all in zip(peers, is_of_all, strict=True) if not of_all]
        for peer in ordered:
            of_all = not peer.node and not peer.node_selector
            for node in self._owners(peer):
                for each in self._targets(peer):
                    own = self.address[node]
                    waits = of_all and bool(peer.peer_ip) and each.address in self.holder and each.address > (own or "")
                    tell(node, _Neighbour(each.address, each.as_number, peer, each.cluster_id, waits))
        for peer in peers:
            if peer.is_reversed:
                for node in self._named(peer):
                    for other in self._owners(peer):
                        address = self.address[other]
                        if address is not None:
                            back = _Neighbour(address, self.numbers[other], peer, self.cluster_id[other])
                            tell(node, back)
        return told

    def _owners(self, peer: BGPPeer) -> list[str]:
        """The nodes that have a BGPPeer."""
        if peer.node:
            return [peer.node] if peer.node in self.address else []
        return self._matching(peer.node_selector)

    def _matching(self, text: str) -> list[str]:
        matches = selector(text)
        return [node.name for node in self.nodes if matches(node.labels)]

    def _targets(self, peer: BGPPeer) -> Iterator[_Neighbour]:
        if not peer.peer_selector:
            if peer.peer_ip and (6 if ":" in peer.peer_ip else 4) == self.family:
                yield _Neighbour(peer.peer_ip, peer.as_number or 0, peer, "")
            return
        for name in self._matching(peer.peer_selector):
            address = self.address[name]
            if address is not None:
                yield _Neighbour(address, self.numbers[name], peer, self.cluster_id[name])

    def _named(self, peer: BGPPeer) -> list[str]:
        """The nodes that a BGPPeer names as neighbours."""
        if peer.peer_selector:
            return self._matching(peer.peer_selector)
        name = self.holder.get(peer.peer_ip)
        return [name] if name is not None and self.numbers[name] == peer.as_number else []

    def _why_not(
        self, node: str, each: _Neighbour, other: str | None, told: Mapping[str, Mapping[str, _Neighbour]]
    ) -> str:
        """Why a node gets no session with a neighbour; empty where it gets one."""
        own = self.address[node]
        if other is not None:
            back = told[other].get(own or "")
            if back is None:
                return f"{other} is not told to peer with {node}"
            number, whose = self.numbers[other], other
        else:
            switch = self.topology.switch_of(node)
            if not switch or each.address not in self.topology.addresses(switch):
                return f"no node has that address, nor has {switch or 'a switch'}, which {node} hangs on"
            back, number, whose = None, self.numbers[switch], switch
        if each.as_number != number:
            return f"{whose} is of AS {number}, not {each.as_number}"
        if back is not None and back.as_number != self.numbers[node]:
            return f"{node} is of AS {self.numbers[node]}, which {other} takes for {back.as_number}"
        return ""

    def _end(self, node: str, other: str, told: _Neighbour) -> Peering:
        """A node's end of a session, with what the BGPPeer says of it."""
        own, peer = self.address[node], told.peer
        assert own is not None
        internal = self.numbers[other] == self.numbers[node]
        keeps = peer.next_hop_mode == "Auto" and peer.keep_original_next_hop and not internal
        return Peering(
            node, other, own, told.address, self.numbers[other], internal,
            remote_is_client=self._is_client(node, internal, told.cluster_id),
            allowed_own_as=peer.num_allowed_local_as_numbers,
            next_hop_mode="Keep" if keeps else peer.next_hop_mode,
            filters=tuple(self.filters[name] for name in peer.filters if name in self.filters),
            is_passive=told.is_passive,
            restart_ps=peer.restart_ps, keepalive_ps=peer.keepalive_ps,
        )  # fmt: skip
