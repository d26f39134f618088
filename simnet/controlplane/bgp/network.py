"""The speakers and sessions that a wiring makes of a fabric, and their exchange of paths until nothing changes.

`converge` passes every path over every session, in rounds: the plain statement of what `steady.py` computes by role,
used to check it and, later, fed with messages one by one by the engine.
Source: RFC 4271, 9; docs/models/routing.md for the wirings.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from simnet.controlplane.bgp.decision import select_paths
from simnet.controlplane.bgp.origins import speaker_as_numbers
from simnet.controlplane.bgp.path import Path, Peering, Speaker, Withheld
from simnet.controlplane.bgp.policy import export_path, import_path, refused, withheld
from simnet.controlplane.bgp.sessions import Sessions, Unanswered
from simnet.controlplane.bgp.topology import Topology
from simnet.errors import ModelError
from simnet.model.calico import BGPPeer, CalicoSettings, FabricSettings
from simnet.model.cluster import Block, ClusterNode
from simnet.model.fabric import DeviceKind, Fabric
from simnet.model.iptables.ruleset import IPNetwork

_MOST_ROUNDS = 64
UNRESOLVED_METRIC = 0x80000000  # BIRD: the next hop is reached through a gateway


@dataclass(frozen=True, slots=True)
class BgpNetwork:
    """Speakers by name, and both ends of every session."""

    speakers: Mapping[str, Speaker]
    peerings: tuple[Peering, ...]
    topology: Topology
    family: int
    unanswered: tuple[Unanswered, ...] = ()  # neighbours of BGPPeers that nobody is

    def igp_metric(self, speaker: str, next_hop: str) -> int | None:
        """0: on a connected segment; UNRESOLVED_METRIC: through the default route; None: unreachable."""
        if self.topology.reaches_directly(speaker, next_hop):
            return 0
        return UNRESOLVED_METRIC if self.topology.gateway(speaker, self.family) is not None else None


def bgp_network(
    fabric: Fabric, nodes: Sequence[ClusterNode], calico: CalicoSettings, settings: FabricSettings, family: int = 4,
    blocks: Sequence[Block] = (), extra: Sequence[BGPPeer | tuple[str, str]] = (),
) -> BgpNetwork:  # fmt: skip
    """Return who peers with whom: nodes with switches and each other, switches over wires; `extra` BGPPeers too.

    Switches tell each other, and no node, what they are connected to. No node passes on a prefix inside a block of its
    own, not even an address that another borrowed from it (calico_aggr in bird_aggr.cfg).
    """
    topology, wiring = Topology(fabric), calico.wiring
    numbers = speaker_as_numbers(nodes, fabric, wiring)
    switches = [device for device in fabric.devices if device.kind is DeviceKind.SWITCH]
    numbers |= {device.name: device.as_number or 0 for device in switches}
    sessions = Sessions(topology, nodes, numbers, calico, settings, family)
    peerings = sessions.all(extra)
    if any(True for _ in topology.switch_links(family)):
        among = {device.name for device in switches}
        underlay = frozenset(prefix for _, prefix in topology.underlay() if prefix.version == family)
        peerings = [each if each.remote in among else replace(each, untold=underlay) for each in peerings]
    within: dict[str, set[IPNetwork]] = {}
    for block in blocks:
        within.setdefault(block.node, set()).update(ipaddress.ip_network(address) for address, _ in block.borrowed)
    held = {name: frozenset(prefixes) for name, prefixes in within.items() if prefixes}
    peerings = [replace(each, aggregated=held[each.local]) if each.local in held else each for each in peerings]
    speakers: dict[str, Speaker] = {}
    for device in switches:
        router_id = topology.router_id(device.name, family)  # and its cluster's: internal peers are its clients
        speakers[device.name] = Speaker(
            device.name, device.as_number or 0, router_id, router_id, settings.ecmp_width, settings.multipath_relax
        )
    for node in nodes:
        text = node.route_reflector_cluster_id
        cluster = int(ipaddress.IPv4Address(text)) if text else None
        speakers[node.name] = Speaker(node.name, numbers[node.name], topology.router_id(node.name, family), cluster)
    return BgpNetwork(speakers, tuple(peerings), topology, family, tuple(sessions.unanswered))


def converge(
    network: BgpNetwork, originated: Mapping[str, Sequence[IPNetwork]]
) -> dict[str, dict[IPNetwork, tuple[Path, ...]]]:
    """Return each speaker's Loc-RIB: by prefix, the best path and those merged with it.

    `originated`: the prefixes that each speaker tells of by itself. Raises ModelError if the exchange does not settle.
    """
    own = {name: {prefix: Path() for prefix in originated.get(name, ())} for name in network.speakers}
    reverse = {(peering.local, peering.remote): peering for peering in network.peerings}
    adj_rib_in: dict[str, dict[IPNetwork, dict[str, Path]]] = {name: {} for name in network.speakers}
    loc_rib: dict[str, dict[IPNetwork, tuple[Path, ...]]] = {}
    for _ in range(_MOST_ROUNDS):
        chosen = {name: _decide(network, name, own[name], adj_rib_in[name]) for name in network.speakers}
        if chosen == loc_rib:
            return chosen
        loc_rib = chosen
        adj_rib_in = {name: {} for name in network.speakers}
        for peering in network.peerings:
            sender, receiver = network.speakers[peering.local], network.speakers[peering.remote]
            far_end = reverse[peering.remote, peering.local]
            for prefix, paths in loc_rib[sender.name].items():
                told = withheld(peering, prefix, paths[0]) or export_path(sender, peering, paths[0])
                if isinstance(told, Withheld) or refused(far_end, prefix, told):
                    continue
                taken = import_path(receiver, far_end, sender, told)
                if isinstance(taken, Path):
                    adj_rib_in[receiver.name].setdefault(prefix, {})[sender.name] = taken
    raise ModelError(f"BGP did not settle in {_MOST_ROUNDS} rounds")


def _decide(
    network: BgpNetwork, name: str, own: Mapping[IPNetwork, Path], learned: Mapping[IPNetwork, Mapping[str, Path]]
) -> dict[IPNetwork, tuple[Path, ...]]:
    rib = {}
    for prefix in {**own, **learned}:
        paths = [own[prefix]] if prefix in own else list(learned[prefix].values())
        selected = select_paths(network.speakers[name], paths, lambda hop: network.igp_metric(name, hop))
        if selected:
            rib[prefix] = selected
    return rib
